//! Finding the functions behind all bridges.

use crate::Address;
use crate::bridge::Buses;
use crate::capability::{self, id};
use crate::config::{ConfigAccess, ConfigSpace, FunctionConfig};
use crate::header::{HEADER_TYPE, INTERRUPT_PIN, Identity, Layout, MULTI_FUNCTION};
use alloc::vec::Vec;

/// Bridges one behind the other that a scan follows. Real machines have fewer than ten.
pub const MAX_DEPTH: u8 = 32;

/// What to do with bridges whose buses nobody has numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// Leave everything as it is, and do not look behind such bridges.
    Keep,
    /// Keep the numbers that firmware has given, and number the other buses.
    AssignMissing,
}

/// A function that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// What it says it is.
    pub identity: Identity,
    /// How its header is laid out.
    pub layout: Layout,
    /// For a bridge that was followed: the buses that it stands between.
    pub buses: Option<Buses>,
    /// Interrupt pin it uses: 1–4 for INTA#–INTD#, 0 for none.
    pub interrupt_pin: u8,
}

impl Function {
    fn read<A: ConfigAccess + ?Sized>(access: &mut A, address: Address) -> Option<Self> {
        let mut config = FunctionConfig::new(access, address);
        let identity = Identity::read(&mut config)?;
        let layout = Layout::from_bits(config.read_u8(HEADER_TYPE));
        let buses = (layout == Layout::Bridge).then(|| Buses::read(&mut config));
        let interrupt_pin = config.read_u8(INTERRUPT_PIN);
        Some(Self { address, identity, layout, buses, interrupt_pin })
    }
}

/// Lists all functions of `segment` from `first_bus` on, parents before children.
///
/// Terminates on any hardware: a bridge is followed only to a bus above its own and inside its
/// parent's range, and at most [`MAX_DEPTH`] deep. What is not followed is still listed.
pub fn scan<A: ConfigAccess + ?Sized>(
    access: &mut A,
    segment: u16,
    first_bus: u8,
    numbering: Numbering,
) -> Vec<Function> {
    let mut scan = Scan { access, segment, numbering, found: Vec::new() };
    scan.bus(first_bus, u8::MAX, 0, false);
    scan.found
}

struct Scan<'a, A: ?Sized> {
    access: &'a mut A,
    segment: u16,
    numbering: Numbering,
    found: Vec<Function>,
}

impl<A: ConfigAccess + ?Sized> Scan<'_, A> {
    /// Scans `bus`, whose descendants may use numbers up to `limit`; returns the highest in use.
    fn bus(&mut self, bus: u8, limit: u8, depth: u8, point_to_point: bool) -> u8 {
        let first = self.found.len();
        let devices = if point_to_point { 1 } else { Address::DEVICES };
        for device in 0..devices {
            self.device(bus, device);
        }
        // Bridges that firmware has numbered go first, so that no number is given twice.
        let mut bridges: Vec<_> = (first..self.found.len())
            .filter_map(|index| Some((self.found[index].buses?, index)))
            .collect();
        bridges.sort_by_key(|(buses, _)| buses.secondary);
        let (mut highest, mut unnumbered) = (bus, Vec::new());
        for (buses, index) in bridges {
            let free = buses.secondary > highest && buses.subordinate <= limit;
            if free && buses.secondary <= buses.subordinate && depth < MAX_DEPTH {
                self.behind(index, buses.secondary, buses.subordinate, depth);
                highest = buses.subordinate;
            } else {
                self.found[index].buses = None;
                unnumbered.push(index);
            }
        }
        if self.numbering == Numbering::AssignMissing && depth < MAX_DEPTH {
            for index in unnumbered {
                highest = self.number(index, highest, limit, depth);
            }
        }
        highest
    }

    fn device(&mut self, bus: u8, device: u8) {
        let mut functions = 1;
        for function in 0..Address::FUNCTIONS {
            if function >= functions {
                break;
            }
            let address = Address::new(self.segment, bus, device, function);
            let Some(found) = Function::read(self.access, address) else {
                if function == 0 {
                    return;
                }
                continue;
            };
            if function == 0 && self.access.read_u8(address, HEADER_TYPE) & MULTI_FUNCTION != 0 {
                functions = Address::FUNCTIONS;
            }
            self.found.push(found);
        }
    }

    /// Numbers the bus behind an unnumbered bridge; returns the highest number in use.
    fn number(&mut self, index: usize, highest: u8, limit: u8, depth: u8) -> u8 {
        if highest >= limit {
            return highest;
        }
        let secondary = highest + 1;
        let primary = self.found[index].address.bus;
        // Until the buses behind are known, everything up to the limit is forwarded.
        self.write_buses(index, Buses { primary, secondary, subordinate: limit });
        let subordinate = self.behind(index, secondary, limit, depth);
        self.write_buses(index, Buses { primary, secondary, subordinate });
        subordinate
    }

    fn write_buses(&mut self, index: usize, buses: Buses) {
        buses.write(&mut FunctionConfig::new(self.access, self.found[index].address));
        self.found[index].buses = Some(buses);
    }

    fn behind(&mut self, index: usize, bus: u8, limit: u8, depth: u8) -> u8 {
        let mut config = FunctionConfig::new(self.access, self.found[index].address);
        let point_to_point = leads_to_a_link(&mut config);
        self.bus(bus, limit, depth + 1, point_to_point)
    }
}

