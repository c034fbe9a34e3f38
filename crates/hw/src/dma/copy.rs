//! Copies between ordinary memory and memory that a device may be using at the same time.
//!
//! An ordinary `memcpy` promises the compiler that nobody else writes the memory meanwhile. Of DMA
//! memory that is not true, so long copies are made by an instruction that the compiler cannot see
//! into, and short ones by volatile accesses.
#![allow(unsafe_code)]

/// From this length on, the string instruction's start-up cost is worth it.
const STRING_FROM: usize = 64;
/// Likewise, where neither side's length is known to the compiler.
const STRING_BETWEEN_FROM: usize = 128;
pub(super) const WORD: usize = size_of::<u64>();
const HALF: usize = size_of::<u32>();
const PAIR: usize = 2 * WORD;

/// A word wherever it lies. The processors that most drivers run on read and write it in one access
/// all the same.
#[repr(C, packed)]
struct Anywhere<T>(T);

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
    let mut from = from;
    let (words, rest) = into.as_chunks_mut::<WORD>();
    for word in words {
        // SAFETY: within the bytes that the caller vouches for (S1).
        *word = unsafe { from.cast::<Anywhere<u64>>().read_volatile() }.0.to_ne_bytes();
        from = from.wrapping_add(WORD);
    }
    let (halves, rest) = rest.as_chunks_mut::<HALF>();
    for half in halves {
        // SAFETY: within the bytes that the caller vouches for (S1).
        *half = unsafe { from.cast::<Anywhere<u32>>().read_volatile() }.0.to_ne_bytes();
        from = from.wrapping_add(HALF);
    }
    for byte in rest {
        // SAFETY: within the bytes that the caller vouches for (S1).
        *byte = unsafe { from.read_volatile() };
        from = from.wrapping_add(1);
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
    if into.addr().is_multiple_of(WORD) {
        // SAFETY: aligned, and the caller vouches for the bytes (S1).
        unsafe { copy_in_words(from, into) };
        return;
    }
    if into.addr().is_multiple_of(HALF) {
        // SAFETY: aligned, and the caller vouches for the bytes (S1).
        unsafe { copy_in_halves(from, into) };
        return;
    }
    let mut into = into;
    let (words, rest) = from.as_chunks::<WORD>();
    for word in words {
        let word = Anywhere(u64::from_ne_bytes(*word));
        // SAFETY: within the bytes that the caller vouches for (S1).
        unsafe { into.cast::<Anywhere<u64>>().write_volatile(word) };
        into = into.wrapping_add(WORD);
    }
    let (halves, rest) = rest.as_chunks::<HALF>();
    for half in halves {
        let half = Anywhere(u32::from_ne_bytes(*half));
        // SAFETY: within the bytes that the caller vouches for (S1).
        unsafe { into.cast::<Anywhere<u32>>().write_volatile(half) };
        into = into.wrapping_add(HALF);
    }
    // SAFETY: the caller vouches for the bytes (S1).
    unsafe { copy_in_bytes(rest, into) };
}

/// Whether `bytes` are in DMA memory.
///
/// # Safety
/// `at` is valid for reads of `bytes.len()` bytes (S1).
#[inline(always)]
pub(super) unsafe fn is_there(bytes: &[u8], at: *const u8) -> bool {
    let mut at = at;
    let (words, rest) = bytes.as_chunks::<WORD>();
    for word in words {
        // SAFETY: within the bytes that the caller vouches for (S1).
        if unsafe { at.cast::<Anywhere<u64>>().read_volatile() }.0 != u64::from_ne_bytes(*word) {
            return false;
        }
        at = at.wrapping_add(WORD);
    }
    let (halves, rest) = rest.as_chunks::<HALF>();
    for half in halves {
        // SAFETY: within the bytes that the caller vouches for (S1).
        if unsafe { at.cast::<Anywhere<u32>>().read_volatile() }.0 != u32::from_ne_bytes(*half) {
            return false;
        }
        at = at.wrapping_add(HALF);
    }
    for byte in rest {
        // SAFETY: within the bytes that the caller vouches for (S1).
        if unsafe { at.read_volatile() } != *byte {
            return false;
        }
        at = at.wrapping_add(1);
    }
    true
}

/// Copies `from` to where a word begins.
///
/// # Safety
/// `into` is a multiple of [`WORD`] and valid for writes of `from.len()` bytes (S1).
#[inline]
pub(super) unsafe fn copy_in_words(from: &[u8], into: *mut u8) {
    let mut into = into;
    let (words, rest) = from.as_chunks::<WORD>();
    for word in words {
        // SAFETY: aligned, and within the bytes that the caller vouches for (S1).
        unsafe { into.cast::<u64>().write_volatile(u64::from_ne_bytes(*word)) };
        into = into.wrapping_add(WORD);
    }
    // SAFETY: still aligned, and the caller vouches for the bytes (S1).
    unsafe { copy_in_halves(rest, into) };
}

