//! The driver against disks and controllers that make trouble, in virtual time.

mod support;

use outboard_ahci::spec::registers::{ABAR, BOHC, HandOff};
use outboard_block::{BlockDriver, BlockError, Durability, FailedReason, Request, UnitState};
use outboard_hw::dma::SgList;
use outboard_hw::registers::RegistersExt;
use outboard_linux::ForeignMemory;
use outboard_pci::Device;
use outboard_sim::disk::{Abilities, Defect, Lies, Mishap};
use outboard_sim::hba::HbaConfig;
use outboard_sim::{DiskConfig, Fault};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::time::Duration;
use support::pattern;
use support::sim_bench::{ALWAYS, SimBench, bad_disk, disk, disk_as, good};

/// A disk that does not queue.
fn one_by_one() -> DiskConfig {
    DiskConfig { queue_depth: 0, ..DiskConfig::modern(4096) }
}

#[test]
fn the_log_names_the_culprit_and_the_innocent_are_issued_again() {
    let mut bench = SimBench::new(vec![Some(bad_disk([83]))]);
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            80 => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(83) })),
            _ => good(completion),
        }
    }
    assert_eq!(bench.happened("the command in slot 10 failed at sector 83"), 1);
    assert_eq!(bench.device.hba().link_resets(0), 0, "no reset was needed");
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn without_a_log_each_command_runs_alone_until_one_fails() {
    let mut disk = disk_as(DiskConfig::modern(4096).without(Abilities::LOGS));
    [83, 200].into_iter().for_each(|lba| disk.damage(lba, Defect::Permanent));
    let mut bench = SimBench::new(vec![Some(disk)]);
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            80 => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(83) })),
            200 => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(200) })),
            _ => good(completion),
        }
    }
    bench.read_batch(0);
    assert_eq!(bench.happened("the command in slot"), 0);
}

#[test]
fn an_address_that_the_command_did_not_touch_is_not_believed() {
    let mut disk = bad_disk([83]);
    disk.lies |= Lies::QUEUE_LOG_WRONG_SECTOR;
    let mut bench = SimBench::new(vec![Some(disk)]);
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            80 => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(83) })),
            _ => good(completion),
        }
    }
    assert_eq!(bench.happened("the command in slot"), 0);
}

#[test]
fn a_sector_that_is_not_found_is_named() {
    let mut disk = disk_as(one_by_one());
    disk.damage(5, Defect::NotFound);
    let mut bench = SimBench::new(vec![Some(disk)]);
    bench.submit(0, 0, 8);
    assert_eq!(bench.result(), Err(BlockError::Media { lba: Some(5) }));
}

#[test]
fn damaged_transfers_are_repeated_up_to_a_limit() {
    for (errors, queue_depth) in [(3, 32), (3, 0), (50, 32), (50, 0)] {
        let disk = disk_as(DiskConfig { queue_depth, ..DiskConfig::modern(4096) });
        let mut bench = SimBench::new(vec![Some(disk)]);
        bench.inject(0, Fault::InterfaceCrc, errors);
        bench.submit(0, 0, 8);
        let completion = bench.finish().pop().unwrap();
        match errors {
            3 => good(completion),
            _ => assert_eq!(completion.result, Err(BlockError::Transport)),
        }
        assert_eq!(bench.state(0), UnitState::Ready);
    }
}

#[test]
fn a_command_that_never_ends_is_overtaken_by_a_port_reset() {
    let mut bench = SimBench::new(vec![Some(disk(4096)), Some(disk(512))]);
    bench.disk(0, |disk| disk.script_at(16, 1, Mishap::Hang));
    let began = bench.now;
    bench.submit(1, 0, 1);
    bench.read_batch(0).into_iter().for_each(good);
    let took = bench.now.since(began);
    assert!((30..33).contains(&took.as_secs()), "{took:?}");
    let mut hba = bench.device.hba();
    assert_eq!(hba.link_resets(0), 1);
    assert_eq!(hba.link_resets(1), 0, "the other port goes on");
    assert_eq!(hba.resets(), 1, "only the one at start-up");
}

#[test]
fn a_command_that_never_ends_however_often_fails_in_the_end() {
    let mut bench = SimBench::new(vec![Some(disk(4096))]);
    bench.disk(0, |disk| disk.script_at(16, ALWAYS, Mishap::Hang));
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            16 => assert_eq!(completion.result, Err(BlockError::Timeout)),
            _ => good(completion),
        }
    }
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn a_transfer_that_is_too_short_is_not_taken_for_success() {
    let mut bench = SimBench::new(vec![Some(disk_as(one_by_one()))]);
    bench.inject(0, Fault::CountShort, 1);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.happened("too few"), 1);
}

