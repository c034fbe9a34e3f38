//! The volatile write cache.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::{HashMap, VecDeque};

/// Hashes sector numbers, quickly and always alike.
#[derive(Debug, Default)]
struct SectorHasher(u64);

impl Hasher for SectorHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 << 8 | u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Sectors that were written and are not yet on the medium.
///
/// Their data is in one allocation that grows to the cache's size and stays.
#[derive(Debug)]
pub(super) struct Cache {
    sector_bytes: usize,
    capacity: usize,
    /// Where in `data` each sector is.
    places: HashMap<u64, u32, BuildHasherDefault<SectorHasher>>,
    data: Vec<u8>,
    free: Vec<u32>,
    /// Places that were ever taken since the cache was empty.
    taken: u32,
    /// Sectors in the order in which they came, with some that have gone since.
    order: VecDeque<u64>,
    /// The sectors that are there, sorted, when they are asked for.
    sorted: Vec<u64>,
}

impl Cache {
    /// An empty cache for some sectors.
    pub(super) fn new(sector_bytes: usize, capacity: usize) -> Self {
        Self {
            sector_bytes,
            capacity: capacity.clamp(1, u32::MAX as usize),
            places: HashMap::default(),
            data: Vec::new(),
            free: Vec::new(),
            taken: 0,
            order: VecDeque::new(),
            sorted: Vec::new(),
        }
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

    /// A sector's data.
    pub(super) fn get(&self, lba: u64) -> Option<&[u8]> {
        let place = *self.places.get(&lba)? as usize;
        Some(&self.data[place * self.sector_bytes..][..self.sector_bytes])
    }

    fn at_mut(&mut self, place: u32) -> &mut [u8] {
        &mut self.data[place as usize * self.sector_bytes..][..self.sector_bytes]
    }

    /// A sector's data, to be written over.
    pub(super) fn get_mut(&mut self, lba: u64) -> Option<&mut [u8]> {
        let place = *self.places.get(&lba)?;
        Some(self.at_mut(place))
    }

    /// Copies the sectors that are there over those that were read from `lba` on.
    pub(super) fn overlay(&self, lba: u64, data: &mut [u8]) {
        if self.is_empty() {
            return;
        }
        for (at, sector) in (lba..).zip(data.chunks_exact_mut(self.sector_bytes)) {
            if let Some(cached) = self.get(at) {
                sector.copy_from_slice(cached);
            }
        }
    }

    /// Takes a sector that is not there; the caller has made sure that there is room.
    pub(super) fn insert(&mut self, lba: u64, sector: &[u8]) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.taken += 1;
            self.taken - 1
        });
        let end = (place as usize + 1) * self.sector_bytes;
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.at_mut(place).copy_from_slice(sector);
        self.places.insert(lba, place);
        if self.order.len() > 2 * self.capacity {
            let places = &self.places;
            self.order.retain(|lba| places.contains_key(lba));
            // Those that went and came again are there more than once.
            self.order.truncate(2 * self.capacity);
        }
        self.order.push_back(lba);
    }

    /// The sector that was there first, which goes to the medium when room is needed.
    pub(super) fn oldest(&mut self) -> Option<u64> {
        while let Some(lba) = self.order.pop_front() {
            if self.contains(lba) {
                return Some(lba);
            }
        }
        self.places.keys().min().copied()
    }

    /// The sectors that are there, in order; to be given back with [`clear`](Self::clear).
    pub(super) fn take_sorted(&mut self) -> Vec<u64> {
        let mut sorted = core::mem::take(&mut self.sorted);
        sorted.clear();
        sorted.extend(self.places.keys());
        sorted.sort_unstable();
        sorted
    }

    /// Of some sectors that follow upon each other in `sorted`, those from the first on whose data
    /// is in one piece: how many, and their data.
    pub(super) fn run(&self, sorted: &[u64]) -> (usize, &[u8]) {
        let place = |lba: &u64| self.places.get(lba).copied();
        let Some(first) = sorted.first().and_then(place) else { return (sorted.len(), &[]) };
        let follows = |(i, lba): &(usize, &u64)| {
            **lba == sorted[0] + *i as u64 && place(lba) == Some(first + *i as u32)
        };
        let length = sorted.iter().enumerate().take_while(follows).count();
        let bytes = length * self.sector_bytes;
        (length, &self.data[first as usize * self.sector_bytes..][..bytes])
    }

    pub(super) fn remove(&mut self, lba: u64) {
        if let Some(place) = self.places.remove(&lba) {
            self.free.push(place);
        }
    }

    /// Forgets the sectors from `lba` to before `end`.
    pub(super) fn remove_range(&mut self, lba: u64, end: u64) {
        if end - lba <= self.places.len() as u64 {
            return (lba..end).for_each(|lba| self.remove(lba));
        }
        let free = &mut self.free;
        self.places.retain(|at, place| {
            let goes = (lba..end).contains(at);
            if goes {
                free.push(*place);
            }
            !goes
        });
    }

    /// Forgets everything, and keeps `sorted`'s memory.
    pub(super) fn clear(&mut self, sorted: Vec<u64>) {
        self.sorted = sorted;
        self.places.clear();
        self.order.clear();
        self.free.clear();
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;
    use std::collections::BTreeMap;

    #[test]
    fn the_cache_agrees_with_a_plain_map() {
        let mut random = Random::new(3);
        let (mut cache, mut plain) = (Cache::new(8, 16), BTreeMap::new());
        for round in 0..4000u64 {
            let lba = random.below(40);
            match random.below(5) {
                0 => {
                    let end = lba + random.below(30);
                    cache.remove_range(lba, end);
                    plain.retain(|at, _| !(lba..end).contains(at));
                }
                1 if random.once_in(20) => {
                    let sorted = cache.take_sorted();
                    cache.clear(sorted);
                    plain.clear();
                }
                _ => {
                    let sector = round.to_le_bytes();
                    if let Some(there) = cache.get_mut(lba) {
                        there.copy_from_slice(&sector);
                    } else {
                        if cache.is_full() {
                            let oldest = cache.oldest().unwrap();
                            cache.remove(oldest);
                            assert!(plain.remove(&oldest).is_some());
                        }
                        cache.insert(lba, &sector);
                    }
                    plain.insert(lba, sector);
                }
            }
            assert!(cache.len() == plain.len() && cache.len() <= 16 && cache.order.len() <= 33);
            let (sorted, mut seen) = (cache.take_sorted(), BTreeMap::new());
            let mut rest = &sorted[..];
            while !rest.is_empty() {
                let (length, data) = cache.run(rest);
                for (lba, sector) in rest[..length].iter().zip(data.chunks(8)) {
                    seen.insert(*lba, <[u8; 8]>::try_from(sector).unwrap());
                }
                rest = &rest[length..];
            }
            assert_eq!(seen, plain);
            let mut data = [0; 40 * 8];
            cache.overlay(0, &mut data);
            for (lba, sector) in (0..).zip(data.chunks(8)) {
                assert_eq!(sector, plain.get(&lba).copied().unwrap_or_default());
            }
        }
    }
}
