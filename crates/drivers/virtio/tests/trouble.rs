//! Devices that are not what they should be, and what the driver makes of them: each of these went
//! wrong once. The simulator's device is told what to do.

use outboard_block::{
    BlockDriver, BlockError, Completion, Durability, FailedReason, Request, Tag, UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, Constraints, DeviceView, DmaSpace, SgList};
use outboard_linux::SharedMemory;
use outboard_sim::{Random, VirtioConfig, VirtioDevice, VirtioFault, VirtioModel};
use outboard_virtio::spec::blk::BlkFeatures;
use outboard_virtio::spec::features::Features;
use outboard_virtio::transport::PciTransport;
use outboard_virtio::{Blk, BlkConfig};
use std::time::Duration;

/// A driver with the model of its device.
struct Rig {
    driver: Blk<PciTransport<VirtioDevice>>,
    device: VirtioDevice,
    arena: Arena,
    now: Instant,
    ended: Vec<(u64, Result<(), BlockError>)>,
    next: u64,
}

impl Rig {
    /// A device that is not set up yet, with faults from the start.
    fn new(config: VirtioConfig, faults: &[VirtioFault]) -> Self {
        let arena = SharedMemory::for_model("trouble", 16 << 20).unwrap().1;
        let mut model = VirtioModel::new(config, DeviceView::new(arena.clone()), Random::new(1));
        faults.iter().for_each(|fault| model.inject(*fault));
        let device = VirtioDevice::new(model, arena.clone());
        let transport = PciTransport::new(device.clone()).unwrap();
        let driver = Blk::new(transport, BlkConfig::default()).unwrap();
        let now = Instant::from_nanos(1);
        Self { driver, device, arena, now, ended: Vec::new(), next: 0 }
    }

    /// One whose disk is ready.
    fn ready(config: VirtioConfig) -> Self {
        let mut rig = Self::new(config, &[]);
        rig.run();
        assert_eq!(rig.state(), UnitState::Ready);
        rig
    }

    fn inject(&self, fault: VirtioFault) {
        self.device.model().inject(fault);
    }

    fn state(&self) -> UnitState {
        self.driver.unit(UnitId(0)).unwrap().state
    }

    /// Until nobody has anything to do.
    fn run(&mut self) {
        for _ in 0..100_000 {
            self.device.model().advance(self.now);
            let mut fired = Vec::new();
            self.device.model().take_interrupts(&mut |vector| fired.push(vector));
            fired.into_iter().for_each(|vector| self.driver.interrupt(vector));
            let ended = &mut self.ended;
            self.driver.poll(self.now, &mut |Completion { tag, result, .. }| {
                ended.push((tag.0, result));
            });
            self.driver.kick(self.now);
            let next = [self.driver.next_deadline(), self.device.model().next_event()];
            let Some(next) = next.into_iter().flatten().min() else {
                assert!(self.device.model().violations().is_empty());
                return;
            };
            self.now = self.now.max(next) + Duration::from_nanos(100);
        }
        panic!("it does not come to rest: {:?}", self.driver);
    }

    fn submit(&mut self, request: Request) {
        self.driver.submit(UnitId(0), Tag(self.next), request).unwrap();
        self.next += 1;
    }

    fn memory(&self, bytes: usize) -> SgList {
        let mut list = SgList::EMPTY;
        list.push(self.arena.allocate(bytes, &Constraints::NONE).unwrap(), 0..bytes);
        list
    }

    fn write(&mut self, durability: Durability) {
        let memory = self.memory(512);
        self.submit(Request::write(7, 1, memory, durability));
    }

    /// How the only request ended.
    fn end(&mut self) -> Result<(), BlockError> {
        self.run();
        let ended = std::mem::take(&mut self.ended);
        assert_eq!(ended.len(), 1, "{ended:?}");
        ended[0].1
    }
}

fn disk() -> VirtioConfig {
    VirtioConfig::new(10_000)
}

#[test]
fn a_structure_at_an_odd_place_is_passed_over() {
    let mut rig = Rig::new(disk(), &[VirtioFault::CapabilityUnaligned]);
    rig.run();
    assert_eq!(rig.state(), UnitState::Ready);
}

#[test]
fn no_bit_of_the_status_is_cleared_when_a_device_is_given_up() {
    let mut rig = Rig::new(disk(), &[VirtioFault::FeaturesRefusedForGood]);
    rig.run();
    assert!(matches!(rig.state(), UnitState::Failed(FailedReason::Unsupported(_))));
    assert_eq!(rig.device.model().violations(), [""; 0]);
}

