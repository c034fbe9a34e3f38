//! A driver with disks behind a port multiplier, and what it is asked to do.

use core::time::Duration;
use outboard_ahci::{AhciConfig, Hba};
use outboard_block::{
    BlockDriver, BlockError, Completion, Durability, Request, Tag, UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, Constraints, DeviceView, DmaSpace, SgList};
use outboard_linux::SharedMemory;
use outboard_sim::disk::{Disk, DiskConfig};
use outboard_sim::hba::{HbaConfig, HbaModel};
use outboard_sim::{Multiplier, MultiplierConfig, Random, SimDevice};
use std::collections::BTreeMap;

/// Sectors of each disk.
pub(crate) const SECTORS: u64 = 4096;
/// Disks behind the multiplier.
pub(crate) const DISKS: u8 = 5;
/// The port of the HBA that it is at.
pub(crate) const PORT: u8 = 1;

/// How the HBA switches between devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switching {
    Command,
    Fis,
}

pub(crate) const BOTH: [Switching; 2] = [Switching::Command, Switching::Fis];

pub(crate) fn unit(disk: u8) -> UnitId {
    UnitId(u16::from(PORT) + 32 * u16::from(disk))
}

pub(crate) fn disk(number: u8) -> Box<Disk> {
    let mut config = DiskConfig::modern(SECTORS);
    config.serial = format!("BEHIND{number}");
    Box::new(Disk::new(config))
}

/// How a request has ended: its result, its memory, and when.
pub(crate) type Ended = (Result<(), BlockError>, Vec<u8>, Instant);

/// A driver, the HBA's model with a multiplier, and what has come of requests.
pub(crate) struct Bench {
    pub(crate) device: SimDevice,
    pub(crate) driver: Hba<SimDevice>,
    pub(crate) arena: Arena,
    pub(crate) now: Instant,
    pub(crate) next_tag: u64,
    pub(crate) ended: BTreeMap<u64, Ended>,
    _memory: std::sync::Arc<SharedMemory>,
}

impl Bench {
    pub(crate) fn new(switching: Switching) -> Self {
        Self::with(switching, |multiplier| {
            (0..DISKS).fold(multiplier, |multiplier, number| multiplier.with(number, disk(number)))
        })
    }

    pub(crate) fn with(
        switching: Switching,
        furnish: impl FnOnce(Multiplier) -> Multiplier,
    ) -> Self {
        let (memory, arena) = SharedMemory::for_model("multiplier", 64 << 20).unwrap();
        let mut config = HbaConfig::new(2);
        config.capabilities = config
            .capabilities
            .with_port_multiplier(true)
            .with_notification(true)
            .with_fis_switching(switching == Switching::Fis);
        let mut hba = HbaModel::new(config, DeviceView::new(arena.clone()), Random::new(7));
        hba.trace().start();
        hba.attach(PORT, Box::new(furnish(Multiplier::new(MultiplierConfig::new(DISKS)))));
        let device = SimDevice::new(hba, arena.clone());
        let driver = Hba::new(device.clone(), AhciConfig::default()).unwrap();
        let now = Instant::from_nanos(1);
        let (next_tag, ended) = (0, BTreeMap::new());
        Self { device, driver, arena, now, next_tag, ended, _memory: memory }
    }

    /// Everything that happens at one instant.
    pub(crate) fn turn(&mut self) {
        let interrupt = {
            let mut hba = self.device.hba();
            hba.advance(self.now);
            hba.take_interrupt()
        };
        if interrupt {
            self.driver.interrupt(0);
        }
        let (ended, now) = (&mut self.ended, self.now);
        self.driver.poll(self.now, &mut |completion: Completion| {
            let mut bytes = Vec::new();
            for buffer in completion.data.into_buffers() {
                let start = bytes.len();
                bytes.resize(start + buffer.len(), 0);
                buffer.read_bytes(0, &mut bytes[start..]);
            }
            let before = ended.insert(completion.tag.0, (completion.result, bytes, now));
            assert!(before.is_none(), "request {} has ended twice", completion.tag.0);
        });
        self.driver.kick(self.now);
        let device = &self.device;
        self.driver.drain_events(&mut |unit, at, what| {
            device.hba().trace().note(at, format_args!("driver: unit {}: {what}", unit.0));
        });
        let violations = self.device.hba().violations().to_vec();
        if !violations.is_empty() {
            self.fail(&format!("{violations:?}"));
        }
    }

