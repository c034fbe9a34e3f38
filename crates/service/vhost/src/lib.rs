//! vhost-user back ends: disks and network cards of ours as devices of virtual machines.
//!
//! A virtual machine (the *client*, by its front end) connects to a disk's socket, shares its memory
//! over it, and says where in that memory the rings of its virtio disk are. A [`Session`] then takes
//! requests from the rings, passes them on to the disk, and tells the client of their end; the
//! socket is not used on the way of a request. A [`NetSession`] does so with frames and a
//! [`Card`].
//!
//! A session is a state machine, as sessions of 9P are. It never blocks: the owner of the event loop
//! waits for its descriptor, lets it [`receive`](Session::receive) and [`work`](Session::work), and
//! hands it what has ended at the disks ([`complete`](Session::complete)).
//!
//! **Copies.** Data is copied once: between the client's memory and the disk's, if the driver does
//! the copying, or memory that the disk's controller reaches. It is not copied where the controller
//! reaches the client's memory, as its platform lets it if it was asked to, and takes it as it lies.
//!
//! **Distrust.** The client's memory changes under our hands. What is in it is copied out before it
//! is looked at, once, and lengths, addresses and indices are checked before they are used. Memory
//! whose file is made shorter reads as ones. Whoever breaks the rules is disconnected
//! ([`Violation`]), and nobody else notices.
//!
//! **Death.** What is in flight is remembered in memory that outlives this process, if the front end
//! knows how to keep it; a successor begins with what was not finished. `docs/vhost-user.md`
//! enumerates the moments of death.
//!
//! **Whose code.** Messages are our own, and so are rings. rust-vmm's `vhost` reads each message in
//! one go: a client that sends half a header would hold the loop, and with it all other clients, or
//! be taken for one that is gone. Its `vhost-user-backend` has a thread for each device, and does not
//! remember what is in flight; `virtio-queue` knows neither packed rings nor of remembering.
#![forbid(unsafe_code)]

mod blk;
mod call;
mod chain;
mod client;
mod config;
mod cut;
mod device;
mod error;
mod inflight;
mod memory;
mod message;
mod net;
mod queue;
mod reach;
mod request;
mod ring;
mod session;
mod socket;
#[cfg(test)]
mod tests;

pub use error::Violation;
pub use net::{Card, NetSession, Traffic};
pub use session::Session;
