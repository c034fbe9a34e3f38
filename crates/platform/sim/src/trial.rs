//! Trials: a driver against the model, with faults, watched by an oracle.
//!
//! A seed stands for all of it: what the HBA and its disks are like, who reads and writes what, and
//! which faults strike when. Time is virtual, so that a trial of hours takes milliseconds, and one
//! that fails fails again, whenever it is run.
//!
//! **What is required** of every seed: no write that was acknowledged and flushed is lost; every request
//! ends exactly once, in bounded time; no old write comes back over a newer one; an error names the
//! right sectors, and has a reason; ports without faults go on unharmed; the driver does nothing
//! that the specification forbids, and reaches for no memory that is not its own; all memory is
//! back at the end.

pub mod campaign;
mod client;
mod content;
mod oracle;
mod scenario;

use crate::Random;
use crate::device::SimDevice;
use crate::disk::Disk;
use crate::fault::{Fault, FaultCounts};
use crate::hba::HbaModel;
use crate::multiplier::Multiplier;
use client::Client;
use core::time::Duration;
use oracle::Oracle;
use outboard_ahci::Hba;
use outboard_block::{BlockDriver, UnitId};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, DeviceView, DmaSpace};
use outboard_hw::time::earlier;
use scenario::Scenario;

/// Memory that a trial's driver and clients need at most.
pub const MEMORY_BYTES: usize = 64 << 20;

/// By how much the units of neighbouring device ports of a multiplier differ.
const UNIT_STRIDE: u16 = 32;

/// How a trial is run.
#[derive(Debug, Clone, Default)]
pub struct TrialOptions {
    /// Keep a trace of all that happens.
    pub trace: bool,
    /// Only these faults strike; none for any.
    pub only: Vec<Fault>,
    /// A piece of the driver's recovery to leave out, to see whether the oracle notices.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<outboard_ahci::Sabotage>,
}

impl TrialOptions {
    /// Trials with a trace or without, with these faults only.
    pub const fn new(trace: bool, only: Vec<Fault>) -> Self {
        Self {
            trace,
            only,
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }
}

/// What came of a trial.
#[derive(Debug, Clone, Default)]
pub struct TrialReport {
    /// Its seed.
    pub seed: u64,
    /// The faults that struck.
    pub faults: FaultCounts,
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
pub fn run(seed: u64, arena: &Arena, options: &TrialOptions) -> TrialReport {
    let mut trial = Trial::new(seed, arena, options);
    trial.work();
    trial.stop();
    trial.finish(arena)
}

struct Trial {
    seed: u64,
    device: SimDevice,
    /// Dropped before memory is counted.
    driver: Option<Hba<SimDevice>>,
    dma: std::sync::Arc<dyn DmaSpace>,
    clients: Vec<Client>,
    /// The port with a multiplier.
    multiplied: Option<u8>,
    now: Instant,
    random: Random,
    /// Decides when interrupts are masked, where they ever are.
    masking: Option<Random>,
    masked: bool,
    violations: Vec<String>,
}

impl Trial {
    fn new(seed: u64, arena: &Arena, options: &TrialOptions) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::draw(&mut random, &options.only);
        let view = DeviceView::new(arena.clone());
        let mut hba = HbaModel::new(scenario.hba, view, random.fork());
        if options.trace {
            hba.trace().start();
        }
        if let Some((port, config)) = scenario.multiplier {
            hba.attach(port, Box::new(Multiplier::new(config)));
        }
        let mut clients = Vec::new();
        for planted in scenario.disks {
            let key = disk_key(&planted.disk.serial);
            let bytes = planted.disk.sector_bytes as usize;
            let oracle = Oracle::new(key, planted.base, planted.sectors, bytes);
            let behind = u16::from(planted.behind.unwrap_or(0));
            let unit = UnitId(u16::from(planted.port) + UNIT_STRIDE * behind);
            clients.push(Client::new(unit, oracle, planted.requests, random.fork()));
            let mut other = planted.disk.clone();
            other.serial = planted.disk.serial.replace("TRIAL", "OTHER");
            let (disk, other) = (Box::new(Disk::new(planted.disk)), Box::new(Disk::new(other)));
            if let Some(behind) = planted.behind {
                hba.prepare_spare_behind(planted.port, behind, other);
                hba.attach_behind(planted.port, behind, disk);
            } else {
                hba.prepare_spare(planted.port, other);
                hba.attach(planted.port, disk);
            }
        }
        for planned in scenario.faults {
            hba.schedule_fault(Instant::ORIGIN + planned.at, planned.port, planned.fault);
        }
        let device = SimDevice::new(hba, arena.clone());
        #[cfg(feature = "sabotage")]
        let config = outboard_ahci::AhciConfig { sabotage: options.sabotage, ..scenario.driver };
        #[cfg(not(feature = "sabotage"))]
        let config = scenario.driver;
        let mut violations = Vec::new();
        let driver = Hba::new(device.clone(), config);
        let driver = driver.map_err(|error| violations.push(error.to_string())).ok();
        let dma = std::sync::Arc::new(arena.clone());
        let now = Instant::from_nanos(1);
        let mut masking = random.fork();
        let masking = masking.once_in(2).then_some(masking);
        let masked = false;
        let multiplied = scenario.multiplier.map(|(port, _)| port);
        Self {
            seed,
            device,
            driver,
            dma,
            clients,
            multiplied,
            now,
            random,
            masking,
            masked,
            violations,
        }
    }

