//! The AHCI driver with disks behind a port multiplier, in virtual time.

mod bench;
mod trouble;

use bench::{BOTH, Bench, DISKS, PORT, SECTORS, Switching, content, disk, unit};
use core::time::Duration;
use outboard_block::{BlockDriver, BlockError, Request, UnitState};
use outboard_hw::dma::DmaSpace;
use outboard_sim::Fault;
use outboard_sim::disk::Mishap;

#[test]
fn all_disks_behind_a_multiplier_are_found() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        assert_eq!(bench.driver.unit_count(), 480);
        bench.all_ready();
        for number in 0..DISKS {
            let unit = bench.driver.unit(unit(number)).unwrap();
            assert_eq!(unit.identity.serial, format!("BEHIND{number}").as_str());
            assert_eq!(unit.geometry.sectors, SECTORS);
        }
        bench.stops();
    }
}

#[test]
fn all_disks_work_at_once_and_keep_their_data_apart() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        for round in 0..4 {
            let mut writes = Vec::new();
            for lba in 0..32 {
                writes.extend((0..DISKS).map(|disk| bench.write(disk, lba, round)));
            }
            bench.all_end(&writes, Duration::from_secs(10));
            for tag in &writes {
                assert_eq!(bench.ended[tag].0, Ok(()));
            }
            let flushes: Vec<_> =
                (0..DISKS).map(|disk| bench.submit(disk, Request::flush())).collect();
            let mut reads = Vec::new();
            for lba in 0..31 {
                for disk in 0..DISKS {
                    reads.push((disk, lba, bench.read(disk, lba)));
                }
            }
            bench.all_end(&flushes, Duration::from_secs(10));
            let tags: Vec<_> = reads.iter().map(|read| read.2).collect();
            bench.all_end(&tags, Duration::from_secs(10));
            for (disk, lba, tag) in reads {
                let (result, bytes, _) = &bench.ended[&tag];
                assert_eq!((*result, &bytes[..]), (Ok(()), &content(disk, lba, round)[..]));
            }
        }
        bench.stops();
    }
}

#[test]
fn a_bad_sector_of_one_disk_costs_the_others_nothing() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        bench.disk(2, |disk| disk.damage(5, outboard_sim::disk::Defect::Permanent));
        let began = bench.now;
        let bad = bench.read(2, 5);
        let mut good = Vec::new();
        for lba in 0..20 {
            good.extend((0..DISKS).map(|disk| bench.read(disk, 100 + lba)));
        }
        let all: Vec<_> = good.iter().copied().chain([bad]).collect();
        bench.all_end(&all, Duration::from_secs(30));
        assert_eq!(bench.ended[&bad].0, Err(BlockError::Media { lba: Some(5) }));
        for tag in &good {
            let (result, _, at) = &bench.ended[tag];
            assert_eq!(*result, Ok(()));
            assert!(at.since(began) < Duration::from_secs(2), "{:?}", at.since(began));
        }
        for disk in [0, 1, 3, 4] {
            assert_eq!(bench.counter(disk, "failed"), 0);
            assert_eq!(bench.counter(disk, "port-resets"), 0, "{switching:?}: disk {disk}");
        }
        bench.stops();
    }
}

#[test]
fn a_disk_that_hangs_is_reset_and_the_others_go_on() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        bench.disk(1, |disk| disk.script(None, 1, Mishap::Hang));
        let hangs = bench.read(1, 0);
        let others: Vec<_> = [0, 2, 3, 4].iter().map(|disk| bench.read(*disk, 9)).collect();
        let began = bench.now;
        let all: Vec<_> = others.iter().copied().chain([hangs]).collect();
        bench.all_end(&all, Duration::from_secs(90));
        assert!(all.iter().all(|tag| bench.ended[tag].0.is_ok()));
        assert!(bench.counter(1, "port-resets") >= 1);
        for (disk, tag) in [0, 2, 3, 4].iter().zip(&others) {
            assert_eq!(bench.counter(*disk, "timeouts"), 0);
            let took = bench.ended[tag].2.since(began);
            let most = if switching == Switching::Fis { 1 } else { 35 };
            assert!(took < Duration::from_secs(most), "{switching:?}: {took:?}");
        }
        bench.stops();
    }
}

#[test]
fn a_disk_that_is_pulled_out_fails_alone_and_may_come_back() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        let generation = bench.driver.unit(unit(3)).unwrap().generation;
        bench.device.hba().unplug_behind(PORT, 3);
        bench.until("it is gone", Duration::from_secs(60), |bench| {
            bench.state(3) == UnitState::Absent
        });
        let others: Vec<_> = [0, 1, 2, 4].iter().map(|disk| bench.read(*disk, 9)).collect();
        bench.all_end(&others, Duration::from_secs(2));
        assert!(others.iter().all(|tag| bench.ended[tag].0.is_ok()));
        bench.device.hba().replug_behind(PORT, 3);
        bench.all_ready();
        assert_ne!(bench.driver.unit(unit(3)).unwrap().generation, generation);
        let again = bench.read(3, 9);
        bench.all_end(&[again], Duration::from_secs(2));
        assert_eq!(bench.ended[&again].0, Ok(()));
        bench.stops();
    }
}

#[test]
fn a_disk_that_comes_to_an_empty_place_is_found() {
    for switching in BOTH {
        let mut bench = Bench::with(switching, |multiplier| multiplier.with(4, disk(4)));
        bench.until("the one disk is ready", Duration::from_secs(60), |bench| {
            bench.state(4) == UnitState::Ready
        });
        assert_eq!(bench.state(0), UnitState::Absent);
        let buffers = bench.arena.statistics().buffers;
        assert_eq!(buffers, 2, "an empty place has no memory");
        for number in 0..4 {
            bench.device.hba().attach_behind(PORT, number, disk(number));
        }
        bench.all_ready();
        bench.stops();
    }
}

#[test]
fn a_multiplier_that_starts_anew_costs_no_request() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        let mut tags = Vec::new();
        for lba in 0..8 {
            tags.extend((0..DISKS).map(|disk| bench.write(disk, lba, 1)));
        }
        bench.device.hba().inject(PORT, Fault::MultiplierRestart);
        bench.all_end(&tags, Duration::from_secs(60));
        assert!(tags.iter().all(|tag| bench.ended[tag].0.is_ok()));
        bench.stops();
    }
}

#[test]
fn faults_of_the_multiplier_cost_no_request() {
    for switching in BOTH {
        for fault in [
            Fault::NotificationSpurious,
            Fault::RegisterAborted,
            Fault::RegisterNeverEnds,
            Fault::WrongMultiplierPort,
            Fault::BehindLinkLost,
        ] {
            let mut bench = Bench::new(switching);
            bench.all_ready();
            bench.device.hba().inject(PORT, fault);
            for round in 0..3 {
                let mut tags = Vec::new();
                for lba in 0..8 {
                    tags.extend((0..DISKS).map(|disk| bench.write(disk, lba, round)));
                }
                bench.all_end(&tags, Duration::from_secs(120));
                assert!(tags.iter().all(|tag| bench.ended[tag].0.is_ok()), "{fault}");
                let second = bench.now + Duration::from_secs(2);
                bench.until("a while has passed", Duration::from_secs(9), |bench| {
                    bench.now.reached(second)
                });
            }
            assert_eq!(bench.device.hba().counts().of(fault), 1, "{fault}");
            bench.stops();
        }
    }
}
