//! What a disk is asked and told beside its data, in virtual time.

mod support;

use outboard_ahci::spec::ata::command;
use outboard_block::manage::{Password, Power, SelfTest, Switch, TestOutcome, Verdict};
use outboard_block::{
    BlockDriver, BlockError, Durability, Management, RefusedReason, UnitId, UnitState,
};
use std::time::Duration;
use support::model::firmware::Firmware;
use support::model::{Disk, Fault, ModelDevice};
use support::model_bench::{ModelBench, disk_with, good};

const SECRET: &[u8] = b"correct horse battery staple 32!";

fn bench() -> ModelBench {
    let bench = ModelBench::new(vec![Some(Disk::new(512))]);
    bench.trace(0);
    bench
}

/// A disk that was locked when it got power.
fn locked() -> ModelBench {
    let mut disk = Disk::new(512);
    let mut secret = [0; 32];
    secret.copy_from_slice(SECRET);
    (disk.firmware.password, disk.firmware.locked) = (Some(secret), true);
    let bench = ModelBench::new(vec![Some(disk)]);
    bench.trace(0);
    bench
}

fn wipe(bench: &ModelBench) {
    assert!(!bench.device.model().knows(SECRET), "the password is still in memory");
}

#[test]
fn what_a_disk_can_do_is_known_once_it_is_identified() {
    let features = bench().features(0);
    assert_eq!((features.health, features.self_tests), (Switch::On, true));
    assert_eq!((features.write_cache, features.look_ahead), (Switch::On, Switch::On));
    assert_eq!(features.advanced_power, Switch::Off);
    assert!(features.security.supported && !features.security.enabled && features.capacity);
    assert_eq!(features.security.erase_minutes, 60);
    assert_eq!(features.security.enhanced_erase_minutes, Some(30));
    assert_eq!((features.link_speed, features.power), (1, Power::Unknown));
}

#[test]
fn health_ends_though_the_disk_no_longer_has_the_log_that_is_left_to_read() {
    let mut bench = bench();
    // It refuses the log of self-tests, which leaves the error log, and takes its time to stop.
    bench.firmware(0, |f| f.refused_subcommands = vec![0xd5]);
    bench.device.model().ports[0].slow_engine = 100;
    bench.submit_management(0, Management::ReadHealth, &[]).unwrap();
    bench.driver.kick(bench.now);
    bench.run_until(|bench| bench.firmware(0, |f| f.trace.len() == 4));
    // Meanwhile it comes back as one without error log.
    bench.firmware(0, |f| f.words = vec![(84, 1 << 14 | 1 << 5 | 1 << 1), (87, 1 << 14)]);
    bench.device.model().brown_out(0);
    assert_eq!(bench.finish().pop().unwrap().result, Ok(()));
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
    bench.manage(0, Management::ReadHealth, &[]).unwrap();
    let subcommands = bench.firmware(0, |f| f.trace.iter().map(|(_, s)| *s).collect::<Vec<_>>());
    assert_eq!(subcommands, [0xda, 0xd1, 0xd0, 0xd5, 0xd5]);
    let health = bench.driver.health(UnitId(0)).unwrap();
    assert_eq!((health.verdict, health.power_on_hours), (Verdict::Passed, Some(10_000)));
    assert!(health.attributes[1].has_failed() && health.attributes[1].prefailure);
    let test = health.tests[0];
    assert_eq!((test.test, test.outcome), (SelfTest::Extended, TestOutcome::Failed));
    assert_eq!((test.left, test.hours, test.lba), (40, 0x1234, Some(5)));
    assert_eq!((health.errors, health.last_errors[0].lba), (3, 9));
    assert_eq!(health.last_errors[0].registers, (0x51, 0x40));
    bench.firmware(0, |f| f.failing = true);
    bench.manage(0, Management::SelfTest(SelfTest::Short), &[]).unwrap();
    bench.manage(0, Management::ReadHealth, &[]).unwrap();
    let health = bench.driver.health(UnitId(0)).unwrap();
    assert_eq!((health.verdict, health.running_test), (Verdict::Failing, Some(90)));
}

