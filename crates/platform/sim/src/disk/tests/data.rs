//! Reads, writes, the cache, TRIM, defects, and the queue's errors.

use super::harness::Host;
use crate::disk::{Abilities, Defect, DiskConfig, Lies, Mishap, TrimPromise};
use crate::sata::{Command, Reset, SataDevice};
use core::time::Duration;
use outboard_ahci::spec::ata::{DEVICE_FUA, DSM_TRIM, command};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::log::NcqError;
use std::collections::BTreeSet;
use zerocopy::FromBytes;

fn queued(code: u8, lba: u64, sectors: u16, tag: u8) -> RegisterH2d {
    RegisterH2d::command(code).lba48(lba).features(sectors).count(u16::from(tag) << 3)
}

fn read_log(log: u8) -> RegisterH2d {
    RegisterH2d::command(command::READ_LOG_EXT).lba48(log.into()).count(1)
}

fn range(lba: u64, sectors: u64) -> [u8; 8] {
    (lba | sectors << 48).to_le_bytes()
}

fn trim(host: &mut Host, ranges: &[(u64, u64)]) -> crate::sata::End {
    let mut data: Vec<u8> = ranges.iter().flat_map(|(lba, n)| range(*lba, *n)).collect();
    data.resize(data.len().next_multiple_of(512), 0);
    let blocks = (data.len() / 512) as u16;
    let fis = RegisterH2d::command(command::DATA_SET_MANAGEMENT).features(DSM_TRIM).count(blocks);
    host.run(fis, &data).0
}

#[test]
fn the_driver_reads_the_configuration_from_the_identification() {
    let mut host = Host::new(DiskConfig { sectors: 1 << 33, ..DiskConfig::modern(0) });
    let identify = host.identity().unwrap();
    assert_eq!(identify.identity().serial, "OBSIM0001");
    assert_eq!(identify.identity().model, "OUTBOARD SIMULATED SSD");
    assert_eq!((identify.sectors(), identify.queue_depth()), (1 << 33, 32));
    assert_eq!((identify.sector_bytes(), identify.physical_sector_bytes()), (512, 4096));
    assert!(identify.has_dma() && identify.has_lba48() && identify.has_fua());
    assert!(identify.has_flush_ext() && identify.has_logs() && identify.has_trim());
    assert!(identify.write_cache() && identify.trim_blocks() == 8);
    let mut host = Host::new(DiskConfig::ancient(70_000));
    let identify = host.identity().unwrap();
    assert_eq!((identify.sectors(), identify.queue_depth()), (70_000, 0));
    assert!(!identify.has_lba48() && !identify.has_fua() && !identify.has_flush_ext());
    assert!(!identify.has_logs() && !identify.has_trim() && identify.write_cache());
    let native = DiskConfig { sector_bytes: 4096, physical_exponent: 0, ..DiskConfig::modern(99) };
    let identify = Host::new(native).identity().unwrap();
    assert_eq!((identify.sector_bytes(), identify.physical_sector_bytes()), (4096, 4096));
}

#[test]
fn all_forms_of_transfers_reach_the_same_sectors() {
    let mut host = Host::new(DiskConfig::modern(100_000));
    let data = |fill: u8| vec![fill; 1024];
    host.good(RegisterH2d::command(command::WRITE_DMA).lba28(70_000).count(2), &data(1));
    host.good(RegisterH2d::command(command::WRITE_DMA_EXT).lba48(70_002).count(2), &data(2));
    host.good(RegisterH2d::command(command::WRITE_DMA_FUA_EXT).lba48(70_004).count(2), &data(3));
    host.good(queued(command::WRITE_FPDMA_QUEUED, 70_006, 2, 31), &data(4));
    assert_eq!(host.fills(70_000, 8), [1, 1, 2, 2, 3, 3, 4, 4]);
    let back = host.good(queued(command::READ_FPDMA_QUEUED, 70_003, 2, 0), &[]);
    assert_eq!((back[0], back[512], back.len()), (2, 3, 1024));
    let back = host.good(RegisterH2d::command(command::READ_DMA).lba28(70_000).count(0), &[]);
    assert_eq!(back.len(), 256 * 512);
    assert_eq!((host.disk.counters().writes, host.disk.counters().reads), (4, 3));
}

