//! The model as a driver sees it: a PCI function (§4.1).

use super::legacy::PORT_BYTES;
use super::space::SPACE_BYTES;
use super::{VirtioFace, VirtioModel};
use crate::fault::VirtioFault;
use outboard_hw::dma::{Arena, DmaSpace};
use outboard_hw::interrupt::{InterruptKind, VectorRange, Vectors};
use outboard_hw::{HwError, Registers};
use outboard_pci::capability::id;
use outboard_pci::config::{CONVENTIONAL_BYTES, ConfigSpace};
use outboard_pci::header::{CAPABILITIES, COMMAND, Command, STATUS, STATUS_CAPABILITIES};
use outboard_pci::{Class, Device, Identity};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::pci::{
    COMMON_BYTES_WITH_RESET, KIND_BLOCK, MODERN_DEVICES, TRANSITIONAL_BLOCK, VENDOR, capability,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The base address register of the ports of older devices.
const PORTS_BAR: u8 = 0;
/// The base address register of all structures.
const BAR: u8 = 4;
/// Where each structure is in it, a page each: common configuration, ISR status, the disk's
/// configuration, notifications.
const STRUCTURE_BYTES: usize = 0x1000;
const COMMON: usize = 0;
const ISR: usize = 1;
const SPACE: usize = 2;
const NOTIFY: usize = 3;
/// How far apart queues' notifications are.
const NOTIFY_MULTIPLIER: usize = 4;
/// Where the first capability is that tells the truth, and the first that does not.
const FIRST_CAPABILITY: u16 = 0x40;
const FIRST_LIE: u16 = 0xa0;
/// Bytes of a capability, with room for the multiplier behind it.
const CAPABILITY_BYTES: u16 = 0x14;

/// A handle to a model, and the function that a driver takes.
#[derive(Debug, Clone)]
pub struct VirtioDevice {
    model: Arc<Mutex<VirtioModel>>,
    arena: Arena,
}

impl VirtioDevice {
    /// The function of `model`, whose memory is `arena`.
    pub fn new(model: VirtioModel, arena: Arena) -> Self {
        Self { model: Arc::new(Mutex::new(model)), arena }
    }

    /// The model.
    pub fn model(&self) -> MutexGuard<'_, VirtioModel> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the function says it is (§4.1.2).
const fn identity(face: VirtioFace) -> Identity {
    let (device, revision) = match face {
        VirtioFace::Modern => (MODERN_DEVICES + KIND_BLOCK, 1),
        VirtioFace::Transitional | VirtioFace::Legacy => (TRANSITIONAL_BLOCK, 0),
    };
    let class = Class { base: 1, sub: 0x80, interface: 0 };
    Identity { vendor: VENDOR, device, subsystem: None, class, revision }
}

/// A capability that says where a structure is (§4.1.4).
#[derive(Debug, Clone, Copy)]
struct Named {
    kind: u8,
    bar: u8,
    offset: usize,
    bytes: usize,
}

/// All that lead to a structure.
const NAMED: [Named; 4] = [
    Named { kind: capability::COMMON, bar: BAR, offset: 0, bytes: COMMON_BYTES_WITH_RESET },
    Named { kind: capability::ISR, bar: BAR, offset: ISR * STRUCTURE_BYTES, bytes: 1 },
    Named {
        kind: capability::DEVICE,
        bar: BAR,
        offset: SPACE * STRUCTURE_BYTES,
        bytes: SPACE_BYTES,
    },
    Named {
        kind: capability::NOTIFY,
        bar: BAR,
        offset: NOTIFY * STRUCTURE_BYTES,
        bytes: STRUCTURE_BYTES,
    },
];

/// The capability that a fault adds.
const fn lie(fault: VirtioFault) -> Option<Named> {
    let right = NAMED[0];
    match fault {
        VirtioFault::CapabilityNoBar => Some(Named { bar: 2, ..right }),
        VirtioFault::CapabilityEmpty => Some(Named { bytes: 0, ..right }),
        VirtioFault::CapabilityBeyond => Some(Named { offset: 0x3ffc, ..right }),
        VirtioFault::CapabilityUnaligned => Some(Named { offset: 0x101, ..right }),
        _ => None,
    }
}

impl VirtioModel {
    /// The configuration space, but for what is written to it.
    fn config_bytes(&self) -> [u8; CONVENTIONAL_BYTES as usize] {
        let mut bytes = [0; CONVENTIONAL_BYTES as usize];
        let mut put = |at: u16, value: &[u8]| {
            bytes[usize::from(at)..][..value.len()].copy_from_slice(value);
        };
        let identity = identity(self.config.face);
        put(0, &identity.vendor.to_le_bytes());
        put(2, &identity.device.to_le_bytes());
        let command = if self.bus_master { Command::BUS_MASTER } else { Command::empty() };
        put(COMMAND, &(command | Command::MEMORY).bits().to_le_bytes());
        let class = identity.class;
        put(0x08, &[identity.revision, class.interface, class.sub, class.base]);
        if self.config.face == VirtioFace::Legacy {
            return bytes;
        }
        put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        let lies = self.for_good.iter().filter_map(|fault| lie(*fault));
        let lies = (0..).map(|number| FIRST_LIE + CAPABILITY_BYTES * number).zip(lies);
        let truths = (0..).map(|number| FIRST_CAPABILITY + CAPABILITY_BYTES * number).zip(NAMED);
        let all: Vec<_> = lies.chain(truths).collect();
        put(CAPABILITIES, &[all[0].0 as u8]);
        let loops = self.for_good.contains(&VirtioFault::CapabilityLoop);
        for (index, (at, named)) in all.iter().enumerate() {
            let next = match all.get(index + 1) {
                Some((next, _)) => *next as u8,
                None if loops => all[0].0 as u8,
                None => 0,
            };
            put(*at, &[id::VENDOR, next, CAPABILITY_BYTES as u8, named.kind, named.bar]);
            put(at + capability::OFFSET, &(named.offset as u32).to_le_bytes());
            put(at + capability::LENGTH, &(named.bytes as u32).to_le_bytes());
            let multiplier = NOTIFY_MULTIPLIER as u32;
            put(at + capability::NOTIFY_MULTIPLIER, &multiplier.to_le_bytes());
        }
        bytes
    }

    fn read_config(&self, offset: u16, bytes: usize) -> u32 {
        let space = self.config_bytes();
        let found = space.get(usize::from(offset)..usize::from(offset) + bytes);
        let Some(found) = found.filter(|_| !self.removed) else { return u32::MAX };
        let mut value = [0; 4];
        value[..bytes].copy_from_slice(found);
        u32::from_le_bytes(value)
    }

    fn write_command(&mut self, command: Command) {
        self.bus_master = command.contains(Command::BUS_MASTER) && !self.removed;
        if !self.bus_master {
            self.messages.clear();
        }
    }

    fn read(&mut self, offset: usize, bytes: usize) -> u64 {
        if self.removed || !offset.is_multiple_of(bytes) {
            return u64::MAX;
        }
        let within = offset % STRUCTURE_BYTES;
        match offset / STRUCTURE_BYTES {
            COMMON if within < COMMON_BYTES_WITH_RESET => self.read_common(within, bytes),
            ISR if (within, bytes) == (0, 1) => self.read_isr().into(),
            SPACE if within + bytes <= SPACE_BYTES => self.read_space(within, bytes),
            _ => {
                self.violation(format_args!("{bytes} bytes are read at {offset:#x}"));
                u64::MAX
            }
        }
    }

    fn write(&mut self, offset: usize, bytes: usize, value: u64) {
        if self.removed || !offset.is_multiple_of(bytes) {
            return;
        }
        let within = offset % STRUCTURE_BYTES;
        let width = match self.agreed().contains(Features::NOTIFICATION_DATA) {
            // What was agreed upon it has forgotten, of which the driver does not know.
            _ if self.lost => bytes,
            true => 4,
            false => 2,
        };
        match offset / STRUCTURE_BYTES {
            COMMON if within < COMMON_BYTES_WITH_RESET => self.write_common(within, bytes, value),
            SPACE if within + bytes <= SPACE_BYTES => self.write_space(within, bytes, value),
            NOTIFY if bytes == width && within.is_multiple_of(NOTIFY_MULTIPLIER) => {
                self.notified(within / NOTIFY_MULTIPLIER, value as u32);
            }
            _ => self.violation(format_args!("{bytes} bytes are written at {offset:#x}")),
        }
    }
}

/// The registers of a model.
#[derive(Debug, Clone)]
pub struct VirtioRegisters {
    device: VirtioDevice,
    /// Those from before virtio 1.0.
    ports: bool,
}

impl VirtioRegisters {
    fn read(&self, offset: usize, bytes: usize) -> u64 {
        let mut model = self.device.model();
        if self.ports { model.read_ports(offset, bytes) } else { model.read(offset, bytes) }
    }

    fn write(&self, offset: usize, bytes: usize, value: u64) {
        let mut model = self.device.model();
        match self.ports {
            true => model.write_ports(offset, bytes, value),
            false => model.write(offset, bytes, value),
        }
    }
}

macro_rules! accesses {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&self, offset: usize) -> $int {
            VirtioRegisters::read(self, offset, size_of::<$int>()) as $int
        }
        fn $write(&mut self, offset: usize, value: $int) {
            VirtioRegisters::write(self, offset, size_of::<$int>(), value.into());
        }
    )*};
}

