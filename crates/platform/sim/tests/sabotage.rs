//! That the oracle notices: a driver without a piece of its recovery must fail for some seed.
#![allow(
    clippy::print_stdout,
    reason = "what was noticed, and when, for whoever asks with --nocapture"
)]
#![cfg(feature = "sabotage")]

use outboard_ahci::Sabotage;
use outboard_sim::trial::campaign::Campaign;
use outboard_sim::trial::{TrialOptions, Tried};
use outboard_sim::{Fault, VirtioFault};
use outboard_virtio::Sabotage as VirtioSabotage;

/// Seeds that are tried for each piece, and the first of them.
const SEEDS: u64 = 1500;

/// The faults that call for a piece, where they are rare among all.
fn faults(piece: Sabotage) -> Vec<Fault> {
    match piece {
        Sabotage::Identity => vec![Fault::ReplugOther, Fault::BrownOut],
        Sabotage::Isolation => vec![Fault::UncorrectableForGood, Fault::LogAborted],
        Sabotage::CutOffs => vec![Fault::BrownOut, Fault::Aborted, Fault::LogNeverEnds],
        Sabotage::LogChecks => vec![Fault::Uncorrectable, Fault::LogNamesInnocent],
        _ => Vec::new(),
    }
}

/// Likewise of a virtio disk.
fn virtio_faults(piece: VirtioSabotage) -> Vec<VirtioFault> {
    match piece {
        VirtioSabotage::Identity => vec![VirtioFault::OtherDisk, VirtioFault::NeedsReset],
        VirtioSabotage::Ownership => vec![VirtioFault::UsedIdFree, VirtioFault::WorksDuringReset],
        VirtioSabotage::DurableWrites | VirtioSabotage::CacheDoubt | VirtioSabotage::Losses => {
            vec![VirtioFault::PowerCut]
        }
        VirtioSabotage::Wishes => vec![VirtioFault::NeedsReset, VirtioFault::NeedsResetAgain],
        VirtioSabotage::Changes => vec![VirtioFault::CacheToggled, VirtioFault::PowerCut],
        _ => Vec::new(),
    }
}

fn first_failure<F: Tried>(
    sabotage: Option<F::Sabotage>,
    only: Vec<F>,
    seeds: u64,
) -> Option<(u64, String)> {
    let options = TrialOptions { sabotage, only, ..TrialOptions::default() };
    let campaign = Campaign { first: 0, seeds, time: None, jobs: None, options };
    let totals = campaign.run(&|totals| totals.violations == 0).unwrap();
    let failure = totals.failures.first()?;
    Some((failure.seed, failure.violations[0].clone()))
}

/// Each piece has to be missed by some seed.
fn check<F: Tried>(all: &[F::Sabotage], faults: impl Fn(F::Sabotage) -> Vec<F>) {
    assert!(all.len() >= 10);
    assert_eq!(first_failure::<F>(None, Vec::new(), 300), None, "the whole driver passes");
    let mut unnoticed = Vec::new();
    for piece in all {
        match first_failure(Some(*piece), faults(*piece), SEEDS) {
            Some((seed, violation)) => println!("{piece:?}: seed {seed}: {violation}"),
            None => unnoticed.push(piece),
        }
    }
    assert!(unnoticed.is_empty(), "nobody notices that these are missing: {unnoticed:?}");
}

#[test]
fn a_driver_without_a_piece_of_its_recovery_is_found_out() {
    check(Sabotage::ALL, faults);
}

#[test]
fn a_driver_of_virtio_disks_without_a_piece_of_its_recovery_is_found_out() {
    check(VirtioSabotage::ALL, virtio_faults);
}
