//! What goes to standard output and standard error.

use crate::exit::ErrorObject;
use serde::Serialize;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use thiserror::Error;

/// Version of everything that is printed as JSON. It grows when a field changes its meaning or
/// goes away; new fields may come without.
const SCHEMA: u32 = 1;

/// An object as it is printed.
#[derive(Serialize)]
struct Object<'a, T> {
    schema: u32,
    kind: &'a str,
    #[serde(flatten)]
    content: &'a T,
}

/// Standard output did not take what was to be printed.
#[derive(Debug, Error)]
#[error("standard output: {0}")]
pub(crate) struct OutputError(io::Error);

impl OutputError {
    /// Whoever read it has gone, as `head` does when it has seen enough.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Prints an object on a line.
pub(crate) fn json<T: Serialize>(kind: &str, content: &T) -> Result<(), OutputError> {
    let line = serde_json::to_string(&Object { schema: SCHEMA, kind, content });
    line_out(&line.map_err(|error| OutputError(error.into()))?)
}

/// Prints a line.
pub(crate) fn line_out(line: &str) -> Result<(), OutputError> {
    raw_out(format!("{line}\n").as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn raw_out(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(OutputError)
}

/// Prints an error on standard error.
pub(crate) fn error(message: &str, code: u8, json: bool) {
    let mut out = io::stderr().lock();
    let object = Object { schema: SCHEMA, kind: "error", content: &ErrorObject { message, code } };
    // If not even that works, the exit code has to do.
    let _ = match serde_json::to_string(&object).ok().filter(|_| json) {
        Some(line) => writeln!(out, "{line}"),
        None => writeln!(out, "outboard: {message}"),
    };
}

/// Whether notes are printed.
static NOTES: AtomicBool = AtomicBool::new(true);

/// Prints no notes from now on.
pub(crate) fn be_quiet() {
    NOTES.store(false, Ordering::Relaxed);
}

/// Prints something for a person to read while the program goes on.
pub(crate) fn note(message: &str) {
    if !NOTES.load(Ordering::Relaxed) {
        return;
    }
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// A number of bytes in words.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let exact = value.fract() == 0.0;
    if exact { format!("{value} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_a_fitting_unit() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(65536), "64 KiB");
        assert_eq!(bytes(10_000_000), "9.5 MiB");
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
    }
}
