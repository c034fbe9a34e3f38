//! What a card is asked to let through, and under which address.

use crate::interface::Capabilities;
use crate::offload::Offloads;
use bitflags::bitflags;
use core::fmt;
use heapless::Vec;
use thiserror::Error;

/// An address of a card, or of a group (IEEE 802 §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// All cards.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it is of a group, or of all.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether a card may have it.
    pub fn is_valid_unicast(self) -> bool {
        !self.is_multicast() && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

bitflags! {
    /// What a card lets through, whatever the lists of addresses say.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ReceiveMode: u8 {
        /// Everything.
        const PROMISCUOUS = 1 << 0;
        /// Frames to any group.
        const ALL_MULTICAST = 1 << 1;
        /// Frames to any card.
        const ALL_UNICAST = 1 << 2;
        /// None to groups.
        const NO_MULTICAST = 1 << 3;
        /// None to single cards.
        const NO_UNICAST = 1 << 4;
        /// None to all.
        const NO_BROADCAST = 1 << 5;
    }
}

/// What a card is asked to let through, and under which address, as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its address; `None` for the one that it was made with.
    pub mac: Option<MacAddress>,
    /// What it lets through in any case.
    pub mode: ReceiveMode,
    /// Other addresses of its own.
    pub unicast: Vec<MacAddress, { Self::MAX_UNICAST }>,
    /// Groups that it belongs to.
    pub multicast: Vec<MacAddress, { Self::MAX_MULTICAST }>,
    /// VLANs whose frames it lets through, where it filters by them.
    pub vlans: VlanSet,
    /// What it may do to frames before they are received, of what it can do
    /// ([`Capabilities::receive`]). Frames that are on their way have been done to what was allowed
    /// before.
    pub receive: Offloads,
}

impl Settings {
    /// The most other addresses.
    pub const MAX_UNICAST: usize = 32;
    /// The most groups.
    pub const MAX_MULTICAST: usize = 64;

    /// Frames to the card's own address, and to all.
    pub const DEFAULT: Self = Self {
        mac: None,
        mode: ReceiveMode::empty(),
        unicast: Vec::new(),
        multicast: Vec::new(),
        vlans: VlanSet::NONE,
        receive: Offloads::all(),
    };

    /// Whether a card that can do this much can be asked for them.
    pub fn check(&self, capabilities: &Capabilities) -> Result<(), Unsupported> {
        if self.mac.is_some_and(|mac| !mac.is_valid_unicast()) {
            return Err(Unsupported::BadAddress);
        }
        if self.mac.is_some() && !capabilities.can_set_mac {
            return Err(Unsupported::Mac);
        }
        if !capabilities.receive_modes.contains(self.mode) {
            return Err(Unsupported::Mode(self.mode.difference(capabilities.receive_modes)));
        }
        let lists = !self.unicast.is_empty() || !self.multicast.is_empty();
        if lists && !capabilities.has_address_filter {
            return Err(Unsupported::AddressFilter);
        }
        if self.unicast.iter().any(|mac| !mac.is_valid_unicast())
            || self.multicast.iter().any(|mac| !mac.is_multicast())
        {
            return Err(Unsupported::BadAddress);
        }
        if self.vlans != VlanSet::NONE && !capabilities.has_vlan_filter {
            return Err(Unsupported::VlanFilter);
        }
        if !self.receive.contains(capabilities.receive) && !capabilities.can_set_receive {
            return Err(Unsupported::Receive);
        }
        Ok(())
    }
}

/// Why a card cannot be asked for settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// Its address is fixed.
    #[error("the card's address cannot be set")]
    Mac,
    /// An address is of the wrong kind.
    #[error("an address of a card is given where one of a group is needed, or the other way round")]
    BadAddress,
    /// It cannot be asked to let these through, or to hold them back.
    #[error("the card has no such mode: {0:?}")]
    Mode(ReceiveMode),
    /// It does not filter by lists of addresses: it lets more through.
    #[error("the card has no lists of addresses")]
    AddressFilter,
    /// It does not filter by VLANs: it lets all through.
    #[error("the card does not filter by VLANs")]
    VlanFilter,
    /// It does to frames that are received what it was set up to do.
    #[error("the card cannot be asked to do less to frames that are received")]
    Receive,
}

