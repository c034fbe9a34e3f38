//! What a disk is asked and told beside its data, in virtual time.

mod support;

use outboard_ahci::spec::ata::{command, features};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::security::{ATTEMPTS, status};
use outboard_ahci::spec::smart::subcommand;
use outboard_block::manage::{Password, Power, SelfTest, Switch, TestOutcome, Verdict};
use outboard_block::{
    BlockDriver, BlockError, Durability, Management, RefusedReason, UnitId, UnitState,
};
use outboard_sim::disk::{Abilities, Defect, Lies, Mishap};
use outboard_sim::hba::HbaConfig;
use outboard_sim::{Disk, DiskConfig, Fault};
use std::time::Duration;
use support::sim_bench::{ALWAYS, SimBench, disk, disk_as, good};

const SECRET: [u8; 32] = *b"correct horse battery staple 32!";
const USER: Password = Password::User;

fn bench_of(disk: Disk) -> SimBench {
    let bench = SimBench::new(vec![Some(disk)]);
    bench.commands(0);
    bench
}

fn bench() -> SimBench {
    bench_of(disk(512))
}

/// A disk that was locked when it got power.
fn locked() -> SimBench {
    let mut disk = disk(512);
    disk.set_user_password(SECRET);
    disk.lock();
    bench_of(disk)
}

fn wiped(bench: &SimBench) {
    assert_eq!(bench.count(&SECRET), 0, "the password is still in memory");
}

/// The next `times` commands with this code are never ended.
fn hang(bench: &SimBench, code: u8, times: u32) {
    bench.disk(0, |disk| disk.script(Some(code), times, Mishap::Hang));
}

#[test]
fn what_a_disk_can_do_is_known_once_it_is_identified() {
    let features = bench().features(0);
    assert_eq!((features.health, features.self_tests), (Switch::On, true));
    assert_eq!((features.write_cache, features.look_ahead), (Switch::On, Switch::On));
    assert_eq!(features.advanced_power, Switch::On);
    assert!(features.security.supported && !features.security.enabled && features.capacity);
    assert_eq!(features.security.erase_minutes, 2);
    assert_eq!(features.security.enhanced_erase_minutes, Some(2));
    assert_eq!((features.link_speed, features.power), (3, Power::Unknown));
}

