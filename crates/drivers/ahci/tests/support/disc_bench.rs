//! The driver with the simulator's HBA and a drive for discs, in virtual time.

use super::pattern;
use outboard_ahci::{AhciConfig, Hba};
use outboard_block::{
    BlockDriver, BlockError, Completion, Management, Refused, Request, Tag, Unit, UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DeviceView, SgList};
use outboard_linux::SharedMemory;
use outboard_sim::atapi::{AtapiDrive, AtapiOptions, Disc};
use outboard_sim::hba::{HbaConfig, HbaModel};
use outboard_sim::{Fault, Random, SimDevice};
use std::time::Duration;

const UNIT: UnitId = UnitId(0);

/// A driver, its controller, and the time. The drive is at port 0.
pub struct DiscBench {
    pub device: SimDevice,
    pub driver: Hba<SimDevice>,
    pub now: Instant,
    pub done: Vec<Completion>,
    pub events: Vec<String>,
    submitted: usize,
}

/// A disc whose every 8 bytes hold their own offset, from `lba` on.
pub fn disc(lba: u64, sectors: u64) -> Disc {
    Disc::new(sectors_of(lba, sectors))
}

/// What is in its sectors.
pub fn sectors_of(lba: u64, sectors: u64) -> Vec<u8> {
    pattern(lba * 4, sectors * 4)
}

/// What a completed read has read.
pub fn content(completion: Completion) -> Result<Vec<u8>, BlockError> {
    completion.result?;
    let mut content = vec![0; completion.data.bytes()];
    completion.data.into_buffers().next().unwrap().read_bytes(0, &mut content);
    Ok(content)
}

impl DiscBench {
    pub fn starting(drive: AtapiDrive) -> Self {
        let (_, arena) = SharedMemory::for_model("model", 4 << 20).unwrap();
        let mut config = HbaConfig::new(1);
        config.capabilities.set_notification(true);
        let mut hba = HbaModel::new(config, DeviceView::new(arena.clone()), Random::new(1));
        hba.attach(0, Box::new(drive));
        let device = SimDevice::new(hba, arena);
        let mut config = AhciConfig::default();
        // Commands that never end are many in these tests.
        config.timeouts.transfer = Duration::from_secs(5);
        let driver = Hba::new(device.clone(), config).unwrap();
        let (done, events) = (Vec::new(), Vec::new());
        Self { device, driver, now: Instant::from_nanos(1), done, events, submitted: 0 }
    }

    pub fn new(options: AtapiOptions, disc: Option<Disc>) -> Self {
        let mut bench = Self::starting(AtapiDrive::new(options, disc));
        bench.run_until(|bench| bench.unit().state != UnitState::Starting);
        bench
    }

    pub fn unit(&self) -> &Unit {
        self.driver.unit(UNIT).unwrap()
    }

    /// Does something to the drive.
    pub fn drive<T>(&self, act: impl FnOnce(&mut AtapiDrive) -> T) -> T {
        act(self.device.hba().device(0).unwrap().as_any().downcast_mut().unwrap())
    }

    pub fn press_button(&self) {
        self.drive(|drive| drive.press_button(self.now));
    }

    pub fn inject(&self, fault: Fault) {
        self.device.hba().inject(0, fault);
    }

    /// All that happens at one moment.
    pub fn turn(&mut self) {
        let interrupted = {
            let mut hba = self.device.hba();
            hba.advance(self.now);
            hba.take_interrupt()
        };
        if interrupted {
            self.driver.interrupt(0);
        }
        let done = &mut self.done;
        self.driver.poll(self.now, &mut |completion| done.push(completion));
        let events = &mut self.events;
        self.driver.drain_events(&mut |_, at, event| events.push(format!("{at:?}: {event}")));
        let hba = self.device.hba();
        assert!(hba.violations().is_empty(), "{:#?} {:#?}", hba.violations(), self.events);
    }

    /// Lets time pass from one thing that happens to the next, for at most an hour.
    pub fn run_until(&mut self, condition: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(3600);
        loop {
            self.turn();
            if condition(self) {
                return;
            }
            assert!(!self.now.reached(end), "nothing came of it: {:#?}", self.events);
            let due = self.device.hba().next_event();
            let next = outboard_hw::time::earlier(self.driver.next_deadline(), due);
            let next = next.unwrap_or(self.now + Duration::from_secs(1));
            self.now = self.now.max(next) + Duration::from_nanos(500);
        }
    }

    pub fn request(&self, lba: u64, sectors: u64) -> Request {
        let bytes = sectors as usize * 2048;
        let buffer = self.driver.dma().allocate(bytes, &Constraints::NONE.aligned(2)).unwrap();
        Request::read(lba, sectors, SgList::single(buffer, 0..bytes))
    }

    pub fn refused(&mut self, request: Request) -> Refused {
        self.driver.submit(UNIT, Tag(0), request).unwrap_err()
    }

    pub fn submit(&mut self, tag: u64, request: Request) {
        self.driver.submit(UNIT, Tag(tag), request).map_err(|refused| refused.reason).unwrap();
        self.submitted += 1;
    }

    /// Submits a read, named by its first sector.
    pub fn submit_read(&mut self, lba: u64, sectors: u64) {
        let request = self.request(lba, sectors);
        self.submit(lba, request);
    }

    /// Runs until everything submitted has completed.
    pub fn finish(&mut self) -> Vec<Completion> {
        self.driver.kick(self.now);
        self.run_until(|bench| bench.done.len() == bench.submitted);
        self.submitted = 0;
        std::mem::take(&mut self.done)
    }

    pub fn one(&mut self, request: Request) -> Result<(), BlockError> {
        self.submit(0, request);
        self.finish().pop().unwrap().result
    }

    pub fn read(&mut self, lba: u64, sectors: u64) -> Result<Vec<u8>, BlockError> {
        self.submit_read(lba, sectors);
        content(self.finish().pop().unwrap())
    }

    pub fn manage(&mut self, what: Management) -> Result<(), BlockError> {
        self.one(Request::manage(what))
    }

    pub fn becomes(&mut self, state: UnitState) {
        self.run_until(|bench| bench.unit().state == state);
    }

    pub fn happened(&self, what: &str) -> usize {
        self.events.iter().filter(|event| event.contains(what)).count()
    }
}
