//! The driver against QEMU's AHCI controller and disks.

mod support;

use outboard_ahci::{AhciConfig, Reaping};
use outboard_block::manage::{Power, SelfTest, Switch, TestOutcome, Verdict};
use outboard_block::{
    BlockDriver, BlockError, Durability, FailedReason, Management, Medium, RefusedReason, Request,
    Tag, UnitId, UnitState,
};
use outboard_hw::dma::SgList;
use outboard_hw::interrupt::InterruptKind;
use outboard_lab::{DiskConfig, Fault, FaultAt, LabConfig};
use outboard_linux::now;
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;
use support::{Bench, image, pattern};

#[test]
fn disks_are_identified_and_empty_ports_are_absent() {
    let mut wide = DiskConfig::null(3 << 20);
    wide.sector_bytes = 4096;
    let bench = Bench::new(vec![DiskConfig::null(1 << 30), wide]);
    let unit = bench.driver.unit(UnitId(0)).unwrap();
    assert_eq!(unit.state, UnitState::Ready);
    assert_eq!(unit.identity.model, "QEMU HARDDISK");
    assert_eq!(unit.identity.serial, "QM00001");
    let geometry = unit.geometry;
    assert_eq!((geometry.sector_bytes, geometry.sectors), (512, 2 << 20));
    assert_eq!((geometry.queue_depth, geometry.max_transfer_sectors), (32, 65536));
    assert!(geometry.write_cache && !geometry.durable_writes);
    assert!(geometry.max_discard_sectors > 0);
    assert_eq!(geometry.medium, Medium::Unknown);
    let second = bench.driver.unit(UnitId(1)).unwrap();
    assert_eq!((second.geometry.sectors, second.geometry.physical_sector_bytes), (6144, 4096));
    for port in 2..6 {
        assert_eq!(bench.driver.unit(UnitId(port)).unwrap().state, UnitState::Absent);
    }
    assert!(bench.driver.unit(UnitId(6)).is_none());
}

#[test]
fn what_is_written_is_read_back_and_reaches_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), "disk", 4096);
    for queuing in [true, false] {
        let config = AhciConfig { queuing, ..AhciConfig::default() };
        let mut bench = Bench::with(LabConfig::new(vec![DiskConfig::image(&path)]), config);
        assert_eq!(bench.read(0, 0, 1).unwrap(), pattern(0, 1));
        assert_eq!(bench.read(0, 4095, 1).unwrap(), pattern(4095, 1));
        assert_eq!(bench.read(0, 100, 3000).unwrap(), pattern(100, 3000));
        let content: Vec<u8> = (0..512 * 7).map(|byte| (byte % 251) as u8).collect();
        bench.write(0, 1000, &content, Durability::Durable).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[1000 * 512..][..content.len()], content);
        assert_eq!(bench.read(0, 999, 9).unwrap()[512..][..content.len()], content);
        bench.write(0, 1000, &pattern(1000, 7), Durability::Cached).unwrap();
        bench.one(0, Request::flush()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), pattern(0, 4096));
    }
}

#[test]
fn all_slots_and_all_ports_work_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let disks: Vec<_> = (0..6)
        .map(|port| DiskConfig::image(image(folder.path(), &format!("disk{port}"), 2048)))
        .collect();
    let mut bench = Bench::new(disks);
    for port in 0..6 {
        for slot in 0..32 {
            let data = SgList::single(bench.buffer(1024), 0..1024);
            bench.submit(port, slot, Request::read(slot * 64 + u64::from(port), 2, data));
        }
        let data = SgList::single(bench.buffer(512), 0..512);
        let refused = bench.driver.submit(UnitId(port), Tag(99), Request::read(0, 1, data));
        assert_eq!(refused.unwrap_err().reason, RefusedReason::QueueFull);
    }
    let done = bench.finish(6 * 32);
    assert_eq!(done.len(), 6 * 32);
    for completion in done {
        completion.result.unwrap();
        let mut content = [0; 1024];
        completion.data.into_buffers().next().unwrap().read_bytes(0, &mut content);
        let lba = completion.tag.0 * 64 + u64::from(completion.unit.0);
        assert_eq!(content[..], pattern(lba, 2));
    }
}

