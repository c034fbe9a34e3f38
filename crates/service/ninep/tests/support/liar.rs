//! A server that is not ours: it says what a test has it say.
#![allow(unreachable_pub, reason = "shared by tests of several crates")]

use outboard_ninep::wire::{Dialect, Frame, Qid, QidKind, Qids, Reply, Request};
use std::io::{Read, Write};

const QID: Qid = Qid { kind: QidKind::empty(), version: 0, path: 0 };

/// Serves one client, until it goes. It finds every file that it looks for; what else it asks for
/// is answered with `answer`.
pub fn serve<'a>(mut stream: impl Read + Write, mut answer: impl FnMut(&Request<'_>) -> Reply<'a>) {
    let mut message = vec![0; 4];
    while stream.read_exact(&mut message[..4]).is_ok() {
        let size = u32::from_le_bytes(*message.first_chunk().unwrap());
        message.resize(size as usize, 0);
        stream.read_exact(&mut message[4..]).unwrap();
        let frame = Frame::split(&message, u32::MAX).unwrap().unwrap();
        let request = Request::decode(frame.number, frame.body, Dialect::Unix).unwrap();
        let reply = match &request {
            Request::Version { msize, version } => Reply::Version { msize: *msize, version },
            Request::Attach { .. } => Reply::Attach { qid: QID },
            Request::Walk { names, .. } => {
                let mut qids = Qids::EMPTY;
                names.as_slice().iter().for_each(|_| assert!(qids.push(QID)));
                Reply::Walk { qids }
            }
            Request::Open { .. } => Reply::Open { qid: QID, iounit: 0 },
            Request::Clunk { .. } => Reply::Clunk {},
            request => answer(request),
        };
        let mut bytes = Vec::new();
        reply.encode(frame.tag, &mut bytes, Dialect::Unix);
        if stream.write_all(&bytes).is_err() {
            break;
        }
    }
}
