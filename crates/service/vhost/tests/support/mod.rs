//! A back end with a card made of memory, in a thread, and the front end of `platform/vhost`.
#![allow(unreachable_pub, dead_code, reason = "shared by several tests")]

#[path = "../../../../class/net/tests/support/mirror.rs"]
pub mod mirror;

use mirror::{Mirror, Shared};
use outboard_hw::dma::{Constraints, SgList};
use outboard_linux::{InterruptSource, SharedMemory, now};
use outboard_net::{
    Arrival, Capabilities, Completions, Frame, InterfaceState, NetDriver, Posted, Tag, Work,
};
use outboard_vhost::{Card, NetSession, Traffic};
use outboard_vhost_front::{VhostConfig, VhostInterrupts, VhostUser};
use outboard_virtio::{Net, NetConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// The back end, until it is dropped.
pub struct Back {
    shared: Arc<Mutex<Shared>>,
    pub socket: PathBuf,
    ends: Arc<AtomicBool>,
    /// Of clients that are gone.
    traffic: Arc<Mutex<Vec<Traffic>>>,
    thread: Option<JoinHandle<()>>,
}

impl Back {
    pub fn new(folder: &Path, queues: u16, capabilities: Capabilities) -> Self {
        let socket = folder.join("card.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (_, arena) = SharedMemory::for_model("card", 16 << 20).unwrap();
        let mirror = Mirror::new(queues, capabilities, &arena);
        let (shared, ends) = (mirror.shared(), Arc::new(AtomicBool::new(false)));
        let traffic = Arc::new(Mutex::new(Vec::new()));
        let (over, told) = (ends.clone(), traffic.clone());
        let thread = std::thread::spawn(move || serve(&listener, mirror, &over, &told));
        Self { shared, socket, ends, traffic, thread: Some(thread) }
    }

    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// What has passed to and from the client that was the first to go.
    pub fn first_traffic(&self) -> Traffic {
        until(|| !self.traffic.lock().unwrap().is_empty());
        self.traffic.lock().unwrap()[0]
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves one client after the other.
fn serve(listener: &UnixListener, mirror: Mirror, ends: &AtomicBool, told: &Mutex<Vec<Traffic>>) {
    let mut card = Card::new(Box::new(mirror));
    card.poll(now());
    assert!(card.is_known(), "there is memory for its frames");
    let mut session: Option<NetSession> = None;
    while !ends.load(Ordering::Relaxed) {
        let mut busy = card.poll(now());
        match &mut session {
            Some(one) => {
                one.receive();
                busy |= one.work(&mut card);
                if one.is_over() {
                    assert_eq!(one.closed(), None);
                    told.lock().unwrap().push(one.traffic());
                    session = None;
                }
            }
            None => {
                card.drop_arrived();
                if let Ok((socket, _)) = listener.accept() {
                    session = Some(NetSession::new(socket.into(), 1, &card).unwrap());
                }
            }
        }
        card.kick(now());
        let awake = session.as_mut().is_some_and(|session| session.sleep(&card));
        if !busy && !awake {
            // The mirror, and the end of the test, tell nobody.
            let waited = session.as_ref().map_or(listener.as_fd(), AsFd::as_fd);
            let _ = poll(&mut [PollFd::from_borrowed_fd(waited, PollFlags::IN)], Some(&TICK));
        }
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

/// The driver, at the front end.
pub struct Front {
    pub driver: Net<VhostUser>,
    interrupts: VhostInterrupts,
    pub received: Vec<(u16, Arrival, Vec<u8>)>,
    pub sent: usize,
    done: Completions,
    pieces: Vec<u8>,
}

impl Front {
    pub fn new(socket: &Path, config: NetConfig) -> Self {
        let vhost = VhostConfig { dma_bytes: 32 << 20, ..VhostConfig::card(socket) };
        let (transport, interrupts, _) = VhostUser::attach(vhost).unwrap();
        let driver = Net::new(transport, config).unwrap();
        let (received, done, pieces) = (Vec::new(), Completions::new(), Vec::new());
        let mut front = Self { driver, interrupts, received, sent: 0, done, pieces };
        front.run_until(|front| front.state() == InterfaceState::Ready);
        let shape = front.driver.interface().shape;
        let bytes = config.buffer_bytes.max(shape.least_buffer_bytes);
        for queue in 0..shape.queues {
            let posted = |tag| {
                let buffer = front.driver.dma().allocate(bytes, &Constraints::NONE).unwrap();
                Box::new(Posted { tag: Tag(tag), buffer })
            };
            let mut buffers = (0..shape.receive_depth.into()).map(posted).collect();
            front.driver.post(queue, &mut buffers).unwrap();
        }
        front.driver.kick(now());
        front
    }

    pub fn state(&self) -> InterfaceState {
        self.driver.interface().state
    }

    fn turn(&mut self) {
        let Self { driver, interrupts, received, sent, done, pieces } = self;
        interrupts.take(&mut |vector| driver.interrupt(vector));
        driver.poll(now(), done);
        let any = !done.received.is_empty();
        for piece in done.received.drain(..) {
            let start = pieces.len();
            pieces.resize(start + piece.bytes.len(), 0);
            piece.posted.buffer.read_bytes(piece.bytes.start, &mut pieces[start..]);
            driver.post(piece.queue, &mut [piece.posted].into()).unwrap();
            if piece.more == 0 {
                received.push((piece.queue, piece.arrival, std::mem::take(pieces)));
            }
        }
        *sent += done.sent.len();
        assert!(done.sent.drain(..).all(|sent| sent.result == Ok(())));
        assert!(done.returned.is_empty(), "nothing was stopped, or malformed");
        if any {
            driver.kick(now());
        }
    }

    pub fn run_until(&mut self, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        loop {
            self.turn();
            if condition(self) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "nothing came of it");
            let deadline = self.driver.next_deadline();
            let time = deadline.map_or(Duration::from_secs(1), |deadline| deadline.since(now()));
            self.interrupts.wait(time).unwrap();
        }
    }

    /// Queues a frame, in memory with room before it.
    pub fn submit(&mut self, queue: u16, bytes: &[u8], work: Work) {
        let mut buffer = self.driver.dma().allocate(bytes.len() + 64, &Constraints::NONE).unwrap();
        buffer.write_bytes(64, bytes);
        let data = SgList::single(buffer, 64..64 + bytes.len());
        let frame = Box::new(Frame { tag: Tag(0), data, work });
        self.driver.submit(queue, &mut [frame].into()).unwrap();
    }

    pub fn kick(&mut self) {
        self.driver.kick(now());
    }

    /// Sends frames, and waits until so many have come.
    pub fn exchange(
        &mut self,
        queue: u16,
        frames: &[Vec<u8>],
        work: Work,
        coming: usize,
    ) -> Vec<(u16, Arrival, Vec<u8>)> {
        for frame in frames {
            self.submit(queue, frame, work);
        }
        self.driver.kick(now());
        self.run_until(|front| front.received.len() >= coming);
        std::mem::take(&mut self.received)
    }
}

/// Bytes that tell where they are from.
pub fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (seed.wrapping_mul(31) + at / 3) as u8 ^ at as u8).collect()
}
