//! What a disk knows of its own health, as text: a fact a line, each behind a word that names it.

use outboard_block::Health;
use outboard_block::manage::{Attribute, LoggedError, SelfTest, TestOutcome, TestResult, Verdict};
use std::fmt::Write;

/// A disk's `smart`:
///
/// ```text
/// verdict passed|failing|unknown
/// temperature CELSIUS
/// hours UNDER-POWER
/// cycles OF-POWER
/// errors COUNTED
/// test-minutes SHORT EXTENDED
/// running PERCENT-LEFT
/// attribute ID VALUE WORST THRESHOLD pre-failure|age ok|failed RAW NAME
/// test KIND OUTCOME PERCENT-LEFT HOURS LBA
/// error NUMBER HOURS STATUS ERROR LBA
/// ```
///
/// Lines of what the disk does not say are left out; a sector that is not known is `-`. STATUS
/// and ERROR are hexadecimal, all other numbers decimal. Tests and errors begin with the newest.
pub(in crate::sd) fn smart(health: &Health) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    line(format_args!("verdict {}", verdict(health.verdict)));
    if let Some(temperature) = health.temperature {
        line(format_args!("temperature {temperature}"));
    }
    if let Some(hours) = health.power_on_hours {
        line(format_args!("hours {hours}"));
    }
    if let Some(cycles) = health.power_cycles {
        line(format_args!("cycles {cycles}"));
    }
    line(format_args!("errors {}", health.errors));
    let (short, extended) = health.test_minutes;
    line(format_args!("test-minutes {short} {extended}"));
    if let Some(left) = health.running_test {
        line(format_args!("running {left}"));
    }
    for attribute in &health.attributes {
        let Attribute { id, name, value, worst, threshold, raw, .. } = attribute;
        let kind = if attribute.prefailure { "pre-failure" } else { "age" };
        let state = if attribute.has_failed() { "failed" } else { "ok" };
        line(format_args!(
            "attribute {id} {value} {worst} {threshold} {kind} {state} {raw} {name}"
        ));
    }
    for result in &health.tests {
        let TestResult { left, hours, lba, .. } = result;
        let (test, outcome) = (test(result.test), outcome(result.outcome));
        let lba = lba.map_or("-".to_owned(), |lba| lba.to_string());
        line(format_args!("test {test} {outcome} {left} {hours} {lba}"));
    }
    for error in &health.last_errors {
        let LoggedError { number, hours, registers: (status, code), lba } = error;
        line(format_args!("error {number} {hours} {status:02x} {code:02x} {lba}"));
    }
    text
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unknown => "unknown",
        Verdict::Passed => "passed",
        Verdict::Failing => "failing",
    }
}

const fn test(test: SelfTest) -> &'static str {
    match test {
        SelfTest::Short => "short",
        SelfTest::Extended => "long",
        SelfTest::Conveyance => "conveyance",
        SelfTest::Abort => "abort",
    }
}

const fn outcome(outcome: TestOutcome) -> &'static str {
    match outcome {
        TestOutcome::Passed => "passed",
        TestOutcome::Aborted => "aborted",
        TestOutcome::Interrupted => "interrupted",
        TestOutcome::Fatal => "fatal",
        TestOutcome::Failed => "failed",
        TestOutcome::Running => "running",
    }
}
