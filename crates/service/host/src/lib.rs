//! The event loop of a process that hosts drivers and serves their disks.
//!
//! One thread does everything: it waits for interrupts, sockets, signals and deadlines, passes
//! each to whom it concerns, rings the drivers' doorbells once for all that came together, and
//! waits again. Nothing is handed from one thread to another on the way of a request, which on
//! most machines costs more than the request.
//!
//! Drivers, disks and 9P sessions are state machines; this crate is where their file descriptors
//! are.
#![forbid(unsafe_code)]

mod admit;
mod cards;
mod connection;
mod door;
mod events;
mod export;
mod follow;
mod leave;
mod listener;
mod pace;
mod poller;
mod ready;
mod server;
mod signals;

pub use cards::HostedCard;
pub use listener::ListenError;
pub use pace::{Pace, Reaping};
pub use server::{Ended, Hosted, Platform, Server, ServerError};
