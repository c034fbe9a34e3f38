//! The driver of one controller with its disk, run until something has ended.

use crate::{BYTES, Failure, MARK};
use outboard_ahci::{AhciConfig, Hba, Timeouts};
use outboard_block::{BlockDriver, BlockError, Completion, Request, Tag, UnitId, UnitState};
use outboard_hw::dma::{Constraints, DmaSpace, SgList};
use outboard_linux::{InterruptSource, now};
use outboard_pci::Device;
use outboard_vfio::VfioInterrupts;
use std::time::Duration;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How a read ended, and what was in its buffer then.
type Ended = (Result<(), BlockError>, Vec<u8>);

/// A driver with the descriptors that wake it.
pub(crate) struct Rig<D: Device> {
    driver: Hba<D>,
    interrupts: VfioInterrupts,
    unit: UnitId,
}

impl<D: Device> Rig<D> {
    /// Starts the driver, and waits for a disk.
    pub(crate) fn start(device: D, interrupts: VfioInterrupts) -> Result<Self, Failure> {
        let timeouts = Timeouts { transfer: Duration::from_secs(1), ..Timeouts::default() };
        let config = AhciConfig { timeouts, ..AhciConfig::default() };
        let mut rig = Self { driver: Hba::new(device, config)?, interrupts, unit: UnitId(0) };
        let end = now() + LIMIT;
        while !now().reached(end) {
            rig.turn(&mut |_| {})?;
            let is_ready = |unit: &UnitId| {
                rig.driver.unit(*unit).is_some_and(|unit| unit.state == UnitState::Ready)
            };
            if let Some(unit) = (0..rig.driver.unit_count()).map(UnitId).find(is_ready) {
                rig.unit = unit;
                return Ok(rig);
            }
        }
        Err("no disk became ready".into())
    }

    /// Reads the first sectors, into memory of the device's.
    pub(crate) fn read(&mut self) -> Result<Vec<u8>, Failure> {
        let (result, bytes) = self.try_read(&*self.driver.dma())?;
        result?;
        Ok(bytes)
    }

    /// Reads the first sectors into memory of `space`.
    pub(crate) fn try_read(&mut self, space: &dyn DmaSpace) -> Result<Ended, Failure> {
        let mut buffer = space.allocate(BYTES, &Constraints::NONE)?;
        buffer.fill(0..BYTES, MARK);
        let request = Request::read(0, (BYTES / 512) as u64, SgList::single(buffer, 0..BYTES));
        let accepted = self.driver.submit(self.unit, Tag(1), request);
        accepted.map_err(|refused| refused.reason)?;
        self.driver.kick(now());
        let mut ended = None;
        let end = now() + LIMIT;
        while ended.is_none() {
            if now().reached(end) {
                return Err("a request does not end".into());
            }
            self.turn(&mut |completion| ended = Some(completion))?;
        }
        let Some(Completion { result, data, .. }) = ended else { return Err("none".into()) };
        let mut bytes = vec![0; BYTES];
        for buffer in data.into_buffers() {
            buffer.read_bytes(0, &mut bytes);
        }
        Ok((result, bytes))
    }

    /// What the driver tells of itself since it was last asked.
    pub(crate) fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        self.driver.drain_events(&mut |_, _, event| events.push(event.to_string()));
        events
    }

    fn turn(&mut self, done: &mut dyn FnMut(Completion)) -> Result<(), Failure> {
        let deadline = self.driver.next_deadline();
        let time = deadline.map_or(Duration::from_secs(1), |deadline| deadline.since(now()));
        self.interrupts.wait(time)?;
        let driver = &mut self.driver;
        self.interrupts.take(&mut |vector| driver.interrupt(vector));
        driver.poll(now(), done);
        self.interrupts.rearm();
        Ok(())
    }
}
