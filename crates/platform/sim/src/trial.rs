//! Trials: a driver against the model, with faults, watched by an oracle.
//!
//! A seed stands for all of it: what the device and its disks are like, who reads and writes what, and
//! which faults strike when. Time is virtual, so that a trial of hours takes milliseconds, and one
//! that fails fails again, whenever it is run.
//!
//! **What is required** of every seed: no write that was acknowledged and flushed is lost; every request
//! ends exactly once, in bounded time; no old write comes back over a newer one; an error names the
//! right sectors, and has a reason; disks without faults go on unharmed; the driver does nothing
//! that the specification forbids, and reaches for no memory that is not its own; all memory is
//! back at the end.

mod ahci;
pub mod campaign;
mod client;
mod content;
mod machine;
mod oracle;
mod virtio;

use crate::Random;
use crate::fault::{Fault, FaultCounts};
use client::Client;
use core::time::Duration;
pub use machine::Tried;
use machine::{Machine, Made};
use outboard_block::BlockDriver;
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, DmaSpace};
use outboard_hw::time::earlier;

/// Memory that a trial's driver and clients need at most.
pub const MEMORY_BYTES: usize = 64 << 20;

/// How a trial is run. Its kind of faults says what is tried.
#[derive(Debug, Clone)]
pub struct TrialOptions<F: Tried = Fault> {
    /// Keep a trace of all that happens.
    pub trace: bool,
    /// Only these faults strike; none for any.
    pub only: Vec<F>,
    /// A piece of the driver's recovery to leave out, to see whether the oracle notices.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<F::Sabotage>,
}

