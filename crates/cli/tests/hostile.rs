//! Clients that break the protocol, or abuse it: each gets an error or a closed connection, and
//! the others go on.

mod support;

use outboard_ninep::client::{Client, ClientError, Mode};
use outboard_ninep::wire::{
    Dialect, Frame, NO_FID, NO_TAG, NO_USER, Names, NumericUser, Reply, Request,
};
use rustix::process::{Resource, Rlimit, Signal, prlimit};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use support::{Server, image, noise};

const DISK_BYTES: u64 = 16 << 20;

/// A server, and a client that works on while the test does its worst.
struct Bench {
    server: Server,
    over: &'static AtomicBool,
    bystander: Option<JoinHandle<u64>>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = image(folder.path(), "disk", DISK_BYTES);
        let socket = format!("unix:{}", folder.path().join("9p").display());
        let server = Server::start_at(&[&disk], &[&socket], folder);
        let over: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
        let client = server.client();
        let bystander = Some(thread::spawn(move || work_on(client, over)));
        Self { server, over, bystander }
    }

    fn connect(&self) -> Wire {
        let path = self.server.folder.path().join("9p");
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Wire { stream, dialect: Dialect::Plan9 }
    }

    /// A connection that speaks `dialect`, with fid 0 at the root and fid 1 open on the disk.
    fn attached(&self, dialect: Dialect, msize: u32) -> Wire {
        let mut wire = self.connect();
        wire.send(&opening(dialect, msize));
        wire.dialect = dialect;
        for _ in 0..4 {
            assert!(!wire.answer().unwrap().failed);
        }
        wire
    }

    fn memory_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.server.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The bystander must have got on with its work, and the server must end in order.
    fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let rounds = self.bystander.take().unwrap().join().expect("the bystander was served");
        assert!(rounds > 0);
        let code = self.server.end(Signal::TERM);
        let errors = self.server.errors();
        assert!(code == Some(0) && !errors.contains("panicked"), "{code:?}: {errors}");
        assert!(errors.len() < 64 << 10, "a client flooded the log");
    }
}

/// Hundredths of a second that a process has computed for (proc_pid_stat(5)).
fn cpu_ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Writes and reads back until the test is over; how often.
fn work_on(mut client: Client, over: &AtomicBool) -> u64 {
    const BYTES: usize = 20_000;
    let (to, from) = (client.walk("sdC0/data").unwrap(), client.walk("sdC0/data").unwrap());
    client.open(&to, Mode::Write).unwrap();
    client.open(&from, Mode::Read).unwrap();
    let mut round = 0;
    loop {
        let last = over.load(Ordering::Relaxed);
        let offset = DISK_BYTES / 2 + round % 100 * 40_001;
        let wanted = noise(round, BYTES);
        let mut rest = &wanted[..];
        let source = |room: &mut [u8]| Ok::<_, ClientError>(rest.read(room)?);
        client.write_range(&to, offset, source, |_| ()).unwrap();
        let mut found = Vec::new();
        let push = |part: &[u8]| {
            found.extend_from_slice(part);
            Ok::<_, ClientError>(())
        };
        client.read_range(&from, offset, BYTES as u64, push).unwrap();
        assert!(found == wanted, "round {round}");
        round += 1;
        if last {
            return round;
        }
    }
}

/// A connection of a client that sends what it likes.
struct Wire {
    stream: UnixStream,
    dialect: Dialect,
}

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    tag: u16,
    failed: bool,
    size: usize,
}

impl Wire {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as much as the server takes before it closes the connection.
    fn send_anyhow(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            let closed = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
            assert!(closed, "{error}");
        }
    }

    /// The next answer, or `None` if the connection was closed. Whatever the server was sent, what
    /// it says is well-formed.
    fn answer(&mut self) -> Option<Said> {
        let mut bytes = vec![0; 4];
        match self.stream.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) => {
                let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                assert!(kinds.contains(&error.kind()), "{error}");
                return None;
            }
        }
        let size = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        assert!((7..=1 << 20).contains(&size), "{size}");
        bytes.resize(size, 0);
        self.stream.read_exact(&mut bytes[4..]).unwrap();
        let Frame { number, tag, body, .. } = Frame::split(&bytes, 1 << 20).unwrap().unwrap();
        let reply = Reply::decode(number, body, self.dialect).unwrap();
        if let Reply::Version { version, .. } = reply {
            self.dialect = Dialect::negotiate(version).unwrap_or(Dialect::Plan9);
        }
        let failed = matches!(reply, Reply::Error { .. } | Reply::Lerror { .. });
        Some(Said { tag, failed, size })
    }

    /// Says that nothing more comes; everything that the server still says.
    fn rest(mut self) -> Vec<Said> {
        // The server may have closed it already.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        std::iter::from_fn(|| self.answer()).collect()
    }
}

