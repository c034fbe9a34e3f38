//! Links that fail, are made slower, and save power; LEDs beside them. In virtual time.

mod support;

use outboard_ahci::spec::registers::{Capabilities2, LedMessage, PortInterrupts, serial_error};
use outboard_block::manage::LinkPower;
use outboard_block::{
    BlockDriver, BlockError, FailedReason, Management, Refused, RefusedReason, Request, Tag,
    UnitId, UnitState,
};
use std::time::Duration;
use support::model::{Disk, Fault, ModelDevice};
use support::model_bench::{ModelBench, good};

fn fast_disk() -> Disk {
    let mut disk = Disk::new(512);
    (disk.speed, disk.saves_power, disk.sleeps) = (3, true, true);
    disk
}

fn link_speed(bench: &ModelBench) -> u8 {
    bench.driver.unit(UnitId(0)).unwrap().features.link_speed
}

#[test]
fn a_link_that_damages_data_is_made_slower_until_it_does_not() {
    for (good_at, queuing) in [(2, true), (1, true), (2, false), (1, false)] {
        let mut disk = fast_disk();
        (disk.damaged_above, disk.queuing) = (good_at, queuing);
        let mut bench = ModelBench::new(vec![Some(disk)]);
        assert_eq!(link_speed(&bench), 3);
        let mut failed = 0;
        while link_speed(&bench) > good_at {
            bench.submit(0, 0, 8);
            failed += u32::from(bench.finish()[0].result == Err(BlockError::Transport));
        }
        assert!(failed <= 2, "{failed} commands failed");
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
        assert_eq!(link_speed(&bench), good_at);
        assert_eq!(bench.counter(0, "slower-links"), u64::from(3 - good_at));
        assert_eq!(bench.counter(0, "interface-errors"), 3 * u64::from(3 - good_at));
        // A reset of the HBA does not make it fast again.
        bench.device.model().ports[0].disk.as_mut().unwrap().faults.insert(16, (Fault::Hang, 1));
        bench.device.model().ports[0].stuck = true;
        bench.submit(0, 16, 1);
        bench.finish().into_iter().for_each(good);
        assert_eq!((bench.device.model().resets, link_speed(&bench)), (2, good_at));
    }
}

#[test]
fn a_link_never_gets_slower_than_there_is() {
    let mut disk = fast_disk();
    disk.damaged_above = 0;
    let mut bench = ModelBench::new(vec![Some(disk)]);
    for _ in 0..20 {
        bench.submit(0, 0, 8);
        assert_eq!(bench.finish()[0].result, Err(BlockError::Transport));
    }
    assert_eq!((link_speed(&bench), bench.counter(0, "slower-links")), (1, 2));
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn another_disk_gets_the_full_speed_again() {
    for at_once in [false, true] {
        let mut disk = fast_disk();
        disk.damaged_above = 2;
        let mut bench = ModelBench::new(vec![Some(disk)]);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
        assert_eq!(link_speed(&bench), 2);
        let mut other = fast_disk();
        other.serial = "OTHER";
        bench.device.model().unplug(0);
        bench.turn();
        if !at_once {
            bench.run_until(|bench| bench.state(0) == UnitState::Absent);
            bench.pass(Duration::from_secs(1));
        }
        bench.device.model().plug(0, other);
        bench.run_until(|bench| bench.state(0) == UnitState::Ready && bench.generation(0) == 2);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
        assert_eq!(link_speed(&bench), 3);
    }
}

#[test]
fn errors_that_are_far_apart_do_not_make_a_link_slower() {
    let mut bench = ModelBench::new(vec![Some(fast_disk())]);
    for _ in 0..10 {
        bench.device.model().ports[0].disk.as_mut().unwrap().crc_errors = 1;
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
        bench.pass(Duration::from_secs(301));
    }
    assert_eq!((link_speed(&bench), bench.counter(0, "interface-errors")), (3, 10));
}

#[test]
fn errors_that_the_link_recovers_from_are_counted() {
    let mut bench = ModelBench::new(vec![Some(fast_disk())]);
    for (count, slower) in [(1, 0), (2, 0), (3, 1)] {
        let recovered = serial_error::RECOVERED_DATA;
        bench.device.model().ports[0].disturb(PortInterrupts::INTERFACE_NON_FATAL, recovered);
        bench.pass(Duration::from_secs(2));
        assert_eq!(bench.counter(0, "interface-errors"), count);
        assert_eq!(bench.counter(0, "recovered-errors"), count);
        assert_eq!(bench.counter(0, "slower-links"), slower);
    }
    assert_eq!((link_speed(&bench), bench.state(0)), (2, UnitState::Ready));
    bench.device.model().ports[0].disturb(PortInterrupts::empty(), serial_error::UNKNOWN_FIS);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.counter(0, "unknown-fises"), 1);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

/// A bench with an HBA that can save power in every way, and the disk given.
fn saving(disk: Disk) -> ModelBench {
    let device = ModelDevice::new(vec![Some(disk)]);
    {
        let mut model = device.model();
        model.capabilities =
            model.capabilities.with_link_power(true).with_partial(true).with_slumber(true);
        let sleep = Capabilities2::new().with_device_sleep(true).with_aggressive_sleep(true);
        model.capabilities2 = sleep;
        model.ports[0].wire_sleep();
    }
    let mut bench = ModelBench::starting(device);
    bench.run_until(|bench| bench.state(0) == UnitState::Ready);
    bench
}

fn power(bench: &ModelBench) -> (LinkPower, LinkPower) {
    let features = bench.driver.unit(UnitId(0)).unwrap().features;
    (features.link_power, features.link_power_most)
}

/// PxCMD.ALPE and ASP, PxSCTL.IPM, PxDEVSLP.ADSE.
fn registers(bench: &ModelBench) -> (bool, bool, u8, bool) {
    let (command, control, sleep) = bench.device.model().ports[0].settings();
    let (enabled, slumber) = (command.link_power(), command.prefer_slumber());
    (enabled, slumber, control.no_power_states(), sleep.aggressive())
}

#[test]
fn a_link_saves_power_as_it_is_told() {
    let mut bench = saving(fast_disk());
    assert_eq!(power(&bench), (LinkPower::Full, LinkPower::DeviceSleep));
    assert_eq!(registers(&bench), (false, false, 7, false));
    let expected = [
        (LinkPower::Partial, (true, false, 6, false)),
        (LinkPower::Slumber, (true, true, 4, false)),
        (LinkPower::DeviceSleep, (true, true, 0, true)),
        (LinkPower::Partial, (true, false, 6, false)),
        (LinkPower::DeviceSleep, (true, true, 0, true)),
        (LinkPower::Full, (false, false, 7, false)),
    ];
    for (asked, expected) in expected {
        assert_eq!(bench.manage(0, Management::SetLinkPower(asked), &[]), Ok(()));
        assert_eq!((power(&bench).0, registers(&bench)), (asked, expected));
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
        // The PHY is not ready now and then, which is nothing.
        let saves = asked != LinkPower::Full;
        let wanted = bench.device.model().ports[0].wanted();
        assert_eq!(wanted.contains(PortInterrupts::PHY_READY), !saves);
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.happened("the link is down"), 0);
    }
    let (.., sleep) = bench.device.model().ports[0].settings();
    assert_eq!((sleep.minimum_assertion_ms(), sleep.exit_timeout_ms()), (5, 40));
    let told = &bench.device.model().ports[0].disk.as_ref().unwrap().told.clone();
    assert_eq!(told, &[(0x10, 9)], "once is enough");
}

