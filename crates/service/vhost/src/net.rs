//! Network cards of ours as network cards of virtual machines (§5.1).
//!
//! **Sending.** A frame is copied from the client's memory to memory that the card reaches, and its
//! buffer is used at once: nothing of the client's is in flight. While the card takes no more,
//! frames stay in the client's ring.
//!
//! **Receiving.** A frame that has come waits in the card's buffer until the client has room for it.
//! While nobody uses the card, or the client does not receive, frames are dropped, as by a card
//! whose cable is out.
//!
//! So there is nothing to remember for a successor: what a network loses, its users send again.

mod buffers;
mod card;
mod config;
mod receive;
mod sender;
mod session;
mod transmit;

pub use card::Card;
pub use session::{NetSession, Traffic};