/// Copies `from` to where half a word begins.
///
/// # Safety
/// `into` is a multiple of [`HALF`] and valid for writes of `from.len()` bytes (S1).
#[inline]
unsafe fn copy_in_halves(from: &[u8], into: *mut u8) {
    let mut into = into;
    let (halves, rest) = from.as_chunks::<HALF>();
    for half in halves {
        // SAFETY: aligned, and within the bytes that the caller vouches for (S1).
        unsafe { into.cast::<u32>().write_volatile(u32::from_ne_bytes(*half)) };
        into = into.wrapping_add(HALF);
    }
    // SAFETY: the caller vouches for the bytes (S1).
    unsafe { copy_in_bytes(rest, into) };
}

/// Copies `from` byte by byte.
///
/// # Safety
/// `into` is valid for writes of `from.len()` bytes (S1).
#[inline]
unsafe fn copy_in_bytes(from: &[u8], into: *mut u8) {
    for (place, byte) in from.iter().enumerate() {
        // SAFETY: within the bytes that the caller vouches for (S1).
        unsafe { into.wrapping_add(place).write_volatile(*byte) };
    }
}

/// Copies `len` bytes from DMA memory to other DMA memory. What is there afterwards, if they
/// overlap, is undefined, and nothing else.
///
/// # Safety
/// `from` is valid for reads and `into` for writes of `len` bytes (S1).
#[inline]
pub(super) unsafe fn copy_between(from: *const u8, into: *mut u8, len: usize) {
    if len >= STRING_BETWEEN_FROM {
        // SAFETY: the caller vouches for both (S1).
        unsafe { string_copy(from, into, len) }
        return;
    }
    let (last, behind) = (len.wrapping_sub(PAIR), len.wrapping_sub(WORD));
    if len >= PAIR {
        let mut done = 0;
        while done < last {
            // SAFETY: within the bytes that the caller vouches for (S1).
            unsafe { copy_words::<2>(from.wrapping_add(done), into.wrapping_add(done)) };
            done += PAIR;
        }
        // What is left, and some of what was copied before it.
        // SAFETY: within the bytes that the caller vouches for (S1).
        unsafe { copy_words::<2>(from.wrapping_add(last), into.wrapping_add(last)) };
    } else if len >= WORD {
        // SAFETY: within the bytes that the caller vouches for (S1).
        unsafe { copy_words::<1>(from, into) };
        // SAFETY: likewise (S1).
        unsafe { copy_words::<1>(from.wrapping_add(behind), into.wrapping_add(behind)) };
    } else {
        // SAFETY: the caller vouches for both (S1).
        unsafe { string_copy(from, into, len) }
    }
}

/// Copies a word, or two, from wherever to wherever they lie, without telling the compiler.
///
/// # Safety
/// `from` is valid for reads and `into` for writes of so many words (S1).
#[inline(always)]
unsafe fn copy_words<const COUNT: usize>(from: *const u8, into: *mut u8) {
    const { assert!(COUNT == 1 || COUNT == 2) };
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if COUNT == 1 {
        // SAFETY: the caller vouches for both (S1).
        unsafe {
            core::arch::asm!(
                "mov {word}, [{from}]",
                "mov [{into}], {word}",
                from = in(reg) from, into = in(reg) into, word = out(reg) _,
                options(nostack, preserves_flags)
            );
        }
    } else {
        // SAFETY: the caller vouches for both (S1).
        unsafe {
            core::arch::asm!(
                "mov {first}, [{from}]",
                "mov {second}, [{from} + 8]",
                "mov [{into}], {first}",
                "mov [{into} + 8], {second}",
                from = in(reg) from, into = in(reg) into, first = out(reg) _, second = out(reg) _,
                options(nostack, preserves_flags)
            );
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: the caller vouches for both (S1).
    unsafe {
        string_copy(from, into, COUNT * WORD)
    }
}

/// Has the processor fetch a line of its cache meanwhile. Nothing is read as far as the program can
/// tell, and nothing faults, wherever that is.
#[inline(always)]
pub(super) fn prefetch(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint makes no access, so S1 asks nothing of the address.
    unsafe {
        core::arch::asm!(
            "prefetcht0 [{at}]",
            at = in(reg) at, options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
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

#[cfg(test)]
mod tests {
    use super::super::arena::tests::arena;
    use super::super::{Constraints, DmaSpace};

    #[test]
    fn copies_of_every_length_are_whole_and_nothing_around_them_is_written() {
        const BYTES: usize = 512;
        let arena = arena(16 * 1024);
        let buffer = || arena.allocate(BYTES, &Constraints::NONE).unwrap();
        let (mut from, mut into) = (buffer(), buffer());
        let pattern: [u8; BYTES] = core::array::from_fn(|at| (at * 7) as u8 | 1);
        from.write_bytes(0, &pattern);
        for len in 0..300 {
            for (start, at) in [(0, 0), (1, 8), (13, 2), (8, 5)] {
                into.fill(0..BYTES, 0);
                into.copy_from(at, &from, start..start + len);
                let mut found = [0; BYTES];
                into.read_bytes(0, &mut found);
                assert_eq!(found[at..at + len], pattern[start..start + len], "{len} {start} {at}");
                let around = found[..at].iter().chain(&found[at + len..]);
                assert!(around.into_iter().all(|byte| *byte == 0), "{len} {start} {at}");
            }
        }
    }
}
