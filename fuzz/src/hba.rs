//! A hostile AHCI controller: the fuzzer is the HBA, and what is behind it.
//!
//! The input is seven bytes that say what HBA it is and how the driver is set up (see [`Setup`]),
//! and then steps of one byte and its operands (see [`Bench::step`] and `steps.rs`); what is
//! missing is zero. An HBA is plausible where the steps do not say otherwise, so that few bytes
//! lead far.
//!
//! Required, whatever the HBA does: no panic; bounded work in each call; a deadline that lets time
//! pass; each request completes once; memory is handed over only while it is allocated, and comes
//! back; after `stop` the driver comes to rest in bounded time.

mod device;
mod disk;
mod model;
mod requests;
mod steps;

use crate::input::{ADVANCE_MS, Input, MAX_POLLS, MAX_STEPS};
use crate::ledger::Ledger;
use crate::space::Space;
use device::Handle;
use model::{Model, PORTS};
use outboard_ahci::spec::registers::{Capabilities, Capabilities2};
use outboard_ahci::{AhciConfig, Hba, Reaping, Timeouts};
use outboard_block::{BlockDriver, UnitId, UnitState};
use outboard_hw::Instant;
use outboard_hw::dma::DmaSpace;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

/// Memory for the ports and for all requests.
const ARENA_BYTES: usize = 32 << 20;
/// Polls until a driver that was told to stop must have stopped, and how much time may pass.
const MAX_LAST_POLLS: u32 = 4000;
/// After so many of them time passes faster.
const PATIENT_POLLS: u32 = 1000;
/// Erasing a disk may take a fortnight, if the disk says so.
const MAX_LAST_TIME: Duration = Duration::from_secs(100 * 24 * 3600);

/// One HBA and its memory, for all inputs.
static HANDLE: LazyLock<Handle> = LazyLock::new(|| {
    let (space, view) = Space::new(ARENA_BYTES);
    Handle { model: Arc::new(Mutex::new(Model::new(view))), space: Arc::new(space) }
});

/// Runs the driver against the HBA that `input` describes.
pub fn hba(input: &[u8]) {
    let mut input = Input(input);
    let handle = HANDLE.clone();
    handle.space.exhausted.store(false, Ordering::Relaxed);
    let setup = Setup::new(&mut input, &mut handle.model());
    let Ok(driver) = Hba::new(handle.clone(), setup.config) else {
        return assert!(!handle.model().bus_master, "a driver that failed left the HBA on the bus");
    };
    let requests = Ledger::new();
    let mut bench = Bench { driver, handle, now: Instant::ORIGIN, requests };
    if !setup.by_hand {
        bench.boot();
    }
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        bench.step(&mut input);
    }
    bench.end(setup.end);
}

/// How it all ends.
enum End {
    /// The HBA behaves, and the driver is stopped.
    Healed,
    /// The driver is dropped.
    Dropped,
    /// The driver is stopped, and the HBA stays as it is.
    Stopped,
    /// The HBA is gone, and the driver is stopped.
    Gone,
}

/// What the first seven bytes say.
struct Setup {
    config: AhciConfig,
    /// The steps bring the driver up.
    by_hand: bool,
    end: End,
}

impl Setup {
    fn new(input: &mut Input<'_>, model: &mut Model) -> Self {
        let [general, features, slots, more, stuck] = [(); 5].map(|()| input.byte());
        let disks = [(); PORTS].map(|()| input.byte());
        let has = |byte: u8, bit: u32| byte >> bit & 1 == 1;
        let ports = if has(general, 0) { 2 } else { 1 };
        for (disk, byte) in model.disks.iter_mut().zip(disks).take(ports) {
            disk.reset(byte);
        }
        let capabilities = Capabilities::new()
            .with_ports_minus_one(ports as u8 - 1)
            .with_slots_minus_one(31 - (slots & 0x1f))
            .with_ahci_only(!has(features, 0))
            .with_ncq(!has(features, 1))
            .with_wide(!has(features, 2))
            .with_staggered(has(features, 3))
            .with_port_multiplier(has(features, 4))
            .with_fis_switching(has(features, 5))
            .with_notification(has(features, 6))
            .with_presence_switch(has(features, 6))
            .with_command_list_override(!has(features, 7))
            .with_link_power(has(more, 1))
            .with_partial(has(more, 1))
            .with_slumber(has(more, 2))
            .with_enclosure(has(more, 3));
        let more_capabilities =
            Capabilities2::new().with_hand_off(has(more, 0)).with_device_sleep(has(more, 4));
        model.qemu = has(general, 3);
        let implemented = if has(more, 5) { 0 } else { (1 << ports) - 1 };
        model.reset(capabilities, more_capabilities, implemented);
        model.stuck = stuck;
        let timeouts = Timeouts {
            transfer: Duration::from_secs(1),
            flush: Duration::from_secs(2),
            discard: Duration::from_secs(2),
            spin_up: Duration::from_secs(1),
        };
        let config = AhciConfig {
            reaping: if has(general, 1) { Reaping::Polling } else { Reaping::Interrupts },
            timeouts,
            prdt_entries: 4,
            queuing: !has(general, 2),
            attempts: 4 - (slots >> 6),
        };
        let end = match general >> 5 & 3 {
            0 => End::Healed,
            1 => End::Dropped,
            2 => End::Stopped,
            _ => End::Gone,
        };
        Self { config, by_hand: has(general, 4), end }
    }
}

