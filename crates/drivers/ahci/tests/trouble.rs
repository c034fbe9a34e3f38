//! The driver against a model that makes trouble, in virtual time.

mod support;

use outboard_ahci::{AhciConfig, Hba};
use outboard_block::{
    BlockDriver, BlockError, Completion, Durability, FailedReason, Request, Tag, UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, SgList};
use std::time::Duration;
use support::model::{Disk, Fault, ModelDevice};
use support::pattern;

struct Bench {
    device: ModelDevice,
    driver: Hba<ModelDevice>,
    now: Instant,
    done: Vec<Completion>,
    submitted: usize,
    events: Vec<String>,
}

impl Bench {
    fn starting(device: ModelDevice) -> Self {
        let driver = Hba::new(device.clone(), AhciConfig::default()).unwrap();
        let (done, events) = (Vec::new(), Vec::new());
        Self { device, driver, now: Instant::from_nanos(1), done, submitted: 0, events }
    }

    fn new(disks: Vec<Option<Disk>>) -> Self {
        let mut bench = Self::starting(ModelDevice::new(disks));
        bench.run_until(|bench| {
            let units = (0..32).filter_map(|unit| bench.driver.unit(UnitId(unit)));
            units.into_iter().all(|unit| unit.state != UnitState::Starting)
        });
        bench
    }

    fn state(&self, unit: u16) -> UnitState {
        self.driver.unit(UnitId(unit)).unwrap().state
    }

    /// Executes, polls, and lets time pass to the next deadline, for at most ten minutes.
    fn run_until(&mut self, condition: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(600);
        loop {
            if self.device.model().run() {
                self.driver.interrupt(0);
            }
            let done = &mut self.done;
            self.driver.poll(self.now, &mut |completion| done.push(completion));
            let events = &mut self.events;
            self.driver.drain_events(&mut |unit, _, event| {
                events.push(format!("{}: {event}", unit.0));
            });
            if condition(self) {
                return;
            }
            assert!(!self.now.reached(end), "nothing came of it: {:#?}", self.events);
            if let Some(deadline) = self.driver.next_deadline() {
                assert!(deadline.since(self.now) < Duration::from_secs(1), "nobody waits long");
                self.now = self.now.max(deadline);
            }
            self.now = self.now + Duration::from_micros(100);
        }
    }

    fn submit(&mut self, unit: u16, lba: u64, sectors: u64) {
        let bytes = sectors as usize * 512;
        let buffer = self.driver.dma().allocate(bytes, &Constraints::NONE.aligned(2)).unwrap();
        let request = Request::read(lba, sectors, SgList::single(buffer, 0..bytes));
        self.driver.submit(UnitId(unit), Tag(lba), request).unwrap();
        self.submitted += 1;
    }

    /// Runs until everything submitted has completed, and no port recovers any more.
    fn finish(&mut self) -> Vec<Completion> {
        self.driver.kick(self.now);
        self.run_until(|bench| {
            let mut units = (0..32).filter_map(|unit| bench.driver.unit(UnitId(unit)));
            bench.done.len() == bench.submitted
                && units.all(|unit| unit.state != UnitState::Recovering)
        });
        self.submitted = 0;
        let mut done = std::mem::take(&mut self.done);
        done.sort_by_key(|completion| completion.tag.0);
        done
    }

    /// Reads eight sectors at each multiple of eight, 32 at once.
    fn read_batch(&mut self, unit: u16) -> Vec<Completion> {
        (0..32).for_each(|slot| self.submit(unit, slot * 8, 8));
        self.finish()
    }

    fn happened(&self, what: &str) -> usize {
        self.events.iter().filter(|event| event.contains(what)).count()
    }
}

/// Checks that `completion` is a good read of what was asked for.
fn good(completion: Completion) {
    completion.result.unwrap();
    let lba = completion.tag.0;
    let bytes = completion.data.bytes();
    let mut content = vec![0; bytes];
    completion.data.into_buffers().next().unwrap().read_bytes(0, &mut content);
    assert_eq!(content, pattern(lba, bytes as u64 / 512));
}

fn disk_with(faults: &[(u64, Fault, u32)]) -> Option<Disk> {
    let mut disk = Disk::new(4096);
    disk.faults = faults.iter().map(|(sector, fault, times)| (*sector, (*fault, *times))).collect();
    Some(disk)
}

const UNCORRECTABLE: Fault = Fault::Error(0x40);
const ALWAYS: u32 = u32::MAX;