#[test]
fn scattered_memory_is_filled_in_order_up_to_the_limit_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(vec![DiskConfig::image(image(folder.path(), "disk", 2048))]);
    let pieces = |bench: &Bench, count: usize| {
        // Every other page, so that no two pieces are neighbours.
        let mut pages: Vec<_> = (0..count * 2).map(|_| bench.buffer(4096)).collect();
        let mut data = SgList::EMPTY;
        for index in (0..count).rev() {
            let page = pages.swap_remove(index * 2);
            data.push(page, 100..612);
        }
        data
    };
    let data = pieces(&bench, 248);
    bench.submit(0, 1, Request::read(5, 248, data));
    let done = bench.finish(1).pop().unwrap();
    done.result.unwrap();
    for (lba, buffer) in (5..).zip(done.data.into_buffers()) {
        let mut content = [0; 512];
        buffer.read_bytes(100, &mut content);
        assert_eq!(content[..], pattern(lba, 1));
    }
    let data = pieces(&bench, 249);
    let refused = bench.driver.submit(UnitId(0), Tag(1), Request::read(5, 249, data));
    assert_eq!(refused.unwrap_err().reason, RefusedReason::TooLong);
}

#[test]
fn the_largest_transfer_works_with_and_without_queuing() {
    for queuing in [true, false] {
        let config = AhciConfig { queuing, ..AhciConfig::default() };
        let mut bench = Bench::with(LabConfig::new(vec![DiskConfig::null(64 << 20)]), config);
        let mut buffer = bench.buffer(32 << 20);
        buffer.fill(0..32 << 20, 0xee);
        let data = SgList::single(buffer, 0..32 << 20);
        let buffer = bench.one(0, Request::read(1, 65536, data)).unwrap().unwrap();
        assert_eq!(buffer.read::<u64>((32 << 20) - 8), 0, "the last bytes were transferred");
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut bench = Bench::new(vec![DiskConfig::null(1 << 20)]);
    let mut refused = |unit: u16, lba, sectors, bytes: usize, reason| {
        let buffer = bench.buffer(bytes.max(2) + 2);
        let request = Request::read(lba, sectors, SgList::single(buffer, 0..bytes));
        let refused = bench.driver.submit(UnitId(unit), Tag(1), request).unwrap_err();
        assert_eq!(refused.reason, reason);
        assert_eq!(refused.request.data.bytes(), bytes, "the memory comes back");
    };
    refused(0, 2048, 1, 512, RefusedReason::OutOfRange { sectors: 2048 });
    refused(0, 2047, 2, 1024, RefusedReason::OutOfRange { sectors: 2048 });
    refused(0, u64::MAX, 1, 512, RefusedReason::OutOfRange { sectors: 2048 });
    refused(0, 0, 1, 513, RefusedReason::BadMemory);
    refused(0, 0, 0, 0, RefusedReason::BadMemory);
    refused(1, 0, 1, 512, RefusedReason::NotReady(UnitState::Absent));
    refused(40, 0, 1, 512, RefusedReason::NotReady(UnitState::Absent));
    let odd = SgList::single(bench.buffer(600), 1..513);
    let refused = bench.driver.submit(UnitId(0), Tag(1), Request::read(0, 1, odd)).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::BadMemory);
    let long = Request::discard(0, 1 << 40);
    let refused = bench.driver.submit(UnitId(0), Tag(1), long).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::OutOfRange { sectors: 2048 });
}

#[test]
fn discarded_sectors_leave_the_image() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), "disk", 1 << 15);
    let mut bench = Bench::new(vec![DiskConfig::image(&path)]);
    let before = path.metadata().unwrap().blocks();
    bench.one(0, Request::discard(8, (1 << 15) - 8)).unwrap();
    bench.one(0, Request::flush()).unwrap();
    let after = path.metadata().unwrap().blocks();
    assert!(after < before / 16, "{before} blocks before, {after} after");
    assert_eq!(bench.read(0, 0, 8).unwrap(), pattern(0, 8));
}

#[test]
fn flushes_and_discards_take_their_turn_among_queued_commands() {
    let mut bench = Bench::new(vec![DiskConfig::null(64 << 20)]);
    for round in 0..20 {
        for tag in 0..32 {
            let request = match (tag + round) % 5 {
                0 => Request::flush(),
                1 => Request::discard(tag * 100, 50),
                2 => {
                    let data = SgList::single(bench.buffer(512), 0..512);
                    Request::write(tag, 1, data, Durability::Durable)
                }
                _ => Request::read(tag, 8, SgList::single(bench.buffer(4096), 0..4096)),
            };
            bench.submit(0, tag, request);
        }
        let mut tags: Vec<_> = bench.finish(32).into_iter().map(|c| c.tag.0).collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..32).collect::<Vec<_>>());
    }
    assert_eq!(bench.counter(0, "failed"), 0);
}

