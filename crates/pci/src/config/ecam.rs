//! The enhanced configuration access mechanism: memory-mapped, 4 KiB a function (PCIe §7.2.2).

use super::{ConfigAccess, EXTENDED_BYTES};
use crate::Address;
use outboard_hw::{HwError, Registers};

/// Configuration space through a memory-mapped region: all 4096 bytes of each function.
#[derive(Debug)]
pub struct Ecam<R> {
    region: R,
    segment: u16,
    first_bus: u8,
}

const BUS_BYTES: usize = 1 << 20;

impl<R: Registers> Ecam<R> {
    /// The region holds 1 MiB for each bus of `segment`, from `first_bus` on.
    pub fn new(region: R, segment: u16, first_bus: u8) -> Result<Self, HwError> {
        if region.size_bytes() < BUS_BYTES {
            let region = region.size_bytes();
            return Err(HwError::OutsideRegion { offset: 0, len: BUS_BYTES, region });
        }
        Ok(Self { region, segment, first_bus })
    }

    /// Where the register is, if the region covers its bus.
    fn place(&self, address: Address, offset: u16) -> Option<usize> {
        if address.segment != self.segment || offset >= EXTENDED_BYTES {
            return None;
        }
        let bus = usize::from(address.bus.checked_sub(self.first_bus)?);
        let function = usize::from(address.device()) << 3 | usize::from(address.function());
        let place = bus * BUS_BYTES + function * usize::from(EXTENDED_BYTES) + usize::from(offset);
        (place < self.region.size_bytes()).then_some(place)
    }
}

macro_rules! through_memory {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&mut self, address: Address, offset: u16) -> $int {
            match self.place(address, offset) {
                Some(place) => self.region.$read(place),
                None => <$int>::MAX,
            }
        }
        fn $write(&mut self, address: Address, offset: u16, value: $int) {
            if let Some(place) = self.place(address, offset) {
                self.region.$write(place, value);
            }
        }
    )*};
}

impl<R: Registers> ConfigAccess for Ecam<R> {
    fn size_bytes(&self) -> u16 {
        EXTENDED_BYTES
    }

    through_memory! {
        u8: read_u8, write_u8;
        u16: read_u16, write_u16;
        u32: read_u32, write_u32;
    }
}
