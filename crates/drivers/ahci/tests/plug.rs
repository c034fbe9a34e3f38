//! Disks that come and go, in virtual time.

mod support;

use outboard_ahci::spec::registers::{PX_CMD, PortCommand, PortInterrupts, serial_error};
use outboard_block::{
    BlockDriver, BlockError, Durability, FailedReason, Refused, RefusedReason, Request, Tag,
    UnitId, UnitState,
};
use outboard_sim::disk::{Abilities, Mishap, PowerState};
use outboard_sim::hba::{HbaConfig, HbaModel};
use outboard_sim::sata::SataDevice;
use outboard_sim::{Disk, DiskConfig, Fault};
use std::cell::Cell;
use std::time::Duration;
use support::sim_bench::{SimBench, disk, disk_as, good};

fn named(serial: &str) -> Box<Disk> {
    let config = DiskConfig { serial: serial.into(), ..DiskConfig::modern(512) };
    Box::new(disk_as(config))
}

/// A bench in which the disk at port 0 does not become ready, however often it is reset.
fn with_slow_disk(disks: Vec<Option<Disk>>) -> SimBench {
    SimBench::starting_at(HbaConfig::new(disks.len() as u8), disks, |hba| {
        (0..64).for_each(|_| hba.inject(0, Fault::SpinUpNever));
    })
}

/// Waits for a state, and returns how long that took.
fn until(bench: &mut SimBench, state: UnitState) -> Duration {
    let began = bench.now;
    bench.run_until(|bench| bench.state(0) == state);
    bench.now.since(began)
}

#[test]
fn a_disk_that_is_plugged_in_is_used() {
    let mut bench = SimBench::new(vec![None, Some(disk(512))]);
    bench.pass(Duration::from_secs(3));
    assert_eq!((bench.state(0), bench.generation(0)), (UnitState::Absent, 0));
    bench.device.hba().attach(0, Box::new(disk(512)));
    let took = until(&mut bench, UnitState::Ready);
    assert!(took < Duration::from_millis(50), "an interrupt told of it: {took:?}");
    assert_eq!(bench.generation(0), 1);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.counter(0, "plugs"), 1);
    assert_eq!(bench.device.hba().resets(), 1, "the other port goes on");
}

#[test]
fn an_empty_place_is_watched_though_its_port_does_not_answer_for_a_while() {
    let mut bench = SimBench::new(vec![Some(disk(512))]);
    bench.device.hba().detach(0);
    // Its engines are to be brought to rest now.
    until(&mut bench, UnitState::Absent);
    bench.device.hba().mute(0);
    bench.pass(Duration::from_secs(3));
    let deadline = bench.driver.next_deadline().unwrap();
    assert!(!bench.now.reached(deadline), "it asks to be polled without end");
    bench.device.hba().unmute(0);
    bench.device.hba().attach(0, Box::new(disk(512)));
    until(&mut bench, UnitState::Ready);
}