#[test]
fn every_kind_of_interrupt_and_polling_work() {
    for kind in [Some(InterruptKind::Msi), Some(InterruptKind::Pin), None] {
        let mut lab = LabConfig::new(vec![DiskConfig::null(1 << 20), DiskConfig::null(1 << 20)]);
        lab.interrupts = kind;
        let reaping = if kind.is_some() { Reaping::Interrupts } else { Reaping::Polling };
        let mut bench = Bench::with(lab, AhciConfig { reaping, ..AhciConfig::default() });
        for _ in 0..50 {
            for unit in 0..2 {
                let data = SgList::single(bench.buffer(512), 0..512);
                bench.submit(unit, 1, Request::read(0, 1, data));
            }
            if reaping == Reaping::Polling {
                bench.driver.kick(now());
                while bench.done.len() < 2 {
                    bench.turn();
                }
                bench.done.clear();
            } else {
                assert_eq!(bench.finish(2).len(), 2);
            }
        }
        assert_eq!(bench.counter(0, "missed-interrupts"), 0, "{kind:?}");
    }
}

#[test]
fn a_lost_interrupt_costs_time_and_nothing_else() {
    let mut bench = Bench::new(vec![DiskConfig::null(1 << 20)]);
    bench.deaf = true;
    assert!(bench.read(0, 0, 8).is_ok());
    assert_eq!(bench.counter(0, "missed-interrupts"), 1);
}

fn bad_sector(at: FaultAt, sector: u64, once: bool) -> Fault {
    Fault { at, sector: Some(sector), once }
}

#[test]
fn a_bad_sector_fails_its_own_command_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), "disk", 4096);
    for queuing in [true, false] {
        let disk = DiskConfig::image(&path).with_fault(bad_sector(FaultAt::Read, 1234, false));
        let config = AhciConfig { queuing, ..AhciConfig::default() };
        let mut bench = Bench::with(LabConfig::new(vec![disk]), config);
        for tag in 0..32 {
            let data = SgList::single(bench.buffer(4096), 0..4096);
            bench.submit(0, tag, Request::read(1224 + tag * 8, 8, data));
        }
        for completion in bench.finish(32) {
            // Sector 1234 is in the second command, 1232–1239.
            match completion.tag.0 {
                1 => assert_eq!(completion.result, Err(BlockError::Aborted)),
                tag => {
                    completion.result.unwrap();
                    let mut content = [0; 4096];
                    completion.data.into_buffers().next().unwrap().read_bytes(0, &mut content);
                    assert_eq!(content[..], pattern(1224 + tag * 8, 8));
                }
            }
        }
        assert_eq!(bench.driver.unit(UnitId(0)).unwrap().state, UnitState::Ready);
        assert_eq!(bench.read(0, 1233, 1).unwrap(), pattern(1233, 1));
        assert_eq!(bench.read(0, 1235, 1).unwrap(), pattern(1235, 1));
        assert_eq!(bench.read(0, 1234, 1), Err(BlockError::Aborted));
        assert_eq!(bench.counter(0, "failed"), 2);
        assert!(bench.counter(0, "device-errors") >= 2);
    }
}

#[test]
fn an_error_that_passes_is_retried() {
    let disk = DiskConfig::null(1 << 20)
        .with_fault(bad_sector(FaultAt::Read, 5, true))
        .with_fault(bad_sector(FaultAt::Write, 9, true));
    let mut bench = Bench::new(vec![disk]);
    assert!(bench.read(0, 0, 16).is_ok());
    assert!(bench.write(0, 0, &[1; 8192], Durability::Cached).is_ok());
    assert_eq!(bench.counter(0, "failed"), 0);
    // QEMU does not say which queued command failed.
    assert!(bench.counter(0, "retried") + bench.counter(0, "requeued") >= 2);
    assert!(bench.happened("ready again"));
}

