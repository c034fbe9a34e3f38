use super::*;
use crate::testing::{FakeKernel, MadeUp};

const HBA: &str = "0000:00:1f.2";

fn root() -> Viewer {
    Viewer { user: "root".into(), is_superuser: true, memlock_bytes: Some(65536) }
}

fn user(memlock_bytes: Option<u64>) -> Viewer {
    Viewer { user: "eve".into(), is_superuser: false, memlock_bytes }
}

/// A machine on which everything is well.
fn healthy() -> MadeUp {
    let made = MadeUp::new();
    made.function(HBA, 0x8086_2922, 0x01_06_01);
    made.group(HBA, 7);
    made.driver(HBA, "vfio-pci");
    for node in ["vfio", "7"] {
        made.write(format!("/dev/vfio/{node}"), "");
    }
    made.write("/dev/iommu", "");
    made.write("/proc/cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu vme\n");
    made.write("/proc/cmdline", "root=/dev/sda1 ro intel_iommu=on\n");
    made.write("/proc/interrupts", "  0:  2  IR-IO-APIC  2-edge  timer\n");
    made.write("/proc/sys/kernel/osrelease", "6.12.0\n");
    made.write("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "N\n");
    made
}

/// What is found under a topic.
fn find(made: &MadeUp, viewer: &Viewer, kernel: &FakeKernel<'_>, topic: &str) -> Finding {
    let findings = made.machine().diagnose(viewer, kernel).unwrap();
    let found = findings.iter().find(|finding| finding.topic == topic);
    found.unwrap_or_else(|| panic!("nothing about {topic}: {findings:#?}")).clone()
}

fn trouble(made: &MadeUp, topic: &str) -> Finding {
    let finding = find(made, &root(), &FakeKernel::new(made), topic);
    assert_eq!(finding.verdict, Verdict::Trouble, "{finding:?}");
    assert!(!finding.next.is_empty(), "{finding:?}");
    finding
}

fn without_groups() -> MadeUp {
    let made = healthy();
    std::fs::remove_dir_all(made.path("/sys/kernel/iommu_groups")).unwrap();
    made
}

#[test]
fn a_healthy_machine_has_no_trouble() {
    let made = healthy();
    let findings = made.machine().diagnose(&root(), &FakeKernel::new(&made)).unwrap();
    assert!(findings.iter().all(|one| one.verdict != Verdict::Trouble), "{findings:#?}");
    assert!(findings.iter().filter(|one| one.verdict == Verdict::Good).count() >= 8);
}

#[test]
fn an_iommu_that_the_kernel_does_not_use_needs_a_parameter() {
    let made = without_groups();
    made.write("/proc/cmdline", "ro\n");
    made.write("/sys/firmware/acpi/tables/DMAR", "");
    assert!(trouble(&made, "IOMMU").next[0].contains("add intel_iommu=on"));
    made.write("/proc/cmdline", "ro intel_iommu=off\n");
    assert!(trouble(&made, "IOMMU").next[0].contains("remove intel_iommu=off"));
    made.write("/proc/cmdline", "ro intel_iommu=on\n");
    assert!(trouble(&made, "IOMMU").next[0].contains("dmesg"));
}

#[test]
fn an_iommu_that_the_firmware_hides_needs_the_firmwares_setup() {
    let made = without_groups();
    let finding = trouble(&made, "IOMMU");
    assert!(finding.next[0].contains("switch VT-d on in the firmware's setup"), "{finding:?}");
    made.write("/proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags : fpu\n");
    assert!(trouble(&made, "IOMMU").next[0].contains("AMD-Vi"));
    made.write("/proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags\t: fpu hypervisor\n");
    let finding = trouble(&made, "IOMMU");
    assert!(finding.next[0].contains("-device intel-iommu,intremap=on"), "{finding:?}");
}

#[test]
fn groups_without_an_iommu_are_none() {
    let made = healthy();
    made.write("/sys/kernel/iommu_groups/7/name", "vfio-noiommu\n");
    made.write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
    trouble(&made, "IOMMU");
    let finding = find(&made, &root(), &FakeKernel::new(&made), "no-IOMMU mode");
    assert!(finding.text.contains("can reach all memory"), "{finding:?}");
}

#[test]
fn missing_interrupt_remapping_is_explained() {
    let made = healthy();
    made.write("/proc/interrupts", "  0:  2  IO-APIC  2-edge  timer\n");
    let finding = trouble(&made, "interrupt remapping");
    assert!(finding.next.last().unwrap().contains("allow_unsafe_interrupts"), "{finding:?}");
    made.write("/proc/cmdline", "intremap=off\n");
    assert!(trouble(&made, "interrupt remapping").next[0].contains("remove intremap=off"));
    made.write("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n");
    let finding = find(&made, &root(), &FakeKernel::new(&made), "interrupt remapping");
    assert_eq!(finding.verdict, Verdict::Note);
}

#[test]
fn a_missing_module_is_told_from_one_that_is_not_loaded() {
    let made = healthy();
    std::fs::remove_file(made.path(MadeUp::device(HBA)).join("driver")).unwrap();
    std::fs::remove_dir(made.path("/sys/bus/pci/drivers/vfio-pci")).unwrap();
    assert!(trouble(&made, "module vfio-pci").text.contains("/lib/modules/6.12.0/modules.dep"));
    let list = "/lib/modules/6.12.0/modules.dep";
    made.write(list, "kernel/drivers/ata/ahci.ko.xz: kernel/drivers/ata/libahci.ko.xz\n");
    let finding = trouble(&made, "module vfio-pci");
    assert!(finding.next[0].contains("linux-modules-extra-6.12.0"), "{finding:?}");
    made.write(list, "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n");
    let finding = find(&made, &root(), &FakeKernel::new(&made), "module vfio-pci");
    assert_eq!(finding.next, ["modprobe vfio-pci"]);
}

#[test]
fn the_module_of_address_spaces_is_missed_by_what_is_bound() {
    const TOPIC: &str = "module vfio_iommu_type1";
    let made = healthy();
    let verdict = || find(&made, &root(), &FakeKernel::new(&made), TOPIC).verdict;
    assert_eq!(verdict(), Verdict::Good);
    std::fs::remove_dir_all(made.path("/sys/module/vfio_iommu_type1")).unwrap();
    assert_eq!(verdict(), Verdict::Note, "iommufd is there");
    std::fs::remove_file(made.path("/dev/iommu")).unwrap();
    assert!(trouble(&made, TOPIC).next[1].contains("CONFIG_VFIO_IOMMU_TYPE1"));
    let list = "kernel/drivers/vfio/vfio_iommu_type1.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n";
    made.write("/lib/modules/6.12.0/modules.dep", list);
    assert_eq!(trouble(&made, TOPIC).next, ["modprobe vfio_iommu_type1"]);
    std::fs::remove_file(made.path(MadeUp::device(HBA)).join("driver")).unwrap();
    assert_eq!(verdict(), Verdict::Note, "nothing is bound yet");
}

#[test]
fn missing_nodes_and_permissions_have_a_remedy() {
    let made = healthy();
    let mut kernel = FakeKernel::new(&made);
    kernel.is_superuser = false;
    let container = find(&made, &user(None), &kernel, "/dev/vfio/vfio");
    assert_eq!(container.next, ["sudo chmod 0666 /dev/vfio/vfio"]);
    let group = find(&made, &user(None), &kernel, "group");
    assert_eq!(group.verdict, Verdict::Trouble);
    assert_eq!(group.next[0], "sudo chown eve /dev/vfio/7");
    assert!(group.next[1].contains(r#"SUBSYSTEM=="vfio", OWNER="eve""#), "{group:?}");
    for node in ["vfio/vfio", "vfio/7", "iommu"] {
        std::fs::remove_file(made.path(format!("/dev/{node}"))).unwrap();
    }
    trouble(&made, "/dev/vfio/vfio");
    assert!(trouble(&made, "group").text.contains("there is no /dev/vfio/7"));
}

#[test]
fn where_there_is_iommufd_alone_its_nodes_are_looked_at() {
    let made = healthy();
    for node in ["vfio", "7"] {
        std::fs::remove_file(made.path(format!("/dev/vfio/{node}"))).unwrap();
    }
    made.write(MadeUp::device(HBA).join("vfio-dev/vfio3/dev"), "244:3\n");
    let missing = trouble(&made, "device file");
    assert!(missing.text.contains("there is no /dev/vfio/devices/vfio3"), "{missing:?}");
    made.write("/dev/vfio/devices/vfio3", "");
    let findings = made.machine().diagnose(&root(), &FakeKernel::new(&made)).unwrap();
    assert!(findings.iter().all(|one| one.verdict != Verdict::Trouble), "{findings:#?}");
    let mut kernel = FakeKernel::new(&made);
    kernel.is_superuser = false;
    for (topic, node, rule) in [
        ("iommufd", "/dev/iommu", r#"KERNEL=="iommu", OWNER="eve""#),
        ("device file", "/dev/vfio/devices/vfio3", r#"SUBSYSTEM=="vfio-dev", OWNER="eve""#),
    ] {
        let finding = find(&made, &user(None), &kernel, topic);
        assert_eq!(finding.verdict, Verdict::Trouble);
        assert_eq!(finding.next[0], format!("sudo chown eve {node}"));
        assert!(finding.next[1].contains(rule), "{finding:?}");
    }
    made.write("/proc/interrupts", "  0:  2  IO-APIC  2-edge  timer\n");
    let unsafe_interrupts = "/sys/module/iommufd/parameters/allow_unsafe_interrupts";
    assert!(
        trouble(&made, "interrupt remapping").next.last().unwrap().ends_with(unsafe_interrupts)
    );
    made.write(unsafe_interrupts, "Y\n");
    let finding = find(&made, &root(), &FakeKernel::new(&made), "interrupt remapping");
    assert_eq!(finding.verdict, Verdict::Note);
}

#[test]
fn where_containers_may_come_the_node_of_iommufd_is_not_missed() {
    let made = healthy();
    std::fs::remove_file(made.path("/dev/vfio/vfio")).unwrap();
    std::fs::remove_file(made.path(MadeUp::device(HBA)).join("driver")).unwrap();
    std::fs::remove_dir(made.path("/sys/bus/pci/drivers/vfio-pci")).unwrap();
    let mut kernel = FakeKernel::new(&made);
    kernel.is_superuser = false;
    let verdict = || find(&made, &user(None), &kernel, "iommufd").verdict;
    assert_eq!(verdict(), Verdict::Trouble, "the kernel has no containers");
    let list = "kernel/drivers/vfio/vfio_iommu_type1.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n";
    made.write("/lib/modules/6.12.0/modules.dep", list);
    assert_eq!(verdict(), Verdict::Good, "VFIO was not loaded yet");
}

#[test]
fn too_little_locked_memory_has_a_remedy_with_numbers() {
    let made = healthy();
    let find = |viewer: &Viewer| find(&made, viewer, &FakeKernel::new(&made), "locked memory");
    let finding = find(&user(Some(8 << 20)));
    assert_eq!(finding.verdict, Verdict::Trouble);
    assert!(finding.text.starts_with("you may lock 8192 KiB, and a server takes 262144 KiB"));
    assert_eq!(finding.next[0], "in this shell: sudo prlimit --pid $$ --memlock=536870912");
    assert!(finding.next[1].contains("echo 'eve - memlock 524288'"), "{finding:?}");
    assert!(finding.next[2].contains("LimitMEMLOCK=512M"), "{finding:?}");
    for viewer in [root(), user(None), user(Some(256 << 20))] {
        assert_eq!(find(&viewer).verdict, Verdict::Good, "{viewer:?}");
    }
}

#[test]
fn lockdown_ids_and_huge_pages_are_noted() {
    let made = healthy();
    made.write("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    made.write("/proc/cmdline", "vfio-pci.ids=10de:1b80\n");
    made.write("/etc/modprobe.d/vm.conf", "# x\noptions vfio-pci disable_vga=1 ids=8086:2922\n");
    made.write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64\n");
    made.write("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "60\n");
    let find = |topic| find(&made, &root(), &FakeKernel::new(&made), topic);
    assert!(find("lockdown").text.contains("(integrity)"));
    let ids = find("vfio-pci's ids").text;
    assert!(ids.contains("10de:1b80 (the kernel's command line)"), "{ids}");
    assert!(ids.contains("8086:2922 (/etc/modprobe.d/vm.conf)"), "{ids}");
    assert!(find("huge pages").text.contains("60 of 64"));
}

#[test]
fn a_function_is_told_whether_it_can_be_bound_and_by_whom_it_is_used() {
    let made = healthy();
    let diagnose = |topic: &str| {
        let machine = made.machine();
        let function = machine.function(HBA.parse().unwrap()).unwrap();
        let findings =
            machine.diagnose_function(&function, &root(), &FakeKernel::new(&made)).unwrap();
        let found = findings.iter().find(|finding| finding.topic == topic);
        found.unwrap_or_else(|| panic!("{findings:#?}")).clone()
    };
    made.process(99, "outboard", "/dev/vfio/7");
    assert_eq!(diagnose("users").text, "process 99 (outboard) has it");
    assert!(diagnose("reset").text.contains("cannot reset it"));
    made.write("/etc/driverctl.d/pci-0000:00:1f.2", "vfio-pci\n");
    assert_eq!(diagnose("at start").verdict, Verdict::Trouble);
    made.write("/usr/lib/udev/rules.d/05-driverctl.rules", "");
    assert_eq!(diagnose("at start").verdict, Verdict::Good);
    made.driver(HBA, "ahci");
    made.disk(HBA, "sda", "8:0", None);
    let binding = diagnose("binding");
    assert_eq!(binding.text, "it can be bound; sda would go away");
    assert_eq!(binding.next, ["outboard bind 0000:00:1f.2"]);
    made.mount("8:0", "/mnt", "/dev/sda");
    assert!(diagnose("binding").text.contains("sda is mounted at /mnt"));
    made.attribute(HBA, "power_state", "D3cold");
    assert!(diagnose("power").next[0].ends_with("power/control"));
}
