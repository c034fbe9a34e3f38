//! PCI-to-PCI bridges: bus numbers and forwarding windows (Bridge §3.2.5).

use crate::ConfigSpace;
use core::ops::Range;

const PRIMARY_BUS: u16 = 0x18;
const SECONDARY_BUS: u16 = 0x19;
const SUBORDINATE_BUS: u16 = 0x1a;

/// The buses that a bridge stands between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buses {
    /// The bus that the bridge is on.
    pub primary: u8,
    /// The bus right behind it; 0 if nobody numbered it yet.
    pub secondary: u8,
    /// The highest bus behind it.
    pub subordinate: u8,
}

impl Buses {
    /// Reads the three numbers.
    pub fn read(config: &mut (impl ConfigSpace + ?Sized)) -> Self {
        Self {
            primary: config.read_u8(PRIMARY_BUS),
            secondary: config.read_u8(SECONDARY_BUS),
            subordinate: config.read_u8(SUBORDINATE_BUS),
        }
    }

    /// Writes the three numbers.
    pub fn write(self, config: &mut (impl ConfigSpace + ?Sized)) {
        config.write_u8(PRIMARY_BUS, self.primary);
        config.write_u8(SECONDARY_BUS, self.secondary);
        config.write_u8(SUBORDINATE_BUS, self.subordinate);
    }
}

/// What a bridge forwards to the bus behind it, one window of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// I/O ports, in steps of 4 KiB.
    Io,
    /// Memory below 4 GiB, in steps of 1 MiB.
    Memory,
    /// Prefetchable memory, in steps of 1 MiB; anywhere if the bridge decodes 64 bits.
    Prefetchable,
}

impl Window {
    const fn low(self) -> u16 {
        match self {
            Self::Io => 0x1c,
            Self::Memory => 0x20,
            Self::Prefetchable => 0x24,
        }
    }

    /// What base and size are multiples of, in bytes.
    pub const fn granule(self) -> u64 {
        match self {
            Self::Io => 1 << 12,
            Self::Memory | Self::Prefetchable => 1 << 20,
        }
    }

    /// The range that the window forwards; `None` if it is closed (base above limit).
    ///
    /// A prefetchable or I/O window that the bridge does not implement reads as zeros: a range at
    /// address 0, which is taken as closed too. One that reaches the top of the address space
    /// lacks its last byte.
    pub fn read(self, config: &mut (impl ConfigSpace + ?Sized)) -> Option<Range<u64>> {
        let (mut base, mut limit);
        match self {
            Self::Io => {
                let low = config.read_u16(self.low());
                base = u64::from(low & 0xf0) << 8;
                limit = u64::from(low & 0xf000);
                if low & 0xf == 1 {
                    base |= u64::from(config.read_u16(0x30)) << 16;
                    limit |= u64::from(config.read_u16(0x32)) << 16;
                }
            }
            Self::Memory | Self::Prefetchable => {
                let low = config.read_u32(self.low());
                base = u64::from(low & 0xfff0) << 16;
                limit = u64::from(low & 0xfff0_0000);
                if self.is_wide(config) {
                    base |= u64::from(config.read_u32(0x28)) << 32;
                    limit |= u64::from(config.read_u32(0x2c)) << 32;
                }
            }
        }
        (base != 0 && base <= limit).then(|| base..limit.saturating_add(self.granule()))
    }

    /// Whether it is a prefetchable window that decodes 64 bits.
    pub fn is_wide(self, config: &mut (impl ConfigSpace + ?Sized)) -> bool {
        self == Self::Prefetchable && config.read_u16(self.low()) & 0xf == 1
    }

    /// Opens the window for `range`, whose ends are multiples of the granule.
    pub fn open(self, config: &mut (impl ConfigSpace + ?Sized), range: Range<u64>) {
        self.write(config, range.start, range.end - self.granule());
    }

    /// Closes the window: base above limit.
    pub fn close(self, config: &mut (impl ConfigSpace + ?Sized)) {
        self.write(config, self.granule() * 15, 0);
    }

    fn write(self, config: &mut (impl ConfigSpace + ?Sized), base: u64, limit: u64) {
        match self {
            Self::Io => {
                let low = (base >> 8 & 0xf0) as u16 | (limit & 0xf000) as u16;
                config.write_u16(self.low(), low);
                config.write_u16(0x30, (base >> 16) as u16);
                config.write_u16(0x32, (limit >> 16) as u16);
            }
            Self::Memory | Self::Prefetchable => {
                let low = (base >> 16 & 0xfff0) as u32 | (limit & 0xfff0_0000) as u32;
                config.write_u32(self.low(), low);
                if self == Self::Prefetchable {
                    config.write_u32(0x28, (base >> 32) as u32);
                    config.write_u32(0x2c, (limit >> 32) as u32);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeFunction;

    #[test]
    fn windows_read_back_as_they_were_opened() {
        let mut bridge = FakeFunction::bridge();
        for (window, range) in [
            (Window::Io, 0x3000..0x5000),
            (Window::Memory, 0xe010_0000..0xe030_0000),
            (Window::Prefetchable, 0x80_0000_0000..0x81_0000_0000),
        ] {
            assert_eq!(window.read(&mut bridge), None);
            window.open(&mut bridge, range.clone());
            assert_eq!(window.read(&mut bridge), Some(range));
            window.close(&mut bridge);
            assert_eq!(window.read(&mut bridge), None);
        }
    }

    #[test]
    fn a_window_may_reach_the_top_of_the_address_space() {
        let mut bridge = FakeFunction::bridge();
        bridge.write_u32(0x24, 0xfff0_0000);
        bridge.write_u32(0x28, 0x80);
        bridge.write_u32(0x2c, u32::MAX);
        assert_eq!(Window::Prefetchable.read(&mut bridge), Some(0x80_0000_0000..u64::MAX));
    }
}