/// A set of VLANs, by the number in their tags, of 12 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VlanSet([u64; 64]);

impl VlanSet {
    /// None.
    pub const NONE: Self = Self([0; 64]);

    /// Whether it has one.
    pub fn contains(&self, vlan: u16) -> bool {
        self.0.get(usize::from(vlan / 64)).is_some_and(|word| word >> (vlan % 64) & 1 == 1)
    }

    /// Puts one in; numbers of more than 12 bits are none.
    pub fn insert(&mut self, vlan: u16) {
        if let Some(word) = self.0.get_mut(usize::from(vlan / 64)) {
            *word |= 1 << (vlan % 64);
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, vlan: u16) {
        if let Some(word) = self.0.get_mut(usize::from(vlan / 64)) {
            *word &= !(1 << (vlan % 64));
        }
    }

    /// The lowest that only one of both has.
    pub fn first_difference(&self, other: &Self) -> Option<u16> {
        let words = self.0.iter().zip(&other.0).map(|(one, other)| one ^ other);
        let (place, word) = words.enumerate().find(|(_, word)| *word != 0)?;
        Some((place as u32 * 64 + word.trailing_zeros()) as u16)
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..4096).filter(|vlan| self.contains(*vlan))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn sets_of_vlans_tell_what_differs() {
        let (mut one, mut other) = (VlanSet::NONE, VlanSet::NONE);
        for vlan in [4095, 64, 63] {
            one.insert(vlan);
        }
        one.insert(4096);
        other.insert(63);
        assert!(one.contains(4095) && !one.contains(4096) && !one.contains(0));
        assert_eq!(one.first_difference(&other), Some(64));
        other.insert(64);
        assert_eq!(one.first_difference(&other), Some(4095));
        one.remove(4095);
        assert_eq!(one.first_difference(&other), None);
        assert_eq!(one, other);
    }

    #[test]
    fn what_a_card_cannot_do_it_is_not_asked_for() {
        let all = Capabilities {
            receive_modes: ReceiveMode::all(),
            has_address_filter: true,
            has_vlan_filter: true,
            can_set_mac: true,
            ..Capabilities::NONE
        };
        let own = MacAddress([0x52, 0x54, 0, 0, 0, 1]);
        let group = MacAddress([0x33, 0x33, 0, 0, 0, 1]);
        let mut settings = Settings { mac: Some(own), ..Settings::DEFAULT };
        assert_eq!(settings.check(&all), Ok(()));
        assert_eq!(settings.check(&Capabilities::NONE), Err(Unsupported::Mac));
        settings.mac = Some(group);
        assert_eq!(settings.check(&all), Err(Unsupported::BadAddress));
        settings.mac = None;
        settings.multicast.push(group).unwrap();
        assert_eq!(settings.check(&all), Ok(()));
        assert_eq!(settings.check(&Capabilities::NONE), Err(Unsupported::AddressFilter));
        settings.unicast.push(group).unwrap();
        assert_eq!(settings.check(&all), Err(Unsupported::BadAddress));
        settings = Settings { mode: ReceiveMode::PROMISCUOUS, ..Settings::DEFAULT };
        let refused = Err(Unsupported::Mode(ReceiveMode::PROMISCUOUS));
        assert_eq!(settings.check(&Capabilities::NONE), refused);
        settings = Settings::DEFAULT;
        settings.vlans.insert(7);
        assert_eq!(settings.check(&Capabilities::NONE), Err(Unsupported::VlanFilter));
        settings = Settings { receive: Offloads::CHECKSUM, ..Settings::DEFAULT };
        assert_eq!(settings.check(&Capabilities::NONE), Ok(()), "it does nothing in any case");
        let fixed = Capabilities { receive: Offloads::all(), ..all };
        assert_eq!(settings.check(&fixed), Err(Unsupported::Receive));
        assert_eq!(settings.check(&Capabilities { can_set_receive: true, ..fixed }), Ok(()));
        assert_eq!(own.to_string(), "52:54:00:00:00:01");
    }
}
