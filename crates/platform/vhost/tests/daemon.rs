//! The driver on disks of QEMU's storage daemon.

mod support;

use outboard_block::{
    BlockDriver, Durability, FailedReason, Management, RefusedReason, Request, Tag, UnitId,
    UnitState,
};
use outboard_vhost_front::{Trouble, VhostConfig, VhostError, VhostUser};
use outboard_virtio::BlkConfig;
use outboard_virtio::spec::features::Features;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use support::daemon::Place;
use support::{Rig, exercise, noise};

const WRITABLE: &str = ",writable=on";

#[test]
fn every_combination_of_features_carries_data() {
    for bits in 0..8 {
        let is = |place: u32| bits >> place & 1 == 1;
        let queues = if is(0) { 4 } else { 1 };
        let mut without = Features::empty();
        without.set(Features::INDIRECT, is(1));
        without.set(Features::EVENT_INDEX, is(2));
        let content = noise(bits, 2 << 20);
        let place = Place::new(&content);
        let daemon = place.export(&format!("{WRITABLE},num-queues={queues}"));
        let config = BlkConfig { without, ..BlkConfig::default() };
        let mut rig = Rig::with(VhostConfig::new(place.socket()), config);
        assert_eq!(rig.state(), UnitState::Ready, "{queues} {without:?}: {:?}", rig.events);
        let content = exercise(&mut rig, content, 5, |_| {});
        assert_eq!(rig.counter("device-resets"), 0, "{queues} {without:?}: {:?}", rig.events);
        drop(rig);
        assert!(place.content() == content, "{queues} {without:?}");
        drop(daemon);
    }
}

#[test]
fn a_disk_is_what_its_configuration_says() {
    let place = Place::new(&noise(1, 4 << 20));
    let daemon = place.export(&format!("{WRITABLE},num-queues=2"));
    let mut rig = Rig::new(&place.socket());
    let geometry = rig.geometry();
    assert_eq!((geometry.sector_bytes, geometry.sectors), (512, 8192));
    assert!(!geometry.read_only && geometry.max_discard_sectors > 0, "{geometry:?}");
    assert_eq!(geometry.queue_depth, 512);
    for on in [true, false, true] {
        rig.one(Request::manage(Management::SetWriteCache(on))).unwrap();
        assert_eq!(rig.geometry().write_cache, on);
        rig.one(rig.write_of(5, &noise(2, 512), Durability::Durable)).unwrap();
    }
    assert!(rig.read(5, 1).unwrap() == noise(2, 512));
    // One that takes its place is switched as it was.
    let mut daemon = daemon;
    daemon.kill();
    daemon = place.export(&format!("{WRITABLE},num-queues=2"));
    rig.run_until(|rig| rig.counter("device-resets") == 1 && rig.state() == UnitState::Ready);
    assert!(rig.geometry().write_cache);
    drop((rig, daemon));

    let _daemon = place.export(",writable=off,logical-block-size=4096");
    let mut rig = Rig::new(&place.socket());
    let geometry = rig.geometry();
    assert_eq!((geometry.sector_bytes, geometry.sectors, geometry.read_only), (4096, 1024, true));
    assert!(rig.read(0, 1).unwrap() == place.content()[..4096]);
    let request = rig.write_of(0, &noise(3, 4096), Durability::Cached);
    let refused = rig.driver.submit(UnitId(0), Tag(1), request).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::WriteProtected);
}

#[test]
fn large_sectors_carry_data() {
    let content = noise(4, 8 << 20);
    let place = Place::new(&content);
    let _daemon = place.export(&format!("{WRITABLE},logical-block-size=4096"));
    let mut rig = Rig::new(&place.socket());
    let content = exercise(&mut rig, content, 5, |_| {});
    drop(rig);
    assert!(place.content() == content);
}

#[test]
fn what_is_discarded_is_given_back() {
    let place = Place::new(&noise(5, 8 << 20));
    let _daemon = place.export(WRITABLE);
    let mut rig = Rig::new(&place.socket());
    rig.one(Request::flush()).unwrap();
    let before = place.image().metadata().unwrap().blocks();
    rig.one(Request::discard(2048, 8192)).unwrap();
    rig.one(Request::flush()).unwrap();
    let after = place.image().metadata().unwrap().blocks();
    assert!(after + 8192 <= before, "{before} blocks before, {after} after");
}

