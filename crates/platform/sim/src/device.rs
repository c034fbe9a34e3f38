//! The model as a driver sees it: a PCI function.

use crate::hba::HbaModel;
use outboard_ahci::spec::registers::{ABAR, LedMessage, PORT_BYTES, PORTS_BASE};
use outboard_hw::HwError;
use outboard_hw::dma::{Arena, DmaSpace};
use outboard_hw::interrupt::{InterruptKind, VectorRange, Vectors};
use outboard_hw::registers::DwordRegisters;
use outboard_pci::config::{CONVENTIONAL_BYTES, ConfigSpace};
use outboard_pci::{Device, Identity};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of the registers of an HBA with 32 ports, and of an enclosure's buffer.
const ABAR_BYTES: usize = PORTS_BASE + 32 * PORT_BYTES + 4 * LedMessage::DWORDS as usize;
/// Where the command register is in configuration space, and its bit of bus mastering.
const COMMAND: u16 = 0x04;
const BUS_MASTER: u16 = 1 << 2;

/// Keeps a model's time, where that is the time of a clock.
pub(crate) trait Pace: Send + Sync {
    /// A driver is about to access the model.
    fn before(&self, hba: &mut HbaModel);

    /// It has: the model may have something to tell, or to do earlier than was known.
    fn after(&self, hba: &mut HbaModel);
}

/// A handle to a model, and the function that a driver takes.
#[derive(Clone)]
pub struct SimDevice {
    hba: Arc<Mutex<HbaModel>>,
    arena: Arena,
    pace: Option<Arc<dyn Pace>>,
}

impl SimDevice {
    /// The function of `hba`, whose memory is `arena`.
    pub fn new(hba: HbaModel, arena: Arena) -> Self {
        Self { hba: Arc::new(Mutex::new(hba)), arena, pace: None }
    }

    /// The same function, whose time passes as `pace` says.
    pub(crate) fn at_pace(self, pace: Arc<dyn Pace>) -> Self {
        Self { pace: Some(pace), ..self }
    }

    /// The model.
    pub fn hba(&self) -> MutexGuard<'_, HbaModel> {
        self.hba.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An access of the driver's.
    fn access<T>(&self, access: impl FnOnce(&mut HbaModel) -> T) -> T {
        let mut hba = self.hba();
        if let Some(pace) = &self.pace {
            pace.before(&mut hba);
        }
        let result = access(&mut hba);
        if let Some(pace) = &self.pace {
            pace.after(&mut hba);
        }
        result
    }
}

/// The registers of a model.
#[derive(Clone)]
pub struct SimRegisters(SimDevice);

impl DwordRegisters for SimRegisters {
    fn size_bytes(&self) -> usize {
        ABAR_BYTES
    }

    fn read_dword(&self, offset: usize) -> u32 {
        self.0.access(|hba| hba.read(offset))
    }

    fn write_dword(&mut self, offset: usize, value: u32) {
        self.0.access(|hba| hba.write(offset, value));
    }
}

/// Nothing but identity and the command register, and of that nothing but bus mastering.
impl ConfigSpace for SimDevice {
    fn size_bytes(&self) -> u16 {
        CONVENTIONAL_BYTES
    }

    fn read_u8(&mut self, offset: u16) -> u8 {
        (self.read_u32(offset & !3) >> (offset % 4 * 8)) as u8
    }

    fn read_u16(&mut self, offset: u16) -> u16 {
        (self.read_u32(offset & !3) >> (offset % 4 * 8)) as u16
    }

    fn read_u32(&mut self, offset: u16) -> u32 {
        let hba = self.hba();
        let identity = &hba.config().identity;
        let class = identity.class;
        match offset {
            0x00 => u32::from(identity.device) << 16 | u32::from(identity.vendor),
            COMMAND if hba.bus_master() => BUS_MASTER.into(),
            0x08 => u32::from_le_bytes([identity.revision, class.interface, class.sub, class.base]),
            _ => 0,
        }
    }

    fn write_u8(&mut self, _: u16, _: u8) {}

    fn write_u16(&mut self, offset: u16, value: u16) {
        if offset == COMMAND {
            self.access(|hba| hba.set_bus_master(value & BUS_MASTER != 0));
        }
    }

    fn write_u32(&mut self, offset: u16, value: u32) {
        self.write_u16(offset, value as u16);
    }
}

impl Device for SimDevice {
    type Registers = SimRegisters;

    fn identity(&self) -> Identity {
        self.hba().config().identity
    }

    fn config(&mut self) -> &mut dyn ConfigSpace {
        self
    }

    fn map_bar(&mut self, bar: u8) -> Result<SimRegisters, HwError> {
        if bar == ABAR {
            Ok(SimRegisters(self.clone()))
        } else {
            Err(HwError::NoSuchRegion { bar, expected: "the AHCI registers (BAR 5)" })
        }
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::new(self.arena.clone())
    }

    fn enable_interrupts(&mut self, _: VectorRange) -> Result<Vectors, HwError> {
        let kind = if self.hba().config().pin { InterruptKind::Pin } else { InterruptKind::Msi };
        Ok(Vectors { kind, count: 1 })
    }

    fn disable_interrupts(&mut self) {}

    fn reset(&mut self) -> Result<(), HwError> {
        Err(HwError::NoReset("a model has none"))
    }
}

impl core::fmt::Debug for SimDevice {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.hba().fmt(f)
    }
}

impl core::fmt::Debug for SimRegisters {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}