fn bytes(tag: u16, request: &Request<'_>, dialect: Dialect) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(tag, &mut bytes, dialect);
    bytes
}

/// Messages that negotiate, attach fid 0, and open fid 1 on the disk: four, all good.
fn opening(dialect: Dialect, msize: u32) -> Vec<u8> {
    let version = Request::Version { msize, version: dialect.name() };
    let n_uname = NumericUser(NO_USER);
    let attach = Request::Attach { fid: 0, afid: NO_FID, uname: "me", aname: "", n_uname };
    let walk = Request::Walk { fid: 0, newfid: 1, names: Names::new(&["sdC0", "data"]) };
    let open = match dialect {
        Dialect::Linux => Request::Lopen { fid: 1, flags: 2 },
        _ => Request::Open { fid: 1, mode: 2 },
    };
    let mut all = bytes(NO_TAG, &version, Dialect::Plan9);
    let rest = [(1, attach), (2, walk), (3, open)];
    all.extend(rest.iter().flat_map(|(tag, request)| bytes(*tag, request, dialect)));
    all
}

const DIALECTS: [Dialect; 3] = [Dialect::Plan9, Dialect::Unix, Dialect::Linux];

#[test]
fn a_link_message_without_its_name_is_answered() {
    let bench = Bench::new();
    for dialect in DIALECTS {
        let mut wire = bench.attached(dialect, 8192);
        wire.send(b"\x11\0\0\0\x46\x09\0\x01\0\0\0\x02\0\0\0\xff\xff");
        let said = wire.answer().unwrap();
        assert!(said.failed && said.tag == 9, "{said:?}");
        // The connection is as good as before.
        wire.send(&bytes(10, &Request::Read { fid: 1, offset: 0, count: 512 }, dialect));
        assert_eq!(wire.answer(), Some(Said { tag: 10, failed: false, size: 512 + 11 }));
    }
    bench.end();
}

#[test]
fn messages_that_break_a_rule_get_errors() {
    let bench = Bench::new();
    for dialect in DIALECTS {
        let read = |fid, offset, count| Request::Read { fid, offset, count };
        let walk = |fid, newfid, names: &[&'static str]| Request::Walk {
            fid,
            newfid,
            names: Names::new(names),
        };
        let bad = [
            // Fids that nobody has, or that are in use.
            bytes(9, &read(77, 0, 1), dialect),
            bytes(9, &Request::Write { fid: 77, offset: 0, data: b"x" }, dialect),
            bytes(9, &Request::Clunk { fid: NO_FID }, dialect),
            bytes(9, &walk(77, 78, &[]), dialect),
            bytes(9, &walk(0, 1, &["sdC0"]), dialect),
            bytes(9, &walk(0, NO_FID, &[]), dialect),
            // Names that there are not, or that nobody may have.
            bytes(9, &walk(0, 5, &["sdC9"]), dialect),
            bytes(9, &walk(0, 5, &[""]), dialect),
            bytes(9, &walk(0, 5, &["sdC0/data"]), dialect),
            bytes(9, &walk(1, 5, &["x"]), dialect),
            // Out of order: not open, open twice, past the end, of the wrong kind.
            bytes(9, &read(0, 0, 1), dialect),
            bytes(9, &Request::Write { fid: 0, offset: 0, data: b"x" }, dialect),
            bytes(9, &Request::Write { fid: 1, offset: DISK_BYTES, data: b"x" }, dialect),
            bytes(9, &Request::Write { fid: 1, offset: u64::MAX, data: b"x" }, dialect),
            bytes(9, &Request::Lopen { fid: 1, flags: 0 }, dialect),
            bytes(9, &Request::Readdir { fid: 1, offset: 0, count: 100 }, dialect),
            bytes(9, &Request::Symlink { fid: 0, name: "a", target: "b", gid: 0 }, dialect),
            bytes(9, &Request::Xattrcreate { fid: 0, name: "a", size: 1, flags: 0 }, dialect),
            // Types that no dialect has, among them answers and Tlerror and Terror.
            b"\x07\0\0\0\x00\x09\0".to_vec(),
            b"\x07\0\0\0\xff\x09\0".to_vec(),
            b"\x07\0\0\0\x06\x09\0".to_vec(),
            b"\x07\0\0\0\x6a\x09\0".to_vec(),
            b"\x07\0\0\0\x6d\x09\0".to_vec(),
            // Fields that are not there, too many, or that reach past the end.
            b"\x07\0\0\0\x74\x09\0".to_vec(),
            b"\x08\0\0\0\x78\x09\0\0".to_vec(),
            b"\x0c\0\0\0\x78\x09\0\x01\0\0\0\0".to_vec(),
            b"\x17\0\0\0\x76\x09\0\x01\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff".to_vec(),
            b"\x11\0\0\0\x6e\x09\0\0\0\0\0\x05\0\0\0\xff\xff".to_vec(),
        ];
        let mut wire = bench.attached(dialect, 8192);
        for bad in &bad {
            wire.send(bad);
            let said = wire.answer().unwrap_or_else(|| panic!("{bad:02x?} closed it"));
            assert!(said.failed && said.tag == 9, "{dialect}: {bad:02x?}: {said:?}");
        }
        // All at once; then the connection is as good as before.
        wire.send(&bad.concat());
        for bad in &bad {
            assert!(wire.answer().unwrap().failed, "{dialect}: {bad:02x?}");
        }
        wire.send(&bytes(10, &read(1, 0, 512), dialect));
        assert_eq!(wire.answer(), Some(Said { tag: 10, failed: false, size: 512 + 11 }));
    }
    bench.end();
}

