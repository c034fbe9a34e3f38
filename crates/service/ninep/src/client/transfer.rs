//! Ranges of bytes, with several requests under way.

use super::connection::{Client, ClientError, Fid};
#[cfg(doc)]
use crate::wire::NO_TAG;
use crate::wire::{Reply, Request};
use std::collections::{BTreeMap, VecDeque};

/// Requests under way at once.
pub const WINDOW: usize = 8;

/// A request under way: what it reads or writes.
#[derive(Debug, Clone, Copy)]
struct Piece {
    offset: u64,
    len: usize,
}

/// Data to be written, and which byte of the range it begins with.
type Parcel = (u64, Vec<u8>);

/// What came of a piece of a read.
type Answer = Result<Vec<u8>, ClientError>;

/// What came of a request that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transferred<'a> {
    /// Data was read; less than was asked for, or none, at the end of a file.
    Read(&'a [u8]),
    /// This many bytes were written.
    Written(usize),
}

impl Client {
    /// Reads `len` bytes of an open file from `offset` on, or up to its end if that comes before,
    /// and passes them to `sink`, in order. Returns how many there were.
    ///
    /// After an error everything in front of it was passed on.
    pub fn read_range<E: From<ClientError>>(
        &mut self,
        fid: &Fid,
        offset: u64,
        len: u64,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let end = offset.saturating_add(len);
        let chunk = self.chunk_bytes();
        let mut tags: Vec<Option<Piece>> = vec![None; WINDOW];
        // What came before its turn, by offset.
        let mut early: BTreeMap<u64, Answer> = BTreeMap::new();
        let (mut asked, mut passed, mut under_way) = (offset, offset, 0);
        let mut last = end;
        let mut failure = None;
        loop {
            // Nothing is asked for that lies beyond what failed, or beyond the end.
            while asked < last && early.len() + under_way < WINDOW && failure.is_none() {
                let len = chunk.min(usize::try_from(last - asked).unwrap_or(usize::MAX));
                self.ask(fid, Piece { offset: asked, len }, &mut tags)?;
                asked += len as u64;
                under_way += 1;
            }
            if under_way == 0 {
                break;
            }
            let (piece, answer) = self.answered(&mut tags)?;
            under_way -= 1;
            match &answer {
                Ok(data) if data.is_empty() => last = last.min(piece.offset),
                Ok(data) if data.len() < piece.len => {
                    let rest = piece.offset + data.len() as u64;
                    let len = piece.len - data.len();
                    self.ask(fid, Piece { offset: rest, len }, &mut tags)?;
                    under_way += 1;
                }
                Ok(_) => {}
                Err(_) => last = last.min(piece.offset),
            }
            early.insert(piece.offset, answer);
            while let Some(entry) = early.first_entry().filter(|entry| *entry.key() == passed) {
                match entry.remove() {
                    Ok(data) if data.is_empty() => break,
                    Ok(data) if failure.is_none() => {
                        passed += data.len() as u64;
                        if let Err(error) = sink(&data) {
                            failure = Some(error);
                        }
                    }
                    Ok(_) => break,
                    Err(error) => failure = failure.or(Some(error.into())),
                }
            }
        }
        failure.map_or(Ok(passed - offset), Err)
    }

    /// Asks for `len` bytes without waiting; `tag` is the caller's name for the request, below
    /// [`NO_TAG`] and not in use.
    pub fn start_read(
        &mut self,
        tag: u16,
        fid: &Fid,
        offset: u64,
        len: usize,
    ) -> Result<(), ClientError> {
        self.send(tag, &Request::Read { fid: fid.0, offset, count: len as u32 })
    }

    /// Sends `data` to be written without waiting; see [`start_read`](Self::start_read).
    pub fn start_write(
        &mut self,
        tag: u16,
        fid: &Fid,
        offset: u64,
        data: &[u8],
    ) -> Result<(), ClientError> {
        self.send(tag, &Request::Write { fid: fid.0, offset, data })
    }

