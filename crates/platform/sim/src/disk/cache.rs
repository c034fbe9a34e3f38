//! The volatile write cache.

use std::collections::BTreeMap;

/// Sectors that were written and are not yet on the medium.
///
/// Their data is in one allocation that grows to the cache's size and stays.
#[derive(Debug)]
pub(super) struct Cache {
    sector_bytes: usize,
    capacity: usize,
    /// Where in `data` each sector is.
    places: BTreeMap<u64, u32>,
    data: Vec<u8>,
    free: Vec<u32>,
    /// Places that were ever taken since the cache was empty.
    taken: u32,
    /// Where the next sector to be evicted is looked for.
    arm: u64,
}

impl Cache {
    /// An empty cache for some sectors.
    pub(super) fn new(sector_bytes: usize, capacity: usize) -> Self {
        let capacity = capacity.clamp(1, u32::MAX as usize);
        let (places, data, free) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { sector_bytes, capacity, places, data, free, taken: 0, arm: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.places.len() >= self.capacity
    }

    pub(super) fn contains(&self, lba: u64) -> bool {
        self.places.contains_key(&lba)
    }

    fn at(&self, place: u32) -> &[u8] {
        &self.data[place as usize * self.sector_bytes..][..self.sector_bytes]
    }

    /// A sector's data.
    pub(super) fn get(&self, lba: u64) -> Option<&[u8]> {
        self.places.get(&lba).map(|place| self.at(*place))
    }

    /// The sectors from `lba` to before `end`, in order.
    pub(super) fn range(&self, lba: u64, end: u64) -> impl Iterator<Item = (u64, &[u8])> {
        self.places.range(lba..end).map(|(lba, place)| (*lba, self.at(*place)))
    }

    /// The sectors, in order, as runs whose data is in one piece.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut places = self.places.iter().peekable();
        core::iter::from_fn(move || {
            let (lba, place) = places.next()?;
            let mut length = 1;
            while places
                .next_if(|(l, p)| **l == lba + length && **p == place + length as u32)
                .is_some()
            {
                length += 1;
            }
            let bytes = length as usize * self.sector_bytes;
            Some((*lba, &self.data[*place as usize * self.sector_bytes..][..bytes]))
        })
    }

    /// Takes a sector; the caller has made sure that there is room, or that it is cached already.
    pub(super) fn put(&mut self, lba: u64, sector: &[u8]) {
        let place = match self.places.get(&lba) {
            Some(place) => *place,
            None => {
                let place = self.free.pop().unwrap_or(self.taken);
                if place == self.taken {
                    self.taken += 1;
                }
                self.places.insert(lba, place);
                place
            }
        };
        let (start, end) =
            (place as usize * self.sector_bytes, (place as usize + 1) * self.sector_bytes);
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[start..end].copy_from_slice(sector);
    }

    /// Which sector goes to the medium next, to make room: the arm sweeps upwards, as disks do
    /// it, which is not the order in which they were written.
    pub(super) fn next_to_evict(&mut self) -> Option<u64> {
        let next = self.places.range(self.arm..).next().or_else(|| self.places.iter().next());
        let lba = *next?.0;
        self.arm = lba;
        Some(lba)
    }

    pub(super) fn remove(&mut self, lba: u64) {
        if let Some(place) = self.places.remove(&lba) {
            self.free.push(place);
        }
        if self.places.is_empty() {
            self.clear();
        }
    }

    /// Forgets the sectors from `lba` to before `end`.
    pub(super) fn remove_range(&mut self, lba: u64, end: u64) {
        while let Some((next, _)) = self.places.range(lba..end).next() {
            let next = *next;
            self.remove(next);
        }
    }

    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.free.clear();
        self.taken = 0;
    }
}
