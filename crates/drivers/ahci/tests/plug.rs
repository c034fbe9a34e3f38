//! Disks that come and go, in virtual time.

mod support;

use outboard_ahci::spec::registers::PortInterrupts;
use outboard_block::{
    BlockDriver, BlockError, Durability, FailedReason, Refused, RefusedReason, Request, Tag,
    UnitId, UnitState,
};
use std::time::Duration;
use support::model::{Disk, ModelDevice};
use support::model_bench::{ModelBench, good};

fn named(serial: &'static str) -> Disk {
    let mut disk = Disk::new(512);
    disk.serial = serial;
    disk
}

/// Waits for a state, and returns how long that took.
fn until(bench: &mut ModelBench, state: UnitState) -> Duration {
    let began = bench.now;
    bench.run_until(|bench| bench.state(0) == state);
    bench.now.since(began)
}

#[test]
fn a_disk_that_is_plugged_in_is_used() {
    let mut bench = ModelBench::new(vec![None, Some(Disk::new(512))]);
    bench.pass(Duration::from_secs(3));
    assert_eq!((bench.state(0), bench.generation(0)), (UnitState::Absent, 0));
    bench.device.model().plug(0, Disk::new(512));
    let took = until(&mut bench, UnitState::Ready);
    assert!(took < Duration::from_millis(50), "an interrupt told of it: {took:?}");
    assert_eq!(bench.generation(0), 1);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.counter(0, "plugs"), 1);
    assert_eq!(bench.device.model().resets, 1, "the other port goes on");
}

#[test]
fn an_empty_place_is_watched_though_its_port_does_not_answer_for_a_while() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
    bench.device.model().unplug(0);
    // Its engines are to be brought to rest now.
    until(&mut bench, UnitState::Absent);
    bench.device.model().ports[0].mute = true;
    bench.pass(Duration::from_secs(3));
    let deadline = bench.driver.next_deadline().unwrap();
    assert!(!bench.now.reached(deadline), "it asks to be polled without end");
    bench.device.model().ports[0].mute = false;
    bench.device.model().plug(0, Disk::new(512));
    until(&mut bench, UnitState::Ready);
}

#[test]
fn a_lost_interrupt_delays_a_disk_by_a_second_at_most() {
    let mut bench = ModelBench::new(vec![None]);
    bench.pass(Duration::from_secs(3));
    bench.device.model().plug(0, Disk::new(512));
    bench.device.model().run();
    // The interrupt is not passed on.
    let end = bench.now + Duration::from_millis(1100);
    while !bench.now.reached(end) {
        bench.device.model().run();
        bench.driver.poll(bench.now, &mut |_| ());
        bench.now = bench.now + Duration::from_millis(1);
    }
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn a_disk_that_is_taken_out_is_absent_and_its_requests_fail() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
    (0..8).for_each(|lba| bench.submit(0, lba, 1));
    bench.device.model().unplug(0);
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
    bench.device.model().plug(0, named("OTHER"));
    until(&mut bench, UnitState::Ready);
    assert_eq!(bench.generation(0), 2);
    assert_eq!(bench.driver.unit(UnitId(0)).unwrap().identity.serial, "OTHER");
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn an_idle_disk_that_is_taken_out_is_noticed_without_an_interrupt() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
    bench.device.model().unplug(0);
    let end = bench.now + Duration::from_secs(15);
    while !bench.now.reached(end) {
        bench.driver.poll(bench.now, &mut |_| ());
        bench.now = bench.now + Duration::from_millis(1);
    }
    assert_eq!(bench.state(0), UnitState::Absent);
}

#[test]
fn a_disk_that_is_replaced_while_the_driver_waits_for_it_is_another_one() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.finish();
    bench.submit(0, 0, 8);
    bench.device.model().unplug(0);
    bench.driver.kick(bench.now);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.state(0), UnitState::Recovering);
    bench.device.model().plug(0, named("OTHER"));
    assert_eq!(bench.finish()[0].result, Err(BlockError::Gone));
    assert_eq!((bench.state(0), bench.generation(0)), (UnitState::Ready, 2));
    assert_eq!(bench.happened("another device took its place"), 1);
    bench.submit_flush(0);
    assert_eq!(bench.finish()[0].result, Ok(()), "the new disk has lost nothing");
}

#[test]
fn a_disk_that_comes_back_in_time_goes_on_and_may_have_lost_its_cache() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.finish();
    let disk = bench.device.model().unplug(0).unwrap();
    bench.submit(0, 0, 8);
    bench.driver.kick(bench.now);
    bench.pass(Duration::from_secs(2));
    bench.device.model().plug(0, disk);
    bench.finish().into_iter().for_each(good);
    assert_eq!((bench.state(0), bench.generation(0)), (UnitState::Ready, 1));
    bench.submit_flush(0);
    assert_eq!(bench.finish()[0].result, Err(BlockError::CacheLost));
}

