//! That everything ends, in virtual time: whatever a device does, however often.

mod support;

use outboard_block::{BlockDriver, BlockError, Durability, FailedReason, UnitState};
use outboard_sim::disk::{Abilities, Lies, Mishap};
use outboard_sim::hba::HbaConfig;
use outboard_sim::{DiskConfig, Fault};
use std::time::Duration;
use support::sim_bench::{ALWAYS, SimBench, bad_disk, disk, disk_as, good};

/// A bench with one disk, and what happens to commands that touch sector 16.
fn with_mishap(times: u32, mishap: Mishap) -> SimBench {
    let bench = SimBench::new(vec![Some(disk(4096))]);
    bench.disk(0, |disk| disk.script_at(16, times, mishap));
    bench
}

#[test]
fn a_command_that_hangs_is_overdue_however_busy_the_disk_is() {
    let mut bench = with_mishap(1, Mishap::Hang);
    bench.submit(0, 16, 1);
    let began = bench.now;
    let mut lba = 1000;
    while bench.device.hba().link_resets(0) == 0 {
        bench.submit(0, lba, 1);
        bench.driver.kick(bench.now);
        bench.turn();
        bench.now = bench.now + Duration::from_millis(20);
        lba += 1;
        assert!(bench.now.since(began) < Duration::from_secs(31), "it is overdue after 30 s");
    }
    bench.finish().into_iter().for_each(good);
    let missed = bench.counter(0, "missed-interrupts");
    assert_eq!(missed, 0, "looking now and then is not missing interrupts");
}

#[test]
fn commands_end_though_the_hba_shows_one_that_was_never_issued() {
    let mut bench = SimBench::new(vec![Some(disk(4096)), Some(disk(512))]);
    bench.device.hba().show_strays(0, 1 << 31);
    bench.submit(1, 0, 1);
    (1..9).for_each(|lba| bench.submit(0, lba, 1));
    // One at a time, none of them needs the register with the senseless bit.
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.device.hba().link_resets(0), 1);
    assert_eq!(bench.device.hba().resets(), 1, "the other port goes on");
}

#[test]
fn a_disk_that_is_stuck_with_one_command_loses_no_other() {
    let mut bench = with_mishap(ALWAYS, Mishap::Stall);
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            16 => assert_eq!(completion.result, Err(BlockError::Timeout)),
            _ => good(completion),
        }
    }
}

#[test]
fn a_cable_that_never_works_fails_every_command_and_nothing_else() {
    let mut bench = SimBench::new(vec![Some(disk(4096))]);
    for _ in 0..100 {
        bench.inject(0, Fault::InterfaceFatal, 16);
        bench.submit(0, 16, 1);
        assert_eq!(bench.result(), Err(BlockError::Transport));
        bench.device.hba().disarm(0);
    }
    assert_eq!(bench.state(0), UnitState::Ready);
    assert_eq!(bench.device.hba().resets(), 1, "the disk can be identified every time");
}

#[test]
fn the_innocent_are_not_blamed_among_many_bad_sectors() {
    let mut bench = SimBench::new(vec![Some(bad_disk(1..1000))]);
    // The good sector is in the last slot, behind a queue that is always full.
    (1..32).chain([1000]).for_each(|lba| bench.submit(0, lba, 1));
    bench.driver.kick(bench.now);
    let mut lba = 32;
    while !bench.done.iter().any(|completion| completion.tag.0 == 1000) {
        bench.turn();
        bench.now = bench.now + Duration::from_millis(1);
        while lba < 1000 && bench.submitted - bench.done.len() < 32 {
            bench.submit(0, lba, 1);
            lba += 1;
        }
        bench.driver.kick(bench.now);
    }
    for completion in bench.finish() {
        match completion.tag.0 {
            1000 => good(completion),
            lba => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(lba) })),
        }
    }
}

#[test]
fn a_log_that_cannot_be_read_is_noticed_at_once() {
    let mut disk = bad_disk([83]);
    disk.lies |= Lies::QUEUE_LOG_UNREADABLE;
    let mut bench = SimBench::new(vec![Some(disk)]);
    let began = bench.now;
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            80 => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(83) })),
            _ => good(completion),
        }
    }
    assert!(bench.now.since(began) < Duration::from_secs(5), "{:#?}", bench.events);
}

#[test]
fn an_old_error_is_not_taken_for_a_new_one() {
    let mut bench = SimBench::new(vec![Some(bad_disk([83]))]);
    bench.disk(0, |disk| disk.script_at(84, 1, Mishap::Hang));
    bench.submit(0, 83, 1);
    assert_eq!(bench.result(), Err(BlockError::Media { lba: Some(83) }));
    // It takes its time, so that the driver looks at the port before it has ended.
    bench.submit(0, 84, 1);
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.happened("a queued command failed"), 1, "{:#?}", bench.events);
}

#[test]
fn a_disk_that_is_away_for_a_while_comes_back() {
    for seconds in [1, 5, 9] {
        let mut bench = with_mishap(1, Mishap::Hang);
        bench.submit(0, 16, 1);
        bench.driver.kick(bench.now);
        bench.run_until(|bench| bench.device.hba().link_resets(0) > 0);
        bench.device.hba().lose_link(0, Duration::from_secs(seconds));
        bench.finish().into_iter().for_each(good);
        assert_eq!(bench.state(0), UnitState::Ready);
    }
}

