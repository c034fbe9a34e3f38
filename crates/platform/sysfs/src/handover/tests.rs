use super::*;
use crate::testing::{FakeKernel, MadeUp};
use outboard_pci::Address;

const HBA: &str = "0000:00:1f.2";
const SMBUS: &str = "0000:00:1f.3";
const ISA: &str = "0000:00:1f.0";
const BRIDGE: &str = "0000:00:1c.0";

fn at(address: &str) -> Address {
    address.parse().unwrap()
}

/// A machine with a controller alone in its group, and VFIO's driver.
fn machine() -> MadeUp {
    let made = MadeUp::new();
    made.function(HBA, 0x8086_2922, 0x01_06_01);
    made.driver(HBA, "ahci");
    made.group(HBA, 7);
    std::fs::create_dir_all(made.path(VFIO_FOLDER)).unwrap();
    made
}

/// The same, with other functions in its group.
fn shared() -> MadeUp {
    let made = machine();
    for (address, class, driver) in [
        (SMBUS, 0x0c_05_00, Some("i801_smbus")),
        (ISA, 0x06_01_00, None),
        (BRIDGE, 0x06_04_00, Some("pcieport")),
    ] {
        made.function(address, 0x8086_2918, class);
        made.group(address, 7);
        driver.inspect(|driver| made.driver(address, driver));
    }
    made
}

fn kernel(made: &MadeUp) -> FakeKernel<'_> {
    let mut kernel = FakeKernel::new(made);
    for (address, driver) in [(HBA, "ahci"), (SMBUS, "i801_smbus")] {
        kernel.native.insert(address.to_owned(), driver.to_owned());
    }
    kernel
}

fn driver(made: &MadeUp, address: &str) -> Option<String> {
    made.machine().function(at(address)).unwrap().driver
}

fn steps(plan: &Plan) -> Vec<String> {
    plan.steps().iter().map(ToString::to_string).collect()
}

fn bind(
    made: &MadeUp,
    addresses: &[&str],
    options: BindOptions,
    kernel: &mut FakeKernel<'_>,
) -> Result<Plan, HandoverError> {
    let addresses: Vec<_> = addresses.iter().map(|address| at(address)).collect();
    let plan = made.machine().plan_bind(&addresses, options, kernel)?;
    plan.carry_out(&made.machine(), kernel, &mut |_| ())?;
    Ok(plan)
}

fn unbind(
    made: &MadeUp,
    persist: bool,
    kernel: &mut FakeKernel<'_>,
) -> Result<Plan, HandoverError> {
    let plan = made.machine().plan_unbind(&[at(HBA)], UnbindOptions { persist })?;
    plan.carry_out(&made.machine(), kernel, &mut |_| ())?;
    Ok(plan)
}

/// Why binding the controller is refused, whatever it would take; nothing is changed by it.
fn refusal(made: &MadeUp, options: BindOptions, kernel: &mut FakeKernel<'_>) -> String {
    let before = made.everything();
    let error = bind(made, &[HBA], options, kernel).unwrap_err().to_string();
    assert_eq!(made.everything(), before, "{error}");
    error
}

fn refused(made: &MadeUp) -> String {
    let mut kernel = kernel(made);
    let error = refusal(made, BindOptions::default(), &mut kernel);
    assert_eq!(kernel.log, [""; 0]);
    error
}

const PERSIST: BindOptions = BindOptions { whole_group: false, persist: true };
const GROUP: BindOptions = BindOptions { whole_group: true, persist: false };

#[test]
fn a_function_goes_to_vfio_and_comes_back() {
    let made = machine();
    let before = made.everything();
    let mut kernel = kernel(&made);
    bind(&made, &[HBA], BindOptions::default(), &mut kernel).unwrap();
    assert_eq!(driver(&made, HBA).as_deref(), Some(VFIO_DRIVER));
    assert_eq!(made.machine().persisted(at(HBA)), None, "for now only");
    unbind(&made, false, &mut kernel).unwrap();
    assert_eq!(made.everything(), before);
    let device = format!("/sys/bus/pci/devices/{HBA}");
    assert_eq!(
        kernel.log,
        [
            format!("vfio-pci > {device}/driver_override"),
            format!("{HBA} > /sys/bus/pci/drivers/ahci/unbind"),
            format!("{HBA} > /sys/bus/pci/drivers_probe"),
            format!(" > {device}/driver_override"),
            format!("{HBA} > /sys/bus/pci/drivers/vfio-pci/unbind"),
            format!("{HBA} > /sys/bus/pci/drivers_probe"),
        ]
    );
}

