//! 4 KiB random reads over vhost-user: one end of ours, and one of somebody else's.
//!
//!   vhost_blk back-ends OUTBOARD ROUNDS SECONDS [BYTES]   `outboard serve --ram` and
//!       `qemu-storage-daemon`, over null-co and over a file in tmpfs, with `blkio` as front end:
//!       reads a second, and for each processor that the back end's process uses
//!   vhost_blk front-ends OUTBOARD ROUNDS SECONDS [BYTES]  our driver and `blkio`, over
//!       `qemu-storage-daemon` with null-co: reads a second
//!
//! OUTBOARD is the program. Rounds are interleaved: in each, everything is measured once; medians are
//! printed. It takes a machine with two processors and nothing else to do.

#![allow(clippy::print_stdout, reason = "that is its result")]

use blkio::{Blkio, Blkioq, Completion, ReqFlags};
use outboard_block::{BlockDriver, Request, Tag, UnitId, UnitState};
use outboard_hw::dma::{Constraints, DmaBuffer, SgList};
use outboard_linux::{InterruptSource, now};
use outboard_vhost_front::{VhostConfig, VhostInterrupts, VhostUser};
use outboard_virtio::{Blk, BlkConfig};
use std::io::{BufRead, BufReader};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const DISK_BYTES: u64 = 64 << 20;
const DEPTHS: [usize; 3] = [1, 32, 128];
const NULL_CO: &str = "driver=null-co,node-name=disk,size=67108864,read-zeroes=on";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, outboard, rounds, seconds, bytes @ ..] = arguments.as_slice() else {
        return ExitCode::from(2);
    };
    let bytes = bytes.first().map_or(Ok(4096), |bytes| bytes.parse());
    let (Ok(rounds), Ok(seconds), Ok(bytes)) = (rounds.parse(), seconds.parse::<f64>(), bytes)
    else {
        return ExitCode::from(2);
    };
    let load = Load { bytes, depth: 1, polls: false, time: Duration::from_secs_f64(seconds) };
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in tmpfs");
    match &**what {
        "back-ends" => back_ends(outboard, rounds, load, folder.path()),
        "front-ends" => front_ends(rounds, load, folder.path()),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// What a front end does.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Of each read.
    bytes: usize,
    /// Reads under way at once.
    depth: usize,
    /// Whether the front end looks for their ends, or waits to be told.
    polls: bool,
    time: Duration,
}

/// All loads that are measured.
fn loads(load: Load) -> impl Iterator<Item = Load> {
    let depths = DEPTHS.into_iter();
    depths.flat_map(move |depth| [false, true].map(|polls| Load { depth, polls, ..load }))
}

fn back_ends(outboard: &str, rounds: usize, load: Load, folder: &Path) {
    let ours = ["interrupts", "adaptive", "polling"].map(|reap| {
        let server = Server::ours(outboard, reap, folder);
        (format!("ours, {reap}"), server)
    });
    let file = folder.join("disk");
    std::fs::File::create(&file).and_then(|file| file.set_len(DISK_BYTES)).expect("a file");
    std::fs::write(&file, vec![0x55; DISK_BYTES as usize]).expect("room in tmpfs");
    let file = format!(
        "driver=file,node-name=disk,aio=io_uring,cache.direct=off,filename={}",
        file.display()
    );
    let daemons = [("daemon null-co", NULL_CO), ("daemon file", &file)]
        .map(|(name, node)| (name.to_owned(), Server::daemon(node, name, folder)));
    let servers: Vec<(String, Server)> = ours.into_iter().chain(daemons).collect();
    for load in loads(load) {
        println!("depth {}, the front end {}:", load.depth, how(load));
        let mut results = vec![Vec::new(); servers.len()];
        for _ in 0..rounds {
            for ((_, server), results) in servers.iter().zip(&mut results) {
                let mut peer = Peer::connect(&server.socket, load);
                peer.run(load.time / 4);
                let before = server.processor_time();
                let rate = peer.run(load.time);
                let busy = (server.processor_time() - before).as_secs_f64();
                results.push((rate, rate * load.time.as_secs_f64() / busy));
            }
        }
        for ((name, _), results) in servers.iter().zip(results) {
            let (rates, each): (Vec<f64>, Vec<f64>) = results.into_iter().unzip();
            println!("  {name:<18} {:>9.0} /s {:>9.0} /s and core", median(rates), median(each));
        }
    }
}