#[test]
fn how_a_link_saves_power_survives_resets() {
    for (asked, stuck) in [
        (LinkPower::Slumber, false),
        (LinkPower::Slumber, true),
        (LinkPower::DeviceSleep, false),
        (LinkPower::DeviceSleep, true),
    ] {
        let mut disk = fast_disk();
        disk.faults.insert(16, (Fault::Hang, 1));
        let mut bench = saving(disk);
        bench.manage(0, Management::SetLinkPower(asked), &[]).unwrap();
        let before = registers(&bench);
        bench.device.model().ports[0].stuck = stuck;
        // The model checks that the link is awake when it is reset.
        bench.submit(0, 16, 1);
        bench.finish().into_iter().for_each(good);
        assert_eq!((power(&bench).0, registers(&bench)), (asked, before));
    }
}

#[test]
fn a_link_is_not_told_what_it_cannot_do() {
    let refused = |bench: &mut ModelBench, asked| {
        let request = Request::manage(Management::SetLinkPower(asked));
        let Refused { reason, .. } = bench.driver.submit(UnitId(0), Tag(1), request).unwrap_err();
        reason == RefusedReason::Unsupported
    };
    let mut plain = ModelBench::new(vec![Some(fast_disk())]);
    assert!(refused(&mut plain, LinkPower::Partial), "the HBA cannot");
    let mut disk = fast_disk();
    disk.saves_power = false;
    assert!(refused(&mut saving(disk), LinkPower::Partial), "the disk cannot");
    let mut disk = fast_disk();
    disk.sleeps = false;
    let mut bench = saving(disk);
    assert!(refused(&mut bench, LinkPower::DeviceSleep), "the disk cannot sleep");
    assert_eq!(bench.manage(0, Management::SetLinkPower(LinkPower::Slumber), &[]), Ok(()));
}

