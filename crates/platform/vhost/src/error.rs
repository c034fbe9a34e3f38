//! What can go wrong with a back end, and what to do about it.

use crate::kind::Kind;
use outboard_virtio::spec::vhost_user::request::*;
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a back end cannot be used, or not any more. The messages tell the user what to do next.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VhostError {
    /// Nobody listens there.
    #[error(
        "no vhost-user back end answers at {}: {error}. Start it first, such as {}",
        .path.display(), .kind.example(.path)
    )]
    Nobody {
        /// Where.
        path: PathBuf,
        /// What it was expected to have.
        kind: Kind,
        /// Why.
        error: io::Error,
    },
    /// It is not a back end, or not one that can be used, or it does not keep to the protocol.
    #[error("the vhost-user back end at {} {trouble}", .path.display())]
    Unusable {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        trouble: Trouble,
    },
    /// It went, and did not come back.
    #[error(
        "the vhost-user back end at {} was lost, and did not come back within {seconds} s (at last: \
         it {trouble}). Start it again, and then this server", .path.display()
    )]
    Lost {
        /// Where.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
        /// What was wrong at the last try.
        trouble: Trouble,
    },
    /// A back end was described in a way that cannot be.
    #[error("{text:?} does not describe a back end: {reason}. Write {syntax}")]
    Syntax {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
        /// What it has to look like.
        syntax: &'static str,
    },
    /// The kernel refused something.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

impl VhostError {
    pub(crate) fn system(what: &'static str) -> impl Fn(Errno) -> Self {
        move |error| Self::System { what, error: error.into() }
    }

    pub(crate) fn unusable(path: &Path, trouble: Trouble) -> Self {
        Self::Unusable { path: path.into(), trouble }
    }
}

/// What is wrong with a back end, or with the way to it; reads on from "the back end".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Trouble {
    /// It cannot be connected to.
    #[error("cannot be connected to: {0}")]
    Connect(Errno),
    /// It has closed the connection.
    #[error("has closed the connection; see what it printed")]
    Closed,
    /// It does not answer.
    #[error(
        "has not answered {} for {seconds} s. Most serve one front end at a time: is it in use by \
         another?", Name(*.request)
    )]
    Silent {
        /// What it was asked.
        request: u32,
        /// For how long.
        seconds: u64,
    },
    /// It does not read what it is sent.
    #[error("reads nothing of what it is sent. Is it stopped?")]
    Deaf,
    /// A message of an impossible length.
    #[error("sent {bytes} bytes as {}, which the protocol does not have; it is faulty", Name(*.request))]
    Length {
        /// What the message is about.
        request: u32,
        /// Its bytes behind the header.
        bytes: usize,
    },
    /// Descriptors that nobody asked for, or none where one is due.
    #[error("sent descriptors with {} in a way that the protocol does not have; it is faulty", Name(*.request))]
    Descriptors {
        /// What the message is about.
        request: u32,
    },
    /// An answer to nothing, or to something else.
    #[error("sent an answer to {} that nobody asked for; it is faulty", Name(*.request))]
    Unasked {
        /// What the answer is about.
        request: u32,
    },
    /// It says that it cannot do what it was told.
    #[error("refused {} ({code}); see what it printed", Name(*.request))]
    Refused {
        /// What it was told.
        request: u32,
        /// What it answered.
        code: u64,
    },
    /// It lacks what is needed.
    #[error("does not offer {0}, which is needed; use another, or a newer one")]
    Lacks(&'static str),
    /// Its configuration cannot be had.
    #[error("does not tell its configuration; use another, or a newer one")]
    NoConfig,
    /// It has found an error in a queue.
    #[error("has reported an error of a queue; see what it printed")]
    RingError,
    /// The kernel refused something.
    #[error("cannot be spoken to ({0}: {1})")]
    System(&'static str, Errno),
}

/// A message's name.
struct Name(u32);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            GET_FEATURES => "GET_FEATURES",
            SET_FEATURES => "SET_FEATURES",
            SET_OWNER => "SET_OWNER",
            SET_MEM_TABLE => "SET_MEM_TABLE",
            SET_VRING_NUM => "SET_VRING_NUM",
            SET_VRING_ADDR => "SET_VRING_ADDR",
            SET_VRING_BASE => "SET_VRING_BASE",
            GET_VRING_BASE => "GET_VRING_BASE",
            SET_VRING_KICK => "SET_VRING_KICK",
            SET_VRING_CALL => "SET_VRING_CALL",
            SET_VRING_ERR => "SET_VRING_ERR",
            GET_PROTOCOL_FEATURES => "GET_PROTOCOL_FEATURES",
            SET_PROTOCOL_FEATURES => "SET_PROTOCOL_FEATURES",
            GET_QUEUE_NUM => "GET_QUEUE_NUM",
            SET_VRING_ENABLE => "SET_VRING_ENABLE",
            SET_BACKEND_REQ_FD => "SET_BACKEND_REQ_FD",
            GET_CONFIG => "GET_CONFIG",
            SET_CONFIG => "SET_CONFIG",
            GET_INFLIGHT_FD => "GET_INFLIGHT_FD",
            SET_INFLIGHT_FD => "SET_INFLIGHT_FD",
            SET_STATUS => "SET_STATUS",
            GET_STATUS => "GET_STATUS",
            other => return write!(f, "message {other}"),
        };
        f.write_str(name)
    }
}