#[test]
fn an_engine_that_does_not_stop_takes_a_reset_of_the_hba() {
    let mut bench = SimBench::new(vec![Some(disk(4096)), Some(disk(512))]);
    bench.disk(0, |disk| disk.script_at(16, 1, Mishap::Hang));
    bench.inject(0, Fault::EngineStuck, 1);
    bench.submit(1, 0, 1);
    bench.read_batch(0).into_iter().for_each(good);
    assert_eq!(bench.device.hba().resets(), 2);
    assert_eq!((bench.state(0), bench.state(1)), (UnitState::Ready, UnitState::Ready));
    bench.submit(1, 7, 1);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn memory_stays_with_the_driver_until_the_hba_was_reset() {
    let mut bench = SimBench::new(vec![Some(disk(4096))]);
    bench.disk(0, |disk| disk.script_at(16, ALWAYS, Mishap::Hang));
    bench.inject(0, Fault::EngineStuck, 1);
    bench.inject(0, Fault::ResetNever, 1);
    bench.submit(0, 16, 8);
    bench.driver.kick(bench.now);
    // The HBA does not come out of its reset, so it is taken off the bus before anything is given
    // back.
    bench.run_until(|bench| {
        assert!(bench.done.is_empty() || !bench.device.hba().bus_master());
        !bench.done.is_empty()
    });
    assert_eq!(bench.done[0].result, Err(BlockError::Gone));
    assert!(bench.driver.is_stopped());
    assert_eq!(bench.state(0), UnitState::Failed(FailedReason::Removed));
}

#[test]
fn a_clients_memory_stays_reached_until_nothing_can_be_transferred_there() {
    for is_hopeless in [false, true] {
        let mut bench = SimBench::new(vec![Some(disk(4096))]);
        let times = if is_hopeless { ALWAYS } else { 1 };
        bench.disk(0, |disk| disk.script_at(16, times, Mishap::Hang));
        if is_hopeless {
            bench.inject(0, Fault::EngineStuck, 1);
            bench.inject(0, Fault::ResetNever, 1);
        }
        let file = memfd_create("client", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 8192).unwrap();
        let mut memory = ForeignMemory::map(&file, 0, 8192).unwrap();
        memory.let_reach(&bench.space, &bench.driver.constraints()).unwrap();
        let part = memory.reached_part(2048..2048 + 4096).unwrap();
        // The client goes, and its session with it.
        drop(memory);
        bench.submit_request(0, 16, Request::read(16, 8, SgList::single(part, 0..4096)));
        bench.driver.kick(bench.now);
        bench.run_until(|bench| {
            assert_eq!(bench.space.foreign_regions(), 1);
            let has_ended = !bench.done.is_empty();
            assert!(!has_ended || !is_hopeless || !bench.device.hba().bus_master());
            has_ended
        });
        let done = bench.done.pop().unwrap();
        assert_eq!(done.result, if is_hopeless { Err(BlockError::Gone) } else { Ok(()) });
        drop(done);
        assert_eq!(bench.space.foreign_regions(), 0);
        let mut data = [0; 4096];
        rustix::io::pread(&file, &mut data, 2048).unwrap();
        assert!(is_hopeless || data[..] == pattern(16, 8), "it was read where the client has it");
    }
}

#[test]
fn memory_is_out_of_reach_once_its_command_has_ended() {
    let mut bench = SimBench::new(vec![Some(bad_disk([83]))]);
    let reachable = |bench: &SimBench| {
        let mut hba = bench.device.hba();
        (0..32).filter(|slot| hba.reachable(0, *slot) > 0).collect::<Vec<_>>()
    };
    // A disk may ask the HBA for a transfer with any tag (SATA, DMA Setup FIS).
    bench.read_batch(0);
    let left = reachable(&bench);
    assert!(
        left.iter().all(|slot| *slot == 0),
        "the log goes to the driver's own memory: {left:?}"
    );
    bench.submit(0, 0, 8);
    bench.driver.kick(bench.now);
    assert_eq!(reachable(&bench), [0]);
    bench.finish();
    assert!(reachable(&bench).is_empty());
}

#[test]
fn a_disk_whose_link_does_not_come_back_is_gone_and_the_others_are_not() {
    let mut bench = SimBench::new(vec![Some(disk(4096)), Some(disk(512))]);
    bench.disk(0, |disk| disk.script_at(16, ALWAYS, Mishap::Hang));
    bench.inject(0, Fault::ComresetIgnored, 64);
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            16 => assert_eq!(completion.result, Err(BlockError::Gone)),
            _ => good(completion),
        }
    }
    assert_eq!(bench.state(0), UnitState::Absent);
    assert_eq!(bench.state(1), UnitState::Ready);
    bench.submit(1, 0, 1);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn another_disk_after_a_reset_is_not_taken_for_the_old_one() {
    let mut bench = SimBench::new(vec![Some(disk(4096))]);
    bench.disk(0, |disk| disk.script_at(16, 1, Mishap::Hang));
    (0..32).for_each(|slot| bench.submit(0, slot * 8, 8));
    bench.driver.kick(bench.now);
    bench.run_until(|bench| bench.device.hba().link_resets(0) == 1);
    let other = DiskConfig { serial: "OTHER".into(), ..DiskConfig::modern(4096) };
    bench.device.hba().attach(0, Box::new(disk_as(other)));
    for completion in bench.finish() {
        match completion.tag.0 {
            16 => assert_eq!(completion.result, Err(BlockError::Gone)),
            _ => good(completion),
        }
    }
    assert_eq!((bench.state(0), bench.generation(0)), (UnitState::Ready, 2));
}

