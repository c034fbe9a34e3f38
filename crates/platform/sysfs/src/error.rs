//! What can go wrong while looking at the machine.

use outboard_pci::Address;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why the machine could not be looked at.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SysfsError {
    /// There is no such function.
    #[error(
        "this machine has no PCI function at {0}. `outboard status --all` lists those that it has"
    )]
    NoFunction(Address),
    /// A file could not be read.
    #[error("{} cannot be read: {error}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file does not say what it should.
    #[error(
        "{} says {text:?}, where {expected} should be. Is this a kernel that nobody tried yet?",
        .path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What it says.
        text: String,
        /// What it should say.
        expected: &'static str,
    },
}
