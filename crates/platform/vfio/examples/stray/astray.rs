//! A controller whose driver is led astray: an address that it gave is replaced while it works, as
//! by a bit that fell over.

use outboard_ahci::spec::registers::{
    PORT_BYTES, PORTS_BASE, PX_CI, PX_CLB, PX_CLBU, PX_CMD, PX_FB, PX_FBU, PX_SACT, port_base,
};
use outboard_hw::HwError;
use outboard_hw::dma::DmaSpace;
use outboard_hw::interrupt::{VectorRange, Vectors};
use outboard_hw::registers::{Registers, RegistersExt, Window};
use outboard_pci::{ConfigSpace, Device, Identity};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often an engine is asked whether it rests.
const LOOKS: u32 = 100_000;

/// Which address is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// The command list's, where the device reads.
    List,
    /// That of received FISes, where the device writes.
    Received,
}

/// What is to go wrong when the next command is issued.
#[derive(Debug, Clone)]
pub(crate) struct Trap {
    which: Which,
    /// The address in place of the right one; 0 for nothing.
    address: Arc<AtomicU64>,
}

impl Trap {
    pub(crate) fn new(which: Which) -> Self {
        Self { which, address: Arc::default() }
    }

    /// Has the next command go wrong.
    pub(crate) fn set(&self, address: u64) {
        self.address.store(address, Ordering::Relaxed);
    }

    /// Stops the port's engines and starts them with the wrong address.
    fn spring<R: Registers>(&self, port: &mut Window<R>, address: u64) {
        let [low, high] = [address as u32, (address >> 32) as u32];
        let queued = port.get(PX_SACT);
        let running = port.get(PX_CMD);
        let mut stopping = running.with_start(false);
        port.set(PX_CMD, stopping);
        (0..LOOKS).find(|_| !port.get(PX_CMD).list_running());
        if self.which == Which::Received {
            stopping = stopping.with_fis_receive(false);
            port.set(PX_CMD, stopping);
            (0..LOOKS).find(|_| !port.get(PX_CMD).fis_running());
            port.set(PX_FB, low);
            port.set(PX_FBU, high);
            port.set(PX_CMD, stopping.with_fis_receive(true));
        } else {
            port.set(PX_CLB, low);
            port.set(PX_CLBU, high);
        }
        port.set(PX_CMD, running);
        port.set(PX_SACT, queued);
    }
}

/// A device with a trap in its registers.
#[derive(Debug)]
pub(crate) struct Misled<D> {
    pub(crate) device: D,
    pub(crate) trap: Trap,
}

impl<D: Device> Device for Misled<D> {
    type Registers = MisledRegisters<D::Registers>;

    fn identity(&self) -> Identity {
        self.device.identity()
    }

    fn config(&mut self) -> &mut dyn ConfigSpace {
        self.device.config()
    }

    fn map_bar(&mut self, bar: u8) -> Result<Self::Registers, HwError> {
        let region = self.device.map_bar(bar)?;
        Ok(MisledRegisters { region, trap: self.trap.clone() })
    }

    fn translates_addresses(&self) -> bool {
        self.device.translates_addresses()
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.device.dma()
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

/// Registers with a trap in every port's PxCI.
#[derive(Debug, Clone)]
pub(crate) struct MisledRegisters<R> {
    region: R,
    trap: Trap,
}

impl<R: Registers + Clone> MisledRegisters<R> {
    /// Looks at a write that is about to be made.
    fn watch(&self, offset: usize) {
        let Some(port) = offset.checked_sub(PORTS_BASE).map(|offset| offset / PORT_BYTES) else {
            return;
        };
        if offset == port_base(port) + PX_CI.offset() {
            let address = self.trap.address.swap(0, Ordering::Relaxed);
            let window = Window::new(self.region.clone(), port_base(port), PORT_BYTES);
            if let (Ok(mut window), true) = (window, address != 0) {
                self.trap.spring(&mut window, address);
            }
        }
    }
}

macro_rules! accesses {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&self, offset: usize) -> $int {
            self.region.$read(offset)
        }

        fn $write(&mut self, offset: usize, value: $int) {
            self.watch(offset);
            self.region.$write(offset, value);
        }
    )*};
}

impl<R: Registers + Clone> Registers for MisledRegisters<R> {
    fn size_bytes(&self) -> usize {
        self.region.size_bytes()
    }

    accesses! {
        u8: read_u8, write_u8;
        u16: read_u16, write_u16;
        u32: read_u32, write_u32;
        u64: read_u64, write_u64;
    }
}
