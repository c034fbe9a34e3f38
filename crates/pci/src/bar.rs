//! Base address registers (PCI §6.2.5).

use crate::ConfigSpace;
use crate::header::{BAR0, Command};

/// What a base address register decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects, writes may be merged.
        prefetchable: bool,
    },
    /// Memory anywhere; takes the next register too.
    Memory64 {
        /// Reads have no side effects, writes may be merged.
        prefetchable: bool,
    },
}

/// A base address register that a function implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Which of the six it is, 0–5.
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Where it is; 0 if nobody assigned it yet.
    pub base: u64,
    /// Bytes (or ports) that it decodes, a power of two.
    pub bytes: u64,
}

impl Bar {
    /// Offset of its (lower) register.
    const fn offset(index: u8) -> u16 {
        BAR0 + 4 * index as u16
    }

    /// How many registers it takes.
    pub const fn registers(&self) -> u8 {
        match self.kind {
            BarKind::Memory64 { .. } => 2,
            _ => 1,
        }
    }

    /// Reads the register at `index` without changing it; the size is unknown.
    ///
    /// `None` for one that decodes nothing or has a reserved type. An unassigned register cannot
    /// be told from an unimplemented one in this way; `size` can.
    pub fn read(config: &mut (impl ConfigSpace + ?Sized), index: u8) -> Option<(BarKind, u64)> {
        let low = config.read_u32(Self::offset(index));
        let kind = kind(low, index)?;
        let base = match kind {
            BarKind::Io => u64::from(low & !0x3),
            BarKind::Memory32 { .. } => u64::from(low & !0xf),
            BarKind::Memory64 { .. } => {
                let high = config.read_u32(Self::offset(index + 1));
                u64::from(high) << 32 | u64::from(low & !0xf)
            }
        };
        Some((kind, base))
    }

    /// Finds out how much the register at `index` decodes, by writing ones to it and restoring it;
    /// `kind` and `base` are what [`Self::read`] has found.
    ///
    /// Decoding must be off meanwhile; [`size_all`] sees to that. `None` if it is unimplemented,
    /// or if what it answers is no power of two.
    fn size<C>(config: &mut C, index: u8, kind: BarKind, base: u64) -> Option<Self>
    where
        C: ConfigSpace + ?Sized,
    {
        let offset = Self::offset(index);
        let low = config.read_u32(offset);
        config.write_u32(offset, u32::MAX);
        let ones = config.read_u32(offset);
        config.write_u32(offset, low);
        let mask = match kind {
            // The upper half of an I/O register may be hard-wired to zero.
            BarKind::Io => u64::from(ones & !0x3) | !0xffff,
            BarKind::Memory32 { .. } => u64::from(ones & !0xf) | !0xffff_ffff,
            BarKind::Memory64 { .. } => {
                let high = config.read_u32(offset + 4);
                config.write_u32(offset + 4, u32::MAX);
                let ones_high = config.read_u32(offset + 4);
                config.write_u32(offset + 4, high);
                u64::from(ones_high) << 32 | u64::from(ones & !0xf)
            }
        };
        let implemented = if kind == BarKind::Io { ones & 0xfffc != 0 } else { ones & !0xf != 0 };
        let wide = matches!(kind, BarKind::Memory64 { .. }) && mask != 0;
        let bytes = mask.wrapping_neg();
        ((implemented || wide) && bytes.is_power_of_two()).then_some(Self {
            index,
            kind,
            base,
            bytes,
        })
    }

    /// Writes a new base. Decoding must be off.
    pub fn assign(&mut self, config: &mut (impl ConfigSpace + ?Sized), base: u64) {
        self.base = base;
        let offset = Self::offset(self.index);
        config.write_u32(offset, base as u32);
        if self.registers() == 2 {
            config.write_u32(offset + 4, (base >> 32) as u32);
        }
    }
}

fn kind(low: u32, index: u8) -> Option<BarKind> {
    let prefetchable = low & 1 << 3 != 0;
    match low & 0x7 {
        bits if bits & 1 == 1 => Some(BarKind::Io),
        0b000 => Some(BarKind::Memory32 { prefetchable }),
        // The pair must not reach past the last register.
        0b100 if index < 5 => Some(BarKind::Memory64 { prefetchable }),
        _ => None,
    }
}