impl Registers for VirtioRegisters {
    fn size_bytes(&self) -> usize {
        if self.ports { PORT_BYTES } else { (NOTIFY + 1) * STRUCTURE_BYTES }
    }

    accesses! {
        u8: read_u8, write_u8;
        u16: read_u16, write_u16;
        u32: read_u32, write_u32;
        u64: read_u64, write_u64;
    }
}

impl ConfigSpace for VirtioDevice {
    fn size_bytes(&self) -> u16 {
        CONVENTIONAL_BYTES
    }

    fn read_u8(&mut self, offset: u16) -> u8 {
        self.model().read_config(offset, 1) as u8
    }

    fn read_u16(&mut self, offset: u16) -> u16 {
        self.model().read_config(offset, 2) as u16
    }

    fn read_u32(&mut self, offset: u16) -> u32 {
        self.model().read_config(offset, 4)
    }

    fn write_u8(&mut self, _: u16, _: u8) {}

    fn write_u16(&mut self, offset: u16, value: u16) {
        if offset == COMMAND {
            self.model().write_command(Command::from_bits_retain(value));
        }
    }

    fn write_u32(&mut self, offset: u16, value: u32) {
        self.write_u16(offset, value as u16);
    }
}

impl Device for VirtioDevice {
    type Registers = VirtioRegisters;

