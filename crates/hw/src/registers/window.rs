//! A block of registers inside a region.

use super::Registers;
use crate::HwError;

/// A block inside a region: offsets count from the block's start, and stop at its end.
#[derive(Debug, Clone)]
pub struct Window<R> {
    region: R,
    base: usize,
    len: usize,
}

impl<R: Registers> Window<R> {
    /// The block of `len` bytes at `base`, checked once against the region.
    pub fn new(region: R, base: usize, len: usize) -> Result<Self, HwError> {
        let size = region.size_bytes();
        if base.checked_add(len).is_none_or(|end| end > size) {
            return Err(HwError::OutsideRegion { offset: base, len, region: size });
        }
        Ok(Self { region, base, len })
    }

    /// Where an access of `width` bytes at `offset` lands in the region.
    fn place(&self, offset: usize, width: usize) -> Option<usize> {
        let end = offset.checked_add(width)?;
        (end <= self.len).then_some(self.base + offset)
    }
}

macro_rules! window_access {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&self, offset: usize) -> $int {
            match self.place(offset, size_of::<$int>()) {
                Some(offset) => self.region.$read(offset),
                None => <$int>::MAX,
            }
        }
        fn $write(&mut self, offset: usize, value: $int) {
            if let Some(offset) = self.place(offset, size_of::<$int>()) {
                self.region.$write(offset, value);
            }
        }
    )*};
}

impl<R: Registers> Registers for Window<R> {
    fn size_bytes(&self) -> usize {
        self.len
    }

    window_access! {
        u8: read_u8, write_u8;
        u16: read_u16, write_u16;
        u32: read_u32, write_u32;
        u64: read_u64, write_u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ReadWrite, Register, RegistersExt};
    use super::*;
    use std::vec::Vec;

    /// Plain memory as a region of registers.
    #[derive(Debug, Clone)]
    struct Memory(Vec<u8>);

    macro_rules! memory_access {
        ($($int:ty: $read:ident, $write:ident;)*) => {$(
            fn $read(&self, offset: usize) -> $int {
                <$int>::from_le_bytes(self.0[offset..][..size_of::<$int>()].try_into().unwrap())
            }
            fn $write(&mut self, offset: usize, value: $int) {
                self.0[offset..][..size_of::<$int>()].copy_from_slice(&value.to_le_bytes());
            }
        )*};
    }

    impl Registers for Memory {
        fn size_bytes(&self) -> usize {
            self.0.len()
        }
        memory_access! {
            u8: read_u8, write_u8;
            u16: read_u16, write_u16;
            u32: read_u32, write_u32;
            u64: read_u64, write_u64;
        }
    }

    #[test]
    fn a_window_shifts_offsets_and_stops_at_its_end() {
        let mut window = Window::new(Memory((0..32).collect()), 8, 8).unwrap();
        assert_eq!(window.read_u8(0), 8);
        assert_eq!(window.read_u32(4), 0x0f0e_0d0c);
        assert_eq!(window.read_u64(0), 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(window.read_u32(8), u32::MAX, "past the end reads as all ones");
        assert_eq!(window.read_u64(usize::MAX), u64::MAX);
        window.write_u32(8, 0);
        assert_eq!(window.region.0[16..20], [16, 17, 18, 19], "past the end writes nothing");
    }

    #[test]
    fn a_window_that_does_not_fit_is_refused() {
        let region = Memory(std::vec![0; 16]);
        let refused = Window::new(region.clone(), 12, 8).unwrap_err();
        assert_eq!(refused, HwError::OutsideRegion { offset: 12, len: 8, region: 16 });
        assert!(Window::new(region, usize::MAX, 2).is_err());
    }

    #[test]
    fn typed_registers_use_their_own_width() {
        const WIDE: Register<u64, ReadWrite> = Register::at(0);
        const NARROW: Register<u8, ReadWrite> = Register::at(1);
        let mut region = Memory(std::vec![0; 8]);
        region.set(WIDE, 0x1122_3344_5566_7788);
        region.set(NARROW, 0xff);
        assert_eq!(region.get(WIDE), 0x1122_3344_5566_ff88);
    }
}
