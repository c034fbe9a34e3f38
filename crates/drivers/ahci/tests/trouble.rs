//! The driver against a model that makes trouble, in virtual time.

mod support;

use outboard_block::{BlockDriver, BlockError, Durability, FailedReason, UnitState};
use std::time::Duration;
use support::model::{Disk, Fault, ModelDevice};
use support::model_bench::{ALWAYS, ModelBench, UNCORRECTABLE, disk_with, good};

#[test]
fn the_log_names_the_culprit_and_the_innocent_are_issued_again() {
    let mut bench = ModelBench::new(vec![disk_with(&[(83, UNCORRECTABLE, ALWAYS)])]);
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            80 => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(83) })),
            _ => good(completion),
        }
    }
    assert_eq!(bench.happened("the command in slot 10 failed at sector 83"), 1);
    assert_eq!(bench.device.model().ports[0].resets, 0, "no reset was needed");
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn without_a_log_each_command_runs_alone_until_one_fails() {
    let mut disk = disk_with(&[(83, UNCORRECTABLE, ALWAYS), (200, UNCORRECTABLE, ALWAYS)]);
    disk.as_mut().unwrap().logs = false;
    let mut bench = ModelBench::new(vec![disk]);
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            80 => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(83) })),
            200 => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(200) })),
            _ => good(completion),
        }
    }
    bench.read_batch(0);
    assert_eq!(bench.happened("the command in slot"), 0);
}

#[test]
fn an_address_that_the_command_did_not_touch_is_not_believed() {
    let mut disk = disk_with(&[]);
    // ID not found, with the address of another command's sector.
    disk.as_mut().unwrap().faults.insert(5, (Fault::Error(0x10), ALWAYS));
    disk.as_mut().unwrap().queuing = false;
    let mut bench = ModelBench::new(vec![disk]);
    bench.submit(0, 0, 8);
    let result = bench.finish().pop().unwrap().result;
    assert_eq!(result, Err(BlockError::Media { lba: Some(5) }));
}

#[test]
fn damaged_transfers_are_repeated_up_to_a_limit() {
    for (errors, queuing) in [(3, true), (3, false), (50, true), (50, false)] {
        let mut disk = Disk::new(4096);
        (disk.crc_errors, disk.queuing) = (errors, queuing);
        let mut bench = ModelBench::new(vec![Some(disk)]);
        bench.submit(0, 0, 8);
        let completion = bench.finish().pop().unwrap();
        match errors {
            3 => good(completion),
            _ => assert_eq!(completion.result, Err(BlockError::Transport)),
        }
        assert_eq!(bench.state(0), UnitState::Ready);
    }
}

#[test]
fn a_command_that_never_ends_is_overtaken_by_a_port_reset() {
    let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Hang, 1)]), Some(Disk::new(512))]);
    let began = bench.now;
    bench.submit(1, 0, 1);
    bench.read_batch(0).into_iter().for_each(good);
    let took = bench.now.since(began);
    assert!((30..33).contains(&took.as_secs()), "{took:?}");
    assert_eq!(bench.device.model().ports[0].resets, 1);
    assert_eq!(bench.device.model().ports[1].resets, 0, "the other port goes on");
    assert_eq!(bench.device.model().resets, 1, "only the one at start-up");
}

#[test]
fn a_command_that_never_ends_however_often_fails_in_the_end() {
    let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Hang, ALWAYS)])]);
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            16 => assert_eq!(completion.result, Err(BlockError::Timeout)),
            _ => good(completion),
        }
    }
    assert_eq!(bench.state(0), UnitState::Ready);
}

#[test]
fn a_transfer_that_is_too_short_is_not_taken_for_success() {
    let mut disk = disk_with(&[(3, Fault::Short, 1)]);
    disk.as_mut().unwrap().queuing = false;
    let mut bench = ModelBench::new(vec![disk]);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.happened("too few"), 1);
}

#[test]
fn an_engine_that_does_not_stop_takes_a_reset_of_the_hba() {
    let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Hang, 1)]), Some(Disk::new(512))]);
    bench.device.model().ports[0].stuck = true;
    bench.submit(1, 0, 1);
    bench.read_batch(0).into_iter().for_each(good);
    assert_eq!(bench.device.model().resets, 2);
    assert_eq!((bench.state(0), bench.state(1)), (UnitState::Ready, UnitState::Ready));
    bench.submit(1, 7, 1);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn memory_stays_with_the_driver_until_the_hba_was_reset() {
    let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Hang, ALWAYS)])]);
    {
        let mut model = bench.device.model();
        (model.ports[0].stuck, model.reset_stuck) = (true, true);
    }
    bench.submit(0, 16, 8);
    let device = bench.device.clone();
    bench.driver.kick(bench.now);
    // The HBA does not come out of its reset, so it is taken off the bus before anything is given
    // back.
    bench.run_until(|bench| {
        let master = device.model().bus_master;
        assert!(bench.done.is_empty() || !master);
        !bench.done.is_empty()
    });
    assert_eq!(bench.done[0].result, Err(BlockError::Gone));
    assert!(bench.driver.is_stopped());
    assert_eq!(bench.state(0), UnitState::Failed(FailedReason::Removed));
}