#[test]
fn what_a_disk_is_not_capable_of_it_aborts() {
    let mut host = Host::new(DiskConfig::ancient(1000));
    host.aborted(RegisterH2d::command(command::READ_DMA_EXT).count(1), &[]);
    host.aborted(queued(command::READ_FPDMA_QUEUED, 0, 1, 0), &[]);
    host.aborted(RegisterH2d::command(command::FLUSH_CACHE_EXT), &[]);
    host.aborted(read_log(0x10), &[]);
    assert_eq!(trim(&mut host, &[(0, 1)]).error, 4);
    let mut host = Host::new(DiskConfig { queue_depth: 8, ..DiskConfig::modern(1000) });
    host.aborted(queued(command::READ_FPDMA_QUEUED, 0, 1, 8), &[]);
    host.good(queued(command::READ_FPDMA_QUEUED, 0, 1, 7), &[]);
    let (end, _) = host.read(999, 2);
    assert_eq!((end.error, end.lba), (0x10, 999));
    assert_eq!(host.read(u64::MAX >> 16, 1).0.error, 0x10);
}

#[test]
fn a_power_cut_takes_or_leaves_each_cached_sector_and_nothing_that_is_durable() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let mut host = Host::seeded(DiskConfig::modern(1000), seed);
        host.write(10, 4, 1);
        assert!(!host.flush().is_bad());
        host.write(10, 4, 2);
        assert_eq!(host.fills(10, 4), [2; 4]);
        assert_eq!(host.disk.cached(), 4);
        host.reset(Reset::Hard);
        assert_eq!(host.fills(10, 4), [2; 4], "COMRESET takes nothing");
        host.cycle_power();
        let fills = host.fills(10, 4);
        assert!(fills.iter().all(|fill| matches!(fill, 1 | 2)), "{fills:?}");
        outcomes.insert(fills);
    }
    assert!(outcomes.contains(&vec![1; 4]) && outcomes.contains(&vec![2; 4]));
    assert!(outcomes.len() > 8, "writes are torn between sectors: {outcomes:?}");
}

#[test]
fn overwritten_cached_data_may_have_got_to_the_medium() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let mut host = Host::seeded(DiskConfig::modern(1000), seed);
        for fill in 1..=3 {
            host.write(7, 1, fill);
        }
        host.cycle_power();
        outcomes.insert(host.fills(7, 1)[0]);
    }
    assert_eq!(outcomes, [0, 1, 2, 3].into());
}

#[test]
fn forced_writes_are_durable_and_supersede_what_is_cached() {
    for seed in 0..50 {
        let mut host = Host::seeded(DiskConfig::modern(1000), seed);
        host.write(10, 3, 1);
        let fis = queued(command::WRITE_FPDMA_QUEUED, 11, 1, 3);
        host.good(RegisterH2d { device: fis.device | DEVICE_FUA, ..fis }, &[2; 512]);
        host.good(RegisterH2d::command(command::WRITE_DMA_FUA_EXT).lba48(12).count(1), &[3; 512]);
        assert_eq!(host.fills(10, 3), [1, 2, 3]);
        host.cycle_power();
        assert_eq!(host.fills(11, 2), [2, 3]);
    }
}

#[test]
fn without_a_cache_every_write_is_durable() {
    let mut host = Host::new(DiskConfig::modern(1000).without(Abilities::WRITE_CACHE));
    host.write(10, 4, 5);
    assert_eq!(host.disk.cached(), 0);
    host.cycle_power();
    assert_eq!(host.fills(10, 4), [5; 4]);
}

#[test]
fn a_full_cache_makes_room_on_the_medium() {
    let mut host = Host::new(DiskConfig { cache_sectors: 8, ..DiskConfig::modern(1000) });
    for lba in 0..40 {
        host.write(lba * 3 % 40, 1, lba as u8 + 1);
        assert!(host.disk.cached() <= 8);
    }
    host.write(100, 100, 77);
    assert_eq!(host.fills(100, 100), [77; 100]);
    let expected: Vec<u8> = (0..40).map(|lba| (lba * 27 % 40) as u8 + 1).collect();
    assert_eq!(host.fills(0, 40), expected);
    assert!(!host.flush().is_bad());
    let mut sector = [0; 512];
    host.disk.durable(199, &mut sector);
    assert_eq!((sector[0], host.disk.cached()), (77, 0));
}

#[test]
fn a_torn_write_leaves_any_of_its_sectors() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let mut host = Host::seeded(DiskConfig::modern(1000), seed);
        let fis = RegisterH2d::command(command::WRITE_DMA_EXT).lba48(5).count(3);
        let write = Command { fis, packet: [0; 16] };
        host.disk.tear(&write, &[9; 3 * 512], &mut host.random);
        host.cycle_power();
        outcomes.insert(host.fills(5, 3));
    }
    assert_eq!(outcomes.len(), 8);
}

