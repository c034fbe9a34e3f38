//! A hostile client: its messages are decoded, and served.

use crate::memory::{Memory, SECTOR};
use outboard_block::disk::Disks;
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, DmaSpace};
use outboard_linux::SharedMemory;
use outboard_ninep::sd::{SdDone, SdTree};
use outboard_ninep::server::{Completed, Limits, Owner, RequestId, Session};
use outboard_ninep::wire::{Dialect, Frame, HEADER_BYTES, Reply, Request};
use std::collections::HashMap;
use std::sync::Arc;

const DIALECTS: [Dialect; 3] = [Dialect::Plan9, Dialect::Unix, Dialect::Linux];
const LIMITS: Limits = Limits { msize: (16384, 256), fids: 64, requests: 16, bytes: 65536 };
const DISK_SECTORS: usize = 64;

/// What a client sends: `input`, whose first byte says in how large pieces it arrives.
pub fn messages(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else { return };
    decode_all(stream);
    serve(usize::from(*piece) * 16 + 1, stream);
}

/// Decodes what there is in every dialect; what can be decoded is the same after it was encoded.
fn decode_all(stream: &[u8]) {
    for dialect in DIALECTS {
        let mut rest = stream;
        while let Ok(Some(Frame { number, tag, body, size })) = Frame::split(rest, u32::MAX) {
            if let Ok(request) = Request::decode(number, body, dialect) {
                let mut bytes = Vec::new();
                request.encode(tag, &mut bytes, dialect);
                assert_eq!(Request::decode(number, &bytes[HEADER_BYTES..], dialect), Ok(request));
            }
            if let Ok(reply) = Reply::decode(number, body, dialect) {
                let mut bytes = Vec::new();
                reply.encode(tag, &mut bytes, dialect);
                assert_eq!(Reply::decode(number, &bytes[HEADER_BYTES..], dialect), Ok(reply));
            }
            rest = &rest[size..];
        }
    }
}

/// A disk with a partition, and a session.
struct Server {
    tree: SdTree,
    session: Session<SdTree>,
    said: Vec<u8>,
    arena: Arena,
}

impl Server {
    fn new() -> Self {
        thread_local! {
            static ARENA: Arena = SharedMemory::for_model("fuzz", 8 << 20).expect("memory").1;
        }
        let arena = ARENA.with(Arena::clone);
        assert_eq!(arena.statistics().buffers, 0, "the one before has left something");
        let mut disks = Disks::new();
        let driver = Memory::new(disk(), 4, 8, &arena);
        disks.add_driver(Box::new(driver), Vec::new(), 1 << 20);
        while !disks.is_settled() {
            disks.poll(Instant::ORIGIN);
        }
        let owner = Owner { name: "me".into(), user: 1, group: 1 };
        let session = Session::new(1, LIMITS, Arc::new(owner));
        Self { tree: SdTree::new(disks, 0), session, said: Vec::new(), arena }
    }

    /// Lets the disk do one thing, and the session answer.
    fn turn(&mut self) {
        self.tree.disks().kick(Instant::ORIGIN);
        self.tree.disks().poll(Instant::ORIGIN);
        while let Some((request, result)) = self.tree.next_done() {
            self.answer(request, result);
            self.session.work(&mut self.tree);
        }
        let unsent = self.session.unsent();
        self.said.extend_from_slice(unsent);
        let count = unsent.len();
        self.session.sent(count);
        self.session.work(&mut self.tree);
    }

    fn answer(
        &mut self,
        request: RequestId,
        result: Result<SdDone, outboard_ninep::server::FileError>,
    ) {
        match result {
            Ok(SdDone::Data(disk, data)) => {
                self.session.complete(request, Completed::Data(&data));
                self.tree.recycle(disk, data);
            }
            Ok(SdDone::Text(text)) => self.session.complete(request, Completed::Data(&text)),
            Ok(SdDone::Count(count)) => self.session.complete(request, Completed::Count(count)),
            Ok(SdDone::All) => self.session.complete(request, Completed::All),
            Err(error) => self.session.complete(request, Completed::Failed(error)),
        }
    }
}

/// Sectors that name themselves, and a boot record with one partition.
fn disk() -> Vec<u8> {
    let mut content: Vec<u8> = (0..DISK_SECTORS * SECTOR).map(|i| (i / SECTOR) as u8).collect();
    content[446..462].copy_from_slice(b"\0\0\0\0\x83\0\0\0\x08\0\0\0\x10\0\0\0");
    content[510..512].copy_from_slice(&[0x55, 0xaa]);
    content[462..510].fill(0);
    content
}

/// Serves the stream to its end; everything that is said is well-formed, and nothing is left.
fn serve(piece: usize, stream: &[u8]) {
    let mut server = Server::new();
    for piece in stream.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() && server.session.closed().is_none() {
            let room = server.session.room();
            let count = room.len().min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            if count > 0 {
                server.session.received(count);
                server.session.work(&mut server.tree);
                rest = &rest[count..];
            }
            server.turn();
        }
    }
    server.session.work(&mut server.tree);
    // Each turn completes something; there is never more under way than the limits allow.
    for _ in 0..10_000 {
        if server.tree.disks().is_idle() && server.session.is_idle() {
            break;
        }
        server.turn();
    }
    assert!(server.tree.disks().is_idle() && server.session.is_idle(), "it does not end");
    check(&server.said);
    if server.session.closed().is_none() {
        every_request_is_answered(stream, &server.said);
    }
    let Server { mut tree, mut session, arena, .. } = server;
    session.disconnect(&mut tree);
    drop((tree, session));
    assert_eq!(arena.statistics().buffers, 0);
}

/// Messages as number, tag and body.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, u16, &[u8])> {
    std::iter::from_fn(move || {
        let Frame { number, tag, body, size } = Frame::split(bytes, u32::MAX).ok()??;
        bytes = &bytes[size..];
        Some((number, tag, body))
    })
}

/// Each request has one answer; only if the client flushed it, or started afresh, it may have none.
fn every_request_is_answered(stream: &[u8], said: &[u8]) {
    const VERSION: u8 = 100;
    if frames(stream).skip(1).any(|(number, ..)| number == VERSION) {
        return;
    }
    let mut balance: HashMap<u16, i32> = HashMap::new();
    frames(stream).for_each(|(_, tag, _)| *balance.entry(tag).or_default() += 1);
    frames(said).for_each(|(_, tag, _)| *balance.entry(tag).or_default() -= 1);
    for (number, _, body) in frames(stream) {
        if let Ok(Request::Flush { oldtag }) = Request::decode(number, body, Dialect::Plan9) {
            balance.entry(oldtag).and_modify(|left| *left = 0.min(*left));
        }
    }
    balance.retain(|_, left| *left != 0);
    assert!(balance.is_empty(), "more requests than answers, by tag: {balance:?}");
}

/// All that a server says is made of replies, in some dialect.
fn check(said: &[u8]) {
    let mut rest = said;
    while !rest.is_empty() {
        let Ok(Some(Frame { number, body, size, .. })) = Frame::split(rest, LIMITS.msize.0) else {
            panic!("half a message");
        };
        let known =
            DIALECTS.into_iter().any(|dialect| Reply::decode(number, body, dialect).is_ok());
        assert!(known, "{number} {body:?}");
        rest = &rest[size..];
    }
}