#[test]
fn sizes_that_no_message_has_close_the_connection() {
    let bench = Bench::new();
    let sizes = [0, 1, 6, 8193, 1 << 20, 1 << 31, u32::MAX];
    for size in sizes {
        let mut bad = size.to_le_bytes().to_vec();
        bad.extend([0x78, 9, 0, 1, 0, 0, 0]);
        let mut wire = bench.attached(Dialect::Unix, 8192);
        wire.send_anyhow(&bad);
        assert_eq!(wire.answer(), None, "size {size}");
        // Also as the first thing that is said, and in the middle of a batch.
        let mut wire = bench.connect();
        wire.send_anyhow(&bad);
        assert_eq!(wire.answer(), None, "size {size} at first");
        let mut wire = bench.attached(Dialect::Unix, 8192);
        let read = bytes(1, &Request::Stat { fid: 1 }, Dialect::Unix);
        wire.send_anyhow(&[read.as_slice(), &bad, &read].concat());
        assert!(!wire.answer().unwrap().failed);
        assert_eq!(wire.answer(), None, "size {size} in the middle");
    }
    bench.end();
}

#[test]
fn what_comes_before_its_time_is_refused() {
    let bench = Bench::new();
    let mut wire = bench.connect();
    let n_uname = NumericUser(NO_USER);
    let attach = Request::Attach { fid: 0, afid: NO_FID, uname: "me", aname: "", n_uname };
    for (request, failed) in [
        (&attach, true),
        (&Request::Read { fid: 0, offset: 0, count: 1 }, true),
        (&Request::Version { msize: 8192, version: "9P2001" }, false),
        (&attach, true),
        (&Request::Version { msize: 1, version: "9P2000" }, true),
        (&attach, true),
        (&Request::Version { msize: 8192, version: "9P2000" }, false),
        (&attach, false),
        (&attach, true),
    ] {
        wire.send(&bytes(4, request, Dialect::Plan9));
        assert_eq!(wire.answer().unwrap().failed, failed, "{request:?}");
    }
    // A tag that is in use, and flushes of tags that are not.
    let read = bytes(4, &Request::Read { fid: 1, offset: 0, count: 100_000 }, Dialect::Unix);
    let mut wire = bench.attached(Dialect::Unix, 1 << 20);
    wire.send(&[read.as_slice(), &read].concat());
    let said = [wire.answer().unwrap(), wire.answer().unwrap()];
    assert!(said.iter().all(|said| said.tag == 4), "{said:?}");
    assert_eq!(said.iter().filter(|said| said.failed).count(), 1, "{said:?}");
    for oldtag in [5, 4, NO_TAG] {
        wire.send(&bytes(5, &Request::Flush { oldtag }, Dialect::Unix));
        assert!(!wire.answer().unwrap().failed);
    }
    bench.end();
}