#[test]
fn what_was_done_is_found_by_looking_while_interrupts_are_masked() {
    let content = noise(8, 2 << 20);
    let place = Place::new(&content);
    let _daemon = place.export(&format!("{WRITABLE},num-queues=2"));
    let mut rig = Rig::new(&place.socket());
    rig.deaf = true;
    rig.driver.mask(true);
    for lba in 0..50 {
        let request = rig.read_of(lba, 1);
        rig.submit(lba, request);
        rig.driver.kick(outboard_linux::now());
        while rig.done.is_empty() {
            rig.turn();
        }
        rig.done.clear();
    }
    rig.deaf = false;
    rig.driver.mask(false);
    assert!(rig.read(9, 1).unwrap() == content[9 * 512..10 * 512]);
}

#[test]
fn nobody_notices_the_death_of_a_back_end_but_by_the_time_it_takes() {
    for queues in [1, 3] {
        let content = noise(9, 4 << 20);
        let place = Place::new(&content);
        let options = format!("{WRITABLE},num-queues={queues}");
        let mut daemon = place.export(&options);
        let mut rig = Rig::new(&place.socket());
        let generation = rig.driver.unit(UnitId(0)).unwrap().generation;
        let content = exercise(&mut rig, content, 6, |round| {
            // Some forty requests are under way.
            if round % 2 == 0 {
                daemon.kill();
                daemon = place.export(&options);
            }
        });
        assert_eq!(rig.counter("failed"), 0, "{:?}", rig.events);
        assert!(rig.counter("device-resets") >= 3, "{:?}", rig.events);
        assert!(rig.counter("requeued") > 0, "{:?}", rig.events);
        assert_eq!(rig.driver.unit(UnitId(0)).unwrap().generation, generation);
        drop(rig);
        assert!(place.content() == content);
    }
}

#[test]
fn a_back_end_that_dies_idle_is_back_for_the_next_request() {
    let content = noise(10, 1 << 20);
    let place = Place::new(&content);
    let mut daemon = place.export(WRITABLE);
    let mut rig = Rig::new(&place.socket());
    daemon.kill();
    rig.run_until(|rig| rig.state() == UnitState::Recovering);
    let request = rig.read_of(7, 1);
    rig.submit(1, request);
    daemon = place.export(WRITABLE);
    assert_eq!(rig.finish(1).pop().unwrap().result, Ok(()));
    assert!(rig.read(8, 1).unwrap() == content[8 * 512..9 * 512]);
    drop(daemon);
}

#[test]
fn a_disk_of_another_size_in_the_same_place_is_another_one() {
    let place = Place::new(&noise(11, 1 << 20));
    let mut daemon = place.export(WRITABLE);
    let mut rig = Rig::new(&place.socket());
    let generation = rig.driver.unit(UnitId(0)).unwrap().generation;
    daemon.kill();
    std::fs::write(place.image(), noise(12, 2 << 20)).unwrap();
    daemon = place.export(WRITABLE);
    rig.run_until(|rig| rig.state() == UnitState::Ready && rig.geometry().sectors == 4096);
    assert!(rig.driver.unit(UnitId(0)).unwrap().generation > generation);
    drop(daemon);
}

#[test]
fn a_back_end_that_does_not_come_back_is_given_up() {
    let place = Place::new(&noise(13, 1 << 20));
    let mut daemon = place.export(WRITABLE);
    let return_time = Duration::from_millis(300);
    let config = VhostConfig { return_time, ..VhostConfig::new(place.socket()) };
    let mut rig = Rig::with(config, BlkConfig::default());
    let request = rig.read_of(0, 1);
    daemon.kill();
    rig.submit(1, request);
    rig.driver.kick(outboard_linux::now());
    rig.run_until(|rig| !rig.done.is_empty());
    assert_eq!(rig.done[0].result, Err(outboard_block::BlockError::Gone));
    assert_eq!(rig.state(), UnitState::Failed(FailedReason::Removed));
    assert!(rig.driver.is_stopped());
    let error = rig.back_end.check().unwrap_err().to_string();
    assert!(error.contains("Start it again"), "{error}");
}

#[test]
fn a_driver_that_is_stopped_leaves_the_back_end_to_the_next() {
    let content = noise(14, 1 << 20);
    let place = Place::new(&content);
    let _daemon = place.export(WRITABLE);
    let mut rig = Rig::new(&place.socket());
    let config =
        VhostConfig { start_time: Duration::from_millis(200), ..VhostConfig::new(place.socket()) };
    let busy = VhostUser::attach(config).unwrap_err();
    let VhostError::Unusable { trouble: Trouble::Silent { .. }, .. } = busy else {
        panic!("{busy}")
    };
    let request = rig.read_of(8, 8);
    rig.submit(1, request);
    rig.driver.stop();
    rig.run_until(|rig| rig.driver.is_stopped());
    assert_eq!(rig.done[0].result, Ok(()));
    let mut next = Rig::new(&place.socket());
    assert!(next.read(8, 8).unwrap() == content[8 * 512..16 * 512]);
}
