//! The driver of virtio disks against the model, from seeds.

use outboard_hw::dma::DmaSpace;
use outboard_linux::SharedMemory;
use outboard_sim::VirtioFault;
use outboard_sim::fault::{Cost, FaultCounts};
use outboard_sim::trial::campaign::Campaign;
use outboard_sim::trial::{self, TrialOptions};

#[test]
fn no_seed_violates_anything() {
    let options = TrialOptions::<VirtioFault>::default();
    let campaign = Campaign { first: 0, seeds: 400, time: None, jobs: None, options };
    let totals = campaign.run(&|_| true).unwrap();
    assert_eq!(totals.trials, 400);
    let failures: Vec<_> = totals.failures.iter().map(|f| (f.seed, &f.violations)).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(totals.good > 20_000 && totals.faults.total() > 2_000, "{totals:?}");
}

#[test]
fn the_same_seed_is_the_same_trial() {
    let arena = SharedMemory::for_model("trials", trial::MEMORY_BYTES).unwrap().1;
    let options = TrialOptions::<VirtioFault>::new(true, Vec::new());
    for seed in [3, 4, 21] {
        let (first, again) =
            (trial::run(seed, &arena, &options), trial::run(seed, &arena, &options));
        assert!(first.trace.len() > 100);
        assert_eq!(first.trace, again.trace);
        assert_eq!(first.faults, again.faults);
    }
}

/// Seeds that were held against the driver once: three for what a device that broke its order wrote
/// into a packed ring afterwards, two for attempts that were spoilt by what struck before a request
/// was submitted.
#[test]
fn the_driver_is_not_blamed_for_what_a_device_does() {
    let arena = SharedMemory::for_model("blamed", trial::MEMORY_BYTES).unwrap().1;
    for seed in [4_011_620, 4_017_342, 4_046_542, 4_128_119, 4_128_768, 5_106_006] {
        let report = trial::run::<VirtioFault>(seed, &arena, &TrialOptions::default());
        assert!(report.violations.is_empty(), "{seed}: {:#?}", report.violations);
    }
}

#[test]
fn a_ring_survives_what_comes_too_early() {
    let options = TrialOptions::new(false, vec![VirtioFault::OutOfOrder]);
    let campaign = Campaign { first: 2000, seeds: 400, time: None, jobs: None, options };
    let totals = campaign.run(&|_| true).unwrap();
    let failures: Vec<_> = totals.failures.iter().map(|f| (f.seed, &f.violations)).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(totals.faults.total() > 400, "{totals:?}");
}

/// What a fault needs to come about: what strikes during a reset needs one.
fn occasion(fault: VirtioFault) -> &'static [VirtioFault] {
    match fault {
        VirtioFault::ResetSlow
        | VirtioFault::ResetNever
        | VirtioFault::WorksDuringReset
        | VirtioFault::FeaturesRefused
        | VirtioFault::FeaturesRefusedForGood
        | VirtioFault::FeatureWithdrawn
        | VirtioFault::FeaturesAdded
        | VirtioFault::VersionMissing
        | VirtioFault::QueueSizeZero
        | VirtioFault::QueueSizeOdd
        | VirtioFault::QueueSizeHuge
        | VirtioFault::QueuesShrink
        | VirtioFault::EnableIgnored
        | VirtioFault::NotifyOffsetBeyond
        | VirtioFault::VectorRefused
        | VirtioFault::ReadOnlyAppears
        | VirtioFault::SerialFails
        | VirtioFault::SerialNeverEnds
        | VirtioFault::OtherDisk => &[VirtioFault::NeedsReset],
        VirtioFault::QueueResetSlow
        | VirtioFault::QueueResetNever
        | VirtioFault::QueueResetKeeps => &[VirtioFault::UsedLengthHuge],
        _ => &[],
    }
}

#[test]
fn every_fault_strikes_and_alone_costs_no_more_than_it_may() {
    let arena = SharedMemory::for_model("faults", trial::MEMORY_BYTES).unwrap().1;
    for fault in VirtioFault::ALL {
        let only = [&[*fault], occasion(*fault)].concat();
        let options = TrialOptions::new(false, only);
        let (mut counts, mut failed) = (FaultCounts::default(), 0);
        for seed in 0..16 {
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
