//! Whether VFIO is there, and may be used.

use super::{Finding, Viewer};
use crate::function::VFIO_DRIVER;
use crate::machine::{names, text};
use crate::modules::{CONTAINER, IOMMUFD, TYPE1_MODULE};
use crate::{Function, Machine, SysfsError, System};

/// What there is to say about what is missing where `iommufd` is not.
const UNNEEDED: &str = "not there; this kernel has iommufd, which does as well";
/// What `udev` knows the nodes of groups by.
const GROUPS: &str = "SUBSYSTEM==\"vfio\"";

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
        findings.extend(node(machine, function, viewer, system)?);
    }
    findings.push(iommufd(machine, viewer, system)?);
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
    let has_containers = machine.path(CONTAINER).exists();
    Ok(match (is_known, is_missed) {
        (true, true) => {
            let text = "not loaded, and what is bound cannot be used without it";
            Finding::trouble(TOPIC, text).next(LOAD)
        }
        (true, false) => {
            Finding::note(TOPIC, "not loaded yet; `outboard bind` loads it").next(LOAD)
        }
        (false, _) if machine.path(IOMMUFD).exists() => Finding::note(TOPIC, UNNEEDED),
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
    const TOPIC: &str = CONTAINER;
    let node = machine.path(CONTAINER);
    if !node.exists() {
        return match is_loaded {
            true if machine.path(IOMMUFD).exists() => Finding::note(TOPIC, UNNEEDED),
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

/// What does without groups and containers.
fn iommufd(machine: &Machine, viewer: &Viewer, system: &dyn System) -> Result<Finding, SysfsError> {
    const TOPIC: &str = "iommufd";
    let node = machine.path(IOMMUFD);
    if !node.exists() {
        let text = "not offered by this kernel; groups and containers do as well";
        return Ok(Finding::note(TOPIC, text));
    }
    if machine.goes_by_iommufd()? && !system.may_write(&node) {
        let text = format!("you may not open {IOMMUFD}");
        return Ok(forbidden(TOPIC, text, IOMMUFD, "KERNEL==\"iommu\"", &viewer.user));
    }
    Ok(Finding::good(TOPIC, format!("offered by this kernel ({IOMMUFD})")))
}

/// The node of a function that is bound, and whether it can be opened.
pub(super) fn node(
    machine: &Machine,
    function: &Function,
    viewer: &Viewer,
    system: &dyn System,
) -> Result<Option<Finding>, SysfsError> {
    let address = function.address;
    let Some(group) = function.group else { return Ok(None) };
    let goes_by_iommufd = machine.goes_by_iommufd()?;
    // Without an IOMMU the node has another name.
    let unsafe_name = format!("/dev/vfio/noiommu-{group}");
    let device = function.vfio_device.as_ref().filter(|_| goes_by_iommufd);
    let (topic, name, rule) = match device {
        Some(name) => {
            ("device file", format!("/dev/vfio/devices/{name}"), "SUBSYSTEM==\"vfio-dev\"")
        }
        None if machine.path(&unsafe_name).exists() => ("group", unsafe_name, GROUPS),
        None => ("group", format!("/dev/vfio/{group}"), GROUPS),
    };
    let node = machine.path(&name);
    if !node.exists() {
        let text = format!("{address} is bound, and there is no {name}");
        let next = "in a container, pass it in; elsewhere, see that /dev is a devtmpfs";
        return Ok(Some(Finding::trouble(topic, text).next(next)));
    }
    if system.may_write(&node) {
        let text = format!("{address} is bound, and you may open {name}");
        return Ok(Some(Finding::good(topic, text)));
    }
    let text = format!("{address} is bound, and you may not open {name}");
    Ok(Some(forbidden(topic, text, &name, rule, &viewer.user)))
}

/// A node that the user may not open. `rule` is what `udev` knows such nodes by.
fn forbidden(topic: &'static str, text: String, node: &str, rule: &str, user: &str) -> Finding {
    Finding::trouble(topic, text).next(format!("sudo chown {user} {node}")).next(format!(
        "for good: echo '{rule}, OWNER=\"{user}\"' | sudo tee -a /etc/udev/rules.d/70-outboard.rules"
    ))
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
