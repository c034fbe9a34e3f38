//! One function as its driver sees it.

use crate::header::Command;
use crate::{ConfigSpace, Identity};
use alloc::sync::Arc;
use outboard_hw::dma::DmaSpace;
use outboard_hw::interrupt::{VectorRange, Vectors};
use outboard_hw::registers::{AccessCounts, Counted};
use outboard_hw::{HwError, Registers};

/// One function as its driver sees it: the boundary that every platform implements.
///
/// A device is a value. The driver owns it, and nothing of it is global, so the same driver runs
/// on real functions, in the lab and on a model, several times in one process.
pub trait Device: Send {
    /// A mapped base address register. Clones are handles to the same region.
    type Registers: Registers + Clone + Send;

    /// What the function says it is.
    fn identity(&self) -> Identity;

    /// Its configuration space.
    fn config(&mut self) -> &mut dyn ConfigSpace;

    /// Maps the memory region of base address register `bar` (0–5).
    fn map_bar(&mut self, bar: u8) -> Result<Self::Registers, HwError>;

    /// Opens the I/O ports of base address register `bar` (0–5), which are there for devices of an
    /// older kind. Each access is a call of the platform's.
    fn open_ports(&mut self, bar: u8) -> Result<Self::Registers, HwError> {
        Err(HwError::NoSuchRegion { bar, expected: "a region of ports on this platform" })
    }

    /// Memory that the device can reach.
    fn dma(&self) -> Arc<dyn DmaSpace>;

    /// Whether the addresses that the device is given are translated on their way to memory, as by
    /// an IOMMU. A device that goes round that reaches other memory with them.
    fn translates_addresses(&self) -> bool {
        false
    }

    /// Switches on as many vectors as `wanted` allows, of the best kind that both sides have.
    fn enable_interrupts(&mut self, wanted: VectorRange) -> Result<Vectors, HwError>;

    /// Switches the interrupts off.
    fn disable_interrupts(&mut self);

    /// Resets the function alone; [`HwError::NoReset`] where the platform cannot.
    fn reset(&mut self) -> Result<(), HwError>;
}

/// A device that a driver owns.
///
/// Claiming it switches memory decoding on and bus mastering off: what an earlier owner left
/// running can no longer reach memory. The driver brings the device to rest, and then calls
/// [`start_bus_master`](Self::start_bus_master). Dropping the claim, in whatever state, switches
/// interrupts and bus mastering off again.
///
/// A driver must hold its claim in a field *before* its DMA buffers: fields are dropped in order,
/// and the device has to be cut off before the memory is freed (`docs/SOUNDNESS.md`, D3).
#[derive(Debug)]
pub struct Claimed<D: Device>(D);

impl<D: Device> Claimed<D> {
    /// Takes the device over.
    pub fn new(mut device: D) -> Self {
        take_off_bus(device.config(), Command::MEMORY);
        Self(device)
    }

    /// Opens the I/O ports of a base address register, and switches their decoding on.
    pub fn open_ports(&mut self, bar: u8) -> Result<D::Registers, HwError> {
        let ports = self.0.open_ports(bar)?;
        Command::change(self.0.config(), Command::IO, Command::empty());
        Ok(ports)
    }

    /// Lets the device read and write memory on its own, and send messages.
    pub fn start_bus_master(&mut self) {
        Command::change(self.0.config(), Command::BUS_MASTER, Command::empty());
    }

    /// Takes the device off the bus: once this returns, it neither accesses memory nor sends
    /// messages.
    pub fn stop_bus_master(&mut self) {
        take_off_bus(self.0.config(), Command::empty());
    }

    /// The device.
    pub fn device(&mut self) -> &mut D {
        &mut self.0
    }

    /// Memory that the device can reach.
    pub fn dma(&self) -> Arc<dyn DmaSpace> {
        self.0.dma()
    }

    /// Whether addresses are translated between the device and memory.
    pub fn translates_addresses(&self) -> bool {
        self.0.translates_addresses()
    }
}

impl<D: Device> Drop for Claimed<D> {
    fn drop(&mut self) {
        self.0.disable_interrupts();
        self.stop_bus_master();
    }
}

/// Sets bits of the command register, and switches bus mastering off.
fn take_off_bus(config: &mut dyn ConfigSpace, set: Command) {
    Command::change(config, set, Command::BUS_MASTER);
    // A platform may post the write. The answer to a read comes after it, and behind whatever the
    // device still had on its way to memory (PCIe §2.4.1).
    Command::read(config);
}

/// A device whose register accesses are counted.
#[derive(Debug)]
pub struct Counting<D> {
    device: D,
    counts: Arc<AccessCounts>,
}

impl<D: Device> Counting<D> {
    /// Wraps `device`; every region mapped through it counts into `counts`.
    pub const fn new(device: D, counts: Arc<AccessCounts>) -> Self {
        Self { device, counts }
    }
}

impl<D: Device> Device for Counting<D> {
    type Registers = Counted<D::Registers>;

    fn identity(&self) -> Identity {
        self.device.identity()
    }

    fn config(&mut self) -> &mut dyn ConfigSpace {
        self.device.config()
    }

    fn map_bar(&mut self, bar: u8) -> Result<Self::Registers, HwError> {
        Ok(Counted::new(self.device.map_bar(bar)?, self.counts.clone()))
    }

    fn open_ports(&mut self, bar: u8) -> Result<Self::Registers, HwError> {
        Ok(Counted::new(self.device.open_ports(bar)?, self.counts.clone()))
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.device.dma()
    }

    fn translates_addresses(&self) -> bool {
        self.device.translates_addresses()
    }

    fn enable_interrupts(&mut self, wanted: VectorRange) -> Result<Vectors, HwError> {
        self.device.enable_interrupts(wanted)
    }

    fn disable_interrupts(&mut self) {
        self.device.disable_interrupts();
    }

    fn reset(&mut self) -> Result<(), HwError> {
        self.device.reset()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeFunction;

    #[test]
    fn a_device_is_off_the_bus_before_anyone_goes_on() {
        let mut function = FakeFunction::endpoint(1, 1);
        function.write_u16(0x04, Command::BUS_MASTER.bits());
        assert!(function.posted);
        take_off_bus(&mut function, Command::MEMORY);
        assert!(!function.posted, "the write has arrived");
        assert_eq!(Command::read(&mut function), Command::MEMORY);
    }
}
