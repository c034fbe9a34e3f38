//! What goes astray, which the IOMMU has to stop: a program for tests, not for users.
//!
//! `stray ADDRESS HOW` starts the real driver on an AHCI controller, reads from its disk, lets
//! something go wrong, and reads again, which has to give the same. `HOW` is one of these:
//!
//! * `transfer`: a read goes into a buffer that is not mapped for the device. QEMU's controller
//!   does not report that; the buffer must not change.
//! * `list`, `received`: the address of the port's command list, or of its received FISes, is
//!   replaced by that of foreign memory just when a command is issued. The command has to come to
//!   a good end, and the memory must not change. What the driver tells is printed.
//! * `switch-off`: memory decoding is switched off below the driver, which has to read ones.
#![forbid(unsafe_code)]

mod astray;
mod rig;
mod victim;

use astray::{Misled, Trap, Which};
use outboard_hw::registers::Registers;
use outboard_linux::SharedMemory;
use outboard_pci::Device;
use outboard_pci::header::Command;
use outboard_vfio::{Vfio, VfioConfig, VfioDevice, VfioInterrupts};
use rig::Rig;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use victim::Victim;

/// Why something went wrong.
type Failure = Box<dyn Error>;

/// How much is read at once.
const BYTES: usize = 4096;
/// What memory is full of that must not change.
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

fn run() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("which function?")?.parse()?;
    let config = VfioConfig {
        functions: vec![address],
        dma_bytes: 16 << 20,
        foreign_bytes: 0,
        interrupts: None,
        confinement: outboard_vfio::Confinement::Iommu,
    };
    let (_vfio, functions) = Vfio::open(&config)?;
    let (device, interrupts) = functions.into_iter().next().ok_or("no function")?;
    match arguments.next().as_deref() {
        Some("transfer") => transfer(device, interrupts),
        Some("list") => address_astray(device, interrupts, Which::List),
        Some("received") => address_astray(device, interrupts, Which::Received),
        Some("switch-off") => switch_off(device),
        _ => Err("what is to go astray: transfer, list, received, or switch-off?".into()),
    }
}

fn transfer(device: VfioDevice, interrupts: VfioInterrupts) -> Result<(), Failure> {
    let mut rig = Rig::start(device, interrupts)?;
    let before = rig.read()?;
    let (_memory, foreign) = SharedMemory::for_model("stray", BYTES)?;
    // Its addresses begin here, where nothing is mapped for the device.
    say("transfer astray: 0x1000");
    let (result, bytes) = rig.try_read(&foreign)?;
    let ending = result.map_or_else(|error| error.to_string(), |()| "no error".to_owned());
    say(&format!("stray transfer: {ending}"));
    if bytes.iter().any(|byte| *byte != MARK) {
        return Err("the device has written memory that is not its own".into());
    }
    if before != rig.read()? {
        return Err("what is read has changed".into());
    }
    say("recovered");
    Ok(())
}

fn address_astray(
    device: VfioDevice,
    interrupts: VfioInterrupts,
    which: Which,
) -> Result<(), Failure> {
    let trap = Trap::new(which);
    let mut rig = Rig::start(Misled { device, trap: trap.clone() }, interrupts)?;
    let before = rig.read()?;
    let victim = Victim::new()?;
    rig.events();
    say(&format!("{which:?} astray: {:#x}", victim.physical));
    trap.set(victim.physical);
    for which in ["the disturbed read", "the next read"] {
        if rig.read()? != before {
            return Err(format!("{which} does not give what the first did").into());
        }
    }
    for event in rig.events() {
        say(&format!("the driver: {event}"));
    }
    // What the device would write, it writes before its driver has let go of it.
    drop(rig);
    victim.check()?;
    say("recovered");
    Ok(())
}

/// Registers that are switched off read as ones, and nothing crashes.
fn switch_off(mut device: VfioDevice) -> Result<(), Failure> {
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

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
