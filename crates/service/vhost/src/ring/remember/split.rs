//! Of split rings.

use super::is_adopted;
use crate::error::Violation;
use crate::memory::Area;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::INFLIGHT_VERSION;
use outboard_virtio::spec::vhost_user::inflight_split::{
    COUNTER, ENTRIES, FEATURES, IN_FLIGHT, LAST_BATCH_HEAD, NEXT, STATE_BYTES, STATES, USED_INDEX,
    VERSION,
};

/// Which first descriptors are in flight.
#[derive(Debug)]
pub(crate) struct SplitMemory {
    area: Area,
    /// Goes up with each request that is taken.
    counter: u64,
    last_batch_head: u16,
    /// Those that were written into the used ring, but are not published.
    batch: Vec<u16>,
}

const fn state(id: u16) -> usize {
    STATES + STATE_BYTES * id as usize
}

impl SplitMemory {
    /// Takes the memory over: what the predecessor has left in flight, in the order in which it
    /// took it; `None` if there was no predecessor. `used` is the used ring's index.
    pub(crate) fn adopt(
        area: Area,
        entries: u16,
        features: Features,
        used: u16,
    ) -> Result<(Self, Option<Vec<u16>>), Violation> {
        let mut memory = Self { area, counter: 0, last_batch_head: 0, batch: Vec::new() };
        if !is_adopted(&memory.area, VERSION, ENTRIES, entries)? {
            memory.area.store_u64(FEATURES, features.bits());
            memory.area.store_u16(ENTRIES, entries);
            memory.area.store_u16(USED_INDEX, used);
            memory.area.store_u16(VERSION, INFLIGHT_VERSION);
            return Ok((memory, None));
        }
        let area = &mut memory.area;
        let batch = used.wrapping_sub(area.load_u16(USED_INDEX));
        let is_in_flight = |area: &Area, id| area.load_u16(state(id) + IN_FLIGHT) & 0xff != 0;
        if batch > entries {
            // The ring has been set up anew since, which nothing in flight would survive.
            if (0..entries).any(|id| is_in_flight(area, id)) {
                return Err(Violation::InFlight);
            }
        } else if batch > 0 {
            let mut id = area.load_u16(LAST_BATCH_HEAD);
            for _ in 0..batch {
                if id >= entries {
                    return Err(Violation::InFlight);
                }
                area.store_u16(state(id) + IN_FLIGHT, 0);
                id = area.load_u16(state(id) + NEXT);
            }
        }
        area.store_u16(USED_INDEX, used);
        let counted = |id: u16| (area.load_u64(state(id) + COUNTER), id);
        let in_flight = (0..entries).filter(|id| is_in_flight(area, *id));
        let mut left: Vec<_> = in_flight.map(counted).collect();
        left.sort_unstable();
        memory.counter = left.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        Ok((memory, Some(left.into_iter().map(|(_, id)| id).collect())))
    }

    /// A request is taken out of the available ring.
    pub(crate) fn take(&mut self, id: u16) {
        self.area.store_u64(state(id) + COUNTER, self.counter);
        self.counter = self.counter.wrapping_add(1);
        self.area.store_u16(state(id) + IN_FLIGHT, 1);
    }

    /// A request was written into the used ring.
    pub(crate) fn batch(&mut self, id: u16) {
        self.area.store_u16(state(id) + NEXT, self.last_batch_head);
        self.last_batch_head = id;
        self.area.store_u16(LAST_BATCH_HEAD, id);
        self.batch.push(id);
    }

    /// The used ring's index was written.
    pub(crate) fn published(&mut self, used: u16) {
        for id in self.batch.drain(..) {
            self.area.store_u16(state(id) + IN_FLIGHT, 0);
        }
        self.area.store_u16(USED_INDEX, used);
    }
}
