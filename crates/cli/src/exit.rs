//! How the program ends.

use crate::print::{self, OutputError};
use crate::remote::TransferError;
use outboard_host::ServerError;
use outboard_ninep::client::ClientError;
use outboard_sysfs::HandoverError;
use serde::Serialize;
use std::error::Error;
use std::process::ExitCode;

/// Something failed.
pub(crate) const FAILED: u8 = 1;
/// The command line makes no sense.
pub(crate) const USAGE: u8 = 2;
/// No server answers.
const NO_SERVER: u8 = 3;
/// The server refused, or a disk failed.
const REFUSED: u8 = 4;
/// The devices are gone.
const GONE: u8 = 5;
/// A disk was not flushed.
pub(crate) const UNFLUSHED: u8 = 6;
/// A disk expects to fail, or failed its self-test.
pub(crate) const FAILING: u8 = 7;
/// A device is in use, or shares its group.
const BUSY: u8 = 8;

/// Prints an error, and picks the exit code that goes with it.
pub(crate) fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    let code = error.chain().find_map(code).unwrap_or(FAILED);
    // Whoever has seen enough is not bothered.
    if !error.chain().any(is_closed_output) {
        print::error(&format!("{error:#}"), code, json);
    }
    ExitCode::from(code)
}

/// Whether our own output was closed; a connection that was is something else.
fn is_closed_output(cause: &(dyn Error + 'static)) -> bool {
    let error = match cause.downcast_ref::<TransferError>() {
        Some(TransferError::Output(error)) => Some(error),
        _ => cause.downcast_ref::<OutputError>(),
    };
    error.is_some_and(OutputError::is_closed)
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
    if let Some(error) = cause.downcast_ref::<HandoverError>() {
        return match error {
            HandoverError::Busy { .. }
            | HandoverError::Held { .. }
            | HandoverError::GroupShared { .. } => Some(BUSY),
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