#[test]
fn streams_that_are_cut_short_or_come_byte_by_byte_do_no_harm() {
    let bench = Bench::new();
    for dialect in DIALECTS {
        let mut stream = opening(dialect, 8192);
        stream.extend(bytes(4, &Request::Read { fid: 1, offset: 3, count: 5000 }, dialect));
        stream.extend(bytes(5, &Request::Write { fid: 1, offset: 3, data: b"hello" }, dialect));
        for cut in 0..=stream.len() {
            let mut wire = bench.connect();
            wire.send(&stream[..cut]);
            let said = wire.rest();
            assert!(said.iter().all(|said| !said.failed), "{said:?}");
            assert_eq!(said.len() == 6, cut == stream.len(), "cut to {cut}: {said:?}");
        }
        let mut wire = bench.connect();
        stream.iter().for_each(|byte| wire.send(&[*byte]));
        assert_eq!(wire.rest().len(), 6);
    }
    bench.end();
}

#[test]
fn noise_and_damaged_streams_do_no_harm() {
    let bench = Bench::new();
    // No writes, whose damaged offsets would reach the bystander's half of the disk.
    for seed in 1..400 {
        let random = noise(seed * 7919, 4096);
        let dialect = DIALECTS[seed as usize % 3];
        let mut stream = opening(dialect, 8192);
        for tag in 4..20 {
            let request = match tag % 4 {
                0 => Request::Read { fid: 1, offset: u64::from(tag) * 100, count: 700 },
                1 => Request::Flush { oldtag: tag - 1 },
                2 => {
                    Request::Walk { fid: 0, newfid: 1000 + u32::from(tag), names: Names::new(&[]) }
                }
                _ => Request::Clunk { fid: 1000 + u32::from(tag) - 1 },
            };
            stream.extend(bytes(tag, &request, dialect));
        }
        match seed % 4 {
            0 => stream = random,
            1 => stream.extend(random),
            _ => {
                for change in random.chunks_exact(4).take(1 + seed as usize % 8) {
                    let at = usize::from(change[0]) << 8 | usize::from(change[1]);
                    let at = at % stream.len();
                    stream[at] = change[2];
                }
            }
        }
        let mut wire = bench.connect();
        // What the server says is not looked at: a damaged version may have changed the dialect.
        wire.send_anyhow(&stream);
        let _ = wire.stream.shutdown(std::net::Shutdown::Write);
        let mut said = Vec::new();
        match wire.stream.read_to_end(&mut said) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "seed {seed}"),
        }
    }
    bench.end();
}