#[test]
fn a_lost_interrupt_delays_a_disk_by_a_second_at_most() {
    let mut bench = SimBench::new(vec![None]);
    bench.pass(Duration::from_secs(3));
    bench.device.hba().attach(0, Box::new(disk(512)));
    // The interrupt is not passed on.
    let end = bench.now + Duration::from_millis(1100);
    while !bench.now.reached(end) {
        bench.advance();
        bench.poll();
        bench.now = bench.now + Duration::from_millis(1);
    }
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn a_disk_that_is_taken_out_is_absent_and_its_requests_fail() {
    let mut bench = SimBench::new(vec![Some(disk(512))]);
    (0..8).for_each(|lba| bench.submit(0, lba, 1));
    bench.device.hba().detach(0);
    let began = bench.now;
    for completion in bench.finish() {
        assert_eq!(completion.result, Err(BlockError::Gone));
    }
    assert!(bench.now.since(began) < Duration::from_secs(14));
    assert_eq!((bench.state(0), bench.generation(0)), (UnitState::Absent, 2));
    bench.pass(Duration::from_secs(2));
    let dma = bench.driver.dma();
    assert_eq!(dma.statistics().buffers, 0, "an empty place needs no memory");
    let Refused { reason, .. } =
        bench.driver.submit(UnitId(0), Tag(1), Request::flush()).unwrap_err();
    assert_eq!(reason, RefusedReason::NotReady(UnitState::Absent));
    // In again: the port was made to look for it.
    bench.device.hba().attach(0, named("OTHER"));
    until(&mut bench, UnitState::Ready);
    assert_eq!(bench.generation(0), 2);
    assert_eq!(bench.driver.unit(UnitId(0)).unwrap().identity.serial, "OTHER");
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn an_idle_disk_that_is_taken_out_is_noticed_without_an_interrupt() {
    let mut bench = SimBench::new(vec![Some(disk(512))]);
    bench.device.hba().detach(0);
    let end = bench.now + Duration::from_secs(15);
    while !bench.now.reached(end) {
        bench.advance();
        bench.poll();
        bench.now = bench.now + Duration::from_millis(1);
    }
    assert_eq!(bench.state(0), UnitState::Absent);
}

#[test]
fn a_disk_that_is_replaced_while_the_driver_waits_for_it_is_another_one() {
    let mut bench = SimBench::new(vec![Some(disk(512))]);
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.finish();
    bench.submit(0, 0, 8);
    bench.device.hba().detach(0);
    bench.driver.kick(bench.now);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.state(0), UnitState::Recovering);
    bench.device.hba().attach(0, named("OTHER"));
    assert_eq!(bench.result(), Err(BlockError::Gone));
    assert_eq!((bench.state(0), bench.generation(0)), (UnitState::Ready, 2));
    assert_eq!(bench.happened("another device took its place"), 1);
    bench.submit_flush(0);
    assert_eq!(bench.result(), Ok(()), "the new disk has lost nothing");
}

#[test]
fn a_disk_that_comes_back_in_time_goes_on_and_may_have_lost_its_cache() {
    let mut bench = SimBench::new(vec![Some(disk(512))]);
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.finish();
    let disk = bench.device.hba().detach(0).unwrap();
    bench.submit(0, 0, 8);
    bench.driver.kick(bench.now);
    bench.pass(Duration::from_secs(2));
    bench.device.hba().attach(0, disk);
    bench.finish().into_iter().for_each(good);
    assert_eq!((bench.state(0), bench.generation(0)), (UnitState::Ready, 1));
    bench.submit_flush(0);
    assert_eq!(bench.result(), Err(BlockError::CacheLost));
}

#[test]
fn an_open_switch_and_missing_power_end_a_disk_at_once() {
    for cold in [false, true] {
        let change = |hba: &mut HbaModel, present: bool| match cold {
            true => hba.set_cold_presence(0, present),
            false => hba.set_switch(0, !present),
        };
        let mut bench = SimBench::starting_at(HbaConfig::new(1), vec![Some(disk(512))], |hba| {
            change(hba, true)
        });
        until(&mut bench, UnitState::Ready);
        bench.submit(0, 0, 8);
        change(&mut bench.device.hba(), false);
        let began = bench.now;
        assert_eq!(bench.result(), Err(BlockError::Gone));
        assert!(bench.now.since(began) < Duration::from_secs(1), "{:#?}", bench.events);
        assert_eq!(bench.state(0), UnitState::Absent);
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.state(0), UnitState::Absent);
        change(&mut bench.device.hba(), true);
        until(&mut bench, UnitState::Ready);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
    }
}

#[test]
fn a_disk_that_was_given_up_is_tried_again_once_it_was_out() {
    let mut bench = with_slow_disk(vec![Some(disk(512))]);
    let given_up = UnitState::Failed(FailedReason::GivenUp);
    until(&mut bench, given_up);
    let resets = bench.device.hba().link_resets(0);
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.state(0), given_up);
    assert_eq!(bench.device.hba().link_resets(0), resets, "it is left alone");
    let disk = bench.device.hba().detach(0).unwrap();
    until(&mut bench, UnitState::Absent);
    bench.pass(Duration::from_secs(2));
    bench.device.hba().disarm(0);
    bench.device.hba().attach(0, disk);
    until(&mut bench, UnitState::Ready);
}