#[test]
fn health_that_makes_no_sense_does_no_harm() {
    for byte in 0..=255 {
        let mut bench = bench();
        bench.firmware(0, |f| f.smart_byte = Some(byte));
        bench.manage(0, Management::ReadHealth, &[]).unwrap();
        assert!(bench.driver.health(UnitId(0)).is_some());
    }
    let mut bench = bench();
    bench.firmware(0, |f| f.damaged = true);
    assert_eq!(bench.manage(0, Management::ReadHealth, &[]), Err(BlockError::BadAnswer));
    assert!(bench.driver.health(UnitId(0)).is_none(), "half of it is none");
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn health_goes_without_logs_that_the_disk_refuses() {
    let mut bench = bench();
    // Both logs and the verdict are missing; what is read last must not hang on them.
    bench.firmware(0, |f| f.refused_subcommands = vec![0xda, 0xd1, 0xd5]);
    bench.manage(0, Management::ReadHealth, &[]).unwrap();
    let health = bench.driver.health(UnitId(0)).unwrap();
    assert_eq!((health.verdict, health.attributes.len()), (Verdict::Unknown, 2));
    assert!(health.tests.is_empty() && health.last_errors.is_empty());
    bench.submit(0, 3, 1);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn orders_of_a_program_follow_each_other_among_other_requests() {
    let mut bench = bench();
    (0..8).for_each(|lba| bench.submit(0, lba, 1));
    let erase = Management::Erase { which: Password::User, enhanced: false };
    bench.firmware(0, |f| f.password = Some(SECRET.try_into().unwrap()));
    bench.submit_management(0, erase, SECRET).unwrap();
    (8..16).for_each(|lba| bench.submit(0, lba, 1));
    bench.submit_flush(0);
    for completion in bench.finish() {
        completion.result.unwrap();
    }
    let (prepare, erase) = (command::SECURITY_ERASE_PREPARE, command::SECURITY_ERASE_UNIT);
    let expected = [prepare, erase, command::IDENTIFY_DEVICE, command::FLUSH_CACHE_EXT];
    assert_eq!(bench.trace(0), expected);
    assert_eq!(bench.firmware(0, |f| f.erased), 1);
    assert!(!bench.features(0).security.enabled);
}

#[test]
fn passwords_are_wiped_however_their_commands_end() {
    let set = Management::SetPassword { which: Password::User, maximum: false };
    let mut bench = bench();
    assert_eq!(bench.manage(0, set, SECRET), Ok(()));
    wipe(&bench);
    assert!(bench.features(0).security.enabled);
    bench.firmware(0, |f| f.password = Some([1; 32]));
    let disable = Management::DisablePassword(Password::User);
    assert_eq!(bench.manage(0, disable, SECRET), Err(BlockError::Locked));
    wipe(&bench);
    // Never answered: wiped as soon as the HBA has let go, long before the disk is back.
    bench.firmware(0, |f| f.hangs = vec![(command::SECURITY_DISABLE_PASSWORD, 1)]);
    bench.submit_management(0, disable, SECRET).unwrap();
    bench.driver.kick(bench.now);
    assert!(bench.device.model().knows(SECRET));
    bench.device.model().ports[0].deaf = true;
    bench.run_until(|bench| bench.happened("port reset") > 0);
    let left = bench.device.model().count(SECRET);
    assert_eq!(left, 1, "the request's own memory is its owner's");
    bench.device.model().come_back(0);
    assert_eq!(bench.finish()[0].result, Err(BlockError::Interrupted));
    wipe(&bench);
    // The controller is lost.
    bench.firmware(0, |f| f.hangs = vec![(command::SECURITY_DISABLE_PASSWORD, 1)]);
    bench.submit_management(0, disable, SECRET).unwrap();
    bench.driver.kick(bench.now);
    bench.device.model().removed = true;
    assert_eq!(bench.finish()[0].result, Err(BlockError::Gone));
    wipe(&bench);
}

#[test]
fn what_destroys_or_counts_attempts_is_never_issued_twice() {
    let erase = Management::Erase { which: Password::User, enhanced: true };
    let set = Management::SetPassword { which: Password::User, maximum: true };
    let all = [
        (command::SECURITY_ERASE_UNIT, erase),
        (command::SECURITY_UNLOCK, Management::Unlock(Password::User)),
        (command::SECURITY_SET_PASSWORD, set),
        (command::SECURITY_DISABLE_PASSWORD, Management::DisablePassword(Password::User)),
    ];
    for (code, what) in all {
        let mut bench = bench();
        bench.firmware(0, |f| f.password = Some(SECRET.try_into().unwrap()));
        bench.firmware(0, |f| f.hangs = vec![(code, 1)]);
        bench.submit_management(0, what, SECRET).unwrap();
        bench.driver.kick(bench.now);
        bench.run_until(|bench| bench.firmware(0, |f| f.trace.iter().any(|(c, _)| *c == code)));
        // The disk is gone for a moment, rather than waited for for hours.
        bench.device.model().brown_out(0);
        assert_eq!(bench.finish()[0].result, Err(BlockError::Interrupted), "{what:?}");
        let trace = bench.trace(0);
        assert_eq!(trace.iter().filter(|other| **other == code).count(), 1, "{trace:x?}");
        // The disk came back locked.
        assert_eq!(bench.state(0), UnitState::Locked);
    }
}

#[test]
fn programs_that_are_cut_short_between_two_orders_begin_again_unless_they_must_not() {
    let erase = Management::Erase { which: Password::User, enhanced: false };
    let unlock = Management::Unlock(Password::User);
    let look_ahead = Management::SetLookAhead(false);
    let cases = [
        (erase, SECRET, Ok(())),
        (unlock, SECRET, Err(BlockError::Interrupted)),
        (look_ahead, &[], Ok(())),
    ];
    for (what, password, expected) in cases {
        let mut disk = Disk::new(512);
        disk.firmware.password = Some(SECRET.try_into().unwrap());
        let mut bench = ModelBench::new(vec![Some(disk), Some(Disk::new(512))]);
        bench.firmware(0, |f| f.locked = what == unlock);
        bench.trace(0);
        bench.submit(1, 0, 1);
        bench.submit_management(0, what, password).unwrap();
        bench.driver.kick(bench.now);
        bench.device.model().run();
        bench.driver.interrupt(0);
        // With two busy ports both ends and troubles are looked for before anything is issued.
        bench.device.model().brown_out(0);
        let done = bench.finish();
        assert_eq!(done[1].result, expected, "{what:?}: {:#?}", bench.events);
        let trace = bench.trace(0);
        let first = trace.iter().filter(|code| **code == trace[0]).count();
        assert_eq!(first, if what == unlock { 1 } else { 2 }, "{trace:x?}");
        bench.firmware(0, |f| {
            assert_eq!((f.erased == 1, f.look_ahead), (what == erase, what != look_ahead));
        });
    }
}

#[test]
fn a_reset_for_another_port_does_not_make_a_command_be_issued_twice() {
    let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Hang, 1)]), Some(Disk::new(512))]);
    bench.device.model().ports[0].stuck = true;
    bench.submit(0, 16, 1);
    bench.driver.kick(bench.now);
    let almost = bench.now + Duration::from_secs(29);
    bench.run_until(|bench| bench.now.reached(almost));
    bench.firmware(1, |f| f.hangs = vec![(command::SECURITY_SET_PASSWORD, 1)]);
    let set = Management::SetPassword { which: Password::User, maximum: false };
    bench.submit_management(1, set, SECRET).unwrap();
    let last = bench.finish().pop().unwrap();
    assert_eq!(last.result, Err(BlockError::Interrupted));
    assert_eq!(bench.device.model().resets, 2);
    let set = bench.trace(1).into_iter().filter(|c| *c == command::SECURITY_SET_PASSWORD).count();
    assert_eq!(set, 1);
}

