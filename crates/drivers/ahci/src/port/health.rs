//! What a disk says of its own health, put together from SMART's blocks.

use crate::spec::smart::{
    ATTRIBUTES, Attribute, Data, ErrorLog, TestEntry, TestLog, Thresholds, offline, outcome, test,
};
use heapless::Vec;
use outboard_block::Health;
use outboard_block::manage::{self, LoggedError, SelfTest, TestOutcome, TestResult};

/// Numbers of the attributes that are given a meaning.
mod id {
    pub(super) const POWER_ON_HOURS: u8 = 9;
    pub(super) const POWER_CYCLES: u8 = 12;
    pub(super) const AIRFLOW_TEMPERATURE: u8 = 190;
    pub(super) const TEMPERATURE: u8 = 194;
}

/// What is being put together, and the last that was complete.
#[derive(Debug, Default)]
pub(super) struct Collection {
    draft: Health,
    thresholds: Vec<(u8, u8), ATTRIBUTES>,
    /// What the disk says in SMART READ DATA that it can do.
    pub(super) self_tests: bool,
    pub(super) error_log: bool,
    complete: Option<Health>,
}

impl Collection {
    pub(super) const fn complete(&self) -> Option<&Health> {
        self.complete.as_ref()
    }

    /// Begins anew.
    pub(super) fn begin(&mut self) {
        self.draft = Health::default();
        self.thresholds.clear();
        (self.self_tests, self.error_log) = (false, false);
    }

    /// What was put together is what is told from now on.
    pub(super) fn finish(&mut self) {
        self.complete = Some(core::mem::take(&mut self.draft));
    }

    /// Forgets everything: it was another disk's.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Takes the disk's verdict: whether it expects to fail.
    pub(super) fn verdict(&mut self, failing: Option<bool>) {
        self.draft.verdict = match failing {
            None => manage::Verdict::Unknown,
            Some(false) => manage::Verdict::Passed,
            Some(true) => manage::Verdict::Failing,
        };
    }

    pub(super) fn thresholds(&mut self, block: &Thresholds) {
        let all = block.thresholds.iter().map(|entry| (entry.id, entry.threshold));
        self.thresholds = all.filter(|(id, _)| *id != 0).collect();
    }

    pub(super) fn data(&mut self, data: &Data) {
        let draft = &mut self.draft;
        for attribute in data.attributes.iter().filter(|attribute| attribute.id != 0) {
            let threshold = self.thresholds.iter().find(|(id, _)| *id == attribute.id);
            let threshold = threshold.map_or(0, |(_, threshold)| *threshold);
            let _ = draft.attributes.push(describe(attribute, threshold));
        }
        let raw = |id| {
            let attribute = data.attributes.iter().find(|attribute| attribute.id == id);
            attribute.map(Attribute::raw)
        };
        // The lowest byte is the temperature; those above may hold extremes.
        let temperature = raw(id::TEMPERATURE).or(raw(id::AIRFLOW_TEMPERATURE));
        let plausible = |celsius: &i16| (1..=125).contains(celsius);
        draft.temperature = temperature.map(|raw| (raw & 0xff) as i16).filter(plausible);
        // The highest two bytes may hold fractions.
        draft.power_on_hours = raw(id::POWER_ON_HOURS).map(|raw| raw & 0xffff_ffff);
        draft.power_cycles = raw(id::POWER_CYCLES).map(|raw| raw & 0xffff_ffff);
        draft.running_test = running(data.test_status);
        let extended = match data.extended_minutes {
            u8::MAX => data.extended_minutes_wide.get(),
            minutes => minutes.into(),
        };
        draft.test_minutes = (data.short_minutes.into(), extended);
        self.self_tests = data.offline & offline::SELF_TESTS != 0;
        self.error_log = data.error_logging & 1 != 0;
    }

    pub(super) fn tests(&mut self, log: &TestLog) {
        self.draft.tests = newest_first(&log.tests, log.newest).filter_map(result).collect();
    }

    pub(super) fn errors(&mut self, log: &ErrorLog) {
        let count = u64::from(log.count.get());
        self.draft.errors = count;
        let entries = newest_first(&log.errors, log.newest).zip(0u64..);
        let entries = entries.filter(|(entry, _)| entry.status != 0 || entry.error != 0);
        let logged = entries.map(|(entry, age)| LoggedError {
            number: count.saturating_sub(age),
            hours: entry.hours.get().into(),
            registers: (entry.status, entry.error),
            lba: entry.lba(),
        });
        self.draft.last_errors = logged.collect();
    }
}

/// The entries of a ring whose newest is number `newest`, from 1 on; none if there is no such.
fn newest_first<T>(ring: &[T], newest: u8) -> impl Iterator<Item = &T> {
    let (before, after) = match ring.split_at_checked(newest.into()) {
        Some(split) if newest > 0 => split,
        _ => (&ring[..0], &ring[..0]),
    };
    before.iter().rev().chain(after.iter().rev())
}