/// The driver and all around it.
struct Bench {
    driver: Hba<Handle>,
    handle: Handle,
    now: Instant,
    requests: Ledger,
}

impl Bench {
    /// One call of `poll`, and as many more as the driver asks for at this instant. Returns when
    /// the driver wants to be polled next.
    fn poll(&mut self) -> Option<Instant> {
        for _ in 0..MAX_POLLS {
            self.handle.model().accesses = 0;
            let requests = &mut self.requests;
            self.driver.poll(self.now, &mut |completion| requests.complete(completion));
            let deadline = self.driver.next_deadline();
            if !deadline.is_some_and(|deadline| self.now.reached(deadline)) {
                return deadline;
            }
        }
        self.tell();
        panic!("the driver wants to be polled over and over at {:?}", self.now);
    }

    /// Prints what has happened, for who reads of a failure.
    fn tell(&mut self) {
        eprintln!("{:?}", self.driver);
        self.driver.drain_events(&mut |unit, at, event| eprintln!("{unit:?} {at:?}: {event}"));
    }

    fn kick(&mut self) {
        self.handle.model().accesses = 0;
        self.driver.kick(self.now);
    }

    /// Until it is known what is at each port, unless that takes long.
    fn boot(&mut self) {
        for turn in 0..14 {
            let deadline = self.poll();
            let starting = |unit| {
                self.driver.unit(UnitId(unit)).is_some_and(|u| u.state == UnitState::Starting)
            };
            if !(0..PORTS as u16).any(starting) {
                return;
            }
            self.advance(deadline, Duration::from_millis(if turn < 6 { 0 } else { 1 << turn }));
        }
    }

    /// To the next deadline, and at least by `least`.
    fn advance(&mut self, deadline: Option<Instant>, least: Duration) {
        let later = self.now + least;
        self.now = later.max(deadline.unwrap_or(later));
    }

    /// One step: its kind in the lower five bits of a byte, a small operand in the upper three,
    /// whose lowest bit mostly is the port.
    fn step(&mut self, input: &mut Input<'_>) {
        let code = input.byte();
        let small = code >> 5;
        let port = usize::from(small & 1);
        match code & 0x1f {
            0 => {
                self.advance(self.driver.next_deadline(), Duration::ZERO);
                self.poll();
            }
            1 => {
                self.now = self.now + Duration::from_millis(ADVANCE_MS[usize::from(small)]);
                self.poll();
            }
            2 => {
                self.driver.interrupt(0);
                self.poll();
            }
            3 => {
                self.poll();
            }
            4 => self.kick(),
            kind @ 5..=9 => {
                requests::submit(&mut self.requests, kind, small, input, &mut self.driver);
                if small & 4 == 0 {
                    self.kick();
                }
            }
            10 => self.driver.stop(),
            11 => self.driver.drain_events(&mut |_, at, _| assert!(at <= self.now)),
            12 => {
                // The usual course: everything in flight ends, and says so.
                self.handle.model().execute_all(port);
                self.driver.interrupt(0);
                self.poll();
            }
            13 => {
                let exhausted = &self.handle.space.exhausted;
                exhausted.store(port == 1, Ordering::Relaxed);
            }
            _ => self.handle.model().step(code & 0x1f, small, input),
        }
    }

    fn end(mut self, end: End) {
        match end {
            End::Healed => self.handle.model().heal(),
            End::Gone => self.handle.model().removed = true,
            End::Dropped | End::Stopped => {}
        }
        if !matches!(end, End::Dropped) {
            self.driver.stop();
            self.run_down();
            self.requests.assert_all_completed();
        }
        let Self { driver, handle, .. } = self;
        handle.model().accesses = 0;
        drop(driver);
        assert!(!handle.model().bus_master, "the HBA was left on the bus");
        let statistics = handle.space.statistics();
        assert_eq!((statistics.buffers, statistics.used_bytes), (0, 0), "memory was lost");
    }

    /// Until the driver is at rest.
    fn run_down(&mut self) {
        let latest = self.now + MAX_LAST_TIME;
        for turn in 0..MAX_LAST_POLLS {
            let deadline = self.poll();
            if self.driver.is_stopped() {
                return;
            }
            assert!(deadline.is_some(), "the driver waits for nothing");
            // A caller may be late, and this one is, for states that look every millisecond; in the
            // end very late, for a disk that may take hours to erase itself and is looked at all
            // the while.
            let late = if turn < PATIENT_POLLS { 1 << (turn % 16).min(9) } else { 3_600_000 };
            self.advance(deadline, Duration::from_millis(late));
            assert!(self.now <= latest, "the driver takes too long to stop");
        }
        panic!("the driver does not stop");
    }
}
