//! Giving addresses to base address registers and bridge windows that have none.
//!
//! Where firmware has run, everything has an address and nothing changes. Where none has (the lab,
//! a bare machine), each bus gets its registers and the windows of its bridges laid out by falling
//! alignment, which wastes nothing between powers of two.

use crate::bar::{Bar, BarKind, size_all};
use crate::bridge::Window;
use crate::config::{ConfigAccess, FunctionConfig};
use crate::header::{Class, Command, Layout};
use crate::ranges::Ranges;
use crate::{Address, Function};
use alloc::vec::Vec;
use core::ops::Range;

/// The address ranges that the root bus may decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// I/O ports; may be empty.
    pub io: Range<u64>,
    /// Memory below 4 GiB.
    pub memory: Range<u64>,
    /// Memory for 64-bit prefetchable registers; may be empty, and they then go below 4 GiB.
    pub prefetchable: Range<u64>,
}

/// What [`assign`] found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assigned {
    /// Every implemented register of every function, with its address.
    pub bars: Vec<(Address, Bar)>,
    /// Registers that no address could be found for. Their functions must not be switched on.
    pub unplaced: Vec<(Address, Bar)>,
}

impl Assigned {
    /// The registers of one function.
    pub fn of(&self, address: Address) -> impl Iterator<Item = &Bar> {
        self.bars.iter().filter(move |(at, _)| *at == address).map(|(_, bar)| bar)
    }
}

/// Sizes the registers of all `functions` (as [`scan`](crate::scan()) lists them), gives an
/// address inside `windows` to each that has none, and opens the bridges between.
///
/// Functions must be idle: their decoders are switched off while they are sized. Afterwards
/// bridges forward both ways; devices decode only what they decoded before.
pub fn assign<A: ConfigAccess + ?Sized>(
    access: &mut A,
    functions: &[Function],
    windows: &Windows,
) -> Assigned {
    let mut assignment = Assignment { access, functions, bars: Vec::new(), unplaced: Vec::new() };
    assignment.size();
    let Some(root) = functions.first().map(|function| function.address.bus) else {
        return Assigned::default();
    };
    let high = !windows.prefetchable.is_empty();
    assignment.place_bus(root, Space::Io, Ranges::new(windows.io.clone()), high);
    assignment.place_bus(root, Space::Low, Ranges::new(windows.memory.clone()), high);
    assignment.place_bus(root, Space::High, Ranges::new(windows.prefetchable.clone()), high);
    assignment.open_bridges();
    Assigned { bars: assignment.bars, unplaced: assignment.unplaced }
}

/// Which of the three windows something goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    Io,
    Low,
    High,
}

impl Space {
    /// `high` says whether there is a 64-bit prefetchable window on the way.
    const fn of(kind: BarKind, high: bool) -> Self {
        match kind {
            BarKind::Io => Self::Io,
            BarKind::Memory64 { prefetchable: true } if high => Self::High,
            _ => Self::Low,
        }
    }

    /// The spaces whose addresses are the same. Firmware may have put what could lie high below
    /// 4 GiB, and a 64-bit register that is not prefetchable above.
    const fn sharing_addresses(self) -> &'static [Self] {
        match self {
            Self::Io => &[Self::Io],
            Self::Low | Self::High => &[Self::Low, Self::High],
        }
    }

    const fn window(self) -> Window {
        match self {
            Self::Io => Window::Io,
            Self::Low => Window::Memory,
            Self::High => Window::Prefetchable,
        }
    }
}

/// Something that wants an address: `bytes` at a multiple of `alignment`.
struct Need {
    bytes: u64,
    alignment: u64,
    what: What,
}

enum What {
    /// Index into `bars`.
    Bar(usize),
    /// Index into `functions`, of a bridge.
    Bridge(usize),
}

struct Assignment<'a, A: ?Sized> {
    access: &'a mut A,
    functions: &'a [Function],
    bars: Vec<(Address, Bar)>,
    unplaced: Vec<(Address, Bar)>,
}

