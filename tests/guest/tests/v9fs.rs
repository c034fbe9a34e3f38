//! The guest kernel's own 9P client, and its file systems, on disks of ours.

use outboard_guest::{Device, Disk, Guest};

const SCRIPT: &str = include_str!("v9fs.sh");
/// Bytes of the disk.
const BYTES: u64 = 96 << 20;

/// Runs the script after what makes `$SOURCE`.
fn run(guest: Guest, preparation: &str) {
    let guest = guest.variable("BYTES", &BYTES.to_string());
    let report = guest.run(&format!("{preparation}\n{SCRIPT}")).unwrap();
    let log = report.text("serve.log").unwrap_or_default();
    assert_eq!(report.code, 0, "{report}--- the server\n{log}");
    assert!(report.stdout.ends_with("\ndone\n"), "{report}");
    let fault = report.kernel_log.lines().find(|line| line.contains("fault addr"));
    assert_eq!(fault, None, "the device kept to its memory");
}

#[test]
fn the_kernels_9p_client_reads_writes_and_partitions_a_simulated_disk() {
    let preparation = "truncate -s $BYTES /tmp/disk.img; SOURCE='--sim /tmp/disk.img'";
    run(Guest::new("v9fs-sim"), preparation);
}

#[test]
fn the_kernels_9p_client_reads_writes_and_partitions_a_disk_behind_a_real_controller() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(BYTES).unwrap();
    let guest = Guest::new("v9fs-pci").device(Device::Ahci(vec![Disk::Image(image.path().into())]));
    run(guest, "outboard bind $AHCI || exit; SOURCE=\"--pci $AHCI\"");
    // What the guest's kernel wrote through us is on the medium.
    let label = std::fs::read(image.path()).unwrap();
    assert_eq!(&label[512..520], b"EFI PART");
}
