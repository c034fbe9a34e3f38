//! The driver against the model, from seeds.

use outboard_hw::dma::{Arena, DmaSpace};
use outboard_linux::SharedMemory;
use outboard_sim::Fault;
use outboard_sim::fault::{Cost, FaultCounts};
use outboard_sim::trial::campaign::Campaign;
use outboard_sim::trial::{self, TrialOptions};

fn arena() -> Arena {
    SharedMemory::for_model("trials", trial::MEMORY_BYTES).unwrap().1
}

fn campaign(first: u64, seeds: u64, only: &[Fault]) -> Campaign {
    let options = TrialOptions { only: only.to_vec(), ..TrialOptions::default() };
    Campaign { first, seeds, time: None, jobs: None, options }
}

#[test]
fn no_seed_violates_anything() {
    let totals = campaign(0, 150, &[]).run(&|_| true).unwrap();
    assert_eq!(totals.trials, 150);
    let failures: Vec<_> = totals.failures.iter().map(|f| (f.seed, &f.violations)).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(totals.good > 10_000 && totals.faults.total() > 500, "{totals:?}");
}

#[test]
fn the_same_seed_is_the_same_trial() {
    let arena = arena();
    let options = TrialOptions::<Fault>::new(true, Vec::new());
    for seed in [3, 8, 21] {
        let (first, again) =
            (trial::run(seed, &arena, &options), trial::run(seed, &arena, &options));
        assert!(first.trace.len() > 100);
        assert_eq!(first.trace, again.trace);
        assert_eq!(first.faults, again.faults);
    }
}

/// What a fault needs to come about: a log is read only after a queued command has failed.
fn occasion(fault: Fault) -> &'static [Fault] {
    match fault {
        Fault::LogAborted
        | Fault::LogDamaged
        | Fault::LogNamesStranger
        | Fault::LogNamesInnocent
        | Fault::LogNotQueued
        | Fault::LogNeverEnds => &[Fault::Uncorrectable],
        Fault::IssueKept
        | Fault::ActiveKept
        | Fault::EngineStuck
        | Fault::EngineSlow
        | Fault::ComresetIgnored
        | Fault::LinkSlow
        | Fault::PresenceOnly
        | Fault::ResetSlow
        | Fault::ResetNever => &[Fault::InterfaceFatal],
        _ => &[],
    }
}

#[test]
fn every_fault_strikes_and_alone_costs_no_more_than_it_may() {
    let arena = arena();
    for fault in Fault::ALL {
        let only = [&[*fault], occasion(*fault)].concat();
        let options = TrialOptions { only, ..TrialOptions::default() };
        let (mut counts, mut failed) = (FaultCounts::default(), 0);
        for seed in 0..12 {
            let report = trial::run(seed, &arena, &options);
            assert!(report.violations.is_empty(), "{fault}, {seed}: {:#?}", report.violations);
            counts.merge(&report.faults);
            failed += report.failed;
        }
        assert!(counts.of(*fault) > 0, "{fault} never strikes");
        if fault.cost() == Cost::Nothing && occasion(*fault).is_empty() {
            assert_eq!(failed, 0, "{fault} costs only time");
        }
        assert_eq!(arena.statistics().buffers, 0);
    }
}