/// Whether a bridge is a root port or a switch's downstream port: a PCI Express link has only
/// device 0 at its other end, and some hardware answers for the other 31 as well (PCIe §7.3.1).
fn leads_to_a_link(config: &mut impl ConfigSpace) -> bool {
    const ROOT_PORT: u16 = 4;
    const DOWNSTREAM_PORT: u16 = 6;
    capability::find(config, id::EXPRESS).is_some_and(|offset| {
        let port_type = config.read_u16(offset + 2) >> 4 & 0xf;
        port_type == ROOT_PORT || port_type == DOWNSTREAM_PORT
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeBus, FakeFunction};
    use proptest::prelude::*;
    use std::vec;

    fn addresses(found: &[Function]) -> Vec<(u8, u8, u8)> {
        found.iter().map(|f| (f.address.bus, f.address.device(), f.address.function())).collect()
    }

    /// Bus 0: an endpoint with functions 0 and 3, and two bridges. Behind the first bridge another
    /// one with an endpoint behind it, behind the second an endpoint.
    fn machine() -> FakeBus {
        let mut bus = FakeBus::default();
        let mut first = FakeFunction::endpoint(0x8086, 1);
        first.set_fixed(0x0c, u32::from(MULTI_FUNCTION) << 16);
        bus.add(&[], 0, 0, first);
        bus.add(&[], 0, 3, FakeFunction::endpoint(0x8086, 2));
        bus.add(&[], 1, 1, FakeFunction::endpoint(0x8086, 3)); // hidden: no function 0
        bus.add(&[], 2, 0, FakeFunction::bridge());
        bus.add(&[], 4, 0, FakeFunction::bridge());
        bus.add(&[(2, 0)], 0, 0, FakeFunction::bridge());
        bus.add(&[(2, 0), (0, 0)], 5, 0, FakeFunction::endpoint(0x8086, 4));
        bus.add(&[(4, 0)], 31, 0, FakeFunction::endpoint(0x8086, 5));
        bus
    }

    #[test]
    fn without_numbers_only_the_root_bus_is_seen() {
        let found = scan(&mut machine(), 0, 0, Numbering::Keep);
        assert_eq!(addresses(&found), [(0, 0, 0), (0, 0, 3), (0, 2, 0), (0, 4, 0)]);
        assert!(found.iter().all(|function| function.buses.is_none()));
    }

    #[test]
    fn buses_are_numbered_depth_first() {
        let mut machine = machine();
        let found = scan(&mut machine, 0, 0, Numbering::AssignMissing);
        let behind = [(1, 0, 0), (2, 5, 0), (3, 31, 0)];
        assert_eq!(addresses(&found)[4..], behind);
        let buses: Vec<_> = found
            .iter()
            .filter_map(|f| f.buses.map(|b| (b.primary, b.secondary, b.subordinate)))
            .collect();
        assert_eq!(buses, [(0, 1, 2), (0, 3, 3), (1, 2, 2)]);
        assert_eq!(scan(&mut machine, 0, 0, Numbering::Keep), found, "and now it is numbered");
    }

    #[test]
    fn numbers_that_firmware_gave_are_kept_and_not_given_again() {
        let mut machine = machine();
        let kept = Buses { primary: 0, secondary: 7, subordinate: 9 };
        kept.write(&mut FunctionConfig::new(&mut machine, Address::new(0, 0, 4, 0)));
        let found = scan(&mut machine, 0, 0, Numbering::AssignMissing);
        assert_eq!(addresses(&found)[4..], [(7, 31, 0), (10, 0, 0), (11, 5, 0)]);
    }

    #[test]
    fn a_link_has_only_device_0_at_its_other_end() {
        let mut machine = FakeBus::default();
        let mut port = FakeFunction::bridge();
        port.set_fixed(0x04, 1 << 20);
        port.set_fixed(0x34, 0x40);
        port.set_fixed(0x40, 0x0042_0010); // PCI Express, root port
        machine.add(&[], 0, 0, port);
        machine.add(&[(0, 0)], 0, 0, FakeFunction::endpoint(1, 1));
        machine.add(&[(0, 0)], 1, 0, FakeFunction::endpoint(1, 1));
        let found = scan(&mut machine, 0, 0, Numbering::AssignMissing);
        assert_eq!(addresses(&found), [(0, 0, 0), (1, 0, 0)]);
    }

    /// Answers every read with bytes drawn from a seed, and forgets writes.
    struct Noise(Vec<u8>);

    impl ConfigAccess for Noise {
        fn size_bytes(&self) -> u16 {
            4096
        }
        fn read_u8(&mut self, address: Address, offset: u16) -> u8 {
            let place = usize::from(address.requester_id()) * 31 + usize::from(offset);
            self.0[place % self.0.len()]
        }
        fn read_u16(&mut self, address: Address, offset: u16) -> u16 {
            u16::from_le_bytes([0, 1].map(|byte| self.read_u8(address, offset + byte)))
        }
        fn read_u32(&mut self, address: Address, offset: u16) -> u32 {
            u32::from_le_bytes([0, 1, 2, 3].map(|byte| self.read_u8(address, offset + byte)))
        }
        fn write_u8(&mut self, _: Address, _: u16, _: u8) {}
        fn write_u16(&mut self, _: Address, _: u16, _: u16) {}
        fn write_u32(&mut self, _: Address, _: u16, _: u32) {}
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn nonsense_is_survived(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
            for numbering in [Numbering::Keep, Numbering::AssignMissing] {
                let mut noise = Noise(bytes.clone());
                let found = scan(&mut noise, 0, 0, numbering);
                let mut secondaries: Vec<_> =
                    found.iter().filter_map(|f| f.buses.map(|b| b.secondary)).collect();
                let followed = secondaries.len();
                secondaries.sort_unstable();
                secondaries.dedup();
                prop_assert_eq!(secondaries.len(), followed, "each bus has one parent");
                let windows = crate::Windows {
                    io: 0x1000..0x10000,
                    memory: 0x8000_0000..0xf000_0000,
                    prefetchable: vec![0..0, 1 << 36..1 << 38][bytes.len() % 2].clone(),
                };
                crate::assign(&mut noise, &found, &windows);
            }
        }
    }
}
