//! Frames a second over vhost-user, polled: one end of ours, and one of somebody else's.
//!
//!   vhost_net front SOCKET SECONDS send|receive|echo    our driver, on whatever back end listens
//!   vhost_net back  SOCKET SECONDS sink|source          our back end, whose card is made of nothing
//!
//! Frames have 64 bytes, check sequence included. Prints frames a second, sent and received by this
//! end, without the first half second.

#![allow(clippy::print_stdout, reason = "that is its result")]

use outboard_bench::nothing::{BEFORE, FRAME_BYTES, Nothing};
use outboard_hw::dma::{Constraints, DmaPool, SgList};
use outboard_linux::{SharedMemory, now};
use outboard_net::{Completions, Frame, InterfaceState, NetDriver, Posted, Tag};
use outboard_vhost::{Card, NetSession};
use outboard_vhost_front::{VhostConfig, VhostUser};
use outboard_virtio::{Net, NetConfig};
use std::collections::VecDeque;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Frames in a batch, as others have it.
const BURST: usize = 32;
/// Not measured.
const BEGINNING: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, socket, seconds, mode] = arguments.as_slice() else { return ExitCode::from(2) };
    let Ok(seconds) = seconds.parse() else { return ExitCode::from(2) };
    let time = Duration::from_secs(seconds);
    match (&**role, &**mode) {
        ("front", "send") => front(socket, time, true, false),
        ("front", "receive") => front(socket, time, false, true),
        ("front", "echo") => front(socket, time, true, true),
        ("back", "sink") => back(socket, time, false),
        ("back", "source") => back(socket, time, true),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// Counts from the end of the beginning on.
struct Count {
    began: Instant,
    start: Option<(Instant, [u64; 2])>,
}

impl Count {
    fn new() -> Self {
        Self { began: Instant::now(), start: None }
    }

    fn is_over(&mut self, time: Duration, frames: [u64; 2]) -> bool {
        if self.start.is_none() && self.began.elapsed() >= BEGINNING {
            self.start = Some((Instant::now(), frames));
        }
        self.began.elapsed() >= BEGINNING + time
    }

    fn print(&self, frames: [u64; 2]) {
        let Some((start, before)) = self.start else { return };
        let seconds = start.elapsed().as_secs_f64();
        let rate = |index: usize| (frames[index] - before[index]) as f64 / seconds;
        println!("sent {:.0} received {:.0}", rate(0), rate(1));
    }
}

/// Waits until the driver is ready, posts all buffers, and makes the frames to be sent.
fn prepare(driver: &mut Net<VhostUser>) -> VecDeque<Box<Frame>> {
    while driver.interface().state != InterfaceState::Ready {
        driver.interrupt(0);
        driver.poll(now(), &mut Completions::new());
    }
    let shape = driver.interface().shape;
    let dma = driver.dma();
    let buffers = |count: u16| {
        let pool = DmaPool::new(&*dma, 2048, count.into(), &Constraints::NONE).expect("memory");
        let tags = (0..count.into()).map(Tag);
        tags.map(move |tag| (tag, pool.allocate().expect("a block of the pool")))
    };
    let posted = buffers(shape.receive_depth);
    let posted = posted.map(|(tag, buffer)| Box::new(Posted { tag, buffer }));
    driver.post(0, &mut posted.collect()).expect("there is room");
    driver.kick(now());
    let frames = buffers(shape.transmit_depth).map(|(tag, mut buffer)| {
        buffer.fill(BEFORE..BEFORE + FRAME_BYTES, 0x55);
        let data = SgList::single(buffer, BEFORE..BEFORE + FRAME_BYTES);
        Box::new(Frame::plain(tag, data))
    });
    frames.collect()
}

fn front(socket: &str, time: Duration, sends: bool, receives: bool) {
    let (transport, ..) = VhostUser::attach(VhostConfig::card(socket)).expect("a back end");
    let mut driver = Net::new(transport, NetConfig::default()).expect("a driver");
    let mut free = prepare(&mut driver);
    driver.mask(true);
    let mut frames = [0, 0];
    let (mut count, mut done) = (Count::new(), Completions::new());
    let (mut spare, mut burst) = (VecDeque::new(), VecDeque::new());
    while !count.is_over(time, frames) {
        for _ in 0..BURST {
            driver.poll(now(), &mut done);
            frames[1] += done.received.iter().filter(|piece| piece.more == 0).count() as u64;
            frames[0] += done.sent.len() as u64;
            spare.extend(done.received.drain(..).map(|piece| piece.posted));
            spare.extend(done.returned.drain(..).map(|returned| returned.posted));
            free.extend(done.sent.drain(..).map(|sent| sent.frame));
            if receives {
                let _ = driver.post(0, &mut spare);
            }
            if sends {
                burst.extend(free.drain(..free.len().min(BURST - burst.len())).map(written));
                let _ = driver.submit(0, &mut burst);
            }
            driver.kick(now());
        }
    }
    count.print(frames);
}

/// A frame whose headers are written anew, as those of who has something to send are.
fn written(mut frame: Box<Frame>) -> Box<Frame> {
    const HEADERS: [u8; 42] = [0x55; 42];
    if let Some(buffer) = frame.data.reuse(BEFORE..BEFORE + FRAME_BYTES) {
        buffer.write_bytes(BEFORE, &HEADERS);
    }
    frame
}

fn back(socket: &str, time: Duration, is_source: bool) {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).expect("a socket");
    let (_memory, arena) = SharedMemory::for_model("card", 16 << 20).expect("memory");
    let mut card = Card::new(Box::new(Nothing::new(is_source, &arena)));
    card.poll(now());
    let (socket, _) = listener.accept().expect("a client");
    socket.set_nonblocking(true).expect("a socket");
    let mut session = NetSession::new(socket.into(), 1, &card).expect("a session");
    let frames = |session: &NetSession| [session.traffic().received, session.traffic().sent];
    while frames(&session) == [0, 0] && !session.is_over() {
        session.receive();
        turn(&mut session, &mut card);
    }
    let mut count = Count::new();
    while !count.is_over(time, frames(&session)) && !session.is_over() {
        for _ in 0..BURST {
            turn(&mut session, &mut card);
        }
        session.receive();
    }
    count.print(frames(&session));
}

/// As the server has them, which looks for messages only now and then.
fn turn(session: &mut NetSession, card: &mut Card) {
    card.poll(now());
    session.work(card);
    card.kick(now());
}
