//! The two lists of capabilities (PCI §6.7, PCIe §7.6).

use crate::ConfigSpace;
use crate::config::{CONVENTIONAL_BYTES, EXTENDED_BYTES};
use crate::header::{CAPABILITIES, STATUS, STATUS_CAPABILITIES};

/// Capability IDs of the conventional list that this crate knows by name.
pub mod id {
    /// Power management.
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// Message-signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// Vendor-specific.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// Message-signalled interrupts with a table.
    pub const MSI_X: u8 = 0x11;
    /// Serial ATA: index/data pair registers.
    pub const SATA: u8 = 0x12;
}

/// A capability in either list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Its ID: 8 bits in the conventional list, 16 in the extended one.
    pub id: u16,
    /// Where its header is.
    pub offset: u16,
}

/// Iterator over one of the lists.
///
/// A list that loops, points into the header or leaves configuration space simply ends: each step
/// uses up one of as many steps as the space has room for capabilities.
#[derive(Debug)]
pub struct Capabilities<'a, C: ?Sized> {
    config: &'a mut C,
    next: u16,
    steps_left: u16,
    extended: bool,
}

/// The conventional list, in the first 256 bytes.
pub fn conventional<C: ConfigSpace + ?Sized>(config: &mut C) -> Capabilities<'_, C> {
    let has_list = config.read_u16(STATUS) & STATUS_CAPABILITIES != 0;
    let next = if has_list { u16::from(config.read_u8(CAPABILITIES)) } else { 0 };
    let steps_left = (CONVENTIONAL_BYTES - HEADER_BYTES) / 4;
    Capabilities { config, next, steps_left, extended: false }
}

/// The extended list of a PCI Express function, from offset 256 on; empty if it cannot be reached.
pub fn extended<C: ConfigSpace + ?Sized>(config: &mut C) -> Capabilities<'_, C> {
    let next = if config.size_bytes() > CONVENTIONAL_BYTES { CONVENTIONAL_BYTES } else { 0 };
    let steps_left = (EXTENDED_BYTES - CONVENTIONAL_BYTES) / 4;
    Capabilities { config, next, steps_left, extended: true }
}

/// Offset of the first capability with `id` in the conventional list.
pub fn find<C: ConfigSpace + ?Sized>(config: &mut C, id: u8) -> Option<u16> {
    conventional(config).find(|found| found.id == u16::from(id)).map(|found| found.offset)
}

/// Bytes of the header, where no capability can be.
const HEADER_BYTES: u16 = 0x40;

impl<C: ConfigSpace + ?Sized> Iterator for Capabilities<'_, C> {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        // The two low bits of a pointer are reserved.
        let offset = self.next & !0x3;
        let (first, end) = match self.extended {
            false => (HEADER_BYTES, CONVENTIONAL_BYTES),
            true => (CONVENTIONAL_BYTES, self.config.size_bytes().min(EXTENDED_BYTES)),
        };
        if offset < first || offset > end.saturating_sub(4) {
            return None;
        }
        self.steps_left = self.steps_left.checked_sub(1)?;
        let header = self.config.read_u32(offset);
        if header == u32::MAX || self.extended && header == 0 {
            return None;
        }
        let id = if self.extended { header as u16 } else { header as u16 & 0xff };
        self.next = if self.extended { (header >> 20) as u16 } else { (header >> 8) as u16 & 0xff };
        Some(Capability { id, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeFunction;
    use std::vec::Vec;

    fn with_list(pointers: &[(u16, u32)], first: u32) -> FakeFunction {
        let mut function = FakeFunction::endpoint(1, 1);
        function.set_fixed(0x04, u32::from(STATUS_CAPABILITIES) << 16);
        function.set_fixed(0x34, first);
        for (offset, header) in pointers {
            function.set_fixed(*offset, *header);
        }
        function
    }

    #[test]
    fn both_lists_are_walked() {
        let express = 0x0001_0001 | 0x148 << 20;
        let mut function = with_list(
            &[(0x50, 0x0000_6005), (0x60, 0x0000_0011), (0x100, express), (0x148, 0x0002_0010)],
            0x53,
        );
        let found: Vec<_> = conventional(&mut function).map(|c| (c.id, c.offset)).collect();
        assert_eq!(found, [(0x05, 0x50), (0x11, 0x60)]);
        let found: Vec<_> = extended(&mut function).map(|c| (c.id, c.offset)).collect();
        assert_eq!(found, [(0x01, 0x100), (0x10, 0x148)]);
        assert_eq!(find(&mut function, id::MSI_X), Some(0x60));
        assert_eq!(find(&mut function, id::SATA), None);
    }

    #[test]
    fn lists_that_loop_end() {
        let mut function = with_list(&[(0x50, 0x0000_6005), (0x60, 0x0000_5011)], 0x50);
        assert_eq!(conventional(&mut function).count(), 48);
        let mut function = with_list(&[(0x100, 0x0001_0001 | 0x100 << 20)], 0);
        assert_eq!(conventional(&mut function).count(), 0);
        assert_eq!(extended(&mut function).count(), 960);
    }

    #[test]
    fn pointers_into_the_header_or_out_of_the_space_end_the_list() {
        let mut function = with_list(&[(0x50, 0x0000_1005)], 0x50);
        assert_eq!(conventional(&mut function).count(), 1);
        let mut function =
            with_list(&[(0x100, 0x0001_0001 | 0xfff << 20), (0xffc, 0x0001_0002)], 0);
        assert_eq!(extended(&mut function).count(), 2, "0xffc is the last place");
        let mut function = with_list(&[(0x50, u32::MAX)], 0x50);
        assert_eq!(conventional(&mut function).count(), 0);
    }
}
