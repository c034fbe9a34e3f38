//! The connection: messages with descriptors, over a socket that never blocks.

use crate::error::Violation;
use outboard_virtio::spec::vhost_user::Header;
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use zerocopy::{FromBytes, IntoBytes};

/// The most bytes behind a header: the longest message is a table of eight regions, or 256 bytes of
/// configuration.
const MAX_BODY: usize = 512;
/// The most descriptors with a message: one for each of eight regions.
const MAX_DESCRIPTORS: usize = 8;

/// A message as it came.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) request: u32,
    pub(crate) flags: u32,
    pub(crate) body: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// What receiving has brought.
#[derive(Debug)]
pub(crate) enum Received {
    Message(Message),
    /// Nothing more for now.
    Nothing,
    /// The other end is gone, between messages.
    Gone,
}

/// A socket, and what was received of a message or is to be sent of answers.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    received: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    unsent: Vec<u8>,
    /// To be sent with the first of the bytes.
    enclosed: Option<OwnedFd>,
}

impl Socket {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        let (received, descriptors, unsent) = (Vec::new(), Vec::new(), Vec::new());
        Self { socket, received, descriptors, unsent, enclosed: None }
    }

    /// The next message. Half of one waits for its other half.
    pub(crate) fn receive(&mut self) -> Result<Received, Violation> {
        loop {
            let missing = match self.header()? {
                None => Header::BYTES - self.received.len(),
                Some(header) => {
                    let bytes = Header::BYTES + header.bytes.get() as usize;
                    if self.received.len() == bytes {
                        return Ok(Received::Message(self.take(header)));
                    }
                    bytes - self.received.len()
                }
            };
            match self.receive_bytes(missing)? {
                Some(0) if self.received.is_empty() => return Ok(Received::Gone),
                Some(0) => return Err(Violation::Cut),
                Some(_) => {}
                None => return Ok(Received::Nothing),
            }
        }
    }

    /// The header, once it is there.
    fn header(&self) -> Result<Option<Header>, Violation> {
        let Ok((header, _)) = Header::read_from_prefix(&self.received) else { return Ok(None) };
        let (flags, bytes) = (header.flags.get(), header.bytes.get());
        if flags & Header::VERSION_MASK != Header::VERSION || flags & Header::REPLY != 0 {
            return Err(Violation::Flags(flags));
        }
        if bytes as usize > MAX_BODY {
            return Err(Violation::TooLong(bytes));
        }
        Ok(Some(header))
    }

    fn take(&mut self, header: Header) -> Message {
        let body = self.received.split_off(Header::BYTES);
        self.received.clear();
        let descriptors = std::mem::take(&mut self.descriptors);
        Message { request: header.request.get(), flags: header.flags.get(), body, descriptors }
    }

    /// Receives at most `most` bytes: how many, or `None` if there are none for now.
    fn receive_bytes(&mut self, most: usize) -> Result<Option<usize>, Violation> {
        let mut bytes = [0; Header::BYTES + MAX_BODY];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut into = [IoSliceMut::new(&mut bytes[..most])];
        let count = match recvmsg(&self.socket, &mut into, &mut ancillary, flags) {
            Ok(message) => {
                for one in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(descriptors) = one {
                        self.descriptors.extend(descriptors);
                    }
                }
                let lost = message.flags.contains(ReturnFlags::CTRUNC);
                if lost || self.descriptors.len() > MAX_DESCRIPTORS {
                    return Err(Violation::Descriptors(0, self.descriptors.len()));
                }
                message.bytes
            }
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(Violation::Socket(error)),
        };
        self.received.extend_from_slice(&bytes[..count]);
        Ok(Some(count))
    }

    /// Sends an answer, perhaps with a descriptor; what the socket does not take is kept.
    pub(crate) fn send(
        &mut self,
        request: u32,
        body: &[u8],
        enclosed: Option<OwnedFd>,
    ) -> Result<(), Violation> {
        let header = Header {
            request: request.into(),
            flags: (Header::VERSION | Header::REPLY).into(),
            bytes: (body.len() as u32).into(),
        };
        self.unsent.extend_from_slice(header.as_bytes());
        self.unsent.extend_from_slice(body);
        self.enclosed = enclosed;
        self.transmit()
    }

    /// Sends what there is to send, as far as the socket takes it.
    pub(crate) fn transmit(&mut self) -> Result<(), Violation> {
        while !self.unsent.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let enclosed = self.enclosed.as_ref().map(AsFd::as_fd);
            let enclosed: &[BorrowedFd<'_>] = enclosed.as_slice();
            if !enclosed.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(enclosed));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &[IoSlice::new(&self.unsent)], &mut ancillary, flags) {
                Ok(count) => {
                    self.enclosed = None;
                    self.unsent.drain(..count);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Violation::Socket(error)),
            }
        }
        Ok(())
    }

    /// Whether an answer waits for the client to take it: nothing more is received meanwhile.
    pub(crate) fn is_full(&self) -> bool {
        !self.unsent.is_empty()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
