//! What was found by trials, or thought of: devices, links and registers that misbehave behind a
//! multiplier.

use crate::bench::{BOTH, Bench, DISKS, PORT, SECTORS, Switching, disk};
use core::time::Duration;
use outboard_block::{BlockError, Request, UnitState};
use outboard_sim::Fault;
use outboard_sim::disk::{Disk, DiskConfig, Mishap};

#[test]
fn a_device_that_does_not_answer_its_first_reset_is_found() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        for _ in 0..2 {
            bench.device.hba().inject(PORT, Fault::ComresetIgnored);
        }
        bench.all_ready();
        assert_eq!(bench.device.hba().counts().of(Fault::ComresetIgnored), 2);
        bench.stops();
    }
}

#[test]
fn a_multiplier_that_starts_anew_while_the_engine_stops_is_looked_at_before_it_is_used() {
    for switching in BOTH {
        for _ in 0..8 {
            let mut bench = Bench::new(switching);
            bench.all_ready();
            let failure = match switching {
                Switching::Command => Fault::RegisterAborted,
                // Of this one alone the HBA cannot let go.
                Switching::Fis => Fault::RegisterNeverEnds,
            };
            for fault in [failure, Fault::EngineSlow, Fault::InterruptsStop] {
                bench.device.hba().inject(PORT, fault);
            }
            bench.until("the engine is to stop", Duration::from_secs(9), |bench| {
                bench.device.hba().counts().of(Fault::EngineSlow) == 1
            });
            bench.device.hba().inject(PORT, Fault::MultiplierRestart);
            // What is done too early is a violation, which the model notices.
            let tags: Vec<_> = (0..DISKS).map(|disk| bench.write(disk, 0, 1)).collect();
            bench.all_end(&tags, Duration::from_secs(60));
            assert!(tags.iter().all(|tag| bench.ended[tag].0.is_ok()));
            bench.stops();
        }
    }
}

#[test]
fn a_device_that_waits_for_neighbours_that_hang_is_not_taken_for_gone() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        bench.device.hba().unplug_behind(PORT, 1);
        bench.until("it is gone", Duration::from_secs(60), |bench| {
            bench.state(1) == UnitState::Absent
        });
        for _ in 0..2 {
            bench.device.hba().inject(PORT, Fault::SpinUpNever);
        }
        bench.device.hba().replug_behind(PORT, 1);
        bench.until("it was reset in vain", Duration::from_secs(9), |bench| {
            let struck = bench.device.hba().counts().of(Fault::SpinUpNever);
            struck == 2 && bench.state(1) == UnitState::Starting
        });
        let hanging = [0, 2, 3].map(|disk| {
            bench.disk(disk, |disk| disk.script(None, 1, Mishap::Hang));
            bench.read(disk, 0)
        });
        bench.until("it is ready", Duration::from_secs(150), |bench| match bench.state(1) {
            UnitState::Starting => false,
            UnitState::Ready => true,
            other => bench.fail(&format!("{switching:?}: it is {other}")),
        });
        bench.all_end(&hanging, Duration::from_secs(150));
        bench.stops();
    }
}

#[test]
fn a_device_whose_power_was_lost_while_a_neighbour_kept_the_link_tells_it() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        let write = bench.write(1, 7, 1);
        bench.all_end(&[write], Duration::from_secs(2));
        // Nothing can be asked of the multiplier while this one is waited for.
        bench.disk(1, |disk| disk.script(None, 1, Mishap::Hang));
        let hangs = bench.read(1, 9);
        let soon = bench.now + Duration::from_millis(100);
        bench.until("it hangs", Duration::from_secs(2), |bench| bench.now.reached(soon));
        bench.device.hba().unplug_behind(PORT, 1);
        bench.device.hba().replug_behind(PORT, 1);
        bench.all_end(&[hangs], Duration::from_secs(90));
        assert_eq!(bench.ended[&hangs].0, Ok(()));
        let flush = bench.submit(1, Request::flush());
        bench.all_end(&[flush], Duration::from_secs(30));
        assert_eq!(bench.ended[&flush].0, Err(BlockError::CacheLost), "{switching:?}");
        bench.stops();
    }
}

#[test]
fn what_ended_before_the_multiplier_started_anew_is_not_taken_for_failed() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        bench.device.hba().inject(PORT, Fault::InterruptsStop);
        // Alone each, so that the status of their devices decides.
        let flushes: Vec<_> = (0..DISKS).map(|disk| bench.submit(disk, Request::flush())).collect();
        bench.turn();
        let later = bench.now + Duration::from_micros(800);
        bench.device.hba().advance(later);
        bench.now = later;
        bench.device.hba().inject(PORT, Fault::MultiplierRestart);
        bench.all_end(&flushes, Duration::from_secs(60));
        assert!(flushes.iter().all(|tag| bench.ended[tag].0 == Ok(())), "{switching:?}");
        bench.stops();
    }
}

#[test]
fn commands_that_the_hba_keeps_when_the_multiplier_is_lost_are_not_mixed_with_others() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        for lba in 0..8 {
            bench.disk(2, |disk| disk.script(None, 8, Mishap::Slow(Duration::from_secs(1))));
            bench.read(2, lba);
        }
        bench.turn();
        bench.device.hba().inject(PORT, Fault::ActiveKept);
        bench.device.hba().inject(PORT, Fault::MultiplierRestart);
        let tags: Vec<_> = (0..8).collect();
        // Commands of two devices at once are a violation, which the model notices.
        bench.all_end(&tags, Duration::from_secs(60));
        assert!(tags.iter().all(|tag| bench.ended[tag].0.is_ok()));
        bench.stops();
    }
}

