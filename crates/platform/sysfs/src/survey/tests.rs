use super::*;
use crate::testing::{FakeKernel, MadeUp};
use outboard_pci::Address;
use std::path::Path;

const HBA: &str = "0000:00:1f.2";
const NIC: &str = "0000:00:02.0";

/// A controller with a disk that has a partition, and a network interface.
fn machine() -> MadeUp {
    let made = MadeUp::new();
    made.function(HBA, 0x8086_2922, 0x01_06_01);
    made.disk(HBA, "sda", "8:0", None);
    made.disk(HBA, "sda1", "8:1", Some("sda"));
    made.function(NIC, 0x8086_10d3, 0x02_00_00);
    made.interface(NIC, "eth0");
    made
}

fn users(made: &MadeUp, address: &str, claimed: &[&str]) -> Users {
    let machine = made.machine();
    let function = machine.function(address.parse().unwrap()).unwrap();
    let mut kernel = FakeKernel::new(made);
    kernel.claimed = claimed.iter().map(ToString::to_string).collect();
    Survey::take(&machine).unwrap().users(&function, &kernel)
}

/// Each use of a function, with its remedy.
fn uses(made: &MadeUp, address: &str) -> Vec<String> {
    let users = users(made, address, &[]);
    users.uses.iter().map(|one| format!("{one}: {}", one.remedy())).collect()
}

#[test]
fn what_nobody_uses_is_idle() {
    let made = machine();
    made.virtual_disk("sdb", "8:16");
    made.mount("8:16", "/", "/dev/sdb");
    let users = users(&made, HBA, &["sdb"]);
    assert!(users.is_idle());
    assert_eq!(users.disks, ["sda"]);
    assert_eq!(uses(&made, NIC), [""; 0]);
}

#[test]
fn mounts_are_found_by_number_and_by_source() {
    let made = machine();
    made.mount("8:1", "/", "/dev/root");
    // btrfs has numbers of its own; the source may be a link.
    made.mount("0:50", "/home", "/dev/disk/by-label/home");
    made.link("/dev/disk/by-label/home", "/dev/sda");
    assert_eq!(
        uses(&made, HBA),
        [
            "sda is mounted at /home: umount /home",
            "sda1 is mounted at /: start the system from another disk"
        ]
    );
}

#[test]
fn other_devices_of_a_btrfs_file_system_are_in_use() {
    let made = machine();
    made.write("/sys/fs/btrfs/1234-abcd/devices/sda1/dev", "");
    let [found] = &uses(&made, HBA)[..] else { panic!() };
    assert!(
        found.starts_with("sda1 is part of the mounted btrfs file system 1234-abcd"),
        "{found}"
    );
}

#[test]
fn swap_is_found() {
    let made = machine();
    made.write(
        "/proc/swaps",
        "Filename\t\tType\t\tSize\tUsed\tPriority\n/dev/sda1  partition\t1\t0\t-2\n",
    );
    assert_eq!(uses(&made, HBA), ["sda1 is in use as swap: swapoff /dev/sda1"]);
}

#[test]
fn volumes_arrays_and_what_is_on_them_are_found() {
    let made = machine();
    let raid = made.virtual_disk("md0", "9:0");
    made.block_device("md0p1", "259:0", &raid.join("md0p1"));
    made.write(raid.join("md0p1/partition"), "1\n");
    made.holder("sda1", "md0");
    for (name, number, uuid, volume) in [
        ("dm-0", "253:0", "CRYPT-LUKS2-12-x", "secret"),
        ("dm-1", "253:1", "LVM-abc", "vg-home"),
        ("dm-2", "253:2", "mpath-3600", "mpatha"),
    ] {
        let folder = made.virtual_disk(name, number);
        made.write(folder.join("dm/uuid"), uuid);
        made.write(folder.join("dm/name"), volume);
    }
    let md0p1 = raid.join("md0p1");
    made.link(md0p1.join("holders/dm-0"), "/sys/devices/virtual/block/dm-0");
    made.holder("dm-0", "dm-1");
    made.holder("sda", "dm-2");
    made.mount("253:1", "/home", "/dev/mapper/vg-home");
    assert_eq!(
        uses(&made, HBA),
        [
            "sda is part of the multipath disk mpatha: multipath -f mpatha",
            "sda1 is part of the RAID array md0: mdadm --stop /dev/md0",
            "md0p1 is part of the encrypted volume secret: cryptsetup close secret",
            "dm-0 is part of the LVM volume vg-home: lvchange --activate n /dev/mapper/vg-home",
            "dm-1 is mounted at /home: umount /home",
        ]
    );
}

#[test]
fn loop_devices_and_caches_are_found() {
    let made = machine();
    let folder = made.virtual_disk("loop0", "7:0");
    made.write(folder.join("loop/backing_file"), "/dev/sda\n");
    let file = made.virtual_disk("loop1", "7:1");
    made.write(file.join("loop/backing_file"), "/var/image\n");
    made.virtual_disk("bcache0", "252:0");
    made.holder("sda1", "bcache0");
    assert_eq!(
        uses(&made, HBA),
        [
            "sda is part of the loop device loop0: losetup --detach /dev/loop0",
            "sda1 is part of the cache bcache0: echo 1 > /sys/block/bcache0/bcache/stop",
        ]
    );
}

#[test]
fn holders_that_hold_each_other_end() {
    let made = machine();
    made.virtual_disk("md0", "9:0");
    made.virtual_disk("md1", "9:1");
    made.holder("sda1", "md0");
    made.holder("md0", "md1");
    made.holder("md1", "md0");
    assert_eq!(uses(&made, HBA).len(), 3);
}

