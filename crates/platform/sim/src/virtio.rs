//! A virtio disk in software (virtio 1.2), as a PCI function.
//!
//! It does what the specification says, in the time that is given to it, and lies where a
//! [`VirtioFault`] tells it to. What a driver must not do (use a queue before the device is set up,
//! offer a descriptor twice, change one that the device has, notify a device that is awake, give it
//! memory that is not its own) is noted as a violation.

mod config;
mod function;
mod inject;
mod legacy;
mod post;
mod registers;
mod reset;
mod ring;
mod serve;
mod space;
mod toll;

pub use config::{VirtioConfig, VirtioFace};
pub use function::{VirtioDevice, VirtioRegisters};

use crate::disk::{MemoryMedium, Store, TrimPromise};
use crate::fault::{FaultCounts, Struck, VirtioFault};
use crate::schedule::Schedule;
use crate::{Random, Trace};
use core::fmt;
use core::time::Duration;
use outboard_hw::Instant;
use outboard_hw::dma::DeviceView;
use outboard_virtio::spec::blk::SECTOR_BYTES;
use registers::Common;
use ring::{Place, Side};
use serve::Job;
use std::collections::BTreeSet;
use toll::Toll;

/// Something that is going to happen in the device.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// It looks at a queue.
    Look { queue: u16, epoch: u32 },
    /// It has done its work on a request.
    Finish { job: u64, epoch: u32 },
    /// Data and status come behind the used entry.
    Late { job: u64, epoch: u32 },
    /// A used entry comes behind its index.
    Entry { queue: u16, id: u32, bytes: u32, epoch: u32 },
    /// It still writes to memory while it is being reset.
    Stray { epoch: u32 },
    /// A reset is done.
    ResetEnds { epoch: u32 },
    /// The reset of a queue is done.
    QueueResetEnds { queue: u16, epoch: u32 },
    /// An interrupt comes that was late.
    Message { vector: u16 },
    /// The configuration is said to have changed.
    ConfigChanged,
    /// The disk has its sectors again.
    CapacityBack,
    /// A fault strikes.
    Strike { fault: VirtioFault },
}

/// How a queue misbehaves until the device is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quirk {
    /// It never asks for notifications.
    Never,
    /// It always does.
    Always,
    /// It says nothing new.
    Stuck,
    /// It says anything.
    Garbage,
    /// It is not looked at.
    Dead,
}

/// A queue, and what the driver has written of it.
#[derive(Debug, Default)]
struct Queue {
    place: Place,
    /// The most entries that the driver was told of.
    most_told: u16,
    vector: u16,
    /// It was switched on.
    side: Option<Side>,
    /// The device looks at it without being told.
    awake: bool,
    quirk: Option<Quirk>,
    reset: QueueReset,
    /// What it was before it was reset, and goes on with.
    before: Option<Side>,
}

/// How far the reset of one queue is (§2.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum QueueReset {
    /// There was none since the device was reset.
    #[default]
    None,
    /// It is under way.
    UnderWay,
    /// It is done: the queue may be set up again while the device works.
    Done,
}

/// The model.
pub struct VirtioModel {
    config: VirtioConfig,
    /// The features that it offers, which may change.
    offered: u64,
    memory: DeviceView,
    now: Instant,
    schedule: Schedule<Event>,
    random: Random,
    bus_master: bool,
    common: Common,
    queues: Vec<Queue>,
    /// Requests that it has.
    jobs: Vec<Job>,
    taken: u64,
    store: Store,
    /// How many logical sectors there are.
    sectors: u64,
    write_cache: bool,
    serial: String,
    isr: u8,
    /// Messages are switched on.
    msix: bool,
    /// Vectors that were signalled.
    messages: BTreeSet<u16>,
    silent_until: Instant,
    /// Counts resets.
    epoch: u32,
    /// It is being reset.
    resetting: bool,
    /// The driver wants it reset, and was not heard.
    reset_unheard: bool,
    /// Since when the driver has known that it asks for a reset.
    asked_since: Option<Instant>,
    /// How long a reset takes; `None` for ever.
    reset_takes: Option<Duration>,
    /// Everything reads as all ones.
    removed: bool,
    /// It works on nothing until it is reset.
    stuck: bool,
    /// It has forgotten everything, of which the driver does not know yet.
    lost: bool,
    /// How often it needs a reset again as soon as it is set up.
    needs_again: u8,
    /// Faults that wait for their occasion.
    armed: Vec<VirtioFault>,
    /// Faults that last: until the next reset, and for good.
    lasting: Vec<VirtioFault>,
    for_good: Vec<VirtioFault>,
    counts: FaultCounts<VirtioFault>,
    toll: Toll,
    struck: Vec<Struck<VirtioFault>>,
    violations: Vec<String>,
    trace: Trace,
}

/// So many violations are noted in full; more say nothing new.
const MAX_VIOLATIONS: usize = 16;

