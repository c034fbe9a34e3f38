//! Drivers that are taken out while the others go on.

use super::set::Disks;
use crate::driver::{BlockDriver, Completion, Refused, RefusedReason, Request, Tag};
use crate::unit::{Unit, UnitId, UnitState};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaSpace};

impl Disks {
    /// Begins to shut one driver down; see [`BlockDriver::stop`].
    pub fn stop_driver(&mut self, driver: usize) {
        self.turn += 1;
        if let Some(hosted) = self.drivers.get_mut(driver) {
            hosted.driver.stop();
        }
    }

    /// Whether one driver is at rest, or lost.
    pub fn is_driver_stopped(&self, driver: usize) -> bool {
        self.drivers.get(driver).is_none_or(|hosted| hosted.driver.is_stopped())
    }

    /// Drops a driver, and with it its device. Its disks are no longer there, and its index is not
    /// given to another one. It has to be at rest: what it has not completed never ends.
    pub fn withdraw(&mut self, driver: usize) {
        self.turn += 1;
        if let Some(hosted) = self.drivers.get_mut(driver) {
            let former = &hosted.driver;
            hosted.driver = Box::new(Withdrawn {
                units: former.unit_count(),
                absent: Unit { state: UnitState::Absent, ..Unit::UNKNOWN.clone() },
                changes: former.changes() + 1,
                constraints: former.constraints(),
                dma: former.dma(),
            });
            self.discover(driver);
        }
    }
}

/// What is left of a driver: places without disks.
struct Withdrawn {
    units: u16,
    absent: Unit,
    changes: u64,
    constraints: Constraints,
    /// The driver's buffers may still hold answers for clients.
    dma: Arc<dyn DmaSpace>,
}

impl BlockDriver for Withdrawn {
    fn unit_count(&self) -> u16 {
        self.units
    }

    fn unit(&self, unit: UnitId) -> Option<&Unit> {
        (unit.0 < self.units).then_some(&self.absent)
    }

    fn changes(&self) -> u64 {
        self.changes
    }

    fn constraints(&self) -> Constraints {
        self.constraints
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.dma.clone()
    }

    fn submit(&mut self, _: UnitId, _: Tag, request: Request) -> Result<(), Refused> {
        Err(request.refused(RefusedReason::NotReady(UnitState::Absent)))
    }

    fn kick(&mut self, _: Instant) {}

    fn interrupt(&mut self, _: u16) {}

    fn poll(&mut self, _: Instant, _: &mut dyn FnMut(Completion)) {}

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn stop(&mut self) {}

    fn is_stopped(&self) -> bool {
        true
    }

    fn counters(&self, _: UnitId, _: &mut dyn FnMut(&'static str, u64)) {}

    fn drain_events(&mut self, _: &mut dyn FnMut(UnitId, Instant, &dyn fmt::Display)) {}
}
