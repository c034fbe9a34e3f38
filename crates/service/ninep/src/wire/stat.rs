//! What 9P2000 and 9P2000.u say about a file (stat(5)).

use super::field::{DecodeError, Field, Reader, Writer};
use super::{Dialect, NO_USER, Qid, QidKind};

/// The most bytes that one entry of a directory takes, with names of up to 255 bytes.
pub const MAX_ENTRY_BYTES: usize = 1536;

/// What is said about a file.
///
/// In a change (wstat), integers of all ones and empty strings mean "leave it".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat<'a> {
    /// For the kernel's use.
    pub kind: u16,
    /// For the kernel's use.
    pub device: u32,
    /// What the server knows it by.
    pub qid: Qid,
    /// Permissions, and in the upper bits the kind of file.
    pub mode: u32,
    /// Last access, in seconds since 1970.
    pub access_time: u32,
    /// Last change, in seconds since 1970.
    pub modify_time: u32,
    /// Length in bytes; 0 for a directory.
    pub length: u64,
    /// Last element of its path.
    pub name: &'a str,
    /// Owner.
    pub user: &'a str,
    /// Group.
    pub group: &'a str,
    /// Who changed it last.
    pub modifier: &'a str,
    /// 9P2000.u: target of a link, or kind and number of a device.
    pub extension: &'a str,
    /// 9P2000.u: owner, group and last changer as numbers.
    pub numbers: [u32; 3],
}

impl Stat<'_> {
    /// Bit of `mode`: a directory (`DMDIR`).
    pub const DIRECTORY: u32 = 0x8000_0000;

    /// What a wstat leaves as it is (stat(5)): all of it.
    pub const UNCHANGED: Stat<'static> = Stat {
        kind: u16::MAX,
        device: u32::MAX,
        qid: Qid { kind: QidKind::all(), version: u32::MAX, path: u64::MAX },
        mode: u32::MAX,
        access_time: u32::MAX,
        modify_time: u32::MAX,
        length: u64::MAX,
        name: "",
        user: "",
        group: "",
        modifier: "",
        extension: "",
        numbers: [u32::MAX; 3],
    };

    /// Appends the entry itself, as it stands in a directory: with one length before it.
    pub fn put_entry(&self, writer: &mut Writer<'_>) {
        writer.with_length(|writer| {
            self.kind.put(writer);
            self.device.put(writer);
            self.qid.put(writer);
            self.mode.put(writer);
            self.access_time.put(writer);
            self.modify_time.put(writer);
            self.length.put(writer);
            [self.name, self.user, self.group, self.modifier].iter().for_each(|s| s.put(writer));
            if writer.dialect() != Dialect::Plan9 {
                self.extension.put(writer);
                self.numbers.iter().for_each(|number| number.put(writer));
            }
        });
    }
}

impl<'a> Stat<'a> {
    /// Takes the entry itself off the front.
    pub fn get_entry(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len: u16 = reader.get()?;
        let mut inner = Reader::new(reader.take(len.into())?, reader.dialect());
        let reader = &mut inner;
        let mut stat = Self {
            kind: reader.get()?,
            device: reader.get()?,
            qid: reader.get()?,
            mode: reader.get()?,
            access_time: reader.get()?,
            modify_time: reader.get()?,
            length: reader.get()?,
            name: reader.get()?,
            user: reader.get()?,
            group: reader.get()?,
            modifier: reader.get()?,
            extension: "",
            numbers: [NO_USER; 3],
        };
        if reader.dialect() != Dialect::Plan9 {
            stat.extension = reader.get()?;
            stat.numbers = [reader.get()?, reader.get()?, reader.get()?];
        }
        reader.finish()?;
        Ok(stat)
    }
}

/// As a field of a message a stat has another length before it.
impl<'a> Field<'a> for Stat<'a> {
    fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len: u16 = reader.get()?;
        let mut inner = Reader::new(reader.take(len.into())?, reader.dialect());
        let stat = Self::get_entry(&mut inner)?;
        inner.finish()?;
        Ok(stat)
    }

    fn put(&self, writer: &mut Writer<'_>) {
        writer.with_length(|writer| self.put_entry(writer));
    }
}
