//! Regions that are accessed by dwords alone.

use super::Registers;

/// A region of registers that is accessed by dwords alone, as the interfaces that know no other
/// access require (AHCI §3).
///
/// It is [`Registers`] with that: 64 bits are two accesses, the lower half first, and nobody
/// answers to fewer than 32.
pub trait DwordRegisters {
    /// Size of the region in bytes.
    fn size_bytes(&self) -> usize;
    /// Reads the dword at `offset`.
    fn read_dword(&self, offset: usize) -> u32;
    /// Writes the dword at `offset`.
    fn write_dword(&mut self, offset: usize, value: u32);
}

impl<T: DwordRegisters> Registers for T {
    fn size_bytes(&self) -> usize {
        DwordRegisters::size_bytes(self)
    }

    fn read_u8(&self, _: usize) -> u8 {
        u8::MAX
    }

    fn read_u16(&self, _: usize) -> u16 {
        u16::MAX
    }

    fn read_u32(&self, offset: usize) -> u32 {
        self.read_dword(offset)
    }

    fn read_u64(&self, offset: usize) -> u64 {
        u64::from(self.read_dword(offset)) | u64::from(self.read_dword(offset + 4)) << 32
    }

    fn write_u8(&mut self, _: usize, _: u8) {}

    fn write_u16(&mut self, _: usize, _: u16) {}

    fn write_u32(&mut self, offset: usize, value: u32) {
        self.write_dword(offset, value);
    }

    fn write_u64(&mut self, offset: usize, value: u64) {
        self.write_dword(offset, value as u32);
        self.write_dword(offset + 4, (value >> 32) as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two([u32; 2]);

    impl DwordRegisters for Two {
        fn size_bytes(&self) -> usize {
            8
        }

        fn read_dword(&self, offset: usize) -> u32 {
            self.0[offset / 4]
        }

        fn write_dword(&mut self, offset: usize, value: u32) {
            self.0[offset / 4] = value;
        }
    }

    #[test]
    fn accesses_of_other_widths_are_dwords_or_nothing() {
        let registers = &mut Two([1, 2]);
        assert_eq!(registers.read_u64(0), 0x2_0000_0001);
        registers.write_u64(0, 0x4_0000_0003);
        registers.write_u8(0, 9);
        registers.write_u16(0, 9);
        assert_eq!(registers.0, [3, 4]);
        assert_eq!((registers.read_u8(0), registers.read_u16(0)), (u8::MAX, u16::MAX));
    }
}
