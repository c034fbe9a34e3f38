//! Whether there is an IOMMU, whether it is in use, and whether it sees to interrupts, too.

use super::Finding;
use crate::machine::{attribute, text};
use crate::modules::TYPE1_MODULE;
use crate::{Machine, SysfsError};

/// What the processors say of themselves, as far as it matters here.
struct Processors {
    intel: bool,
    amd: bool,
    /// They are those of a virtual machine.
    virtual_machine: bool,
}

pub(super) fn check(machine: &Machine, findings: &mut Vec<Finding>) -> Result<(), SysfsError> {
    let processors = Processors::read(machine)?;
    let command_line = text(&machine.path("/proc/cmdline"))?.unwrap_or_default();
    let words: Vec<&str> = command_line.split_whitespace().collect();
    // Without an IOMMU, VFIO makes groups of its own if it was told to.
    let groups = machine.groups()?.into_iter().filter(|group| !machine.is_unconfined(*group));
    let groups = groups.count();
    if groups == 0 {
        findings.push(missing(machine, &processors, &words));
    } else {
        findings.push(Finding::good("IOMMU", format!("in use, with {groups} groups")));
        if processors.intel || processors.amd {
            findings.push(interrupts(machine, &words)?);
        }
    }
    if machine.allows_no_iommu() {
        let text = "VFIO was told to hand out devices that no IOMMU confines \
                    (enable_unsafe_noiommu_mode). Such a device, or a bug in its driver, can reach \
                    all memory of this machine";
        let off = "echo N > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
        findings.push(Finding::note("no-IOMMU mode", text).next(off));
    }
    Ok(())
}

impl Processors {
    fn read(machine: &Machine) -> Result<Self, SysfsError> {
        let text = text(&machine.path("/proc/cpuinfo"))?.unwrap_or_default();
        let flags = text.lines().find(|line| line.starts_with("flags"));
        let flags = flags.and_then(|line| line.split_once(':')).map_or("", |(_, flags)| flags);
        Ok(Self {
            intel: text.contains("GenuineIntel"),
            amd: text.contains("AuthenticAMD"),
            virtual_machine: flags.split_whitespace().any(|flag| flag == "hypervisor"),
        })
    }
}

/// Why no IOMMU is in use: the machine has none, the firmware hides it, or the kernel was not told
/// to use it.
fn missing(machine: &Machine, processors: &Processors, words: &[&str]) -> Finding {
    let has_table = |name: &str| machine.path("/sys/firmware/acpi/tables").join(name).exists();
    let reboot = "reboot, then: outboard doctor";
    let off = ["intel_iommu=off", "amd_iommu=off", "iommu=off"];
    if let Some(word) = words.iter().find(|word| off.contains(word)) {
        let text = format!("the kernel was told not to use it ({word})");
        return Finding::trouble("IOMMU", text)
            .next(format!("remove {word} from the kernel's command line (grub: /etc/default/grub)"))
            .next(reboot);
    }
    // The tables in which firmware describes it: DMAR is Intel's, IVRS is AMD's.
    if has_table("DMAR") && !words.contains(&"intel_iommu=on") {
        return Finding::trouble(
            "IOMMU",
            "this machine has one (VT-d), which the kernel does not use",
        )
        .next(
            "add intel_iommu=on to the kernel's command line (Debian, Ubuntu: \
                 GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub; Fedora: grubby \
                 --update-kernel=ALL --args=intel_iommu=on)",
        )
        .next(reboot);
    }
    if has_table("DMAR") || has_table("IVRS") {
        let text = "the firmware describes one, and the kernel does not use it";
        return Finding::trouble("IOMMU", text).next("dmesg | grep -i -e DMAR -e IOMMU -e AMD-Vi");
    }
    if processors.virtual_machine {
        let text = "there is none: this is a virtual machine that was given none";
        return Finding::trouble("IOMMU", text)
            .next(
                "give it one (QEMU: -machine q35,kernel-irqchip=split -device \
                 intel-iommu,intremap=on,caching-mode=on; libvirt: <iommu model='intel'>)",
            )
            .next("add intel_iommu=on to the command line of its kernel");
    }
    let (name, parameter) = match (processors.intel, processors.amd) {
        (true, _) => ("VT-d", Some("intel_iommu=on")),
        (_, true) => ("AMD-Vi or IOMMU", None),
        _ => ("SMMU or IOMMU", None),
    };
    let text = "the firmware offers none: it is switched off there, or this machine has none";
    let finding = Finding::trouble("IOMMU", text)
        .next(format!("switch {name} on in the firmware's setup (not the same as VT-x or SVM)"));
    match parameter.filter(|parameter| !words.contains(parameter)) {
        Some(parameter) => finding.next(format!("add {parameter} to the kernel's command line")),
        None => finding,
    }
}

impl Machine {
    /// Whether the IOMMU checks interrupts, so that no device can send another's.
    pub fn remaps_interrupts(&self) -> Result<bool, SysfsError> {
        let interrupts = text(&self.path("/proc/interrupts"))?.unwrap_or_default();
        // The names of interrupt controllers begin so behind the IOMMU: IR-IO-APIC, IR-PCI-MSI.
        Ok(interrupts.split_whitespace().any(|word| word.starts_with("IR-")))
    }
}

/// Whether the IOMMU checks interrupts, without which VFIO hands out no device: it could send any.
fn interrupts(machine: &Machine, words: &[&str]) -> Result<Finding, SysfsError> {
    const TOPIC: &str = "interrupt remapping";
    if machine.remaps_interrupts()? {
        return Ok(Finding::good(TOPIC, "in use"));
    }
    let module = if machine.goes_by_iommufd()? { "iommufd" } else { TYPE1_MODULE };
    let folder = format!("/sys/module/{module}/parameters");
    const UNSAFE: &str = "allow_unsafe_interrupts";
    if attribute(&machine.path(&folder), UNSAFE).as_deref() == Some("Y") {
        let text = "not in use, and VFIO was told to do without (allow_unsafe_interrupts). A device \
                    can send this machine any interrupt";
        return Ok(Finding::note(TOPIC, text));
    }
    let off = ["intremap=off", "nointremap", "noapic"];
    let finding = Finding::trouble(TOPIC, "not in use; VFIO hands out no device without it");
    let finding = match words.iter().find(|word| off.contains(word)) {
        Some(word) => finding.next(format!("remove {word} from the kernel's command line, reboot")),
        None => finding
            .next("switch interrupt remapping or x2APIC on in the firmware's setup")
            .next("dmesg | grep -i -e remapping -e x2apic"),
    };
    Ok(finding.next(format!(
        "or trust the device not to send wrong interrupts: modprobe {module}; echo Y > {folder}/{UNSAFE}"
    )))
}
