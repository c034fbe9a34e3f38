//! The `blkio` crate, somebody else's library for disks with a virtio driver below it, on disks of
//! ours.

mod support;

use blkio::{Blkio, Blkioq, Completion, MemoryRegion, ReqFlags, iovec};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::Path;
use support::{Exporter, image, noise};

const DISK_BYTES: u64 = 16 << 20;
/// Of the client's memory: a piece for each request under way.
const DEPTH: usize = 32;
const PIECE_BYTES: usize = 256 << 10;

/// The library, with memory that the back end has been given, and one queue.
struct Client {
    queue: Blkioq,
    memory: File,
    region: MemoryRegion,
    library: Blkio,
}

impl Client {
    fn connect(socket: &Path, queues: i32, polls: bool) -> Self {
        let mut library = Blkio::new("virtio-blk-vhost-user").unwrap();
        library.set_str("path", socket.to_str().unwrap()).unwrap();
        library.connect().unwrap();
        let counts = if polls { [0, queues] } else { [queues, 0] };
        library.set_i32("num-queues", counts[0]).unwrap();
        library.set_i32("num-poll-queues", counts[1]).unwrap();
        let mut started = library.start().unwrap();
        let region = library.alloc_mem_region(DEPTH * PIECE_BYTES).unwrap();
        library.map_mem_region(&region).unwrap();
        let own = format!("/proc/self/fd/{}", region.fd);
        let memory = File::options().read(true).write(true).open(own).unwrap();
        let queues = if polls { &mut started.poll_queues } else { &mut started.queues };
        Self { queue: queues.pop().unwrap(), memory, region, library }
    }

    /// Where a request's piece of memory begins in this process.
    fn piece(&self, number: usize) -> *mut u8 {
        (self.region.addr + number % DEPTH * PIECE_BYTES) as *mut u8
    }

    fn fill(&self, number: usize, bytes: &[u8]) {
        self.memory.write_all_at(bytes, (number % DEPTH * PIECE_BYTES) as u64).unwrap();
    }

    fn content(&self, number: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_exact_at(&mut bytes, (number % DEPTH * PIECE_BYTES) as u64).unwrap();
        bytes
    }

    /// Waits for one request at least; the numbers of those that have ended, and how.
    fn wait(&mut self) -> Vec<(usize, i32)> {
        let mut ended: [MaybeUninit<Completion>; DEPTH] = [const { MaybeUninit::uninit() }; DEPTH];
        let count = self.queue.do_io(&mut ended, 1, None, None).unwrap();
        ended[..count]
            .iter()
            .map(|completion| {
                // SAFETY: the library has written as many as it says (S9).
                let completion = unsafe { completion.assume_init_ref() };
                (completion.user_data, completion.ret)
            })
            .collect()
    }

    /// Makes one request, and waits for it; how it ended.
    fn one(&mut self, ask: impl FnOnce(&mut Blkioq)) -> i32 {
        ask(&mut self.queue);
        let ended = self.wait();
        assert_eq!(ended.len(), 1);
        ended[0].1
    }

    /// Makes requests, as many at a time as there are pieces of memory, and has each one's end
    /// looked at.
    fn all(
        &mut self,
        count: usize,
        mut ask: impl FnMut(&mut Self, usize),
        mut look: impl FnMut(&Self, usize),
    ) {
        let mut free: Vec<usize> = (0..DEPTH).collect();
        let (mut next, mut done, mut pieces) = (0, 0, vec![0; DEPTH]);
        while done < count {
            while next < count
                && let Some(piece) = free.pop()
            {
                pieces[piece] = next;
                ask(self, next * DEPTH + piece);
                next += 1;
            }
            for (number, result) in self.wait() {
                assert_eq!(result, 0, "request {}", number / DEPTH);
                look(self, number);
                assert_eq!(pieces[number % DEPTH], number / DEPTH, "it ends once");
                free.push(number % DEPTH);
                done += 1;
            }
        }
    }
}

/// Pieces of a disk of all sizes, without gaps: where each begins, and its bytes.
fn parts() -> Vec<(u64, usize)> {
    let sizes = [512, 4096, 1536, 65_536, 512, PIECE_BYTES, 12_288, 131_072];
    let (mut at, mut parts) = (0, Vec::new());
    for size in sizes.iter().cycle() {
        let size = (DISK_BYTES - at).min(*size as u64);
        if size == 0 {
            return parts;
        }
        parts.push((at, size as usize));
        at += size;
    }
    unreachable!("the sizes go on for ever")
}