impl VirtioModel {
    /// A disk with nothing on it, which reaches memory through `memory` and draws from `random`.
    pub fn new(config: VirtioConfig, memory: DeviceView, random: Random) -> Self {
        let mut model = Self {
            offered: config.features,
            memory,
            now: Instant::ORIGIN,
            schedule: Schedule::new(),
            random,
            bus_master: false,
            common: Common::default(),
            queues: Vec::new(),
            jobs: Vec::new(),
            taken: 0,
            store: empty_store(&config),
            sectors: config.sectors,
            write_cache: true,
            serial: config.serial.clone(),
            isr: 0,
            msix: false,
            messages: BTreeSet::new(),
            silent_until: Instant::ORIGIN,
            epoch: 0,
            resetting: false,
            reset_unheard: false,
            asked_since: None,
            reset_takes: Some(config.reset_time),
            removed: false,
            stuck: false,
            lost: false,
            needs_again: 0,
            armed: Vec::new(),
            lasting: Vec::new(),
            for_good: Vec::new(),
            counts: FaultCounts::default(),
            toll: Toll::default(),
            struck: Vec::new(),
            violations: Vec::new(),
            trace: Trace::default(),
            config,
        };
        model.forget();
        model
    }

    /// What it is like.
    pub const fn config(&self) -> &VirtioConfig {
        &self.config
    }

    /// How many logical sectors it has now.
    pub const fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Its serial number, which changes if it is exchanged.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// What it remembers.
    pub(crate) const fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// When something happens next by itself.
    pub fn next_event(&self) -> Option<Instant> {
        self.schedule.next_at()
    }

    /// Lets everything happen that is due.
    pub fn advance(&mut self, now: Instant) {
        while let Some((at, event)) = self.schedule.pop_due(now) {
            self.now = self.now.max(at);
            self.handle(event);
        }
        self.now = self.now.max(now);
    }

    fn handle(&mut self, event: Event) {
        let current = self.epoch;
        match event {
            Event::Look { queue, epoch } if epoch == current => self.look(queue),
            Event::Finish { job, epoch } if epoch == current => self.finish(job),
            Event::Late { job, epoch } if epoch == current => self.finish_late(job),
            Event::Entry { queue, id, bytes, epoch } if epoch == current => {
                self.write_late_entry(queue, id, bytes);
            }
            Event::Stray { epoch } if epoch == current => self.stray(),
            Event::ResetEnds { epoch } if epoch == current => self.reset_ends(),
            Event::QueueResetEnds { queue, epoch } if epoch == current => {
                self.queue_reset_ends(queue);
            }
            Event::Message { vector } => self.signal(vector),
            Event::ConfigChanged => self.config_changed(),
            Event::CapacityBack => {
                self.sectors = self.config.sectors;
                self.config_changed();
            }
            Event::Strike { fault } => self.inject(fault),
            // Of the time before a reset.
            _ => {}
        }
    }

    fn after(&mut self, time: Duration, event: Event) {
        self.schedule.add(self.now + time, event);
    }

    /// A time between so many microseconds.
    const fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.random.between(from, to))
    }

    /// Calls `fired` with each vector that was signalled since this was last asked. With the pin,
    /// that is 0 as long as it is asserted.
    pub fn take_interrupts(&mut self, fired: &mut dyn FnMut(u16)) {
        core::mem::take(&mut self.messages).into_iter().for_each(&mut *fired);
        if self.config.vectors == 0 && self.isr != 0 && !self.removed {
            fired(0);
        }
    }

    /// How often each fault has struck.
    pub const fn counts(&self) -> &FaultCounts<VirtioFault> {
        &self.counts
    }

    /// How many resets, of the device and of its queues, faults have called for so far. Each spoils
    /// one attempt at what was under way.
    pub(crate) const fn resets_with_reason(&self) -> u32 {
        self.toll.resets
    }

    /// The faults that have struck since this was last asked.
    pub fn take_struck(&mut self) -> Vec<Struck<VirtioFault>> {
        core::mem::take(&mut self.struck)
    }

    /// What the driver did that it must not.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// What has happened, if it is traced.
    pub const fn trace(&mut self) -> &mut Trace {
        &mut self.trace
    }

    fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.note(self.now, what);
    }

    fn violation(&mut self, what: fmt::Arguments<'_>) {
        let now = self.now;
        self.trace.note(now, format_args!("VIOLATION: {what}"));
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(format!("{now:?}: {what}"));
        }
    }

    /// How many sectors of 512 bytes a logical one has.
    const fn factor(&self) -> u64 {
        (self.config.sector_bytes / SECTOR_BYTES) as u64
    }
}

/// What a disk remembers that has nothing on it.
fn empty_store(config: &VirtioConfig) -> Store {
    let medium = Box::new(MemoryMedium::new(config.sector_bytes));
    let bytes = config.sector_bytes as usize;
    Store::new(medium, bytes, config.cache_sectors, TrimPromise::Nothing)
}

impl fmt::Debug for VirtioModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioModel")
            .field("now", &self.now)
            .field("common", &self.common)
            .field("jobs", &self.jobs.len())
            .finish_non_exhaustive()
    }
}
