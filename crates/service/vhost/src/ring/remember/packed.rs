//! Of packed rings.
//!
//! Used descriptors take the places of available ones, so what is in flight is remembered whole:
//! a copy of each of its descriptors.

use super::is_adopted;
use crate::error::Violation;
use crate::memory::Area;
use crate::ring::packed::Place;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::packed::Descriptor;
use outboard_virtio::spec::vhost_user::INFLIGHT_VERSION;
use outboard_virtio::spec::vhost_user::inflight_packed::{
    ADDRESS, BYTES, COUNT, COUNTER, ENTRIES, FEATURES, FLAGS, FREE_HEAD, ID, IN_FLIGHT, LAST, NEXT,
    OLD_FREE_HEAD, STATE_BYTES, STATES, USED, VERSION,
};

/// Descriptors that are in flight, and a list of places for others.
#[derive(Debug)]
pub(crate) struct PackedMemory {
    area: Area,
    entries: u16,
    counter: u64,
    free_head: u16,
}

/// A request that a predecessor has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    /// Where it is remembered.
    pub(crate) place: u16,
    /// Its buffer's ID.
    pub(crate) id: u16,
    /// Address, bytes and flags of each descriptor.
    pub(crate) descriptors: Vec<(u64, u32, u16)>,
}

/// Where the next used descriptor goes, and what a predecessor has left.
pub(crate) type Adopted = (Place, Vec<Left>);

/// ID, flags and bytes are written as one word.
const _: () = assert!(FLAGS == ID + 2 && BYTES == ID + 4 && ID.is_multiple_of(8));

const fn state(place: u16) -> usize {
    STATES + STATE_BYTES * place as usize
}

/// Where the next used descriptor goes, and where it went before, as one word: both change at once,
/// though the wrap counters lie apart from the indices.
const fn used_word(now: Place, before: Place) -> u64 {
    now.index as u64
        | (before.index as u64) << 16
        | (now.wrap as u64) << 32
        | (before.wrap as u64) << 40
}

impl PackedMemory {
    /// Takes the memory over: where the next used descriptor goes, and what the predecessor has left
    /// in flight, in the order in which it took it. If there was no predecessor, `used` is where it
    /// goes. `flags` reads the flags of a descriptor of the ring.
    pub(crate) fn adopt(
        area: Area,
        entries: u16,
        features: Features,
        used: Place,
        flags: impl Fn(u16) -> u16,
    ) -> Result<(Self, Option<Adopted>), Violation> {
        let mut memory = Self { area, entries, counter: 0, free_head: 0 };
        if !is_adopted(&memory.area, VERSION, ENTRIES, entries)? {
            memory.begin(features, used);
            return Ok((memory, None));
        }
        let area = &mut memory.area;
        let word = area.load_u64(USED);
        let place = |index: u64, wrap: u64| {
            let index = index as u16;
            let known = (index < entries).then_some(Place { index, wrap: wrap & 0xff != 0 });
            known.ok_or(Violation::InFlight)
        };
        let (mut now, before) = (place(word, word >> 32)?, place(word >> 16, word >> 40)?);
        let mut free_head = area.load_u16(OLD_FREE_HEAD);
        // The flags that its descriptor had while it was available: if it has others, the driver
        // was shown that it is used.
        let available = if before.wrap { Descriptor::AVAILABLE } else { Descriptor::USED };
        let both = Descriptor::AVAILABLE | Descriptor::USED;
        if now != before && flags(before.index) & both != available {
            free_head = area.load_u16(FREE_HEAD);
            area.store_u16(OLD_FREE_HEAD, free_head);
        } else {
            now = before;
            area.store_u16(FREE_HEAD, free_head);
        }
        area.store_u64(USED, used_word(now, now));
        memory.free_head = free_head;
        memory.forget_free();
        let left = memory.left()?;
        Ok((memory, Some((now, left))))
    }

    /// Writes down a ring without anything in flight.
    fn begin(&mut self, features: Features, used: Place) {
        for place in 0..self.entries {
            self.area.store_u16(state(place) + NEXT, place + 1);
        }
        self.area.store_u64(FEATURES, features.bits());
        self.area.store_u16(ENTRIES, self.entries);
        self.area.store_u64(USED, used_word(used, used));
        self.area.store_u16(VERSION, INFLIGHT_VERSION);
    }

