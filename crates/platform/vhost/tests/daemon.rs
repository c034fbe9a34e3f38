//! The driver on disks of QEMU's storage daemon.

mod support;

use outboard_block::{
    BlockDriver, Durability, FailedReason, Management, RefusedReason, Request, Tag, UnitId,
    UnitState,
};
use outboard_vhost::{Trouble, VhostConfig, VhostError, VhostUser};
use outboard_virtio::BlkConfig;
use outboard_virtio::spec::features::Features;
use serde_json::json;
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