#[test]
fn a_device_that_cannot_flush_is_not_asked_to() {
    let features = disk().features & !BlkFeatures::FLUSH.bits();
    let mut rig = Rig::ready(VirtioConfig { features, ..disk() });
    rig.submit(Request::flush());
    assert_eq!(rig.end(), Ok(()));
}

#[test]
fn no_table_is_longer_than_its_queue() {
    let mut rig = Rig::ready(VirtioConfig { queue_entries: 8, ..disk() });
    assert_eq!(rig.driver.constraints().max_segments, 6);
    let mut list = SgList::EMPTY;
    for _ in 0..6 {
        list.push(rig.arena.allocate(512, &Constraints::NONE).unwrap(), 0..512);
    }
    rig.submit(Request::read(0, 6, list));
    assert_eq!(rig.end(), Ok(()));
}

#[test]
fn a_request_without_a_status_is_issued_again_after_a_reset() {
    for packed in [0, Features::PACKED.bits()] {
        let features = disk().features | packed;
        let mut rig = Rig::ready(VirtioConfig { features, ..disk() });
        for fault in [VirtioFault::StatusNotWritten, VirtioFault::StatusLate] {
            rig.inject(fault);
            rig.write(Durability::Cached);
            assert_eq!(rig.end(), Ok(()), "{fault}");
        }
    }
}

#[test]
fn after_a_device_has_lost_its_state_the_next_flush_says_so_and_no_other() {
    for fault in [VirtioFault::ResetsItself, VirtioFault::PowerCut] {
        let mut rig = Rig::ready(disk());
        rig.write(Durability::Cached);
        assert_eq!(rig.end(), Ok(()));
        rig.inject(fault);
        rig.submit(Request::flush());
        assert_eq!(rig.end(), Err(BlockError::CacheLost), "{fault}");
        rig.submit(Request::flush());
        assert_eq!(rig.end(), Ok(()));
        rig.write(Durability::Durable);
        assert_eq!(rig.end(), Ok(()));
    }
}

#[test]
fn what_a_device_offers_later_is_left_alone_and_what_it_withdraws_is_missed() {
    let mut rig = Rig::ready(VirtioConfig { features: Features::VERSION_1.bits(), ..disk() });
    rig.inject(VirtioFault::FeaturesAdded);
    rig.inject(VirtioFault::NeedsReset);
    rig.write(Durability::Cached);
    assert_eq!(rig.end(), Ok(()));
    // Of what can be withdrawn it has nothing but the tables, without which nothing fits.
    let features = Features::VERSION_1 | Features::INDIRECT;
    let mut rig = Rig::ready(VirtioConfig { features: features.bits(), ..disk() });
    rig.inject(VirtioFault::FeatureWithdrawn);
    rig.inject(VirtioFault::NeedsReset);
    rig.write(Durability::Cached);
    assert_eq!(rig.end(), Err(BlockError::Gone));
    assert!(matches!(rig.state(), UnitState::Failed(_)));
}

#[test]
fn a_device_that_cannot_be_set_up_is_tried_again() {
    for fault in [
        VirtioFault::FeaturesRefused,
        VirtioFault::QueueSizeZero,
        VirtioFault::EnableIgnored,
        VirtioFault::VectorRefused,
        VirtioFault::NotifyOffsetBeyond,
        VirtioFault::SerialFails,
    ] {
        let mut rig = Rig::new(disk(), &[fault]);
        rig.run();
        assert_eq!(rig.state(), UnitState::Ready, "{fault}");
        rig.inject(fault);
        rig.inject(VirtioFault::NeedsReset);
        rig.write(Durability::Cached);
        assert_eq!(rig.end(), Ok(()), "{fault}");
    }
}

#[test]
fn a_device_is_gone_if_it_says_so_twice() {
    let mut rig = Rig::ready(disk());
    rig.inject(VirtioFault::StatusOnes);
    rig.inject(VirtioFault::ConfigSpurious);
    rig.write(Durability::Cached);
    assert_eq!(rig.end(), Ok(()));
    rig.inject(VirtioFault::Removed);
    rig.write(Durability::Cached);
    assert_eq!(rig.end(), Err(BlockError::Gone));
    assert_eq!(rig.state(), UnitState::Failed(FailedReason::Removed));
}

#[test]
fn writes_that_wait_for_a_disk_which_becomes_read_only_say_so() {
    let mut rig = Rig::ready(disk());
    rig.inject(VirtioFault::ReadOnlyAppears);
    rig.inject(VirtioFault::NeedsReset);
    rig.write(Durability::Cached);
    assert_eq!(rig.end(), Err(BlockError::WriteProtected));
}
