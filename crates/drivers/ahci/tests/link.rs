//! Links that fail, are made slower, and save power; LEDs beside them. In virtual time.

mod support;

use outboard_ahci::spec::ata::{command, features};
use outboard_ahci::spec::registers::{
    Capabilities2, DeviceSleep, LedMessage, PX_CMD, PX_DEVSLP, PX_IE, PX_SCTL, PortCommand,
    PortInterrupts, SataControl, serial_error,
};
use outboard_block::manage::LinkPower;
use outboard_block::{
    BlockDriver, BlockError, FailedReason, Management, Refused, RefusedReason, Request, Tag,
    UnitId, UnitState,
};
use outboard_sim::disk::{Abilities, Mishap};
use outboard_sim::hba::HbaConfig;
use outboard_sim::{Disk, DiskConfig, Fault};
use std::time::Duration;
use support::sim_bench::{ALWAYS, SimBench, disk, disk_as, good};

fn other_disk() -> Box<Disk> {
    let config = DiskConfig { serial: "OTHER".into(), ..DiskConfig::modern(512) };
    Box::new(disk_as(config))
}

/// A command that touches sector 16 never ends, and then the engine does not stop.
fn hang_and_stick(bench: &SimBench) {
    bench.disk(0, |disk| disk.script_at(16, 1, Mishap::Hang));
    bench.inject(0, Fault::EngineStuck, 1);
}

fn link_speed(bench: &SimBench) -> u8 {
    bench.driver.unit(UnitId(0)).unwrap().features.link_speed
}

#[test]
fn a_link_that_damages_data_is_made_slower_until_it_does_not() {
    for (good_at, queuing) in [(2, true), (1, true), (2, false), (1, false)] {
        let queue_depth = if queuing { 32 } else { 0 };
        let config = DiskConfig { queue_depth, ..DiskConfig::modern(512) };
        let mut bench = SimBench::new(vec![Some(disk_as(config))]);
        bench.device.hba().damage_above(0, good_at);
        assert_eq!(link_speed(&bench), 3);
        let mut failed = 0;
        while link_speed(&bench) > good_at {
            bench.submit(0, 0, 8);
            failed += u32::from(bench.result() == Err(BlockError::Transport));
        }
        assert!(failed <= 2, "{failed} commands failed");
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
        assert_eq!(link_speed(&bench), good_at);
        assert_eq!(bench.counter(0, "slower-links"), u64::from(3 - good_at));
        assert_eq!(bench.counter(0, "interface-errors"), 3 * u64::from(3 - good_at));
        // A reset of the HBA does not make it fast again.
        hang_and_stick(&bench);
        bench.submit(0, 16, 1);
        bench.finish().into_iter().for_each(good);
        assert_eq!((bench.device.hba().resets(), link_speed(&bench)), (2, good_at));
    }
}

