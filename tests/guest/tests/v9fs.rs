//! The guest kernel's own 9P client, and its file systems, on disks of ours.

use outboard_guest::Guest;

const SCRIPT: &str = include_str!("v9fs.sh");
/// Bytes of the disk.
const BYTES: u64 = 96 << 20;

#[test]
fn the_kernels_9p_client_reads_writes_and_partitions_a_simulated_disk() {
    let report = Guest::new("v9fs-sim")
        .variable("SOURCE", "--sim /tmp/disk.img")
        .variable("BYTES", &BYTES.to_string())
        .run(&format!("truncate -s {BYTES} /tmp/disk.img\n{SCRIPT}"))
        .unwrap();
    let log = report.text("serve.log").unwrap_or_default();
    assert_eq!(report.code, 0, "{report}--- the server\n{log}");
    assert!(report.stdout.ends_with("\ndone\n"), "{report}");
}
