//! Health and self-tests.

use super::control::Disk;
use crate::args::{SelftestArgs, Test};
use crate::{exit, print};
use anyhow::{Result, bail};
use serde::Serialize;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a disk knows of its own health.
#[derive(Debug, Default, Serialize)]
struct Health {
    disk: String,
    verdict: String,
    temperature: Option<i64>,
    hours: Option<u64>,
    cycles: Option<u64>,
    errors: u64,
    /// Minutes that a short and a long test take; 0 if the disk does not say.
    test_minutes: [u64; 2],
    /// Percent left of the self-test that runs.
    running: Option<u64>,
    attributes: Vec<Attribute>,
    tests: Vec<TestResult>,
    last_errors: Vec<LoggedError>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Attribute {
    id: u64,
    name: String,
    value: u64,
    worst: u64,
    threshold: u64,
    prefailure: bool,
    failed: bool,
    raw: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct TestResult {
    test: String,
    outcome: String,
    /// Percent that were left.
    left: u64,
    hours: u64,
    lba: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct LoggedError {
    number: u64,
    hours: u64,
    status: u8,
    error: u8,
    lba: u64,
}

impl Health {
    fn ask(disk: &mut Disk) -> Result<Self> {
        Ok(Self::parse(&disk.name.clone(), &disk.text("smart")?))
    }

    /// Reads what the server says; lines that it may say one day are passed over.
    fn parse(disk: &str, text: &str) -> Self {
        let mut health = Self { disk: disk.to_owned(), ..Self::default() };
        for line in text.lines() {
            // A line of a known kind that is not as it should be is passed over, too.
            let _ = health.line(line);
        }
        health
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let (key, rest) = line.split_once(' ')?;
        let mut words = rest.split(' ');
        match key {
            "verdict" => self.verdict = rest.to_owned(),
            "temperature" => self.temperature = rest.parse().ok(),
            "hours" => self.hours = rest.parse().ok(),
            "cycles" => self.cycles = rest.parse().ok(),
            "errors" => self.errors = rest.parse().ok()?,
            "running" => self.running = rest.parse().ok(),
            "test-minutes" => self.test_minutes = [number(&mut words)?, number(&mut words)?],
            "attribute" => self.attributes.push(Attribute {
                id: number(&mut words)?,
                value: number(&mut words)?,
                worst: number(&mut words)?,
                threshold: number(&mut words)?,
                prefailure: words.next()? == "pre-failure",
                failed: words.next()? == "failed",
                raw: number(&mut words)?,
                name: words.collect::<Vec<_>>().join(" "),
            }),
            "test" => self.tests.push(TestResult {
                test: words.next()?.to_owned(),
                outcome: words.next()?.to_owned(),
                left: number(&mut words)?,
                hours: number(&mut words)?,
                lba: number(&mut words),
            }),
            "error" => self.last_errors.push(LoggedError {
                number: number(&mut words)?,
                hours: number(&mut words)?,
                status: u8::from_str_radix(words.next()?, 16).ok()?,
                error: u8::from_str_radix(words.next()?, 16).ok()?,
                lba: number(&mut words)?,
            }),
            _ => {}
        }
        Some(())
    }

    /// Whether the disk is about to fail, by what it says.
    fn is_failing(&self) -> bool {
        let failed = |attribute: &Attribute| attribute.prefailure && attribute.failed;
        self.verdict == "failing" || self.attributes.iter().any(failed)
    }

    fn print(&self) -> Result<()> {
        let mut out = format!("{}: {}\n", self.disk, self.in_words());
        let mut fact = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                out.push_str(&format!("  {name:<18} {value}\n"));
            }
        };
        fact("temperature", self.temperature.map(|degrees| format!("{degrees} °C")));
        fact("under power", self.hours.map(|hours| format!("{hours} hours")));
        fact("switched on", self.cycles.map(|cycles| format!("{cycles} times")));
        fact("errors counted", Some(self.errors.to_string()));
        fact("self-test", self.running.map(|left| format!("runs, {left} % left")));
        if !self.attributes.is_empty() {
            out.push_str(" ID  value worst limit  kind         state   raw           attribute\n");
        }
        for a in &self.attributes {
            let kind = if a.prefailure { "pre-failure" } else { "age" };
            let state = if a.failed { "FAILED" } else { "ok" };
            let Attribute { id, value, worst, threshold, raw, name, .. } = a;
            out.push_str(&format!(
                "{id:>3}  {value:>5} {worst:>5} {threshold:>5}  {kind:<11}  {state:<6}  {raw:<12}  \
                 {name}\n"
            ));
        }
        for test in &self.tests {
            out.push_str(&format!("{}\n", test.in_words()));
        }
        for LoggedError { number, hours, status, error, lba } in &self.last_errors {
            out.push_str(&format!(
                "error {number}: at {hours} hours, sector {lba}, status {status:02x}, error \
                 {error:02x}\n"
            ));
        }
        Ok(print::raw_out(out.as_bytes())?)
    }

    fn in_words(&self) -> &'static str {
        match (self.is_failing(), self.verdict.as_str()) {
            (true, _) => "the disk expects to FAIL soon; copy its data away",
            (false, "passed") => "the disk sees no trouble coming",
            (false, _) => "the disk does not say how it is",
        }
    }
}

