//! What a guest has, and what becomes of it.

use outboard_guest::{Device, Disk, Guest, GuestError, Virtio};
use std::time::Duration;

const MIB: u64 = 1 << 20;

#[test]
fn a_guest_has_its_devices_and_an_iommu_and_brings_everything_back() {
    let given = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(given.path(), "from outside\n").unwrap();
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(MIB).unwrap();
    let guest = Guest::new("devices")
        .device(Device::Ahci(vec![Disk::Null(64 * MIB), Disk::Image(image.path().into())]))
        .device(Device::Nvme(Disk::Null(32 * MIB)))
        .device(Device::Ahci(vec![Disk::Null(16 * MIB)]))
        .device(Device::VirtioBlk(Disk::Null(8 * MIB), Virtio::CONFINED))
        .device(Device::VirtioNet(Virtio::CONFINED))
        .device(Device::E1000)
        .device(Device::E1000e)
        .file("given", given.path())
        .variable("GREETING", "it's here");
    let report = guest
        .run(
            r#"
            set -eu
            for address in $AHCI $NVME $VIRTIO_BLK $VIRTIO_NET $E1000 $E1000E; do
              device=/sys/bus/pci/devices/$address
              driver=$(readlink $device/driver)
              group=$(readlink $device/iommu_group)
              echo "$address $(cat $device/vendor):$(cat $device/device) ${driver##*/} ${group##*/}"
            done >$RESULTS/functions
            # Controllers look for their disks at the same time: which is sda is anybody's guess.
            for disk in /sys/block/sd* /sys/block/nvme* /sys/block/vd*; do
              function=$(readlink -f $disk | cut -d/ -f5)
              echo "$function $(cat $disk/size)"
              if [ "$(cat $disk/size)" = 2048 ]; then
                printf 'written in the guest' | dd of=/dev/${disk##*/} conv=notrunc,fsync 2>/dev/null
              fi
            done >$RESULTS/disks
            cat given
            echo "$GREETING" >&2
            outboard --version
            modprobe -a vfio-pci vfio_iommu_type1
            test -c /dev/vfio/vfio
            mkdir $RESULTS/below
            dd if=/dev/zero bs=1M count=2 of=$RESULTS/below/zeros 2>/dev/null
            exit 7
            "#,
        )
        .unwrap();
    assert_eq!(report.code, 7, "{report}");
    let functions = report.text("functions").unwrap();
    let functions: Vec<Vec<&str>> = functions.lines().map(|l| l.split(' ').collect()).collect();
    let kinds: Vec<_> = functions.iter().map(|fields| (fields[0], fields[1], fields[2])).collect();
    let expected = [
        ("0000:00:04.0", "0x8086:0x2922", "ahci"),
        ("0000:00:06.0", "0x8086:0x2922", "ahci"),
        ("0000:00:05.0", "0x1b36:0x0010", "nvme"),
        ("0000:00:07.0", "0x1af4:0x1042", "virtio-pci"),
        ("0000:00:08.0", "0x1af4:0x1041", "virtio-pci"),
        ("0000:00:09.0", "0x8086:0x100e", "e1000"),
        ("0000:00:0a.0", "0x8086:0x10d3", "e1000e"),
    ];
    assert_eq!(kinds, expected);
    // Each is alone in its group, so that each can be taken from the kernel alone.
    let groups: std::collections::BTreeSet<u32> =
        functions.iter().map(|fields| fields[3].parse().unwrap()).collect();
    assert_eq!(groups.len(), functions.len(), "{functions:?}");
    let disks = report.text("disks").unwrap();
    let mut disks: Vec<&str> = disks.lines().collect();
    disks.sort_unstable();
    let expected = [
        "0000:00:04.0 131072",
        "0000:00:04.0 2048",
        "0000:00:05.0 65536",
        "0000:00:06.0 32768",
        "0000:00:07.0 16384",
    ];
    assert_eq!(disks, expected, "functions and the sectors of their disks");
    assert!(std::fs::read(image.path()).unwrap().starts_with(b"written in the guest"));
    assert!(report.stdout.starts_with("from outside\noutboard "), "{report}");
    assert_eq!(report.stderr, "it's here\n", "{report}");
    assert_eq!(std::fs::metadata(report.file("below/zeros")).unwrap().len(), 2 * MIB);
    assert!(report.kernel_log.contains("DMAR: Intel(R) Virtualization"), "{report}");
    assert!(report.boot_time < report.time, "{report}");
}

#[test]
fn a_script_that_hangs_is_ended_and_shows_what_it_did() {
    let guest = Guest::new("hang").limit(Duration::from_secs(2));
    let error = guest.run("echo it began; sleep 1000").unwrap_err();
    assert!(matches!(error, GuestError::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("took longer than 2s"), "{error}");
    assert!(error.to_string().contains("it began"), "{error}");
}

#[test]
fn a_panic_is_reported_as_one() {
    let guest = Guest::new("panic");
    let error = guest.run("echo before; echo c >/proc/sysrq-trigger; sleep 1000").unwrap_err();
    let GuestError::Panicked { message, log } = &error else { panic!("{error}") };
    assert!(message.contains("sysrq triggered crash"), "{error}");
    assert!(log.contains("before"), "{error}");
}

#[test]
fn a_guest_that_ends_before_its_script_is_an_error() {
    let guest = Guest::new("reboot");
    let error = guest.run("reboot -f").unwrap_err();
    assert!(matches!(error, GuestError::NoResult(_)), "{error}");
}

#[test]
fn what_a_guest_needs_and_is_missing_is_named() {
    let error = Guest::new("missing").tool("no-such-tool").run("true").unwrap_err().to_string();
    assert!(error.starts_with("no-such-tool is missing"), "{error}");
}
