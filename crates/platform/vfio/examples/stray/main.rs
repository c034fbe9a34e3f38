//! A transfer to memory that is not the device's, which the IOMMU has to stop.
//!
//! The real driver reads a sector, then is asked to read into a buffer out of an arena that is not
//! mapped for the device, and then reads the sector again. Prints `stray: ` and how the second
//! read ended, and fails if a byte of that buffer changed, or if the third read does not give what
//! the first did. With `switch-off` in place of that: memory decoding is switched off while the
//! driver works, and it has to find the device gone.
#![forbid(unsafe_code)]

use outboard_ahci::{AhciConfig, Hba, Timeouts};
use outboard_block::{BlockDriver, BlockError, Completion, Request, Tag, UnitId, UnitState};
use outboard_hw::dma::{Constraints, DmaSpace, SgList};
use outboard_hw::registers::Registers;
use outboard_linux::{InterruptSource, SharedMemory, now};
use outboard_pci::Device;
use outboard_pci::header::Command;
use outboard_vfio::{Vfio, VfioConfig, VfioDevice, VfioInterrupts};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

const BYTES: usize = 4096;
/// What the buffer is full of that must not change.
const MARK: u8 = 0xa5;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "stray: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("which function?")?.parse()?;
    let config = VfioConfig { functions: vec![address], dma_bytes: 16 << 20, interrupts: None };
    let (_vfio, functions) = Vfio::open(&config)?;
    let (device, interrupts) = functions.into_iter().next().ok_or("no function")?;
    if arguments.next().as_deref() == Some("switch-off") {
        return switch_off(device);
    }
    let second = Duration::from_secs(1);
    let timeouts = Timeouts { transfer: second, ..Timeouts::default() };
    let config = AhciConfig { timeouts, attempts: 2, ..AhciConfig::default() };
    let mut rig = Rig { driver: Hba::new(device, config)?, interrupts };
    let unit = rig.start()?;

    let before = rig.read(unit, &*rig.driver.dma())?;
    let (_memory, foreign) = SharedMemory::for_model("stray", BYTES)?;
    let (result, bytes) = rig.try_read(unit, &foreign)?;
    let ending = result.map_or_else(|error| error.to_string(), |()| "no error".to_owned());
    say(&format!("stray: {ending}"));
    if bytes.iter().any(|byte| *byte != MARK) {
        return Err("the device has written memory that is not its own".into());
    }
    let after = rig.read(unit, &*rig.driver.dma())?;
    if before != after {
        return Err("what is read has changed".into());
    }
    say("recovered");
    Ok(())
}

/// Registers that are switched off read as ones, and nothing crashes.
fn switch_off(mut device: VfioDevice) -> Result<(), Box<dyn Error>> {
    const ABAR: u8 = 5;
    Command::change(device.config(), Command::MEMORY, Command::empty());
    let mut registers = device.map_bar(ABAR)?;
    let capabilities = registers.read_u32(0);
    if capabilities == u32::MAX {
        return Err("the registers do not answer".into());
    }
    Command::change(device.config(), Command::empty(), Command::MEMORY);
    registers.write_u32(4, 1);
    if registers.read_u32(0) != u32::MAX || registers.read_u32(4) != u32::MAX {
        return Err("registers that are switched off answer".into());
    }
    Command::change(device.config(), Command::MEMORY, Command::empty());
    if device.map_bar(ABAR)?.read_u32(0) != capabilities {
        return Err("the registers do not come back".into());
    }
    say("switched off and on");
    Ok(())
}

/// How a read ended, and what was in its buffer then.
type Ended = (Result<(), BlockError>, Vec<u8>);

struct Rig {
    driver: Hba<VfioDevice>,
    interrupts: VfioInterrupts,
}

impl Rig {
    fn start(&mut self) -> Result<UnitId, Box<dyn Error>> {
        let end = now() + Duration::from_secs(60);
        let units = || (0..32).map(UnitId);
        while !now().reached(end) {
            self.turn(&mut |_| {})?;
            let state = |unit: &UnitId| self.driver.unit(*unit).map(|unit| unit.state);
            if let Some(unit) = units().find(|unit| state(unit) == Some(UnitState::Ready)) {
                return Ok(unit);
            }
        }
        Err("no disk became ready".into())
    }

    fn read(&mut self, unit: UnitId, space: &dyn DmaSpace) -> Result<Vec<u8>, Box<dyn Error>> {
        let (result, bytes) = self.try_read(unit, space)?;
        result?;
        Ok(bytes)
    }

    fn try_read(&mut self, unit: UnitId, space: &dyn DmaSpace) -> Result<Ended, Box<dyn Error>> {
        let mut buffer = space.allocate(BYTES, &Constraints::NONE)?;
        buffer.fill(0..BYTES, MARK);
        let request = Request::read(0, (BYTES / 512) as u64, SgList::single(buffer, 0..BYTES));
        let accepted = self.driver.submit(unit, Tag(1), request);
        accepted.map_err(|refused| refused.reason)?;
        self.driver.kick(now());
        let mut ended = None;
        let end = now() + Duration::from_secs(60);
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

    fn turn(&mut self, done: &mut dyn FnMut(Completion)) -> Result<(), Box<dyn Error>> {
        let deadline = self.driver.next_deadline();
        let time = deadline.map_or(Duration::from_secs(1), |deadline| deadline.since(now()));
        let descriptors = self.interrupts.descriptors();
        let mut fds: Vec<_> = descriptors.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        poll(&mut fds, Some(&Timespec::try_from(time)?))?;
        let driver = &mut self.driver;
        self.interrupts.take(&mut |vector| driver.interrupt(vector));
        driver.poll(now(), done);
        self.interrupts.rearm();
        Ok(())
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
