//! Real PCI functions, as far as a guest's are: served through VFIO, with the guest's IOMMU on.

use outboard_guest::{Device, Disk, Guest, Report, Virtio, VirtioVersion, example};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

const COMMON: &str = include_str!("vfio/common.sh");
const MIB: u64 = 1 << 20;

fn run(guest: &Guest, script: &str) -> Report {
    let report = guest.run(&format!("{COMMON}\n{script}")).unwrap();
    assert_eq!(report.code, 0, "{report}");
    assert!(report.stdout.ends_with("done\n"), "{report}");
    report
}

/// An image full of noise.
fn noise(path: &Path) {
    let mut bytes = vec![0; 8 << 20];
    File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    File::create(path).unwrap().write_all(&bytes).unwrap();
}

#[test]
fn controllers_are_served_killed_pulled_out_and_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third, given] =
        ["disk1", "disk2", "disk3", "given"].map(|name| folder.path().join(name));
    noise(&first);
    std::fs::copy(&first, &given).unwrap();
    for empty in [&second, &third] {
        File::create(empty).unwrap().set_len(8 * MIB).unwrap();
    }
    let guest = Guest::new("vfio")
        .device(Device::Ahci(vec![Disk::Image(first.clone()), Disk::Null(1 << 40)]))
        .device(Device::Ahci(vec![Disk::Image(second.clone())]))
        .device(Device::VirtioBlk(Disk::Image(third.clone()), Virtio::CONFINED))
        .file("first.img", &given);
    let report = run(&guest, include_str!("vfio/serve.sh"));
    assert_eq!(report.stdout.matches("\"transfers_per_second\"").count(), 3, "{report}");
    let faults =
        report.kernel_log.lines().find(|line| line.contains("DMAR") && line.contains("fault addr"));
    assert_eq!(faults, None, "the controllers kept to their memory");
    for copy in [&second, &third] {
        assert!(std::fs::read(copy).unwrap() == std::fs::read(&given).unwrap());
    }
}

#[test]
fn virtio_functions_are_driven_if_the_iommu_confines_them() {
    let folder = tempfile::tempdir().unwrap();
    let [image, given] = ["disk", "given"].map(|name| folder.path().join(name));
    noise(&given);
    File::create(&image).unwrap().set_len(8 * MIB).unwrap();
    let packed = Virtio { packed: true, ..Virtio::CONFINED };
    let old = Virtio::unconfined;
    let disk = |virtio| Device::VirtioBlk(Disk::Null(MIB), virtio);
    let guest = Guest::new("vfio-virtio")
        .device(Device::VirtioBlk(Disk::Image(image), Virtio { queues: 4, ..packed.clone() }))
        .device(disk(old(VirtioVersion::Modern)))
        .device(disk(old(VirtioVersion::Transitional)))
        .device(disk(old(VirtioVersion::Legacy)))
        .device(Device::VirtioNet(Virtio::CONFINED))
        .device(Device::VirtioNet(packed))
        .device(Device::VirtioNet(Virtio::CONFINED))
        .device(Device::VirtioNet(old(VirtioVersion::Legacy)))
        .file("first.img", &given)
        .file("ping", example("outboard-vfio", "ping").unwrap());
    let report = run(&guest, include_str!("vfio/virtio.sh"));
    let fault = report.kernel_log.lines().find(|line| line.contains("fault addr"));
    assert_eq!(fault, None, "the devices kept to their memory");
}

#[test]
fn controllers_reach_the_memory_of_clients() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, given] = ["disk1", "disk2", "given"].map(|name| folder.path().join(name));
    noise(&first);
    std::fs::copy(&first, &given).unwrap();
    File::create(&second).unwrap().set_len(8 * MIB).unwrap();
    let guest = Guest::new("vfio-zero-copy")
        .device(Device::Ahci(vec![Disk::Image(first.clone()), Disk::Null(1 << 40)]))
        .device(Device::VirtioBlk(Disk::Image(second.clone()), Virtio::CONFINED))
        .tool("setpriv")
        .file("first.img", &given);
    let report = run(&guest, include_str!("vfio/zero_copy.sh"));
    let fault = report.kernel_log.lines().find(|line| line.contains("fault addr"));
    assert_eq!(fault, None, "the controllers kept to what they were let reach");
    let measured = report.stdout.matches("\"transfers_per_second\"").count();
    assert_eq!(measured, 2 * 2, "{report}");
    for disk in [&first, &second] {
        assert!(std::fs::read(disk).unwrap() == std::fs::read(&given).unwrap());
    }
}

#[test]
fn what_is_missing_is_named_with_what_to_do_next() {
    let guest = Guest::new("vfio-refused")
        .device(Device::Ahci(vec![Disk::Null(MIB)]))
        .device(Device::E1000)
        .tool("setpriv");
    run(&guest, include_str!("vfio/refused.sh"));
}

#[test]
fn stray_addresses_are_stopped_and_the_driver_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    noise(&image);
    let before = folder.path().join("before");
    std::fs::copy(&image, &before).unwrap();
    let guest = Guest::new("vfio-stray")
        .device(Device::Ahci(vec![Disk::Image(image)]))
        .file("before.img", &before)
        .file("stray", example("outboard-vfio", "stray").unwrap());
    let report = run(&guest, include_str!("vfio/stray.sh"));
    let log = |name: &str| report.text(name).unwrap_or_else(|| panic!("no {name}: {report}"));
    // Where QEMU's controller goes by itself: from a command list that it could not read, it takes
    // 0 for the address of a table, and what it did not get rid of it tries to write once more when
    // the next driver starts it.
    let mut elsewhere = vec!["0x0".to_owned()];
    for how in ["transfer", "received", "list"] {
        let address = log(&format!("{how}.address")).trim().to_owned();
        let kernel = log(&format!("{how}.dmesg"));
        let faults = kernel.lines().filter_map(|line| line.split_once(" fault addr "));
        let faults: Vec<_> = faults.filter_map(|(_, at)| at.split_whitespace().next()).collect();
        assert!(faults.contains(&&*address), "no fault at {address} in {how}: {kernel}{report}");
        elsewhere.push(address);
        let is_known = |at: &&str| elsewhere.iter().any(|known| known == at);
        assert!(faults.iter().all(is_known), "{how}: {faults:?} {elsewhere:?} {report}");
    }
    let said = log("list.log");
    for event in ["timed out", "HBA reset", "ready again"] {
        let line = |line: &str| line.starts_with("the driver: ") && line.ends_with(event);
        assert!(said.lines().any(line), "{event}: {said}{report}");
    }
}
