//! Pieces of a buffer whose length is known when the program is compiled.
#![allow(unsafe_code)]

use super::address::DeviceAddress;
use super::buffer::DmaBuffer;
use super::copy;
use core::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A buffer as a row of pieces, each of which begins `stride` bytes behind the one before it, and of
/// whose first `BYTES` bytes something is known to be in fixed places.
///
/// Where the pieces are is looked at once, so that what is left to be looked at is which one it is: for
/// structures of a device that are written with each transfer.
#[derive(Debug)]
pub struct DmaBlocks<const BYTES: usize> {
    buffer: DmaBuffer,
    stride: usize,
    count: usize,
}

impl<const BYTES: usize> DmaBlocks<BYTES> {
    /// As many as fit into a buffer; panics unless it begins at a multiple of 8, and `stride` is one
    /// that is no shorter than the pieces.
    pub fn new(buffer: DmaBuffer, stride: usize) -> Self {
        assert!(stride >= BYTES && stride.is_multiple_of(copy::WORD), "{stride} bytes apart");
        assert!(buffer.raw().cpu.addr().get().is_multiple_of(copy::WORD), "{buffer:?}");
        let count = (buffer.len() + stride - BYTES) / stride;
        Self { buffer, stride, count }
    }

    /// The whole buffer.
    #[inline]
    pub const fn buffer(&self) -> &DmaBuffer {
        &self.buffer
    }

    /// The whole buffer.
    #[inline]
    pub const fn buffer_mut(&mut self) -> &mut DmaBuffer {
        &mut self.buffer
    }

    /// Where in the buffer the piece with this number begins, if there is one.
    #[inline]
    pub const fn offset_of(&self, number: usize) -> usize {
        self.stride * number
    }

    /// A piece, if there is one with this number.
    #[inline]
    pub fn block(&mut self, number: usize) -> Option<DmaBlock<'_, BYTES>> {
        let (cpu, device) = self.place(number)?;
        Some(DmaBlock { cpu, device, buffer: PhantomData })
    }

    /// Copies a plain value out that is at `AT` of a piece, if there is one with this number.
    #[inline]
    pub fn read<const AT: usize, T: FromBytes + IntoBytes>(&self, number: usize) -> Option<T> {
        const { assert!(AT <= BYTES && size_of::<T>() <= BYTES - AT, "it lies in the piece") };
        let (cpu, _) = self.place(number)?;
        let mut value = T::new_zeroed();
        // SAFETY: `place` keeps the piece within the buffer, which is valid by S1.
        unsafe { copy::copy_out(cpu.wrapping_add(AT), value.as_mut_bytes()) };
        Some(value)
    }

    /// Where processor and device find a piece, all of whose `BYTES` bytes are the buffer's.
    #[inline]
    fn place(&self, number: usize) -> Option<(*mut u8, u64)> {
        if number >= self.count {
            return None;
        }
        // It cannot overflow, as the last one's end lies in the buffer.
        let (raw, at) = (self.buffer.raw(), number * self.stride);
        Some((raw.cpu.as_ptr().wrapping_add(at), raw.device + at as u64))
    }
}

/// One piece of a [`DmaBlocks`]: what is at fixed places in it is written without a look at where these
/// are.
#[derive(Debug)]
pub struct DmaBlock<'a, const BYTES: usize> {
    /// `BYTES` bytes of a buffer (S1, S2), from a multiple of [`copy::WORD`] on.
    cpu: *mut u8,
    /// Where the device finds them (S4).
    device: u64,
    buffer: PhantomData<&'a mut DmaBuffer>,
}

impl<const BYTES: usize> DmaBlock<'_, BYTES> {
    /// Where the device finds the byte at `AT`.
    #[inline]
    pub const fn address_of<const AT: usize>(&self) -> DeviceAddress {
        const { assert!(AT < BYTES, "it lies in the piece") };
        DeviceAddress::new(self.device + AT as u64)
    }

    /// Copies a plain value to `AT`, a multiple of 8.
    #[inline]
    pub fn write<const AT: usize, T: IntoBytes + Immutable>(&mut self, value: &T) {
        const { assert!(AT <= BYTES && size_of::<T>() <= BYTES - AT, "it lies in the piece") };
        const { assert!(AT.is_multiple_of(copy::WORD), "it begins at a word") };
        // SAFETY: the value lies within the piece, which is valid by S1, and at a word of it.
        unsafe { copy::copy_in_words(value.as_bytes(), self.cpu.wrapping_add(AT)) }
    }

    /// Copies a plain value to `AT`, a multiple of 8, unless it is there: who else reads it finds it
    /// in its cache then. What is there decides nothing else, as the device may change it at any time.
    #[inline(always)]
    pub fn update<const AT: usize, T: IntoBytes + Immutable>(&mut self, value: &T) {
        const { assert!(AT <= BYTES && size_of::<T>() <= BYTES - AT, "it lies in the piece") };
        // SAFETY: the value lies within the piece, which is valid by S1.
        if !unsafe { copy::is_there(value.as_bytes(), self.cpu.wrapping_add(AT)) } {
            self.write::<AT, T>(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::tests::arena;
    use super::super::{Constraints, DmaSpace};
    use super::*;

    fn blocks<const BYTES: usize>(len: usize, stride: usize) -> DmaBlocks<BYTES> {
        DmaBlocks::new(arena(8192).allocate(len, &Constraints::NONE).unwrap(), stride)
    }

    #[test]
    fn pieces_are_written_where_the_device_finds_them() {
        let mut blocks = blocks::<24>(100, 40);
        let start = blocks.buffer().address().bits();
        let mut block = blocks.block(1).unwrap();
        block.write::<0, _>(&[1u64, 2]);
        block.write::<16, _>(&3u8);
        assert_eq!(block.address_of::<16>().bits(), start + 56);
        let mut bytes = [0; 24];
        blocks.buffer().read_bytes(40, &mut bytes);
        assert_eq!((bytes[0], bytes[8], bytes[16], bytes[17]), (1, 2, 3, 0));
        assert_eq!(blocks.read::<16, u8>(1), Some(3));
        assert_eq!(blocks.read::<0, u64>(0), Some(0));
    }

    #[test]
    fn what_is_there_is_left_and_what_is_not_is_written() {
        let mut blocks = blocks::<16>(32, 16);
        for value in [[1u64, 2], [1, 2], [3, 2], [3, 4], [0, 0]] {
            blocks.block(1).unwrap().update::<0, _>(&value);
            assert_eq!(blocks.read::<0, [u64; 2]>(1), Some(value));
        }
        assert_eq!(blocks.read::<0, [u64; 2]>(0), Some([0, 0]));
    }

    #[test]
    fn there_are_as_many_as_fit_into_the_buffer() {
        // The last one may end before the next would begin.
        for (len, count) in [(23, 0), (24, 1), (63, 1), (64, 2), (4096, 102), (4104, 103)] {
            let mut blocks = blocks::<24>(len, 40);
            assert!(count == 0 || blocks.block(count - 1).is_some(), "{len}");
            assert!(blocks.block(count).is_none(), "{len}");
            assert_eq!(blocks.read::<0, u64>(count), None);
            assert!(blocks.block(usize::MAX).is_none());
        }
    }
}
