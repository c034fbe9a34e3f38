//! How the program ends.

use crate::print;
use crate::remote::TransferError;
use outboard_host::ServerError;
use outboard_ninep::client::ClientError;
use serde::Serialize;
use std::error::Error;
use std::io;
use std::process::ExitCode;

/// Something failed.
const FAILED: u8 = 1;
/// No server answers.
const NO_SERVER: u8 = 3;
/// The server refused, or a disk failed.
const REFUSED: u8 = 4;
/// The devices are gone.
const GONE: u8 = 5;
/// A disk was not flushed.
pub(crate) const UNFLUSHED: u8 = 6;

/// Prints an error, and picks the exit code that goes with it.
pub(crate) fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    let code = error.chain().find_map(code).unwrap_or(FAILED);
    // Whoever read our output has gone: nobody is there to be told.
    if !error.chain().any(is_broken_pipe) {
        print::error(&format!("{error:#}"), code, json);
    }
    ExitCode::from(code)
}

fn is_broken_pipe(cause: &(dyn Error + 'static)) -> bool {
    let error = match cause.downcast_ref::<TransferError>() {
        Some(TransferError::Io(error)) => Some(error),
        _ => cause.downcast_ref::<io::Error>(),
    };
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn code(cause: &(dyn Error + 'static)) -> Option<u8> {
    let client = match cause.downcast_ref::<TransferError>() {
        Some(TransferError::Client(error)) => Some(error),
        _ => cause.downcast_ref::<ClientError>(),
    };
    if let Some(error) = client {
        return match error {
            ClientError::Connect { .. } => Some(NO_SERVER),
            ClientError::Server { .. } => Some(REFUSED),
            _ => None,
        };
    }
    match cause.downcast_ref::<ServerError>()? {
        ServerError::Platform(_) => Some(GONE),
        _ => None,
    }
}

/// An error, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorObject<'a> {
    pub(crate) message: &'a str,
    pub(crate) code: u8,
}