#[test]
fn the_log_names_the_culprit_and_the_innocent_are_issued_again() {
    let mut bench = Bench::new(vec![disk_with(&[(83, UNCORRECTABLE, ALWAYS)])]);
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
    let mut bench = Bench::new(vec![disk]);
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
    let mut bench = Bench::new(vec![disk]);
    bench.submit(0, 0, 8);
    let result = bench.finish().pop().unwrap().result;
    assert_eq!(result, Err(BlockError::Media { lba: Some(5) }));
}

#[test]
fn damaged_transfers_are_repeated_up_to_a_limit() {
    for (errors, queuing) in [(3, true), (3, false), (50, true), (50, false)] {
        let mut disk = Disk::new(4096);
        (disk.crc_errors, disk.queuing) = (errors, queuing);
        let mut bench = Bench::new(vec![Some(disk)]);
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
    let mut bench = Bench::new(vec![disk_with(&[(16, Fault::Hang, 1)]), Some(Disk::new(512))]);
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
    let mut bench = Bench::new(vec![disk_with(&[(16, Fault::Hang, ALWAYS)])]);
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
    let mut bench = Bench::new(vec![disk]);
    bench.submit(0, 0, 8);
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.happened("too few"), 1);
}

#[test]
fn an_engine_that_does_not_stop_takes_a_reset_of_the_hba() {
    let mut bench = Bench::new(vec![disk_with(&[(16, Fault::Hang, 1)]), Some(Disk::new(512))]);
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
    let mut bench = Bench::new(vec![disk_with(&[(16, Fault::Hang, ALWAYS)])]);
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
fn a_disk_whose_link_does_not_come_back_is_given_up_and_the_others_are_not() {
    let mut bench = Bench::new(vec![disk_with(&[(16, Fault::Hang, ALWAYS)]), Some(Disk::new(512))]);
    bench.device.model().ports[0].deaf = true;
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            16 => assert_eq!(completion.result, Err(BlockError::Gone)),
            _ => good(completion),
        }
    }
    assert_eq!(bench.state(0), UnitState::Failed(FailedReason::Removed));
    assert_eq!(bench.state(1), UnitState::Ready);
    bench.submit(1, 0, 1);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn another_disk_after_a_reset_is_not_taken_for_the_old_one() {
    let mut bench = Bench::new(vec![disk_with(&[(16, Fault::Hang, 1)])]);
    let mut other = Disk::new(4096);
    other.serial = "OTHER";
    bench.device.model().ports[0].replacement = Some(other);
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            16 => assert_eq!(completion.result, Err(BlockError::Gone)),
            _ => good(completion),
        }
    }
    assert_eq!(bench.state(0), UnitState::Failed(FailedReason::Changed));
}

#[test]
fn a_controller_that_is_pulled_out_fails_everything_at_once() {
    let mut bench = Bench::new(vec![Some(Disk::new(512)), Some(Disk::new(512)), None]);
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
    let mut bench = Bench::starting(device);
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
    let mut bench = Bench::starting(device);
    bench.run_until(|bench| bench.state(2) == UnitState::Absent);
    assert_eq!((bench.state(0), bench.state(1)), (UnitState::Ready, UnitState::Ready));
    let order: Vec<_> = bench.events.iter().filter(|event| event.contains("link up")).collect();
    assert_eq!(order, ["0: link up, generation 1", "1: link up, generation 1"]);
}

#[test]
fn durable_writes_are_flushed_before_they_complete() {
    let mut bench = Bench::new(vec![Some(Disk::new(512))]);
    let mut buffer = bench.driver.dma().allocate(512, &Constraints::NONE.aligned(2)).unwrap();
    buffer.fill(0..512, 0x5a);
    let data = SgList::single(buffer, 0..512);
    let request = Request::write(9, 1, data, Durability::Durable);
    bench.driver.submit(UnitId(0), Tag(9), request).unwrap();
    bench.submitted += 1;
    bench.finish().pop().unwrap().result.unwrap();
    let model = bench.device.model();
    assert_eq!(model.ports[0].disk.as_ref().unwrap().content[9 * 512..10 * 512], [0x5a; 512]);
}

#[test]
fn dropping_the_driver_takes_the_device_off_the_bus_and_leaks_nothing() {
    let mut bench = Bench::new(vec![Some(Disk::new(512)), None]);
    bench.submit(0, 0, 8);
    bench.driver.kick(bench.now);
    let (device, dma) = (bench.device.clone(), bench.driver.dma());
    let resets = device.model().resets;
    drop(bench);
    assert_eq!(device.model().resets, resets + 1);
    assert!(!device.model().bus_master);
    assert_eq!(dma.statistics().buffers, 0);
}
