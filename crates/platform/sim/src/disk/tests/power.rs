//! Power, and what SET FEATURES switches.

use super::harness::Host;
use crate::disk::{Abilities, DiskConfig, PowerState};
use crate::sata::{Command, Reset, SataDevice};
use core::time::Duration;
use outboard_ahci::spec::ata::{command, features, power_mode, sata_feature};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_block::manage::Switch;

fn mode(host: &mut Host) -> u8 {
    let (end, _) = host.run(RegisterH2d::command(command::CHECK_POWER_MODE), &[]);
    assert!(!end.is_bad());
    end.count as u8
}

fn set(feature: u16, count: u16) -> RegisterH2d {
    RegisterH2d::command(command::SET_FEATURES).features(feature).count(count)
}

#[test]
fn a_disk_in_standby_spins_up_for_the_next_access_only() {
    let mut host = Host::new(DiskConfig::rotating(1000));
    let spin_up = host.disk.config().timing.spin_up;
    assert_eq!(mode(&mut host), power_mode::ACTIVE);
    host.good(RegisterH2d::command(command::STANDBY_IMMEDIATE), &[]);
    assert_eq!(mode(&mut host), power_mode::STANDBY);
    host.identify();
    assert_eq!(mode(&mut host), power_mode::STANDBY, "that can be answered without the medium");
    host.read(0, 1);
    assert!(host.took >= spin_up);
    host.read(0, 1);
    assert!(host.took < spin_up);
    host.good(RegisterH2d::command(command::IDLE_IMMEDIATE), &[]);
    assert_eq!(mode(&mut host), power_mode::IDLE);
}

#[test]
fn the_standby_timer_runs_from_the_last_access() {
    let mut host = Host::new(DiskConfig::rotating(1000));
    host.good(RegisterH2d::command(command::IDLE).count(2), &[]);
    for _ in 0..3 {
        host.wait(Duration::from_secs(9));
        host.read(0, 1);
    }
    host.wait(Duration::from_secs(9));
    assert_ne!(mode(&mut host), power_mode::STANDBY);
    host.wait(Duration::from_secs(1));
    assert_eq!(mode(&mut host), power_mode::STANDBY);
    host.read(0, 1);
    host.good(RegisterH2d::command(command::IDLE).count(0), &[]);
    host.wait(Duration::from_secs(100_000));
    assert_eq!(mode(&mut host), power_mode::IDLE);
    host.aborted(RegisterH2d::command(command::STANDBY).count(254), &[]);
}

#[test]
fn a_sleeping_disk_answers_nothing_until_a_reset() {
    for reset in [Reset::Soft, Reset::Hard] {
        let mut host = Host::new(DiskConfig::rotating(1000));
        host.write(0, 1, 5);
        host.good(RegisterH2d::command(command::SLEEP), &[]);
        assert!(host.disk.asleep());
        let fis = RegisterH2d::command(command::IDENTIFY_DEVICE);
        let command = Command { fis, packet: [0; 16] };
        let plan = host.disk.plan(&command, host.now, &mut host.random).unwrap();
        assert_eq!(plan.takes, Duration::MAX);
        host.reset(reset);
        assert_eq!(host.disk.power_state(), PowerState::Standby);
        assert_eq!(host.fills(0, 1), [5], "what is cached stays so");
    }
}

#[test]
fn power_up_in_standby_waits_to_be_told() {
    let mut config = DiskConfig::rotating(1000);
    config.abilities |= Abilities::PUIS;
    let mut host = Host::new(config);
    host.good(set(features::ENABLE_POWER_UP_IN_STANDBY, 0), &[]);
    host.cycle_power();
    assert_eq!((host.word(2), mode(&mut host)), (0x738c, power_mode::STANDBY));
    assert!(host.read(0, 1).0.is_bad());
    host.good(set(features::SPIN_UP, 0), &[]);
    assert!(!host.read(0, 1).0.is_bad());
    host.good(set(features::DISABLE_POWER_UP_IN_STANDBY, 0), &[]);
    host.cycle_power();
    assert!(!host.read(0, 1).0.is_bad());
}

#[test]
fn switching_the_write_cache_off_writes_what_is_in_it() {
    let mut host = Host::new(DiskConfig::modern(1000));
    host.write(0, 4, 3);
    host.good(set(features::DISABLE_WRITE_CACHE, 0), &[]);
    host.write(4, 4, 4);
    assert_eq!((host.disk.cached(), host.identity().unwrap().write_cache()), (0, false));
    host.cycle_power();
    assert_eq!(host.fills(0, 8), [3, 3, 3, 3, 4, 4, 4, 4]);
    assert!(host.identity().unwrap().write_cache(), "it is on again with the power");
}

#[test]
fn settings_outlive_comreset_only_while_they_are_preserved() {
    for preserved in [true, false] {
        let mut host = Host::new(DiskConfig::modern(1000));
        if !preserved {
            host.good(set(features::DISABLE_SATA, sata_feature::SETTINGS_PRESERVATION), &[]);
        }
        host.good(set(features::DISABLE_WRITE_CACHE, 0), &[]);
        host.good(set(features::DISABLE_LOOK_AHEAD, 0), &[]);
        host.good(set(features::ENABLE_ADVANCED_POWER, 0x80), &[]);
        host.good(set(features::ENABLE_SATA, sata_feature::DEVICE_SLEEP), &[]);
        host.reset(Reset::Soft);
        let identify = host.identity().unwrap();
        assert_eq!((identify.write_cache(), identify.power_level()), (false, 0x80));
        host.reset(Reset::Hard);
        let identify = host.identity().unwrap();
        let switch = if preserved { Switch::Off } else { Switch::On };
        assert_eq!((identify.write_cache_switch(), identify.look_ahead()), (switch, switch));
        assert_eq!(identify.power_level(), if preserved { 0x80 } else { 0xfe });
        let sleep = if preserved { Switch::On } else { Switch::Off };
        assert_eq!(identify.device_sleep(), sleep);
        assert_eq!(identify.settings_preservation(), Switch::On, "it is on when power comes");
    }
}

#[test]
fn what_cannot_be_switched_is_aborted() {
    let mut host = Host::new(DiskConfig::ancient(1000));
    host.aborted(set(features::ENABLE_ADVANCED_POWER, 0x80), &[]);
    host.aborted(set(features::ENABLE_SATA, sata_feature::DEVICE_SLEEP), &[]);
    host.aborted(set(features::SPIN_UP, 0), &[]);
    host.aborted(set(features::TRANSFER_MODE, 0x47), &[]);
    host.good(set(features::TRANSFER_MODE, 0x45), &[]);
    host.aborted(set(0x1234, 0), &[]);
    let mut host = Host::new(DiskConfig::modern(1000));
    host.aborted(set(features::ENABLE_ADVANCED_POWER, 0xff), &[]);
    host.good(set(features::DISABLE_ADVANCED_POWER, 0), &[]);
    assert_eq!(host.identity().unwrap().advanced_power(), Switch::Off);
    assert_eq!(host.identity().unwrap().link_speed(), 3);
}
