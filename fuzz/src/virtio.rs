//! A hostile virtio disk: the fuzzer is the device.
//!
//! The input is six bytes that say what device it is and how the driver is set up (see [`Setup`]),
//! and then steps of one byte and its operands (see [`Bench::step`]); what is missing is zero. A
//! device is plausible where the steps do not say otherwise, so that few bytes lead far.
//!
//! Required, whatever the device does: no panic; bounded work in each call; a deadline that lets
//! time pass; each request completes once; descriptors name memory that is allocated, and it comes
//! back; after `stop` the driver comes to rest in bounded time.

pub(crate) mod model;
mod rings;

use crate::input::{ADVANCE_MS, Input, MAX_POLLS, MAX_STEPS};
use crate::ledger::Ledger;
use crate::space::Space;
use model::{Handle, Model};
use outboard_block::manage::Management;
use outboard_block::{BlockDriver, Durability, Operation, Request, Room, UnitId};
use outboard_hw::Instant;
use outboard_hw::dma::{DmaSpace, SgList};
use outboard_virtio::spec::features::Features;
use outboard_virtio::{Blk, BlkConfig};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

/// Memory for rings and requests.
const ARENA_BYTES: usize = 8 << 20;
/// Polls until a driver that was told to stop must have stopped.
pub(crate) const MAX_LAST_POLLS: u32 = 20_000;

/// What a reset may take: some tens of looks at the device, which is what its steps can make it last.
pub(crate) const RESET_TIME: Duration = Duration::from_millis(50);

/// One device and its memory, for all inputs.
pub(crate) static HANDLE: LazyLock<Handle> = LazyLock::new(|| {
    let (space, view) = Space::new(ARENA_BYTES);
    Handle { model: Arc::new(Mutex::new(Model::new(view))), space: Arc::new(space) }
});

/// Runs the driver against the device that `input` describes.
pub fn virtio(input: &[u8]) {
    let mut input = Input(input);
    let handle = HANDLE.clone();
    handle.space.exhausted.store(false, Ordering::Relaxed);
    let setup = Setup::new(&mut input, &mut handle.model());
    let Ok(driver) = Blk::new(handle.clone(), setup.config) else { return };
    let mut bench = Bench { driver, handle, now: Instant::ORIGIN, requests: Ledger::new() };
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
    /// The device behaves, and the driver is stopped.
    Healed,
    /// The driver is dropped.
    Dropped,
    /// The driver is stopped, and the device stays as it is.
    Stopped,
    /// The device is gone, and the driver is stopped.
    Gone,
}

/// What the first six bytes say.
struct Setup {
    config: BlkConfig,
    /// The steps bring the driver up.
    by_hand: bool,
    end: End,
}

impl Setup {
    fn new(input: &mut Input<'_>, model: &mut Model) -> Self {
        let [general, rings, disk, sizes, segments, capacity] = [(); 6].map(|()| input.byte());
        model.reset(rings, disk, sizes, segments, capacity);
        model.legacy = general & 1 != 0;
        model.one_vector = general & 2 != 0;
        let config = BlkConfig {
            queues: 1 + u16::from(general >> 2 & 3),
            queue_entries: 16,
            segments: 6,
            without: if general & 0x10 == 0 { Features::empty() } else { Features::INDIRECT },
            request_time: Duration::from_secs(2),
            reset_time: RESET_TIME,
        };
        let end = match general >> 6 {
            0 => End::Healed,
            1 => End::Dropped,
            2 => End::Stopped,
            _ => End::Gone,
        };
        Self { config, by_hand: general & 0x20 != 0, end }
    }
}