fn front_ends(rounds: usize, load: Load, folder: &Path) {
    let server = Server::daemon(NULL_CO, "null-co", folder);
    for load in loads(load) {
        let mut results = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..rounds {
            let mut ours = Ours::connect(&server.socket, load);
            ours.run(load.time / 4);
            let rate = ours.run(load.time);
            drop(ours);
            let mut peer = Peer::connect(&server.socket, load);
            peer.run(load.time / 4);
            let other = peer.run(load.time);
            results[0].push(rate);
            results[1].push(other);
            results[2].push(rate / other);
        }
        let [ours, other, ratio] = results.map(median);
        println!(
            "depth {:>3}, {:<5}: ours {ours:>9.0} /s, blkio {other:>9.0} /s, {ratio:.2}",
            load.depth,
            how(load)
        );
    }
}

fn how(load: Load) -> &'static str {
    if load.polls { "polls" } else { "waits" }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Where the next read begins: SplitMix64, the same for all.
fn place(state: &mut u64, bytes: usize) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31) % (DISK_BYTES / bytes as u64) * bytes as u64
}

/// A back end, until it is dropped.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn ours(outboard: &str, reap: &str, folder: &Path) -> Self {
        let folder = folder.join(reap);
        std::fs::create_dir(&folder).expect("a folder");
        let mut command = Command::new(outboard);
        command.args(["serve", "--ram", "64M", "--reap", reap, "--vhost-user"]).arg(&folder);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program");
        let output = child.stdout.take().expect("it is piped");
        let line = BufReader::new(output).lines().next();
        let line = line.expect("it is ready").expect("a line");
        let socket = line.strip_prefix("ready vhost-user:").expect("a socket").into();
        Self { child, socket }
    }

    fn daemon(node: &str, name: &str, folder: &Path) -> Self {
        let socket = folder.join(format!("{}.sock", name.replace(' ', "-")));
        let export = format!(
            "type=vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path={},num-queues=1,\
             writable=on",
            socket.display()
        );
        let ready = folder.join(format!("{name}.pid"));
        let mut command = Command::new("qemu-storage-daemon");
        command.args(["--blockdev", node, "--export", &export, "--pidfile"]).arg(&ready);
        let mut child = command.spawn().expect("qemu-storage-daemon is installed");
        // It writes this file when it serves.
        while !ready.exists() {
            let ended = child.try_wait().expect("it is a child");
            assert!(ended.is_none(), "qemu-storage-daemon has ended");
            std::thread::yield_now();
        }
        Self { child, socket }
    }

    /// What its threads have used.
    fn processor_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let nanos = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `blkio` crate, on `virtio-driver`.
struct Peer {
    queue: Blkioq,
    memory: usize,
    load: Load,
    places: u64,
    _library: Blkio,
}

impl Peer {
    fn connect(socket: &Path, load: Load) -> Self {
        let mut library = Blkio::new("virtio-blk-vhost-user").expect("the driver is built in");
        library.set_str("path", socket.to_str().expect("it is text")).expect("a path");
        library.connect().expect("a back end");
        // A read takes three entries, since it has no tables.
        library.set_i32("queue-size", 512).expect("a size");
        library.set_i32("num-queues", (!load.polls).into()).expect("a number");
        library.set_i32("num-poll-queues", load.polls.into()).expect("a number");
        let mut started = library.start().expect("it starts");
        let region = library.alloc_mem_region(load.depth * load.bytes).expect("memory");
        library.map_mem_region(&region).expect("memory");
        let queues = if load.polls { &mut started.poll_queues } else { &mut started.queues };
        let queue = queues.pop().expect("a queue");
        Self { queue, memory: region.addr, load, places: 0, _library: library }
    }