#[test]
fn a_link_never_gets_slower_than_there_is() {
    let mut bench = SimBench::new(vec![Some(disk(512))]);
    bench.device.hba().damage_above(0, 0);
    for _ in 0..20 {
        bench.submit(0, 0, 8);
        assert_eq!(bench.result(), Err(BlockError::Transport));
    }
    assert_eq!((link_speed(&bench), bench.counter(0, "slower-links")), (1, 2));
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn another_disk_gets_the_full_speed_again() {
    for at_once in [false, true] {
        let mut bench = SimBench::new(vec![Some(disk(512))]);
        bench.device.hba().damage_above(0, 2);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
        assert_eq!(link_speed(&bench), 2);
        bench.device.hba().detach(0);
        bench.turn();
        if !at_once {
            bench.run_until(|bench| bench.state(0) == UnitState::Absent);
            bench.pass(Duration::from_secs(1));
        }
        bench.device.hba().damage_above(0, 3);
        bench.device.hba().attach(0, other_disk());
        bench.run_until(|bench| bench.state(0) == UnitState::Ready && bench.generation(0) == 2);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
        assert_eq!(link_speed(&bench), 3);
    }
}

#[test]
fn errors_that_are_far_apart_do_not_make_a_link_slower() {
    let mut bench = SimBench::new(vec![Some(disk(512))]);
    for _ in 0..10 {
        bench.inject(0, Fault::InterfaceCrc, 1);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
        bench.pass(Duration::from_secs(301));
    }
    assert_eq!((link_speed(&bench), bench.counter(0, "interface-errors")), (3, 10));
}

#[test]
fn errors_that_the_link_recovers_from_are_counted() {
    let mut bench = SimBench::new(vec![Some(disk(512))]);
    for (count, slower) in [(1, 0), (2, 0), (3, 1)] {
        let recovered = serial_error::RECOVERED_DATA;
        bench.device.hba().disturb(0, PortInterrupts::INTERFACE_NON_FATAL, recovered);
        bench.pass(Duration::from_secs(2));
        assert_eq!(bench.counter(0, "interface-errors"), count);
        assert_eq!(bench.counter(0, "recovered-errors"), count);
        assert_eq!(bench.counter(0, "slower-links"), slower);
    }
    assert_eq!((link_speed(&bench), bench.state(0)), (2, UnitState::Ready));
    bench.device.hba().disturb(0, PortInterrupts::empty(), serial_error::UNKNOWN_FIS);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.counter(0, "unknown-fises"), 1);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

/// A bench with an HBA that can save power in every way, and the disk given.
fn saving(disk: Disk) -> SimBench {
    let mut config = HbaConfig::new(1);
    config.capabilities =
        config.capabilities.with_link_power(true).with_partial(true).with_slumber(true);
    config.capabilities2 = Capabilities2::new().with_device_sleep(true).with_aggressive_sleep(true);
    let mut bench = SimBench::starting_at(config, vec![Some(disk)], |hba| hba.wire_sleep(0));
    bench.run_until(|bench| bench.state(0) == UnitState::Ready);
    bench
}

fn power(bench: &SimBench) -> (LinkPower, LinkPower) {
    let features = bench.driver.unit(UnitId(0)).unwrap().features;
    (features.link_power, features.link_power_most)
}

/// PxCMD.ALPE and ASP, PxSCTL.IPM, PxDEVSLP.ADSE.
fn registers(bench: &SimBench) -> (bool, bool, u8, bool) {
    let command = PortCommand::from(bench.register(0, PX_CMD.offset()));
    let control = SataControl::from(bench.register(0, PX_SCTL.offset()));
    let sleep = DeviceSleep::from(bench.register(0, PX_DEVSLP.offset()));
    let (enabled, slumber) = (command.link_power(), command.prefer_slumber());
    (enabled, slumber, control.no_power_states(), sleep.aggressive())
}

#[test]
fn a_link_saves_power_as_it_is_told() {
    let mut bench = saving(disk(512));
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
        let wanted = PortInterrupts::from_bits_retain(bench.register(0, PX_IE.offset()));
        assert_eq!(wanted.contains(PortInterrupts::PHY_READY), !saves);
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.happened("the link is down"), 0);
    }
    let sleep = DeviceSleep::from(bench.register(0, PX_DEVSLP.offset()));
    assert_eq!((sleep.minimum_assertion_ms(), sleep.exit_timeout_ms()), (10, 20));
    let mut told = bench.disk(0, Disk::take_commands);
    told.retain(|fis| fis.command == command::SET_FEATURES);
    let told: Vec<_> = told.iter().map(|fis| (fis.features_low, fis.count[0])).collect();
    assert_eq!(told, [(features::ENABLE_SATA as u8, 9)], "once is enough");
}

#[test]
fn how_a_link_saves_power_survives_resets() {
    for (asked, stuck) in [
        (LinkPower::Slumber, false),
        (LinkPower::Slumber, true),
        (LinkPower::DeviceSleep, false),
        (LinkPower::DeviceSleep, true),
    ] {
        let mut bench = saving(disk(512));
        bench.manage(0, Management::SetLinkPower(asked), &[]).unwrap();
        let before = registers(&bench);
        bench.disk(0, |disk| disk.script_at(16, 1, Mishap::Hang));
        bench.inject(0, Fault::EngineStuck, u32::from(stuck));
        // The model checks that the link is awake when it is reset.
        bench.submit(0, 16, 1);
        bench.finish().into_iter().for_each(good);
        assert_eq!((power(&bench).0, registers(&bench)), (asked, before));
    }
}

