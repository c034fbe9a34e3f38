//! The driver with the model for a controller, in virtual time.

use super::model::firmware::Firmware;
use super::model::{Disk, Fault, ModelDevice};
use super::pattern;
use outboard_ahci::{AhciConfig, Hba};
use outboard_block::{
    BlockDriver, BlockError, Completion, Durability, Features, Management, RefusedReason, Request,
    Tag, UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, SgList};
use std::time::Duration;

/// A driver, its controller, and the time.
pub struct ModelBench {
    pub device: ModelDevice,
    pub driver: Hba<ModelDevice>,
    pub now: Instant,
    pub done: Vec<Completion>,
    pub submitted: usize,
    pub events: Vec<String>,
}

impl ModelBench {
    pub fn starting(device: ModelDevice) -> Self {
        let driver = Hba::new(device.clone(), AhciConfig::default()).unwrap();
        let (done, events) = (Vec::new(), Vec::new());
        Self { device, driver, now: Instant::from_nanos(1), done, submitted: 0, events }
    }

    pub fn new(disks: Vec<Option<Disk>>) -> Self {
        let mut bench = Self::starting(ModelDevice::new(disks));
        bench.run_until(|bench| {
            let units = (0..32).filter_map(|unit| bench.driver.unit(UnitId(unit)));
            units.into_iter().all(|unit| unit.state != UnitState::Starting)
        });
        bench
    }

    pub fn state(&self, unit: u16) -> UnitState {
        self.driver.unit(UnitId(unit)).unwrap().state
    }

    /// Executes and polls, at one moment.
    pub fn turn(&mut self) {
        if self.device.model().run() {
            self.driver.interrupt(0);
        }
        let done = &mut self.done;
        self.driver.poll(self.now, &mut |completion| done.push(completion));
        let events = &mut self.events;
        self.driver.drain_events(&mut |unit, _, event| {
            events.push(format!("{}: {event}", unit.0));
        });
    }

    /// Executes, polls, and lets time pass to the next deadline, for at most ten minutes.
    pub fn run_until(&mut self, condition: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(600);
        loop {
            self.turn();
            if condition(self) {
                return;
            }
            assert!(!self.now.reached(end), "nothing came of it: {:#?}", self.events);
            if let Some(deadline) = self.driver.next_deadline() {
                assert!(deadline.since(self.now) < Duration::from_secs(1), "nobody waits long");
                self.now = self.now.max(deadline);
            }
            self.now = self.now + Duration::from_micros(100);
        }
    }

    pub fn submit(&mut self, unit: u16, lba: u64, sectors: u64) {
        let bytes = sectors as usize * 512;
        let buffer = self.driver.dma().allocate(bytes, &Constraints::NONE.aligned(2)).unwrap();
        let request = Request::read(lba, sectors, SgList::single(buffer, 0..bytes));
        self.driver.submit(UnitId(unit), Tag(lba), request).unwrap();
        self.submitted += 1;
    }

    /// Writes one sector of `byte`.
    pub fn submit_write(&mut self, unit: u16, lba: u64, byte: u8, durability: Durability) {
        let mut buffer = self.driver.dma().allocate(512, &Constraints::NONE.aligned(2)).unwrap();
        buffer.fill(0..512, byte);
        let request = Request::write(lba, 1, SgList::single(buffer, 0..512), durability);
        self.driver.submit(UnitId(unit), Tag(lba), request).unwrap();
        self.submitted += 1;
    }

    pub fn submit_flush(&mut self, unit: u16) {
        self.driver.submit(UnitId(unit), Tag(u64::MAX), Request::flush()).unwrap();
        self.submitted += 1;
    }

    /// Asks or tells the disk something, with a password if it takes one, and waits for the end.
    pub fn manage(
        &mut self,
        unit: u16,
        what: Management,
        password: &[u8],
    ) -> Result<(), BlockError> {
        self.submit_management(unit, what, password).unwrap();
        self.finish().pop().unwrap().result
    }

    pub fn submit_management(
        &mut self,
        unit: u16,
        what: Management,
        password: &[u8],
    ) -> Result<(), RefusedReason> {
        let mut request = Request::manage(what);
        if !password.is_empty() {
            let mut buffer = self.driver.dma().allocate(32, &Constraints::NONE.aligned(2)).unwrap();
            buffer.fill(0..32, 0);
            buffer.write_bytes(0, password);
            request = Request::manage_with(what, SgList::single(buffer, 0..32));
        }
        self.driver.submit(UnitId(unit), Tag(u64::MAX), request).map_err(|r| r.reason)?;
        self.submitted += 1;
        Ok(())
    }

    pub fn features(&self, unit: u16) -> Features {
        self.driver.unit(UnitId(unit)).unwrap().features
    }

    /// The disk's firmware, to look at or to change.
    pub fn firmware<T>(&self, unit: usize, with: impl FnOnce(&mut Firmware) -> T) -> T {
        with(&mut self.device.model().ports[unit].disk.as_mut().unwrap().firmware)
    }

    /// The commands other than transfers that the disk has got since this was last asked.
    pub fn trace(&self, unit: usize) -> Vec<u8> {
        let trace = self.firmware(unit, |firmware| std::mem::take(&mut firmware.trace));
        trace.into_iter().map(|(command, _)| command).collect()
    }

    /// Runs until everything submitted has completed, and no port recovers any more.
    pub fn finish(&mut self) -> Vec<Completion> {
        self.driver.kick(self.now);
        self.run_until(|bench| {
            let mut units = (0..32).filter_map(|unit| bench.driver.unit(UnitId(unit)));
            bench.done.len() == bench.submitted
                && units.all(|unit| unit.state != UnitState::Recovering)
        });
        self.submitted = 0;
        let mut done = std::mem::take(&mut self.done);
        // Passwords are their owner's to wipe.
        for completion in done.iter_mut().filter(|completion| completion.data.bytes() == 32) {
            let data = std::mem::replace(&mut completion.data, SgList::EMPTY);
            data.into_buffers().for_each(|mut buffer| buffer.fill(0..32, 0));
        }
        done.sort_by_key(|completion| completion.tag.0);
        done
    }

    /// Reads eight sectors at each multiple of eight, 32 at once.
    pub fn read_batch(&mut self, unit: u16) -> Vec<Completion> {
        (0..32).for_each(|slot| self.submit(unit, slot * 8, 8));
        self.finish()
    }

    pub fn happened(&self, what: &str) -> usize {
        self.events.iter().filter(|event| event.contains(what)).count()
    }
}

/// Checks that `completion` is a good read of what was asked for.
pub fn good(completion: Completion) {
    completion.result.unwrap();
    let lba = completion.tag.0;
    let bytes = completion.data.bytes();
    let mut content = vec![0; bytes];
    completion.data.into_buffers().next().unwrap().read_bytes(0, &mut content);
    assert_eq!(content, pattern(lba, bytes as u64 / 512));
}

pub fn disk_with(faults: &[(u64, Fault, u32)]) -> Option<Disk> {
    let mut disk = Disk::new(4096);
    disk.faults = faults.iter().map(|(sector, fault, times)| (*sector, (*fault, *times))).collect();
    Some(disk)
}

pub const UNCORRECTABLE: Fault = Fault::Error(0x40);
pub const ALWAYS: u32 = u32::MAX;
