//! Message-signalled interrupts (PCI §6.8.1).

use crate::ConfigSpace;
use crate::capability::{self, id};

const CONTROL: u16 = 2;
const ADDRESS: u16 = 4;

const ENABLE: u16 = 1 << 0;
const WIDE: u16 = 1 << 7;

/// Where a function writes to raise an interrupt, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The address that it writes to.
    pub address: u64,
    /// What it writes. MSI has 16 bits of data, MSI-X 32.
    pub data: u32,
}

/// The MSI capability of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Msi {
    offset: u16,
    wide: bool,
    /// Binary logarithm of the number of messages that the function can tell apart, 0–5.
    vectors_log2: u8,
}

impl Msi {
    /// Finds the capability.
    pub fn find(config: &mut (impl ConfigSpace + ?Sized)) -> Option<Self> {
        let offset = capability::find(config, id::MSI)?;
        let control = config.read_u16(offset + CONTROL);
        let vectors_log2 = (control >> 1 & 0x7).min(5) as u8;
        Some(Self { offset, wide: control & WIDE != 0, vectors_log2 })
    }

    /// How many messages the function can tell apart, a power of two up to 32.
    pub const fn vectors(&self) -> u16 {
        1 << self.vectors_log2
    }

    /// Switches the interrupts on. Vector `n` of `vectors` (rounded down to a power of two that
    /// the function offers) is `message` with `n` in the low bits of its data, which must be zero
    /// there. Returns how many vectors there are.
    ///
    /// `None`, and nothing is changed, if the function cannot hold the message: an address above
    /// 4 GiB in a 32-bit capability, or data above 16 bits.
    pub fn enable(
        &self,
        config: &mut (impl ConfigSpace + ?Sized),
        message: Message,
        vectors: u16,
    ) -> Option<u16> {
        let log2 = vectors.checked_ilog2()?.min(self.vectors_log2.into()) as u16;
        let fits = self.wide || message.address >> 32 == 0;
        let data = u16::try_from(message.data).ok()?;
        if !fits || data & ((1 << log2) - 1) != 0 {
            return None;
        }
        self.disable(config);
        config.write_u32(self.offset + ADDRESS, message.address as u32);
        if self.wide {
            config.write_u32(self.offset + ADDRESS + 4, (message.address >> 32) as u32);
        }
        let data_offset = if self.wide { ADDRESS + 8 } else { ADDRESS + 4 };
        config.write_u16(self.offset + data_offset, data);
        let control = config.read_u16(self.offset + CONTROL) & !(0x7 << 4);
        config.write_u16(self.offset + CONTROL, control | log2 << 4 | ENABLE);
        Some(1 << log2)
    }

    /// Switches the interrupts off.
    pub fn disable(&self, config: &mut (impl ConfigSpace + ?Sized)) {
        let control = config.read_u16(self.offset + CONTROL) & !ENABLE;
        config.write_u16(self.offset + CONTROL, control);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeFunction;

    fn function(control: u16) -> FakeFunction {
        let mut function = FakeFunction::endpoint(1, 1);
        function.set_fixed(0x04, 1 << 20);
        function.set_fixed(0x34, 0x50);
        function.poke(0x50, 0x05 | u32::from(control) << 16);
        function
    }

    #[test]
    fn a_wide_capability_takes_a_high_address_and_several_vectors() {
        let mut function = function(WIDE | 3 << 1);
        let msi = Msi::find(&mut function).unwrap();
        assert_eq!(msi.vectors(), 8);
        let message = Message { address: 0x12_3456_7890, data: 0x40 };
        assert_eq!(msi.enable(&mut function, message, 7), Some(4));
        assert_eq!(function.read_u32(0x54), 0x3456_7890);
        assert_eq!(function.read_u32(0x58), 0x12);
        assert_eq!(function.read_u16(0x5c), 0x40);
        assert_eq!(function.read_u16(0x52) & (7 << 4 | ENABLE), 2 << 4 | ENABLE);
        msi.disable(&mut function);
        assert_eq!(function.read_u16(0x52) & ENABLE, 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut function = function(0);
        let msi = Msi::find(&mut function).unwrap();
        let before = function.bytes();
        let high = Message { address: 1 << 32, data: 0 };
        assert_eq!(msi.enable(&mut function, high, 1), None);
        let long = Message { address: 0, data: 1 << 16 };
        assert_eq!(msi.enable(&mut function, long, 1), None);
        assert_eq!(msi.enable(&mut function, Message { address: 0, data: 0 }, 0), None);
        assert_eq!(function.bytes(), before);
        assert_eq!(msi.enable(&mut function, Message { address: 0x1000, data: 0x41 }, 4), Some(1));
    }
}
