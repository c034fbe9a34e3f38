//! The packed layout of rings (§2.8).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A descriptor (§2.8.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Descriptor {
    /// Where the memory is.
    pub address: U64,
    /// Its bytes; in a used one, bytes that the device has written.
    pub bytes: U32,
    /// The buffer's ID.
    pub id: U16,
    /// See the constants, and those of [`split::Descriptor`](super::split::Descriptor), which these
    /// have as well.
    pub flags: U16,
}

impl Descriptor {
    /// Equal to the driver's wrap counter in an available descriptor.
    pub const AVAILABLE: u16 = 1 << 7;
    /// Unequal to it in an available descriptor, equal in a used one.
    pub const USED: u16 = 1 << 15;
    /// Bytes of one.
    pub const BYTES: usize = 16;
    /// Where that begins which a device writes when it has used one.
    pub const WRITTEN: usize = 8;
    /// Where the flags are, which are written last and read first.
    pub const FLAGS: usize = 14;
}

/// What a device writes into a descriptor that it has used (§2.8.4), from
/// [`WRITTEN`](Descriptor::WRITTEN) on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UsedDescriptor {
    /// Bytes that it has written.
    pub bytes: U32,
    /// The buffer's ID.
    pub id: U16,
    /// See [`Descriptor::flags`].
    pub flags: U16,
}

const _: () = assert!(size_of::<Descriptor>() == Descriptor::BYTES);
const _: () = assert!(Descriptor::WRITTEN + size_of::<UsedDescriptor>() == Descriptor::BYTES);

/// Bytes of an event suppression structure (§2.8.14).
pub const EVENT_BYTES: usize = 4;
/// Its first half: the descriptor that is waited for, with the wrap counter as bit 15.
pub const EVENT_DESCRIPTOR: usize = 0;
/// Its second half: when to tell.
pub const EVENT_FLAGS: usize = 2;
/// Always.
pub const EVENT_ENABLE: u16 = 0;
/// Never.
pub const EVENT_DISABLE: u16 = 1;
/// For the descriptor that is named; only with event indices.
pub const EVENT_AT: u16 = 2;
/// The wrap counter in [`EVENT_DESCRIPTOR`].
pub const EVENT_WRAP: u16 = 1 << 15;

/// The most entries (§2.8.10.1).
pub const MAX_ENTRIES: u16 = 1 << 15;
