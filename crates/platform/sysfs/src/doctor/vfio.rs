//! Whether VFIO is there, and may be used.

use super::{Finding, Viewer};
use crate::function::VFIO_DRIVER;
use crate::machine::{names, text};
use crate::modules::TYPE1_MODULE;
use crate::{Function, Machine, SysfsError, System};

pub(super) fn check(
    machine: &Machine,
    viewer: &Viewer,
    system: &dyn System,
    findings: &mut Vec<Finding>,
) -> Result<(), SysfsError> {
    let is_loaded = machine.path("/sys/bus/pci/drivers").join(VFIO_DRIVER).is_dir();
    findings.push(module(machine, is_loaded)?);
    findings.push(type1(machine)?);
    findings.push(container(machine, is_loaded, system));
    for function in machine.functions()?.iter().filter(|function| function.is_on_vfio()) {
        findings.extend(node(machine, function, viewer, system));
    }
    findings.push(if machine.path("/dev/iommu").exists() {
        Finding::good("iommufd", "offered by this kernel (/dev/iommu)")
    } else {
        Finding::note("iommufd", "not offered by this kernel; groups and containers do as well")
    });
    findings.extend(ids(machine)?);
    Ok(())
}

/// The module of VFIO's driver.
fn module(machine: &Machine, is_loaded: bool) -> Result<Finding, SysfsError> {
    const TOPIC: &str = "module vfio-pci";
    if is_loaded {
        return Ok(Finding::good(TOPIC, "loaded"));
    }
    let release = machine.release()?;
    match machine.comes_with(VFIO_DRIVER)? {
        Some(true) => {
            let text = "not loaded yet; `outboard bind` loads it";
            return Ok(Finding::note(TOPIC, text).next("modprobe vfio-pci"));
        }
        Some(false) => {}
        None => {
            let text = format!(
                "not loaded, and which modules there are is not known (there is no \
                 /lib/modules/{release}/modules.dep)"
            );
            let next = "install the modules of the running kernel";
            return Ok(Finding::trouble(TOPIC, text).next(next));
        }
    }
    let text = format!("the kernel {release} has none");
    Ok(Finding::trouble(TOPIC, text).next(format!(
        "install a kernel with CONFIG_VFIO_PCI (Debian: linux-image-amd64 rather than the one for \
         clouds; Ubuntu: linux-modules-extra-{release})"
    )))
}

/// The module of address spaces. It is said to be missing only where a server would miss it.
fn type1(machine: &Machine) -> Result<Finding, SysfsError> {
    const TOPIC: &str = "module vfio_iommu_type1";
    const LOAD: &str = "modprobe vfio_iommu_type1";
    if machine.has_type1() {
        return Ok(Finding::good(TOPIC, "loaded"));
    }
    let is_known = machine.comes_with(TYPE1_MODULE)? == Some(true);
    let is_missed = machine.functions()?.iter().any(Function::is_on_vfio);
    let has_containers = machine.path("/dev/vfio/vfio").exists();
    Ok(match (is_known, is_missed) {
        (true, true) => {
            let text = "not loaded, and what is bound cannot be used without it";
            Finding::trouble(TOPIC, text).next(LOAD)
        }
        (true, false) => {
            Finding::note(TOPIC, "not loaded yet; `outboard bind` loads it").next(LOAD)
        }
        (false, _) if machine.path("/dev/iommu").exists() => {
            Finding::note(TOPIC, "not there; this kernel has iommufd, which does as well")
        }
        (false, true) if has_containers => {
            let text = "not loaded, and the kernel's modules do not seem to have it; what is bound \
                        cannot be used without it";
            Finding::trouble(TOPIC, text)
                .next(LOAD)
                .next("if that finds none: install a kernel with CONFIG_VFIO_IOMMU_TYPE1")
        }
        (false, _) => Finding::note(TOPIC, "not loaded, and not among the kernel's modules"),
    })
}

/// The node through which groups get an address space.
fn container(machine: &Machine, is_loaded: bool, system: &dyn System) -> Finding {
    const TOPIC: &str = "/dev/vfio/vfio";
    let node = machine.path(TOPIC);
    if !node.exists() {
        return match is_loaded {
            true => Finding::trouble(TOPIC, "missing, though the module is loaded")
                .next("in a container, pass /dev/vfio in; elsewhere: modprobe vfio_iommu_type1"),
            false => Finding::note(TOPIC, "missing; it comes with the module"),
        };
    }
    if !system.may_write(&node) {
        return Finding::trouble(TOPIC, "you may not open it")
            .next("sudo chmod 0666 /dev/vfio/vfio");
    }
    Finding::good(TOPIC, "there, and you may open it")
}

/// The node of a function that is bound, if it cannot be opened.
pub(super) fn node(
    machine: &Machine,
    function: &Function,
    viewer: &Viewer,
    system: &dyn System,
) -> Option<Finding> {
    const TOPIC: &str = "group";
    let group = function.group?;
    let (address, name) = (function.address, format!("/dev/vfio/{group}"));
    // Without an IOMMU the node has another name.
    let unsafe_name = format!("/dev/vfio/noiommu-{group}");
    let name = if machine.path(&unsafe_name).exists() { unsafe_name } else { name };
    let node = machine.path(&name);
    if !node.exists() {
        let text = format!("{address} is bound, and there is no {name}");
        let next = "in a container, pass it in; elsewhere, see that /dev is a devtmpfs";
        return Some(Finding::trouble(TOPIC, text).next(next));
    }
    if system.may_write(&node) {
        return Some(Finding::good(TOPIC, format!("{address} is bound, and you may open {name}")));
    }
    let user = &viewer.user;
    let text = format!("{address} is bound, and you may not open {name}");
    Some(Finding::trouble(TOPIC, text).next(format!("sudo chown {user} {name}")).next(format!(
        "for good: echo 'SUBSYSTEM==\"vfio\", OWNER=\"{user}\"' | sudo tee \
             /etc/udev/rules.d/70-outboard.rules"
    )))
}

/// Functions that the module takes by itself, wherever it finds them.
fn ids(machine: &Machine) -> Result<Option<Finding>, SysfsError> {
    let mut found = Vec::new();
    let command_line = text(&machine.path("/proc/cmdline"))?.unwrap_or_default();
    let words = command_line.split_whitespace();
    let ids = words.filter_map(|word| {
        word.strip_prefix("vfio-pci.ids=").or_else(|| word.strip_prefix("vfio_pci.ids="))
    });
    found.extend(ids.map(|ids| format!("{ids} (the kernel's command line)")));
    let folder = machine.path("/etc/modprobe.d");
    for name in names(&folder)?.iter().filter(|name| name.ends_with(".conf")) {
        let Some(text) = text(&folder.join(name)).ok().flatten() else { continue };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["options", "vfio-pci" | "vfio_pci", options @ ..] = &words[..] {
                let ids = options.iter().filter_map(|option| option.strip_prefix("ids="));
                found.extend(ids.map(|ids| format!("{ids} (/etc/modprobe.d/{name})")));
            }
        }
    }
    let text =
        format!("vfio-pci takes all functions with these, when it is loaded: {}", found.join(", "));
    Ok((!found.is_empty()).then(|| Finding::note("vfio-pci's ids", text)))
}
