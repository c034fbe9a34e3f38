//! What was done to a disk, in numbers, and how long it took.

use super::set::Disk;
use super::{DiskId, Disks};
use crate::driver::BlockError;
use outboard_hw::Instant;

/// What was done to a disk, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Reads and writes that front ends asked for.
    pub reads: u64,
    /// Likewise.
    pub writes: u64,
    /// Bytes read and written for them.
    pub bytes_read: u64,
    /// Likewise.
    pub bytes_written: u64,
    /// Of those, bytes that were transferred in memory of the front ends' clients, without a copy.
    pub bytes_lent: u64,
    /// Writes that had to read a sector first.
    pub merges: u64,
    /// Writes that had to wait for another to the same sector.
    pub waits: u64,
    /// Requests that failed.
    pub errors: u64,
    /// The same, by kind.
    pub errors_by_kind: ErrorCounters,
    /// Requests that ended early, before a bad sector.
    pub short: u64,
    /// Requests under way now.
    pub active: u64,
    /// The most that ever were.
    pub active_peak: u64,
}

impl DiskCounters {
    /// A request begins.
    pub(super) fn begin(&mut self) {
        self.active += 1;
        self.active_peak = self.active_peak.max(self.active);
    }

    /// A request has failed.
    pub(super) const fn failed(&mut self, error: BlockError) {
        self.errors += 1;
        let kinds = &mut self.errors_by_kind;
        *match error {
            BlockError::Media { .. } => &mut kinds.media,
            BlockError::Aborted => &mut kinds.aborted,
            BlockError::WriteProtected => &mut kinds.write_protected,
            BlockError::Transport => &mut kinds.transport,
            BlockError::Timeout => &mut kinds.timeout,
            BlockError::CacheLost => &mut kinds.cache_lost,
            BlockError::Gone => &mut kinds.gone,
            BlockError::Unsupported => &mut kinds.unsupported,
            BlockError::MediumChanged => &mut kinds.medium_changed,
            BlockError::Locked => &mut kinds.locked,
            BlockError::Frozen => &mut kinds.frozen,
            BlockError::SwitchedOff => &mut kinds.switched_off,
            BlockError::Interrupted => &mut kinds.interrupted,
            BlockError::BadAnswer => &mut kinds.bad_answer,
        } += 1;
    }
}

/// Requests that failed, by [`BlockError`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the errors")]
pub struct ErrorCounters {
    pub media: u64,
    pub aborted: u64,
    pub write_protected: u64,
    pub transport: u64,
    pub timeout: u64,
    pub cache_lost: u64,
    pub gone: u64,
    pub unsupported: u64,
    pub medium_changed: u64,
    pub locked: u64,
    pub frozen: u64,
    pub switched_off: u64,
    pub interrupted: u64,
    pub bad_answer: u64,
}

impl ErrorCounters {
    /// Calls `counter` with the name and the value of each.
    pub fn each(&self, mut counter: impl FnMut(&'static str, u64)) {
        counter("media", self.media);
        counter("aborted", self.aborted);
        counter("write-protected", self.write_protected);
        counter("transport", self.transport);
        counter("timeout", self.timeout);
        counter("cache-lost", self.cache_lost);
        counter("gone", self.gone);
        counter("unsupported", self.unsupported);
        counter("medium-changed", self.medium_changed);
        counter("locked", self.locked);
        counter("frozen", self.frozen);
        counter("switched-off", self.switched_off);
        counter("interrupted", self.interrupted);
        counter("bad-answer", self.bad_answer);
    }
}

/// How long the requests of front ends took, from being accepted to their end, well or not.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    /// Reads.
    pub reads: Histogram,
    /// Writes.
    pub writes: Histogram,
    /// Flushes.
    pub flushes: Histogram,
}

/// Buckets of each octave of a histogram: a time is known to an eighth.
const STEPS: usize = 8;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Times from this on, about an hour in microseconds, are all in the last bucket.
const TOP_BITS: u32 = 32;
const BUCKETS: usize = (TOP_BITS - STEP_BITS + 1) as usize * STEPS + 1;

