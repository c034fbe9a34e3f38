//! Time as drivers see it: an instant that the caller passes in, never a clock that they read.

use core::fmt;
use core::ops::Add;
use core::time::Duration;

/// A point on the caller's monotonic clock, in nanoseconds since an origin of its choice.
///
/// 64 bits of nanoseconds last 584 years; arithmetic saturates instead of wrapping.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ORIGIN: Self = Self(0);

    /// The instant `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whether `self` is at or past `deadline`.
    pub const fn reached(self, deadline: Self) -> bool {
        self.0 >= deadline.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// The earlier of two deadlines, where `None` means "never".
pub fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let late = Instant::from_nanos(u64::MAX - 1);
        assert_eq!(late + Duration::from_secs(9), Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::ORIGIN.since(late), Duration::ZERO);
        assert_eq!((Instant::ORIGIN + Duration::from_millis(3)).as_nanos(), 3_000_000);
    }

    #[test]
    fn the_earlier_deadline_wins_and_none_is_never() {
        let (a, b) = (Instant::from_nanos(5), Instant::from_nanos(7));
        assert_eq!(earlier(Some(a), Some(b)), Some(a));
        assert_eq!(earlier(None, Some(b)), Some(b));
        assert_eq!(earlier(None, None), None);
    }
}