#[test]
fn one_ports_trouble_does_not_stop_another() {
    let bad = DiskConfig::null(1 << 20).with_fault(Fault {
        at: FaultAt::Read,
        sector: None,
        once: false,
    });
    let mut bench = Bench::new(vec![bad, DiskConfig::null(1 << 20)]);
    for tag in 0..32 {
        for unit in 0..2 {
            let data = SgList::single(bench.buffer(512), 0..512);
            bench.submit(unit, tag, Request::read(tag, 1, data));
        }
    }
    for completion in bench.finish(64) {
        assert_eq!(completion.result.is_ok(), completion.unit == UnitId(1));
    }
    assert_eq!(bench.counter(1, "port-resets") + bench.counter(1, "hba-resets"), 0);
    assert_eq!(bench.driver.unit(UnitId(0)).unwrap().state, UnitState::Ready);
}

#[test]
fn the_death_of_the_controller_fails_what_is_in_flight_at_once() {
    let mut bench = Bench::new(vec![DiskConfig::null(1 << 20)]);
    let pid = Pid::from_raw(bench.lab.process_id() as i32).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let began = std::time::Instant::now();
    assert_eq!(bench.read(0, 0, 1), Err(BlockError::Gone));
    assert!(began.elapsed() < Duration::from_secs(2));
    let removed = UnitState::Failed(FailedReason::Removed);
    assert_eq!(bench.driver.unit(UnitId(0)).unwrap().state, removed);
    assert!(bench.driver.is_stopped());
    let refused = bench.driver.submit(UnitId(0), Tag(1), Request::flush()).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::NotReady(removed));
}

#[test]
fn stopping_finishes_what_is_in_flight_and_leaves_the_device_quiet() {
    use outboard_pci::ConfigAccess;
    let mut bench = Bench::new(vec![DiskConfig::null(1 << 20)]);
    for tag in 0..32 {
        let data = SgList::single(bench.buffer(512), 0..512);
        bench.submit(0, tag, Request::read(tag, 1, data));
    }
    bench.driver.kick(now());
    bench.driver.stop();
    let refused = bench.driver.submit(UnitId(0), Tag(1), Request::flush()).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::NotReady(UnitState::Stopping));
    bench.run_until(|bench| bench.driver.is_stopped());
    assert!(bench.done.len() == 32 && bench.done.iter().all(|done| done.result.is_ok()));
    let ours = bench.lab.functions().iter().find(|f| outboard_ahci::matches(&f.identity));
    let address = ours.unwrap().address;
    assert_eq!(bench.lab.ecam_config().read_u16(address, 0x04) & 0x4, 0, "bus mastering is off");
    assert_eq!(bench.driver.next_deadline(), None);
}

#[test]
fn nothing_leaks_over_many_lives_of_the_driver() {
    let disks = vec![DiskConfig::null(1 << 20), DiskConfig::null(1 << 20)];
    let mut lab = outboard_lab::Lab::start(&LabConfig::new(disks)).unwrap();
    let empty = lab.dma().statistics();
    for round in 0..40 {
        let mut bench = Bench::on(lab, AhciConfig::default());
        if round % 4 > 0 {
            bench = bench.settled();
        }
        if round % 4 > 1 {
            for tag in 0..8 {
                let data = SgList::single(bench.buffer(4096), 0..4096);
                bench.submit(tag as u16 % 2, tag, Request::read(tag, 8, data));
            }
            bench.driver.kick(now());
        }
        if round % 4 > 2 {
            bench.driver.stop();
            bench.run_until(|bench| bench.driver.is_stopped());
        }
        let Bench { driver, done, interrupts, lab: kept, .. } = bench;
        drop((driver, done, interrupts));
        lab = kept;
        let left = lab.dma().statistics();
        assert_eq!((left.buffers, left.used_bytes), (empty.buffers, empty.used_bytes));
    }
}

#[test]
fn a_batch_costs_few_register_accesses() {
    let mut bench = Bench::new(vec![DiskConfig::null(1 << 30)]);
    let (mut commands, batches) = (0, 50);
    let before = (bench.counts.reads(), bench.counts.writes());
    for _ in 0..batches {
        for tag in 0..32 {
            let data = SgList::single(bench.buffer(4096), 0..4096);
            bench.submit(0, tag, Request::read(tag * 997 % 100_000, 8, data));
        }
        commands += bench.finish(32).len();
    }
    let reads = bench.counts.reads() - before.0;
    let writes = bench.counts.writes() - before.1;
    let each = (reads + writes) as f64 / commands as f64;
    println!("{reads} reads and {writes} writes for {commands} commands: {each:.3} each");
    assert!(each <= 0.5, "{each} register accesses for each command");
}

