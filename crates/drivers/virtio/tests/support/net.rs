//! Runs the driver of network cards against the lab.
#![allow(unreachable_pub, dead_code, reason = "shared by several tests")]

use outboard_hw::dma::{Constraints, DmaBuffer, DmaPool, SgList};
use outboard_lab::{Lab, LabDevice, LabInterrupts};
use outboard_linux::{InterruptSource, now};
use outboard_net::{
    Arrival, Completions, Frame, InterfaceState, NetDriver, NetError, Posted, RefusedReason,
    Settings, SettingsState, Tag, Work,
};
use outboard_virtio::transport::PciTransport;
use outboard_virtio::{Net, NetConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The driver of one of a lab's cards, and what it takes to run it.
pub struct NetBench {
    pub driver: Net<PciTransport<LabDevice>>,
    pub interrupts: LabInterrupts,
    pub events: Vec<String>,
    /// Frames that came and were not looked at.
    pub received: Vec<(Arrival, Vec<u8>)>,
    /// The queue that each of them came by.
    pub queues: Vec<u16>,
    /// Frames that were sent or lost, by their tags.
    pub sent: Vec<(Tag, Result<(), NetError>)>,
    /// Buffers that came back with nothing in them.
    pub returned: usize,
    /// Whether buffers are posted again once they come back.
    pub reposts: bool,
    /// Whether interrupts are passed on to the driver.
    pub deaf: bool,
    spare: Vec<(u16, Box<Posted>)>,
    done: Completions,
    /// Pieces of a frame of which more come.
    pieces: Vec<u8>,
    pool: DmaPool,
}

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of the buffers that frames are sent from.
const SEND_BYTES: usize = 10_240;

impl NetBench {
    /// The driver of the lab's card with this number, ready, with all buffers posted.
    pub fn new(lab: &Lab, card: usize, config: NetConfig) -> Self {
        let cards = lab.functions().iter();
        let mut cards = cards.filter(|f| outboard_virtio::is_network_card(&f.identity));
        let address = cards.nth(card).unwrap().address;
        let (device, interrupts) = lab.open(address).unwrap();
        let driver = Net::new(PciTransport::new(device).unwrap(), config).unwrap();
        let pool = DmaPool::new(&*driver.dma(), SEND_BYTES, 64, &Constraints::NONE).unwrap();
        let mut bench = Self {
            driver,
            interrupts,
            events: Vec::new(),
            received: Vec::new(),
            queues: Vec::new(),
            sent: Vec::new(),
            returned: 0,
            reposts: true,
            deaf: false,
            spare: Vec::new(),
            done: Completions::new(),
            pieces: Vec::new(),
            pool,
        };
        bench.run_until(|bench| {
            !matches!(bench.state(), InterfaceState::Starting | InterfaceState::Recovering)
        });
        if bench.state() == InterfaceState::Ready {
            bench.fill(config.buffer_bytes);
        }
        bench
    }

    /// Posts as many buffers as the queues take, of so many bytes.
    pub fn fill(&mut self, bytes: usize) {
        let shape = self.driver.interface().shape;
        let blocks = usize::from(shape.queues) * usize::from(shape.receive_depth);
        let bytes = bytes.max(shape.least_buffer_bytes);
        let pool = DmaPool::new(&*self.driver.dma(), bytes, blocks, &Constraints::NONE).unwrap();
        for queue in 0..shape.queues {
            let tags = (0..shape.receive_depth.into()).map(Tag);
            let posted = |tag| Box::new(Posted { tag, buffer: pool.allocate().unwrap() });
            self.driver.post(queue, &mut tags.map(posted).collect()).unwrap();
        }
        self.driver.kick(now());
    }

    pub fn state(&self) -> InterfaceState {
        self.driver.interface().state
    }

    /// One turn of an event loop.
    pub fn turn(&mut self) {
        let driver = &mut self.driver;
        if !self.deaf {
            self.interrupts.take(&mut |vector| driver.interrupt(vector));
        }
        self.queues.truncate(self.received.len());
        driver.poll(now(), &mut self.done);
        for piece in self.done.received.drain(..) {
            let start = self.pieces.len();
            self.pieces.resize(start + piece.bytes.len(), 0);
            piece.posted.buffer.read_bytes(piece.bytes.start, &mut self.pieces[start..]);
            self.spare.push((piece.queue, piece.posted));
            if piece.more == 0 {
                assert_eq!(piece.arrival.bytes as usize, self.pieces.len());
                self.received.push((piece.arrival, std::mem::take(&mut self.pieces)));
                self.queues.push(piece.queue);
            }
        }
        self.sent.extend(self.done.sent.drain(..).map(|sent| (sent.frame.tag, sent.result)));
        self.returned += self.done.returned.len();
        let returned =
            self.done.returned.drain(..).map(|returned| (returned.queue, returned.posted));
        self.spare.extend(returned);
        assert!(self.pieces.is_empty(), "the pieces of a frame come together");
        if self.reposts && self.state() == InterfaceState::Ready && !self.spare.is_empty() {
            for (queue, posted) in self.spare.drain(..) {
                self.driver.post(queue, &mut [posted].into()).unwrap();
            }
            self.driver.kick(now());
        }
        self.interrupts.rearm();
        let events = &mut self.events;
        self.driver.drain_events(&mut |_, event| events.push(event.to_string()));
    }

    /// Waits for an interrupt, a deadline, or for what else is given.
    pub fn wait(&self, others: &[(BorrowedFd<'_>, PollFlags)]) {
        let deadline = self.driver.next_deadline();
        let time = deadline.map_or(Duration::from_secs(1), |deadline| deadline.since(now()));
        let descriptors = if self.deaf { Vec::new() } else { self.interrupts.descriptors() };
        let ours = descriptors.iter().map(|fd| PollFd::new(fd, PollFlags::IN));
        let others = others.iter().map(|(fd, flags)| PollFd::new(fd, *flags));
        let mut fds: Vec<_> = ours.chain(others).collect();
        poll(&mut fds, Some(&Timespec::try_from(time).unwrap())).unwrap();
    }

    pub fn run_until(&mut self, condition: impl Fn(&Self) -> bool) {
        self.run_beside(&[], |bench| condition(bench));
    }

    /// Runs until `step`, which is called between turns, says that it is done.
    pub fn run_beside(
        &mut self,
        others: &[(&dyn AsFd, PollFlags)],
        mut step: impl FnMut(&mut Self) -> bool,
    ) {
        let began = Instant::now();
        loop {
            self.turn();
            if step(self) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "nothing came of it: {:#?}", self.events);
            let others: Vec<_> = others.iter().map(|(fd, flags)| (fd.as_fd(), *flags)).collect();
            self.wait(&others);
        }
    }

    /// Runs this one and another one until the condition holds.
    pub fn run_until_with(&mut self, other: &mut Self, mut step: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        loop {
            self.turn();
            other.turn();
            if step(self) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "nothing came of it: {:#?}", self.events);
            let descriptors = other.interrupts.descriptors();
            let others: Vec<_> = descriptors.iter().map(|fd| (*fd, PollFlags::IN)).collect();
            self.wait(&others);
        }
    }

    /// Runs until `look`, which is shown each frame that comes, says that it is done.
    pub fn run_until_each(&mut self, mut look: impl FnMut(u16, &Arrival, &[u8]) -> bool) {
        self.run_beside(&[], |bench| {
            let frames = std::mem::take(&mut bench.received);
            let queues = std::mem::take(&mut bench.queues);
            let mut frames = frames.iter().zip(queues);
            frames.any(|((arrival, frame), queue)| look(queue, arrival, frame))
        });
    }

    pub fn counter(&self, name: &str) -> u64 {
        let mut found = None;
        self.driver.counters(&mut |counter, value| {
            found = found.or((counter == name).then_some(value));
        });
        found.unwrap_or_else(|| panic!("no counter {name}"))
    }

    /// Memory with a frame in it, in so many pieces, and with so much room before each.
    pub fn memory(&self, bytes: &[u8], pieces: usize, headroom: usize) -> Option<SgList> {
        let mut data = SgList::EMPTY;
        let each = bytes.len().div_ceil(pieces);
        for piece in bytes.chunks(each) {
            let mut buffer: DmaBuffer = match piece.len() + headroom <= SEND_BYTES {
                true => self.pool.allocate().ok()?,
                false => {
                    self.driver.dma().allocate(piece.len() + headroom, &Constraints::NONE).ok()?
                }
            };
            buffer.write_bytes(headroom, piece);
            data.push(buffer, headroom..headroom + piece.len());
        }
        Some(data)
    }

    /// Queues a frame, if there is room.
    pub fn submit(&mut self, queue: u16, frame: Frame) -> bool {
        match self.driver.submit(queue, &mut [Box::new(frame)].into()) {
            Ok(()) => true,
            Err(RefusedReason::QueueFull) => false,
            Err(reason) => panic!("{reason}"),
        }
    }

    /// Sends a frame, and waits until it was sent.
    pub fn send(&mut self, queue: u16, bytes: &[u8], work: Work) {
        let data = self.memory(bytes, 1, 64).unwrap();
        assert!(self.submit(queue, Frame { tag: Tag(u64::MAX), data, work }));
        self.driver.kick(now());
        self.run_until(|bench| bench.sent.iter().any(|(tag, _)| *tag == Tag(u64::MAX)));
        self.sent.retain(|(tag, _)| *tag != Tag(u64::MAX));
    }

    /// Asks for settings, and waits until they hold.
    pub fn configure(&mut self, settings: &Settings) {
        self.driver.configure(settings).unwrap();
        self.run_until(|bench| bench.driver.interface().settings != SettingsState::Pending);
        assert_eq!(self.driver.interface().settings, SettingsState::Applied, "{:?}", self.events);
    }
}
