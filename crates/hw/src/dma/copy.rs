//! Copies between ordinary memory and memory that a device may be using at the same time.
//!
//! An ordinary `memcpy` promises the compiler that nobody else writes the memory meanwhile. Of DMA
//! memory that is not true, so long copies are made by an instruction that the compiler cannot see
//! into, and short ones by volatile accesses.
#![allow(unsafe_code)]

/// From this length on, the string instruction's start-up cost is worth it.
const STRING_FROM: usize = 64;
const WORD: usize = size_of::<u64>();
const HALF: usize = size_of::<u32>();

/// Copies `into.len()` bytes out of DMA memory.
///
/// # Safety
/// `from` is valid for reads of `into.len()` bytes (S1).
#[inline]
pub(super) unsafe fn copy_out(from: *const u8, into: &mut [u8]) {
    if into.len() >= STRING_FROM {
        // SAFETY: the caller vouches for `from` (S1); `into` is a live exclusive slice.
        unsafe { string_copy(from, into.as_mut_ptr(), into.len()) }
        return;
    }
    let mut done = 0;
    if from.addr().is_multiple_of(WORD) {
        let (words, _) = into.as_chunks_mut::<WORD>();
        for word in words {
            let from = from.wrapping_add(done).cast::<u64>();
            // SAFETY: aligned, and within the bytes that the caller vouches for (S1).
            *word = unsafe { from.read_volatile() }.to_ne_bytes();
            done += WORD;
        }
    }
    if from.addr().wrapping_add(done).is_multiple_of(HALF) {
        let (halves, _) = into[done..].as_chunks_mut::<HALF>();
        for half in halves {
            let from = from.wrapping_add(done).cast::<u32>();
            // SAFETY: aligned, and within the bytes that the caller vouches for (S1).
            *half = unsafe { from.read_volatile() }.to_ne_bytes();
            done += HALF;
        }
    }
    for byte in &mut into[done..] {
        // SAFETY: within the bytes that the caller vouches for (S1).
        *byte = unsafe { from.wrapping_add(done).read_volatile() };
        done += 1;
    }
}

/// Copies `from` into DMA memory.
///
/// # Safety
/// `into` is valid for writes of `from.len()` bytes (S1).
#[inline]
pub(super) unsafe fn copy_in(from: &[u8], into: *mut u8) {
    if from.len() >= STRING_FROM {
        // SAFETY: the caller vouches for `into` (S1); `from` is a live slice.
        unsafe { string_copy(from.as_ptr(), into, from.len()) }
        return;
    }
    let mut done = 0;
    if into.addr().is_multiple_of(WORD) {
        for word in from.as_chunks::<WORD>().0 {
            let into = into.wrapping_add(done).cast::<u64>();
            // SAFETY: aligned, and within the bytes that the caller vouches for (S1).
            unsafe { into.write_volatile(u64::from_ne_bytes(*word)) };
            done += WORD;
        }
    }
    if into.addr().wrapping_add(done).is_multiple_of(HALF) {
        for half in from[done..].as_chunks::<HALF>().0 {
            let into = into.wrapping_add(done).cast::<u32>();
            // SAFETY: aligned, and within the bytes that the caller vouches for (S1).
            unsafe { into.write_volatile(u32::from_ne_bytes(*half)) };
            done += HALF;
        }
    }
    for byte in &from[done..] {
        // SAFETY: within the bytes that the caller vouches for (S1).
        unsafe { into.wrapping_add(done).write_volatile(*byte) };
        done += 1;
    }
}

/// Copies `len` bytes from DMA memory to other DMA memory. What is there afterwards, if they
/// overlap, is undefined, and nothing else.
///
/// # Safety
/// `from` is valid for reads and `into` for writes of `len` bytes (S1).
#[inline]
pub(super) unsafe fn copy_between(from: *const u8, into: *mut u8, len: usize) {
    // SAFETY: the caller vouches for both (S1).
    unsafe { string_copy(from, into, len) }
}

/// Sets `len` bytes of DMA memory to `byte`.
///
/// # Safety
/// `into` is valid for writes of `len` bytes (S1).
#[inline]
pub(super) unsafe fn fill(into: *mut u8, byte: u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller vouches for the range (S1); the ABI keeps the direction flag clear.
    unsafe {
        core::arch::asm!(
            "rep stosb",
            inout("rcx") len => _, inout("rdi") into => _, in("al") byte,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    for index in 0..len {
        // SAFETY: within the bytes that the caller vouches for (S1).
        unsafe { into.wrapping_add(index).write_volatile(byte) };
    }
}

/// Copies `len` bytes without telling the compiler.
///
/// # Safety
/// `from` is valid for reads and `into` for writes of `len` bytes (S1).
#[inline]
unsafe fn string_copy(from: *const u8, into: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller vouches for both ranges (S1); the ABI keeps the direction flag clear.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") len => _, inout("rsi") from => _, inout("rdi") into => _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    for index in 0..len {
        // SAFETY: within the bytes that the caller vouches for (S1).
        let byte = unsafe { from.wrapping_add(index).read_volatile() };
        // SAFETY: likewise (S1).
        unsafe { into.wrapping_add(index).write_volatile(byte) };
    }
}
