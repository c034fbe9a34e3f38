//! Interrupts as `eventfd`s, by way of an `ivshmem-doorbell` device.
//!
//! The device lets a guest ring other guests: writing `peer << 16 | vector` to the doorbell
//! register at BAR 0 + 12 signals an `eventfd` that its interrupt server has passed to it. Here
//! the server and the other guest are this process, and what rings is not the guest's processor
//! but another of its devices, whose message-signalled interrupt is addressed to that register.
//!
//! MSI has 16 bits of data, so this process is peer 0 and the vector alone fits. A function with
//! several MSI messages varies the low bits of the data: its vectors start at a multiple of their
//! number.

use crate::LabError;
use outboard_linux::{EventFd, SharedMemory};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

/// Vectors of all devices together.
pub(crate) const VECTORS: u16 = 64;
/// Offset of the doorbell register in BAR 0 (`ivshmem` specification, "Registers").
pub(crate) const DOORBELL_OFFSET: u64 = 12;

const PROTOCOL_VERSION: i64 = 0;
const OUR_PEER: i64 = 0;
const QEMU_PEER: i64 = 1;
const SHARED_MEMORY: i64 = -1;

/// The `eventfd`s, and which of them are taken.
#[derive(Debug)]
pub(crate) struct Doorbell {
    events: Vec<EventFd>,
    taken: Mutex<u64>,
    /// QEMU takes the end of this connection for the end of the interrupt server.
    _connection: UnixStream,
}

impl Doorbell {
    /// Plays the interrupt server on `connection`: everything is sent before QEMU even starts.
    pub(crate) fn serve(connection: UnixStream) -> Result<Self, LabError> {
        let system = LabError::system("passing descriptors to QEMU");
        let memory = SharedMemory::new("ivshmem", 4096).map_err(&system)?;
        let make = || -> rustix::io::Result<Vec<EventFd>> {
            (0..VECTORS).map(|_| EventFd::new()).collect()
        };
        let (events, unused) = (make().map_err(&system)?, make().map_err(&system)?);
        let send = |message: i64, fd: Option<BorrowedFd<'_>>| send(&connection, message, fd);
        let handshake = || {
            send(PROTOCOL_VERSION, None)?;
            send(QEMU_PEER, None)?;
            send(SHARED_MEMORY, Some(memory.as_fd()))?;
            events.iter().try_for_each(|event| send(OUR_PEER, Some(event.as_fd())))?;
            unused.iter().try_for_each(|event| send(QEMU_PEER, Some(event.as_fd())))
        };
        handshake().map_err(&system)?;
        Ok(Self { events, taken: Mutex::new(0), _connection: connection })
    }

    /// Takes `count` vectors that start at a multiple of `count`, a power of two.
    pub(crate) fn take(&self, count: u16) -> Option<Range<u16>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let starts = (0..VECTORS).step_by(count.into());
        let range = starts
            .map(|start| start..start + count)
            .find(|range| range.end <= VECTORS && *taken & bits(range) == 0)?;
        *taken |= bits(&range);
        Some(range)
    }

    /// Gives vectors back, and forgets what they have signalled.
    pub(crate) fn give(&self, range: Range<u16>) {
        for vector in range.clone() {
            self.event(vector).take();
        }
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) &= !bits(&range);
    }

    pub(crate) fn event(&self, vector: u16) -> &EventFd {
        &self.events[usize::from(vector)]
    }
}

/// The bits of `range`, which lies below 64.
fn bits(range: &Range<u16>) -> u64 {
    range.clone().fold(0, |bits, vector| bits | 1 << vector)
}

/// Sends one message of the server's protocol: a little-endian integer, perhaps a descriptor.
fn send(to: &UnixStream, message: i64, fd: Option<BorrowedFd<'_>>) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let bytes = message.to_le_bytes();
    sendmsg(to, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::empty()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_taken_aligned_and_given_back() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let doorbell = Doorbell::serve(ours).unwrap();
        assert_eq!(doorbell.take(1), Some(0..1));
        assert_eq!(doorbell.take(8), Some(8..16));
        assert_eq!(doorbell.take(2), Some(2..4));
        assert_eq!(doorbell.take(32), Some(32..64));
        assert_eq!(doorbell.take(32), None);
        doorbell.event(33).signal();
        doorbell.give(32..64);
        assert_eq!(doorbell.take(32), Some(32..64));
        assert!(
            !doorbell.event(33).take(),
            "what an earlier owner's device signalled is forgotten"
        );
        assert_eq!(doorbell.take(128), None);
    }
}
