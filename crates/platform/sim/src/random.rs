//! Numbers that are drawn, the same for the same seed.

/// A small generator (xorshift64*, seeded through splitmix64): fast, and good enough to draw faults.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator for a seed.
    pub const fn new(seed: u64) -> Self {
        let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ mixed >> 31;
        Self(if mixed == 0 { 1 } else { mixed })
    }

    /// A generator of its own, so that what it draws does not shift what others draw.
    pub const fn fork(&mut self) -> Self {
        Self::new(self.bits())
    }

    /// 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is not 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        ((self.bits() as u128 * end as u128) >> 64) as u64
    }

    /// A number from `from` to, and including, `to`.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True once in `times`.
    pub const fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of some, of which there is at least one.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_stays_in_range() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        for _ in 0..1000 {
            assert_eq!(a.bits(), b.bits());
            assert!((3..=5).contains(&a.between(3, 5)));
            let _ = b.between(3, 5);
        }
        let seeds: std::collections::BTreeSet<_> =
            (0..1000).map(|seed| Random::new(seed).bits()).collect();
        assert_eq!(seeds.len(), 1000);
    }
}
