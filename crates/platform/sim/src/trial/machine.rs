//! What a trial needs of whatever it tries.

use super::client::Client;
use super::{TrialOptions, oracle};
use crate::Random;
use crate::fault::{FaultCounts, FaultKind, Struck};
use core::fmt;
use outboard_block::{BlockDriver, UnitId};
use outboard_hw::Instant;
use outboard_hw::dma::Arena;

/// Faults of something that can be tried: a device's model, with its driver.
pub trait Tried: FaultKind {
    /// A piece of the driver's recovery.
    #[cfg(feature = "sabotage")]
    type Sabotage: Copy + fmt::Debug + Send + Sync + 'static;

    /// Draws a device, its driver and clients.
    fn make(random: &mut Random, arena: &Arena, options: &TrialOptions<Self>) -> Made<Self>;

    /// Whether one that struck concerns a unit.
    fn concerns(struck: &Struck<Self>, unit: UnitId) -> bool;

    /// Whether it takes a disk's power, and with it what is only in its cache.
    fn cuts_power(self) -> bool;

    /// Whether after it an error of the medium may be told without its sector.
    fn hides_sector(self) -> bool;

    /// Whether after it flushes may fail that do not name a sector.
    fn spoils_flushes(self) -> bool {
        false
    }
}

/// What a trial is made of.
#[expect(missing_debug_implementations, reason = "a driver need not have one")]
pub struct Made<F: Tried> {
    pub(super) machine: Box<dyn Machine<F>>,
    /// The driver; or that it could not be had, and what is wrong with that if anything is.
    pub(super) driver: Result<Box<dyn BlockDriver>, Option<String>>,
    pub(super) clients: Vec<Client<F>>,
}

/// What is left of a device at the end of a trial.
pub(super) struct End<F> {
    pub(super) counts: FaultCounts<F>,
    pub(super) violations: Vec<String>,
    pub(super) trace: Vec<String>,
}

/// A device's model, in a trial.
pub(super) trait Machine<F: Tried> {
    /// Lets everything happen that is due. `clients` are told what only the device knows.
    fn advance(&mut self, now: Instant, clients: &mut [Client<F>]);

    /// When something happens next by itself.
    fn next_event(&self) -> Option<Instant>;

    /// Calls `fired` with each vector that has fired since.
    fn take_interrupts(&mut self, fired: &mut dyn FnMut(u16));

    /// The faults that have struck since.
    fn take_struck(&mut self) -> Vec<Struck<F>>;

    /// How many attempts at a request may be spoilt so far, if the device knows better than to count
    /// its faults.
    fn spoilt_attempts(&self) -> Option<usize> {
        None
    }

    /// Notes something in the trace.
    fn note(&mut self, at: Instant, what: fmt::Arguments<'_>);

    /// Compares a client's disk with what it must hold, once nothing is under way.
    fn check(&mut self, client: &Client<F>) -> Result<(), String>;

    /// What there is to report.
    fn end(&mut self) -> End<F>;
}

pub(super) use oracle::Content;
