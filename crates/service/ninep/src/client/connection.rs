//! A connection, and one request at a time.

use crate::address::Address;
use crate::wire::{
    Dialect, Frame, HEADER_BYTES, IO_HEADER_BYTES, MAX_NAMES, NO_FID, NO_TAG, NO_USER, Names,
    NumericUser, Reader, Reply, Request, Stat, io_unit,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use thiserror::Error;

/// The size of messages that the client asks for.
const MSIZE: u32 = 1 << 20;
/// Messages up to this length are wiped once they were sent.
const SHORT: usize = 1024;
/// Entries of a directory that the client reads.
const MAX_ENTRIES: usize = 100_000;

/// What can go wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server answered with an error.
    #[error("{message}")]
    Server {
        /// As in Linux's `errno.h`; 0 if the server does not say.
        number: u32,
        /// The server's words.
        message: String,
    },
    /// Nobody listens.
    #[error("no server answers at {address}: {error}. Start one with: outboard serve")]
    Connect {
        /// Where.
        address: Address,
        /// Why.
        error: io::Error,
    },
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The server does not keep to the protocol.
    #[error("the server does not keep to the protocol: {0}")]
    Protocol(String),
}

/// A file that the server knows by a number. It is to be [clunked](Client::clunk).
#[derive(Debug)]
pub struct Fid(pub(super) u32);

/// What the server says about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// Last element of its path.
    pub name: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Permissions, as in Unix.
    pub permissions: u32,
    /// Length in bytes.
    pub bytes: u64,
    /// Last change, in seconds since 1970.
    pub modified: u32,
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A client that is attached to a server's root.
pub struct Client {
    stream: Box<dyn Stream>,
    pub(super) msize: u32,
    free_fids: Vec<u32>,
    last_fid: u32,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

const DIALECT: Dialect = Dialect::Unix;
const ROOT: u32 = 0;

impl Client {
    /// Connects to a server and attaches to its root.
    pub fn connect(address: &Address) -> Result<Self, ClientError> {
        let failed = |error| ClientError::Connect { address: address.clone(), error };
        let stream: Box<dyn Stream> = match address {
            Address::Unix(path) => Box::new(UnixStream::connect(path).map_err(failed)?),
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).map_err(failed)?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        Self::attach(stream)
    }

    fn attach(stream: Box<dyn Stream>) -> Result<Self, ClientError> {
        let (outgoing, incoming) = (Vec::new(), Vec::new());
        let mut client = Self {
            stream,
            msize: MSIZE,
            free_fids: Vec::new(),
            last_fid: ROOT,
            outgoing,
            incoming,
        };
        let version = Request::Version { msize: MSIZE, version: DIALECT.name() };
        client.msize = client.request_tagged(NO_TAG, &version, |reply| match reply {
            Reply::Version { msize, version } if *version == DIALECT.name() => {
                let minimum = IO_HEADER_BYTES + 512;
                (minimum..=MSIZE).contains(msize).then_some(*msize)
            }
            _ => None,
        })?;
        let n_uname = NumericUser(NO_USER);
        let attach = Request::Attach { fid: ROOT, afid: NO_FID, uname: "", aname: "", n_uname };
        client.request(&attach, |reply| matches!(reply, Reply::Attach { .. }).then_some(()))?;
        Ok(client)
    }

    /// The most bytes in one read or write.
    pub const fn chunk_bytes(&self) -> usize {
        io_unit(self.msize) as usize
    }

    /// Goes to a file by its path from the root.
    pub fn walk(&mut self, path: &str) -> Result<Fid, ClientError> {
        let names: Vec<_> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        let fid = self.free_fids.pop().unwrap_or_else(|| {
            self.last_fid += 1;
            self.last_fid
        });
        let mut from = ROOT;
        let mut steps = names.chunks(MAX_NAMES);
        let mut next = Some(steps.next().unwrap_or_default());
        while let Some(step) = next {
            let request = Request::Walk { fid: from, newfid: fid, names: Names::new(step) };
            let went = self.request(&request, |reply| match reply {
                Reply::Walk { qids } => Some(qids.as_slice().len()),
                _ => None,
            });
            match went {
                Ok(count) if count == step.len() => from = fid,
                result => {
                    if from == fid {
                        self.clunk(Fid(fid))?;
                    } else {
                        self.free_fids.push(fid);
                    }
                    let missing = format!("there is no file {path:?}");
                    const ENOENT: u32 = 2;
                    result?;
                    return Err(ClientError::Server { number: ENOENT, message: missing });
                }
            }
            next = steps.next();
        }
        Ok(Fid(fid))
    }

    /// Opens a file for reading or for writing.
    pub fn open(&mut self, fid: &Fid, mode: Mode) -> Result<(), ClientError> {
        let mode = match mode {
            Mode::Read => 0,
            Mode::Write => 1,
        };
        let opened = |reply: &Reply<'_>| matches!(reply, Reply::Open { .. }).then_some(());
        self.request(&Request::Open { fid: fid.0, mode }, opened)
    }

    /// Forgets a file.
    pub fn clunk(&mut self, fid: Fid) -> Result<(), ClientError> {
        let clunked = |reply: &Reply<'_>| matches!(reply, Reply::Clunk {}).then_some(());
        let result = self.request(&Request::Clunk { fid: fid.0 }, clunked);
        self.free_fids.push(fid.0);
        result
    }