#[test]
fn trim_keeps_its_promise() {
    for promise in [TrimPromise::Zeros, TrimPromise::Deterministic, TrimPromise::Nothing] {
        let config = DiskConfig { trim_promise: promise, ..DiskConfig::modern(1000) };
        let mut host = Host::new(config);
        host.write(0, 30, 7);
        host.flush();
        host.write(10, 10, 8);
        assert!(!trim(&mut host, &[(5, 10), (0, 0), (25, 2)]).is_bad());
        host.write(7, 1, 9);
        let (one, two) = (host.read(0, 30).1, host.read(0, 30).1);
        let trimmed = |i: usize| (5..15).contains(&i) && i != 7 || (25..27).contains(&i);
        for i in 0..30 {
            let (a, b) = (&one[i * 512..][..512], &two[i * 512..][..512]);
            match (trimmed(i), promise) {
                (false, _) => {
                    let fill = if i == 7 { 9 } else { 7 + u8::from((10..20).contains(&i)) };
                    assert!(a.iter().chain(b).all(|byte| *byte == fill), "{promise:?} {i}");
                }
                (true, TrimPromise::Zeros) => assert_eq!((a, b), (&[0; 512][..], &[0; 512][..])),
                (true, TrimPromise::Deterministic) => assert!(a == b && a != [0; 512]),
                (true, TrimPromise::Nothing) => assert_ne!(a, b),
            }
        }
        assert!(!host.flush().is_bad());
        assert_eq!(host.fills(7, 1), [9], "{promise:?}: what is written is not trimmed any more");
    }
}

#[test]
fn a_trim_of_what_is_not_there_changes_nothing() {
    let mut host = Host::new(DiskConfig::modern(1000));
    host.write(0, 10, 7);
    let end = trim(&mut host, &[(0, 10), (995, 6)]);
    assert_eq!((end.error, end.lba), (4, 995));
    assert_eq!(host.fills(0, 10), [7; 10]);
    let fis = RegisterH2d::command(command::DATA_SET_MANAGEMENT).features(DSM_TRIM);
    host.aborted(fis.count(9), &[0; 9 * 512]);
    host.aborted(fis.count(0), &[]);
}

#[test]
fn an_uncorrectable_sector_fails_with_its_address_until_it_is_written() {
    let mut host = Host::new(DiskConfig::modern(1000));
    host.write(10, 8, 1);
    host.flush();
    host.disk.damage(13, Defect::Uncorrectable);
    let (end, data) = host.read(10, 8);
    assert_eq!((end.status, end.error, end.lba, end.bytes), (0x51, 0x40, 13, 3 * 512));
    assert_eq!(data[2 * 512], 1);
    assert_eq!(host.fills(14, 4), [1; 4]);
    host.write(13, 1, 2);
    assert_eq!(host.fills(10, 8), [1, 1, 1, 2, 1, 1, 1, 1], "it is in the cache");
    assert_eq!(host.disk.defect(13), Some(Defect::Uncorrectable));
    host.flush();
    assert_eq!(host.disk.defect(13), None);
    assert_eq!(host.fills(13, 1), [2]);
}

#[test]
fn other_defects_fail_as_they_are_called() {
    let mut host = Host::new(DiskConfig::modern(1000));
    host.disk.damage(1, Defect::Passing(2));
    let errors: Vec<u8> = (0..3).map(|_| host.read(0, 4).0.error).collect();
    assert_eq!(errors, [0x40, 0x40, 0]);
    host.disk.damage(2, Defect::NotFound);
    assert_eq!((host.read(0, 4).0.error, host.write(0, 4, 1).error), (0x10, 0x10));
    host.disk.damage(2, Defect::WriteFault);
    let end = host.write(0, 4, 2);
    assert_eq!((end.status & 0x20, end.lba), (0x20, 2));
    assert_eq!(host.fills(0, 4), [2, 2, 0, 0]);
}

#[test]
fn a_flush_fails_for_a_cached_sector_that_cannot_be_written_and_forgets_it() {
    let mut host = Host::new(DiskConfig::modern(1000));
    host.disk.damage(5, Defect::Permanent);
    assert!(!host.write(3, 5, 1).is_bad());
    let end = host.flush();
    assert_eq!((end.status, end.lba), (0x71, 5));
    assert!(!host.flush().is_bad(), "it was forgotten");
    assert_eq!((host.fills(3, 2), host.fills(6, 2)), (vec![1; 2], vec![1; 2]));
    assert_eq!(host.read(3, 5).0.error, 0x40);
    let fis = RegisterH2d::command(command::WRITE_DMA_FUA_EXT).lba48(3).count(5);
    let (end, _) = host.run(fis, &[2; 5 * 512]);
    assert_eq!((end.status, end.lba, end.bytes), (0x71, 5, 2 * 512));
}