/// How often something took how long, in microseconds: eight buckets for each doubling.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: [u32; BUCKETS],
    count: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, max_us: 0 }
    }
}

impl Histogram {
    /// Takes note of one.
    #[inline]
    pub(super) fn record(&mut self, since: Instant, until: Instant) {
        let us = until.as_nanos().saturating_sub(since.as_nanos()) / 1000;
        let bucket = &mut self.buckets[bucket(us)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// How many there were.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The longest, in microseconds; `None` if there was none.
    pub fn max_us(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_us)
    }

    /// What `percent` of them did not exceed, in microseconds, rounded up by at most an eighth;
    /// `None` if there was none.
    pub fn percentile_us(&self, percent: u8) -> Option<u64> {
        let all: u64 = self.buckets.iter().map(|count| u64::from(*count)).sum();
        let wanted = (u128::from(all) * u128::from(percent)).div_ceil(100).max(1) as u64;
        let mut seen = 0;
        let within = self.buckets.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        within.map(|bucket| last_of(bucket).min(self.max_us))
    }
}

/// The bucket of a time.
const fn bucket(us: u64) -> usize {
    if us < STEPS as u64 {
        return us as usize;
    }
    let octave = us.ilog2() - STEP_BITS;
    let step = (us >> octave) as usize - STEPS;
    let bucket = (octave as usize + 1) * STEPS + step;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// The longest time in a bucket.
const fn last_of(bucket: usize) -> u64 {
    if bucket + 1 == BUCKETS {
        return u64::MAX;
    }
    let next = bucket + 1;
    if next < STEPS {
        return bucket as u64;
    }
    (((next % STEPS + STEPS) as u64) << (next / STEPS - 1)) - 1
}

impl Disk {
    /// A read, or a write, has ended.
    #[inline]
    pub(super) fn took(&mut self, writes: bool, until: Instant, since: Instant) {
        let Latencies { reads, writes: of_writes, .. } = &mut self.latencies;
        (if writes { of_writes } else { reads }).record(since, until);
    }

    /// So many bytes were read, or written.
    #[inline]
    pub(super) const fn moved(&mut self, writes: bool, bytes: usize) {
        let counters = &mut self.counters;
        *(if writes { &mut counters.bytes_written } else { &mut counters.bytes_read }) +=
            bytes as u64;
    }
}

impl Disks {
    /// What was done to a disk.
    pub fn counters(&self, disk: DiskId) -> DiskCounters {
        self.disks.get(usize::from(disk.0)).map(|disk| disk.counters).unwrap_or_default()
    }

    /// How long it took.
    pub fn latencies(&self, disk: DiskId) -> Option<&Latencies> {
        self.disks.get(usize::from(disk.0)).map(|disk| &disk.latencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn every_time_is_in_the_bucket_that_ends_at_or_behind_it() {
        let times = (0..=40).flat_map(|bits| [1u64 << bits, (1 << bits) - 1, (1 << bits) + 1]);
        for us in times.chain(0..5000).chain([u64::MAX]) {
            let bucket = bucket(us);
            assert!(us <= last_of(bucket), "{us}");
            assert!(bucket == 0 || last_of(bucket - 1) < us, "{us}");
            if us < 1 << TOP_BITS {
                assert!(last_of(bucket) - us <= us / 8, "{us}");
            }
        }
    }

    #[test]
    fn percentiles_are_close_and_the_longest_is_exact() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.percentile_us(50), histogram.max_us()), (None, None));
        (1..=1000).for_each(|us| histogram.record(Instant::ORIGIN, Instant::from_nanos(us * 1000)));
        let found: Vec<_> =
            [50, 99, 100].into_iter().map(|p| histogram.percentile_us(p).unwrap()).collect();
        assert!((500..=562).contains(&found[0]) && (990..=1000).contains(&found[1]), "{found:?}");
        assert_eq!((found[2], histogram.max_us()), (1000, Some(1000)));
        assert_eq!(histogram.count(), 1000);
    }
}
