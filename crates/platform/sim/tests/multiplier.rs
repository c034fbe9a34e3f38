//! The AHCI driver with disks behind a port multiplier, in virtual time.

use core::time::Duration;
use outboard_ahci::{AhciConfig, Hba};
use outboard_block::{
    BlockDriver, BlockError, Completion, Durability, Request, Tag, UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, Constraints, DeviceView, DmaSpace, SgList};
use outboard_linux::SharedMemory;
use outboard_sim::disk::{Disk, DiskConfig, Mishap};
use outboard_sim::hba::{HbaConfig, HbaModel};
use outboard_sim::{Fault, Multiplier, MultiplierConfig, Random, SimDevice};
use std::collections::BTreeMap;

/// Sectors of each disk.
const SECTORS: u64 = 4096;
/// Disks behind the multiplier.
const DISKS: u8 = 5;
/// The port of the HBA that it is at.
const PORT: u8 = 1;

/// How the HBA switches between devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switching {
    Command,
    Fis,
}

const BOTH: [Switching; 2] = [Switching::Command, Switching::Fis];

fn unit(disk: u8) -> UnitId {
    UnitId(u16::from(PORT) + 32 * u16::from(disk))
}

fn disk(number: u8) -> Box<Disk> {
    let mut config = DiskConfig::modern(SECTORS);
    config.serial = format!("BEHIND{number}");
    Box::new(Disk::new(config))
}

/// How a request has ended: its result, its memory, and when.
type Ended = (Result<(), BlockError>, Vec<u8>, Instant);

/// A driver, the HBA's model with a multiplier, and what has come of requests.
struct Bench {
    device: SimDevice,
    driver: Hba<SimDevice>,
    arena: Arena,
    now: Instant,
    next_tag: u64,
    ended: BTreeMap<u64, Ended>,
    _memory: std::sync::Arc<SharedMemory>,
}

impl Bench {
    fn new(switching: Switching) -> Self {
        Self::with(switching, |multiplier| {
            (0..DISKS).fold(multiplier, |multiplier, number| multiplier.with(number, disk(number)))
        })
    }

    fn with(switching: Switching, furnish: impl FnOnce(Multiplier) -> Multiplier) -> Self {
        let (memory, arena) = SharedMemory::for_model("multiplier", 64 << 20).unwrap();
        let mut config = HbaConfig::new(2);
        config.capabilities = config
            .capabilities
            .with_port_multiplier(true)
            .with_notification(true)
            .with_fis_switching(switching == Switching::Fis);
        let mut hba = HbaModel::new(config, DeviceView::new(arena.clone()), Random::new(7));
        hba.trace().start();
        hba.attach(PORT, Box::new(furnish(Multiplier::new(MultiplierConfig::new(DISKS)))));
        let device = SimDevice::new(hba, arena.clone());
        let driver = Hba::new(device.clone(), AhciConfig::default()).unwrap();
        let now = Instant::from_nanos(1);
        let (next_tag, ended) = (0, BTreeMap::new());
        Self { device, driver, arena, now, next_tag, ended, _memory: memory }
    }

    /// Everything that happens at one instant.
    fn turn(&mut self) {
        let interrupt = {
            let mut hba = self.device.hba();
            hba.advance(self.now);
            hba.take_interrupt()
        };
        if interrupt {
            self.driver.interrupt(0);
        }
        let (ended, now) = (&mut self.ended, self.now);
        self.driver.poll(self.now, &mut |completion: Completion| {
            let mut bytes = Vec::new();
            for buffer in completion.data.into_buffers() {
                let start = bytes.len();
                bytes.resize(start + buffer.len(), 0);
                buffer.read_bytes(0, &mut bytes[start..]);
            }
            let before = ended.insert(completion.tag.0, (completion.result, bytes, now));
            assert!(before.is_none(), "request {} has ended twice", completion.tag.0);
        });
        self.driver.kick(self.now);
        let device = &self.device;
        self.driver.drain_events(&mut |unit, at, what| {
            device.hba().trace().note(at, format_args!("driver: unit {}: {what}", unit.0));
        });
        let violations = self.device.hba().violations().to_vec();
        if !violations.is_empty() {
            self.fail(&format!("{violations:?}"));
        }
    }

    fn fail(&mut self, what: &str) -> ! {
        let trace = self.device.hba().trace().take();
        let last = &trace[trace.len().saturating_sub(60)..];
        panic!("{:?}: {what}\n{}", self.now, last.join("\n"));
    }