#[test]
fn an_open_switch_and_missing_power_end_a_disk_at_once() {
    for cold in [false, true] {
        let device = ModelDevice::new(vec![Some(Disk::new(512))]);
        {
            let place = &mut device.model().ports[0].place;
            match cold {
                true => place.cold_present = Some(true),
                false => place.switch_open = Some(false),
            }
        }
        let change = |bench: &ModelBench, present: bool| match cold {
            true => bench.device.model().detect(0, present),
            false => bench.device.model().switch(0, !present),
        };
        let mut bench = ModelBench::starting(device);
        until(&mut bench, UnitState::Ready);
        bench.submit(0, 0, 8);
        change(&bench, false);
        let began = bench.now;
        assert_eq!(bench.finish()[0].result, Err(BlockError::Gone));
        assert!(bench.now.since(began) < Duration::from_secs(1), "{:#?}", bench.events);
        assert_eq!(bench.state(0), UnitState::Absent);
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.state(0), UnitState::Absent, "the link alone does not count");
        change(&bench, true);
        until(&mut bench, UnitState::Ready);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
    }
}

#[test]
fn a_disk_that_was_given_up_is_tried_again_once_it_was_out() {
    let device = ModelDevice::new(vec![Some(Disk::new(512))]);
    device.model().ports[0].busy = true;
    let mut bench = ModelBench::starting(device);
    let given_up = UnitState::Failed(FailedReason::GivenUp);
    until(&mut bench, given_up);
    let resets = bench.device.model().ports[0].resets;
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.state(0), given_up);
    assert_eq!(bench.device.model().ports[0].resets, resets, "it is left alone");
    let disk = bench.device.model().unplug(0).unwrap();
    until(&mut bench, UnitState::Absent);
    bench.pass(Duration::from_secs(2));
    {
        let mut model = bench.device.model();
        model.ports[0].busy = false;
        model.plug(0, disk);
    }
    until(&mut bench, UnitState::Ready);
}

#[test]
fn a_disk_that_was_given_up_and_replaced_in_an_instant_is_noticed() {
    let device = ModelDevice::new(vec![Some(Disk::new(512))]);
    device.model().ports[0].busy = true;
    let mut bench = ModelBench::starting(device);
    until(&mut bench, UnitState::Failed(FailedReason::GivenUp));
    bench.pass(Duration::from_secs(5));
    {
        let mut model = bench.device.model();
        model.ports[0].busy = false;
        // The new one is there before the driver has looked.
        model.brown_out(0);
    }
    until(&mut bench, UnitState::Ready);
}

#[test]
fn a_disk_that_announces_itself_without_end_is_given_up() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512)), Some(Disk::new(512))]);
    bench.submit(0, 0, 8);
    bench.device.model().ports[0].restless = true;
    bench.device.model().brown_out(0);
    let took = until(&mut bench, UnitState::Failed(FailedReason::GivenUp));
    assert!((200..300).contains(&took.as_secs()), "{took:?}");
    assert!(bench.device.model().ports[0].resets < 20);
    assert!(bench.done.pop().unwrap().result.is_err());
    bench.submitted = 0;
    bench.submit(1, 0, 8);
    bench.finish().into_iter().for_each(good);
    // Taken out for a while, it gets another chance.
    let disk = bench.device.model().unplug(0).unwrap();
    bench.pass(Duration::from_secs(15));
    assert_eq!(bench.state(0), UnitState::Absent);
    bench.device.model().ports[0].restless = false;
    bench.device.model().plug(0, disk);
    assert!(until(&mut bench, UnitState::Ready) < Duration::from_secs(1));
}

#[test]
fn a_loose_contact_is_bounded() {
    let mut bench = ModelBench::new(vec![None]);
    bench.device.model().ports[0].place.switch_open = Some(true);
    let (mut disk, mut polls) = (Some(Disk::new(512)), 0u32);
    let end = bench.now + Duration::from_secs(1200);
    while !bench.now.reached(end) {
        {
            // Every 100 ms the disk is in, or out, and the switch with it.
            let mut model = bench.device.model();
            match disk.take() {
                Some(disk) => model.plug(0, disk),
                None => disk = model.unplug(0),
            }
            model.switch(0, disk.is_some());
        }
        for _ in 0..20 {
            bench.turn();
            polls += 1;
            bench.now = bench.now + Duration::from_millis(5);
        }
    }
    assert!(bench.device.model().ports[0].resets < 2500, "at most two each second");
    assert!(bench.counter(0, "plugs") < 1300 && polls > 0);
}

#[test]
fn a_flapping_link_stays_bounded_and_a_good_disk_is_served_in_the_end() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
    for _ in 0..10 {
        bench.device.model().brown_out(0);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
    }
    bench.pass(Duration::from_secs(599));
    let began = bench.now;
    bench.device.model().brown_out(0);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
    assert!(bench.now.since(began) < Duration::from_secs(3), "old trouble is forgotten");
}

