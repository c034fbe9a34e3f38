//! What clients do wrong.

use outboard_linux::ForeignError;
use rustix::io::Errno;
use thiserror::Error;

/// Why a client was disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A header of no version that there is, or an answer where a question belongs.
    #[error("a message's flags are {0:#x}")]
    Flags(u32),
    /// A message that is longer than any.
    #[error("a message says that it has {0} bytes")]
    TooLong(u32),
    /// A message of a length that its kind never has.
    #[error("message {0} has {1} bytes")]
    Length(u32, usize),
    /// A message with a wrong number of descriptors.
    #[error("message {0} comes with {1} descriptors")]
    Descriptors(u32, usize),
    /// The connection ended inside a message.
    #[error("the connection ended inside a message")]
    Cut,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(Errno),
    /// A message with a value that cannot be.
    #[error("message {0} says what cannot be")]
    Value(u32),
    /// A message at a time at which it makes no sense, such as for a ring that runs.
    #[error("message {0} comes at the wrong time")]
    Order(u32),
    /// Features that were not offered.
    #[error("features {0:#x} were not offered")]
    Features(u64),
    /// A ring that cannot be had.
    #[error("there is no ring {0}")]
    NoRing(u64),
    /// A descriptor that nobody can wait for, or that is no `eventfd`.
    #[error("ring {0} was given a descriptor that is no eventfd")]
    NotAnEvent(u64),
    /// A call descriptor that was made to block, and was full.
    #[error("a ring's call descriptor made us wait")]
    CallBlocks,
    /// No thread could be had that watches calls.
    #[error("the system lets no thread start that watches calls")]
    Unwatched,
    /// Memory that cannot be used.
    #[error("memory cannot be used: {0}")]
    Memory(#[from] ForeignError),
    /// Regions that overlap, or lie where no addresses are.
    #[error("regions of memory overlap or have no addresses")]
    Regions,
    /// The memory's file was made shorter.
    #[error("memory was taken away")]
    MemoryGone,
    /// A ring that does not lie in the memory, or not aligned.
    #[error("ring {0} does not lie in the memory")]
    RingAddress(usize),
    /// The index of what is available has jumped.
    #[error("a ring's index has jumped: {0} are said to be new")]
    Jump(u16),
    /// A descriptor that is not there.
    #[error("a ring names descriptor {0}, which it does not have")]
    NoDescriptor(u16),
    /// Descriptors that the device has already.
    #[error("descriptor {0} is made available twice")]
    Twice(u16),
    /// A chain that goes round, or is longer than any may be.
    #[error("a chain of descriptors has no end")]
    Endless,
    /// Descriptors that are nested, empty, in the wrong order, or of a kind not agreed upon.
    #[error("a chain of descriptors is malformed")]
    Malformed,
    /// Memory that the client does not have.
    #[error("{1} bytes at {0:#x} are not in the memory")]
    Outside(u64, u32),
    /// What was remembered of requests in flight makes no sense.
    #[error("what was remembered as in flight makes no sense")]
    InFlight,
}