    /// Asks about a file.
    pub fn stat(&mut self, fid: &Fid) -> Result<FileStatus, ClientError> {
        self.request(&Request::Stat { fid: fid.0 }, |reply| match reply {
            Reply::Stat { stat } => Some(status(stat)),
            _ => None,
        })
    }

    /// Makes what was written to an open file durable: a wstat that changes nothing (stat(5)).
    pub fn sync(&mut self, fid: &Fid) -> Result<(), ClientError> {
        let synced = |reply: &Reply<'_>| matches!(reply, Reply::Wstat {}).then_some(());
        self.request(&Request::Wstat { fid: fid.0, stat: Stat::UNCHANGED }, synced)
    }

    /// Lists an open directory.
    pub fn entries(&mut self, fid: &Fid) -> Result<Vec<FileStatus>, ClientError> {
        let (mut entries, mut offset) = (Vec::new(), 0);
        let count = self.chunk_bytes() as u32;
        loop {
            let request = Request::Read { fid: fid.0, offset, count };
            let bytes = self.request(&request, |reply| match reply {
                Reply::Read { data } => Some(data.to_vec()),
                _ => None,
            })?;
            if bytes.is_empty() || entries.len() > MAX_ENTRIES {
                return Ok(entries);
            }
            offset += bytes.len() as u64;
            let mut reader = Reader::new(&bytes, DIALECT);
            while reader.finish().is_err() {
                let stat = Stat::get_entry(&mut reader).map_err(|error| {
                    ClientError::Protocol(format!("an entry of a directory: {error}"))
                })?;
                entries.push(status(&stat));
            }
        }
    }

    /// Sends a request and waits for its answer; `take` picks from it what is wanted.
    pub(super) fn request<V>(
        &mut self,
        request: &Request<'_>,
        take: impl FnOnce(&Reply<'_>) -> Option<V>,
    ) -> Result<V, ClientError> {
        self.request_tagged(0, request, take)
    }

    fn request_tagged<V>(
        &mut self,
        tag: u16,
        request: &Request<'_>,
        take: impl FnOnce(&Reply<'_>) -> Option<V>,
    ) -> Result<V, ClientError> {
        self.send(tag, request)?;
        self.receive(|answered, reply| {
            if answered != tag {
                let message = format!("an answer to tag {answered}, which was not asked");
                return Err(ClientError::Protocol(message));
            }
            let unexpected = || ClientError::Protocol(format!("an unexpected answer: {reply:?}"));
            take(&reply).ok_or_else(unexpected)
        })
    }

    /// Sends a request without waiting.
    pub(super) fn send(&mut self, tag: u16, request: &Request<'_>) -> Result<(), ClientError> {
        self.outgoing.clear();
        request.encode(tag, &mut self.outgoing, DIALECT);
        let sent = self.stream.write_all(&self.outgoing);
        // What is short may be a command with a password.
        if self.outgoing.len() <= SHORT {
            self.outgoing.fill(0);
            std::hint::black_box(&mut self.outgoing);
        }
        Ok(sent.map_err(explain)?)
    }

    /// Waits for an answer; an error of the server's is passed to nobody but the caller.
    pub(super) fn receive<V>(
        &mut self,
        take: impl FnOnce(u16, Reply<'_>) -> Result<V, ClientError>,
    ) -> Result<V, ClientError> {
        self.receive_any(|tag, reply| match reply {
            Reply::Error { message, errno } => {
                Err(ClientError::Server { number: errno.0, message: message.to_owned() })
            }
            reply => take(tag, reply),
        })
    }

    /// Waits for an answer of whatever kind.
    pub(super) fn receive_any<V>(
        &mut self,
        take: impl FnOnce(u16, Reply<'_>) -> Result<V, ClientError>,
    ) -> Result<V, ClientError> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).map_err(explain)?;
        let size = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if (size as usize) < HEADER_BYTES || size > self.msize {
            return Err(ClientError::Protocol(format!("a message of {size} bytes")));
        }
        self.incoming.resize(size as usize, 0);
        self.incoming[..HEADER_BYTES].copy_from_slice(&header);
        self.stream.read_exact(&mut self.incoming[HEADER_BYTES..]).map_err(explain)?;
        let frame = Frame::split(&self.incoming, self.msize).ok().flatten();
        let malformed = |what: String| ClientError::Protocol(what);
        let Frame { number, tag, body, .. } =
            frame.ok_or_else(|| malformed("half a message".into()))?;
        let reply = Reply::decode(number, body, DIALECT)
            .map_err(|error| malformed(format!("type {number}: {error}")))?;
        take(tag, reply)
    }
}

/// Says what the end of a connection means.
fn explain(error: io::Error) -> io::Error {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let kind = error.kind();
    match kind {
        BrokenPipe | ConnectionReset | UnexpectedEof => {
            io::Error::new(kind, "the server has ended; start it again with: outboard serve")
        }
        _ => error,
    }
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reading.
    Read,
    /// Writing.
    Write,
}

fn status(stat: &Stat<'_>) -> FileStatus {
    FileStatus {
        name: stat.name.to_owned(),
        directory: stat.mode & Stat::DIRECTORY != 0,
        permissions: stat.mode & 0o777,
        bytes: stat.length,
        modified: stat.modify_time,
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("msize", &self.msize).finish_non_exhaustive()
    }
}