    fn read(&mut self, number: usize) {
        let Load { bytes, .. } = self.load;
        let memory = (self.memory + number * bytes) as *mut u8;
        let place = place(&mut self.places, bytes);
        self.queue.read(place, memory, bytes, number, ReqFlags::empty());
    }

    /// Reads for a time; how many a second.
    fn run(&mut self, time: Duration) -> f64 {
        let (began, mut done, mut left) = (Instant::now(), 0, self.load.depth);
        (0..left).for_each(|number| self.read(number));
        while left > 0 {
            let mut ended: [MaybeUninit<Completion>; 128] = [const { MaybeUninit::uninit() }; 128];
            let count = self.queue.do_io(&mut ended, 1, None, None).expect("it goes on");
            let goes_on = began.elapsed() < time;
            for completion in &ended[..count] {
                // SAFETY: as many were written as it says.
                let completion = unsafe { completion.assume_init_ref() };
                assert_eq!(completion.ret, 0, "a read");
                done += 1;
                match goes_on {
                    true => self.read(completion.user_data),
                    false => left -= 1,
                }
            }
        }
        f64::from(done) / began.elapsed().as_secs_f64()
    }
}

/// Our driver.
struct Ours {
    driver: Blk<VhostUser>,
    interrupts: VhostInterrupts,
    idle: Vec<(Tag, DmaBuffer)>,
    load: Load,
    places: u64,
}

impl Ours {
    fn connect(socket: &Path, load: Load) -> Self {
        let (transport, interrupts, _) =
            VhostUser::attach(VhostConfig::new(socket)).expect("a back end");
        let mut driver = Blk::new(transport, BlkConfig::default()).expect("a driver");
        while driver.unit(UnitId(0)).is_none_or(|unit| unit.state != UnitState::Ready) {
            driver.interrupt(0);
            driver.poll(now(), &mut |_| {});
        }
        let dma = driver.dma();
        let memory = |number| {
            let memory = dma.allocate(load.bytes, &Constraints::NONE).expect("memory");
            (Tag(number), memory)
        };
        let idle = (0..load.depth as u64).map(memory).collect();
        driver.mask(load.polls);
        Self { driver, interrupts, idle, load, places: 0 }
    }

    /// Reads for a time; how many a second.
    fn run(&mut self, time: Duration) -> f64 {
        let (began, mut done) = (now(), 0);
        let (mut at, mut goes_on) = (began, true);
        while goes_on || self.idle.len() < self.load.depth {
            while let Some((tag, memory)) = self.idle.pop_if(|_| goes_on) {
                let lba = place(&mut self.places, self.load.bytes) / 512;
                let data = SgList::single(memory, 0..self.load.bytes);
                let request = Request::read(lba, self.load.bytes as u64 / 512, data);
                self.driver.submit(UnitId(0), tag, request).expect("there is room");
            }
            self.driver.kick(at);
            if !self.load.polls {
                self.wait();
            }
            at = now();
            goes_on = at.since(began) < time;
            self.driver.poll(at, &mut |completion| {
                completion.result.expect("a read");
                let memory = completion.data.into_buffers().next().expect("its memory");
                self.idle.push((completion.tag, memory));
                done += 1;
            });
            self.interrupts.rearm();
        }
        f64::from(done) / now().since(began).as_secs_f64()
    }

    fn wait(&mut self) {
        self.interrupts.wait(Duration::from_secs(1)).expect("it is woken");
        self.interrupts.take(&mut |vector| self.driver.interrupt(vector));
    }
}