#[test]
fn qemus_disk_tells_its_health() {
    let mut bench = Bench::new(vec![DiskConfig::null(1 << 20)]);
    let features = bench.driver.unit(UnitId(0)).unwrap().features;
    assert_eq!((features.health, features.write_cache), (Switch::On, Switch::On));
    bench.one(0, Request::manage(Management::ReadHealth)).unwrap();
    let health = bench.driver.health(UnitId(0)).unwrap();
    assert_eq!(health.verdict, Verdict::Passed);
    assert!(health.attributes.iter().any(|a| a.id == 9 && a.name == "power-on hours"));
    assert!(health.attributes.iter().all(|attribute| !attribute.has_failed()));
    assert!(health.temperature.is_some() && health.tests.is_empty());
    for test in [SelfTest::Short, SelfTest::Extended] {
        bench.one(0, Request::manage(Management::SelfTest(test))).unwrap();
        bench.one(0, Request::manage(Management::ReadHealth)).unwrap();
        let newest = bench.driver.health(UnitId(0)).unwrap().tests[0];
        assert_eq!((newest.test, newest.outcome), (test, TestOutcome::Passed));
    }
    bench.one(0, Request::manage(Management::SetHealth(false))).unwrap();
    // It is off, though its identification goes on saying that it is on.
    let health = bench.one(0, Request::manage(Management::ReadHealth));
    assert_eq!(health.unwrap_err(), BlockError::Aborted);
    bench.one(0, Request::manage(Management::SetHealth(true))).unwrap();
    bench.one(0, Request::manage(Management::ReadHealth)).unwrap();
    assert_eq!(bench.counter(0, "failed"), 1);
}

#[test]
fn qemus_disk_lets_its_cache_be_switched() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), "disk", 4096);
    let mut bench = Bench::new(vec![DiskConfig::image(&path)]);
    for on in [false, true] {
        bench.write(0, 7, &[on as u8; 512], Durability::Cached).unwrap();
        bench.one(0, Request::manage(Management::SetWriteCache(on))).unwrap();
        let unit = bench.driver.unit(UnitId(0)).unwrap();
        assert_eq!(unit.features.write_cache, Switch::new(true, on));
        assert_eq!(unit.geometry.write_cache, on);
        assert_eq!(bench.read(0, 7, 1).unwrap(), [on as u8; 512]);
    }
}

#[test]
fn qemus_disk_saves_power_and_goes_on_working() {
    let mut bench = Bench::new(vec![DiskConfig::null(1 << 20)]);
    for power in [Power::Standby, Power::Idle, Power::Active] {
        bench.one(0, Request::manage(Management::SetPower(power))).unwrap();
        // It takes the commands, and says that it is active all the same.
        assert_eq!(bench.driver.unit(UnitId(0)).unwrap().features.power, Power::Active);
        assert!(bench.read(0, 0, 8).is_ok());
    }
    bench.one(0, Request::manage(Management::SetStandbyTimer(600))).unwrap();
    bench.one(0, Request::manage(Management::ReadPower)).unwrap();
    // Its sleep is none, but the driver resets it for the next request as it would any other.
    bench.one(0, Request::manage(Management::SetPower(Power::Sleep))).unwrap();
    assert_eq!(bench.driver.unit(UnitId(0)).unwrap().features.power, Power::Sleep);
    assert!(bench.read(0, 0, 8).is_ok());
    assert_eq!((bench.counter(0, "wakes"), bench.counter(0, "failed")), (1, 0));
}

#[test]
fn qemus_disk_is_not_asked_for_what_it_does_not_have() {
    let mut bench = Bench::new(vec![DiskConfig::null(1 << 20)]);
    let absent = [
        Management::SetLookAhead(false),
        Management::SetPowerLevel(128),
        Management::FreezeSecurity,
        Management::ReadNativeCapacity,
    ];
    for what in absent {
        let refused = bench.driver.submit(UnitId(0), Tag(1), Request::manage(what)).unwrap_err();
        assert_eq!(refused.reason, RefusedReason::Unsupported, "{what:?}");
    }
}
