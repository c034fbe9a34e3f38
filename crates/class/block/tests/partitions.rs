//! The partition scanner against images that the usual tools have partitioned, and against
//! damaged ones.

use outboard_block::partition::{
    Copy, Damage, Kind, Partition, Scanner, Scheme, Step, Table, Warning,
};
use proptest::prelude::*;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Scans an image; sectors in `unreadable` cannot be read. Checks what every scan must keep to.
fn scan_with(image: &[u8], sector_bytes: usize, unreadable: &[u64]) -> Table {
    let total = (image.len() / sector_bytes) as u64;
    let mut scanner = Scanner::new(total, sector_bytes as u32);
    for _ in 0..600 {
        match scanner.step() {
            Step::Read { lba, sectors } => {
                assert!(sectors > 0 && lba + sectors <= total, "{lba}+{sectors} of {total}");
                assert!(sectors == 1 || sectors as usize * sector_bytes <= 1 << 20);
                let good = !(lba..lba + sectors).any(|sector| unreadable.contains(&sector));
                let bytes = lba as usize * sector_bytes..(lba + sectors) as usize * sector_bytes;
                scanner.supply(good.then(|| &image[bytes]));
            }
            Step::Done(table) => {
                let inside = |p: &Partition| p.sectors > 0 && p.first_lba + p.sectors <= total;
                assert!(table.partitions.iter().all(inside));
                return table;
            }
        }
    }
    panic!("the scan does not end");
}

fn scan(image: &[u8]) -> Table {
    scan_with(image, 512, &[])
}

fn run(command: &mut Command, input: &str) {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Where administrators' tools are.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let name = format!("{:?}", command.get_program());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An empty image of `mib` MiB, partitioned by `tool`.
fn image(mib: u64, tool: impl FnOnce(&Path)) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(mib << 20).unwrap();
    tool(file.path());
    std::fs::read(file.path()).unwrap()
}

fn sgdisk(mib: u64, arguments: &[&str]) -> Vec<u8> {
    image(mib, |path| run(Command::new("sgdisk").args(arguments).arg(path), ""))
}

fn sfdisk(mib: u64, script: &str) -> Vec<u8> {
    image(mib, |path| run(Command::new("sfdisk").arg(path), script))
}

fn places(table: &Table) -> Vec<(u32, u64, u64)> {
    table.partitions.iter().map(|p| (p.number, p.first_lba, p.sectors)).collect()
}

/// Three partitions, of which number 4 comes before number 2.
fn three() -> Vec<u8> {
    let arguments = [
        "-n",
        "1:2048:+10M",
        "-t",
        "1:ef00",
        "-c",
        "1:EFI système",
        "-n",
        "4:40960:49151",
        "-n",
        "2:65536:+1M",
    ];
    sgdisk(64, &arguments)
}

const THREE: [(u32, u64, u64); 3] = [(1, 2048, 20480), (2, 65536, 2048), (4, 40960, 8192)];