#[test]
fn memory_is_out_of_reach_once_its_command_has_ended() {
    let mut bench = ModelBench::new(vec![disk_with(&[(83, UNCORRECTABLE, ALWAYS)])]);
    let reachable = |bench: &ModelBench| {
        let model = bench.device.model();
        (0..32).filter(|slot| model.reachable(0, *slot) > 0).collect::<Vec<_>>()
    };
    // A disk may ask the HBA for a transfer with any tag (SATA, DMA Setup FIS).
    bench.read_batch(0);
    assert_eq!(reachable(&bench), [0], "the log went to the driver's own memory");
    bench.submit(0, 0, 8);
    bench.finish();
    assert!(reachable(&bench).is_empty());
}

#[test]
fn a_disk_whose_link_does_not_come_back_is_gone_and_the_others_are_not() {
    let mut bench =
        ModelBench::new(vec![disk_with(&[(16, Fault::Hang, ALWAYS)]), Some(Disk::new(512))]);
    bench.device.model().ports[0].deaf = true;
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            16 => assert_eq!(completion.result, Err(BlockError::Gone)),
            _ => good(completion),
        }
    }
    assert_eq!(bench.state(0), UnitState::Absent);
    assert_eq!(bench.state(1), UnitState::Ready);
    bench.submit(1, 0, 1);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn another_disk_after_a_reset_is_not_taken_for_the_old_one() {
    let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Hang, 1)])]);
    let mut other = Disk::new(4096);
    other.serial = "OTHER";
    bench.device.model().ports[0].replacement = Some(other);
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            16 => assert_eq!(completion.result, Err(BlockError::Gone)),
            _ => good(completion),
        }
    }
    assert_eq!((bench.state(0), bench.generation(0)), (UnitState::Ready, 2));
}

#[test]
fn a_controller_that_is_pulled_out_fails_everything_at_once() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512)), Some(Disk::new(512)), None]);
    (0..4).for_each(|lba| bench.submit((lba % 2) as u16, lba, 1));
    bench.device.model().removed = true;
    let began = bench.now;
    let done = bench.finish();
    assert!(done.iter().all(|completion| completion.result == Err(BlockError::Gone)));
    assert!(bench.now.since(began) < Duration::from_secs(1));
    assert!(bench.driver.is_stopped() && bench.driver.next_deadline().is_none());
}

#[test]
fn the_bios_is_asked_to_let_go() {
    use outboard_ahci::spec::registers::HandOff;
    let device = ModelDevice::new(vec![Some(Disk::new(512))]);
    device.model().hand_off = Some(HandOff::new().with_bios_owned(true));
    let mut bench = ModelBench::starting(device);
    bench.run_until(|bench| bench.state(0) == UnitState::Ready);
    let hand_off = bench.device.model().hand_off.unwrap();
    assert!(hand_off.os_owned() && !hand_off.bios_owned());
}

#[test]
fn disks_spin_up_one_after_the_other_where_the_hba_asks_for_it() {
    let device = ModelDevice::new(vec![Some(Disk::new(512)), Some(Disk::new(512)), None]);
    {
        let mut model = device.model();
        model.capabilities = model.capabilities.with_staggered(true);
    }
    let mut bench = ModelBench::starting(device);
    bench.run_until(|bench| bench.state(2) == UnitState::Absent);
    assert_eq!((bench.state(0), bench.state(1)), (UnitState::Ready, UnitState::Ready));
    let order: Vec<_> = bench.events.iter().filter(|event| event.contains("link up")).collect();
    assert_eq!(order, ["0: link up, generation 1", "1: link up, generation 1"]);
}

#[test]
fn durable_writes_are_flushed_before_they_complete() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
    bench.submit_write(0, 9, 0x5a, Durability::Durable);
    bench.finish().pop().unwrap().result.unwrap();
    let model = bench.device.model();
    assert_eq!(model.ports[0].disk.as_ref().unwrap().content[9 * 512..10 * 512], [0x5a; 512]);
}

#[test]
fn dropping_the_driver_takes_the_device_off_the_bus_and_leaks_nothing() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512)), None]);
    bench.submit(0, 0, 8);
    bench.driver.kick(bench.now);
    let (device, dma) = (bench.device.clone(), bench.driver.dma());
    let resets = device.model().resets;
    drop(bench);
    assert_eq!(device.model().resets, resets + 1);
    assert!(!device.model().bus_master);
    assert_eq!(dma.statistics().buffers, 0);
}
