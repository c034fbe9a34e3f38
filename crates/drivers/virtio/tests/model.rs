//! The driver on a disk in this process: what QEMU's disks cannot do, or do wrong.

mod support;

use outboard_block::manage::Verdict;
use outboard_block::{
    BlockDriver, BlockError, Completion, Durability, Management, Operation, RefusedReason, Request,
    Room, Tag, UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::SgList;
use outboard_virtio::spec::blk::{
    BlkFeatures, DISCARD, DiscardSegment, Lifetime, PRE_EOL_NORMAL, PRE_EOL_URGENT, SECURE_ERASE,
    WRITE_ZEROES,
};
use outboard_virtio::spec::features::Features;
use outboard_virtio::{Blk, BlkConfig};
use std::time::Duration;
use support::model::{ModelTransport, SECTOR};
use support::noise;

const SECTORS: usize = 256;

struct Rig {
    driver: Blk<ModelTransport>,
    device: ModelTransport,
    now: Instant,
    done: Vec<Completion>,
}

impl Rig {
    fn new(features: Features, queues: u16) -> Self {
        let without = Features::empty();
        Self::with(features, queues, BlkConfig { without, ..BlkConfig::default() })
    }

    fn with(features: Features, queues: u16, config: BlkConfig) -> Self {
        let features = features.bits() | BlkFeatures::MULTI_QUEUE.bits();
        Self::of(features, queues, config)
    }

    fn of(features: u64, queues: u16, config: BlkConfig) -> Self {
        let device = ModelTransport::new(features, queues, noise(1, SECTORS * SECTOR));
        let driver = Blk::new(device.clone(), config).unwrap();
        let mut rig = Self { driver, device, now: Instant::ORIGIN, done: Vec::new() };
        rig.turn();
        rig.turn();
        assert_eq!(rig.driver.unit(UnitId(0)).unwrap().state, UnitState::Ready);
        rig
    }

    /// The device does what it has, then the driver.
    fn turn(&mut self) {
        self.device.model().serve();
        let done = &mut self.done;
        self.driver.poll(self.now, &mut |completion| done.push(completion));
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn write(&mut self, lba: usize) {
        let mut buffer = self.driver.dma().allocate(SECTOR, &self.driver.constraints()).unwrap();
        buffer.write_bytes(0, &noise(lba as u64 + 100, SECTOR));
        let data = SgList::single(buffer, 0..SECTOR);
        let request = Request::write(lba as u64, 1, data, Durability::Cached);
        self.driver.submit(UnitId(0), Tag(lba as u64), request).map_err(|r| r.reason).unwrap();
        self.driver.kick(self.now);
    }

    fn counter(&self, name: &str) -> u64 {
        let mut found = None;
        self.driver.counters(UnitId(0), &mut |counter, value| {
            found = found.or((counter == name).then_some(value));
        });
        found.unwrap()
    }

    /// Until so many requests have ended well.
    fn finish(&mut self, count: usize) {
        for _ in 0..100 {
            self.turn();
            if self.done.len() >= count {
                break;
            }
            self.pass(Duration::from_millis(1));
        }
        assert_eq!(self.done.len(), count);
        for completion in std::mem::take(&mut self.done) {
            completion.result.unwrap();
            let at = completion.tag.0 as usize * SECTOR;
            assert!(
                self.device.model().content[at..at + SECTOR]
                    == noise(completion.tag.0 + 100, SECTOR)
            );
        }
    }
}

fn layouts() -> impl Iterator<Item = Features> {
    let all = [Features::empty(), Features::PACKED, Features::INDIRECT];
    all.into_iter().flat_map(|one| [one, one | Features::EVENT_INDEX, one | Features::IN_ORDER])
}

#[test]
fn a_queue_that_hangs_is_reset_alone_and_what_it_had_is_issued_again() {
    for features in layouts() {
        let mut rig = Rig::new(features | Features::RING_RESET, 2);
        rig.device.model().stuck = Some(1);
        // One batch for each queue: what is in the other one ends as ever.
        for lba in 0..8 {
            rig.write(lba);
        }
        rig.turn();
        assert_eq!((rig.done.len(), rig.device.model().holds()), (4, 4));
        rig.pass(Duration::from_secs(31));
        rig.turn();
        assert_eq!(rig.counter("queue-resets"), 1);
        // The queue is the device's until it says that it has let go of it.
        assert_eq!(rig.done.len(), 4);
        rig.device.model().stuck = None;
        rig.finish(8);
        assert_eq!(rig.counter("requeued"), 4);
        assert_eq!(rig.device.model().resets, 1, "the one at the start");
        for lba in 20..60 {
            rig.write(lba);
            rig.finish(1);
        }
    }
}

#[test]
fn a_queue_that_stays_broken_costs_the_device_its_state_after_one_try() {
    let mut rig = Rig::new(Features::RING_RESET, 1);
    rig.device.model().stuck = Some(0);
    rig.write(3);
    for _ in 0..2 {
        rig.turn();
        rig.pass(Duration::from_secs(31));
        for _ in 0..6 {
            rig.turn();
            rig.pass(Duration::from_millis(1));
        }
    }
    assert_eq!((rig.counter("queue-resets"), rig.counter("device-resets")), (1, 1));
    rig.device.model().stuck = None;
    rig.finish(1);
}

#[test]
fn a_reset_of_a_queue_that_never_ends_becomes_one_of_the_device() {
    let mut rig = Rig::new(Features::RING_RESET, 1);
    (rig.device.model().stuck, rig.device.model().queue_reset_looks) = (Some(0), None);
    rig.write(3);
    rig.turn();
    rig.pass(Duration::from_secs(31));
    rig.turn();
    rig.turn();
    assert_eq!(rig.counter("device-resets"), 0);
    rig.pass(Duration::from_secs(11));
    rig.turn();
    assert_eq!(rig.counter("device-resets"), 1);
    rig.device.model().stuck = None;
    rig.finish(1);
}

#[test]
fn devices_that_cannot_reset_a_queue_or_may_not_are_reset_as_a_whole() {
    reset_as_a_whole(Rig::new(Features::empty(), 1));
    reset_as_a_whole(Rig::with(Features::RING_RESET, 1, BlkConfig::default()));
}

fn reset_as_a_whole(mut rig: Rig) {
    rig.device.model().stuck = Some(0);
    rig.write(3);
    rig.turn();
    rig.pass(Duration::from_secs(31));
    rig.turn();
    assert_eq!((rig.counter("queue-resets"), rig.counter("device-resets")), (0, 1));
    rig.device.model().stuck = None;
    rig.finish(1);
}

#[test]
fn notifications_say_where_the_next_entry_will_be() {
    let mut rig = Rig::new(Features::NOTIFICATION_DATA | Features::INDIRECT, 1);
    rig.device.model().notified.clear();
    for lba in 0..3 {
        rig.write(lba);
    }
    rig.finish(3);
    // The serial number was the first entry.
    assert_eq!(rig.device.model().notified, [(0, 2), (0, 3), (0, 4)]);
    let packed = Features::NOTIFICATION_DATA | Features::INDIRECT | Features::PACKED;
    let mut rig = Rig::new(packed, 1);
    rig.device.model().notified.clear();
    for lba in 0..62 {
        rig.write(lba);
        rig.finish(1);
    }
    // Three entries for the serial number, which has no table; then the ring begins anew.
    let last = rig.device.model().notified.split_off(59);
    assert_eq!(last, [(0, 63 | 1 << 15), (0, 0), (0, 1)]);
}

#[test]
fn what_takes_no_data_is_named_by_a_segment() {
    let clears = BlkFeatures::DISCARD | BlkFeatures::WRITE_ZEROES | BlkFeatures::SECURE_ERASE;
    for layout in [Features::empty(), Features::INDIRECT, Features::PACKED] {
        let features = layout.bits() | clears.bits();
        let mut rig = Rig::of(features, 1, BlkConfig::default());
        let operations = [
            (Operation::Discard, DISCARD, 0),
            (Operation::WriteZeroes(Room::Keep), WRITE_ZEROES, 0),
            (Operation::WriteZeroes(Room::GiveBack), WRITE_ZEROES, DiscardSegment::UNMAP),
            (Operation::SecureErase, SECURE_ERASE, 0),
        ];
        let geometry = rig.driver.unit(UnitId(0)).unwrap().geometry;
        let mut expected = Vec::new();
        for (operation, kind, flags) in operations {
            let most = geometry.max_sectors(operation);
            let mut submit = |sectors| {
                let request = Request::clear(operation, 7, sectors);
                rig.driver.submit(UnitId(0), Tag(0), request).map_err(|refused| refused.reason)
            };
            assert_eq!(submit(most), Ok(()));
            assert_eq!(submit(most + 1), Err(RefusedReason::TooLong));
            let (sector, sectors) = (7.into(), (most as u32).into());
            expected.push((kind, DiscardSegment { sector, sectors, flags: flags.into() }));
        }
        rig.driver.kick(rig.now);
        rig.turn();
        assert!(rig.done.iter().all(|completion| completion.result.is_ok()));
        assert_eq!(rig.device.model().cleared, expected);
    }
    let mut rig = Rig::of(0, 1, BlkConfig::default());
    for operation in [Operation::WriteZeroes(Room::Keep), Operation::SecureErase] {
        let refused = rig.driver.submit(UnitId(0), Tag(0), Request::clear(operation, 0, 1));
        assert_eq!(refused.unwrap_err().reason, RefusedReason::Unsupported);
    }
}

#[test]
fn a_disk_is_asked_how_much_of_its_life_is_behind_it() {
    for layout in [Features::empty(), Features::INDIRECT, Features::PACKED] {
        let features = layout.bits() | BlkFeatures::LIFETIME.bits();
        let mut rig = Rig::of(features, 1, BlkConfig::default());
        let mut ask = |lifetime| {
            rig.device.model().lifetime = lifetime;
            let request = Request::manage(Management::ReadHealth);
            rig.driver.submit(UnitId(0), Tag(0), request).map_err(|one| one.reason).unwrap();
            rig.driver.kick(rig.now);
            rig.turn();
            let result = rig.done.pop().unwrap().result;
            result.map(|()| rig.driver.health(UnitId(0)).unwrap().verdict)
        };
        let lifetime = |end: u16| Lifetime { pre_eol_info: end.into(), ..Lifetime::default() };
        assert_eq!(ask(Some(lifetime(PRE_EOL_NORMAL))), Ok(Verdict::Passed));
        assert_eq!(ask(Some(lifetime(PRE_EOL_URGENT))), Ok(Verdict::Failing));
        assert_eq!(ask(None), Err(BlockError::Aborted));
    }
    let mut rig = Rig::of(0, 1, BlkConfig::default());
    let request = Request::manage(Management::ReadHealth);
    let refused = rig.driver.submit(UnitId(0), Tag(0), request).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::Unsupported);
}
