//! Passwords, the states that they lead to, and the limits of capacity.

use super::harness::Host;
use crate::disk::{Abilities, DiskConfig};
use crate::sata::{End, Reset};
use outboard_ahci::spec::ata::{Error, accessible_max, command};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::security::{PasswordBlock, control, status};
use zerocopy::IntoBytes;

const USER: [u8; 32] = [1; 32];
const MASTER: [u8; 32] = [2; 32];
const WRONG: [u8; 32] = [3; 32];

fn host() -> Host {
    Host::new(DiskConfig::modern(1000))
}

fn send(host: &mut Host, code: u8, control: u16, password: [u8; 32]) -> End {
    host.run(RegisterH2d::command(code), PasswordBlock::new(control, password).as_bytes()).0
}

fn simple(host: &mut Host, code: u8) -> End {
    host.run(RegisterH2d::command(code), &[]).0
}

fn erase(host: &mut Host, control: u16, password: [u8; 32]) -> End {
    assert!(!simple(host, command::SECURITY_ERASE_PREPARE).is_bad());
    send(host, command::SECURITY_ERASE_UNIT, control, password)
}

/// A disk with data, a user's and a master password, after a loss of power: SEC4.
fn locked(level: u16) -> Host {
    let mut host = host();
    host.write(0, 1, 7);
    host.flush();
    assert!(!send(&mut host, command::SECURITY_SET_PASSWORD, control::MASTER, MASTER).is_bad());
    assert!(!send(&mut host, command::SECURITY_SET_PASSWORD, level, USER).is_bad());
    assert_eq!(host.fills(0, 1), [7], "it is not locked before the next loss of power");
    host.cycle_power();
    host
}

fn has(host: &mut Host, bit: u16) -> bool {
    let word = host.word(128);
    assert_eq!(word, host.disk.security_status());
    word & bit != 0
}

#[test]
fn a_locked_disk_keeps_its_data_to_itself_until_the_password_comes() {
    let mut host = locked(0);
    assert!(has(&mut host, status::LOCKED) && has(&mut host, status::ENABLED));
    assert!(host.identity().unwrap().security().locked);
    let fis = RegisterH2d::command(command::READ_FPDMA_QUEUED).features(1);
    assert_eq!(host.run(fis, &[]).0.error, Error::ABORTED.bits());
    assert!(host.read(0, 1).0.is_bad() && host.write(0, 1, 1).is_bad() && host.flush().is_bad());
    assert!(send(&mut host, command::SECURITY_SET_PASSWORD, 0, USER).is_bad());
    assert!(send(&mut host, command::SECURITY_DISABLE_PASSWORD, 0, USER).is_bad());
    assert!(simple(&mut host, command::SECURITY_FREEZE_LOCK).is_bad());
    assert!(send(&mut host, command::SECURITY_UNLOCK, 0, WRONG).is_bad());
    assert!(!send(&mut host, command::SECURITY_UNLOCK, 0, USER).is_bad());
    assert_eq!((host.fills(0, 1), has(&mut host, status::LOCKED)), (vec![7], false));
    host.cycle_power();
    assert!(has(&mut host, status::LOCKED));
    assert!(!send(&mut host, command::SECURITY_UNLOCK, control::MASTER, MASTER).is_bad());
    assert!(!send(&mut host, command::SECURITY_DISABLE_PASSWORD, 0, USER).is_bad());
    host.cycle_power();
    assert_eq!((host.fills(0, 1), host.word(85) & 2), (vec![7], 0));
}

#[test]
fn at_level_maximum_the_master_password_can_only_erase() {
    let mut host = locked(control::MAXIMUM);
    assert!(has(&mut host, status::MAXIMUM));
    assert!(send(&mut host, command::SECURITY_UNLOCK, control::MASTER, MASTER).is_bad());
    assert!(!erase(&mut host, control::MASTER, MASTER).is_bad());
    assert!(!has(&mut host, status::ENABLED) && !has(&mut host, status::MAXIMUM));
    assert_eq!(host.fills(0, 1), [0]);
}

#[test]
fn five_wrong_passwords_are_all_until_power_is_lost() {
    let mut host = locked(0);
    for _ in 0..5 {
        assert!(!has(&mut host, status::EXPIRED));
        assert!(send(&mut host, command::SECURITY_UNLOCK, 0, WRONG).is_bad());
    }
    assert!(has(&mut host, status::EXPIRED));
    assert!(send(&mut host, command::SECURITY_UNLOCK, 0, USER).is_bad());
    assert!(erase(&mut host, 0, USER).is_bad());
    host.cycle_power();
    assert!(!send(&mut host, command::SECURITY_UNLOCK, 0, USER).is_bad());
}