#[test]
fn a_plan_says_what_it_would_do_and_does_nothing() {
    let made = machine();
    std::fs::remove_dir(made.path(VFIO_FOLDER)).unwrap();
    let before = made.everything();
    let kernel = kernel(&made);
    let plan = made.machine().plan_bind(&[at(HBA)], PERSIST, &kernel).unwrap();
    assert_eq!(
        steps(&plan),
        [
            "modprobe vfio-pci",
            "echo vfio-pci > /sys/bus/pci/devices/0000:00:1f.2/driver_override",
            "echo 0000:00:1f.2 > /sys/bus/pci/drivers/ahci/unbind",
            "echo 0000:00:1f.2 > /sys/bus/pci/drivers_probe",
            "echo vfio-pci > /etc/driverctl.d/pci-0000:00:1f.2",
        ]
    );
    assert_eq!(made.everything(), before);
    assert_eq!(kernel.log, [""; 0]);
}

#[test]
fn a_module_that_is_missing_is_loaded() {
    let made = machine();
    std::fs::remove_dir(made.path(VFIO_FOLDER)).unwrap();
    let mut kernel = kernel(&made);
    kernel.modules.push("vfio-pci".into());
    bind(&made, &[HBA], BindOptions::default(), &mut kernel).unwrap();
    assert_eq!(kernel.log[0], "modprobe vfio-pci");
    assert_eq!(driver(&made, HBA).as_deref(), Some(VFIO_DRIVER));
}

#[test]
fn the_module_of_address_spaces_is_loaded_where_there_is_one() {
    const LOAD: &str = "modprobe vfio_iommu_type1";
    let made = machine();
    made.write("/proc/sys/kernel/osrelease", "6.12.0\n");
    let list = "kernel/drivers/vfio/vfio_iommu_type1.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n";
    let mut kernel = kernel(&made);
    kernel.modules.push("vfio_iommu_type1".into());
    let plan = |kernel: &FakeKernel<'_>| {
        steps(&made.machine().plan_bind(&[at(HBA)], BindOptions::default(), kernel).unwrap())
    };
    made.write("/lib/modules/6.12.0/modules.dep", "kernel/fs/ext4/ext4.ko.xz:\n");
    assert!(!plan(&kernel).contains(&LOAD.to_owned()), "the kernel has iommufd, or nothing");
    made.write("/lib/modules/6.12.0/modules.dep", list);
    bind(&made, &[HBA], BindOptions::default(), &mut kernel).unwrap();
    assert_eq!(kernel.log[0], LOAD);
    assert_eq!(plan(&kernel), [""; 0], "once");
    std::fs::remove_dir(made.path("/sys/module/vfio_iommu_type1")).unwrap();
    assert_eq!(plan(&kernel), [LOAD], "what is bound needs it");
}

#[test]
fn a_module_that_there_is_not_is_an_error_and_nothing_was_done() {
    let made = machine();
    std::fs::remove_dir(made.path(VFIO_FOLDER)).unwrap();
    let error = refusal(&made, BindOptions::default(), &mut kernel(&made));
    assert_eq!(
        error,
        "`modprobe vfio-pci` failed: modprobe: FATAL: Module vfio-pci not found. Everything was put \
         back as it was. `outboard doctor` says where the module should be"
    );
}

#[test]
fn a_driver_that_does_not_take_the_function_leaves_all_as_it_was() {
    let made = machine();
    let mut kernel = kernel(&made);
    kernel.refusing.push(VFIO_DRIVER.into());
    let error = refusal(&made, BindOptions::default(), &mut kernel);
    assert!(error.contains("vfio-pci did not take 0000:00:1f.2"), "{error}");
    assert!(error.contains("Everything was put back"), "{error}");
    assert_eq!(driver(&made, HBA).as_deref(), Some("ahci"));
}

#[test]
fn every_write_may_fail_and_all_is_as_it_was() {
    for broken in ["drivers/ahci/unbind", "drivers_probe", "driver_override", "pci-0000:00:1f.3"] {
        let made = shared();
        made.write("/etc/driverctl.d/pci-0000:00:1f.2", "uio_pci_generic\n");
        let before = made.everything();
        let mut kernel = kernel(&made);
        kernel.broken.push(broken.into());
        let options = BindOptions { whole_group: true, persist: true };
        let error = bind(&made, &[HBA], options, &mut kernel).unwrap_err().to_string();
        assert_eq!(made.everything(), before, "{broken}: {error}");
        assert!(error.contains("Everything was put back"), "{broken}: {error}");
    }
}