#[test]
fn a_disk_that_was_given_up_and_replaced_in_an_instant_is_noticed() {
    let mut bench = with_slow_disk(vec![Some(disk(512))]);
    until(&mut bench, UnitState::Failed(FailedReason::GivenUp));
    bench.pass(Duration::from_secs(5));
    bench.device.hba().disarm(0);
    // The new one is there before the driver has looked.
    bench.brown_out(0);
    until(&mut bench, UnitState::Ready);
}

#[test]
fn a_disk_that_announces_itself_without_end_is_given_up() {
    let mut bench = SimBench::new(vec![Some(disk(512)), Some(disk(512))]);
    bench.submit(0, 0, 8);
    bench.brown_out(0);
    let began = bench.now;
    // It does so whenever it was identified.
    let identified = Cell::new(bench.disk(0, |disk| disk.counters().others));
    bench.run_until(|bench| {
        let others = bench.disk(0, |disk| disk.counters().others);
        if bench.state(0) == UnitState::Ready && identified.replace(others) != others {
            bench.device.hba().lose_link(0, Duration::from_millis(1));
        }
        bench.state(0) == UnitState::Failed(FailedReason::GivenUp)
    });
    let took = bench.now.since(began);
    assert!((200..300).contains(&took.as_secs()), "{took:?}");
    assert!(bench.device.hba().link_resets(0) < 20);
    assert!(bench.done.pop().unwrap().result.is_err());
    bench.submitted = 0;
    bench.submit(1, 0, 8);
    bench.finish().into_iter().for_each(good);
    // Taken out for a while, it gets another chance.
    let disk = bench.device.hba().detach(0).unwrap();
    bench.pass(Duration::from_secs(15));
    assert_eq!(bench.state(0), UnitState::Absent);
    bench.device.hba().attach(0, disk);
    assert!(until(&mut bench, UnitState::Ready) < Duration::from_secs(1));
}

#[test]
fn a_loose_contact_is_bounded() {
    let mut bench = SimBench::new(vec![None]);
    bench.device.hba().set_switch(0, true);
    let (mut out, mut polls) = (Some(named("LOOSE") as Box<dyn SataDevice>), 0u32);
    let end = bench.now + Duration::from_secs(1200);
    while !bench.now.reached(end) {
        {
            // Every 100 ms the disk is in, or out, and the switch with it.
            let mut hba = bench.device.hba();
            match out.take() {
                Some(disk) => hba.attach(0, disk),
                None => out = hba.detach(0),
            }
            hba.set_switch(0, out.is_some());
        }
        for _ in 0..20 {
            bench.turn();
            polls += 1;
            bench.now = bench.now + Duration::from_millis(5);
        }
    }
    assert!(bench.device.hba().link_resets(0) < 2500, "at most two each second");
    assert!(bench.counter(0, "plugs") < 1300 && polls > 0);
}

#[test]
fn a_flapping_link_stays_bounded_and_a_good_disk_is_served_in_the_end() {
    let mut bench = SimBench::new(vec![Some(disk(512))]);
    for _ in 0..10 {
        bench.brown_out(0);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
    }
    bench.pass(Duration::from_secs(599));
    let began = bench.now;
    bench.brown_out(0);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
    assert!(bench.now.since(began) < Duration::from_secs(3), "old trouble is forgotten");
}

