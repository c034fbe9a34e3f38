//! What faults cost: resets that have a reason.

use crate::fault::{Cost, VirtioFault};

/// Resets that faults have called for, and may still call for.
///
/// A fault that lasts, like a device that is stuck, outlasts the reset of a queue, and so calls for two:
/// that one, and the device's. After this it is over, whatever it was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Toll {
    /// Resets with a reason.
    pub(super) resets: u32,
    /// Faults since the device was last reset, and those of them that a queue's reset may be for.
    faults: u32,
    for_queues: u32,
}

impl Toll {
    /// A fault has struck.
    pub(super) fn strike(&mut self, fault: VirtioFault) {
        // The others end requests, or cost time.
        if !matches!(fault.cost(), Cost::Nothing | Cost::Request | Cost::Sectors) {
            self.faults += 1;
            self.for_queues += 1;
        }
    }

    /// The driver resets the device.
    pub(super) fn reset(&mut self) {
        self.resets += u32::from(self.faults > 0);
        (self.faults, self.for_queues) = (0, 0);
    }

    /// The reset of a queue is done.
    pub(super) fn reset_queue(&mut self) {
        if self.for_queues > 0 {
            self.resets += 1;
            self.for_queues -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_calls_for_a_reset_of_the_device_and_for_one_of_a_queue_before_it() {
        let mut toll = Toll::default();
        toll.strike(VirtioFault::Stuck);
        for resets in [1, 1] {
            toll.reset_queue();
            assert_eq!(toll.resets, resets);
        }
        for resets in [2, 2] {
            toll.reset();
            assert_eq!(toll.resets, resets);
        }
        toll.reset_queue();
        assert_eq!(toll.resets, 2, "the device's reset ended it");
    }

    #[test]
    fn what_costs_time_or_a_request_calls_for_none() {
        let mut toll = Toll::default();
        for fault in [VirtioFault::VerySlow, VirtioFault::IoError, VirtioFault::SectorBad] {
            toll.strike(fault);
        }
        toll.reset_queue();
        toll.reset();
        assert_eq!(toll.resets, 0);
    }
}
