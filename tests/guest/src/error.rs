//! What can go wrong around a guest.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no [`Report`](crate::Report).
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A program that is needed here or there is missing.
    #[error("{0} is missing: install it, or let ./test do that")]
    MissingProgram(String),

    /// Something that has to run before the guest does failed.
    #[error("{what} failed: {how}")]
    Preparation {
        /// What was tried.
        what: String,
        /// What came of it.
        how: String,
    },

    /// A file or folder could not be used.
    #[error("{path}: {error}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },

    /// The kernel's package has no such module.
    #[error("the kernel {version} has no module {module}")]
    NoModule {
        /// The kernel's version.
        version: String,
        /// The module's name.
        module: String,
    },

    /// QEMU did not start, or ended by itself.
    #[error("QEMU: {0}")]
    Qemu(String),

    /// The guest's kernel panicked.
    #[error("the guest's kernel panicked: {message}\n{log}")]
    Panicked {
        /// What it said.
        message: String,
        /// What was printed until then.
        log: String,
    },

    /// The guest did not come up.
    #[error("the guest was ended: it did not boot within {limit:?}\n{log}")]
    NotBooted {
        /// How long it might have taken.
        limit: Duration,
        /// What was printed until then.
        log: String,
    },

    /// The script did not end in time.
    #[error("the guest was ended: its script took longer than {limit:?}\n{log}")]
    TimedOut {
        /// How long it might have taken.
        limit: Duration,
        /// What was printed until then.
        log: String,
    },

    /// The guest ended without saying how.
    #[error("the guest ended before its script did\n{0}")]
    NoResult(String),
}

impl GuestError {
    /// For `map_err`, when `path` cannot be used.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { path, error }
    }

    /// For `map_err`, when `what` cannot be done.
    pub(crate) fn preparation<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Self {
        let what = what.to_owned();
        move |error| Self::Preparation { what, how: error.to_string() }
    }
}