    fn identity(&self) -> Identity {
        identity(self.model().config().face)
    }

    fn config(&mut self) -> &mut dyn ConfigSpace {
        self
    }

    fn map_bar(&mut self, bar: u8) -> Result<VirtioRegisters, HwError> {
        let there = self.model().config().face != VirtioFace::Legacy;
        match bar == BAR && there {
            true => Ok(VirtioRegisters { device: self.clone(), ports: false }),
            false => Err(HwError::NoSuchRegion { bar, expected: "the virtio structures (BAR 4)" }),
        }
    }

    fn open_ports(&mut self, bar: u8) -> Result<VirtioRegisters, HwError> {
        let there = self.model().config().face != VirtioFace::Modern;
        match bar == PORTS_BAR && there {
            true => Ok(VirtioRegisters { device: self.clone(), ports: true }),
            false => Err(HwError::NoSuchRegion { bar, expected: "ports of a draft (BAR 0)" }),
        }
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::new(self.arena.clone())
    }

    fn enable_interrupts(&mut self, wanted: VectorRange) -> Result<Vectors, HwError> {
        let there = self.model().config().vectors;
        self.model().msix = there > 0;
        let kind = if there == 0 { InterruptKind::Pin } else { InterruptKind::MsiX };
        Ok(Vectors { kind, count: there.clamp(1, wanted.max) })
    }

    fn disable_interrupts(&mut self) {
        let mut model = self.model();
        model.msix = false;
        model.messages.clear();
    }

    fn reset(&mut self) -> Result<(), HwError> {
        Err(HwError::NoReset("a model has none"))
    }
}