#[test]
fn a_disk_that_refuses_to_sleep_is_not_put_to_sleep() {
    let mut disk = fast_disk();
    disk.refuses_features = true;
    let mut bench = saving(disk);
    let asked = Management::SetLinkPower(LinkPower::DeviceSleep);
    assert_eq!(bench.manage(0, asked, &[]), Err(BlockError::Unsupported));
    assert_eq!(power(&bench), (LinkPower::Slumber, LinkPower::Slumber));
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn sleep_waits_for_the_commands_in_flight() {
    let mut disk = fast_disk();
    disk.faults.insert(16, (Fault::Hang, 1));
    let mut bench = saving(disk);
    bench.submit(0, 16, 1);
    bench.driver.kick(bench.now);
    let request = Request::manage(Management::SetLinkPower(LinkPower::DeviceSleep));
    bench.driver.submit(UnitId(0), Tag(1), request).unwrap();
    bench.submit(0, 32, 1);
    bench.submitted += 1;
    let done = bench.finish();
    assert!(done.len() == 3 && done.iter().all(|done| done.result == Ok(())));
    assert_eq!(power(&bench).0, LinkPower::DeviceSleep);
}

#[test]
fn a_sleeping_disk_that_is_taken_out_fails_what_waits_for_its_link() {
    let mut bench = saving(fast_disk());
    bench.manage(0, Management::SetLinkPower(LinkPower::Slumber), &[]).unwrap();
    bench.device.model().unplug(0);
    bench.pass(Duration::from_millis(1500));
    assert_eq!(bench.state(0), UnitState::Recovering);
    let request = Request::manage(Management::SetLinkPower(LinkPower::Partial));
    bench.driver.submit(UnitId(0), Tag(1), request).unwrap();
    bench.submitted = 1;
    assert_eq!(bench.finish()[0].result, Err(BlockError::Gone));
    assert_eq!(bench.state(0), UnitState::Absent);
    // The next one is not the one that was told to save power.
    let mut other = fast_disk();
    other.serial = "OTHER";
    bench.pass(Duration::from_secs(1));
    bench.device.model().plug(0, other);
    bench.run_until(|bench| bench.state(0) == UnitState::Ready);
    assert_eq!(power(&bench).0, LinkPower::Full);
}

fn with_enclosure(offset_dwords: u16, stuck: u32) -> ModelBench {
    let device = ModelDevice::new(vec![Some(Disk::new(512)), None]);
    {
        let mut model = device.model();
        model.capabilities = model.capabilities.with_enclosure(true);
        model.enclosure.present = true;
        (model.enclosure.offset_dwords, model.enclosure.stuck) = (offset_dwords, stuck);
    }
    let mut bench = ModelBench::starting(device);
    bench.run_until(|bench| bench.state(1) == UnitState::Absent);
    bench
}

#[test]
fn leds_are_lit_and_darkened_with_a_disk_and_without() {
    let mut bench = with_enclosure(0, 0);
    assert!(bench.driver.unit(UnitId(0)).unwrap().features.lights);
    assert_eq!(bench.manage(0, Management::Locate(true), &[]), Ok(()));
    assert_eq!(bench.manage(0, Management::FaultLight(true), &[]), Ok(()));
    assert_eq!(bench.manage(0, Management::Locate(false), &[]), Ok(()));
    assert_eq!(bench.manage(1, Management::Locate(true), &[]), Ok(()));
    let message = |port, locate, fault| LedMessage { port, locate, fault };
    let expected = [
        message(0, true, false),
        message(0, true, true),
        message(0, false, true),
        message(1, true, false),
    ];
    assert_eq!(bench.device.model().enclosure.messages, expected);
    // A reset of the HBA darkens them all.
    bench.device.model().enclosure.messages.clear();
    let mut model = bench.device.model();
    model.ports[0].disk.as_mut().unwrap().faults.insert(16, (Fault::Hang, 1));
    model.ports[0].stuck = true;
    drop(model);
    bench.submit(0, 16, 1);
    bench.finish().into_iter().for_each(good);
    let expected = [message(0, false, true), message(1, true, false)];
    assert_eq!(bench.device.model().enclosure.messages, expected);
}

#[test]
fn an_enclosure_that_takes_no_message_is_reset_and_then_left_alone() {
    let mut bench = with_enclosure(0, 1);
    assert_eq!(bench.manage(0, Management::Locate(true), &[]), Ok(()), "one reset helps");
    assert_eq!(bench.device.model().enclosure.resets, 1);
    bench.device.model().enclosure.stuck = u32::MAX;
    let began = bench.now;
    assert_eq!(bench.manage(0, Management::Locate(false), &[]), Err(BlockError::Timeout));
    assert!(bench.now.since(began) < Duration::from_secs(5));
    let resets = bench.device.model().enclosure.resets;
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.device.model().enclosure.resets, resets);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn a_buffer_that_lies_on_other_registers_is_not_written() {
    // On the global registers, on a port's, and behind the end.
    for offset in [1, 0x40, 0x60, 0x4000] {
        let mut bench = with_enclosure(offset, 0);
        assert!(!bench.driver.unit(UnitId(0)).unwrap().features.lights);
        let request = Request::manage(Management::Locate(true));
        let refused = bench.driver.submit(UnitId(0), Tag(1), request).unwrap_err();
        assert_eq!(refused.reason, RefusedReason::Unsupported);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
    }
}

#[test]
fn a_controller_that_is_pulled_out_fails_what_waits_for_leds_and_links() {
    let mut bench = with_enclosure(0, u32::MAX);
    let request = Request::manage(Management::Locate(true));
    bench.driver.submit(UnitId(0), Tag(1), request).unwrap();
    bench.submitted = 1;
    bench.turn();
    bench.device.model().removed = true;
    assert_eq!(bench.finish()[0].result, Err(BlockError::Gone));
    assert_eq!(bench.state(0), UnitState::Failed(FailedReason::Removed));
    assert!(bench.driver.is_stopped());
}
