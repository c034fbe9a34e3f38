//! Files of a server.

use crate::args::ServerArgs;
use crate::endpoint;
use crate::print::OutputError;
use anyhow::{Context, Result, bail};
use outboard_ninep::client::{Client, ClientError, Fid, FileStatus, Mode};
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Connects to the server that is meant.
pub(crate) fn connect(server: &ServerArgs) -> Result<Client> {
    let address = match &server.at {
        Some(address) => address.clone(),
        None => {
            endpoint::check_folder("--at")?;
            endpoint::default_address()
        }
    };
    Ok(Client::connect(&address)?)
}

/// A path as the server has it. People may write the colon that `cp` wants, or a slash in front.
pub(crate) fn path(text: &str) -> &str {
    text.trim_start_matches(':')
}

/// The names in a path, from the root down.
pub(crate) fn names(text: &str) -> Vec<&str> {
    path(text).split('/').filter(|name| !matches!(*name, "" | ".")).collect()
}

/// Goes to a file and asks about it.
pub(crate) fn find(client: &mut Client, text: &str) -> Result<(Fid, FileStatus)> {
    let fid = client.walk(path(text)).with_context(|| text.to_owned())?;
    let status = client.stat(&fid).with_context(|| text.to_owned())?;
    Ok((fid, status))
}

/// Goes to a file, which must not be a folder.
pub(crate) fn find_file(client: &mut Client, text: &str) -> Result<(Fid, FileStatus)> {
    let (fid, status) = find(client, text)?;
    if status.directory {
        bail!("{text} is a folder; to see what is in it: outboard ls {}", path(text));
    }
    Ok((fid, status))
}

/// Goes to a file, which must not be a folder, and opens it.
pub(crate) fn open(client: &mut Client, text: &str, mode: Mode) -> Result<(Fid, FileStatus)> {
    let (fid, status) = find_file(client, text)?;
    client.open(&fid, mode).with_context(|| text.to_owned())?;
    Ok((fid, status))
}

/// What an error of a write is about: the file, and how far the write had come.
pub(crate) fn written(path: &str, bytes: u64) -> String {
    match bytes {
        0 => path.to_owned(),
        bytes => format!("{path}: after {bytes} bytes were written"),
    }
}

/// What can go wrong while bytes are passed on.
#[derive(Debug, Error)]
pub(crate) enum TransferError {
    /// At the server's end.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// At this end.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// At this end, in a file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// At this end, where it is printed.
    #[error(transparent)]
    Output(#[from] OutputError),
}