    fn violation(&mut self, what: &str) {
        let now = self.now;
        self.device.hba().trace().note(now, format_args!("VIOLATION: {what}"));
        if self.violations.len() < 16 {
            self.violations.push(format!("{now:?}: {what}"));
        }
    }

    /// Everything that happens at one instant.
    fn turn(&mut self) {
        let Some(driver) = &mut self.driver else { return };
        let mut wrong = Vec::new();
        let (interrupt, struck) = {
            let mut hba = self.device.hba();
            hba.advance(self.now);
            if let Some(port) = self.multiplied {
                let resets = hba.resets() + hba.link_resets(port);
                let behind = |client: &&mut Client| client.unit.0 % UNIT_STRIDE == port.into();
                let behind = self.clients.iter_mut().filter(behind);
                behind.for_each(|client| client.multiplier_was_reset(resets));
            }
            (hba.take_interrupt(), hba.take_struck())
        };
        for struck in struck {
            use crate::fault::Cost;
            let everywhere = struck.fault.cost() == Cost::Controller;
            for client in &mut self.clients {
                let (port, behind) = (client.unit.0 % UNIT_STRIDE, client.unit.0 / UNIT_STRIDE);
                let there = port == u16::from(struck.port)
                    && struck.behind.is_none_or(|struck| u16::from(struck) == behind);
                if everywhere || there {
                    client.struck(struck);
                }
            }
        }
        if interrupt {
            driver.interrupt(0);
        }
        let clients = &mut self.clients;
        let device = &self.device;
        let now = self.now;
        driver.poll(self.now, &mut |completion| {
            let client = clients.iter_mut().find(|client| client.unit == completion.unit);
            device.hba().trace().note(
                now,
                format_args!(
                    "driver: request {} of unit {} ends: {:?}",
                    completion.tag.0, completion.unit.0, completion.result
                ),
            );
            let result = match client {
                Some(client) => client.complete(completion),
                None => Err("a request of nobody has ended".into()),
            };
            wrong.extend(result.err());
        });
        driver.drain_events(&mut |unit, at, what| {
            device.hba().trace().note(at, format_args!("driver: port {}: {what}", unit.0));
        });
        for client in &mut self.clients {
            wrong.extend(client.look(driver, self.now).err());
            wrong.extend(client.overdue(self.now).err());
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
        let next = earlier(driver.next_deadline(), self.device.hba().next_event());
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
        let due = (driver.next_deadline(), self.device.hba().next_event());
        let waiting = self.clients.iter().filter(|client| !client.is_done());
        let waiting: Vec<_> = waiting.map(|client| client.waits_for(driver)).collect();
        let text = format!(
            "the work does not end: {}; due are {:?} of the driver and {:?} of the HBA",
            waiting.join(", "),
            due.0,
            due.1,
        );
        self.violation(&text);
    }

    /// Runs until all clients have done their work, or can do no more.
    fn work(&mut self) {
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

    fn finish(mut self, arena: &Arena) -> TrialReport {
        self.driver = None;
        if self.violations.is_empty() {
            let statistics = arena.statistics();
            if statistics.buffers != 0 {
                self.violation(&format!("{} buffers did not come back", statistics.buffers));
            }
            for index in 0..self.clients.len() {
                if let Err(what) = self.check_disk(index) {
                    self.violation(&what);
                }
            }
        }
        let mut hba = self.device.hba();
        let mut violations = std::mem::take(&mut self.violations);
        violations.extend(hba.violations().iter().cloned());
        TrialReport {
            seed: self.seed,
            faults: hba.counts().clone(),
            good: self.clients.iter().map(|client| client.good).sum(),
            failed: self.clients.iter().map(|client| client.failed).sum(),
            lasted: self.now.since(Instant::ORIGIN),
            violations,
            trace: hba.trace().take(),
        }
    }

    fn check_disk(&self, index: usize) -> Result<(), String> {
        let client = &self.clients[index];
        let mut hba = self.device.hba();
        let port = (client.unit.0 % UNIT_STRIDE) as u8;
        let behind = (client.unit.0 / UNIT_STRIDE) as u8;
        let device = match hba.has_multiplier(port) {
            true => hba.device_behind(port, behind),
            false => hba.device(port),
        };
        let disk = device.and_then(|device| device.as_any().downcast_mut::<Disk>());
        let Some(disk) = disk else { return Ok(()) };
        if disk_key(&disk.config().serial) != client.oracle.disk {
            // Another one, which the driver has not taken up.
            return Ok(());
        }
        client.oracle.check_disk(disk).map_err(|what| format!("port {port}: {what}"))
    }
}