#[test]
fn a_storm_of_harmless_interrupts_is_let_through_once_a_second() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512)), None]);
    let mut interrupts = 0;
    for _ in 0..1000 {
        let mut model = bench.device.model();
        for port in &mut model.ports {
            port.disturb(PortInterrupts::UNKNOWN_FIS | PortInterrupts::PRESENCE_SWITCH, 1 << 16);
        }
        if model.run() {
            interrupts += 1;
        }
        drop(model);
        bench.turn();
        bench.now = bench.now + Duration::from_millis(10);
    }
    assert!(interrupts <= 25, "{interrupts} in ten seconds");
    assert_eq!(bench.state(0), UnitState::Ready);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn plugged_disks_spin_up_one_after_the_other_where_the_hba_asks_for_it() {
    let device = ModelDevice::new(vec![None, None]);
    {
        let mut model = device.model();
        model.capabilities = model.capabilities.with_staggered(true);
    }
    let mut bench = ModelBench::starting(device);
    bench.run_until(|bench| bench.state(1) == UnitState::Absent);
    bench.pass(Duration::from_secs(2));
    for index in 0..2 {
        bench.device.model().ports[index].busy = index == 0;
        bench.device.model().plug(index, Disk::new(512));
    }
    bench.pass(Duration::from_secs(3));
    assert_eq!((bench.state(0), bench.state(1)), (UnitState::Starting, UnitState::Absent));
    let (command, ..) = bench.device.model().ports[1].settings();
    assert!(!command.spin_up(), "the second waits for the first");
    bench.device.model().ports[0].busy = false;
    bench.device.model().come_back(0);
    bench.run_until(|bench| bench.state(1) == UnitState::Ready);
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn a_reset_of_the_hba_does_not_end_the_watch() {
    use support::model_bench::disk_with;
    let hang = support::model::Fault::Hang;
    let mut bench = ModelBench::new(vec![None, disk_with(&[(16, hang, 1)])]);
    bench.device.model().ports[1].stuck = true;
    bench.submit(1, 16, 1);
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.device.model().resets, 2);
    bench.pass(Duration::from_secs(2));
    bench.device.model().plug(0, Disk::new(512));
    until(&mut bench, UnitState::Ready);
}

#[test]
fn a_driver_with_empty_and_failed_places_stops() {
    let device = ModelDevice::new(vec![Some(Disk::new(512)), None, Some(Disk::new(512))]);
    device.model().ports[2].busy = true;
    let mut bench = ModelBench::starting(device);
    bench.run_until(|bench| bench.state(2) == UnitState::Failed(FailedReason::GivenUp));
    bench.driver.stop();
    bench.run_until(|bench| bench.driver.is_stopped());
    assert_eq!(bench.driver.next_deadline(), None);
}

#[test]
fn a_disk_that_waits_in_standby_is_told_to_spin_up() {
    let mut disk = Disk::new(512);
    disk.in_standby = true;
    let mut bench = ModelBench::new(vec![Some(disk)]);
    assert_eq!(bench.device.model().ports[0].disk.as_ref().unwrap().told, [(7, 0)]);
    assert_eq!(bench.state(0), UnitState::Ready);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn a_damaged_identification_is_not_another_disk() {
    for times in [1, 2] {
        let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
        bench.device.model().ports[0].disk.as_mut().unwrap().nonsense = times;
        bench.submit(0, 0, 8);
        bench.device.model().brown_out(0);
        bench.finish().into_iter().for_each(good);
        assert_eq!(bench.device.model().ports[0].disk.as_ref().unwrap().nonsense, 0);
        assert_eq!((bench.state(0), bench.generation(0)), (UnitState::Ready, 1));
    }
}

#[test]
fn a_disk_that_is_another_one_each_time_is_given_up() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
    bench.device.model().ports[0].disk.as_mut().unwrap().nonsense = u32::MAX;
    bench.device.model().brown_out(0);
    let took = until(&mut bench, UnitState::Failed(FailedReason::BadIdentity));
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn an_engine_that_is_slow_to_stop_is_waited_for() {
    let device = ModelDevice::new(vec![Some(Disk::new(512))]);
    {
        let mut model = device.model();
        model.ports[0].slow_engine = 20;
        model.ports[0].disk.as_mut().unwrap().nonsense = 2;
    }
    let mut bench = ModelBench::starting(device);
    until(&mut bench, UnitState::Ready);
    assert_eq!(bench.happened("port reset"), 1, "{:#?}", bench.events);
}

#[test]
fn a_disk_that_is_away_for_a_moment_while_it_starts_is_waited_for() {
    let device = ModelDevice::new(vec![Some(Disk::new(512))]);
    device.model().ports[0].busy = true;
    let mut bench = ModelBench::starting(device);
    bench.run_until(|bench| bench.happened("link up") > 0);
    bench.device.model().ports[0].deaf = true;
    bench.run_until(|bench| bench.happened("port reset") > 0);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.state(0), UnitState::Starting);
    bench.device.model().ports[0].busy = false;
    bench.device.model().come_back(0);
    until(&mut bench, UnitState::Ready);
    assert_eq!(bench.happened("port reset"), 1);
}
