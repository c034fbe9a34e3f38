//! The monotonic clock.

use outboard_hw::Instant;
use rustix::time::{ClockId, clock_gettime};

/// The present instant, by `CLOCK_MONOTONIC`.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    Instant::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
