//! The client's side, for programs that wait for each answer.
//!
//! It speaks 9P2000.u, whose errors have words as well as numbers. Ranges are read and written
//! with several requests under way at once, so that a fast disk is kept busy.

mod connection;
mod transfer;

pub use connection::{Client, ClientError, Fid, FileStatus, Mode};
pub use transfer::{Transferred, WINDOW};
