//! Functions and buses made of plain memory, for tests.

use crate::bridge::Buses;
use crate::{Address, ConfigAccess, ConfigSpace};
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

/// One function: bytes, and which of their bits can be written.
#[derive(Debug, Clone)]
pub(crate) struct FakeFunction {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    /// The offsets of all writes so far.
    pub(crate) written: Vec<u16>,
    /// No read has followed the last write, which may still be on its way.
    pub(crate) posted: bool,
}

impl FakeFunction {
    fn new(vendor: u16, device: u16) -> Self {
        let (bytes, writable) = (vec![0; 4096], vec![0; 4096]);
        let mut function = Self { bytes, writable, written: Vec::new(), posted: false };
        function.poke(0, u32::from(device) << 16 | u32::from(vendor));
        function.writable[0x04..0x06].fill(0xff);
        function.writable[0x40..].fill(0xff);
        function
    }

    pub(crate) fn endpoint(vendor: u16, device: u16) -> Self {
        Self::new(vendor, device)
    }

    /// A bridge with 32-bit I/O and 64-bit prefetchable windows.
    pub(crate) fn bridge() -> Self {
        let mut bridge = Self::new(0x1b36, 0x000c);
        bridge.set_fixed(0x08, 0x0604_0000);
        bridge.set_fixed(0x0c, 0x0001_0000);
        bridge.writable[0x18..0x1b].fill(0xff);
        for (offset, bits, mask) in [(0x1c, 0x0101, 0xf0f0), (0x24, 0x1_0001, 0xfff0_fff0)] {
            bridge.poke(offset, bits);
            bridge.set_writable(offset, mask);
        }
        bridge.set_writable(0x20, 0xfff0_fff0);
        bridge.writable[0x28..0x34].fill(0xff);
        bridge
    }

    fn set_writable(&mut self, offset: u16, mask: u32) {
        self.writable[usize::from(offset)..][..4].copy_from_slice(&mask.to_le_bytes());
    }

    /// Sets a word whatever can be written of it.
    pub(crate) fn poke(&mut self, offset: u16, value: u32) {
        self.bytes[usize::from(offset)..][..4].copy_from_slice(&value.to_le_bytes());
    }

    /// Sets a word that then cannot be written, but for the command register.
    pub(crate) fn set_fixed(&mut self, offset: u16, value: u32) {
        self.poke(offset, value);
        if offset != 0x04 {
            self.set_writable(offset, 0);
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    pub(crate) fn bar_io(&mut self, index: u16, ports: u32) {
        self.poke(0x10 + index * 4, 1);
        self.set_writable(0x10 + index * 4, ports.wrapping_neg() & !3);
    }

    pub(crate) fn bar_memory32(&mut self, index: u16, bytes: u32, prefetchable: bool) {
        self.poke(0x10 + index * 4, u32::from(prefetchable) << 3);
        self.set_writable(0x10 + index * 4, bytes.wrapping_neg() & !0xf);
    }

    pub(crate) fn bar_memory64(&mut self, index: u16, bytes: u64, prefetchable: bool) {
        let mask = bytes.wrapping_neg();
        self.poke(0x10 + index * 4, 0b100 | u32::from(prefetchable) << 3);
        self.set_writable(0x10 + index * 4, mask as u32 & !0xf);
        self.set_writable(0x14 + index * 4, (mask >> 32) as u32);
    }

    fn write(&mut self, offset: u16, value: &[u8]) {
        self.written.push(offset);
        self.posted = true;
        for (offset, byte) in (usize::from(offset)..).zip(value) {
            let mask = self.writable[offset];
            self.bytes[offset] = self.bytes[offset] & !mask | byte & mask;
        }
    }
}

macro_rules! memory {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&mut self, offset: u16) -> $int {
            self.posted = false;
            let bytes = &self.bytes[usize::from(offset)..][..size_of::<$int>()];
            <$int>::from_le_bytes(bytes.try_into().unwrap())
        }
        fn $write(&mut self, offset: u16, value: $int) {
            self.write(offset, &value.to_le_bytes());
        }
    )*};
}

impl ConfigSpace for FakeFunction {
    fn size_bytes(&self) -> u16 {
        4096
    }
    memory! { u8: read_u8, write_u8; u16: read_u16, write_u16; u32: read_u32, write_u32; }
}

/// Where a function is plugged in: the bridges on the way, then device and function.
type Place = (Vec<(u8, u8)>, u8, u8);

/// Functions behind bridges, found through the bus numbers that the bridges have been given.
#[derive(Debug, Default)]
pub(crate) struct FakeBus {
    functions: BTreeMap<Place, FakeFunction>,
}

impl FakeBus {
    pub(crate) fn add(
        &mut self,
        path: &[(u8, u8)],
        device: u8,
        number: u8,
        function: FakeFunction,
    ) {
        self.functions.insert((path.to_vec(), device, number), function);
    }

    fn route(&mut self, address: Address) -> Option<&mut FakeFunction> {
        let mut path = Vec::new();
        let mut bus = 0;
        while bus != address.bus {
            let bridges = self.functions.iter_mut().filter(|((at, _, _), _)| *at == path);
            let next = bridges.filter_map(|((_, device, number), function)| {
                let buses = Buses::read(function);
                let behind = (buses.secondary..=buses.subordinate).contains(&address.bus);
                let bridge = function.read_u8(0x0e) & 0x7f == 1;
                (bridge && buses.secondary > bus && behind)
                    .then_some((buses.secondary, (*device, *number)))
            });
            let (secondary, step) = next.into_iter().next()?;
            path.push(step);
            bus = secondary;
        }
        self.functions.get_mut(&(path, address.device(), address.function()))
    }
}

macro_rules! routed {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&mut self, address: Address, offset: u16) -> $int {
            self.route(address).map_or(<$int>::MAX, |function| function.$read(offset))
        }
        fn $write(&mut self, address: Address, offset: u16, value: $int) {
            if let Some(function) = self.route(address) {
                function.$write(offset, value);
            }
        }
    )*};
}

impl ConfigAccess for FakeBus {
    fn size_bytes(&self) -> u16 {
        4096
    }
    routed! { u8: read_u8, write_u8; u16: read_u16, write_u16; u32: read_u32, write_u32; }
}
