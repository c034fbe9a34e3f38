//! Giving a driver's device back while the others go on.

use crate::server::{OWN_SESSION, Platform, Server};
use outboard_block::disk::Token;
use outboard_hw::Instant;
use outboard_linux::now;
use std::time::Duration;

/// How long a flush may take before the driver is stopped all the same: whoever asked for the
/// device waits.
const FLUSH_TIME: Duration = Duration::from_secs(20);

/// A driver whose device is being given back.
#[derive(Debug)]
pub(crate) struct Leaving {
    driver: usize,
    /// Until when its disks may take to be flushed; `None` once it was told to stop.
    flushing: Option<Instant>,
}

impl Leaving {
    /// When to look again, if nothing happens before.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.flushing
    }
}

impl<P: Platform> Server<P> {
    /// Begins to bring a driver to rest: its disks are flushed first.
    pub(crate) fn begin_leave(&mut self, driver: usize) {
        let disks = self.tree.disks();
        let known = self.leaving.iter().any(|one| one.driver == driver);
        if known || self.interrupts.get(driver).is_none_or(Option::is_none) {
            return;
        }
        for disk in disks.ids() {
            if disks.driver_of(disk) != Some(driver) {
                continue;
            }
            let name = disks.info(disk).map_or_else(String::new, |info| info.name);
            tracing::warn!(
                "{name}: somebody wants the controller, so the disk is flushed and goes"
            );
            let request = Token(u64::from(OWN_SESSION) << 32);
            let writable = disks.geometry(disk).is_some_and(|geometry| !geometry.read_only);
            if writable && disks.is_present(disk) && disks.flush(disk, request).is_ok() {
                self.own.0 += 1;
            }
        }
        disks.kick(now());
        self.leaving.push(Leaving { driver, flushing: Some(now() + FLUSH_TIME) });
    }

    /// Stops drivers whose disks were flushed, and drops those that are at rest.
    pub(crate) fn go_on_leaving(&mut self, at: Instant) {
        let (disks, flushed) = (self.tree.disks(), self.own.0 == 0);
        for one in &mut self.leaving {
            if one.flushing.is_some_and(|until| flushed || at.reached(until)) {
                one.flushing = None;
                disks.stop_driver(one.driver);
            }
        }
        let interrupts = &mut self.interrupts;
        self.leaving.retain(|one| {
            if one.flushing.is_some() || !disks.is_driver_stopped(one.driver) {
                return true;
            }
            // The source has the device open, too.
            interrupts[one.driver] = None;
            disks.withdraw(one.driver);
            false
        });
    }
}
