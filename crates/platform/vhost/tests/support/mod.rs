//! Runs the driver of virtio disks over a socket.
#![allow(unreachable_pub, dead_code, reason = "shared by several tests")]

pub mod daemon;
pub mod peer;

use outboard_block::{
    BlockDriver, BlockError, Completion, Durability, Request, Tag, UnitId, UnitState,
};
use outboard_hw::dma::{DmaBuffer, SgList};
use outboard_linux::{InterruptSource, now};
use outboard_vhost_front::{BackEnd, VhostConfig, VhostInterrupts, VhostUser};
use outboard_virtio::{Blk, BlkConfig};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A disk, and what it takes to run its driver.
pub struct Rig {
    pub driver: Blk<VhostUser>,
    pub interrupts: VhostInterrupts,
    pub back_end: BackEnd,
    pub events: Vec<String>,
    pub done: Vec<Completion>,
    /// Whether interrupts are passed on to the driver.
    pub deaf: bool,
}

impl Rig {
    pub fn new(socket: &Path) -> Self {
        Self::with(VhostConfig::new(socket), BlkConfig::default())
    }

    pub fn with(vhost: VhostConfig, config: BlkConfig) -> Self {
        let (transport, interrupts, back_end) = VhostUser::attach(vhost).unwrap();
        let driver = Blk::new(transport, config).unwrap();
        let (events, done) = (Vec::new(), Vec::new());
        let mut rig = Self { driver, interrupts, back_end, events, done, deaf: false };
        rig.run_until(|rig| !matches!(rig.state(), UnitState::Starting | UnitState::Recovering));
        rig
    }

    pub fn state(&self) -> UnitState {
        self.driver.unit(UnitId(0)).unwrap().state
    }

    pub fn geometry(&self) -> outboard_block::Geometry {
        self.driver.unit(UnitId(0)).unwrap().geometry
    }

    /// One turn of an event loop.
    pub fn turn(&mut self) {
        let (driver, done) = (&mut self.driver, &mut self.done);
        if !self.deaf {
            self.interrupts.take(&mut |vector| driver.interrupt(vector));
        }
        driver.poll(now(), &mut |completion| done.push(completion));
        let events = &mut self.events;
        driver.drain_events(&mut |_, _, event| events.push(event.to_string()));
    }

    fn wait(&mut self) {
        let deadline = self.driver.next_deadline();
        let time = deadline.map_or(Duration::from_secs(1), |deadline| deadline.since(now()));
        // Whoever is deaf waits for the time alone.
        let interrupts: &dyn InterruptSource = if self.deaf { &() } else { &self.interrupts };
        interrupts.wait(time).unwrap();
    }

    pub fn run_until(&mut self, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        loop {
            self.turn();
            if condition(self) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "nothing came of it: {:#?}", self.events);
            self.wait();
        }
    }

    pub fn counter(&self, name: &str) -> u64 {
        let mut found = None;
        self.driver.counters(UnitId(0), &mut |counter, value| {
            found = found.or((counter == name).then_some(value));
        });
        found.unwrap_or_else(|| panic!("no counter {name}"))
    }

    pub fn buffer(&self, bytes: usize) -> DmaBuffer {
        self.driver.dma().allocate(bytes, &self.driver.constraints()).unwrap()
    }

    pub fn submit(&mut self, tag: u64, request: Request) {
        self.driver.submit(UnitId(0), Tag(tag), request).map_err(|r| r.reason).unwrap();
    }

    /// Kicks, and runs until so many requests have completed.
    pub fn finish(&mut self, count: usize) -> Vec<Completion> {
        self.driver.kick(now());
        self.run_until(|rig| rig.done.len() >= count);
        std::mem::take(&mut self.done)
    }

    pub fn one(&mut self, request: Request) -> Result<SgList, BlockError> {
        self.submit(1, request);
        let Completion { result, data, .. } = self.finish(1).pop().unwrap();
        result.map(|()| data)
    }

    /// A write of these bytes, whose memory begins within a page.
    pub fn write_of(&self, lba: u64, content: &[u8], durability: Durability) -> Request {
        let mut buffer = self.buffer(content.len() + 512);
        buffer.write_bytes(512, content);
        let sectors = content.len() as u64 / u64::from(self.geometry().sector_bytes);
        Request::write(lba, sectors, SgList::single(buffer, 512..512 + content.len()), durability)
    }

    pub fn read_of(&self, lba: u64, sectors: u64) -> Request {
        let bytes = sectors as usize * self.geometry().sector_bytes as usize;
        Request::read(lba, sectors, SgList::single(self.buffer(bytes), 0..bytes))
    }

    pub fn read(&mut self, lba: u64, sectors: u64) -> Result<Vec<u8>, BlockError> {
        let request = self.read_of(lba, sectors);
        let mut content = vec![0; request.data.bytes()];
        self.one(request)?.read_bytes(&mut content);
        Ok(content)
    }
}

/// Waits for something that another thread does.
pub fn until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "nothing came of it");
        std::thread::yield_now();
    }
}

/// Writes and reads all over a disk, some forty requests at a time; what the image has to hold
/// afterwards. `between` is called while requests are under way.
pub fn exercise(
    rig: &mut Rig,
    mut content: Vec<u8>,
    rounds: u64,
    mut between: impl FnMut(u64),
) -> Vec<u8> {
    let sector = rig.geometry().sector_bytes as usize;
    let sectors = (content.len() / sector) as u64;
    let mut random = Random(0x1234_5678_9abc_def1);
    for round in 0..rounds {
        let mut expected = Vec::new();
        let mut taken: Vec<std::ops::Range<u64>> = Vec::new();
        for tag in 0..40u64 {
            let count = 1 + random.below(if tag % 8 == 0 { 200 } else { 16 });
            let lba = random.below(sectors - count);
            // Requests under way at the same time are about different sectors.
            if taken.iter().any(|one| one.start < lba + count && lba < one.end) {
                continue;
            }
            taken.push(lba..lba + count);
            let place = lba as usize * sector..(lba + count) as usize * sector;
            let durability = if tag % 5 == 0 { Durability::Durable } else { Durability::Cached };
            let request = if random.below(2) == 0 {
                content[place.clone()].copy_from_slice(&noise(round << 32 | tag, place.len()));
                rig.write_of(lba, &content[place.clone()], durability)
            } else {
                rig.read_of(lba, count)
            };
            rig.submit(tag, request);
            expected.push((tag, place));
            if tag % 7 == 0 {
                rig.driver.kick(now());
            }
        }
        rig.driver.kick(now());
        between(round);
        for completion in rig.finish(expected.len()) {
            completion.result.unwrap();
            let found = expected.iter().position(|(tag, _)| Tag(*tag) == completion.tag);
            let (_, place) = expected.swap_remove(found.expect("each ends once"));
            let mut seen = vec![0; place.len()];
            completion.data.read_bytes(&mut seen);
            assert!(seen == content[place.clone()], "round {round}, {place:?}");
        }
        rig.one(Request::flush()).unwrap();
    }
    content
}

/// Numbers that look random, and are the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Bytes that look like noise, and are the same for the same seed.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let words = (0..bytes.div_ceil(8)).flat_map(|_| random.below(u64::MAX).to_le_bytes());
    words.take(bytes).collect()
}
