//! The server's side of a connection, without any I/O of its own.
//!
//! A [`Session`] takes bytes in and puts bytes out; whoever has the socket moves them. What the
//! files are is the business of a [`Tree`]. A read or a write that the tree cannot answer at once
//! stays pending while others on the same connection go on; its answer comes by
//! [`Session::complete`].
//!
//! **Bounds.** A client can make a session use only so much: fids, requests pending, bytes in
//! answers that it does not take. Beyond that its messages wait in its own buffer, and then in its
//! socket.
//!
//! **Flush.** A request that was not started is withdrawn. A read that was is forgotten, and its
//! answer dropped. A write that was is answered when it is done, and then the flush: whoever sees
//! the flush answered knows that nothing more will be written.

mod dispatch;
mod error;
mod files;
mod output;
mod session;
mod status;
mod tree;

pub use error::{FileError, errno};
pub use session::{CloseReason, Limits, Owner, Session};
pub use tree::{Access, Answer, Attributes, Completed, Data, RequestId, Tree};
