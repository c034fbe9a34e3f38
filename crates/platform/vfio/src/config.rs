//! Configuration space, through the kernel, which hides and emulates parts of it.

use crate::region::Place;
use outboard_pci::config::{CONVENTIONAL_BYTES, ConfigSpace, EXTENDED_BYTES};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The configuration space of one function.
#[derive(Debug)]
pub(crate) struct VfioConfigSpace {
    device: Arc<OwnedFd>,
    place: Place,
}

impl VfioConfigSpace {
    pub(crate) const fn new(device: Arc<OwnedFd>, place: Place) -> Self {
        Self { device, place }
    }
}

macro_rules! through_the_kernel {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&mut self, offset: u16) -> $int {
            let bytes = self.place.read(&self.device, offset.into());
            bytes.map_or(<$int>::MAX, <$int>::from_le_bytes)
        }
        fn $write(&mut self, offset: u16, value: $int) {
            self.place.write(&self.device, offset.into(), &value.to_le_bytes());
        }
    )*};
}

impl ConfigSpace for VfioConfigSpace {
    fn size_bytes(&self) -> u16 {
        let extended = self.place.bytes >= EXTENDED_BYTES.into();
        if extended { EXTENDED_BYTES } else { CONVENTIONAL_BYTES }
    }

    through_the_kernel! {
        u8: read_u8, write_u8;
        u16: read_u16, write_u16;
        u32: read_u32, write_u32;
    }
}