#[test]
fn after_a_queued_failure_everything_is_aborted_until_log_10h_was_read() {
    let mut host = Host::new(DiskConfig::modern(1000));
    host.disk.damage(20, Defect::Uncorrectable);
    let (end, _) = host.run(queued(command::READ_FPDMA_QUEUED, 16, 8, 9), &[]);
    assert_eq!((end.error, end.lba), (0x40, 20));
    host.aborted(queued(command::READ_FPDMA_QUEUED, 0, 1, 1), &[]);
    host.aborted(RegisterH2d::command(command::IDENTIFY_DEVICE), &[]);
    let page = host.good(read_log(0x10), &[]);
    let log = NcqError::read_from_bytes(&page).unwrap();
    assert_eq!((log.failed_tag(), log.lba()), (Some(9), 20));
    assert_eq!((log.status, log.error), (0x51, 0x40));
    host.good(queued(command::READ_FPDMA_QUEUED, 0, 1, 1), &[]);
    host.run(queued(command::READ_FPDMA_QUEUED, 16, 8, 9), &[]);
    host.reset(Reset::Soft);
    host.identify();
}

#[test]
fn log_10h_lies_as_it_is_told() {
    let tag = |lies| {
        let mut host = Host::new(DiskConfig::modern(1000));
        host.disk.damage(20, Defect::Uncorrectable);
        host.disk.lies = lies;
        host.run(queued(command::READ_FPDMA_QUEUED, 20, 1, 9), &[]);
        let (end, page) = host.run(read_log(0x10), &[]);
        (!end.is_bad()).then(|| NcqError::read_from_bytes(&page).unwrap())
    };
    assert!(tag(Lies::QUEUE_LOG_UNREADABLE).is_none());
    assert_eq!(tag(Lies::QUEUE_LOG_CHECKSUM).unwrap().failed_tag(), None);
    assert_eq!(tag(Lies::QUEUE_LOG_NOT_QUEUED).unwrap().failed_tag(), None);
    assert_eq!(tag(Lies::QUEUE_LOG_WRONG_TAG).unwrap().failed_tag(), Some(8));
    assert_ne!(tag(Lies::QUEUE_LOG_WRONG_SECTOR).unwrap().lba(), 20);
    assert_eq!(tag(Lies::empty()).unwrap().failed_tag(), Some(9));
}

#[test]
fn mishaps_happen_to_the_commands_that_they_are_for() {
    let mut host = Host::new(DiskConfig::modern(1000));
    host.disk.script(Some(command::FLUSH_CACHE_EXT), 2, Mishap::Abort);
    host.disk.script(Some(command::READ_DMA_EXT), 1, Mishap::Fault);
    assert!(!host.write(0, 1, 1).is_bad());
    assert_eq!((host.flush().error, host.read(0, 1).0.status), (4, 0x71));
    assert!(host.flush().is_bad() && !host.flush().is_bad() && !host.read(0, 1).0.is_bad());
    host.disk.script(None, 1, Mishap::Slow(Duration::from_secs(9)));
    host.read(0, 1);
    assert!(host.took > Duration::from_secs(9));
    host.disk.script(None, 1, Mishap::Hang);
    let fis = RegisterH2d::command(command::READ_DMA_EXT).count(1);
    let read = Command { fis, packet: [0; 16] };
    let plan = host.disk.plan(&read, host.now, &mut host.random).unwrap();
    assert_eq!(plan.takes, Duration::MAX);
}

#[test]
fn the_identification_lies_as_it_is_told() {
    let mut host = Host::new(DiskConfig::modern(1000));
    for lie in [Lies::IDENTIFY_CHECKSUM, Lies::IDENTIFY_BLANK] {
        host.disk.lies = lie;
        assert!(host.identity().is_none(), "{lie:?}");
    }
    host.disk.lies = Lies::IDENTIFY_NO_SECTORS;
    assert_eq!(host.identity().unwrap().sectors(), 0);
    host.disk.lies = Lies::IDENTIFY_TOO_MANY_SECTORS;
    assert_eq!(host.identity().unwrap().sectors(), 1_000_000);
}

#[test]
fn flushed_data_is_lost_only_by_the_fault_that_says_so() {
    let lost = |lies| {
        (0..40).any(|seed| {
            let mut host = Host::seeded(DiskConfig::modern(1000), seed);
            host.disk.lies = lies;
            host.write(0, 1, 1);
            assert!(!host.flush().is_bad());
            host.cycle_power();
            host.fills(0, 1) == [0]
        })
    };
    assert!(lost(Lies::LOSES_FLUSHED) && !lost(Lies::empty()));
}