    /// Lets time pass until something holds.
    fn until(&mut self, what: &str, most: Duration, mut holds: impl FnMut(&mut Self) -> bool) {
        let end = self.now + most;
        let mut turns = 0;
        loop {
            self.turn();
            if holds(self) {
                return;
            }
            turns += 1;
            let next = outboard_hw::time::earlier(
                self.driver.next_deadline(),
                self.device.hba().next_event(),
            );
            let Some(next) = next else { self.fail(&format!("{what}: nothing is to be done")) };
            self.now = self.now.max(next) + Duration::from_nanos(500);
            if self.now.reached(end) || turns > 3_000_000 {
                self.fail(&format!("{what}: not after {most:?}"));
            }
        }
    }

    fn state(&self, disk: u8) -> UnitState {
        self.driver.unit(unit(disk)).unwrap().state
    }

    fn all_ready(&mut self) {
        self.until("all disks are ready", Duration::from_secs(60), |bench| {
            (0..DISKS).all(|disk| bench.state(disk) == UnitState::Ready)
        });
    }

    fn submit(&mut self, disk: u8, request: Request) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.driver.submit(unit(disk), Tag(tag), request).unwrap();
        tag
    }

    fn memory(&self, data: &[u8]) -> SgList {
        let mut buffer = self.arena.allocate(data.len(), &Constraints::NONE.aligned(2)).unwrap();
        buffer.write_bytes(0, data);
        let mut list = SgList::EMPTY;
        list.push(buffer, 0..data.len());
        list
    }

    fn write(&mut self, disk: u8, lba: u64, round: u8) -> u64 {
        let data = self.memory(&content(disk, lba, round));
        self.submit(disk, Request::write(lba, 1, data, Durability::Cached))
    }

    fn read(&mut self, disk: u8, lba: u64) -> u64 {
        let data = self.memory(&[0; 512]);
        self.submit(disk, Request::read(lba, 1, data))
    }

    fn all_end(&mut self, tags: &[u64], most: Duration) {
        self.until("all requests end", most, |bench| {
            tags.iter().all(|tag| bench.ended.contains_key(tag))
        });
    }

    fn disk(&self, number: u8, change: impl FnOnce(&mut Disk)) {
        let mut hba = self.device.hba();
        let device = hba.device_behind(PORT, number).unwrap();
        change(device.as_any().downcast_mut().unwrap());
    }

    fn counter(&self, disk: u8, wanted: &str) -> u64 {
        let mut found = 0;
        self.driver.counters(unit(disk), &mut |name, value| {
            if name == wanted {
                found = value;
            }
        });
        found
    }

    fn stops(mut self) {
        self.driver.stop();
        self.until("the driver stops", Duration::from_secs(60), |bench| bench.driver.is_stopped());
        let Self { driver, arena, .. } = self;
        drop(driver);
        assert_eq!(arena.statistics().buffers, 0, "memory that did not come back");
    }
}

/// What a sector holds.
fn content(disk: u8, lba: u64, round: u8) -> [u8; 512] {
    core::array::from_fn(|index| (index as u8) ^ disk.wrapping_mul(41) ^ (lba as u8) ^ round)
}

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

#[test]
fn a_device_that_does_not_answer_its_first_reset_is_found() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        for _ in 0..2 {
            bench.device.hba().inject(PORT, Fault::ComresetIgnored);
        }
        bench.all_ready();
        assert_eq!(bench.device.hba().counts().of(Fault::ComresetIgnored), 2);
        bench.stops();
    }
}

#[test]
fn a_multiplier_that_starts_anew_while_the_engine_stops_is_looked_at_before_it_is_used() {
    for switching in BOTH {
        for _ in 0..8 {
            let mut bench = Bench::new(switching);
            bench.all_ready();
            for fault in [Fault::RegisterAborted, Fault::EngineSlow, Fault::InterruptsStop] {
                bench.device.hba().inject(PORT, fault);
            }
            bench.until("the engine is to stop", Duration::from_secs(9), |bench| {
                bench.device.hba().counts().of(Fault::EngineSlow) == 1
            });
            bench.device.hba().inject(PORT, Fault::MultiplierRestart);
            // What is done too early is a violation, which the model notices.
            let tags: Vec<_> = (0..DISKS).map(|disk| bench.write(disk, 0, 1)).collect();
            bench.all_end(&tags, Duration::from_secs(60));
            assert!(tags.iter().all(|tag| bench.ended[tag].0.is_ok()));
            bench.stops();
        }
    }
}