#[test]
fn what_cannot_be_put_back_is_said_with_what_to_try() {
    let made = machine();
    let mut kernel = kernel(&made);
    kernel.refusing.extend([VFIO_DRIVER.to_owned(), "ahci".to_owned()]);
    let error = bind(&made, &[HBA], BindOptions::default(), &mut kernel).unwrap_err().to_string();
    let by_hand = "try: echo 0000:00:1f.2 > /sys/bus/pci/drivers/ahci/bind";
    assert!(
        error.contains("Not everything could be put back") && error.contains(by_hand),
        "{error}"
    );
}

#[test]
fn whoever_is_not_the_superuser_changes_nothing() {
    let made = machine();
    let mut kernel = kernel(&made);
    kernel.is_superuser = false;
    let error = refusal(&made, BindOptions::default(), &mut kernel);
    assert!(error.contains("Run it as the superuser (sudo)"), "{error}");
    assert_eq!(kernel.log, [""; 0]);
}

#[test]
fn without_an_iommu_nothing_is_bound_unless_the_kernel_was_told_to() {
    let made = machine();
    std::fs::remove_file(made.path(MadeUp::device(HBA)).join("iommu_group")).unwrap();
    let error = refused(&made);
    assert!(error.contains("is in no IOMMU group") && error.contains("outboard doctor"), "{error}");
    made.write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
    bind(&made, &[HBA], BindOptions::default(), &mut kernel(&made)).unwrap();
}

#[test]
fn addresses_where_nothing_is_and_bridges_are_refused() {
    let made = shared();
    let kernel = kernel(&made);
    let plan = |address| made.machine().plan_bind(&[at(address)], GROUP, &kernel);
    let error = plan("00:05.0").unwrap_err().to_string();
    assert!(error.contains("no PCI function at 0000:00:05.0"), "{error}");
    let error = plan(BRIDGE).unwrap_err().to_string();
    assert!(error.contains("is a bridge between PCI buses"), "{error}");
    std::fs::remove_file(made.path(MadeUp::device(HBA)).join("driver_override")).unwrap();
    let error = plan(HBA).unwrap_err().to_string();
    assert!(error.contains("Linux 3.16"), "{error}");
}

#[test]
fn a_shared_group_is_refused_with_what_else_has_to_move() {
    let made = shared();
    assert_eq!(
        refused(&made),
        "0000:00:1f.2 is in IOMMU group 7 with 0000:00:1f.3 (driver i801_smbus): the IOMMU cannot \
         keep them apart, so they move together or not at all. To move all of the group, bridges \
         excepted: outboard bind --group 0000:00:1f.2"
    );
    // Naming all of them is as good.
    bind(&made, &[HBA, SMBUS, HBA], BindOptions::default(), &mut kernel(&made)).unwrap();
    assert_eq!(driver(&made, SMBUS).as_deref(), Some(VFIO_DRIVER));
}

#[test]
fn a_whole_group_moves_but_for_its_bridges() {
    let made = shared();
    let plan = bind(&made, &[HBA], GROUP, &mut kernel(&made)).unwrap();
    assert_eq!(plan.moves().len(), 2);
    for (address, expected) in [
        (HBA, Some(VFIO_DRIVER)),
        (SMBUS, Some(VFIO_DRIVER)),
        (ISA, None),
        (BRIDGE, Some("pcieport")),
    ] {
        assert_eq!(driver(&made, address).as_deref(), expected, "{address}");
    }
    // A bridge to ISA is in the way as soon as it has a driver.
    let made = shared();
    made.driver(ISA, "lpc_ich");
    assert!(refused(&made).contains("0000:00:1f.0 (driver lpc_ich)"));
    bind(&made, &[HBA], GROUP, &mut kernel(&made)).unwrap();
    assert_eq!(driver(&made, ISA).as_deref(), Some(VFIO_DRIVER));
}

#[test]
fn what_another_function_of_the_group_is_used_for_counts() {
    let made = shared();
    made.function("0000:00:1f.5", 0x8086_2926, 0x01_06_01);
    made.driver("0000:00:1f.5", "ahci");
    made.group("0000:00:1f.5", 7);
    made.disk("0000:00:1f.5", "sdb", "8:16", None);
    made.mount("8:16", "/srv", "/dev/sdb");
    let error = refusal(&made, GROUP, &mut kernel(&made));
    assert!(
        error.contains("0000:00:1f.5: sdb is mounted at /srv; to end that: umount /srv"),
        "{error}"
    );
}