/// Writes a whole disk, and reads it back by another queue.
fn write_and_read(socket: &Path, queues: i32, polls: bool, seed: u64) {
    let mut client = Client::connect(socket, queues, polls);
    assert_eq!(client.library.get_u64("capacity").unwrap(), DISK_BYTES);
    let parts = parts();
    let bytes = |index: usize| noise(seed + index as u64, parts[index].1);
    let write = |client: &mut Client, number| {
        let (offset, len) = parts[number / DEPTH];
        client.fill(number, &bytes(number / DEPTH));
        let durable = if number % 3 == 0 { ReqFlags::FUA } else { ReqFlags::empty() };
        let memory = client.piece(number);
        client.queue.write(offset, memory, len, number, durable);
    };
    client.all(parts.len(), write, |_, _| {});
    assert_eq!(client.one(|queue| queue.flush(0, ReqFlags::empty())), 0);
    drop(client);
    let mut client = Client::connect(socket, queues, !polls);
    let read = |client: &mut Client, number| {
        let (offset, len) = parts[number / DEPTH];
        let memory = client.piece(number);
        client.queue.read(offset, memory, len, number, ReqFlags::empty());
    };
    client.all(parts.len(), read, |client, number| {
        let index = number / DEPTH;
        assert!(client.content(number, parts[index].1) == bytes(index), "part {index}");
    });
}

/// What reads as zeros, scattered memory, and what cannot be done.
fn try_the_rest(socket: &Path) {
    let none = ReqFlags::empty();
    let mut client = Client::connect(socket, 1, false);
    let [first, second] = [client.piece(0), client.piece(1)];
    assert_eq!(client.one(|queue| queue.write_zeroes(65_536, 131_072, 0, none)), 0);
    assert_eq!(client.one(|queue| queue.read(65_536, first, 131_072, 0, none)), 0);
    assert!(client.content(0, 131_072).iter().all(|byte| *byte == 0));
    client.fill(0, &noise(7, 1000));
    client.fill(1, &noise(8, 24));
    let piece = |memory: *mut u8, len| iovec { iov_base: memory.cast(), iov_len: len };
    let scattered = [piece(first, 1000), piece(second, 24)];
    assert_eq!(client.one(|queue| queue.writev(4096, scattered.as_ptr(), 2, 0, none)), 0);
    assert_eq!(client.one(|queue| queue.read(4096, second, 1024, 0, none)), 0);
    assert_eq!(client.content(1, 1024), [noise(7, 1000), noise(8, 24)].concat());
    let scattered = [piece(second, 24), piece(first, 1000)];
    assert_eq!(client.one(|queue| queue.readv(4096, scattered.as_ptr(), 2, 0, none)), 0);
    assert_eq!(client.content(1, 24), noise(7, 24));
    let beyond = client.one(|queue| queue.read(DISK_BYTES, first, 512, 0, none));
    assert!(beyond < 0, "there is nothing");
    let across = client.one(|queue| queue.write(DISK_BYTES - 512, first, 1024, 0, none));
    assert!(across < 0, "there is not all of it");
    assert_eq!(client.one(|queue| queue.read(DISK_BYTES - 512, first, 512, 0, none)), 0);
    let most = client.library.get_u64("max-discard-len").unwrap();
    if most > 0 {
        assert_eq!(client.one(|queue| queue.discard(0, most.min(1 << 20), 0, none)), 0);
    }
}

#[test]
fn blkio_reads_and_writes_a_disk_of_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut exporter = Exporter::start(&["--ram", "16M"], folder.path());
    write_and_read(&exporter.socket, 1, false, 100);
    write_and_read(&exporter.socket, 4, true, 1000);
    try_the_rest(&exporter.socket);
    assert_eq!(exporter.end(), Some(0));
}

#[test]
fn blkio_reads_and_writes_disks_behind_controllers() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["--sim", "--lab"] {
        let disk = image(folder.path(), kind, DISK_BYTES);
        let mut exporter = Exporter::start(&[kind, &disk], folder.path());
        write_and_read(&exporter.socket, 2, false, 100);
        let written = std::fs::read(&disk).unwrap();
        for (index, (offset, len)) in parts().into_iter().enumerate() {
            let part = &written[offset as usize..offset as usize + len];
            assert!(part == noise(100 + index as u64, len), "{kind}, part {index}");
        }
        try_the_rest(&exporter.socket);
        assert_eq!(exporter.end(), Some(0));
    }
}