fn result(entry: &TestEntry) -> Option<TestResult> {
    let test = match entry.test & !test::CAPTIVE {
        test::SHORT => SelfTest::Short,
        test::EXTENDED => SelfTest::Extended,
        test::CONVEYANCE => SelfTest::Conveyance,
        // A free entry, or a test that the driver does not start.
        _ => return None,
    };
    let outcome = match entry.status >> 4 {
        outcome::PASSED => TestOutcome::Passed,
        outcome::ABORTED => TestOutcome::Aborted,
        outcome::INTERRUPTED => TestOutcome::Interrupted,
        outcome::RUNNING => TestOutcome::Running,
        code if outcome::FAILED.contains(&code) => TestOutcome::Failed,
        _ => TestOutcome::Fatal,
    };
    let failed = matches!(outcome, TestOutcome::Failed | TestOutcome::Fatal);
    let lba = Some(entry.lba.get()).filter(|lba| failed && *lba != u32::MAX);
    let (left, hours) = (percent_left(entry.status), entry.hours.get().into());
    Some(TestResult { test, outcome, left, hours, lba: lba.map(u64::from) })
}

/// Percent that are left of a self-test, by its execution status.
fn percent_left(status: u8) -> u8 {
    ((status & 0xf) * 10).min(100)
}

/// The same, if it is running.
fn running(status: u8) -> Option<u8> {
    (status >> 4 == outcome::RUNNING).then(|| percent_left(status))
}

fn describe(attribute: &Attribute, threshold: u8) -> manage::Attribute {
    manage::Attribute {
        id: attribute.id,
        name: name(attribute.id),
        value: attribute.value,
        worst: attribute.worst,
        threshold,
        prefailure: attribute.flags.get() & Attribute::PREFAILURE != 0,
        raw: attribute.raw(),
    }
}

/// What an attribute is commonly taken for. No standard says so, and makers differ.
fn name(id: u8) -> &'static str {
    match id {
        1 => "raw read error rate",
        2 => "throughput performance",
        3 => "spin-up time",
        4 => "starts and stops",
        5 => "reallocated sectors",
        7 => "seek error rate",
        8 => "seek time performance",
        id::POWER_ON_HOURS => "power-on hours",
        10 => "spin-up retries",
        11 => "calibration retries",
        id::POWER_CYCLES => "power cycles",
        170 | 232 => "available reserved space",
        171 | 181 => "program failures",
        172 | 182 => "erase failures",
        173 | 177 => "wear leveling",
        174 => "unexpected power losses",
        179 => "used reserved blocks",
        183 => "interface downshifts",
        184 => "end-to-end errors",
        187 => "uncorrectable errors reported",
        188 => "command timeouts",
        189 => "high-fly writes",
        id::AIRFLOW_TEMPERATURE => "airflow temperature",
        191 => "shocks",
        192 => "emergency retracts",
        193 => "load cycles",
        id::TEMPERATURE => "temperature",
        195 => "corrected errors",
        196 => "reallocation events",
        197 => "pending sectors",
        198 => "offline uncorrectable sectors",
        199 => "interface CRC errors",
        200 => "write error rate",
        231 => "life left",
        233 => "media wearout",
        240 => "head flying hours",
        241 => "sectors written",
        242 => "sectors read",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    #[test]
    fn rings_are_read_from_the_newest_on() {
        let ring = [1, 2, 3, 4, 5];
        let read = |newest| newest_first(&ring, newest).copied().collect::<std::vec::Vec<_>>();
        assert_eq!(read(2), [2, 1, 5, 4, 3]);
        assert_eq!(read(5), [5, 4, 3, 2, 1]);
        assert!(read(0).is_empty() && read(6).is_empty() && read(255).is_empty());
    }

    #[test]
    fn whatever_the_blocks_say_nothing_overflows() {
        for byte in 0..=255 {
            let mut all = Collection::default();
            let block = [byte; 512];
            all.thresholds(&Thresholds::read_from_bytes(&block).unwrap());
            all.data(&Data::read_from_bytes(&block).unwrap());
            all.tests(&TestLog::read_from_bytes(&block).unwrap());
            all.errors(&ErrorLog::read_from_bytes(&block).unwrap());
            all.finish();
            let health = all.complete().unwrap();
            assert!(health.running_test.is_none_or(|left| left <= 100));
        }
    }

    #[test]
    fn attributes_meet_their_thresholds() {
        let mut block = [0; 512];
        block[2..5].copy_from_slice(&[5, 36, 0]);
        let mut all = Collection::default();
        all.thresholds(&Thresholds::read_from_bytes(&block).unwrap());
        block[2..14].copy_from_slice(&[5, 1, 0, 30, 20, 9, 1, 0, 0, 0, 0, 0]);
        block[14..26].copy_from_slice(&[194, 2, 0, 64, 60, 36, 0, 15, 0, 49, 0, 0]);
        all.data(&Data::read_from_bytes(&block).unwrap());
        all.finish();
        let health = all.complete().unwrap();
        let bad = health.attributes[0];
        assert!(bad.has_failed() && bad.prefailure);
        assert_eq!((bad.name, bad.raw, bad.worst), ("reallocated sectors", 265, 20));
        assert_eq!((health.temperature, health.attributes.len()), (Some(36), 2));
    }
}