#[test]
fn what_is_in_use_is_refused_with_what_to_do() {
    let made = machine();
    made.disk(HBA, "sda", "8:0", None);
    made.disk(HBA, "sda1", "8:1", Some("sda"));
    made.mount("8:1", "/mnt/my\\040data", "/dev/sda1");
    assert_eq!(
        refused(&made),
        "the system uses what would go away, so nothing was done:\n  0000:00:1f.2: sda1 is mounted \
         at /mnt/my data; to end that: umount '/mnt/my data'"
    );
}

#[test]
fn what_goes_away_is_known_beforehand() {
    let made = machine();
    made.disk(HBA, "sda", "8:0", None);
    made.disk(HBA, "sda1", "8:1", Some("sda"));
    let plan = made.machine().plan_bind(&[at(HBA)], PERSIST, &kernel(&made)).unwrap();
    assert_eq!(plan.moves()[0].users.disks, ["sda"]);
}

#[test]
fn binding_twice_is_nothing_to_do() {
    let made = machine();
    let mut kernel = kernel(&made);
    bind(&made, &[HBA], PERSIST, &mut kernel).unwrap();
    let again = bind(&made, &[HBA], PERSIST, &mut kernel).unwrap();
    assert_eq!(steps(&again), [""; 0]);
    unbind(&made, true, &mut kernel).unwrap();
    assert_eq!(steps(&unbind(&made, true, &mut kernel).unwrap()), [""; 0]);
}

#[test]
fn what_is_persisted_is_as_driverctl_reads_it_and_goes_away_again() {
    let made = machine();
    let mut kernel = kernel(&made);
    bind(&made, &[HBA], PERSIST, &mut kernel).unwrap();
    let file = made.path("/etc/driverctl.d/pci-0000:00:1f.2");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "vfio-pci\n");
    unbind(&made, false, &mut kernel).unwrap();
    assert!(file.exists(), "it was not asked for");
    unbind(&made, true, &mut kernel).unwrap();
    assert!(!file.exists());
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 0);
}

#[test]
fn what_somebody_else_persisted_or_named_is_left() {
    let made = machine();
    made.attribute(HBA, "driver_override", "uio_pci_generic");
    made.write("/etc/driverctl.d/pci-0000:00:1f.2", "uio_pci_generic\n");
    assert_eq!(steps(&unbind(&made, true, &mut kernel(&made)).unwrap()), [""; 0]);
}

#[test]
fn a_function_that_a_process_has_is_not_taken_from_it() {
    for node in ["/dev/vfio/7", "/dev/vfio/noiommu-7", "/dev/vfio/devices/vfio0"] {
        let made = machine();
        let mut kernel = kernel(&made);
        bind(&made, &[HBA], BindOptions::default(), &mut kernel).unwrap();
        made.attribute(HBA, "vfio-dev/vfio0/dev", "244:0");
        made.process(4711, "outboard", node);
        let error = unbind(&made, false, &mut kernel).unwrap_err().to_string();
        assert!(error.contains("0000:00:1f.2 is with process 4711 (outboard)"), "{error}");
        assert_eq!(driver(&made, HBA).as_deref(), Some(VFIO_DRIVER));
    }
}

#[test]
fn only_processes_that_may_have_the_function_are_in_the_way() {
    let made = machine();
    let mut kernel = kernel(&made);
    bind(&made, &[HBA], BindOptions::default(), &mut kernel).unwrap();
    made.process(10, "qemu", "/dev/vfio/8");
    made.process(11, "waiting", "/dev/vfio/vfio");
    made.process(12, "other", "anon_inode:[vfio-device]");
    made.write("/proc/12/fdinfo/3", "vfio-device-syspath: /sys/devices/pci0000:00/0000:00:02.0\n");
    assert!(made.machine().plan_unbind(&[at(HBA)], UnbindOptions::default()).is_ok());
    made.write("/proc/12/fdinfo/3", "vfio-device-syspath: /sys/devices/pci0000:00/0000:00:1f.2\n");
    let error = unbind(&made, false, &mut kernel).unwrap_err().to_string();
    assert!(error.contains("process 12 (other)"), "{error}");
    // A kernel that does not say which function it is.
    made.write("/proc/12/fdinfo/3", "flags: 02\n");
    let error = unbind(&made, false, &mut kernel).unwrap_err().to_string();
    assert!(error.contains("process 12 (other)"), "{error}");
}

#[test]
fn a_function_that_was_left_half_way_is_given_back() {
    let made = machine();
    std::fs::remove_file(made.path(MadeUp::device(HBA)).join("driver")).unwrap();
    made.attribute(HBA, "driver_override", "vfio-pci");
    unbind(&made, false, &mut kernel(&made)).unwrap();
    assert_eq!(driver(&made, HBA).as_deref(), Some("ahci"));
}