#[test]
fn a_link_is_not_told_what_it_cannot_do() {
    let refused = |bench: &mut SimBench, asked| {
        let request = Request::manage(Management::SetLinkPower(asked));
        let Refused { reason, .. } = bench.driver.submit(UnitId(0), Tag(1), request).unwrap_err();
        reason == RefusedReason::Unsupported
    };
    let mut plain = SimBench::new(vec![Some(disk(512))]);
    assert!(refused(&mut plain, LinkPower::Partial), "the HBA cannot");
    let mut awake = disk(512);
    // Word 76, bit 9: the host may save power.
    awake.override_words(&[(76, 0x010e)]);
    assert!(refused(&mut saving(awake), LinkPower::Partial), "the disk cannot");
    let config = DiskConfig::modern(512).without(Abilities::DEVICE_SLEEP);
    let mut bench = saving(disk_as(config));
    assert!(refused(&mut bench, LinkPower::DeviceSleep), "the disk cannot sleep");
    assert_eq!(bench.manage(0, Management::SetLinkPower(LinkPower::Slumber), &[]), Ok(()));
}

#[test]
fn a_disk_that_refuses_to_sleep_is_not_put_to_sleep() {
    let mut bench = saving(disk(512));
    bench.disk(0, |disk| disk.script(Some(command::SET_FEATURES), ALWAYS, Mishap::Abort));
    let asked = Management::SetLinkPower(LinkPower::DeviceSleep);
    assert_eq!(bench.manage(0, asked, &[]), Err(BlockError::Unsupported));
    assert_eq!(power(&bench), (LinkPower::Slumber, LinkPower::Slumber));
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn sleep_waits_for_the_commands_in_flight() {
    let mut bench = saving(disk(512));
    bench.disk(0, |disk| disk.script_at(16, 1, Mishap::Hang));
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
    let mut bench = saving(disk(512));
    bench.manage(0, Management::SetLinkPower(LinkPower::Slumber), &[]).unwrap();
    bench.device.hba().detach(0);
    bench.pass(Duration::from_millis(1500));
    assert_eq!(bench.state(0), UnitState::Recovering);
    let request = Request::manage(Management::SetLinkPower(LinkPower::Partial));
    bench.driver.submit(UnitId(0), Tag(1), request).unwrap();
    bench.submitted = 1;
    assert_eq!(bench.result(), Err(BlockError::Gone));
    assert_eq!(bench.state(0), UnitState::Absent);
    // The next one is not the one that was told to save power.
    bench.pass(Duration::from_secs(1));
    bench.device.hba().attach(0, other_disk());
    bench.run_until(|bench| bench.state(0) == UnitState::Ready);
    assert_eq!(power(&bench).0, LinkPower::Full);
}

fn with_enclosure(claims_dwords: u16, stuck: u32) -> SimBench {
    let mut config = HbaConfig::new(2);
    config.capabilities.set_enclosure(true);
    let mut bench = SimBench::starting_at(config, vec![Some(disk(512)), None], |hba| {
        (hba.enclosure().claims_dwords, hba.enclosure().stuck) = (claims_dwords, stuck);
    });
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
    assert_eq!(bench.device.hba().enclosure().messages, expected);
    // A reset of the HBA darkens them all.
    bench.device.hba().enclosure().messages.clear();
    hang_and_stick(&bench);
    bench.submit(0, 16, 1);
    bench.finish().into_iter().for_each(good);
    let expected = [message(0, false, true), message(1, true, false)];
    assert_eq!(bench.device.hba().enclosure().messages, expected);
}

#[test]
fn an_enclosure_that_takes_no_message_is_reset_and_then_left_alone() {
    let mut bench = with_enclosure(0, 1);
    assert_eq!(bench.manage(0, Management::Locate(true), &[]), Ok(()), "one reset helps");
    assert_eq!(bench.device.hba().enclosure().resets, 1);
    bench.device.hba().enclosure().stuck = u32::MAX;
    let began = bench.now;
    assert_eq!(bench.manage(0, Management::Locate(false), &[]), Err(BlockError::Timeout));
    assert!(bench.now.since(began) < Duration::from_secs(5));
    let resets = bench.device.hba().enclosure().resets;
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.device.hba().enclosure().resets, resets);
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
    bench.inject(0, Fault::Removed, 1);
    assert_eq!(bench.result(), Err(BlockError::Gone));
    assert_eq!(bench.state(0), UnitState::Failed(FailedReason::Removed));
    assert!(bench.driver.is_stopped());
}
