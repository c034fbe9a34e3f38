//! Prints part of a file.

use crate::args::ReadArgs;
use crate::print;
use crate::remote::{self, TransferError};
use anyhow::{Context, Result};
use outboard_ninep::client::{Client, Fid, Mode};
use serde::Serialize;
use std::fmt::Write as _;
use std::io;

/// As JSON a file is gathered before it is printed, so it must not be too long.
const MAX_JSON_BYTES: usize = 16 << 20;

pub(crate) fn run(arguments: &ReadArgs, json: bool) -> Result<()> {
    let client = &mut remote::connect(&arguments.server)?;
    let (fid, _) = remote::open(client, &arguments.path, Mode::Read)?;
    let (offset, count) = (arguments.offset, arguments.count.unwrap_or(u64::MAX));
    let done = if json {
        Content::gather(client, &fid, offset, count)
            .and_then(|content| content.print(remote::path(&arguments.path)))
    } else {
        let print = |bytes: &[u8]| Ok::<_, TransferError>(print::raw_out(bytes)?);
        client.read_range(&fid, offset, count, print).map(|_| ())
    };
    done.with_context(|| arguments.path.clone())?;
    Ok(client.clunk(fid)?)
}

/// Part of a file, to be printed as JSON.
pub(crate) struct Content {
    offset: u64,
    bytes: Vec<u8>,
}

#[derive(Serialize)]
struct Object<'a> {
    path: &'a str,
    offset: u64,
    bytes: usize,
    /// The content, if it is text.
    text: Option<&'a str>,
    /// The content in hexadecimal, if it is not.
    hex: Option<String>,
}

impl Content {
    pub(crate) fn gather(
        client: &mut Client,
        fid: &Fid,
        offset: u64,
        count: u64,
    ) -> Result<Self, TransferError> {
        let mut gathered = Vec::new();
        client.read_range(fid, offset, count, |bytes| {
            if gathered.len() + bytes.len() > MAX_JSON_BYTES {
                let message = "too long for JSON; read it without --json, or less with --count";
                return Err(TransferError::Io(io::Error::other(message)));
            }
            gathered.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(Self { offset, bytes: gathered })
    }

    pub(crate) fn print(&self, path: &str) -> Result<(), TransferError> {
        let Self { offset, bytes } = self;
        let printable = |text: &&str| !text.contains(|c: char| c.is_control() && c != '\n');
        let text = std::str::from_utf8(bytes).ok().filter(printable);
        let hex = text.is_none().then(|| {
            bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        });
        let object = Object { path, offset: *offset, bytes: bytes.len(), text, hex };
        Ok(print::json("content", &object)?)
    }
}