#[test]
fn erasing_may_take_as_long_as_the_disk_says_and_not_for_ever() {
    let mut bench = bench();
    let erase = Management::Erase { which: Password::User, enhanced: false };
    bench.firmware(0, |f| f.hangs = vec![(command::SECURITY_ERASE_UNIT, 1)]);
    bench.submit_management(0, erase, SECRET).unwrap();
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
    bench.device.model().brown_out(0);
    bench.submit(0, 0, 1);
    bench.finish().into_iter().for_each(good);
    bench.firmware(0, |f| {
        assert!(!f.write_cache && !f.look_ahead && f.frozen);
        assert_eq!((f.power_level, f.standby_timer), (Some(128), 121));
    });
    let features = bench.features(0);
    assert_eq!((features.write_cache, features.look_ahead), (Switch::Off, Switch::Off));
    assert!(!bench.driver.unit(UnitId(0)).unwrap().geometry.write_cache);
    assert_eq!(bench.happened("set again"), 5, "{:#?}", bench.events);
}

#[test]
fn settings_that_the_disk_does_not_take_again_are_said_and_forgotten() {
    for hang in [false, true] {
        let mut bench = bench();
        bench.manage(0, Management::SetWriteCache(false), &[]).unwrap();
        bench.manage(0, Management::SetLookAhead(false), &[]).unwrap();
        bench.firmware(0, |f| match hang {
            true => f.hangs = vec![(command::SET_FEATURES, 2)],
            false => f.refuses = vec![command::SET_FEATURES],
        });
        bench.device.model().brown_out(0);
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
    bench.finish().pop().unwrap().result.unwrap();
    bench.manage(0, Management::SetWriteCache(false), &[]).unwrap();
    let set = command::SET_FEATURES;
    assert_eq!(bench.trace(0), [command::FLUSH_CACHE_EXT, set, command::IDENTIFY_DEVICE]);
    bench.device.model().brown_out(0);
    bench.finish();
    bench.submit_flush(0);
    assert_eq!(bench.finish()[0].result, Ok(()), "nothing was lost");
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
    let unlock = Management::Unlock(Password::User);
    assert_eq!(bench.manage(0, unlock, &[7; 32]), Err(BlockError::Locked));
    assert_eq!((bench.state(0), bench.firmware(0, |f| f.attempts)), (UnitState::Locked, 4));
    bench.manage(0, Management::ReadHealth, &[]).unwrap();
    bench.manage(0, unlock, SECRET).unwrap();
    assert_eq!(bench.state(0), UnitState::Ready);
    wipe(&bench);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn requests_for_a_disk_that_comes_back_locked_fail_as_locked() {
    let mut bench = bench();
    let set = Management::SetPassword { which: Password::User, maximum: false };
    bench.manage(0, set, SECRET).unwrap();
    assert_eq!(bench.state(0), UnitState::Ready);
    bench.submit(0, 0, 8);
    bench.submit_flush(0);
    bench.device.model().brown_out(0);
    for completion in bench.finish() {
        assert_eq!(completion.result, Err(BlockError::Locked));
    }
    assert_eq!(bench.state(0), UnitState::Locked);
    bench.manage(0, Management::Unlock(Password::User), SECRET).unwrap();
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn a_sleeping_disk_is_woken_by_the_next_request() {
    let mut bench = bench();
    bench.manage(0, Management::SetPowerLevel(64), &[]).unwrap();
    bench.manage(0, Management::SetPower(Power::Sleep), &[]).unwrap();
    assert!(bench.firmware(0, |f| f.asleep));
    assert_eq!(bench.features(0).power, Power::Sleep);
    bench.manage(0, Management::ReadPower, &[]).unwrap();
    assert!(bench.firmware(0, |f| f.asleep), "asking does not wake it");
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.firmware(0, |f| f.power_level), Some(64));
    assert_eq!((bench.happened("waking"), bench.happened("port reset")), (1, 0));
    bench.manage(0, Management::SetPower(Power::Sleep), &[]).unwrap();
    bench.manage(0, Management::SetPower(Power::Active), &[]).unwrap();
    assert_eq!(bench.features(0).power, Power::Active);
    assert_eq!(bench.device.model().resets, 1, "of the HBA, at start-up");
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
    bench.finish().pop().unwrap().result.unwrap();
    bench.manage(0, Management::SetPower(Power::Standby), &[]).unwrap();
    assert_eq!(bench.features(0).power, Power::Standby);
    let expected = [command::FLUSH_CACHE_EXT, command::STANDBY_IMMEDIATE];
    assert_eq!(bench.trace(0)[..2], expected);
    bench.firmware(0, |f| f.standby = false);
    bench.manage(0, Management::ReadPower, &[]).unwrap();
    assert_eq!(bench.features(0).power, Power::Active);
}

#[test]
fn a_disk_without_a_feature_is_not_asked_for_it() {
    let mut disk = Disk::new(512);
    disk.firmware.words = vec![(82, 0), (83, 1 << 14 | 1 << 13 | 1 << 10), (128, 0)];
    let mut bench = ModelBench::new(vec![Some(disk)]);
    bench.trace(0);
    let unsupported = [
        (Management::ReadHealth, &[][..]),
        (Management::SelfTest(SelfTest::Short), &[]),
        (Management::SetWriteCache(false), &[]),
        (Management::SetLookAhead(false), &[]),
        (Management::SetPowerLevel(1), &[]),
        (Management::SetPower(Power::Unknown), &[]),
        (Management::FreezeSecurity, &[]),
        (Management::Unlock(Password::User), SECRET),
        (Management::ReadNativeCapacity, &[]),
        (Management::SetCapacity { sectors: 1 }, &[]),
        (Management::Eject, &[]),
    ];
    for (what, password) in unsupported {
        let refused = bench.submit_management(0, what, password);
        assert_eq!(refused, Err(RefusedReason::Unsupported), "{what:?}");
    }
    assert!(bench.trace(0).is_empty());
}

#[test]
fn requests_that_cannot_be_carried_out_now_are_refused_with_the_reason() {
    let mut bench = bench();
    bench.manage(0, Management::SetHealth(false), &[]).unwrap();
    let health = bench.submit_management(0, Management::ReadHealth, &[]);
    assert_eq!(health, Err(RefusedReason::SwitchedOff));
    bench.manage(0, Management::SetHealth(true), &[]).unwrap();
    bench.manage(0, Management::ReadHealth, &[]).unwrap();
    let short = bench.submit_management(0, Management::Unlock(Password::User), &[]);
    assert_eq!(short, Err(RefusedReason::BadMemory));
    bench.manage(0, Management::FreezeSecurity, &[]).unwrap();
    let set = Management::SetPassword { which: Password::User, maximum: false };
    assert_eq!(bench.submit_management(0, set, SECRET), Err(RefusedReason::Frozen));
}

#[test]
fn what_the_disk_ignores_is_reported() {
    let mut bench = bench();
    // It always says that its cache is on.
    bench.firmware(0, |f| f.words = vec![(85, 1 << 5 | 1)]);
    let off = bench.manage(0, Management::SetWriteCache(false), &[]);
    assert_eq!(off, Err(BlockError::Unsupported));
    assert!(bench.driver.unit(UnitId(0)).unwrap().geometry.write_cache);
    bench.firmware(0, |f| f.words = vec![(10, 0x5858)]);
    let other = bench.manage(0, Management::SetLookAhead(false), &[]);
    assert_eq!(other, Err(BlockError::BadAnswer), "another serial number");
}

#[test]
fn a_disk_can_be_made_to_have_fewer_sectors_and_more_again() {
    let mut bench = bench();
    let generation = bench.driver.unit(UnitId(0)).unwrap().generation;
    bench.manage(0, Management::SetCapacity { sectors: 100 }, &[]).unwrap();
    let unit = bench.driver.unit(UnitId(0)).unwrap();
    assert_eq!((unit.geometry.sectors, unit.generation), (100, generation + 1));
    assert_eq!(unit.features.native_sectors, Some(512));
    let more = bench.manage(0, Management::SetCapacity { sectors: 513 }, &[]);
    assert_eq!(more, Err(BlockError::Unsupported));
    // Nobody knows whether it was done, and the disk comes back with a size of its choice.
    bench.firmware(0, |f| f.hangs = vec![(command::SET_MAX_EXT, 1)]);
    bench.submit_management(0, Management::SetCapacity { sectors: 512 }, &[]).unwrap();
    bench.driver.kick(bench.now);
    let set = |f: &mut Firmware| f.trace.iter().filter(|(c, _)| *c == command::SET_MAX_EXT).count();
    bench.run_until(|bench| bench.firmware(0, set) == 2);
    bench.firmware(0, |f| f.visible = Some(200));
    assert_eq!(bench.finish()[0].result, Err(BlockError::Interrupted));
    assert_eq!(bench.driver.unit(UnitId(0)).unwrap().geometry.sectors, 200);
    assert_eq!(bench.state(0), UnitState::Ready);
    // Without having been asked for, it is another disk.
    let generation = bench.driver.unit(UnitId(0)).unwrap().generation;
    bench.firmware(0, |f| f.visible = Some(201));
    bench.device.model().brown_out(0);
    bench.finish();
    bench.run_until(|bench| bench.driver.unit(UnitId(0)).unwrap().geometry.sectors == 201);
    assert_eq!(bench.driver.unit(UnitId(0)).unwrap().generation, generation + 1);
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn management_that_fails_is_tried_a_bounded_number_of_times() {
    for (hang, error) in [(false, BlockError::Aborted), (true, BlockError::Timeout)] {
        let mut bench = bench();
        bench.firmware(0, |f| match hang {
            true => f.hangs = vec![(command::SET_FEATURES, u32::MAX)],
            false => f.refuses = vec![command::SET_FEATURES],
        });
        assert_eq!(bench.manage(0, Management::SetWriteCache(false), &[]), Err(error));
        assert_eq!(bench.state(0), UnitState::Ready);
        bench.submit(0, 0, 8);
        bench.finish().into_iter().for_each(good);
    }
}

#[test]
fn devices_are_managed_before_others_are_found() {
    // A port that never becomes ready does not keep management of another from its end.
    let device = ModelDevice::new(vec![Some(Disk::new(512)), Some(Disk::new(512))]);
    device.model().ports[1].busy = true;
    let mut bench = ModelBench::starting(device);
    bench.run_until(|bench| bench.state(0) == UnitState::Ready);
    bench.submit_management(0, Management::ReadHealth, &[]).unwrap();
    bench.driver.kick(bench.now);
    bench.run_until(|bench| bench.done.len() == 1);
    assert_eq!(bench.done[0].result, Ok(()));
}