#[test]
fn a_storm_of_harmless_interrupts_is_let_through_once_a_second() {
    let mut bench = SimBench::new(vec![Some(disk(512)), None]);
    let mut interrupts = 0;
    for _ in 0..1000 {
        for port in 0..2 {
            let bits = PortInterrupts::UNKNOWN_FIS | PortInterrupts::PRESENCE_SWITCH;
            bench.device.hba().disturb(port, bits, serial_error::PHY_READY);
        }
        if bench.advance() {
            interrupts += 1;
            bench.driver.interrupt(0);
        }
        bench.poll();
        bench.now = bench.now + Duration::from_millis(10);
    }
    assert!(interrupts <= 25, "{interrupts} in ten seconds");
    assert_eq!(bench.state(0), UnitState::Ready);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn plugged_disks_spin_up_one_after_the_other_where_the_hba_asks_for_it() {
    let mut config = HbaConfig::new(2);
    config.capabilities.set_staggered(true);
    let mut bench = SimBench::starting_at(config, vec![None, None], |_| ());
    bench.run_until(|bench| bench.state(1) == UnitState::Absent);
    bench.pass(Duration::from_secs(2));
    bench.inject(0, Fault::SpinUpNever, 1);
    for port in 0..2 {
        bench.device.hba().attach(port, Box::new(disk(512)));
    }
    bench.pass(Duration::from_secs(3));
    assert_eq!((bench.state(0), bench.state(1)), (UnitState::Starting, UnitState::Absent));
    let command = PortCommand::from(bench.register(1, PX_CMD.offset()));
    assert!(!command.spin_up(), "the second waits for the first");
    bench.brown_out(0);
    bench.run_until(|bench| bench.state(1) == UnitState::Ready);
    assert_eq!(bench.state(0), UnitState::Ready);
}

/// A request to the disk at this port that needs a reset of the HBA.
fn submit_trouble(bench: &mut SimBench, port: u8) {
    bench.disk(port, |disk| disk.script_at(16, 1, Mishap::Hang));
    bench.inject(port, Fault::EngineStuck, 1);
    bench.submit(port.into(), 16, 1);
}

/// A bench on an HBA that spins disks up one after the other, with a disk at the last port only.
fn with_listening_ports(ports: u8) -> SimBench {
    let mut config = HbaConfig::new(ports);
    config.capabilities.set_staggered(true);
    let disks = (1..=ports).map(|port| (port == ports).then(|| disk(512))).collect();
    let mut bench = SimBench::starting_at(config, disks, |_| ());
    bench.run_until(|bench| bench.state(u16::from(ports) - 1) == UnitState::Ready);
    bench.pass(Duration::from_secs(2));
    bench
}

#[test]
fn a_disk_that_came_while_the_hba_was_reset_is_found() {
    let mut bench = with_listening_ports(2);
    submit_trouble(&mut bench, 1);
    bench.run_until(|bench| bench.device.hba().resets() == 2);
    bench.device.hba().attach(0, Box::new(disk(512)));
    until(&mut bench, UnitState::Ready);
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.device.hba().resets(), 2);
}

#[test]
fn a_disk_that_got_its_power_after_the_hba_was_reset_is_found() {
    let mut bench = with_listening_ports(2);
    let other = disk_as(DiskConfig { serial: "AWAY".into(), ..DiskConfig::modern(512) });
    bench.device.hba().attach(0, Box::new(other));
    bench.run_until(|bench| bench.state(0) == UnitState::Ready);
    bench.inject(0, Fault::PowerCut, 1);
    bench.run_until(|bench| bench.state(0) != UnitState::Ready);
    submit_trouble(&mut bench, 1);
    bench.finish().into_iter().for_each(good);
    assert!(bench.device.hba().resets() >= 2);
    until(&mut bench, UnitState::Ready);
}

#[test]
fn after_a_reset_of_the_hba_empty_places_wait_for_the_disk_that_is_known() {
    let mut bench = with_listening_ports(8);
    submit_trouble(&mut bench, 7);
    bench.run_until(|bench| bench.device.hba().resets() == 2);
    let began = bench.now;
    bench.run_until(|bench| bench.state(7) == UnitState::Ready);
    assert!(bench.now.since(began) < Duration::from_millis(50), "{:?}", bench.now.since(began));
    bench.finish().into_iter().for_each(good);
    bench.run_until(|bench| (0..7).all(|port| bench.state(port) == UnitState::Absent));
    assert_eq!(bench.counter(0, "unplugs"), 0);
}

#[test]
fn a_reset_of_the_hba_does_not_end_the_watch() {
    let mut bench = SimBench::new(vec![None, Some(disk(512))]);
    submit_trouble(&mut bench, 1);
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.device.hba().resets(), 2);
    bench.pass(Duration::from_secs(2));
    bench.device.hba().attach(0, Box::new(disk(512)));
    until(&mut bench, UnitState::Ready);
}