#[test]
fn a_disk_that_announces_itself_is_identified_before_it_is_used_again() {
    for swapped in [false, true] {
        let mut bench = SimBench::new(vec![Some(disk(512))]);
        let mut other = DiskConfig::modern(512);
        if swapped {
            other.serial = "OTHER".into();
        }
        bench.device.hba().attach(0, Box::new(disk_as(other)));
        bench.brown_out(0);
        let before = bench.sector(0, 9);
        bench.submit_write(0, 9, 0x5a, Durability::Cached);
        assert_eq!(bench.result(), if swapped { Err(BlockError::Gone) } else { Ok(()) });
        let same = bench.sector(0, 9) == before;
        assert_eq!(same, swapped, "nothing is written to another disk");
    }
}

#[test]
fn a_flush_says_so_if_the_cache_may_be_lost() {
    let mut bench = SimBench::new(vec![Some(disk(512))]);
    let cycle = |bench: &mut SimBench| {
        bench.brown_out(0);
        bench.finish();
        bench.submit_flush(0);
        bench.result()
    };
    assert_eq!(cycle(&mut bench), Ok(()), "there was nothing to lose");
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.result().unwrap();
    assert_eq!(cycle(&mut bench), Err(BlockError::CacheLost));
    assert_eq!(cycle(&mut bench), Ok(()), "it is said once");
    // A write that was flushed, and one that is durable by itself.
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.finish();
    bench.submit_flush(0);
    assert_eq!(bench.result(), Ok(()));
    bench.submit_write(0, 10, 0x5a, Durability::Durable);
    assert_eq!(bench.result(), Ok(()));
    assert_eq!(cycle(&mut bench), Ok(()));
}

/// A disk is cut off, and the HBA is reset for another one. The registers of its port do not answer
/// to so many reads: the first are those of PxIS and PxSERR.
fn cut_off_and_reset(unanswered: u32) {
    let mut bench = SimBench::new(vec![Some(disk(4096)), Some(disk(512))]);
    bench.disk(0, |disk| disk.script_at(16, 1, Mishap::Hang));
    bench.inject(0, Fault::EngineStuck, 1);
    bench.submit_write(1, 9, 0x5a, Durability::Cached);
    bench.result().unwrap();
    bench.submit(0, 16, 1);
    bench.driver.kick(bench.now);
    bench.run_until(|bench| bench.happened("timed out") > 0);
    // Before the second port's interrupt is served, the first one's engine has had its time.
    bench.brown_out(1);
    bench.inject(1, Fault::OnesOnce, unanswered);
    bench.now = bench.now + Duration::from_secs(1);
    bench.advance();
    bench.poll();
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.device.hba().resets(), 2);
    bench.submit_flush(1);
    assert_eq!(bench.result(), Err(BlockError::CacheLost));
}

#[test]
fn a_reset_for_another_port_does_not_hide_that_a_disk_was_cut_off() {
    cut_off_and_reset(0);
    cut_off_and_reset(2);
}

#[test]
fn a_disk_that_was_lost_for_a_while_during_a_reset_may_have_lost_its_cache() {
    for lost in [false, true] {
        let mut bench = with_mishap(1, Mishap::Hang);
        bench.submit_write(0, 9, 0x5a, Durability::Cached);
        bench.result().unwrap();
        bench.submit(0, 16, 1);
        bench.driver.kick(bench.now);
        bench.run_until(|bench| bench.device.hba().link_resets(0) > 0);
        if lost {
            bench.device.hba().lose_link(0, Duration::from_secs(1));
        }
        bench.finish().into_iter().for_each(good);
        bench.submit_flush(0);
        assert_eq!(bench.result(), if lost { Err(BlockError::CacheLost) } else { Ok(()) });
    }
}

#[test]
fn an_engine_that_does_not_stop_does_not_hide_that_its_disk_was_cut_off() {
    let mut bench = with_mishap(1, Mishap::Hang);
    bench.inject(0, Fault::EngineStuck, 1);
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.result().unwrap();
    bench.submit(0, 16, 1);
    bench.driver.kick(bench.now);
    bench.run_until(|bench| bench.happened("timed out") > 0);
    bench.brown_out(0);
    bench.finish().into_iter().for_each(good);
    bench.submit_flush(0);
    assert_eq!(bench.result(), Err(BlockError::CacheLost));
}

#[test]
fn a_disk_that_never_becomes_ready_is_given_up_and_the_others_go_on() {
    let disks = vec![Some(disk(512)), Some(disk(512))];
    let mut bench = SimBench::starting_at(HbaConfig::new(2), disks, |hba| {
        (0..64).for_each(|_| hba.inject(0, Fault::SpinUpNever));
    });
    bench.run_until(|bench| bench.state(1) == UnitState::Ready);
    let began = bench.now;
    let given_up = UnitState::Failed(FailedReason::GivenUp);
    bench.run_until(|bench| bench.state(0) == given_up);
    assert!(bench.now.since(began) < Duration::from_secs(125));
    assert_eq!(bench.device.hba().resets(), 1, "only the one at start-up");
    bench.submit(1, 0, 1);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn a_durable_write_is_done_again_if_its_flush_was_cut_off() {
    let disk = disk_as(DiskConfig::modern(512).without(Abilities::FUA));
    let mut bench = SimBench::new(vec![Some(disk)]);
    bench.submit_write(0, 9, 0x5a, Durability::Durable);
    bench.driver.kick(bench.now);
    // The write has ended, and the flush is issued.
    bench.run_until(|bench| bench.disk(0, |disk| disk.counters().writes == 1));
    assert!(bench.done.is_empty());
    bench.brown_out(0);
    assert_eq!(bench.result(), Ok(()));
    assert_eq!(bench.disk(0, |disk| disk.counters().writes), 2);
    bench.brown_out(0);
    assert_eq!(bench.sector(0, 9), [0x5a; 512]);
}