#[test]
fn a_device_that_waits_for_neighbours_that_hang_is_not_taken_for_gone() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        bench.device.hba().unplug_behind(PORT, 1);
        bench.until("it is gone", Duration::from_secs(60), |bench| {
            bench.state(1) == UnitState::Absent
        });
        for _ in 0..2 {
            bench.device.hba().inject(PORT, Fault::SpinUpNever);
        }
        bench.device.hba().replug_behind(PORT, 1);
        bench.until("it was reset in vain", Duration::from_secs(9), |bench| {
            let struck = bench.device.hba().counts().of(Fault::SpinUpNever);
            struck == 2 && bench.state(1) == UnitState::Starting
        });
        let hanging = [0, 2, 3].map(|disk| {
            bench.disk(disk, |disk| disk.script(None, 1, Mishap::Hang));
            bench.read(disk, 0)
        });
        bench.until("it is ready", Duration::from_secs(150), |bench| match bench.state(1) {
            UnitState::Starting => false,
            UnitState::Ready => true,
            other => bench.fail(&format!("{switching:?}: it is {other}")),
        });
        bench.all_end(&hanging, Duration::from_secs(150));
        bench.stops();
    }
}

#[test]
fn a_device_whose_power_was_lost_while_a_neighbour_kept_the_link_tells_it() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        let write = bench.write(1, 7, 1);
        bench.all_end(&[write], Duration::from_secs(2));
        // Nothing can be asked of the multiplier while this one is waited for.
        bench.disk(1, |disk| disk.script(None, 1, Mishap::Hang));
        let hangs = bench.read(1, 9);
        let soon = bench.now + Duration::from_millis(100);
        bench.until("it hangs", Duration::from_secs(2), |bench| bench.now.reached(soon));
        bench.device.hba().unplug_behind(PORT, 1);
        bench.device.hba().replug_behind(PORT, 1);
        bench.all_end(&[hangs], Duration::from_secs(90));
        assert_eq!(bench.ended[&hangs].0, Ok(()));
        let flush = bench.submit(1, Request::flush());
        bench.all_end(&[flush], Duration::from_secs(30));
        assert_eq!(bench.ended[&flush].0, Err(BlockError::CacheLost), "{switching:?}");
        bench.stops();
    }
}

#[test]
fn what_ended_before_the_multiplier_started_anew_is_not_taken_for_failed() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        bench.device.hba().inject(PORT, Fault::InterruptsStop);
        // Alone each, so that the status of their devices decides.
        let flushes: Vec<_> = (0..DISKS).map(|disk| bench.submit(disk, Request::flush())).collect();
        bench.turn();
        let later = bench.now + Duration::from_micros(800);
        bench.device.hba().advance(later);
        bench.now = later;
        bench.device.hba().inject(PORT, Fault::MultiplierRestart);
        bench.all_end(&flushes, Duration::from_secs(60));
        assert!(flushes.iter().all(|tag| bench.ended[tag].0 == Ok(())), "{switching:?}");
        bench.stops();
    }
}

#[test]
fn commands_that_the_hba_keeps_when_the_multiplier_is_lost_are_not_mixed_with_others() {
    for switching in BOTH {
        let mut bench = Bench::new(switching);
        bench.all_ready();
        for lba in 0..8 {
            bench.disk(2, |disk| disk.script(None, 8, Mishap::Slow(Duration::from_secs(1))));
            bench.read(2, lba);
        }
        bench.turn();
        bench.device.hba().inject(PORT, Fault::ActiveKept);
        bench.device.hba().inject(PORT, Fault::MultiplierRestart);
        let tags: Vec<_> = (0..8).collect();
        // Commands of two devices at once are a violation, which the model notices.
        bench.all_end(&tags, Duration::from_secs(60));
        assert!(tags.iter().all(|tag| bench.ended[tag].0.is_ok()));
        bench.stops();
    }
}

#[test]
fn the_driver_stops_whenever_it_is_told_to_and_whatever_it_has_found_by_then() {
    for switching in BOTH {
        for after_us in (0..20_000).step_by(500).chain([100_000, 115_000, 130_000]) {
            let mut bench = Bench::new(switching);
            let then = bench.now + Duration::from_micros(after_us);
            bench.until("it is time", Duration::from_secs(1), |bench| bench.now.reached(then));
            bench.stops();
        }
    }
}
