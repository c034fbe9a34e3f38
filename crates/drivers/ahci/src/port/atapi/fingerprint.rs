//! What tells a disc from others of the same size.

/// Sectors that are looked at, in order: 0 has the superblock, the boot sector or the first header
/// of what is on a disc without ISO 9660 or UDF; 16 the primary volume descriptor of ISO 9660
/// (ECMA-119 §8.4), with names and times; 32, 96 and 257 are where programs begin the volume
/// descriptors of UDF (ECMA-167 3/8.4.2, which leaves the place to them), or else data. None is
/// at the end, where sectors that READ CAPACITY counts often cannot be read.
pub(super) const PLACES: [u32; 5] = [0, 16, 32, 96, 257];

/// What is known of the sectors at [`PLACES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fingerprint {
    /// Digests, of those that could be read.
    sectors: [Option<u64>; PLACES.len()],
    /// One of them has more than a single byte all over, as what was never written has.
    telling: bool,
}

impl Fingerprint {
    /// Adds the sector at `PLACES[place]`.
    pub(super) fn add(&mut self, place: usize, sector: Digest) {
        if let Some(known) = self.sectors.get_mut(place) {
            *known = Some(sector.hash);
            self.telling |= !sector.uniform;
        }
    }

    /// Whether the disc that had this fingerprint is the one that has the other now: what could be
    /// read then can be read again and is the same, and tells something.
    pub(super) fn is_proved_by(&self, now: &Self) -> bool {
        let mut both = self.sectors.iter().zip(&now.sectors);
        self.telling && both.all(|(before, now)| before.is_none() || before == now)
    }
}

/// A sector in few bytes: FNV-1a of 64 bits. Nobody is kept from making two sectors with the same
/// one; by chance there are none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digest {
    hash: u64,
    first: Option<u8>,
    uniform: bool,
}

impl Digest {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    /// Of nothing yet.
    pub(super) const EMPTY: Self = Self { hash: Self::OFFSET_BASIS, first: None, uniform: true };

    /// Goes on with `bytes`.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(Self::PRIME);
            self.uniform &= self.first.get_or_insert(*byte) == byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> Digest {
        let mut digest = Digest::EMPTY;
        bytes.chunks(3).for_each(|chunk| digest.update(chunk));
        digest
    }

    fn print(sectors: [Option<&[u8]>; PLACES.len()]) -> Fingerprint {
        let mut print = Fingerprint::default();
        for (place, bytes) in sectors.into_iter().enumerate() {
            bytes.into_iter().for_each(|bytes| print.add(place, digest(bytes)));
        }
        print
    }

    #[test]
    fn a_digest_is_fnv_1a() {
        assert_eq!(digest(b"").hash, 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest(b"foobar").hash, 0x8594_4171_f739_67e8);
        assert!(digest(&[7; 2048]).uniform && !digest(b"foobar").uniform);
    }

    #[test]
    fn only_what_was_read_before_has_to_be_the_same() {
        let (a, b, zeros): (&[u8], &[u8], &[u8]) = (b"one", b"two", &[0; 8]);
        let before = print([Some(zeros), Some(a), None, None, None]);
        let proves = |now| before.is_proved_by(&print(now));
        assert!(proves([Some(zeros), Some(a), None, None, None]));
        assert!(proves([Some(zeros), Some(a), Some(b), None, None]), "it was not known before");
        assert!(!proves([Some(zeros), Some(b), None, None, None]));
        assert!(!proves([Some(b), Some(a), None, None, None]));
        assert!(!proves([Some(zeros), None, None, None, None]), "it can no longer be read");
    }

    #[test]
    fn what_tells_nothing_proves_nothing() {
        let blank: &[u8] = &[0; 8];
        for print in [print([None; 5]), print([Some(blank), Some(blank), None, None, None])] {
            assert!(!print.is_proved_by(&print));
        }
    }
}