impl TestResult {
    fn in_words(&self) -> String {
        let Self { test, outcome, left, hours, lba } = self;
        let at = lba.map(|lba| format!(", first at sector {lba}")).unwrap_or_default();
        let left = if *left > 0 { format!(" with {left} % left") } else { String::new() };
        format!("self-test: {test}, {outcome}{left}{at}, at {hours} hours")
    }

    fn is_bad(&self) -> bool {
        matches!(self.outcome.as_str(), "failed" | "fatal")
    }
}

fn number<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<u64> {
    words.next()?.parse().ok()
}

/// The exit code that tells of a disk that is about to fail.
fn code(failing: bool) -> ExitCode {
    if failing { ExitCode::from(exit::FAILING) } else { ExitCode::SUCCESS }
}

/// Prints what a disk knows of its own health.
pub(super) fn print(disk: &mut Disk, json: bool) -> Result<ExitCode> {
    let health = Health::ask(disk)?;
    if json {
        print::json("smart", &health)?;
    } else {
        health.print()?;
    }
    Ok(code(health.is_failing()))
}

/// Starts a self-test, and waits for its end if that is wanted.
pub(super) fn test(disk: &mut Disk, arguments: &SelftestArgs, json: bool) -> Result<ExitCode> {
    let word = match arguments.test {
        Test::Short => "short",
        Test::Long => "long",
        Test::Conveyance => "conveyance",
        Test::Abort => "abort",
    };
    disk.order(format!("selftest {word}").as_bytes())?;
    if !arguments.wait || arguments.test == Test::Abort {
        super::done(disk, &format!("selftest {word}"), json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let health = wait(disk)?;
    let Some(result) = health.tests.first() else {
        bail!("{}: the test has ended, and the disk has no result of it", disk.name);
    };
    if json {
        print::json("selftest", result)?;
    } else {
        print::line_out(&result.in_words())?;
    }
    Ok(code(result.is_bad()))
}

/// Asks how far the test is, ever more seldom, until it has ended.
fn wait(disk: &mut Disk) -> Result<Health> {
    const FIRST: Duration = Duration::from_secs(1);
    const SELDOM: Duration = Duration::from_secs(60);
    /// What a test may take if the disk does not say.
    const UNKNOWN: u64 = 24 * 60;
    let (began, mut pause, mut told) = (Instant::now(), FIRST, None);
    loop {
        let health = Health::ask(disk)?;
        let newest = health.tests.first().is_some_and(|test| test.outcome == "running");
        if health.running.is_none() && !newest {
            return Ok(health);
        }
        // Disks that are in use take longer than they say.
        let minutes = match health.test_minutes.into_iter().max() {
            None | Some(0) => UNKNOWN,
            Some(minutes) => minutes.saturating_mul(4) + 10,
        };
        if began.elapsed() > Duration::from_secs(minutes.saturating_mul(60)) {
            bail!(
                "{}: the test has not ended in {minutes} minutes; it may go on, see outboard disk \
                 smart {}",
                disk.name,
                disk.name
            );
        }
        if told != Some(health.running) {
            told = Some(health.running);
            let left = health.running.map(|left| format!(", {left} % left")).unwrap_or_default();
            print::note(&format!("the test runs{left}; it goes on if you end this with Ctrl-C"));
        }
        sleep(pause);
        pause = (pause * 3 / 2).min(SELDOM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_understood_and_nonsense_passed_over() {
        let text = "verdict passed\ntemperature -5\nhours 9\nerrors 2\ntest-minutes 2 120\n\
                    attribute 5 10 9 36 pre-failure failed 777 Reallocated sectors\n\
                    attribute 9 x\nnews 1 2 3\n\
                    test long failed 90 1000 123\ntest short passed 0 5 -\n\
                    error 3 999 51 40 123\n";
        let health = Health::parse("sdC0", text);
        assert_eq!((health.temperature, health.hours, health.cycles), (Some(-5), Some(9), None));
        assert_eq!(health.test_minutes, [2, 120]);
        assert_eq!(health.attributes.len(), 1);
        assert_eq!(health.attributes[0].name, "Reallocated sectors");
        assert!(health.is_failing(), "whatever the verdict is");
        assert_eq!((health.tests[0].lba, health.tests[1].lba), (Some(123), None));
        assert!(health.tests[0].is_bad() && !health.tests[1].is_bad());
        assert_eq!((health.last_errors[0].status, health.last_errors[0].error), (0x51, 0x40));
        assert!(!Health::parse("sdC0", "verdict passed\n").is_failing());
        assert!(Health::parse("sdC0", "verdict failing\n").is_failing());
    }
}
