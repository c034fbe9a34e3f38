//! vhost-user: devices that are another process, as a virtio driver's transport.
//!
//! The other process, the *back end*, listens at a socket. [`VhostUser`] connects there, tells it
//! where the memory is that driver and back end share, where in it the queues are, and by which
//! `eventfd`s they wake each other. From then on requests take no message and no system call but
//! these.
//!
//! * **Memory** is a `memfd` of this process's ([`outboard_linux::SharedMemory`]). A device address is an offset in it;
//!   the back end is told no address of this process.
//! * **Nothing waits**, but [`VhostUser::attach`] at the beginning, for as long as
//!   [`VhostConfig::start_time`], and a driver that switches the write cache, for a second. Questions
//!   are sent without waiting for answers, and answers are taken when the event loop says that they
//!   are there; each is due within five seconds. That is why the codec is our own: the one of the
//!   crate `vhost`, which is otherwise well kept, waits for every answer for as long as it takes,
//!   and a time limit for its socket would still hold the event loop for that time, over and over
//!   with a back end that sends a byte at a time.
//! * **A back end is not trusted.** It may answer anything, at any time, and pass any descriptor. A
//!   message is taken if it is the answer that is due, has its length and no descriptor; anything
//!   else ends the connection. What it writes into the memory is the driver's to check.
//! * **A back end that is lost may come back.** The driver keeps its requests. The transport connects
//!   again, at growing intervals and for [`VhostConfig::return_time`]. What is there then is asked who
//!   it is, in a queue of its own. If the one before it kept what was in flight in a region
//!   (`INFLIGHT_SHMFD`), it is given the region and the queues as they are, and goes on; else the
//!   device is set up anew, and the driver issues its requests again.
//! * **A reset** that the driver wants for another reason closes the connection, with which a back end
//!   forgets everything whatever it is, and makes a new one. The answers on that say that the old one
//!   is over.
#![forbid(unsafe_code)]

mod card;
mod disk;
mod error;
mod events;
mod kind;
mod session;
mod setup;
mod transport;
mod wire;

pub use card::VhostCard;
pub use disk::VhostDisk;
pub use error::{Trouble, VhostError};
pub use events::VhostInterrupts;
pub use kind::Kind;
pub use transport::{BackEnd, VhostConfig, VhostUser};
