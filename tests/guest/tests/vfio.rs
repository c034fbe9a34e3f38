//! Real PCI functions, as far as a guest's are: served through VFIO, with the guest's IOMMU on.

use outboard_guest::{Device, Disk, Guest, Report, example};
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
    let [first, second, given] = ["disk1", "disk2", "given"].map(|name| folder.path().join(name));
    noise(&first);
    std::fs::copy(&first, &given).unwrap();
    File::create(&second).unwrap().set_len(8 * MIB).unwrap();
    let guest = Guest::new("vfio")
        .device(Device::Ahci(vec![Disk::Image(first.clone())]))
        .device(Device::Ahci(vec![Disk::Image(second.clone())]))
        .file("first.img", &given);
    let report = run(&guest, include_str!("vfio/serve.sh"));
    assert_eq!(report.stdout.matches("\"transfers_per_second\"").count(), 2, "{report}");
    let faults =
        report.kernel_log.lines().find(|line| line.contains("DMAR") && line.contains("fault addr"));
    assert_eq!(faults, None, "the controllers kept to their memory");
    assert!(std::fs::read(&second).unwrap() == std::fs::read(&given).unwrap());
}

#[test]
fn what_is_missing_is_named_with_what_to_do_next() {
    let guest = Guest::new("vfio-refused")
        .device(Device::Ahci(vec![Disk::Null(MIB)]))
        .device(Device::E1000)
        .tool("setpriv")
        .file("stray", example("outboard-vfio", "stray").unwrap());
    run(&guest, include_str!("vfio/refused.sh"));
}

#[test]
fn without_an_iommu_there_is_no_service() {
    let guest =
        Guest::new("vfio-alone").without_iommu().device(Device::Ahci(vec![Disk::Null(MIB)]));
    let script = r#"
        modprobe -a vfio-pci vfio_iommu_type1
        refuses "$AHCI has no IOMMU in front of it" outboard serve --pci $AHCI
        echo done
    "#;
    run(&guest, script);
}

#[test]
fn a_stray_transfer_is_stopped_and_registers_may_vanish() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    noise(&image);
    let guest = Guest::new("vfio-stray")
        .device(Device::Ahci(vec![Disk::Image(image)]))
        .file("stray", example("outboard-vfio", "stray").unwrap());
    let script = r#"
        modprobe -a vfio-pci vfio_iommu_type1
        take $AHCI
        ./stray $AHCI switch-off || fail "registers that are switched off"
        ./stray $AHCI || fail "a stray transfer"
        give $AHCI
        await test -b /dev/sda
        echo done
    "#;
    let report = run(&guest, script);
    assert!(report.stdout.contains("switched off and on\n"), "{report}");
    assert!(report.stdout.contains("recovered\n"), "{report}");
    let stopped = |line: &str| line.contains("DMAR:") && line.contains("fault addr 0x1000");
    assert!(report.kernel_log.lines().any(stopped), "{report}");
}
