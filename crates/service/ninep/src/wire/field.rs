//! What messages are made of.

use super::{Dialect, MAX_NAMES, NO_USER, Qid, QidKind};
use core::fmt;
use thiserror::Error;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message ends before its fields do.
    #[error("the message is too short for its type")]
    Truncated,
    /// The message goes on after its last field.
    #[error("the message is too long for its type")]
    TooLong,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A list is longer than the protocol allows.
    #[error("a list is too long")]
    TooMany,
    /// There is no message of this type in this dialect.
    #[error("there is no message of type {0}")]
    UnknownType(u8),
}

/// Takes fields off the front of some bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    dialect: Dialect,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` in `dialect`.
    pub const fn new(bytes: &'a [u8], dialect: Dialect) -> Self {
        Self { rest: bytes, dialect }
    }

    /// The dialect that is read.
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next field.
    pub fn get<F: Field<'a>>(&mut self) -> Result<F, DecodeError> {
        F::get(self)
    }

    /// Makes sure that nothing is left.
    pub const fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TooLong) }
    }
}

/// Appends fields to some bytes.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    dialect: Dialect,
}

impl<'a> Writer<'a> {
    /// Appends to `bytes` in `dialect`.
    pub const fn new(bytes: &'a mut Vec<u8>, dialect: Dialect) -> Self {
        Self { bytes, dialect }
    }

    /// The dialect that is written.
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Appends bytes as they are.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends what `write` appends, preceded by its length in two bytes.
    pub fn with_length(&mut self, write: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.extend(&[0; 2]);
        write(self);
        let len = (self.bytes.len() - start - 2) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_le_bytes());
    }
}

/// A field of a message.
pub trait Field<'a>: Sized {
    /// Takes it off the front.
    fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
    /// Appends it.
    fn put(&self, writer: &mut Writer<'_>);
}

macro_rules! integers {
    ($($int:ty)*) => {$(
        impl<'a> Field<'a> for $int {
            fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                let (bytes, rest) =
                    reader.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
                reader.rest = rest;
                Ok(Self::from_le_bytes(*bytes))
            }
            fn put(&self, writer: &mut Writer<'_>) {
                writer.extend(&self.to_le_bytes());
            }
        }
    )*};
}

integers! { u8 u16 u32 u64 }

/// A string: two bytes of length, and UTF-8. One that is longer than can be written is cut.
impl<'a> Field<'a> for &'a str {
    fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len: u16 = reader.get()?;
        core::str::from_utf8(reader.take(len.into())?).map_err(|_| DecodeError::NotUtf8)
    }

    fn put(&self, writer: &mut Writer<'_>) {
        let text = &self[..self.floor_char_boundary(u16::MAX.into())];
        (text.len() as u16).put(writer);
        writer.extend(text.as_bytes());
    }
}

/// Data: four bytes of length, and the bytes.
impl<'a> Field<'a> for &'a [u8] {
    fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len: u32 = reader.get()?;
        reader.take(len as usize)
    }

    fn put(&self, writer: &mut Writer<'_>) {
        (self.len() as u32).put(writer);
        writer.extend(self);
    }
}

impl<'a> Field<'a> for Qid {
    fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let kind = QidKind::from_bits_retain(reader.get()?);
        Ok(Self { kind, version: reader.get()?, path: reader.get()? })
    }

    fn put(&self, writer: &mut Writer<'_>) {
        self.kind.bits().put(writer);
        self.version.put(writer);
        self.path.put(writer);
    }
}

/// A user's number, which 9P2000 does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumericUser(pub u32);

impl<'a> Field<'a> for NumericUser {
    fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.dialect {
            Dialect::Plan9 => Ok(Self(NO_USER)),
            Dialect::Unix | Dialect::Linux => reader.get().map(Self),
        }
    }

    fn put(&self, writer: &mut Writer<'_>) {
        if writer.dialect != Dialect::Plan9 {
            self.0.put(writer);
        }
    }
}

/// The names of a walk, at most [`MAX_NAMES`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Names<'a> {
    names: [&'a str; MAX_NAMES],
    count: usize,
}

impl<'a> Names<'a> {
    /// The first [`MAX_NAMES`] of `names`.
    pub fn new(names: &[&'a str]) -> Self {
        let count = names.len().min(MAX_NAMES);
        let mut all = [""; MAX_NAMES];
        all[..count].copy_from_slice(&names[..count]);
        Self { names: all, count }
    }

    /// The names, in order.
    pub fn as_slice(&self) -> &[&'a str] {
        &self.names[..self.count]
    }
}

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl<'a> Field<'a> for Names<'a> {
    fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = usize::from(reader.get::<u16>()?);
        let mut names = [""; MAX_NAMES];
        for name in names.get_mut(..count).ok_or(DecodeError::TooMany)? {
            *name = reader.get()?;
        }
        Ok(Self { names, count })
    }

    fn put(&self, writer: &mut Writer<'_>) {
        (self.count as u16).put(writer);
        self.as_slice().iter().for_each(|name| name.put(writer));
    }
}

/// The qids that a walk went through, at most [`MAX_NAMES`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Qids {
    qids: [Qid; MAX_NAMES],
    count: usize,
}

impl Qids {
    /// None.
    pub const EMPTY: Self = {
        let none = Qid { kind: QidKind::empty(), version: 0, path: 0 };
        Self { qids: [none; MAX_NAMES], count: 0 }
    };

    /// Appends one; whether there was room.
    pub fn push(&mut self, qid: Qid) -> bool {
        let place = self.qids.get_mut(self.count);
        let room = place.is_some();
        if let Some(place) = place {
            *place = qid;
            self.count += 1;
        }
        room
    }

    /// The qids, in order.
    pub fn as_slice(&self) -> &[Qid] {
        &self.qids[..self.count]
    }
}

impl fmt::Debug for Qids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl<'a> Field<'a> for Qids {
    fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count: u16 = reader.get()?;
        let mut qids = Self::EMPTY;
        for _ in 0..count {
            if !qids.push(reader.get()?) {
                return Err(DecodeError::TooMany);
            }
        }
        Ok(qids)
    }

    fn put(&self, writer: &mut Writer<'_>) {
        (self.count as u16).put(writer);
        self.as_slice().iter().for_each(|qid| qid.put(writer));
    }
}
