//! Which faults strike a disk, and when.

use crate::Random;
use crate::fault::Fault;
use core::time::Duration;
use outboard_hw::Instant;

/// The faults of one disk: what a bad one does, at a rate that a human can watch. All of it follows
/// from the seed.
#[derive(Debug)]
pub(super) struct Plan {
    random: Random,
    next: Instant,
}

/// From one fault to the next, in milliseconds.
const APART: (u64, u64) = (2_000, 6_000);

/// Faults that come together: what is to go wrong in a recovery, and then what makes one necessary.
type Together = &'static [Fault];

/// What strikes: how often in a hundred, and one of what.
///
/// None of these loses what is durable, and none ends a disk or its controller for good.
const MIX: [(u64, &[Together]); 5] = [
    // What a driver gets over without anyone noticing.
    (
        56,
        &[
            &[Fault::Aborted],
            &[Fault::ErrorWithoutReason],
            &[Fault::InterfaceCrc],
            &[Fault::CrcBurst],
            &[Fault::InterfaceFatal],
            &[Fault::InterfaceNonFatal],
            &[Fault::HostBusData],
            &[Fault::HostBusFatal],
            &[Fault::Overflow],
            &[Fault::LinkBlip],
            &[Fault::LinkLost],
            &[Fault::ErrorsNoted],
            &[Fault::UnknownFis],
            &[Fault::UnsolicitedRegisterFis],
            &[Fault::UnsolicitedBits],
            &[Fault::BitsTwice],
            &[Fault::OnesOnce],
            &[Fault::TaskFileGarbage],
            &[Fault::InterruptGarbage],
            &[Fault::InterruptLost],
            &[Fault::InterruptLate],
            &[Fault::InterruptSpurious],
            &[Fault::InterruptStorm],
            &[Fault::PendingNotSet],
            &[Fault::StatusNotSet],
        ],
    ),
    // What goes wrong while it does.
    (
        14,
        &[
            &[Fault::LogAborted, Fault::Aborted],
            &[Fault::LogDamaged, Fault::ErrorWithoutReason],
            &[Fault::LogNamesInnocent, Fault::Aborted],
            &[Fault::EngineSlow, Fault::InterfaceFatal],
            &[Fault::EngineStuck, Fault::HostBusFatal],
            &[Fault::ComresetIgnored, Fault::InterfaceFatal],
            &[Fault::LinkSlow, Fault::Stuck],
            &[Fault::SpinUpSlow, Fault::LinkLost],
            &[Fault::IdentifyAborted, Fault::LinkLost],
        ],
    ),
    // What makes everybody wait.
    (
        10,
        &[&[Fault::VerySlow], &[Fault::NeverEnds], &[Fault::LinkLostLong], &[Fault::LinkFlapping]],
    ),
    // Bad sectors. Most of them become good when they are written.
    (
        14,
        &[
            &[Fault::Uncorrectable],
            &[Fault::Uncorrectable],
            &[Fault::Uncorrectable],
            &[Fault::UncorrectableForGood],
            &[Fault::IdNotFound],
        ],
    ),
    // What takes the volatile cache away, and, now and then, the disk for some seconds.
    (6, &[&[Fault::BrownOut], &[Fault::PowerCut], &[Fault::BrownOut], &[Fault::Replug]]),
];

impl Plan {
    /// The plan for a seed and a disk's number, from `start` on.
    pub(super) const fn new(seed: u64, number: usize, start: Instant) -> Self {
        // Disks with the same seed are not to fail at the same moments.
        let mixed = seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { random: Random::new(mixed), next: start }.later()
    }

    const fn later(mut self) -> Self {
        let apart = Duration::from_millis(self.random.between(APART.0, APART.1));
        self.next = Instant::from_nanos(self.next.as_nanos() + apart.as_nanos() as u64);
        self
    }

    /// When the next faults are due.
    pub(super) const fn next_at(&self) -> Instant {
        self.next
    }

    /// The faults that are due now.
    pub(super) fn draw(&mut self) -> Together {
        let apart = Duration::from_millis(self.random.between(APART.0, APART.1));
        self.next = self.next + apart;
        let mut left = self.random.below(100);
        for (share, kinds) in MIX {
            if left < share {
                return self.random.pick::<Together>(kinds);
            }
            left -= share;
        }
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Cost;
    use std::collections::BTreeSet;

    #[test]
    fn the_same_seed_draws_the_same_faults_at_the_same_times() {
        let draw = |seed, number| {
            let mut plan = Plan::new(seed, number, Instant::ORIGIN);
            (0..50).map(|_| (plan.next_at(), plan.draw())).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, 0), draw(7, 0));
        assert_ne!(draw(7, 0), draw(8, 0));
        assert_ne!(draw(7, 0), draw(7, 1));
        assert!(draw(7, 0).is_sorted_by_key(|(at, _)| *at));
    }

    #[test]
    fn shares_are_of_a_hundred_and_nothing_is_lost_for_good() {
        assert_eq!(MIX.iter().map(|(share, _)| share).sum::<u64>(), 100);
        let all: BTreeSet<_> =
            MIX.iter().flat_map(|(_, kinds)| *kinds).copied().flatten().collect();
        assert!(all.iter().all(|fault| fault.cost() != Cost::Controller));
        for lost in [Fault::Unplug, Fault::ReplugOther, Fault::ReceivedStale] {
            assert!(!all.contains(&lost), "{lost}");
        }
    }
}
