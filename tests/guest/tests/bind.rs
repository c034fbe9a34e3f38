//! Functions that are taken from the guest's kernel, and given back.

use outboard_guest::{Device, Disk, Guest};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

/// The program driverctl, unpacked from the distribution's package.
fn driverctl() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("driverctl");
    let program = folder.join("usr/sbin/driverctl");
    if !program.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        let mut fetch = Command::new("sh");
        let script = "{ apt-get download -q driverctl || { apt-get update -q && apt-get download -q \
            driverctl; }; } && dpkg-deb -x driverctl_*.deb .";
        let output = fetch.args(["-c", script]).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    program
}

#[test]
fn functions_go_to_vfio_unless_they_are_in_use_and_come_back() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let noise: Vec<u8> = (0..4 * MIB).map(|byte| ((byte * 31) >> 7) as u8).collect();
    std::fs::write(image.path(), noise).unwrap();
    let busy = tempfile::NamedTempFile::new().unwrap();
    busy.as_file().set_len(64 * MIB).unwrap();
    let report = Guest::new("bind")
        .device(Device::Ahci(vec![Disk::Image(busy.path().into())]))
        .device(Device::Ahci(vec![Disk::Image(image.path().into())]))
        .device(Device::E1000)
        .tool("bash")
        .file("driverctl", driverctl())
        .run(include_str!("bind.sh"))
        .unwrap();
    assert_eq!(report.code, 0, "{report}");
    assert_eq!(report.stdout, "done\n", "{report}");
    // The kernel neither lost a disk by accident nor had to wait for anyone.
    assert!(!report.kernel_log.contains("Call Trace"), "{report}");
}

#[test]
fn without_an_iommu_nothing_is_bound_or_served_and_doctor_says_why() {
    let report = Guest::new("bind-no-iommu")
        .without_iommu()
        .device(Device::Ahci(vec![Disk::Null(16 * MIB)]))
        .run(
            r#"
            outboard bind $AHCI; echo "bind $?"
            outboard doctor; echo "doctor $?"
            outboard doctor --json | grep '"topic":"IOMMU"'
            driver=$(readlink /sys/bus/pci/devices/$AHCI/driver)
            echo "driver ${driver##*/}"
            modprobe -a vfio-pci vfio_iommu_type1
            outboard serve --pci $AHCI; echo "serve $?"
            "#,
        )
        .unwrap();
    assert_eq!(report.code, 0, "{report}");
    let lines: Vec<&str> = report.stdout.lines().collect();
    for line in ["bind 1", "doctor 1", "driver ahci", "serve 1"] {
        assert!(lines.contains(&line), "{line}: {report}");
    }
    assert!(report.stderr.contains("is in no IOMMU group"), "{report}");
    assert!(report.stderr.contains("has no IOMMU in front of it"), "{report}");
    assert!(report.stdout.contains("trouble  IOMMU: there is none"), "{report}");
    assert!(report.stdout.contains("-device intel-iommu,intremap=on"), "{report}");
    assert!(
        report.stdout.contains(r#""kind":"finding","topic":"IOMMU","verdict":"trouble""#),
        "{report}"
    );
}