/// The driver and all around it.
struct Bench {
    driver: Blk<Handle>,
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
        panic!("the driver wants to be polled over and over at {:?}: {:?}", self.now, self.driver);
    }

    fn kick(&mut self) {
        self.handle.model().accesses = 0;
        self.driver.kick(self.now);
    }

    /// The usual course: the device does all that it has, and says so.
    fn serve(&mut self, status: u8) {
        let vectors = self.handle.model().serve(status);
        (0..vectors).for_each(|vector| self.driver.interrupt(vector));
        self.poll();
    }

    /// Until the disk is ready, unless that takes long.
    fn boot(&mut self) {
        for _ in 0..3 {
            let deadline = self.poll();
            self.advance(deadline, Duration::ZERO);
            self.serve(0);
        }
    }

    /// To the next deadline, and at least by `least`.
    fn advance(&mut self, deadline: Option<Instant>, least: Duration) {
        let later = self.now + least;
        self.now = later.max(deadline.unwrap_or(later));
    }

    /// One step: its kind in the lower four bits of a byte, a small operand in the upper four.
    fn step(&mut self, input: &mut Input<'_>) {
        let code = input.byte();
        let small = code >> 4;
        match code & 0xf {
            0 => {
                self.advance(self.driver.next_deadline(), Duration::ZERO);
                self.poll();
            }
            1 => {
                self.now = self.now + Duration::from_millis(ADVANCE_MS[usize::from(small & 7)]);
                self.poll();
            }
            2 => {
                self.driver.interrupt(small.into());
                self.poll();
            }
            3 => self.driver.mask(small & 1 == 1),
            4 => self.kick(),
            5 => {
                let operand = input.byte();
                for _ in 0..=small & 3 {
                    let request = self.request(operand, small >> 2);
                    self.requests.submit(
                        &mut self.driver,
                        UnitId(u16::from(operand == 255)),
                        request,
                    );
                }
                self.kick();
            }
            6 => self.driver.stop(),
            7 => self.driver.drain_events(&mut |_, at, _| assert!(at <= self.now)),
            8 => self.serve(0),
            9 => self.serve(small),
            10 => self.handle.space.exhausted.store(small & 1 == 1, Ordering::Relaxed),
            _ => self.handle.model().step(code & 0xf, small, input),
        }
    }

    fn request(&self, operand: u8, pieces: u8) -> Request {
        let sector = self.driver.unit(UnitId(0)).map_or(512, |unit| unit.geometry.sector_bytes);
        let (lba, sectors) = (u64::from(operand >> 3), 1 + u64::from(pieces) * 2);
        let mut data = SgList::EMPTY;
        let bytes = sector as usize * sectors as usize;
        let operation = match operand & 7 {
            0..=2 => Operation::Read,
            3 => Operation::Write(Durability::Cached),
            4 => Operation::Write(Durability::Durable),
            5 => return Request::flush(),
            6 => {
                let all = [
                    Operation::Discard,
                    Operation::Discard,
                    Operation::WriteZeroes(Room::GiveBack),
                    Operation::SecureErase,
                ];
                return Request::clear(all[usize::from(pieces & 3)], lba, sectors * 8);
            }
            _ if pieces == 3 => return Request::manage(Management::ReadHealth),
            _ => return Request::manage(Management::SetWriteCache(pieces & 1 == 0)),
        };
        let each = bytes / (usize::from(pieces) + 1);
        for piece in 0..=usize::from(pieces) {
            let bytes = if piece == 0 { bytes - each * usize::from(pieces) } else { each };
            if let Ok(buffer) = self.driver.dma().allocate(bytes, &self.driver.constraints()) {
                data.push(buffer, 0..bytes);
            }
        }
        Request { operation, lba, sectors, data }
    }

    fn end(mut self, end: End) {
        match end {
            End::Healed => self.handle.model().heal(),
            End::Gone => self.handle.model().removed = true,
            End::Dropped | End::Stopped => {}
        }
        let stops = !matches!(end, End::Dropped);
        if stops {
            self.driver.stop();
            self.run_down();
            self.requests.assert_all_completed();
        }
        let Self { driver, handle, .. } = self;
        handle.model().accesses = 0;
        drop(driver);
        assert!(handle.model().was_told_to_reset(), "the device was left at work");
        let statistics = handle.space.statistics();
        assert_eq!((statistics.buffers, statistics.used_bytes), (0, 0), "memory was lost");
    }

    /// Until the driver is at rest.
    fn run_down(&mut self) {
        for _ in 0..MAX_LAST_POLLS {
            let deadline = self.poll();
            if self.driver.is_stopped() {
                return;
            }
            assert!(deadline.is_some(), "the driver waits for nothing: {:?}", self.driver);
            self.advance(deadline, Duration::ZERO);
        }
        panic!("the driver does not stop: {:?}", self.driver);
    }
}
