//! The split layout of rings (§2.7).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A descriptor (§2.7.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Descriptor {
    /// Where the memory is.
    pub address: U64,
    /// Its bytes.
    pub bytes: U32,
    /// See the constants.
    pub flags: U16,
    /// The next one of the chain, if [`NEXT`](Self::NEXT) is set.
    pub next: U16,
}

impl Descriptor {
    /// Another one follows.
    pub const NEXT: u16 = 1 << 0;
    /// The device writes the memory; else it reads it.
    pub const WRITE: u16 = 1 << 1;
    /// The memory is a table of descriptors (§2.7.5.3).
    pub const INDIRECT: u16 = 1 << 2;
    /// Bytes of one.
    pub const BYTES: usize = 16;
}

const _: () = assert!(size_of::<Descriptor>() == Descriptor::BYTES);

/// What a used ring tells of a chain (§2.7.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UsedElement {
    /// The chain's first descriptor.
    pub id: U32,
    /// Bytes that the device has written.
    pub bytes: U32,
}

/// Bytes of one.
pub const USED_BYTES: usize = size_of::<UsedElement>();

const _: () = assert!(USED_BYTES == 8);

/// The available ring: flags (§2.7.6).
pub const AVAILABLE_FLAGS: usize = 0;
/// The index of the next entry.
pub const AVAILABLE_INDEX: usize = 2;
/// The entries: 16 bits each, and behind them `used_event`.
pub const AVAILABLE_RING: usize = 4;
/// The driver wants no interrupts.
pub const NO_INTERRUPT: u16 = 1 << 0;

/// The used ring: flags (§2.7.8).
pub const USED_FLAGS: usize = 0;
/// The index of the next entry.
pub const USED_INDEX: usize = 2;
/// The entries, and behind them `avail_event`.
pub const USED_RING: usize = 4;
/// The device wants no notifications.
pub const NO_NOTIFY: u16 = 1 << 0;

/// The most entries (§2.7).
pub const MAX_ENTRIES: u16 = 1 << 15;

/// Whether an event is due: `index` is the new index, `old` the one before, `event` the entry that
/// is waited for (§2.7.10).
pub const fn is_due(event: u16, index: u16, old: u16) -> bool {
    index.wrapping_sub(event).wrapping_sub(1) < index.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_due_if_its_entry_is_among_the_new_ones() {
        // All steps of up to 300 entries around the places where indices wrap.
        for old in (0..300u16).chain(65_235..=u16::MAX) {
            for count in 0..300u16 {
                let index = old.wrapping_add(count);
                for event in [old.wrapping_sub(1), old, index.wrapping_sub(1), index] {
                    let among = event.wrapping_sub(old) < count;
                    assert_eq!(is_due(event, index, old), among, "{event} {old} {index}");
                }
            }
        }
    }
}
