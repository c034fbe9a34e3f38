//! Self-tests, which go on while commands are served (ACS §7, "SMART EXECUTE OFF-LINE
//! IMMEDIATE").

use super::store::Store;
use core::time::Duration;
use outboard_ahci::spec::smart::{
    ExtendedTestEntry, ExtendedTestLog, TestEntry, TestLog, outcome, test,
};
use outboard_hw::Instant;
use zerocopy::FromZeros;

/// Results that the log keeps.
const KEPT: usize = 19;
/// What a test has failed at: reading.
const READING: u8 = 7;
/// The part of the medium that a short test reads, from its beginning.
const SHORT_PART: u64 = 8;

/// How a test ended.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    code: u8,
    status: u8,
    hours: u16,
    lba: Option<u64>,
}

/// A test that runs.
#[derive(Debug, Clone, Copy)]
struct Running {
    code: u8,
    end: Instant,
    takes: Duration,
}

#[derive(Debug, Clone, Default)]
pub(super) struct SelfTests {
    running: Option<Running>,
    kept: [Option<Outcome>; KEPT],
    /// How many have ended.
    count: usize,
}

impl Running {
    /// How much is left, from 0 to 1000.
    fn left(&self, now: Instant) -> u64 {
        let left = self.end.since(now).as_nanos();
        let whole = self.takes.as_nanos().max(1);
        (left * 1000 / whole).min(1000) as u64
    }

    /// What is left in tenths, rounded up, and not all of it.
    fn tenths(&self, now: Instant) -> u8 {
        self.left(now).div_ceil(100).min(9) as u8
    }
}

impl SelfTests {
    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) const fn start(&mut self, code: u8, end: Instant, takes: Duration) {
        self.running = Some(Running { code, end, takes });
    }

    const fn last(&self) -> Option<Outcome> {
        match self.count.checked_sub(1) {
            Some(last) => self.kept[last % KEPT],
            None => None,
        }
    }

    /// Whether the last one has found nothing.
    pub(super) fn passed_last(&self) -> bool {
        self.last().is_some_and(|last| last.status >> 4 == outcome::PASSED)
    }

    /// The execution status.
    pub(super) fn status(&self, now: Instant) -> u8 {
        match self.running {
            Some(running) => outcome::RUNNING << 4 | running.tenths(now),
            None => self.last().map_or(0, |last| last.status),
        }
    }

    fn finish(&mut self, running: Running, result: u8, lba: Option<u64>, now: Instant, hours: u64) {
        let left = if result == outcome::PASSED { 0 } else { running.tenths(now) };
        let (code, status) = (running.code, result << 4 | left);
        self.kept[self.count % KEPT] = Some(Outcome { code, status, hours: hours as u16, lba });
        self.count += 1;
        self.running = None;
    }

    /// The host ends the one that runs.
    pub(super) fn abort(&mut self, now: Instant, hours: u64) {
        if let Some(running) = self.running {
            self.finish(running, outcome::ABORTED, None, now, hours);
        }
    }

    /// A reset, or a loss of power, ends the one that runs.
    pub(super) fn interrupt(&mut self, now: Instant, hours: u64) {
        if let Some(running) = self.running {
            self.finish(running, outcome::INTERRUPTED, None, now, hours);
        }
    }

    /// Time has passed: it has got further, and may have come upon a defect, or to its end.
    pub(super) fn advance(&mut self, now: Instant, hours: u64, sectors: u64, store: &Store) {
        let Some(running) = self.running else { return };
        let extended = running.code & !test::CAPTIVE == test::EXTENDED;
        let scope = if extended { sectors } else { sectors.div_ceil(SHORT_PART) };
        let read = (u128::from(scope) * u128::from(1000 - running.left(now)) / 1000) as u64;
        if let Some(lba) = store.first_defect_below(read) {
            return self.finish(running, READING, Some(lba), now, hours);
        }
        if now.reached(running.end) {
            self.finish(running, outcome::PASSED, None, now, hours);
        }
    }

    /// Number of the newest, from 1 on.
    const fn newest(&self) -> usize {
        match self.count.checked_sub(1) {
            Some(last) => last % KEPT + 1,
            None => 0,
        }
    }

    /// SMART self-test log.
    pub(super) fn log(&self) -> TestLog {
        let mut log = TestLog::new_zeroed();
        log.revision.set(1);
        log.newest = self.newest() as u8;
        for (outcome, slot) in self.kept.iter().zip(&mut log.tests) {
            let Some(outcome) = outcome else { continue };
            let mut entry = TestEntry::new_zeroed();
            (entry.test, entry.status) = (outcome.code, outcome.status);
            entry.hours.set(outcome.hours);
            // Addresses that need more than 28 bits do not fit.
            let lba = outcome.lba.filter(|lba| *lba < 1 << 28);
            entry.lba.set(lba.map_or(u32::MAX, |lba| lba as u32));
            *slot = entry;
        }
        log
    }

    /// Extended SMART self-test log, of one page.
    pub(super) fn extended_log(&self) -> ExtendedTestLog {
        let mut log = ExtendedTestLog::new_zeroed();
        log.revision = 1;
        log.newest.set(self.newest() as u16);
        for (outcome, slot) in self.kept.iter().zip(&mut log.tests) {
            let Some(outcome) = outcome else { continue };
            let mut entry = ExtendedTestEntry::new_zeroed();
            (entry.test, entry.status) = (outcome.code, outcome.status);
            entry.hours.set(outcome.hours);
            entry.lba.copy_from_slice(&outcome.lba.unwrap_or(u64::MAX).to_le_bytes()[..6]);
            *slot = entry;
        }
        log
    }
}
