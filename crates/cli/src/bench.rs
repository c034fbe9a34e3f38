//! Measuring: how many transfers a second, how long each takes, and what it costs.

pub(crate) mod driver;
pub(crate) mod ninep;

use crate::args::{Pattern, Through};
use hdrhistogram::Histogram;
use outboard_host::Reaping;
use outboard_lab::DiskConfig;
use outboard_pci::Address;
use outboard_sim::live::LiveDisk;
use outboard_vfio::Confinement;
use outboard_vhost_front::VhostDisk;
use serde::Serialize;
use std::time::{Duration, Instant};

/// The disk that is measured.
#[derive(Debug)]
pub(crate) enum Target {
    /// One of the lab's.
    Lab(DiskConfig),
    /// A simulated one.
    Sim(LiveDisk),
    /// That of another process.
    VhostUser(VhostDisk),
    /// The first one of a function of this machine.
    Pci(Address, Confinement),
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) through: Through,
    pub(crate) pattern: Pattern,
    /// Bytes of each transfer.
    pub(crate) bytes: usize,
    /// Transfers under way at once.
    pub(crate) depth: u16,
    pub(crate) reaping: Reaping,
    pub(crate) seconds: Duration,
}

impl Setup {
    pub(crate) const fn is_write(&self) -> bool {
        matches!(self.pattern, Pattern::Randwrite | Pattern::Write)
    }

    const fn is_random(&self) -> bool {
        matches!(self.pattern, Pattern::Randread | Pattern::Randwrite)
    }
}

/// Where transfers go: anywhere, or one after the other, by whole multiples of their length.
#[derive(Debug)]
pub(crate) struct Places {
    count: u64,
    bytes: u64,
    random: bool,
    state: u64,
}

impl Places {
    pub(crate) fn new(setup: &Setup, disk_bytes: u64) -> Self {
        let bytes = setup.bytes as u64;
        let count = (disk_bytes / bytes).max(1);
        Self { count, bytes, random: setup.is_random(), state: 0 }
    }

    /// Byte offset of the next transfer.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(1);
        if !self.random {
            return self.state % self.count * self.bytes;
        }
        // SplitMix64 (Steele, Lea, Flood 2014): every run draws the same places.
        let mut z = self.state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % self.count * self.bytes
    }
}

/// Times of transfers, as they are taken.
#[derive(Debug)]
pub(crate) struct Clock {
    began: Instant,
    started: Vec<Instant>,
    latencies: Histogram<u64>,
}

impl Clock {
    /// A clock for transfers with numbers below `depth`.
    pub(crate) fn new(depth: u16) -> anyhow::Result<Self> {
        const LONGEST: u64 = 60_000_000_000;
        let latencies = Histogram::new_with_bounds(1, LONGEST, 3)?;
        let now = Instant::now();
        Ok(Self { began: now, started: vec![now; depth.into()], latencies })
    }

    pub(crate) fn start(&mut self, number: usize) {
        self.started[number] = Instant::now();
    }

    pub(crate) fn end(&mut self, number: usize) {
        let nanos = self.started[number].elapsed().as_nanos() as u64;
        self.latencies.saturating_record(nanos);
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What came of it; `accesses` are register reads and writes.
    pub(crate) fn measurement(
        &self,
        setup: &Setup,
        seconds: f64,
        accesses: Option<(u64, u64)>,
    ) -> Measurement {
        let transfers = self.latencies.len();
        let rate = transfers as f64 / seconds;
        let micros = |quantile: f64| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let each = |count: u64| count as f64 / transfers.max(1) as f64;
        Measurement {
            through: match setup.through {
                Through::Driver => match setup.reaping {
                    Reaping::Adaptive => "driver, adaptive",
                    Reaping::Interrupts => "driver, interrupts",
                    Reaping::Polling => "driver, polling",
                },
                Through::Ninep => "9P",
            },
            pattern: match setup.pattern {
                Pattern::Randread => "random read",
                Pattern::Read => "sequential read",
                Pattern::Randwrite => "random write",
                Pattern::Write => "sequential write",
            },
            bytes: setup.bytes,
            depth: setup.depth,
            seconds,
            transfers,
            transfers_per_second: rate,
            megabytes_per_second: rate * setup.bytes as f64 / 1e6,
            latency_us: Latency {
                p50: micros(0.5),
                p95: micros(0.95),
                p99: micros(0.99),
                p99_9: micros(0.999),
                max: self.latencies.max() as f64 / 1000.0,
            },
            register_reads_each: accesses.map(|(reads, _)| each(reads)),
            register_writes_each: accesses.map(|(_, writes)| each(writes)),
        }
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    through: &'static str,
    pattern: &'static str,
    bytes: usize,
    depth: u16,
    seconds: f64,
    transfers: u64,
    transfers_per_second: f64,
    megabytes_per_second: f64,
    latency_us: Latency,
    register_reads_each: Option<f64>,
    register_writes_each: Option<f64>,
}

/// Percentiles, in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p95: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl Measurement {
    /// What is above the lines.
    pub(crate) fn heading() -> String {
        format!(
            "{:<19} {:<16} {:>8} {:>5} {:>9} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "through",
            "pattern",
            "bytes",
            "depth",
            "per s",
            "MB/s",
            "p50 µs",
            "p95 µs",
            "p99 µs",
            "max µs",
            "registers"
        )
    }

    /// A line of a table.
    pub(crate) fn line(&self) -> String {
        let Latency { p50, p95, p99, max, .. } = self.latency_us;
        let registers = match (self.register_reads_each, self.register_writes_each) {
            (Some(reads), Some(writes)) => format!("{:.2}", reads + writes),
            _ => "-".to_owned(),
        };
        format!(
            "{:<19} {:<16} {:>8} {:>5} {:>9.0} {:>8.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9}",
            self.through,
            self.pattern,
            self.bytes,
            self.depth,
            self.transfers_per_second,
            self.megabytes_per_second,
            p50,
            p95,
            p99,
            max,
            registers
        )
    }
}