#[test]
fn health_ends_though_the_disk_no_longer_has_the_log_that_is_left_to_read() {
    let mut bench = bench();
    // It refuses the log of self-tests, which leaves the error log, and takes its time to stop.
    let (log, once) = (subcommand::READ_LOG as u8, 1);
    bench.disk(0, |disk| disk.script_subcommand(command::SMART, log, once, Mishap::Abort));
    bench.inject(0, Fault::EngineSlow, 1);
    bench.submit_management(0, Management::ReadHealth, &[]).unwrap();
    bench.driver.kick(bench.now);
    let mut taken = 0;
    while taken < 4 {
        bench.pass(Duration::from_micros(20));
        taken += bench.commands(0).len();
    }
    // Meanwhile it comes back as one without error log.
    let without = [(84, 1 << 14 | 1 << 5 | 1 << 1), (87, 1 << 14)];
    bench.disk(0, |disk| disk.override_words(&without));
    bench.brown_out(0);
    assert_eq!(bench.result(), Ok(()));
    let health = bench.driver.health(UnitId(0)).unwrap();
    assert_eq!((health.verdict, health.errors), (Verdict::Passed, 0));
    // The unit is of use afterwards.
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn health_is_put_together_from_all_that_smart_says() {
    let mut bench = bench();
    assert!(bench.driver.health(UnitId(0)).is_none());
    bench.disk(0, |disk| {
        disk.age(10_000);
        [5, 9].into_iter().for_each(|lba| disk.damage(lba, Defect::Permanent));
    });
    bench.submit(0, 9, 1);
    assert_eq!(bench.result(), Err(BlockError::Media { lba: Some(9) }));
    bench.manage(0, Management::SelfTest(SelfTest::Extended), &[]).unwrap();
    // It comes to the sector in less than a fifth of its ten minutes, and is asked after that.
    bench.pass(Duration::from_secs(121));
    bench.commands(0);
    bench.manage(0, Management::ReadHealth, &[]).unwrap();
    let commands = bench.disk(0, Disk::take_commands);
    let subcommands: Vec<_> = commands.iter().map(|fis| fis.features_low).collect();
    assert_eq!(subcommands, [0xda, 0xd1, 0xd0, 0xd5, 0xd5]);
    let health = bench.driver.health(UnitId(0)).unwrap();
    assert_eq!((health.verdict, health.power_on_hours), (Verdict::Passed, Some(10_000)));
    assert!(!health.attributes[1].has_failed() && health.attributes[1].prefailure);
    let test = health.tests[0];
    assert_eq!((test.test, test.outcome), (SelfTest::Extended, TestOutcome::Failed));
    assert_eq!((test.left, test.hours, test.lba), (80, 10_000, Some(5)));
    assert_eq!((health.errors, health.last_errors[0].lba), (1, 9));
    assert_eq!(health.last_errors[0].registers, (0x51, 0x40));
    bench.disk(0, |disk| disk.set_failing(true));
    bench.manage(0, Management::SelfTest(SelfTest::Short), &[]).unwrap();
    bench.manage(0, Management::ReadHealth, &[]).unwrap();
    let health = bench.driver.health(UnitId(0)).unwrap();
    assert_eq!((health.verdict, health.running_test), (Verdict::Failing, Some(90)));
    assert!(health.attributes[1].has_failed());
}

#[test]
fn health_that_makes_no_sense_does_no_harm() {
    let mut senseless = bench();
    for byte in 0..=255 {
        senseless.disk(0, |disk| disk.fill_smart(byte));
        senseless.manage(0, Management::ReadHealth, &[]).unwrap();
        assert!(senseless.driver.health(UnitId(0)).is_some());
    }
    let mut bench = bench();
    bench.disk(0, |disk| disk.lies |= Lies::SMART_CHECKSUM);
    assert_eq!(bench.manage(0, Management::ReadHealth, &[]), Err(BlockError::BadAnswer));
    assert!(bench.driver.health(UnitId(0)).is_none(), "half of it is none");
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn health_goes_without_logs_that_the_disk_refuses() {
    let mut bench = bench();
    // Both logs and the verdict are missing; what is read last must not hang on them.
    let refused = [subcommand::RETURN_STATUS, subcommand::READ_THRESHOLDS, subcommand::READ_LOG];
    bench.disk(0, |disk| {
        for features in refused {
            disk.script_subcommand(command::SMART, features as u8, ALWAYS, Mishap::Abort);
        }
    });
    bench.manage(0, Management::ReadHealth, &[]).unwrap();
    let health = bench.driver.health(UnitId(0)).unwrap();
    assert_eq!((health.verdict, health.attributes.len()), (Verdict::Unknown, 10));
    assert!(health.tests.is_empty() && health.last_errors.is_empty());
    bench.submit(0, 3, 1);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn orders_of_a_program_follow_each_other_among_other_requests() {
    let mut bench = bench();
    (0..8).for_each(|lba| bench.submit(0, lba, 1));
    let erase = Management::Erase { which: USER, enhanced: false };
    bench.disk(0, |disk| disk.set_user_password(SECRET));
    bench.submit_management(0, erase, &SECRET).unwrap();
    (8..16).for_each(|lba| bench.submit(0, lba, 1));
    bench.submit_flush(0);
    for completion in bench.finish() {
        completion.result.unwrap();
    }
    let (prepare, erase) = (command::SECURITY_ERASE_PREPARE, command::SECURITY_ERASE_UNIT);
    let expected = [prepare, erase, command::IDENTIFY_DEVICE, command::FLUSH_CACHE_EXT];
    assert_eq!(bench.commands(0), expected);
    assert_eq!(bench.sector(0, 9), [0; 512]);
    assert!(!bench.features(0).security.enabled);
}

#[test]
fn passwords_are_wiped_however_their_commands_end() {
    let set = Management::SetPassword { which: USER, maximum: false };
    let mut bench = bench();
    assert_eq!(bench.manage(0, set, &SECRET), Ok(()));
    wiped(&bench);
    assert!(bench.features(0).security.enabled);
    bench.disk(0, |disk| disk.set_user_password([1; 32]));
    let disable = Management::DisablePassword(USER);
    assert_eq!(bench.manage(0, disable, &SECRET), Err(BlockError::Locked));
    wiped(&bench);
    // Never answered: wiped as soon as the HBA has let go, long before the disk is back.
    hang(&bench, command::SECURITY_DISABLE_PASSWORD, 1);
    bench.submit_management(0, disable, &SECRET).unwrap();
    bench.driver.kick(bench.now);
    assert!(bench.count(&SECRET) > 1);
    bench.run_until(|bench| bench.happened("port reset") > 0);
    assert_eq!(bench.count(&SECRET), 1, "the request's own memory is its owner's");
    assert_eq!(bench.result(), Err(BlockError::Interrupted));
    wiped(&bench);
    // The controller is lost.
    hang(&bench, command::SECURITY_DISABLE_PASSWORD, 1);
    bench.submit_management(0, disable, &SECRET).unwrap();
    bench.driver.kick(bench.now);
    bench.inject(0, Fault::Removed, 1);
    assert_eq!(bench.result(), Err(BlockError::Gone));
    wiped(&bench);
}

#[test]
fn what_destroys_or_counts_attempts_is_never_issued_twice() {
    let erase = Management::Erase { which: USER, enhanced: true };
    let set = Management::SetPassword { which: USER, maximum: true };
    let all = [
        (command::SECURITY_ERASE_UNIT, erase),
        (command::SECURITY_UNLOCK, Management::Unlock(USER)),
        (command::SECURITY_SET_PASSWORD, set),
        (command::SECURITY_DISABLE_PASSWORD, Management::DisablePassword(USER)),
    ];
    for (code, what) in all {
        let mut bench = bench();
        bench.disk(0, |disk| disk.set_user_password(SECRET));
        hang(&bench, code, 1);
        bench.submit_management(0, what, &SECRET).unwrap();
        bench.driver.kick(bench.now);
        let mut before = Vec::new();
        while !before.contains(&code) {
            bench.pass(Duration::from_micros(100));
            before.extend(bench.commands(0));
        }
        // The disk is gone for a moment, rather than waited for for hours.
        bench.brown_out(0);
        assert_eq!(bench.result(), Err(BlockError::Interrupted), "{what:?}");
        let after = bench.commands(0);
        assert!(!after.is_empty() && !after.contains(&code), "{after:x?}");
        // The disk came back locked.
        assert_eq!(bench.state(0), UnitState::Locked);
    }
}

#[test]
fn programs_that_are_cut_short_between_two_orders_begin_again_unless_they_must_not() {
    let erase = Management::Erase { which: USER, enhanced: false };
    let unlock = Management::Unlock(USER);
    let look_ahead = Management::SetLookAhead(false);
    let cases = [
        (erase, &SECRET[..], Ok(())),
        (unlock, &SECRET, Err(BlockError::Interrupted)),
        (look_ahead, &[], Ok(())),
    ];
    for (what, password, expected) in cases {
        let mut first = disk(512);
        first.set_user_password(SECRET);
        let mut bench = SimBench::new(vec![Some(first), Some(disk(512))]);
        if what == unlock {
            bench.disk(0, Disk::lock);
        }
        bench.commands(0);
        bench.submit(1, 0, 1);
        bench.submit_management(0, what, password).unwrap();
        bench.driver.kick(bench.now);
        bench.now = bench.now + Duration::from_millis(1);
        assert!(bench.advance(), "the first order has been carried out");
        bench.driver.interrupt(0);
        // With two busy ports both ends and troubles are looked for before anything is issued.
        bench.brown_out(0);
        let done = bench.finish();
        assert_eq!(done[1].result, expected, "{what:?}: {:#?}", bench.events);
        let commands = bench.commands(0);
        let first = commands.iter().filter(|code| **code == commands[0]).count();
        assert_eq!(first, if what == unlock { 1 } else { 2 }, "{commands:x?}");
        assert_eq!(bench.sector(0, 9) == [0; 512], what == erase);
        let look_ahead_off = bench.features(0).look_ahead == Switch::Off;
        assert_eq!(look_ahead_off, what == look_ahead);
    }
}

#[test]
fn a_reset_for_another_port_does_not_make_a_command_be_issued_twice() {
    let mut bench = SimBench::new(vec![Some(disk(512)), Some(disk(512))]);
    bench.disk(0, |disk| disk.script_at(16, 1, Mishap::Hang));
    bench.inject(0, Fault::EngineStuck, 1);
    bench.submit(0, 16, 1);
    bench.driver.kick(bench.now);
    bench.pass(Duration::from_secs(29));
    let set = command::SECURITY_SET_PASSWORD;
    bench.disk(1, |disk| disk.script(Some(set), 1, Mishap::Hang));
    let asked = Management::SetPassword { which: USER, maximum: false };
    bench.submit_management(1, asked, &SECRET).unwrap();
    let last = bench.finish().pop().unwrap();
    assert_eq!(last.result, Err(BlockError::Interrupted));
    assert_eq!(bench.device.hba().resets(), 2);
    assert_eq!(bench.commands(1).iter().filter(|code| **code == set).count(), 1);
}

#[test]
fn erasing_may_take_as_long_as_the_disk_says_and_not_for_ever() {
    let mut config = DiskConfig::modern(512);
    config.timing.erase = Duration::from_secs(3600);
    let mut bench = bench_of(disk_as(config));
    let erase = Management::Erase { which: USER, enhanced: false };
    hang(&bench, command::SECURITY_ERASE_UNIT, 1);
    bench.submit_management(0, erase, &SECRET).unwrap();
    bench.driver.kick(bench.now);
    let began = bench.now;
    while bench.done.is_empty() {
        bench.turn();
        let deadline = bench.driver.next_deadline().unwrap_or(bench.now);
        bench.now = bench.now.max(deadline) + Duration::from_millis(1);
    }
    let took = bench.now.since(began);
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    assert!(took > hours(2) && took < hours(3), "{took:?} for a disk that says an hour");
    assert_eq!(bench.done[0].result, Err(BlockError::Interrupted));
}

#[test]
fn settings_that_a_reset_undoes_are_applied_again() {
    let mut bench = bench();
    bench.manage(0, Management::SetWriteCache(false), &[]).unwrap();
    bench.manage(0, Management::SetLookAhead(false), &[]).unwrap();
    bench.manage(0, Management::SetPowerLevel(128), &[]).unwrap();
    bench.manage(0, Management::SetStandbyTimer(601), &[]).unwrap();
    bench.manage(0, Management::FreezeSecurity, &[]).unwrap();
    assert!(!bench.driver.unit(UnitId(0)).unwrap().geometry.write_cache);
    bench.commands(0);
    bench.brown_out(0);
    bench.submit(0, 0, 1);
    bench.finish().into_iter().for_each(good);
    let taken = bench.disk(0, Disk::take_commands);
    let told = |code, what: u16, count| {
        let same = |fis: &&RegisterH2d| {
            (fis.command, u16::from(fis.features_low), fis.count[0]) == (code, what, count)
        };
        taken.iter().filter(same).count()
    };
    assert_eq!(told(command::SET_FEATURES, features::DISABLE_WRITE_CACHE, 0), 1);
    assert_eq!(told(command::SET_FEATURES, features::DISABLE_LOOK_AHEAD, 0), 1);
    assert_eq!(told(command::SET_FEATURES, features::ENABLE_ADVANCED_POWER, 128), 1);
    assert_eq!(told(command::IDLE, 0, 121), 1);
    assert!(bench.disk(0, |disk| disk.security_status()) & status::FROZEN != 0);
    let features = bench.features(0);
    assert_eq!((features.write_cache, features.look_ahead), (Switch::Off, Switch::Off));
    assert!(!bench.driver.unit(UnitId(0)).unwrap().geometry.write_cache);
    assert_eq!(bench.happened("set again"), 5, "{:#?}", bench.events);
}

#[test]
fn settings_that_the_disk_does_not_take_again_are_said_and_forgotten() {
    for mishap in [Mishap::Abort, Mishap::Hang] {
        let mut bench = bench();
        bench.manage(0, Management::SetWriteCache(false), &[]).unwrap();
        bench.manage(0, Management::SetLookAhead(false), &[]).unwrap();
        let times = if mishap == Mishap::Hang { 2 } else { ALWAYS };
        bench.disk(0, |disk| disk.script(Some(command::SET_FEATURES), times, mishap));
        bench.brown_out(0);
        bench.submit(0, 0, 1);
        bench.finish().into_iter().for_each(good);
        assert_eq!(bench.happened("cannot be set again"), 2, "{:#?}", bench.events);
        assert_eq!(bench.features(0).write_cache, Switch::On);
        assert!(bench.driver.unit(UnitId(0)).unwrap().geometry.write_cache, "flushes are needed");
    }
}

#[test]
fn the_cache_is_flushed_before_it_is_switched_off() {
    let mut bench = bench();
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.result().unwrap();
    bench.manage(0, Management::SetWriteCache(false), &[]).unwrap();
    let set = command::SET_FEATURES;
    assert_eq!(bench.commands(0), [command::FLUSH_CACHE_EXT, set, command::IDENTIFY_DEVICE]);
    bench.brown_out(0);
    bench.finish();
    bench.submit_flush(0);
    assert_eq!(bench.result(), Ok(()), "nothing was lost");
    bench.manage(0, Management::SetWriteCache(true), &[]).unwrap();
    assert!(bench.driver.unit(UnitId(0)).unwrap().geometry.write_cache);
}

#[test]
fn a_locked_disk_serves_nothing_but_management_until_it_is_unlocked() {
    let mut bench = locked();
    assert_eq!(bench.state(0), UnitState::Locked);
    assert!(bench.features(0).security.locked);
    let refused =
        bench.driver.submit(UnitId(0), outboard_block::Tag(1), outboard_block::Request::flush());
    assert_eq!(refused.unwrap_err().reason, RefusedReason::NotReady(UnitState::Locked));
    let unlock = Management::Unlock(USER);
    assert_eq!(bench.manage(0, unlock, &[7; 32]), Err(BlockError::Locked));
    assert_eq!(bench.state(0), UnitState::Locked);
    assert_eq!(bench.disk(0, |disk| disk.password_attempts()), ATTEMPTS - 1);
    bench.manage(0, Management::ReadHealth, &[]).unwrap();
    bench.manage(0, unlock, &SECRET).unwrap();
    assert_eq!(bench.state(0), UnitState::Ready);
    wiped(&bench);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn requests_for_a_disk_that_comes_back_locked_fail_as_locked() {
    let mut bench = bench();
    let set = Management::SetPassword { which: USER, maximum: false };
    bench.manage(0, set, &SECRET).unwrap();
    assert_eq!(bench.state(0), UnitState::Ready);
    bench.submit(0, 0, 8);
    bench.submit_flush(0);
    bench.brown_out(0);
    for completion in bench.finish() {
        assert_eq!(completion.result, Err(BlockError::Locked));
    }
    assert_eq!(bench.state(0), UnitState::Locked);
    bench.manage(0, Management::Unlock(USER), &SECRET).unwrap();
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn a_sleeping_disk_is_woken_by_the_next_request() {
    let config = DiskConfig::modern(512).without(Abilities::SETTINGS_PRESERVATION);
    let mut bench = bench_of(disk_as(config));
    let asleep = |bench: &SimBench| bench.disk(0, |disk| disk.asleep());
    bench.manage(0, Management::SetPowerLevel(64), &[]).unwrap();
    bench.manage(0, Management::SetPower(Power::Sleep), &[]).unwrap();
    assert!(asleep(&bench));
    assert_eq!(bench.features(0).power, Power::Sleep);
    bench.manage(0, Management::ReadPower, &[]).unwrap();
    assert!(asleep(&bench), "asking does not wake it");
    bench.commands(0);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
    let taken = bench.disk(0, Disk::take_commands);
    let level = taken.iter().find(|fis| fis.command == command::SET_FEATURES).unwrap();
    assert_eq!(u16::from(level.features_low), features::ENABLE_ADVANCED_POWER);
    assert_eq!(level.count[0], 64);
    assert_eq!((bench.happened("waking"), bench.happened("port reset")), (1, 0));
    bench.manage(0, Management::SetPower(Power::Sleep), &[]).unwrap();
    bench.manage(0, Management::SetPower(Power::Active), &[]).unwrap();
    assert_eq!(bench.features(0).power, Power::Idle, "awake, and nothing to do");
    assert_eq!(bench.device.hba().resets(), 1, "of the HBA, at start-up");
}

#[test]
fn a_sleeping_disk_does_not_keep_the_driver_from_stopping() {
    for asked in [false, true] {
        let mut bench = bench();
        bench.manage(0, Management::SetPower(Power::Sleep), &[]).unwrap();
        if asked {
            bench.submit(0, 0, 8);
        }
        bench.driver.stop();
        bench.run_until(|bench| bench.driver.is_stopped());
        bench.done.drain(..).for_each(good);
    }
}

#[test]
fn standby_is_asked_for_and_seen() {
    let mut bench = bench();
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.result().unwrap();
    bench.manage(0, Management::SetPower(Power::Standby), &[]).unwrap();
    assert_eq!(bench.features(0).power, Power::Standby);
    assert_eq!(bench.commands(0)[..2], [command::FLUSH_CACHE_EXT, command::STANDBY_IMMEDIATE]);
    bench.submit(0, 0, 1);
    bench.finish().into_iter().for_each(good);
    bench.manage(0, Management::ReadPower, &[]).unwrap();
    assert_eq!(bench.features(0).power, Power::Active);
}

#[test]
fn a_disk_without_a_feature_is_not_asked_for_it() {
    let mut config = DiskConfig::modern(512);
    config.abilities = Abilities::LBA48 | Abilities::FLUSH_EXT;
    let mut bench = bench_of(disk_as(config));
    let unsupported = [
        (Management::ReadHealth, &[][..]),
        (Management::SelfTest(SelfTest::Short), &[]),
        (Management::SetWriteCache(false), &[]),
        (Management::SetLookAhead(false), &[]),
        (Management::SetPowerLevel(1), &[]),
        (Management::SetPower(Power::Unknown), &[]),
        (Management::FreezeSecurity, &[]),
        (Management::Unlock(USER), &SECRET),
        (Management::ReadNativeCapacity, &[]),
        (Management::SetCapacity { sectors: 1 }, &[]),
        (Management::Eject, &[]),
    ];
    for (what, password) in unsupported {
        let refused = bench.submit_management(0, what, password);
        assert_eq!(refused, Err(RefusedReason::Unsupported), "{what:?}");
    }
    assert!(bench.commands(0).is_empty());
}

#[test]
fn requests_that_cannot_be_carried_out_now_are_refused_with_the_reason() {
    let mut bench = bench();
    bench.manage(0, Management::SetHealth(false), &[]).unwrap();
    let health = bench.submit_management(0, Management::ReadHealth, &[]);
    assert_eq!(health, Err(RefusedReason::SwitchedOff));
    bench.manage(0, Management::SetHealth(true), &[]).unwrap();
    bench.manage(0, Management::ReadHealth, &[]).unwrap();
    let short = bench.submit_management(0, Management::Unlock(USER), &[]);
    assert_eq!(short, Err(RefusedReason::BadMemory));
    bench.manage(0, Management::FreezeSecurity, &[]).unwrap();
    let set = Management::SetPassword { which: USER, maximum: false };
    assert_eq!(bench.submit_management(0, set, &SECRET), Err(RefusedReason::Frozen));
}

#[test]
fn what_the_disk_ignores_is_reported() {
    let mut bench = bench();
    // It always says that its cache is on.
    bench.disk(0, |disk| disk.override_words(&[(85, 1 << 5 | 1)]));
    let off = bench.manage(0, Management::SetWriteCache(false), &[]);
    assert_eq!(off, Err(BlockError::Unsupported));
    assert!(bench.driver.unit(UnitId(0)).unwrap().geometry.write_cache);
    bench.disk(0, |disk| disk.override_words(&[(10, 0x5858)]));
    let other = bench.manage(0, Management::SetLookAhead(false), &[]);
    assert_eq!(other, Err(BlockError::BadAnswer), "another serial number");
}

#[test]
fn a_disk_can_be_made_to_have_fewer_sectors_and_more_again() {
    let mut config = DiskConfig::modern(512).without(Abilities::AMA);
    config.abilities |= Abilities::HPA;
    let mut bench = bench_of(disk_as(config));
    let generation = bench.generation(0);
    bench.manage(0, Management::SetCapacity { sectors: 100 }, &[]).unwrap();
    let unit = bench.driver.unit(UnitId(0)).unwrap();
    assert_eq!((unit.geometry.sectors, unit.generation), (100, generation + 1));
    assert_eq!(unit.features.native_sectors, Some(512));
    let more = bench.manage(0, Management::SetCapacity { sectors: 513 }, &[]);
    assert_eq!(more, Err(BlockError::Unsupported));
    // Nobody knows whether it was done, and the disk comes back with a size of its choice.
    hang(&bench, command::SET_MAX_EXT, 1);
    bench.disk(0, |disk| disk.resize_at_reset(200));
    assert_eq!(
        bench.manage(0, Management::SetCapacity { sectors: 512 }, &[]),
        Err(BlockError::Interrupted)
    );
    assert_eq!(bench.driver.unit(UnitId(0)).unwrap().geometry.sectors, 200);
    assert_eq!(bench.state(0), UnitState::Ready);
    // Without having been asked for, it is another disk.
    let generation = bench.generation(0);
    bench.disk(0, |disk| disk.resize_at_reset(201));
    bench.brown_out(0);
    bench.finish();
    bench.run_until(|bench| bench.driver.unit(UnitId(0)).unwrap().geometry.sectors == 201);
    assert_eq!(bench.generation(0), generation + 1);
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn management_that_fails_is_tried_a_bounded_number_of_times() {
    for (mishap, error) in
        [(Mishap::Abort, BlockError::Aborted), (Mishap::Hang, BlockError::Timeout)]
    {
        let mut bench = bench();
        bench.disk(0, |disk| disk.script(Some(command::SET_FEATURES), ALWAYS, mishap));
        assert_eq!(bench.manage(0, Management::SetWriteCache(false), &[]), Err(error));
        assert_eq!(bench.state(0), UnitState::Ready);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
    }
}

#[test]
fn devices_are_managed_before_others_are_found() {
    // A port that never becomes ready does not keep management of another from its end.
    let disks = vec![Some(disk(512)), Some(disk(512))];
    let mut bench = SimBench::starting_at(HbaConfig::new(2), disks, |hba| {
        (0..64).for_each(|_| hba.inject(1, Fault::SpinUpNever));
    });
    bench.run_until(|bench| bench.state(0) == UnitState::Ready);
    bench.submit_management(0, Management::ReadHealth, &[]).unwrap();
    bench.driver.kick(bench.now);
    bench.run_until(|bench| bench.done.len() == 1);
    assert_eq!(bench.done[0].result, Ok(()));
    assert_eq!(bench.state(1), UnitState::Starting);
}