#[test]
fn clients_that_ask_for_much_and_take_nothing_use_little() {
    let bench = Bench::new();
    let before = bench.memory_kib();
    let wires: Vec<Wire> = (0..16)
        .map(|_| {
            let mut wire = bench.attached(Dialect::Unix, 1 << 20);
            wire.stream.set_nonblocking(true).unwrap();
            let count = (1 << 20) - 24;
            for tag in 0..2000 {
                let read = Request::Read { fid: 1, offset: 0, count };
                match wire.stream.write(&bytes(tag, &read, Dialect::Unix)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            wire
        })
        .collect();
    // Everybody else is served.
    for _ in 0..20 {
        assert_eq!(bench.server.read("sdC0/data", 0, 100_000).unwrap(), vec![0; 100_000]);
    }
    let used = bench.memory_kib().saturating_sub(before);
    // Eight MiB of answers each, rounded up to whole messages, and two messages of input.
    assert!(used < 16 * (12 << 10), "{used} KiB");
    drop(wires);
    bench.end();
}

#[test]
fn clients_that_take_their_answers_late_get_all_of_them() {
    const READS: u16 = 24;
    const COUNT: u32 = (1 << 20) - 24;
    let bench = Bench::new();
    for half_closed in [false, true] {
        let mut wire = bench.attached(Dialect::Unix, 1 << 20);
        for tag in 0..READS {
            let read = Request::Read { fid: 1, offset: u64::from(tag), count: COUNT };
            wire.send(&bytes(tag, &read, Dialect::Unix));
        }
        if half_closed {
            wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        // Meanwhile the server gets as far as it can.
        for _ in 0..50 {
            bench.server.read("sdC0/data", 0, 100_000).unwrap();
        }
        for _ in 0..READS {
            let said = wire.answer().expect("all are answered");
            assert!(!said.failed && said.size == COUNT as usize + 11);
        }
    }
    bench.end();
}

#[test]
fn a_client_that_flushes_without_end_is_one_of_many() {
    let bench = Bench::new();
    let before = bench.memory_kib();
    let mut wire = bench.attached(Dialect::Plan9, 256);
    let walk = Request::Walk { fid: 0, newfid: 2, names: Names::new(&["sdC0", "ctl"]) };
    wire.send(&bytes(1, &walk, Dialect::Plan9));
    wire.send(&bytes(1, &Request::Open { fid: 2, mode: 1 }, Dialect::Plan9));
    assert!(!wire.answer().unwrap().failed && !wire.answer().unwrap().failed);
    let rescan = Request::Write { fid: 2, offset: 0, data: b"rescan" };
    let flush = bytes(2, &Request::Flush { oldtag: 1 }, Dialect::Plan9).repeat(1000);
    let mut sender = wire.stream.try_clone().unwrap();
    let (over, told) = std::sync::mpsc::channel::<()>();
    let flood = thread::spawn(move || {
        while told.try_recv().is_err() {
            // It ends with the connection, whose other end is no longer read.
            if sender.write_all(&flush).is_err() {
                break;
            }
        }
    });
    let reader = wire.stream.try_clone().unwrap();
    let swallow = thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()));
    wire.send(&bytes(1, &rescan, Dialect::Plan9));
    for _ in 0..20 {
        assert_eq!(bench.server.read("sdC0/data", 0, 100_000).unwrap(), vec![0; 100_000]);
    }
    let used = bench.memory_kib().saturating_sub(before);
    assert!(used < 16 << 10, "{used} KiB");
    over.send(()).unwrap();
    wire.stream.shutdown(std::net::Shutdown::Both).unwrap();
    flood.join().unwrap();
    let _ = swallow.join().unwrap();
    bench.end();
}

#[test]
fn clients_that_vanish_in_the_middle_leave_nothing_behind() {
    let bench = Bench::new();
    for round in 0..200u64 {
        let mut wire = bench.attached(Dialect::Unix, 1 << 20);
        let data = noise(round, 64 << 10);
        for tag in 4..12 {
            let offset = round * 4096 + u64::from(tag) * 511;
            let request = match tag % 3 {
                0 => Request::Write { fid: 1, offset, data: &data },
                1 => Request::Read { fid: 1, offset, count: 300_000 },
                _ => Request::Flush { oldtag: tag - 2 },
            };
            wire.send(&bytes(tag, &request, Dialect::Unix));
        }
    }
    // All that they held is free again: this takes as much as there is to be had at once.
    let whole = bench.server.read("sdC0/data", 0, DISK_BYTES).unwrap();
    assert_eq!(whole.len() as u64, DISK_BYTES);
    bench.end();
}

#[test]
fn fids_and_connections_are_limited() {
    const CONNECTIONS: usize = 256;
    const FIDS: u32 = 16384;
    let bench = Bench::new();
    let mut wire = bench.attached(Dialect::Plan9, 8192);
    for fid in 2..=FIDS {
        let walk = Request::Walk { fid: 0, newfid: fid, names: Names::new(&[]) };
        wire.send(&bytes(1, &walk, Dialect::Plan9));
        assert_eq!(wire.answer().unwrap().failed, fid == FIDS, "fid {fid}");
    }
    // The bystander has one, and so has the one with all the fids.
    let mut wires: Vec<Wire> = (2..CONNECTIONS).map(|_| bench.connect()).collect();
    let version =
        bytes(NO_TAG, &Request::Version { msize: 8192, version: "9P2000" }, Dialect::Plan9);
    for wire in &mut wires {
        wire.send(&version);
        assert!(!wire.answer().unwrap().failed);
    }
    let mut turned_away = bench.connect();
    turned_away.send_anyhow(&version);
    assert_eq!(turned_away.answer(), None);
    // One leaves, and there is room for another as soon as the server has seen it.
    wires.pop();
    let begun = std::time::Instant::now();
    loop {
        let mut next = bench.connect();
        next.send_anyhow(&version);
        if next.answer().is_some() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    bench.end();
}

#[test]
fn clients_that_cannot_be_accepted_wait_and_cost_nothing() {
    let server = Server::start(&["null:1048576"]);
    let process = server.child.id();
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64;
    let limit = Rlimit { current: Some(open + 8), maximum: Some(open + 8) };
    prlimit(Some(server.pid()), Resource::Nofile, limit).unwrap();
    let path = server.folder.path().join("9p");
    let clients: Vec<_> = (0..60).map(|_| UnixStream::connect(&path).unwrap()).collect();
    while !server.errors().contains("cannot be accepted") {}
    let before = cpu_ticks(process);
    // The last one waits for an answer in vain meanwhile.
    let mut last = clients.last().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let kind = last.read(&mut [0]).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::WouldBlock);
    let spent = cpu_ticks(process) - before;
    assert!(spent < 20, "{spent} hundredths of a second");
    assert_eq!(server.errors().matches("cannot be accepted").count(), 1);
    drop(clients);
    let client = &mut server.client();
    assert!(client.walk("sdC0/data").is_ok());
}
