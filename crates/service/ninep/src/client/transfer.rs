//! Ranges of bytes, with several requests under way.

use super::connection::{Client, ClientError, Fid};
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
        let mut early: BTreeMap<u64, Result<Vec<u8>, ClientError>> = BTreeMap::new();
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

    fn ask(
        &mut self,
        fid: &Fid,
        piece: Piece,
        tags: &mut [Option<Piece>],
    ) -> Result<(), ClientError> {
        let free = tags.iter().position(Option::is_none).unwrap_or_default();
        tags[free] = Some(piece);
        let Piece { offset, len } = piece;
        self.send(free as u16, &Request::Read { fid: fid.0, offset, count: len as u32 })
    }

    /// Waits for the answer to one of several reads.
    #[allow(clippy::type_complexity, reason = "an answer is data or the server's error")]
    fn answered(
        &mut self,
        tags: &mut [Option<Piece>],
    ) -> Result<(Piece, Result<Vec<u8>, ClientError>), ClientError> {
        self.receive_any(|tag, reply| {
            let piece = tags.get_mut(usize::from(tag)).and_then(Option::take);
            let unasked = || ClientError::Protocol(format!("an answer to tag {tag}"));
            let piece = piece.ok_or_else(unasked)?;
            match reply {
                Reply::Read { data } if data.len() <= piece.len => Ok((piece, Ok(data.to_vec()))),
                Reply::Error { message, errno } => {
                    let message = message.to_owned();
                    Ok((piece, Err(ClientError::Server { number: errno.0, message })))
                }
                reply => Err(ClientError::Protocol(format!("an unexpected answer: {reply:?}"))),
            }
        })
    }

    /// Writes to an open file from `offset` on what `source` yields, until it yields nothing.
    /// Returns how many bytes were written.
    ///
    /// `source` fills the buffer that it is given, as far as it can, and says how far. After an
    /// error the bytes in front of the first one that was not written may have been.
    pub fn write_range<E: From<ClientError>>(
        &mut self,
        fid: &Fid,
        offset: u64,
        mut source: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<u64, E> {
        let mut spare: VecDeque<Vec<u8>> = VecDeque::new();
        let mut tags: Vec<Option<(u64, Vec<u8>)>> = vec![None; WINDOW];
        let (mut asked, mut under_way, mut more) = (offset, 0, true);
        let mut failure: Option<E> = None;
        loop {
            while more && under_way < WINDOW && failure.is_none() {
                let mut data = spare.pop_front().unwrap_or_default();
                data.resize(self.chunk_bytes(), 0);
                match source(&mut data) {
                    Ok(0) => more = false,
                    Ok(count) => {
                        data.truncate(count);
                        self.put(fid, asked, data, &mut tags)?;
                        asked += count as u64;
                        under_way += 1;
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if under_way == 0 {
                return failure.map_or(Ok(asked - offset), Err);
            }
            let (tag, answer) = self.written()?;
            let unasked = || ClientError::Protocol(format!("an answer to tag {tag}"));
            let entry = tags.get_mut(usize::from(tag)).and_then(Option::take);
            let (at, mut data) = entry.ok_or_else(unasked)?;
            under_way -= 1;
            match answer {
                Ok(count) if count < data.len() && count > 0 => {
                    // What did not go is tried again, and then fails if it cannot.
                    data.drain(..count);
                    self.put(fid, at + count as u64, data, &mut tags)?;
                    under_way += 1;
                }
                Ok(count) if count == data.len() => spare.push_back(data),
                Ok(count) => {
                    let message = format!("{count} of {} bytes written", data.len());
                    return Err(ClientError::Protocol(message).into());
                }
                Err(error) => failure = failure.or(Some(error.into())),
            }
        }
    }

    fn put(
        &mut self,
        fid: &Fid,
        offset: u64,
        data: Vec<u8>,
        tags: &mut [Option<(u64, Vec<u8>)>],
    ) -> Result<(), ClientError> {
        let free = tags.iter().position(Option::is_none).unwrap_or_default();
        self.send(free as u16, &Request::Write { fid: fid.0, offset, data: &data })?;
        tags[free] = Some((offset, data));
        Ok(())
    }

    /// Waits for the answer to one of several writes.
    fn written(&mut self) -> Result<(u16, Result<usize, ClientError>), ClientError> {
        self.receive_any(|tag, reply| match reply {
            Reply::Write { count } => Ok((tag, Ok(count as usize))),
            Reply::Error { message, errno } => {
                let message = message.to_owned();
                Ok((tag, Err(ClientError::Server { number: errno.0, message })))
            }
            reply => Err(ClientError::Protocol(format!("an unexpected answer: {reply:?}"))),
        })
    }
}