    pub(crate) fn fail(&mut self, what: &str) -> ! {
        let trace = self.device.hba().trace().take();
        let last = &trace[trace.len().saturating_sub(60)..];
        panic!("{:?}: {what}\n{}", self.now, last.join("\n"));
    }

    /// Lets time pass until something holds.
    pub(crate) fn until(
        &mut self,
        what: &str,
        most: Duration,
        mut holds: impl FnMut(&mut Self) -> bool,
    ) {
        let end = self.now + most;
        let mut turns = 0;
        loop {
            self.turn();
            if holds(self) {
                return;
            }
            turns += 1;
            let next = outboard_hw::time::earlier(
                self.driver.next_deadline(),
                self.device.hba().next_event(),
            );
            let Some(next) = next else { self.fail(&format!("{what}: nothing is to be done")) };
            self.now = self.now.max(next) + Duration::from_nanos(500);
            if self.now.reached(end) || turns > 3_000_000 {
                self.fail(&format!("{what}: not after {most:?}"));
            }
        }
    }

    pub(crate) fn state(&self, disk: u8) -> UnitState {
        self.driver.unit(unit(disk)).unwrap().state
    }

    pub(crate) fn all_ready(&mut self) {
        self.until("all disks are ready", Duration::from_secs(60), |bench| {
            (0..DISKS).all(|disk| bench.state(disk) == UnitState::Ready)
        });
    }

    pub(crate) fn submit(&mut self, disk: u8, request: Request) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.driver.submit(unit(disk), Tag(tag), request).unwrap();
        tag
    }

    pub(crate) fn memory(&self, data: &[u8]) -> SgList {
        let mut buffer = self.arena.allocate(data.len(), &Constraints::NONE.aligned(2)).unwrap();
        buffer.write_bytes(0, data);
        let mut list = SgList::EMPTY;
        list.push(buffer, 0..data.len());
        list
    }

    pub(crate) fn write(&mut self, disk: u8, lba: u64, round: u8) -> u64 {
        let data = self.memory(&content(disk, lba, round));
        self.submit(disk, Request::write(lba, 1, data, Durability::Cached))
    }

    pub(crate) fn read(&mut self, disk: u8, lba: u64) -> u64 {
        let data = self.memory(&[0; 512]);
        self.submit(disk, Request::read(lba, 1, data))
    }

    pub(crate) fn all_end(&mut self, tags: &[u64], most: Duration) {
        self.until("all requests end", most, |bench| {
            tags.iter().all(|tag| bench.ended.contains_key(tag))
        });
    }

    pub(crate) fn disk(&self, number: u8, change: impl FnOnce(&mut Disk)) {
        let mut hba = self.device.hba();
        let device = hba.device_behind(PORT, number).unwrap();
        change(device.as_any().downcast_mut().unwrap());
    }

    pub(crate) fn counter(&self, disk: u8, wanted: &str) -> u64 {
        let mut found = 0;
        self.driver.counters(unit(disk), &mut |name, value| {
            if name == wanted {
                found = value;
            }
        });
        found
    }

    pub(crate) fn stops(mut self) {
        self.driver.stop();
        self.until("the driver stops", Duration::from_secs(60), |bench| bench.driver.is_stopped());
        let Self { driver, arena, .. } = self;
        drop(driver);
        assert_eq!(arena.statistics().buffers, 0, "memory that did not come back");
    }
}

/// What a sector holds.
pub(crate) fn content(disk: u8, lba: u64, round: u8) -> [u8; 512] {
    core::array::from_fn(|index| (index as u8) ^ disk.wrapping_mul(41) ^ (lba as u8) ^ round)
}
