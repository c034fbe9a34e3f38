//! Registers, ports and configuration space of the lab.

use crate::qtest::{Qtest, Width};
use outboard_hw::Registers;
use outboard_pci::Address;
use outboard_pci::config::{ConfigSpace, EXTENDED_BYTES, Ecam, FunctionConfig, PortIo};
use std::sync::Arc;

/// Where the machine's ECAM region is put, and how many buses it covers.
pub(crate) const ECAM_BASE: u64 = 0xb000_0000;
const ECAM_BYTES: usize = 256 << 20;

/// A region of the lab's machine, memory-mapped or of ports.
#[derive(Debug, Clone)]
pub struct LabRegisters {
    qtest: Arc<Qtest>,
    base: u64,
    len: usize,
    are_ports: bool,
}

impl LabRegisters {
    pub(crate) const fn new(qtest: Arc<Qtest>, base: u64, len: usize) -> Self {
        Self { qtest, base, len, are_ports: false }
    }

    pub(crate) const fn ports(qtest: Arc<Qtest>, base: u64, len: usize) -> Self {
        Self { qtest, base, len, are_ports: true }
    }

    pub(crate) const fn ecam(qtest: Arc<Qtest>) -> Self {
        Self::new(qtest, ECAM_BASE, ECAM_BYTES)
    }

    fn read(&self, width: Width, bytes: usize, offset: usize) -> u64 {
        match self.place(bytes, offset) {
            Some(address) if self.are_ports => match width {
                // No processor has an instruction for that.
                Width::Quad => u64::MAX,
                _ => self.qtest.port_in(width, address as u16),
            },
            Some(address) => self.qtest.read(width, address),
            None => u64::MAX,
        }
    }

    fn write(&self, width: Width, bytes: usize, offset: usize, value: u64) {
        match self.place(bytes, offset) {
            Some(_) if self.are_ports && width == Width::Quad => {}
            Some(address) if self.are_ports => self.qtest.port_out(width, address as u16, value),
            Some(address) => self.qtest.write(width, address, value),
            None => {}
        }
    }

    fn place(&self, bytes: usize, offset: usize) -> Option<u64> {
        let inside = offset.checked_add(bytes)? <= self.len;
        (inside && offset.is_multiple_of(bytes)).then_some(self.base + offset as u64)
    }
}

macro_rules! through_qtest {
    ($($int:ty: $read:ident, $write:ident, $width:ident;)*) => {$(
        fn $read(&self, offset: usize) -> $int {
            self.read(Width::$width, size_of::<$int>(), offset) as $int
        }
        fn $write(&mut self, offset: usize, value: $int) {
            self.write(Width::$width, size_of::<$int>(), offset, value.into());
        }
    )*};
}

impl Registers for LabRegisters {
    fn size_bytes(&self) -> usize {
        self.len
    }

    through_qtest! {
        u8: read_u8, write_u8, Byte;
        u16: read_u16, write_u16, Word;
        u32: read_u32, write_u32, Long;
        u64: read_u64, write_u64, Quad;
    }
}

/// The ports of the lab's machine.
#[derive(Debug, Clone)]
pub(crate) struct LabPorts(pub(crate) Arc<Qtest>);

macro_rules! through_ports {
    ($($int:ty: $in:ident, $out:ident, $width:ident;)*) => {$(
        fn $in(&mut self, port: u16) -> $int {
            self.0.port_in(Width::$width, port) as $int
        }
        fn $out(&mut self, port: u16, value: $int) {
            self.0.port_out(Width::$width, port, value.into());
        }
    )*};
}

impl PortIo for LabPorts {
    through_ports! {
        u8: in_u8, out_u8, Byte;
        u16: in_u16, out_u16, Word;
        u32: in_u32, out_u32, Long;
    }
}

/// The configuration space of one function of the lab.
#[derive(Debug)]
pub(crate) struct LabConfigSpace {
    ecam: Ecam<LabRegisters>,
    address: Address,
}

impl LabConfigSpace {
    pub(crate) const fn new(ecam: Ecam<LabRegisters>, address: Address) -> Self {
        Self { ecam, address }
    }
}

macro_rules! through_ecam {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&mut self, offset: u16) -> $int {
            FunctionConfig::new(&mut self.ecam, self.address).$read(offset)
        }
        fn $write(&mut self, offset: u16, value: $int) {
            FunctionConfig::new(&mut self.ecam, self.address).$write(offset, value);
        }
    )*};
}

impl ConfigSpace for LabConfigSpace {
    fn size_bytes(&self) -> u16 {
        EXTENDED_BYTES
    }

    through_ecam! {
        u8: read_u8, write_u8;
        u16: read_u16, write_u16;
        u32: read_u32, write_u32;
    }
}
