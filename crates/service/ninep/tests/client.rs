//! The client, against servers that answer what they like.

#[path = "support/liar.rs"]
mod liar;

use outboard_ninep::Address;
use outboard_ninep::client::{Client, ClientError, Mode};
use outboard_ninep::wire::{Reply, Request, UnixErrno};
use std::io::Read;
use std::net::TcpListener;
use std::thread;

/// A client of a server that answers reads and writes with `answer`.
fn client(answer: impl FnMut(&Request<'_>) -> Reply<'static> + Send + 'static) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || liar::serve(listener.accept().unwrap().0, answer));
    Client::connect(&Address::Tcp { host: "127.0.0.1".into(), port }).unwrap()
}

#[test]
fn a_server_that_ends_is_said_to_have_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut size = [0; 4];
        stream.read_exact(&mut size).unwrap();
        let mut request = vec![0; u32::from_le_bytes(size) as usize - size.len()];
        stream.read_exact(&mut request).unwrap();
    });
    let error = Client::connect(&Address::Tcp { host: "127.0.0.1".into(), port }).unwrap_err();
    let ClientError::Io(error) = error else { panic!("{error}") };
    assert!(error.to_string().starts_with("the server has ended"), "{error}");
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
        let error = client.write_range(&fid, 0, |room| Ok::<_, ClientError>(room.len()), |_| ());
        let error = error.unwrap_err();
        assert!(matches!(error, ClientError::Protocol(_)), "{error}");
        assert!(error.to_string().contains("a wrong answer to tag"), "{error}");
    }
}

#[test]
fn how_much_was_written_before_an_error_is_known() {
    let error = |errno| Reply::Error { message: "no", errno: UnixErrno(errno) };
    let mut pieces = 0;
    let client = &mut client(move |request| {
        let Request::Write { offset, data, .. } = request else { return error(1) };
        pieces += 1;
        match pieces {
            1 => Reply::Write { count: data.len() as u32 },
            // Part of it goes, and then nothing: neither the rest nor what is behind it.
            2 => Reply::Write { count: 1000 },
            _ => error(*offset as u32),
        }
    });
    let fid = client.walk("file").unwrap();
    client.open(&fid, Mode::Write).unwrap();
    let (chunk, mut written) = (client.chunk_bytes() as u64, 0);
    let mut left = 5;
    let source = |room: &mut [u8]| {
        left -= 1;
        Ok::<_, ClientError>(if left < 0 { 0 } else { room.len() })
    };
    let error = client.write_range(&fid, 0, source, |count| written = count).unwrap_err();
    assert_eq!(written, chunk + 1000);
    let ClientError::Server { number, .. } = error else { panic!("{error}") };
    assert_eq!(u64::from(number), chunk + 1000, "the first error is the one that counts");
}
