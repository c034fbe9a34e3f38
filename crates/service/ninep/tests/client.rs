//! The client, against servers that answer what they like.

use outboard_ninep::Address;
use outboard_ninep::client::{Client, ClientError, Mode};
use outboard_ninep::wire::{Dialect, Frame, Qid, QidKind, Qids, Reply, Request};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

const QID: Qid = Qid { kind: QidKind::empty(), version: 0, path: 0 };

/// A client of a server that has a file `file`, and answers reads and writes with `answer`.
fn client(answer: impl Fn(&Request<'_>) -> Reply<'static> + Send + 'static) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut message = vec![0; 4];
        while stream.read_exact(&mut message[..4]).is_ok() {
            let size = u32::from_le_bytes(*message.first_chunk().unwrap());
            message.resize(size as usize, 0);
            stream.read_exact(&mut message[4..]).unwrap();
            let frame = Frame::split(&message, u32::MAX).unwrap().unwrap();
            let request = Request::decode(frame.number, frame.body, Dialect::Unix).unwrap();
            let mut bytes = Vec::new();
            reply(&request, &answer).encode(frame.tag, &mut bytes, Dialect::Unix);
            if stream.write_all(&bytes).is_err() {
                break;
            }
        }
    });
    Client::connect(&Address::Tcp { host: "127.0.0.1".into(), port }).unwrap()
}

fn reply(request: &Request<'_>, answer: impl Fn(&Request<'_>) -> Reply<'static>) -> Reply<'static> {
    match request {
        Request::Version { msize, .. } => {
            Reply::Version { msize: *msize, version: Dialect::Unix.name() }
        }
        Request::Attach { .. } => Reply::Attach { qid: QID },
        Request::Walk { .. } => {
            let mut qids = Qids::EMPTY;
            qids.push(QID);
            Reply::Walk { qids }
        }
        Request::Open { .. } => Reply::Open { qid: QID, iounit: 0 },
        request => answer(request),
    }
}

#[test]
fn an_answer_to_a_write_is_no_data() {
    for count in [0, 1, 65_535, u32::MAX] {
        let client = &mut client(move |_| Reply::Write { count });
        let fid = client.walk("file").unwrap();
        client.open(&fid, Mode::Read).unwrap();
        let sink = |data: &[u8]| -> Result<(), ClientError> { panic!("{} bytes", data.len()) };
        let error = client.read_range(&fid, 0, 1 << 20, sink).unwrap_err();
        assert!(matches!(error, ClientError::Protocol(_)), "{error}");
    }
}

#[test]
fn an_answer_to_a_read_is_no_count() {
    for data in [&b""[..], b"data"] {
        let client = &mut client(move |_| Reply::Read { data });
        let fid = client.walk("file").unwrap();
        client.open(&fid, Mode::Write).unwrap();
        let error = client.write_range(&fid, 0, |room| Ok::<_, ClientError>(room.len()));
        let error = error.unwrap_err();
        assert!(matches!(error, ClientError::Protocol(_)), "{error}");
        assert!(error.to_string().contains("a wrong answer to tag"), "{error}");
    }
}
