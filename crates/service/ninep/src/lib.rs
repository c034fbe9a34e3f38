//! 9P: files over a connection.
//!
//! * [`wire`]: messages of 9P2000, 9P2000.u and 9P2000.L as bytes.
//! * [`server`]: the server's side of a connection, over any tree of files.
//! * [`sd`]: the tree of disks, as sd(3) of Plan 9 has it.
//! * [`client`]: the client's side, for programs that wait.
#![forbid(unsafe_code)]

mod address;
pub mod client;
pub mod sd;
pub mod server;
pub mod wire;

pub use address::{Address, ParseAddressError};
