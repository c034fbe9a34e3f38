//! Many trials, on all processors.

use super::{MEMORY_BYTES, TrialOptions, TrialReport, Tried};
use crate::fault::{Fault, FaultCounts};
use core::time::Duration;
use outboard_hw::dma::{Arena, DmaSpace};
use outboard_linux::SharedMemory;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// Which trials are run.
#[derive(Debug, Clone)]
pub struct Campaign<F: Tried = Fault> {
    /// The first seed.
    pub first: u64,
    /// How many there are.
    pub seeds: u64,
    /// No trial is begun after this.
    pub time: Option<Duration>,
    /// How many run at once; by default, as many as there are processors.
    pub jobs: Option<NonZeroUsize>,
    /// How each is run.
    pub options: TrialOptions<F>,
}

/// So many trials that failed are kept; the rest are counted.
pub const MAX_FAILURES: usize = 100;

/// What came of them.
#[derive(Debug, Clone)]
pub struct Totals<F: Tried = Fault> {
    /// Trials.
    pub trials: u64,
    /// Faults that struck.
    pub faults: FaultCounts<F>,
    /// Requests that ended well.
    pub good: u64,
    /// Requests that failed, for a reason.
    pub failed: u64,
    /// Virtual time.
    pub lasted: Duration,
    /// Trials with violations.
    pub violations: u64,
    /// The first of them.
    pub failures: Vec<TrialReport<F>>,
    /// What happened in the last one, if that was asked for.
    pub last_trace: Vec<String>,
}

impl<F: Tried> Default for Totals<F> {
    fn default() -> Self {
        Self {
            trials: 0,
            faults: FaultCounts::default(),
            good: 0,
            failed: 0,
            lasted: Duration::ZERO,
            violations: 0,
            failures: Vec::new(),
            last_trace: Vec::new(),
        }
    }
}

impl<F: Tried> Totals<F> {
    fn add(&mut self, mut report: TrialReport<F>) {
        self.last_trace = std::mem::take(&mut report.trace);
        self.trials += 1;
        self.faults.merge(&report.faults);
        self.good += report.good;
        self.failed += report.failed;
        self.lasted += report.lasted;
        if !report.violations.is_empty() {
            self.violations += 1;
            if self.failures.len() < MAX_FAILURES {
                self.failures.push(report);
            }
        }
    }
}

/// Memory for trials could not be had.
#[derive(Debug, thiserror::Error)]
#[error("no memory for trials: {0}")]
pub struct NoMemory(std::io::Error);

fn arena() -> Result<Arena, NoMemory> {
    let memory = SharedMemory::for_model("outboard-sim", MEMORY_BYTES);
    memory.map(|(_, arena)| arena).map_err(|error| NoMemory(error.into()))
}

impl<F: Tried> Campaign<F> {
    /// Runs them. `each` is called after every trial, with the totals so far; if it returns false,
    /// no further one is begun.
    pub fn run(&self, each: &(dyn Fn(&Totals<F>) -> bool + Sync)) -> Result<Totals<F>, NoMemory> {
        let began = Instant::now();
        let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let totals = Mutex::new(Totals::default());
        let processors = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let jobs = self.jobs.unwrap_or(processors).get();
        let work = || {
            let mut memory = arena()?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let late = self.time.is_some_and(|time| began.elapsed() >= time);
                if number >= self.seeds || late || over.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let seed = self.first.wrapping_add(number);
                let report = run_one(seed, &memory, &self.options);
                if memory.statistics().buffers != 0 {
                    // Something was lost, which the report says; the next trial is not to suffer.
                    memory = arena()?;
                }
                let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                totals.add(report);
                if !each(&totals) {
                    over.store(true, Ordering::Relaxed);
                }
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let mut ends = workers.into_iter().map(|worker| worker.join());
            ends.try_for_each(|end| end.expect("a worker does not panic"))
        })?;
        Ok(totals.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs a trial; a panic is a violation like others.
fn run_one<F: Tried>(seed: u64, arena: &Arena, options: &TrialOptions<F>) -> TrialReport<F> {
    let caught = catch_unwind(AssertUnwindSafe(|| super::run(seed, arena, options)));
    caught.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        TrialReport::broken(seed, format!("it panicked: {text}"))
    })
}
