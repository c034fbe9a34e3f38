//! Writes to a file.

use crate::args::WriteArgs;
use crate::print;
use crate::remote::{self, TransferError};
use anyhow::{Context, Result};
use outboard_ninep::client::Mode;
use serde::Serialize;
use std::io::{self, Read};

#[derive(Serialize)]
struct Written<'a> {
    path: &'a str,
    offset: u64,
    bytes: u64,
    durable: bool,
}

pub(crate) fn run(arguments: &WriteArgs, json: bool) -> Result<()> {
    let client = &mut remote::connect(&arguments.server)?;
    let (fid, _) = remote::open(client, &arguments.path, Mode::Write)?;
    let mut source: Box<dyn Read> = match &arguments.text {
        Some(text) => Box::new(text.as_bytes()),
        None => Box::new(io::stdin().lock()),
    };
    let durable = !arguments.no_sync;
    let mut written = 0;
    let mut write = || -> Result<u64, TransferError> {
        let source = |room: &mut [u8]| Ok::<_, TransferError>(fill(&mut *source, room)?);
        let bytes = client.write_range(&fid, arguments.offset, source, |count| written = count)?;
        if durable {
            client.sync(&fid)?;
        }
        Ok(bytes)
    };
    let bytes = write();
    let bytes = bytes.with_context(|| remote::written(&arguments.path, written))?;
    client.clunk(fid)?;
    if json {
        let path = remote::path(&arguments.path);
        print::json("written", &Written { path, offset: arguments.offset, bytes, durable })?;
    }
    Ok(())
}

/// Reads until `room` is full or nothing more comes.
pub(crate) fn fill(source: &mut (impl Read + ?Sized), room: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < room.len() {
        match source.read(&mut room[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
