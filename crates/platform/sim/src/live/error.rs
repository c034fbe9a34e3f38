//! What can go wrong with a simulated machine, and what to do about it.

use crate::disk::ImageError;
use std::io;

/// Why a simulated machine did not start, or stopped. The messages tell the user what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// An image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A disk was described in a way that is not understood.
    #[error(
        "{text:?} does not describe a disk: {reason}. Write \
         IMAGE[,ro][,sector=4096][,faults=SEED][,serial=TEXT]"
    )]
    Syntax {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused something that is needed.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The thread of a controller has ended by itself.
    #[error(
        "a simulated controller has stopped, which is a defect of the model. Please report it, with \
         what is printed above"
    )]
    Stopped,
}

impl LiveError {
    pub(super) fn system(what: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |error| Self::System { what, error: error.into() }
    }
}