    /// Waits for the answer to a read or write that was started, and passes its tag and it on.
    /// What the server refuses is passed on too; errors are those of the connection.
    pub fn finish<V>(
        &mut self,
        take: impl FnOnce(u16, Result<Transferred<'_>, ClientError>) -> V,
    ) -> Result<V, ClientError> {
        self.receive_any(|tag, reply| {
            let transferred = match reply {
                Reply::Read { data } => Ok(Transferred::Read(data)),
                Reply::Write { count } => Ok(Transferred::Written(count as usize)),
                Reply::Error { message, errno } => {
                    let message = message.to_owned();
                    Err(ClientError::Server { number: errno.0, message })
                }
                reply => {
                    return Err(ClientError::Protocol(format!("an unexpected answer: {reply:?}")));
                }
            };
            Ok(take(tag, transferred))
        })
    }

    fn ask(
        &mut self,
        fid: &Fid,
        piece: Piece,
        tags: &mut [Option<Piece>],
    ) -> Result<(), ClientError> {
        let free = tags.iter().position(Option::is_none).unwrap_or_default();
        tags[free] = Some(piece);
        self.start_read(free as u16, fid, piece.offset, piece.len)
    }

    /// Waits for the answer to one of several reads.
    fn answered(&mut self, tags: &mut [Option<Piece>]) -> Result<(Piece, Answer), ClientError> {
        let (tag, answer) = self.finish(|tag, transferred| {
            let answer = match transferred {
                Ok(Transferred::Read(data)) => Some(Ok(data.to_vec())),
                Ok(Transferred::Written(_)) => None,
                Err(error) => Some(Err(error)),
            };
            (tag, answer)
        })?;
        let piece = tags.get_mut(usize::from(tag)).and_then(Option::take);
        let fits = |(piece, answer): &(Piece, Answer)| {
            answer.as_ref().map_or(true, |data| data.len() <= piece.len)
        };
        piece.zip(answer).filter(fits).ok_or_else(|| wrong_answer(tag))
    }

    /// Writes to an open file from `offset` on what `source` yields, until it yields nothing.
    /// Returns how many bytes were written.
    ///
    /// `source` fills the buffer that it is given, as far as it can, and says how far. `written`
    /// is told each time how many bytes from `offset` on are written by now. After an error some
    /// behind those may be written as well.
    pub fn write_range<E: From<ClientError>>(
        &mut self,
        fid: &Fid,
        offset: u64,
        mut source: impl FnMut(&mut [u8]) -> Result<usize, E>,
        mut written: impl FnMut(u64),
    ) -> Result<u64, E> {
        let mut spare: VecDeque<Vec<u8>> = VecDeque::new();
        let mut tags: Vec<Option<Parcel>> = vec![None; WINDOW];
        let (mut asked, mut under_way, mut more) = (0, 0, true);
        // The first byte that could not be had or written, and why.
        let mut failure: Option<(u64, E)> = None;
        loop {
            while more && under_way < WINDOW && failure.is_none() {
                let mut data = spare.pop_front().unwrap_or_default();
                data.resize(self.chunk_bytes(), 0);
                match source(&mut data) {
                    Ok(0) => more = false,
                    Ok(count) => {
                        data.truncate(count);
                        self.put(fid, offset, asked, data, &mut tags)?;
                        asked += count as u64;
                        under_way += 1;
                    }
                    Err(error) => failure = Some((asked, error)),
                }
            }
            if under_way == 0 {
                return failure.map_or(Ok(asked), |(_, error)| Err(error));
            }
            let ((at, mut data), answer) = self.written(&mut tags)?;
            under_way -= 1;
            match answer {
                Ok(count) if count < data.len() && count > 0 => {
                    // What did not go is tried again, and then fails if it cannot.
                    data.drain(..count);
                    self.put(fid, offset, at + count as u64, data, &mut tags)?;
                    under_way += 1;
                }
                Ok(count) if count == data.len() => spare.push_back(data),
                Ok(count) => {
                    let message = format!("{count} of {} bytes written", data.len());
                    return Err(ClientError::Protocol(message).into());
                }
                Err(error) if failure.as_ref().is_none_or(|(first, _)| at < *first) => {
                    failure = Some((at, error.into()));
                }
                Err(_) => {}
            }
            let first = tags.iter().flatten().map(|(at, _)| *at).min().unwrap_or(asked);
            written(failure.as_ref().map_or(first, |(failed, _)| first.min(*failed)));
        }
    }

    /// Waits for the answer to one of several writes: how many of its bytes were written.
    fn written(
        &mut self,
        tags: &mut [Option<Parcel>],
    ) -> Result<(Parcel, Result<usize, ClientError>), ClientError> {
        let (tag, answer) = self.finish(|tag, transferred| {
            let answer = match transferred {
                Ok(Transferred::Written(count)) => Some(Ok(count)),
                Ok(Transferred::Read(_)) => None,
                Err(error) => Some(Err(error)),
            };
            (tag, answer)
        })?;
        let entry = tags.get_mut(usize::from(tag)).and_then(Option::take);
        entry.zip(answer).ok_or_else(|| wrong_answer(tag))
    }

    /// Sends `data`, which belongs `at` bytes behind `offset`.
    fn put(
        &mut self,
        fid: &Fid,
        offset: u64,
        at: u64,
        data: Vec<u8>,
        tags: &mut [Option<Parcel>],
    ) -> Result<(), ClientError> {
        let free = tags.iter().position(Option::is_none).unwrap_or_default();
        // The server knows what to say of an offset beyond all files.
        self.start_write(free as u16, fid, offset.wrapping_add(at), &data)?;
        tags[free] = Some((at, data));
        Ok(())
    }
}

/// An answer to something that was not asked, or not what was asked for.
fn wrong_answer(tag: u16) -> ClientError {
    ClientError::Protocol(format!("a wrong answer to tag {tag}"))
}