#[test]
fn a_gpt_by_sgdisk_is_read() {
    let table = scan(&three());
    assert_eq!((table.scheme, table.warnings.as_slice()), (Some(Scheme::Gpt), &[][..]));
    assert_eq!(places(&table), THREE);
    assert_eq!(table.partitions[0].label, "EFI système");
    let kind = table.partitions[0].kind.to_string();
    assert_eq!(kind, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
}

#[test]
fn a_gpt_with_4096_byte_sectors_is_read() {
    let image = image(64, |path| {
        let script = "g\nn\n1\n\n+10M\nn\n2\n\n+20M\nw\n";
        run(Command::new("fdisk").args(["-b", "4096"]).arg(path), script);
    });
    let table = scan_with(&image, 4096, &[]);
    assert_eq!((table.scheme, table.warnings.as_slice()), (Some(Scheme::Gpt), &[][..]));
    assert_eq!(places(&table), [(1, 256, 2560), (2, 2816, 5120)]);
    // In 512-byte sectors it is a disk with a protective MBR and no GPT.
    let wrong = Warning::BothDamaged(Damage::NoSignature, Damage::NoSignature);
    assert_eq!(scan(&image).warnings, [wrong]);
}

#[test]
fn primary_and_logical_partitions_by_sfdisk_are_read() {
    let script = "label: dos\nstart=2048,size=4096,type=83\nstart=8192,size=100000,type=5\n\
                  start=110000,size=2048,type=ef\nstart=10240,size=2048,type=82\n\
                  start=20480,size=1024,type=83\nstart=30720,size=4096,type=b\n";
    let table = scan(&sfdisk(64, script));
    assert_eq!((table.scheme, table.warnings.as_slice()), (Some(Scheme::Mbr), &[][..]));
    let expected =
        [(1, 2048, 4096), (3, 110_000, 2048), (5, 10240, 2048), (6, 20480, 1024), (7, 30720, 4096)];
    let mut found = places(&table);
    found.sort_unstable();
    assert_eq!(found, expected);
    let kinds: Vec<_> = table.partitions.iter().map(|p| p.kind).collect();
    assert!(kinds.contains(&Kind::Mbr(0xef)) && kinds.contains(&Kind::Mbr(0x0b)));
}

#[test]
fn many_logical_partitions_are_read() {
    let mut script = "label: dos\nstart=2048,size=259000,type=f\n".to_owned();
    (0..50).for_each(|i| script += &format!("start={},size=100,type=83\n", 4096 + i * 4096));
    let table = scan(&sfdisk(128, &script));
    assert_eq!(table.partitions.len(), 50);
    assert_eq!(places(&table)[49], (54, 4096 + 49 * 4096, 100));
}

#[test]
fn a_file_system_without_partitions_is_not_taken_for_a_table() {
    for tool in [&["mkfs.vfat"][..], &["mkfs.ext4", "-q", "-F"]] {
        let image = image(64, |path| run(Command::new(tool[0]).args(&tool[1..]).arg(path), ""));
        assert_eq!(scan(&image), Table::default(), "{tool:?}");
    }
    assert_eq!(scan(&[0; 4096 * 16]), Table::default());
}

/// Overwrites sectors from `lba` on.
fn spoil(image: &mut [u8], lba: usize, sectors: usize) {
    image[lba * 512..(lba + sectors) * 512].fill(0x5a);
}

#[test]
fn a_damaged_copy_is_replaced_by_the_other_and_named() {
    let good = three();
    let last = good.len() / 512 - 1;
    let damaged = |sector: usize, byte: usize| {
        let mut image = good.clone();
        image[sector * 512 + byte] ^= 1;
        scan(&image)
    };
    let check = |table: Table, copy, damage| {
        assert_eq!(places(&table), THREE);
        assert_eq!(table.warnings, [Warning::Damaged(copy, damage)]);
    };
    check(damaged(1, 0), Copy::Primary, Damage::NoSignature);
    check(damaged(1, 40), Copy::Primary, Damage::HeaderChecksum);
    check(damaged(2, 32), Copy::Primary, Damage::EntriesChecksum);
    check(damaged(last, 0), Copy::Backup, Damage::NoSignature);
    check(damaged(last, 72), Copy::Backup, Damage::HeaderChecksum);
    check(damaged(last - 32, 32), Copy::Backup, Damage::EntriesChecksum);
    check(scan_with(&good, 512, &[1]), Copy::Primary, Damage::Unreadable);
    check(scan_with(&good, 512, &[5]), Copy::Primary, Damage::Unreadable);
    check(scan_with(&good, 512, &[last as u64]), Copy::Backup, Damage::Unreadable);
}

#[test]
fn both_copies_damaged_give_no_partitions_and_a_way_out() {
    let mut image = three();
    let last = image.len() / 512 - 1;
    spoil(&mut image, 1, 1);
    spoil(&mut image, last - 32, 32);
    let table = scan(&image);
    assert_eq!((table.scheme, table.partitions.len()), (Some(Scheme::Gpt), 0));
    let expected = Warning::BothDamaged(Damage::NoSignature, Damage::EntriesChecksum);
    assert_eq!(table.warnings, [expected]);
    assert!(table.warnings[0].to_string().contains("testdisk"));
}

#[test]
fn a_disk_that_has_grown_is_noticed() {
    let mut image = three();
    image.resize(80 << 20, 0);
    let table = scan(&image);
    assert_eq!(places(&table), THREE);
    assert_eq!(table.warnings, [Warning::BackupNotAtEnd]);
}

#[test]
fn a_disk_that_has_shrunk_loses_what_is_outside() {
    let mut image = three();
    image.truncate(20 << 20);
    let table = scan(&image);
    // The primary's last usable sector is no longer there, so it is not believed.
    let expected = Warning::BothDamaged(Damage::HeaderNonsense, Damage::NoSignature);
    assert_eq!((table.partitions.len(), table.warnings), (0, vec![expected]));
}

#[test]
fn a_gpt_without_protective_mbr_is_read_but_a_real_mbr_wins() {
    let mut image = three();
    spoil(&mut image, 0, 1);
    let table = scan(&image);
    assert_eq!((places(&table), table.warnings), (THREE.to_vec(), vec![Warning::NoProtectiveMbr]));
    let mbr = sfdisk(64, "label: dos\nstart=2048,size=4096,type=83\n");
    image[..512].copy_from_slice(&mbr[..512]);
    let table = scan(&image);
    assert_eq!((table.scheme, places(&table)), (Some(Scheme::Mbr), vec![(1, 2048, 4096)]));
}

#[test]
fn copies_that_differ_are_noticed() {
    let (mut image, other) = (three(), sgdisk(64, &["-n", "1:4096:+10M"]));
    let last = image.len() - 33 * 512;
    image[last..].copy_from_slice(&other[last..]);
    let table = scan(&image);
    assert_eq!((places(&table), table.warnings), (THREE.to_vec(), vec![Warning::CopiesDiffer]));
}

#[test]
fn chains_that_loop_or_leave_their_partition_end() {
    let script = "label: dos\nstart=2048,size=100000,type=5\nstart=4096,size=1024,type=83\n\
                  start=20480,size=1024,type=83\n";
    let good = sfdisk(64, script);
    let links: Vec<_> = places(&scan(&good)).iter().map(|(_, first, _)| *first).collect();
    assert_eq!(links, [4096, 20480]);
    for next in [0u32, 1, 200_000, u32::MAX] {
        let mut image = good.clone();
        // The second entry of the first record of the chain points to the next record.
        image[2048 * 512 + 446 + 16 + 8..][..4].copy_from_slice(&next.to_le_bytes());
        let table = scan(&image);
        assert_eq!(places(&table), [(5, 4096, 1024)]);
        assert_eq!(table.warnings, [Warning::BrokenChain]);
    }
}

#[test]
fn partitions_outside_the_disk_are_left_out_and_overlaps_are_noticed() {
    let mut image = sfdisk(64, "label: dos\nstart=2048,size=4096\nstart=8192,size=8192\n");
    let entry = |index: usize| 446 + index * 16;
    image[entry(1) + 12..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    image.copy_within(entry(0)..entry(1), entry(2));
    let table = scan(&image);
    assert_eq!(places(&table), [(1, 2048, 4096), (3, 2048, 4096)]);
    assert_eq!(table.warnings, [Warning::OutsideDisk(2), Warning::Overlap(3)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn flipped_bits_never_break_a_scan(
        flips in prop::collection::vec((0usize..34 * 512, 0u8..8), 1..20),
        backup in any::<bool>(),
    ) {
        thread_local!(static GOOD: Vec<u8> = sgdisk(1, &["-a", "1", "-n", "1:50:99", "-n", "2:200:300"]));
        let mut image = GOOD.with(Clone::clone);
        let base = if backup { image.len() - 34 * 512 } else { 0 };
        flips.iter().for_each(|(at, bit)| image[base + at] ^= 1 << bit);
        let table = scan(&image);
        // One copy is whole, so unless the boot record was made to say otherwise, it is used.
        if backup {
            prop_assert_eq!(places(&table), [(1, 50, 50), (2, 200, 101)]);
        }
    }

    #[test]
    fn random_sectors_never_break_a_scan(
        seed in prop::collection::vec(any::<u8>(), 512),
        signature in any::<bool>(),
        sectors in 1usize..200,
    ) {
        let mut image: Vec<u8> = seed.iter().cycle().take(sectors * 512).copied().collect();
        if signature {
            for sector in image.chunks_mut(512) {
                sector[510..].copy_from_slice(&[0x55, 0xaa]);
                (0..4).for_each(|entry| sector[446 + entry * 16] &= 0x80);
            }
        }
        scan(&image);
    }
}
