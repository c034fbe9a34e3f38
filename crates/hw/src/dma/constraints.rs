//! What a device asks of the memory that it is given.

/// What a device asks of the memory that it is given. All limits are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Constraints {
    /// Every address must be a multiple of this; a power of two.
    pub alignment: u64,
    /// The highest address that the device can reach, such as `0xffff_ffff` for a 32-bit device.
    pub highest_address: u64,
    /// No segment may cross a multiple of this; a power of two, or 0 for no such rule.
    pub boundary: u64,
    /// The most bytes in one segment.
    pub max_segment_bytes: u64,
    /// The most segments in one transfer.
    pub max_segments: usize,
}

impl Constraints {
    /// A device that takes anything.
    pub const NONE: Self = Self {
        alignment: 1,
        highest_address: u64::MAX,
        boundary: 0,
        max_segment_bytes: u64::MAX,
        max_segments: usize::MAX,
    };

    /// These constraints with another alignment, a power of two.
    pub const fn aligned(self, alignment: u64) -> Self {
        Self { alignment, ..self }
    }

    /// Whether the constraints can be met at all by `len` contiguous bytes.
    pub(super) fn admit(&self, len: usize) -> bool {
        let len = len as u64;
        len > 0
            && self.alignment.is_power_of_two()
            && (self.boundary == 0 || self.boundary.is_power_of_two() && len <= self.boundary)
            && len - 1 <= self.highest_address
    }

    /// The lowest address at or above `from` where `len` bytes meet alignment and boundary.
    ///
    /// `None` if that overflows. The caller has checked [`Self::admit`].
    pub(super) fn place(&self, from: u64, len: u64) -> Option<u64> {
        let start = from.checked_next_multiple_of(self.alignment)?;
        let last = start.checked_add(len - 1)?;
        if self.boundary == 0 || start / self.boundary == last / self.boundary {
            return Some(start);
        }
        // The next boundary is aligned as well, or no aligned address avoids crossing one.
        let start = last / self.boundary * self.boundary;
        let start = start.checked_next_multiple_of(self.alignment)?;
        let last = start.checked_add(len - 1)?;
        (start / self.boundary == last / self.boundary).then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_aligned_and_crosses_no_boundary() {
        let constraints = Constraints { alignment: 128, boundary: 4096, ..Constraints::NONE };
        assert_eq!(constraints.place(1, 256), Some(128));
        assert_eq!(constraints.place(4000, 256), Some(4096));
        assert_eq!(constraints.place(4096 - 256, 256), Some(4096 - 256));
        assert_eq!(constraints.place(u64::MAX - 10, 256), None);
    }

    #[test]
    fn contradictions_are_not_admitted() {
        assert!(!Constraints::NONE.admit(0));
        assert!(!Constraints::NONE.aligned(3).admit(8));
        assert!(!Constraints { boundary: 64, ..Constraints::NONE }.admit(65));
        assert!(!Constraints { highest_address: 10, ..Constraints::NONE }.admit(12));
        assert!(Constraints { highest_address: 10, ..Constraints::NONE }.admit(11));
    }
}