#[test]
fn the_driver_stops_whenever_it_is_told_to_and_whatever_it_has_found_by_then() {
    for switching in BOTH {
        for after_us in (0..20_000).step_by(500).chain([100_000, 115_000, 130_000]) {
            let mut bench = Bench::new(switching);
            let then = bench.now + Duration::from_micros(after_us);
            bench.until("it is time", Duration::from_secs(1), |bench| bench.now.reached(then));
            bench.stops();
        }
    }
}

#[test]
fn a_disk_that_spins_up_slowly_is_given_the_time_that_it_needs() {
    for switching in BOTH {
        // One for which each COMRESET means to begin anew.
        let mut config = DiskConfig::rotating(SECTORS);
        config.timing.spin_up = Duration::from_secs(18);
        let slow = Box::new(Disk::new(config));
        let mut bench = Bench::with(switching, |multiplier| {
            let multiplier = multiplier.with(0, slow);
            (1..DISKS).fold(multiplier, |multiplier, number| multiplier.with(number, disk(number)))
        });
        bench.all_ready();
        bench.device.hba().unplug_behind(PORT, 0);
        bench.until("it is gone", Duration::from_secs(60), |bench| {
            bench.state(0) == UnitState::Absent
        });
        bench.device.hba().replug_behind(PORT, 0);
        let (began, resets) = (bench.now, bench.counter(0, "port-resets"));
        let mut served = 0;
        while !matches!(bench.state(0), UnitState::Ready) {
            let read = bench.read(2, 9);
            bench.all_end(&[read], Duration::from_secs(10));
            assert_eq!(bench.ended[&read].0, Ok(()));
            served += 1;
            let took = bench.now.since(began);
            assert!(took < Duration::from_secs(28), "{switching:?}: not ready after {took:?}");
        }
        assert_eq!(bench.counter(0, "port-resets"), resets, "{switching:?}");
        assert!(served > 1000, "{switching:?}: the others have waited, {served}");
        bench.stops();
    }
}

#[test]
fn a_disk_that_hangs_keeps_nobody_from_being_found_where_each_has_its_own_frames() {
    let mut bench = Bench::new(Switching::Fis);
    bench.all_ready();
    bench.device.hba().unplug_behind(PORT, 3);
    bench.until("it is gone", Duration::from_secs(60), |bench| bench.state(3) == UnitState::Absent);
    for disk in [0, 1, 2] {
        bench.disk(disk, |disk| disk.script(None, 1, Mishap::Hang));
    }
    let hanging = [0, 1, 2].map(|disk| bench.read(disk, 0));
    let others: Vec<_> = (0..20).map(|lba| bench.read(4, lba)).collect();
    bench.all_end(&others, Duration::from_secs(1));
    bench.device.hba().replug_behind(PORT, 3);
    bench.until("it is ready", Duration::from_secs(3), |bench| bench.state(3) == UnitState::Ready);
    assert!(hanging.iter().all(|tag| !bench.ended.contains_key(tag)));
    bench.all_end(&hanging, Duration::from_secs(90));
    bench.stops();
}

#[test]
fn an_aborted_command_for_the_registers_disturbs_nobody_where_each_has_its_own_frames() {
    let mut bench = Bench::new(Switching::Fis);
    bench.all_ready();
    for disk in 0..DISKS {
        bench.disk(disk, |disk| disk.script(None, 1, Mishap::Slow(Duration::from_secs(3))));
    }
    bench.device.hba().inject(PORT, Fault::RegisterAborted);
    let tags: Vec<_> = (0..DISKS).map(|disk| bench.read(disk, 0)).collect();
    bench.all_end(&tags, Duration::from_secs(10));
    assert_eq!(bench.device.hba().counts().of(Fault::RegisterAborted), 1);
    for disk in 0..DISKS {
        assert_eq!(bench.counter(disk, "requeued"), 0);
        assert_eq!(bench.counter(disk, "port-resets"), 0);
    }
    bench.stops();
}

#[test]
fn a_device_that_was_cut_off_while_the_multiplier_was_mute_tells_it() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        let write = bench.write(1, 7, 1);
        bench.all_end(&[write], Duration::from_secs(2));
        for _ in 0..4 {
            bench.device.hba().inject(PORT, Fault::RegisterAborted);
        }
        bench.device.hba().unplug_behind(PORT, 1);
        bench.device.hba().replug_behind(PORT, 1);
        bench.until("all errands have failed", Duration::from_secs(30), |bench| {
            bench.device.hba().counts().of(Fault::RegisterAborted) == 4
        });
        bench.all_ready();
        let flush = bench.submit(1, Request::flush());
        bench.all_end(&[flush], Duration::from_secs(60));
        assert_eq!(bench.ended[&flush].0, Err(BlockError::CacheLost), "{switching:?}");
        bench.stops();
    }
}

#[test]
fn a_device_that_loses_power_with_the_multiplier_while_its_link_is_reset_tells_it() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        let write = bench.write(1, 7, 1);
        bench.all_end(&[write], Duration::from_secs(2));
        bench.disk(1, |disk| disk.script(None, 1, Mishap::Hang));
        let hangs = bench.read(1, 9);
        let resets = bench.counter(1, "port-resets");
        bench.until("its link is reset", Duration::from_secs(60), |bench| {
            bench.counter(1, "port-resets") > resets
        });
        bench.device.hba().inject(PORT, Fault::MultiplierRestart);
        bench.all_end(&[hangs], Duration::from_secs(90));
        let flush = bench.submit(1, Request::flush());
        bench.all_end(&[flush], Duration::from_secs(30));
        assert_eq!(bench.ended[&flush].0, Err(BlockError::CacheLost), "{switching:?}");
        bench.stops();
    }
}
