//! Runs the driver against the lab.
#![allow(unreachable_pub, dead_code, reason = "shared by several tests")]

pub mod disc_bench;
pub mod sim_bench;

use outboard_ahci::{AhciConfig, Hba};
use outboard_block::{
    BlockDriver, BlockError, Completion, Durability, Request, Tag, UnitId, UnitState,
};
use outboard_hw::dma::{Constraints, DmaBuffer, SgList};
use outboard_hw::registers::AccessCounts;
use outboard_lab::{DiskConfig, Lab, LabConfig, LabDevice, LabInterrupts};
use outboard_linux::{InterruptSource, now};
use outboard_pci::Counting;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The driver of a lab's first AHCI controller, and what it takes to run it.
pub struct Bench {
    pub driver: Hba<Counting<LabDevice>>,
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
    pub fn new(disks: Vec<DiskConfig>) -> Self {
        Self::with(LabConfig::new(disks), AhciConfig::default())
    }

    pub fn with(lab: LabConfig, config: AhciConfig) -> Self {
        let bench = Self::starting(lab, config);
        bench.settled()
    }

    pub fn starting(lab: LabConfig, config: AhciConfig) -> Self {
        let lab = Lab::start(&lab).unwrap();
        Self::on(lab, config)
    }

    pub fn on(lab: Lab, config: AhciConfig) -> Self {
        let ours = lab.functions().iter().find(|f| outboard_ahci::matches(&f.identity)).unwrap();
        let (device, interrupts) = lab.open(ours.address).unwrap();
        let counts = Arc::new(AccessCounts::default());
        let driver = Hba::new(Counting::new(device, counts.clone()), config).unwrap();
        let (events, done) = (Vec::new(), Vec::new());
        Self { driver, interrupts, counts, events, done, lab, deaf: false }
    }

    /// Runs until it is known what is at every port.
    pub fn settled(mut self) -> Self {
        self.run_until(|bench| {
            (0..32)
                .filter_map(|unit| bench.driver.unit(UnitId(unit)))
                .all(|unit| !matches!(unit.state, UnitState::Starting | UnitState::Recovering))
        });
        self
    }

    /// One turn of an event loop.
    pub fn turn(&mut self) {
        let (driver, done) = (&mut self.driver, &mut self.done);
        if !self.deaf {
            let mut fired = Vec::new();
            self.interrupts.take(&mut |vector| fired.push(vector));
            fired.into_iter().for_each(|vector| driver.interrupt(vector));
        }
        driver.poll(now(), &mut |completion| done.push(completion));
        self.interrupts.rearm();
        let events = &mut self.events;
        driver.drain_events(&mut |unit, _, event| events.push(format!("{}: {event}", unit.0)));
    }

    fn wait(&mut self) {
        let Some(deadline) = self.driver.next_deadline() else {
            return self.wait_for(Duration::from_secs(1));
        };
        self.wait_for(deadline.since(now()));
    }

    fn wait_for(&mut self, time: Duration) {
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
            assert!(began.elapsed() < PATIENCE, "nothing came of it; events: {:#?}", self.events);
            self.wait();
        }
    }

    pub fn buffer(&self, bytes: usize) -> DmaBuffer {
        self.driver.dma().allocate(bytes, &Constraints::NONE.aligned(2)).unwrap()
    }

    pub fn submit(&mut self, unit: u16, tag: u64, request: Request) {
        self.driver.submit(UnitId(unit), Tag(tag), request).map_err(|r| r.reason).unwrap();
    }

    /// Submits, kicks, and runs until everything submitted so far has completed.
    pub fn finish(&mut self, count: usize) -> Vec<Completion> {
        self.driver.kick(now());
        self.run_until(|bench| bench.done.len() >= count);
        std::mem::take(&mut self.done)
    }

    pub fn one(&mut self, unit: u16, request: Request) -> Result<Option<DmaBuffer>, BlockError> {
        self.submit(unit, 1, request);
        let Completion { result, data, .. } = self.finish(1).pop().unwrap();
        result.map(|()| data.into_buffers().next())
    }

    pub fn sector_bytes(&self, unit: u16) -> usize {
        self.driver.unit(UnitId(unit)).unwrap().geometry.sector_bytes as usize
    }

    pub fn read(&mut self, unit: u16, lba: u64, sectors: u64) -> Result<Vec<u8>, BlockError> {
        let bytes = sectors as usize * self.sector_bytes(unit);
        let data = SgList::single(self.buffer(bytes), 0..bytes);
        let buffer = self.one(unit, Request::read(lba, sectors, data))?.unwrap();
        let mut content = vec![0; bytes];
        buffer.read_bytes(0, &mut content);
        Ok(content)
    }

    pub fn write(
        &mut self,
        unit: u16,
        lba: u64,
        content: &[u8],
        durability: Durability,
    ) -> Result<(), BlockError> {
        let mut buffer = self.buffer(content.len());
        buffer.write_bytes(0, content);
        let sectors = (content.len() / self.sector_bytes(unit)) as u64;
        let data = SgList::single(buffer, 0..content.len());
        self.one(unit, Request::write(lba, sectors, data, durability)).map(drop)
    }

    pub fn counter(&self, unit: u16, wanted: &str) -> u64 {
        let mut found = None;
        self.driver.counters(UnitId(unit), &mut |name, value| {
            if name == wanted {
                found = Some(value);
            }
        });
        found.unwrap()
    }

    pub fn happened(&self, what: &str) -> bool {
        self.events.iter().any(|event| event.contains(what))
    }
}

/// An image of `sectors` whose every 8 bytes hold their own offset.
pub fn image(folder: &std::path::Path, name: &str, sectors: u64) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, pattern(0, sectors)).unwrap();
    path
}

/// What such an image holds.
pub fn pattern(lba: u64, sectors: u64) -> Vec<u8> {
    (lba * 64..(lba + sectors) * 64).flat_map(|word| (word * 8).to_le_bytes()).collect()
}