#[test]
fn a_driver_with_empty_and_failed_places_stops() {
    let mut bench = with_slow_disk(vec![Some(disk(512)), None, Some(disk(512))]);
    bench.run_until(|bench| bench.state(0) == UnitState::Failed(FailedReason::GivenUp));
    bench.driver.stop();
    bench.run_until(|bench| bench.driver.is_stopped());
    assert_eq!(bench.driver.next_deadline(), None);
}

#[test]
fn a_disk_that_waits_in_standby_is_told_to_spin_up() {
    let mut config = DiskConfig::modern(512);
    config.abilities |= Abilities::PUIS;
    let mut disk = disk_as(config);
    disk.start_in_standby();
    let mut bench = SimBench::new(vec![Some(disk)]);
    assert_eq!(bench.happened("told to spin up"), 1);
    assert_eq!(bench.disk(0, |disk| disk.power_state()), PowerState::Active);
    assert_eq!(bench.state(0), UnitState::Ready);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn a_damaged_identification_is_not_another_disk() {
    for times in [1, 2] {
        let mut bench = SimBench::new(vec![Some(disk(512))]);
        bench.disk(0, |disk| disk.mistake_identity(times));
        bench.submit(0, 0, 8);
        bench.brown_out(0);
        bench.finish().into_iter().for_each(good);
        assert_eq!(bench.disk(0, |disk| disk.mistaken()), 0);
        assert_eq!((bench.state(0), bench.generation(0)), (UnitState::Ready, 1));
    }
}

#[test]
fn a_disk_that_is_another_one_each_time_is_given_up() {
    let mut bench = SimBench::new(vec![Some(disk(512))]);
    bench.disk(0, |disk| disk.mistake_identity(u32::MAX));
    bench.brown_out(0);
    let took = until(&mut bench, UnitState::Failed(FailedReason::BadIdentity));
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn an_engine_that_is_slow_to_stop_is_waited_for() {
    let mut disk = disk(512);
    disk.mistake_identity(2);
    let mut bench = SimBench::starting_at(HbaConfig::new(1), vec![Some(disk)], |hba| {
        (0..8).for_each(|_| hba.inject(0, Fault::EngineSlow));
    });
    until(&mut bench, UnitState::Ready);
    assert_eq!(bench.happened("port reset"), 1, "{:#?}", bench.events);
}

#[test]
fn a_disk_that_is_away_for_a_moment_while_it_starts_is_waited_for() {
    let mut bench = SimBench::starting_at(HbaConfig::new(1), vec![Some(disk(512))], |hba| {
        // At first before the HBA is reset, and then once more.
        (0..2).for_each(|_| hba.inject(0, Fault::SpinUpNever));
    });
    bench.run_until(|bench| bench.happened("link up") > 0);
    bench.run_until(|bench| bench.device.hba().link_resets(0) > 0);
    bench.device.hba().lose_link(0, Duration::from_secs(2));
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.state(0), UnitState::Starting);
    until(&mut bench, UnitState::Ready);
    assert_eq!(bench.happened("port reset"), 1);
}

#[test]
fn resets_that_no_disk_was_there_to_hear_do_not_count_against_it() {
    let mut bench = SimBench::starting_at(HbaConfig::new(1), vec![Some(disk(512))], |hba| {
        // At first before the HBA is reset, then before the link is lost, and once more after that.
        (0..3).for_each(|_| hba.inject(0, Fault::SpinUpNever));
    });
    bench.run_until(|bench| bench.happened("link up") > 0);
    bench.run_until(|bench| bench.device.hba().link_resets(0) > 0);
    bench.device.hba().lose_link(0, Duration::from_millis(8_600));
    let took = until(&mut bench, UnitState::Ready);
    assert!(took < Duration::from_secs(45), "{took:?}");
    assert_eq!(bench.device.hba().counts().of(Fault::SpinUpNever), 3);
    assert_eq!(bench.happened("port reset"), 4);
}
