//! What is remembered of requests in flight ("Inflight I/O tracking").
//!
//! Each number is written in one access, and after all that was written before it, so whatever
//! moment the process dies at, its successor finds what `docs/vhost-user.md` lists for it.

mod packed;
mod split;

pub(super) use packed::{Left, PackedMemory};
pub(super) use split::SplitMemory;

use crate::error::Violation;
use crate::memory::Area;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::{INFLIGHT_ALIGNMENT, INFLIGHT_VERSION};
use outboard_virtio::spec::vhost_user::{inflight_packed, inflight_split};

/// Bytes that remember what is in flight at a ring with so many entries.
pub(crate) const fn remembered_bytes(entries: u16, features: Features) -> usize {
    let bytes = if features.contains(Features::PACKED) {
        inflight_packed::STATES + inflight_packed::STATE_BYTES * entries as usize
    } else {
        inflight_split::STATES + inflight_split::STATE_BYTES * entries as usize
    };
    bytes.next_multiple_of(INFLIGHT_ALIGNMENT)
}

/// Whether somebody has written into the memory before; an error if that was for a ring of another
/// size.
fn is_adopted(area: &Area, version: usize, size: usize, entries: u16) -> Result<bool, Violation> {
    match area.load_u16(version) {
        0 => Ok(false),
        INFLIGHT_VERSION if area.load_u16(size) == entries => Ok(true),
        _ => Err(Violation::InFlight),
    }
}
