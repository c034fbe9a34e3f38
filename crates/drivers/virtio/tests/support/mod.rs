//! Runs the driver against the lab.
#![allow(unreachable_pub, dead_code, reason = "shared by several tests")]

pub mod card;
pub mod model;
pub mod namespace;
pub mod net;
pub mod packet;
pub mod peer;
pub mod qmp;

use outboard_block::{
    BlockDriver, BlockError, Completion, Durability, Request, Tag, UnitId, UnitState,
};
use outboard_hw::dma::{DmaBuffer, SgList};
use outboard_hw::registers::AccessCounts;
use outboard_lab::{DiskConfig, Lab, LabConfig, LabDevice, LabInterrupts, LabRegisters};
use outboard_linux::{InterruptSource, now};
use outboard_pci::Counting;
use outboard_virtio::spec::pci::KIND_BLOCK;
use outboard_virtio::transport::{MmioTransport, PciTransport, Transport};
use outboard_virtio::{Blk, BlkConfig};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The driver of a lab's first virtio disk, and what it takes to run it.
pub struct Bench<T: Transport = PciTransport<Counting<LabDevice>>> {
    pub driver: Blk<T>,
    pub interrupts: LabInterrupts,
    pub counts: Arc<AccessCounts>,
    pub events: Vec<String>,
    pub done: Vec<Completion>,
    pub lab: Lab,
    /// Whether interrupts are passed on to the driver.
    pub deaf: bool,
}

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

impl Bench {
    pub fn new(disk: DiskConfig) -> Self {
        Self::with(LabConfig::new(vec![disk]), BlkConfig::default())
    }

    pub fn with(lab: LabConfig, config: BlkConfig) -> Self {
        Self::on(Lab::start(&lab).unwrap(), config)
    }

    pub fn on(lab: Lab, config: BlkConfig) -> Self {
        Self::nth(lab, 0, config)
    }

    /// The driver of the disk with this number.
    pub fn nth(lab: Lab, number: usize, config: BlkConfig) -> Self {
        let mut disks =
            lab.functions().iter().filter(|one| outboard_virtio::is_disk(&one.identity));
        let disk = disks.nth(number).unwrap();
        let (device, interrupts) = lab.open(disk.address).unwrap();
        let counts = Arc::new(AccessCounts::default());
        let transport = PciTransport::new(Counting::new(device, counts.clone())).unwrap();
        Self::drive(lab, transport, interrupts, counts, config)
    }
}

impl Bench<MmioTransport<LabRegisters>> {
    /// The driver of the first disk of a lab without PCI.
    pub fn on_mmio(lab: Lab, config: BlkConfig) -> Self {
        let (registers, interrupts) = lab.open_mmio(0).unwrap();
        let transport = MmioTransport::new(registers, lab.dma()).unwrap();
        assert_eq!(transport.kind(), u32::from(KIND_BLOCK));
        Self::drive(lab, transport, interrupts, Arc::default(), config)
    }
}

impl<T: Transport> Bench<T> {
    fn drive(
        lab: Lab,
        transport: T,
        interrupts: LabInterrupts,
        counts: Arc<AccessCounts>,
        config: BlkConfig,
    ) -> Self {
        let driver = Blk::new(transport, config).unwrap();
        let (events, done) = (Vec::new(), Vec::new());
        let mut bench = Self { driver, interrupts, counts, events, done, lab, deaf: false };
        bench.run_until(|bench| {
            !matches!(bench.state(), UnitState::Starting | UnitState::Recovering)
        });
        bench
    }

    /// Lets go of the disk.
    pub fn end(self) -> Lab {
        let Self { lab, driver, interrupts, .. } = self;
        drop((driver, interrupts));
        lab
    }

    pub fn state(&self) -> UnitState {
        self.driver.unit(UnitId(0)).unwrap().state
    }

    /// One turn of an event loop.
    pub fn turn(&mut self) {
        let (driver, done) = (&mut self.driver, &mut self.done);
        if !self.deaf {
            self.interrupts.take(&mut |vector| driver.interrupt(vector));
        }
        driver.poll(now(), &mut |completion| done.push(completion));
        self.interrupts.rearm();
        let events = &mut self.events;
        driver.drain_events(&mut |_, _, event| events.push(event.to_string()));
    }

    fn wait(&mut self) {
        let deadline = self.driver.next_deadline();
        let time = deadline.map_or(Duration::from_secs(1), |deadline| deadline.since(now()));
        // Whoever is deaf waits for the time alone.
        let interrupts: &dyn InterruptSource = if self.deaf { &() } else { &self.interrupts };
        interrupts.wait(time).unwrap();
    }

    pub fn run_until(&mut self, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        loop {
            self.turn();
            if condition(self) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "nothing came of it: {:#?}", self.events);
            self.wait();
        }
    }

    pub fn counter(&self, name: &str) -> u64 {
        let mut found = None;
        self.driver.counters(UnitId(0), &mut |counter, value| {
            found = found.or((counter == name).then_some(value));
        });
        found.unwrap_or_else(|| panic!("no counter {name}"))
    }

    pub fn buffer(&self, bytes: usize) -> DmaBuffer {
        self.driver.dma().allocate(bytes, &self.driver.constraints()).unwrap()
    }

    pub fn submit(&mut self, tag: u64, request: Request) {
        self.driver.submit(UnitId(0), Tag(tag), request).map_err(|r| r.reason).unwrap();
    }

    /// Kicks, and runs until so many requests have completed.
    pub fn finish(&mut self, count: usize) -> Vec<Completion> {
        self.driver.kick(now());
        self.run_until(|bench| bench.done.len() >= count);
        std::mem::take(&mut self.done)
    }

    pub fn one(&mut self, request: Request) -> Result<SgList, BlockError> {
        self.submit(1, request);
        let Completion { result, data, .. } = self.finish(1).pop().unwrap();
        result.map(|()| data)
    }

    pub fn sector_bytes(&self) -> usize {
        self.driver.unit(UnitId(0)).unwrap().geometry.sector_bytes as usize
    }

    pub fn read(&mut self, lba: u64, sectors: u64) -> Result<Vec<u8>, BlockError> {
        let bytes = sectors as usize * self.sector_bytes();
        let data = SgList::single(self.buffer(bytes), 0..bytes);
        let data = self.one(Request::read(lba, sectors, data))?;
        let mut content = vec![0; bytes];
        data.read_bytes(&mut content);
        Ok(content)
    }

    pub fn write(
        &mut self,
        lba: u64,
        content: &[u8],
        durability: Durability,
    ) -> Result<(), BlockError> {
        let mut buffer = self.buffer(content.len());
        buffer.write_bytes(0, content);
        let sectors = (content.len() / self.sector_bytes()) as u64;
        let data = SgList::single(buffer, 0..content.len());
        self.one(Request::write(lba, sectors, data, durability)).map(drop)
    }
}

/// Bytes that look like noise, and are the same for the same seed.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes());
    words.take(bytes).collect()
}