    /// What is free is not in flight, whatever the predecessor had begun to write down.
    fn forget_free(&mut self) {
        let mut place = self.free_head;
        for _ in 0..self.entries {
            // The list ends with what is no place.
            if place >= self.entries {
                break;
            }
            self.set_in_flight(place, false);
            place = self.area.load_u16(state(place) + NEXT);
        }
    }

    fn left(&mut self) -> Result<Vec<Left>, Violation> {
        let area = &self.area;
        let mut heads: Vec<_> = (0..self.entries)
            .filter(|place| area.load_u16(state(*place) + IN_FLIGHT) & 0xff != 0)
            .map(|place| (area.load_u64(state(place) + COUNTER), place))
            .collect();
        heads.sort_unstable();
        self.counter = heads.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        let (mut left, mut room) = (Vec::new(), self.entries);
        for (_, place) in heads {
            let count = area.load_u16(state(place) + COUNT);
            room = room.checked_sub(count).ok_or(Violation::InFlight)?;
            let (mut at, mut id, mut descriptors) = (place, 0, Vec::new());
            for _ in 0..count {
                if at >= self.entries {
                    return Err(Violation::InFlight);
                }
                let base = state(at);
                let address: [u8; 8] = area.read(base + ADDRESS);
                let bytes: [u8; 4] = area.read(base + BYTES);
                let flags = area.load_u16(base + FLAGS);
                descriptors.push((u64::from_le_bytes(address), u32::from_le_bytes(bytes), flags));
                id = area.load_u16(base + ID);
                at = area.load_u16(base + NEXT);
            }
            if descriptors.is_empty() {
                return Err(Violation::InFlight);
            }
            left.push(Left { place, id, descriptors });
        }
        Ok(left)
    }

    /// `inflight` and the padding behind it.
    fn set_in_flight(&mut self, place: u16, is: bool) {
        self.area.store_u16(state(place) + IN_FLIGHT, u16::from(is));
    }

    /// A request is taken out of the ring; where it is remembered.
    ///
    /// Until the last of these writes a successor finds the places free, so their order among
    /// themselves does not matter.
    pub(crate) fn take(&mut self, descriptors: &[Descriptor]) -> Result<u16, Violation> {
        let head = self.free_head;
        if head >= self.entries {
            return Err(Violation::InFlight);
        }
        self.area.store_u64(state(head) + COUNTER, self.counter);
        self.counter = self.counter.wrapping_add(1);
        self.set_in_flight(head, true);
        let (mut last, mut next) = (head, head);
        for one in descriptors {
            if next >= self.entries {
                return Err(Violation::InFlight);
            }
            last = next;
            self.area.store_u64(state(last) + ADDRESS, one.address.get());
            let (id, flags, bytes) = (one.id.get(), one.flags.get(), one.bytes.get());
            let beside = u64::from(id) | u64::from(flags) << 16 | u64::from(bytes) << 32;
            self.area.store_u64(state(last) + ID, beside);
            next = self.area.load_u16(state(last) + NEXT);
        }
        self.area.store_u16(state(head) + LAST, last);
        self.area.store_u16(state(head) + COUNT, descriptors.len() as u16);
        self.free_head = next;
        self.area.store_u16(FREE_HEAD, next);
        self.area.store_u16(OLD_FREE_HEAD, next);
        Ok(head)
    }

    /// A request is about to be shown as used: the next used descriptor goes to `now` afterwards.
    pub(crate) fn before_use(&mut self, place: u16, before: Place, now: Place) {
        let last = self.area.load_u16(state(place) + LAST);
        if last < self.entries {
            self.area.store_u16(state(last) + NEXT, self.free_head);
        }
        self.free_head = place;
        self.area.store_u16(FREE_HEAD, place);
        self.area.store_u64(USED, used_word(now, before));
    }

    /// It was shown.
    pub(crate) fn after_use(&mut self, place: u16, now: Place) {
        self.set_in_flight(place, false);
        self.area.store_u16(OLD_FREE_HEAD, self.free_head);
        self.area.store_u64(USED, used_word(now, now));
    }
}