#[test]
fn a_controller_that_is_pulled_out_fails_everything_at_once() {
    let mut bench = SimBench::new(vec![Some(disk(512)), Some(disk(512)), None]);
    (0..4).for_each(|lba| bench.submit((lba % 2) as u16, lba, 1));
    bench.inject(0, Fault::Removed, 1);
    let began = bench.now;
    let done = bench.finish();
    assert!(done.iter().all(|completion| completion.result == Err(BlockError::Gone)));
    assert!(bench.now.since(began) < Duration::from_secs(1));
    assert!(bench.driver.is_stopped() && bench.driver.next_deadline().is_none());
}

#[test]
fn the_bios_is_asked_to_let_go() {
    let hand_off = Some(HandOff::new().with_bios_owned(true));
    let config = HbaConfig { hand_off, ..HbaConfig::new(1) };
    let mut bench = SimBench::starting_at(config, vec![Some(disk(512))], |_| ());
    bench.run_until(|bench| bench.state(0) == UnitState::Ready);
    let hand_off = bench.device.map_bar(ABAR).unwrap().get(BOHC);
    assert!(hand_off.os_owned() && !hand_off.bios_owned());
}

#[test]
fn disks_spin_up_one_after_the_other_where_the_hba_asks_for_it() {
    let mut config = HbaConfig::new(3);
    config.capabilities.set_staggered(true);
    let disks = vec![Some(disk(512)), Some(disk(512)), None];
    let mut bench = SimBench::starting_at(config, disks, |_| ());
    bench.run_until(|bench| bench.state(2) == UnitState::Absent);
    assert_eq!((bench.state(0), bench.state(1)), (UnitState::Ready, UnitState::Ready));
    let order: Vec<_> = bench.events.iter().filter(|event| event.contains("link up")).collect();
    assert_eq!(order, ["0: link up, generation 3", "1: link up, generation 3"]);
}

#[test]
fn durable_writes_are_flushed_before_they_complete() {
    for abilities in [Abilities::empty(), Abilities::FUA] {
        let disk = disk_as(DiskConfig::modern(512).without(abilities));
        let mut bench = SimBench::new(vec![Some(disk)]);
        bench.submit_write(0, 9, 0x5a, Durability::Durable);
        bench.result().unwrap();
        let mut durable = [0; 512];
        bench.disk(0, |disk| disk.durable(9, &mut durable));
        assert_eq!(durable, [0x5a; 512]);
    }
}

#[test]
fn dropping_the_driver_takes_the_device_off_the_bus_and_leaks_nothing() {
    let mut bench = SimBench::new(vec![Some(disk(512)), None]);
    bench.submit(0, 0, 8);
    bench.driver.kick(bench.now);
    let (device, dma) = (bench.device.clone(), bench.driver.dma());
    let resets = device.hba().resets();
    drop(bench);
    assert_eq!(device.hba().resets(), resets + 1);
    assert!(!device.hba().bus_master());
    assert_eq!(dma.statistics().buffers, 0);
}
