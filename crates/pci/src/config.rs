//! Configuration space.

mod ecam;
mod ports;

pub use ecam::Ecam;
pub use ports::{PortConfig, PortIo};

use crate::Address;

/// Bytes of configuration space that every function has.
pub const CONVENTIONAL_BYTES: u16 = 256;
/// Bytes of configuration space that a PCI Express function has.
pub const EXTENDED_BYTES: u16 = 4096;

/// The configuration space of one function.
///
/// Offsets are in bytes and naturally aligned. Accesses have exactly the width of the method:
/// a write to the command register must not touch the status register beside it, whose bits are
/// cleared by writing them. What is absent or gone reads as all ones and ignores writes.
pub trait ConfigSpace {
    /// Bytes that can be reached: 256, or 4096.
    fn size_bytes(&self) -> u16;
    /// Reads 8 bits.
    fn read_u8(&mut self, offset: u16) -> u8;
    /// Reads 16 bits.
    fn read_u16(&mut self, offset: u16) -> u16;
    /// Reads 32 bits.
    fn read_u32(&mut self, offset: u16) -> u32;
    /// Writes 8 bits.
    fn write_u8(&mut self, offset: u16, value: u8);
    /// Writes 16 bits.
    fn write_u16(&mut self, offset: u16, value: u16);
    /// Writes 32 bits.
    fn write_u32(&mut self, offset: u16, value: u32);
}

/// The configuration spaces of all functions, under the same rules as [`ConfigSpace`].
pub trait ConfigAccess {
    /// Bytes of each function that can be reached: 256, or 4096.
    fn size_bytes(&self) -> u16;
    /// Reads 8 bits.
    fn read_u8(&mut self, address: Address, offset: u16) -> u8;
    /// Reads 16 bits.
    fn read_u16(&mut self, address: Address, offset: u16) -> u16;
    /// Reads 32 bits.
    fn read_u32(&mut self, address: Address, offset: u16) -> u32;
    /// Writes 8 bits.
    fn write_u8(&mut self, address: Address, offset: u16, value: u8);
    /// Writes 16 bits.
    fn write_u16(&mut self, address: Address, offset: u16, value: u16);
    /// Writes 32 bits.
    fn write_u32(&mut self, address: Address, offset: u16, value: u32);
}

/// One function of a [`ConfigAccess`].
#[derive(Debug)]
pub struct FunctionConfig<'a, A: ?Sized> {
    access: &'a mut A,
    address: Address,
}

impl<'a, A: ConfigAccess + ?Sized> FunctionConfig<'a, A> {
    /// The configuration space at `address`.
    pub const fn new(access: &'a mut A, address: Address) -> Self {
        Self { access, address }
    }
}

macro_rules! forward {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&mut self, offset: u16) -> $int {
            self.access.$read(self.address, offset)
        }
        fn $write(&mut self, offset: u16, value: $int) {
            self.access.$write(self.address, offset, value);
        }
    )*};
}

impl<A: ConfigAccess + ?Sized> ConfigSpace for FunctionConfig<'_, A> {
    fn size_bytes(&self) -> u16 {
        self.access.size_bytes()
    }

    forward! {
        u8: read_u8, write_u8;
        u16: read_u16, write_u16;
        u32: read_u32, write_u32;
    }
}
