//! An arena as a device sees it, for devices that are software.
#![allow(unsafe_code)]

use super::arena::Arena;
use super::copy;
use super::foreign::ForeignRegion;
use super::model::ModelSpace;
use alloc::sync::Arc;
use thiserror::Error;

/// An arena as a device sees it that is software: it reads and writes by device address, like one
/// behind an IOMMU that maps just what is allocated.
///
/// It may be used on another thread, at any moment, as a real device would.
#[derive(Debug, Clone)]
pub struct DeviceView {
    arena: Arena,
    space: Option<ModelSpace>,
}

/// A device has reached for memory that nobody gave it. Nothing was transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{bytes} bytes at device address {address:#x} are not allocated")]
pub struct Unmapped {
    /// The device address.
    pub address: u64,
    /// How many bytes it wanted.
    pub bytes: usize,
}

/// Where the processor finds something, and what has to be kept while it is there.
pub(super) type Located = (*mut u8, Option<Arc<dyn ForeignRegion>>);

impl DeviceView {
    /// The view of `arena`.
    pub const fn new(arena: Arena) -> Self {
        Self { arena, space: None }
    }

    /// The view of an arena and of what is reached beside it.
    pub fn of_space(space: ModelSpace) -> Self {
        Self { arena: space.arena().clone(), space: Some(space) }
    }

    /// Copies from device address `address` on.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unmapped> {
        let (from, _foreign) = self.locate(address, into.len())?;
        // SAFETY: `locate` keeps the range inside the arena, which lives as long as the view, or
        // inside foreign memory, which it has handed out for as long (S1).
        unsafe { copy::copy_out(from, into) };
        Ok(())
    }

    /// Copies to device address `address` on.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), Unmapped> {
        let (into, _foreign) = self.locate(address, from.len())?;
        // SAFETY: `locate` keeps the range inside the arena, which lives as long as the view, or
        // inside foreign memory, which it has handed out for as long (S1).
        // Whoever owns the buffer expects a device to write it, and has no reference into it (S3).
        unsafe { copy::copy_in(from, into) };
        Ok(())
    }

    fn locate(&self, address: u64, bytes: usize) -> Result<Located, Unmapped> {
        let own = self.arena.locate_allocated(address, bytes).map(|at| (at, None));
        let foreign = || self.space.as_ref()?.locate_reached(address, bytes);
        own.or_else(foreign).ok_or(Unmapped { address, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::tests::arena;
    use super::super::{Constraints, DmaSpace};
    use super::*;
    use std::vec;

    #[test]
    fn a_device_reaches_what_is_allocated_and_nothing_else() {
        let arena = arena(64 * 1024);
        let view = DeviceView::new(arena.clone());
        let first = arena.allocate(4096, &Constraints::NONE).unwrap();
        let mut buffer = arena.allocate(8192, &Constraints::NONE).unwrap();
        let at = buffer.address().bits();
        drop(first);
        buffer.write_bytes(8000, b"to the device");
        let mut seen = [0; 13];
        view.read(at + 8000, &mut seen).unwrap();
        assert_eq!(&seen, b"to the device");
        view.write(at, b"from the device").unwrap();
        assert_eq!(buffer.read::<[u8; 15]>(0), *b"from the device");
        for (address, bytes) in [
            (at - 1, 1),
            (at - 1, 2),
            (at + 8191, 2),
            (at + 8192, 1),
            (0, 1),
            (at, 1 << 20),
            (u64::MAX, 1),
            (u64::MAX - 3, 8),
        ] {
            let error = view.read(address, &mut vec![0; bytes]).unwrap_err();
            assert_eq!(error, Unmapped { address, bytes });
            assert!(view.write(address, &vec![0; bytes]).is_err());
        }
        drop(buffer);
        assert!(view.read(at, &mut seen).is_err(), "it was given back");
    }
}
