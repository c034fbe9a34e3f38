//! What was measured: read from the guest's files, and brought together.

use anyhow::{Context, Result};
use outboard_guest::Report;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of the result's form.
pub(crate) const SCHEMA: u32 = 1;
/// The ways to the disk; the first is what the others are compared with.
pub(crate) const WAYS: [&str; 4] = ["kernel", "interrupts", "adaptive", "polling"];

/// A kind of transfer.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    #[serde(skip)]
    pub(crate) fio_pattern: &'static str,
    #[serde(skip)]
    pub(crate) our_pattern: &'static str,
    pub(crate) bytes: u64,
    pub(crate) depth: u16,
}

pub(crate) const CASES: [Case; 3] = [
    Case {
        name: "random-1",
        title: "random 4 KiB, one at a time",
        fio_pattern: "randread",
        our_pattern: "randread",
        bytes: 4096,
        depth: 1,
    },
    Case {
        name: "random-32",
        title: "random 4 KiB, 32 at once",
        fio_pattern: "randread",
        our_pattern: "randread",
        bytes: 4096,
        depth: 32,
    },
    Case {
        name: "sequential",
        title: "sequential 128 KiB, 8 at once",
        fio_pattern: "read",
        our_pattern: "read",
        bytes: 128 << 10,
        depth: 8,
    },
];

/// All that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) schema: u32,
    pub(crate) kind: &'static str,
    /// The guest's kernel.
    pub(crate) kernel: String,
    pub(crate) rounds: u32,
    pub(crate) seconds_each: u64,
    pub(crate) processors: u32,
    /// Whether the kernel's driver went through the IOMMU; ours always does.
    pub(crate) kernel_through_iommu: bool,
    /// Not the disk but a simulation was measured through our driver: the ratios mean nothing.
    pub(crate) simulated: bool,
    pub(crate) cases: Vec<CaseOutcome>,
}

/// A kind of transfer, by each way.
#[derive(Debug, Serialize)]
pub(crate) struct CaseOutcome {
    #[serde(flatten)]
    pub(crate) case: Case,
    pub(crate) ways: BTreeMap<&'static str, WayOutcome>,
}

/// One way, over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct WayOutcome {
    pub(crate) per_second: Spread,
    pub(crate) megabytes_per_second: f64,
    pub(crate) p50_us: Spread,
    pub(crate) p99_us: Spread,
    /// Time of the guest's processors for each transfer, interrupts included.
    pub(crate) cpu_us_each: Spread,
    /// Median of the rounds' ratios of transfers a second to the kernel's.
    pub(crate) times_the_kernel: f64,
}

/// The median of several rounds, and the ends.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
        let count = values.len();
        let median = f64::midpoint(middle(count.saturating_sub(1) / 2), middle(count / 2));
        Self { median, min: middle(0), max: middle(count.saturating_sub(1)) }
    }

    fn times(self, factor: u32) -> Self {
        let times = |value: f64| value * f64::from(factor);
        Self { median: times(self.median), min: times(self.min), max: times(self.max) }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Which part of the processors' time they were busy, the program's start included.
    busy_share: f64,
}

/// Reads all measurements of one kind of transfer, by a guest with so many processors.
pub(crate) fn read(
    report: &Report,
    case: Case,
    rounds: u32,
    processors: u32,
) -> Result<CaseOutcome> {
    let samples = |way: &str| -> Result<Vec<Sample>> {
        let names = (0..rounds).map(|round| format!("{round}.{}.{way}", case.name));
        names.map(|name| sample(report, &name, way == WAYS[0])).collect()
    };
    let kernel = samples(WAYS[0])?;
    let mut ways = BTreeMap::new();
    for way in WAYS {
        let samples = samples(way)?;
        let ratios = samples.iter().zip(&kernel);
        let ratios = ratios.map(|(ours, theirs)| ours.per_second / theirs.per_second);
        let times_the_kernel = Spread::of(ratios).median;
        let spread = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of));
        let per_second = spread(|sample| sample.per_second);
        ways.insert(
            way,
            WayOutcome {
                per_second,
                megabytes_per_second: per_second.median * case.bytes as f64 / 1e6,
                p50_us: spread(|sample| sample.p50_us),
                p99_us: spread(|sample| sample.p99_us),
                cpu_us_each: spread(|sample| sample.busy_share * 1e6 / sample.per_second)
                    .times(processors),
                times_the_kernel,
            },
        );
    }
    Ok(CaseOutcome { case, ways })
}

fn sample(report: &Report, name: &str, by_fio: bool) -> Result<Sample> {
    let text = |ending: &str| {
        let name = format!("{name}.{ending}");
        report.text(&name).with_context(|| format!("the guest left no {name}"))
    };
    let json: Value = serde_json::from_str(&text("json")?).with_context(|| name.to_owned())?;
    let number = |pointer: &str| {
        let number = json.pointer(pointer).and_then(Value::as_f64);
        number.with_context(|| format!("{name}.json has no {pointer}"))
    };
    let (per_second, p50_us, p99_us) = if by_fio {
        let percentile =
            |which| number(&format!("/jobs/0/read/lat_ns/percentile/{which}")).map(|ns| ns / 1e3);
        (number("/jobs/0/read/iops")?, percentile("50.000000")?, percentile("99.000000")?)
    } else {
        let rate = number("/transfers_per_second")?;
        (rate, number("/latency_us/p50")?, number("/latency_us/p99")?)
    };
    let busy_share = busy_share(&text("stat")?).with_context(|| format!("{name}.stat"))?;
    Ok(Sample { per_second, p50_us, p99_us, busy_share })
}

/// From the first line of `/proc/stat` before and after: which part of the time was not idle
/// (proc(5): user, nice, system, idle, iowait, irq, softirq, …, in ticks).
fn busy_share(text: &str) -> Option<f64> {
    let mut lines = text.lines().map(|line| -> Option<(f64, f64)> {
        let ticks: Option<Vec<f64>> =
            line.split_whitespace().skip(1).map(|word| word.parse().ok()).collect();
        let ticks = ticks?;
        let all: f64 = ticks.iter().take(8).sum();
        Some((all, all - ticks.get(3)? - ticks.get(4)?))
    });
    let (before, after) = (lines.next()??, lines.next()??);
    let all = after.0 - before.0;
    (all > 0.0).then(|| (after.1 - before.1) / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_stand_between_the_ends() {
        let spread = Spread::of([5.0, 1.0, 3.0].into_iter());
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 3.0, 5.0));
        assert_eq!(Spread::of([1.0, 2.0].into_iter()).median, 1.5);
    }

    #[test]
    fn the_busy_share_leaves_idle_time_out() {
        let text = "cpu 10 0 10 100 0 0 0 0 0 0\ncpu 20 0 30 120 10 5 5 0 0 0\n";
        assert_eq!(busy_share(text), Some(40.0 / 70.0));
        assert_eq!(busy_share("cpu 1 2 3 4 5 6 7 8\n"), None);
    }
}