impl<F: Tried> TrialOptions<F> {
    /// Trials with a trace or without, with these faults only.
    pub const fn new(trace: bool, only: Vec<F>) -> Self {
        Self {
            trace,
            only,
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }
}

impl<F: Tried> Default for TrialOptions<F> {
    fn default() -> Self {
        Self::new(false, Vec::new())
    }
}

/// What came of a trial.
#[derive(Debug, Clone)]
pub struct TrialReport<F: Tried = Fault> {
    /// Its seed.
    pub seed: u64,
    /// The faults that struck.
    pub faults: FaultCounts<F>,
    /// Requests that ended well.
    pub good: u64,
    /// Requests that failed, for a reason.
    pub failed: u64,
    /// Virtual time that passed.
    pub lasted: Duration,
    /// What must not have happened; empty if all is well.
    pub violations: Vec<String>,
    /// All that happened, if that was asked for.
    pub trace: Vec<String>,
}

impl<F: Tried> TrialReport<F> {
    /// Of a trial of which nothing is known but a violation.
    fn broken(seed: u64, violation: String) -> Self {
        Self {
            seed,
            faults: FaultCounts::default(),
            good: 0,
            failed: 0,
            lasted: Duration::ZERO,
            violations: vec![violation],
            trace: Vec::new(),
        }
    }
}

/// No trial lasts longer, in virtual time.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// At one instant nobody has more to do.
const MOST_TURNS: u32 = 10_000;
/// Shutting down takes no longer.
const STOP: Duration = Duration::from_secs(600);

/// What marks the content of the disk with a serial number.
fn disk_key(serial: &str) -> u64 {
    serial.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// In how many turns interrupts are masked, or let again, once.
const MASK_ONCE_IN: u64 = 24;

/// Runs the trial that `seed` stands for. `arena` has nothing allocated, of at least
/// [`MEMORY_BYTES`]; its device addresses lie below 4 GiB.
pub fn run<F: Tried>(seed: u64, arena: &Arena, options: &TrialOptions<F>) -> TrialReport<F> {
    let mut trial = Trial::new(seed, arena, options);
    trial.work();
    trial.stop();
    trial.finish(arena)
}

struct Trial<F: Tried> {
    seed: u64,
    machine: Box<dyn Machine<F>>,
    /// Dropped before memory is counted.
    driver: Option<Box<dyn BlockDriver>>,
    dma: std::sync::Arc<dyn DmaSpace>,
    clients: Vec<Client<F>>,
    now: Instant,
    random: Random,
    /// Decides when interrupts are masked, where they ever are.
    masking: Option<Random>,
    masked: bool,
    violations: Vec<String>,
}

impl<F: Tried> Trial<F> {
    fn new(seed: u64, arena: &Arena, options: &TrialOptions<F>) -> Self {
        let mut random = Random::new(seed);
        let Made { machine, driver, clients } = F::make(&mut random, arena, options);
        let mut violations = Vec::new();
        let driver = driver.map_err(|why| violations.extend(why)).ok();
        let mut masking = random.fork();
        let masking = masking.once_in(2).then_some(masking);
        Self {
            seed,
            machine,
            driver,
            dma: std::sync::Arc::new(arena.clone()),
            clients,
            now: Instant::from_nanos(1),
            random,
            masking,
            masked: false,
            violations,
        }
    }

    fn violation(&mut self, what: &str) {
        let now = self.now;
        self.machine.note(now, format_args!("VIOLATION: {what}"));
        if self.violations.len() < 16 {
            self.violations.push(format!("{now:?}: {what}"));
        }
    }

    /// Everything that happens at one instant.
    fn turn(&mut self) {
        let Some(driver) = self.driver.as_deref_mut() else { return };
        let mut wrong = Vec::new();
        self.machine.advance(self.now, &mut self.clients);
        for struck in self.machine.take_struck() {
            let there = |client: &&mut Client<F>| F::concerns(&struck, client.unit);
            let clients = self.clients.iter_mut().filter(there);
            clients.for_each(|client| client.struck(struck));
        }
        self.machine.take_interrupts(&mut |vector| driver.interrupt(vector));
        let clients = &mut self.clients;
        let machine = &mut *self.machine;
        let now = self.now;
        driver.poll(self.now, &mut |completion| {
            let client = clients.iter_mut().find(|client| client.unit == completion.unit);
            let spoilt = machine.spoilt_attempts();
            machine.note(
                now,
                format_args!(
                    "driver: request {} of unit {} ends: {:?}",
                    completion.tag.0, completion.unit.0, completion.result
                ),
            );
            let result = match client {
                Some(client) => {
                    client.oracle.attempts_spoilt(spoilt);
                    client.complete(completion)
                }
                None => Err("a request of nobody has ended".into()),
            };
            wrong.extend(result.err());
        });
        driver.drain_events(&mut |unit, at, what| {
            machine.note(at, format_args!("driver: port {}: {what}", unit.0));
        });
        for client in &mut self.clients {
            wrong.extend(client.look(driver, self.now).err());
            wrong.extend(client.overdue(self.now).err());
            client.oracle.attempts_spoilt(machine.spoilt_attempts());
            client.submit(driver, &*self.dma, self.now);
        }
        driver.kick(self.now);
        // Whoever runs the driver looks for a while rather than to sleep.
        if self.masking.as_mut().is_some_and(|random| random.once_in(MASK_ONCE_IN)) {
            self.masked = !self.masked;
            driver.mask(self.masked);
        }
        wrong.iter().for_each(|what| self.violation(what));
    }

    /// Lets time pass until something is due; whether anything is.
    fn wait(&mut self, turns_now: &mut u32) -> bool {
        let Some(driver) = &self.driver else { return false };
        let next = earlier(driver.next_deadline(), self.machine.next_event());
        let clients = self.clients.iter().map(|client| client.next_at(self.now));
        let next = clients.fold(next, earlier);
        let Some(next) = next else { return false };
        *turns_now = if self.now.reached(next) { *turns_now + 1 } else { 0 };
        // Now and then whoever runs the driver has other things to do.
        let busy = if self.random.once_in(64) { self.random.below(4_000_000) } else { 500 };
        self.now = self.now.max(next) + Duration::from_nanos(busy);
        true
    }

    /// The work does not end: of whose disk, and what it waits for.
    fn unended(&mut self) {
        let Some(driver) = &self.driver else { return };
        let due = (driver.next_deadline(), self.machine.next_event());
        let waiting = self.clients.iter().filter(|client| !client.is_done());
        let waiting: Vec<_> = waiting.map(|client| client.waits_for(&**driver)).collect();
        let text = format!(
            "the work does not end: {}; due are {:?} of the driver and {:?} of the device",
            waiting.join(", "),
            due.0,
            due.1,
        );
        self.violation(&text);
    }

    /// Runs until all clients have done their work, or can do no more.
    fn work(&mut self) {
        if self.driver.is_none() {
            return;
        }
        let mut turns_now = 0;
        let end = Instant::ORIGIN + LONGEST;
        loop {
            self.turn();
            if !self.violations.is_empty() || self.clients.iter().all(Client::is_done) {
                return;
            }
            if !self.wait(&mut turns_now) {
                return self.violation("nobody has anything to do, and the work is not done");
            }
            if turns_now > MOST_TURNS {
                return self.violation("the driver is busy with nothing");
            }
            if self.now.reached(end) {
                return self.unended();
            }
        }
    }

    /// Shuts the driver down.
    fn stop(&mut self) {
        let Some(driver) = self.driver.as_mut().filter(|_| self.violations.is_empty()) else {
            return;
        };
        driver.stop();
        let end = self.now + STOP;
        let mut turns_now = 0;
        loop {
            self.turn();
            if self.driver.as_ref().is_none_or(|driver| driver.is_stopped()) {
                return;
            }
            if !self.wait(&mut turns_now) || turns_now > MOST_TURNS || self.now.reached(end) {
                return self.violation("the driver does not stop");
            }
        }
    }

    fn finish(mut self, arena: &Arena) -> TrialReport<F> {
        self.driver = None;
        if self.violations.is_empty() {
            let statistics = arena.statistics();
            if statistics.buffers != 0 {
                self.violation(&format!("{} buffers did not come back", statistics.buffers));
            }
            for index in 0..self.clients.len() {
                if let Err(what) = self.machine.check(&self.clients[index]) {
                    self.violation(&what);
                }
            }
        }
        let mut violations = std::mem::take(&mut self.violations);
        let end = self.machine.end();
        violations.extend(end.violations);
        TrialReport {
            seed: self.seed,
            faults: end.counts,
            good: self.clients.iter().map(|client| client.good).sum(),
            failed: self.clients.iter().map(|client| client.failed).sum(),
            lasted: self.now.since(Instant::ORIGIN),
            violations,
            trace: end.trace,
        }
    }
}