#[test]
fn what_the_kernel_lets_nobody_have_is_in_use() {
    let made = machine();
    let claims = |claimed: &[&str]| {
        let uses = users(&made, HBA, claimed).uses;
        uses.into_iter().map(|one| one.to_string()).collect::<Vec<_>>()
    };
    let by_the_kernel = "in use by the kernel (ZFS, or a mount in another namespace?)";
    assert_eq!(claims(&["sda"]), [format!("sda is {by_the_kernel}")]);
    assert_eq!(claims(&["sda", "sda1"]), [format!("sda1 is {by_the_kernel}")]);
}

#[test]
fn processes_that_have_a_disk_open_are_named() {
    let made = machine();
    made.process(99, "dd", "/dev/sda1");
    made.process(98, "dd", "/dev/null");
    made.process(std::process::id(), "ourselves", "/dev/sda");
    assert_eq!(uses(&made, HBA), ["sda1 is open in process 99 (dd): end process 99 (dd)"]);
}

#[test]
fn disks_of_an_nvme_subsystem_belong_to_its_controllers() {
    let made = MadeUp::new();
    for (address, controller) in [(HBA, "nvme0"), (NIC, "nvme1")] {
        made.function(address, 0x1b36_0010, 0x01_08_02);
        made.write(MadeUp::device(address).join("nvme").join(controller).join("state"), "live\n");
    }
    let subsystem = Path::new("/sys/devices/virtual/nvme-subsystem/nvme-subsys0");
    let controller = MadeUp::device(HBA).join("nvme/nvme0");
    made.link(subsystem.join("nvme0"), &controller);
    made.block_device("nvme0n1", "259:0", &subsystem.join("nvme0n1"));
    // The path to it over one controller has no device node.
    let hidden = controller.join("nvme0c0n1");
    made.block_device("nvme0c0n1", "0:0", &hidden);
    made.write(hidden.join("hidden"), "1\n");
    assert_eq!(users(&made, HBA, &[]).disks, ["nvme0n1"]);
    assert!(users(&made, NIC, &[]).disks.is_empty());
    made.mount("259:0", "/srv", "/dev/nvme0n1");
    assert_eq!(uses(&made, HBA), ["nvme0n1 is mounted at /srv: umount /srv"]);
}

const ROUTES: &str =
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

#[test]
fn the_default_route_is_found() {
    let made = machine();
    let route = "eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
    made.write("/proc/net/route", &format!("{ROUTES}{route}"));
    let found = uses(&made, NIC);
    assert!(found[0].starts_with("eth0 carries the default route: reach the network"), "{found:?}");
    assert_eq!(users(&made, NIC, &[]).interfaces, ["eth0"]);
}

#[test]
fn the_default_route_of_ipv6_is_found() {
    let made = machine();
    let route = |flags: &str, name: &str| {
        let none = "0".repeat(32);
        format!("{none} 00 {none} 00 {none} 00000400 00000001 00000000 {flags} {name}\n")
    };
    // One that refuses is no way.
    made.write("/proc/net/ipv6_route", &(route("00000203", "eth0") + &route("00000003", "lo")));
    assert_eq!(uses(&made, NIC), [""; 0]);
    made.write("/proc/net/ipv6_route", &route("00000003", "eth0"));
    assert!(uses(&made, NIC)[0].starts_with("eth0 carries the default route"));
}

#[test]
fn a_default_route_through_a_bridge_counts_for_its_ports() {
    let made = machine();
    let bridge = Path::new("/sys/devices/virtual/net/br0");
    made.interface_in(bridge, "br0");
    let port = MadeUp::device(NIC).join("net/eth0");
    made.link(port.join("upper_br0"), bridge);
    made.link(port.join("master"), bridge);
    assert_eq!(uses(&made, NIC), ["eth0 is up, and part of br0: ip link set eth0 nomaster"]);
    let route = "br0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
    made.write("/proc/net/route", &format!("{ROUTES}{route}"));
    assert!(uses(&made, NIC)[0].starts_with("eth0 carries the default route (through br0)"));
}

#[test]
fn an_interface_that_is_up_with_addresses_is_in_use() {
    let made = machine();
    // The link's own address and route are always there.
    made.write("/proc/net/if_inet6", "fe800000000000000000000000000001 02 40 20 80     eth0\n");
    assert_eq!(uses(&made, NIC), [""; 0]);
    made.write("/proc/net/if_inet6", "20010db8000000000000000000000001 02 40 00 80     eth0\n");
    assert_eq!(uses(&made, NIC), ["eth0 is up, with addresses: ip link set eth0 down"]);
    made.write(MadeUp::device(NIC).join("net/eth0/flags"), "0x1002\n");
    assert_eq!(uses(&made, NIC), [""; 0]);
    let route = "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
    made.write("/proc/net/route", &format!("{ROUTES}{route}"));
    made.write(MadeUp::device(NIC).join("net/eth0/flags"), "0x1003\n");
    assert_eq!(uses(&made, NIC), ["eth0 is up, with addresses: ip link set eth0 down"]);
}

#[test]
fn virtual_functions_are_a_use_of_their_physical_function() {
    let made = machine();
    made.attribute(NIC, "sriov_numvfs", "0");
    assert!(users(&made, NIC, &[]).is_idle());
    made.attribute(NIC, "sriov_numvfs", "4");
    let [found] = &users(&made, NIC, &[]).uses[..] else { panic!() };
    assert_eq!(*found, Use::VirtualFunctions { address: Address::new(0, 0, 2, 0), count: 4 });
}