/// Sizes the first `count` registers of a function, switching its decoders off meanwhile.
pub fn size_all<C>(config: &mut C, count: u8) -> [Option<Bar>; 6]
where
    C: ConfigSpace + ?Sized,
{
    let before = Command::read(config);
    Command::change(config, Command::empty(), Command::IO | Command::MEMORY);
    let mut bars = [None; 6];
    let count = count.min(6);
    let mut index = 0;
    while index < count {
        let read = Bar::read(config, index);
        // The second half of a pair is no register of its own, sized or not.
        let registers = if matches!(read, Some((BarKind::Memory64 { .. }, _))) { 2 } else { 1 };
        // Behind the last register is something else: a bridge's bus numbers.
        if let Some((kind, base)) = read
            && registers <= count - index
        {
            bars[usize::from(index)] = Bar::size(config, index, kind, base);
        }
        index += registers;
    }
    Command::change(config, before & (Command::IO | Command::MEMORY), Command::empty());
    bars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeFunction;

    #[test]
    fn every_kind_of_register_is_sized_and_left_as_it_was() {
        let mut function = FakeFunction::endpoint(0x8086, 0x2922);
        function.bar_io(0, 32);
        function.bar_memory64(1, 1 << 34, true);
        function.bar_memory32(3, 4096, false);
        function.bar_memory32(5, 1 << 31, true);
        function.poke(0x1c, 0x1234_5000);
        function.write_u16(0x04, Command::MEMORY.bits());
        let before = function.bytes();
        let bars = size_all(&mut function, 6);
        assert_eq!(function.bytes(), before);
        let wide = BarKind::Memory64 { prefetchable: true };
        let narrow = BarKind::Memory32 { prefetchable: false };
        let large = BarKind::Memory32 { prefetchable: true };
        assert_eq!(bars[0], Some(Bar { index: 0, kind: BarKind::Io, base: 0, bytes: 32 }));
        assert_eq!(bars[1], Some(Bar { index: 1, kind: wide, base: 0, bytes: 1 << 34 }));
        assert_eq!(bars[2], None);
        let assigned = Bar { index: 3, kind: narrow, base: 0x1234_5000, bytes: 4096 };
        assert_eq!(bars[3], Some(assigned));
        assert_eq!(bars[4], None);
        assert_eq!(bars[5], Some(Bar { index: 5, kind: large, base: 0, bytes: 1 << 31 }));
    }

    #[test]
    fn a_pair_that_reaches_past_the_last_register_is_no_register() {
        let mut function = FakeFunction::endpoint(1, 1);
        function.set_fixed(BAR0 + 20, 0b100);
        assert_eq!(size_all(&mut function, 6), [None; 6]);
    }

    #[test]
    fn a_bridges_bus_numbers_are_not_taken_for_half_a_register() {
        let mut bridge = FakeFunction::bridge();
        bridge.bar_memory32(0, 4096, false);
        bridge.set_fixed(BAR0 + 4, 0b100);
        bridge.write_u32(0x18, 0x0003_0201);
        bridge.written.clear();
        let bars = size_all(&mut bridge, 2);
        assert!(bars[0].is_some() && bars[1].is_none());
        assert!(bridge.written.iter().all(|offset| *offset < BAR0 + 4), "{:x?}", bridge.written);
    }

    #[test]
    fn assigning_writes_both_halves() {
        let mut function = FakeFunction::endpoint(1, 1);
        function.bar_memory64(2, 1 << 20, false);
        let mut bar = size_all(&mut function, 6)[2].unwrap();
        bar.assign(&mut function, 0x12_3450_0000);
        assert_eq!(function.read_u32(0x18), 0x3450_0004);
        assert_eq!(function.read_u32(0x1c), 0x12);
        assert_eq!(Bar::read(&mut function, 2), Some((bar.kind, 0x12_3450_0000)));
    }
}
