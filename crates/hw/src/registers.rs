//! Device registers: a mapped region, and typed registers as constants over it.
//!
//! ```
//! use outboard_hw::registers::{ReadOnly, ReadWrite, Register, Registers, RegistersExt};
//!
//! /// Version, at offset 0x10.
//! const VERSION: Register<u32, ReadOnly> = Register::at(0x10);
//! const CONTROL: Register<u32, ReadWrite> = Register::at(0x04);
//!
//! fn enable(device: &mut impl Registers) -> u32 {
//!     device.set(CONTROL, device.get(CONTROL) | 1 << 31);
//!     device.get(VERSION)
//! }
//! ```
//!
//! Writing a [`ReadOnly`] register does not compile.

mod counted;
mod dwords;
mod window;

pub use counted::{AccessCounts, Counted};
pub use dwords::DwordRegisters;
pub use window::Window;

use core::marker::PhantomData;

/// A region of device registers, such as a mapped base address register.
///
/// Accesses are little-endian and made with exactly the width of the method: hardware tells a
/// 64-bit access from two 32-bit ones. Offsets are in bytes and must be naturally aligned and
/// inside the region; otherwise a read gives all ones and a write does nothing, which is what a
/// bus does with an address that nobody claims.
///
/// A device that is gone reads as all ones. No access fails, blocks for long or panics.
///
/// **Order.** A write reaches the device after everything that this thread stored to DMA memory
/// before it, and a load from DMA memory after a read sees what the device stored before it
/// answered that read. Writes may be posted; a read of the same device flushes them.
pub trait Registers {
    /// Size of the region in bytes.
    fn size_bytes(&self) -> usize;
    /// Reads 8 bits.
    fn read_u8(&self, offset: usize) -> u8;
    /// Reads 16 bits.
    fn read_u16(&self, offset: usize) -> u16;
    /// Reads 32 bits.
    fn read_u32(&self, offset: usize) -> u32;
    /// Reads 64 bits.
    fn read_u64(&self, offset: usize) -> u64;
    /// Writes 8 bits.
    fn write_u8(&mut self, offset: usize, value: u8);
    /// Writes 16 bits.
    fn write_u16(&mut self, offset: usize, value: u16);
    /// Writes 32 bits.
    fn write_u32(&mut self, offset: usize, value: u32);
    /// Writes 64 bits.
    fn write_u64(&mut self, offset: usize, value: u64);
}

/// A value that a register holds: an integer, or a bit field over one.
///
/// Implement it for a bit field with [`register_value!`](crate::register_value).
pub trait RegisterValue: Copy {
    /// Reads the register at `offset` with the value's own width.
    fn load<R: Registers + ?Sized>(registers: &R, offset: usize) -> Self;
    /// Writes the register at `offset` with the value's own width.
    fn store<R: Registers + ?Sized>(self, registers: &mut R, offset: usize);
}

macro_rules! integer_value {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        impl RegisterValue for $int {
            fn load<R: Registers + ?Sized>(registers: &R, offset: usize) -> Self {
                registers.$read(offset)
            }
            fn store<R: Registers + ?Sized>(self, registers: &mut R, offset: usize) {
                registers.$write(offset, self);
            }
        }
    )*};
}

integer_value! {
    u8: read_u8, write_u8;
    u16: read_u16, write_u16;
    u32: read_u32, write_u32;
    u64: read_u64, write_u64;
}

/// Makes bit-field types usable as register values: `register_value!(Control: u32, Status: u32)`.
///
/// The types need `From<int>` in both directions, as `bitfield_struct` generates.
#[macro_export]
macro_rules! register_value {
    ($($name:ty: $int:ty),* $(,)?) => {$(
        impl $crate::registers::RegisterValue for $name {
            fn load<R: $crate::Registers + ?Sized>(registers: &R, offset: usize) -> Self {
                Self::from(<$int as $crate::registers::RegisterValue>::load(registers, offset))
            }
            fn store<R: $crate::Registers + ?Sized>(self, registers: &mut R, offset: usize) {
                let bits: $int = self.into();
                $crate::registers::RegisterValue::store(bits, registers, offset);
            }
        }
    )*};
}

/// Access marker: the register can only be read.
#[derive(Debug)]
pub enum ReadOnly {}
/// Access marker: the register can be read and written.
#[derive(Debug)]
pub enum ReadWrite {}

mod sealed {
    /// Registers that software may write.
    pub trait Writable {}
    impl Writable for super::ReadWrite {}
}

/// One register: an offset, the type of its value, and how it may be accessed.
#[derive(Debug)]
pub struct Register<V, A> {
    offset: usize,
    _value: PhantomData<fn() -> (V, A)>,
}

impl<V, A> Clone for Register<V, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V, A> Copy for Register<V, A> {}

impl<V, A> Register<V, A> {
    /// The register at `offset` bytes from the start of its block.
    pub const fn at(offset: usize) -> Self {
        Self { offset, _value: PhantomData }
    }

    /// Offset in bytes from the start of its block.
    pub const fn offset(self) -> usize {
        self.offset
    }
}

/// Typed access to [`Registers`].
pub trait RegistersExt: Registers {
    /// Reads a register.
    fn get<V: RegisterValue, A>(&self, register: Register<V, A>) -> V {
        V::load(self, register.offset)
    }

    /// Writes a register.
    fn set<V: RegisterValue, A: sealed::Writable>(&mut self, register: Register<V, A>, value: V) {
        value.store(self, register.offset);
    }
}

impl<R: Registers + ?Sized> RegistersExt for R {}