#[test]
fn erasing_needs_to_be_prepared_right_before() {
    let mut host = locked(0);
    assert!(send(&mut host, command::SECURITY_ERASE_UNIT, 0, USER).is_bad());
    assert!(!simple(&mut host, command::SECURITY_ERASE_PREPARE).is_bad());
    host.identify();
    assert!(send(&mut host, command::SECURITY_ERASE_UNIT, 0, USER).is_bad());
    assert!(erase(&mut host, 0, WRONG).is_bad());
    assert!(!erase(&mut host, control::ENHANCED, USER).is_bad());
    assert_eq!((host.took >= host.disk.config().timing.erase, host.fills(0, 1)), (true, vec![0]));
    let mut plain = Host::new(DiskConfig::modern(9).without(Abilities::ENHANCED_ERASE));
    send(&mut plain, command::SECURITY_SET_PASSWORD, 0, USER);
    assert!(erase(&mut plain, control::ENHANCED, USER).is_bad());
    assert!(!erase(&mut plain, 0, USER).is_bad());
}

#[test]
fn a_frozen_disk_lets_nothing_be_changed_until_power_is_lost() {
    let mut host = host();
    assert!(!simple(&mut host, command::SECURITY_FREEZE_LOCK).is_bad());
    assert!(has(&mut host, status::FROZEN));
    for code in [
        command::SECURITY_SET_PASSWORD,
        command::SECURITY_UNLOCK,
        command::SECURITY_DISABLE_PASSWORD,
    ] {
        assert!(send(&mut host, code, 0, USER).is_bad());
    }
    assert!(simple(&mut host, command::SECURITY_ERASE_PREPARE).is_bad());
    host.reset(Reset::Hard);
    assert!(has(&mut host, status::FROZEN), "settings are preserved");
    host.cycle_power();
    assert!(!has(&mut host, status::FROZEN));
    assert!(!send(&mut host, command::SECURITY_SET_PASSWORD, 0, USER).is_bad());
}

#[test]
fn without_settings_preservation_comreset_locks_again() {
    let mut host = Host::new(DiskConfig::modern(9).without(Abilities::SETTINGS_PRESERVATION));
    send(&mut host, command::SECURITY_SET_PASSWORD, 0, USER);
    host.reset(Reset::Soft);
    assert!(!has(&mut host, status::LOCKED));
    host.reset(Reset::Hard);
    assert!(has(&mut host, status::LOCKED));
}

#[test]
fn the_host_protected_area_is_out_of_reach_until_it_is_given_back() {
    let mut host = Host::new(DiskConfig::rotating(1 << 30));
    let native = RegisterH2d::command(command::READ_NATIVE_MAX_EXT);
    let set = |lba: u64| RegisterH2d::command(command::SET_MAX_EXT).lba48(lba);
    assert_eq!(host.run(native, &[]).0.lba, (1 << 30) - 1);
    host.identify();
    host.aborted(set(99), &[]);
    host.good(native, &[]);
    host.good(set(99), &[]);
    assert_eq!(host.identity().unwrap().sectors(), 100);
    assert_eq!(host.read(99, 2).0.error, Error::ID_NOT_FOUND.bits());
    host.cycle_power();
    assert_eq!(host.identity().unwrap().sectors(), 1 << 30, "it was not to be kept");
    host.good(native, &[]);
    host.good(set(199).count(1), &[]);
    host.good(native, &[]);
    let (end, _) = host.run(set(299).count(1), &[]);
    assert_eq!(end.error, Error::ID_NOT_FOUND.bits(), "once is all until power is lost");
    host.cycle_power();
    assert_eq!(host.identity().unwrap().sectors(), 200);
    let (end, _) = host.run(RegisterH2d::command(command::READ_NATIVE_MAX), &[]);
    assert_eq!((end.lba, end.device), (0x00ff_ffff, 0x4f), "28 bits are not enough");
}

#[test]
fn the_accessible_maximum_is_set_once_and_kept() {
    let mut host = host();
    let ama = |feature| RegisterH2d::command(command::ACCESSIBLE_MAX_ADDRESS).features(feature);
    assert!(host.identity().unwrap().has_accessible_max());
    assert_eq!(host.run(ama(accessible_max::GET_NATIVE), &[]).0.lba, 999);
    host.aborted(ama(accessible_max::SET).lba48(1000), &[]);
    host.good(ama(accessible_max::SET).lba48(499), &[]);
    host.aborted(ama(accessible_max::SET).lba48(599), &[]);
    host.cycle_power();
    assert_eq!(host.identity().unwrap().sectors(), 500);
    host.good(ama(accessible_max::FREEZE), &[]);
    host.aborted(ama(accessible_max::SET).lba48(999), &[]);
    host.cycle_power();
    host.good(ama(accessible_max::SET).lba48(999), &[]);
    assert_eq!(host.identity().unwrap().sectors(), 1000);
}

#[test]
fn a_disk_may_turn_out_to_be_another_after_a_reset() {
    let mut host = host();
    host.disk.resize_at_reset(10);
    assert_eq!(host.identity().unwrap().sectors(), 1000);
    host.reset(Reset::Hard);
    assert_eq!(host.identity().unwrap().sectors(), 10);
    assert!(host.read(9, 2).0.is_bad() && !host.read(9, 1).0.is_bad());
    host.disk.resize_at_reset(0);
    host.reset(Reset::Soft);
    assert!(host.read(0, 1).0.is_bad() && host.word(100) == 0);
    let native = RegisterH2d::command(command::ACCESSIBLE_MAX_ADDRESS);
    assert_eq!(host.run(native, &[]).0.lba, 0);
}