impl<A: ConfigAccess + ?Sized> Assignment<'_, A> {
    fn config(&mut self, address: Address) -> FunctionConfig<'_, A> {
        FunctionConfig::new(self.access, address)
    }

    fn size(&mut self) {
        for function in self.functions {
            // A host bridge's registers describe the path to memory: hands off.
            let Class { base, sub, .. } = function.identity.class;
            if (base, sub) == Class::HOST_BRIDGE || function.layout == Layout::CardBus {
                continue;
            }
            let address = function.address;
            let bars = size_all(&mut self.config(address), function.layout.bars());
            self.bars.extend(bars.into_iter().flatten().map(|bar| (address, bar)));
        }
    }

    /// Places what is on `bus` and behind its bridges into `ranges`.
    fn place_bus(&mut self, bus: u8, space: Space, mut ranges: Ranges, high: bool) {
        let mut bridges = Vec::new();
        let sharing = space.sharing_addresses();
        for (address, bar) in &self.bars {
            let shares = sharing.contains(&Space::of(bar.kind, high));
            if address.bus == bus && bar.base != 0 && shares {
                ranges.remove(bar.base..bar.base.saturating_add(bar.bytes));
            }
        }
        for index in self.bridges_on(bus) {
            for sharer in sharing {
                ranges.remove(self.window(index, *sharer).unwrap_or_default());
            }
            bridges.extend(self.window(index, space).map(|window| (index, window)));
        }
        for Need { bytes, alignment, what } in self.needs(bus, space, high) {
            match (what, ranges.take(bytes, alignment)) {
                (What::Bar(index), Some(range)) => {
                    let (address, mut bar) = self.bars[index];
                    bar.assign(&mut self.config(address), range.start);
                    self.bars[index].1 = bar;
                }
                (What::Bar(index), None) => self.unplaced.push(self.bars[index]),
                (What::Bridge(index), Some(range)) => {
                    let address = self.functions[index].address;
                    space.window().open(&mut self.config(address), range.clone());
                    bridges.push((index, range));
                }
                // Nothing fits: each register behind is reported on its own.
                (What::Bridge(index), None) => bridges.push((index, 0..0)),
            }
        }
        for (index, window) in bridges {
            let high = high && self.forwards_high(index);
            if let Some(buses) = self.functions[index].buses {
                self.place_bus(buses.secondary, space, Ranges::new(window), high);
            }
        }
    }

    /// What on `bus` still wants an address, by falling alignment.
    fn needs(&mut self, bus: u8, space: Space, high: bool) -> Vec<Need> {
        let wanting = self.bars.iter().enumerate().filter(|(_, (address, bar))| {
            address.bus == bus && bar.base == 0 && Space::of(bar.kind, high) == space
        });
        let mut needs: Vec<_> = wanting
            .map(|(index, (_, bar))| Need {
                bytes: bar.bytes,
                alignment: bar.bytes,
                what: What::Bar(index),
            })
            .collect();
        for index in self.bridges_on(bus) {
            if self.window(index, space).is_none() {
                needs.extend(self.bridge_needs(index, space, high));
            }
        }
        needs.sort_by_key(|need| core::cmp::Reverse(need.alignment));
        needs
    }

    /// The window that a bridge needs for everything behind it, if anything.
    fn bridge_needs(&mut self, index: usize, space: Space, high: bool) -> Option<Need> {
        let high = high && self.forwards_high(index);
        let needs = self.needs(self.functions[index].buses?.secondary, space, high);
        let granule = space.window().granule();
        let alignment = needs.first()?.alignment.max(granule);
        let end = needs.iter().try_fold(0u64, |end, need| {
            end.checked_next_multiple_of(need.alignment)?.checked_add(need.bytes)
        });
        let bytes = end.and_then(|end| end.checked_next_multiple_of(granule));
        // More than there are addresses will not fit, and then each register is reported.
        let bytes = bytes.unwrap_or(u64::MAX);
        Some(Need { bytes, alignment, what: What::Bridge(index) })
    }

    /// Bridges on `bus` that lead on. Scanning follows each bus from one bridge only, and numbers
    /// grow on the way down, so recursion through this ends.
    fn bridges_on(&self, bus: u8) -> Vec<usize> {
        let functions = self.functions.iter().enumerate();
        let bridges = functions.filter(|(_, f)| f.address.bus == bus && f.buses.is_some());
        bridges.map(|(index, _)| index).collect()
    }

    fn window(&mut self, index: usize, space: Space) -> Option<Range<u64>> {
        space.window().read(&mut self.config(self.functions[index].address))
    }

    fn forwards_high(&mut self, index: usize) -> bool {
        Window::Prefetchable.is_wide(&mut self.config(self.functions[index].address))
    }

    fn open_bridges(&mut self) {
        for function in self.functions {
            if function.layout == Layout::Bridge {
                let on = Command::IO | Command::MEMORY | Command::BUS_MASTER;
                Command::change(&mut self.config(function.address), on, Command::empty());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeBus, FakeFunction};
    use crate::{ConfigSpace, Numbering, scan};

    fn windows() -> Windows {
        Windows {
            io: 0x1000..0x10000,
            memory: 0xc000_0000..0xfec0_0000,
            prefetchable: 0x80_0000_0000..0x100_0000_0000,
        }
    }

    fn place(bus: &mut FakeBus, windows: &Windows) -> (Vec<Function>, Assigned) {
        let found = scan(bus, 0, 0, Numbering::AssignMissing);
        let assigned = assign(bus, &found, windows);
        (found, assigned)
    }

    /// No two registers overlap, each is naturally aligned, inside the windows, and inside every
    /// bridge's window on its way.
    fn check(bus: &mut FakeBus, found: &[Function], assigned: &Assigned) {
        for (index, (address, bar)) in assigned.bars.iter().enumerate() {
            assert!(bar.base != 0 && bar.base.is_multiple_of(bar.bytes), "{address} {bar:x?}");
            let range = bar.base..bar.base + bar.bytes;
            let io = bar.kind == BarKind::Io;
            for (_, other) in &assigned.bars[..index] {
                let apart = other.base >= range.end || other.base + other.bytes <= range.start;
                assert!(apart || io != (other.kind == BarKind::Io), "{bar:x?} {other:x?}");
            }
            for bridge in found {
                let Some(buses) = bridge.buses else { continue };
                if !(buses.secondary..=buses.subordinate).contains(&address.bus) {
                    continue;
                }
                let mut config = FunctionConfig::new(bus, bridge.address);
                let kinds =
                    if io { &[Window::Io][..] } else { &[Window::Memory, Window::Prefetchable] };
                let inside = kinds.iter().any(|kind| {
                    kind.read(&mut config)
                        .is_some_and(|w| w.start <= range.start && range.end <= w.end)
                });
                assert!(inside, "{address} {bar:x?} behind {}", bridge.address);
            }
        }
    }

    #[test]
    fn registers_behind_bridges_lie_in_their_windows() {
        let mut bus = FakeBus::default();
        let mut host = FakeFunction::endpoint(0x8086, 0x29c0);
        host.set_fixed(0x08, 0x0600_0000);
        host.bar_memory32(0, 1 << 20, false);
        bus.add(&[], 0, 0, host);
        let mut near = FakeFunction::endpoint(1, 1);
        near.bar_io(4, 32);
        near.bar_memory32(5, 4096, false);
        bus.add(&[], 1, 0, near);
        bus.add(&[], 2, 0, FakeFunction::bridge());
        bus.add(&[(2, 0)], 0, 0, FakeFunction::bridge());
        for device in 0..3 {
            let mut far = FakeFunction::endpoint(2, device.into());
            far.bar_memory64(0, 0x4000 << (4 * device), device == 2);
            far.bar_memory32(2, 1 << 21, true);
            far.bar_io(3, 64);
            bus.add(&[(2, 0), (0, 0)], device, 0, far);
        }
        let (found, assigned) = place(&mut bus, &windows());
        assert_eq!(assigned.bars.len(), 2 + 9, "a host bridge is left alone");
        assert_eq!(assigned.unplaced, []);
        check(&mut bus, &found, &assigned);
        let high = assigned.bars.iter().filter(|(_, bar)| bar.base >= 1 << 32).count();
        assert_eq!(high, 1, "only 64-bit prefetchable registers go high");
        for function in &found {
            let mut config = FunctionConfig::new(&mut bus, function.address);
            let master = Command::read(&mut config).contains(Command::BUS_MASTER);
            assert_eq!(master, function.layout == Layout::Bridge);
        }
        let again = assign(&mut bus, &found, &windows());
        assert_eq!(again, assigned, "what has an address keeps it");
    }

    #[test]
    fn addresses_that_firmware_gave_are_kept_and_avoided() {
        let mut bus = FakeBus::default();
        let mut first = FakeFunction::endpoint(1, 1);
        first.bar_memory32(0, 1 << 20, false);
        bus.add(&[], 0, 0, first);
        let mut second = FakeFunction::endpoint(1, 2);
        second.bar_memory32(0, 1 << 20, false);
        second.write_u32(0x10, 0xc000_0000);
        bus.add(&[], 1, 0, second);
        let (found, assigned) = place(&mut bus, &windows());
        check(&mut bus, &found, &assigned);
        assert_eq!(assigned.bars[1].1.base, 0xc000_0000);
        assert_eq!(assigned.bars[0].1.base, 0xc010_0000);
    }

    #[test]
    fn addresses_are_avoided_whatever_kind_of_register_firmware_gave_them_to() {
        let mut bus = FakeBus::default();
        let mut wanting = FakeFunction::endpoint(1, 1);
        wanting.bar_memory32(0, 1 << 20, false);
        wanting.bar_memory64(2, 1 << 20, true);
        bus.add(&[], 0, 0, wanting);
        let mut low = FakeFunction::endpoint(1, 2);
        low.bar_memory64(0, 1 << 20, true);
        low.write_u32(0x10, 0xc000_0000);
        bus.add(&[], 1, 0, low);
        let mut high = FakeFunction::endpoint(1, 3);
        high.bar_memory64(0, 1 << 20, false);
        high.write_u32(0x14, 0x80);
        bus.add(&[], 2, 0, high);
        let mut bridge = FakeFunction::bridge();
        Window::Prefetchable.open(&mut bridge, 0xc010_0000..0xc030_0000);
        bus.add(&[], 3, 0, bridge);
        let (found, assigned) = place(&mut bus, &windows());
        check(&mut bus, &found, &assigned);
        let bases: Vec<_> = assigned.of(Address::new(0, 0, 0, 0)).map(|bar| bar.base).collect();
        assert_eq!(bases, [0xc030_0000, 0x80_0010_0000]);
    }

    #[test]
    fn what_does_not_fit_is_reported_and_the_rest_is_placed() {
        let mut bus = FakeBus::default();
        let mut greedy = FakeFunction::endpoint(1, 1);
        greedy.bar_memory32(0, 1 << 31, false);
        greedy.bar_memory32(1, 4096, false);
        bus.add(&[], 0, 0, greedy);
        bus.add(&[], 1, 0, FakeFunction::bridge());
        let mut behind = FakeFunction::endpoint(1, 2);
        behind.bar_memory64(0, 1 << 40, true);
        bus.add(&[(1, 0)], 0, 0, behind);
        let (_, assigned) = place(&mut bus, &windows());
        let unplaced: Vec<_> = assigned.unplaced.iter().map(|(_, bar)| bar.bytes).collect();
        assert_eq!(unplaced, [1 << 31, 1 << 40]);
        assert_eq!(assigned.of(Address::new(0, 0, 0, 0)).nth(1).unwrap().base, 0xc000_0000);
    }

    #[test]
    fn registers_that_want_more_than_there_are_addresses_are_reported() {
        let mut bus = FakeBus::default();
        bus.add(&[], 0, 0, FakeFunction::bridge());
        bus.add(&[(0, 0)], 0, 0, FakeFunction::bridge());
        let mut greedy = FakeFunction::endpoint(1, 1);
        (0..6).step_by(2).for_each(|index| greedy.bar_memory64(index, 1 << 63, false));
        bus.add(&[(0, 0), (0, 0)], 0, 0, greedy);
        let (_, assigned) = place(&mut bus, &windows());
        let unplaced: Vec<_> = assigned.unplaced.iter().map(|(_, bar)| bar.bytes).collect();
        assert_eq!(unplaced, [1 << 63; 3]);
    }
}
