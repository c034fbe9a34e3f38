//! Messages on a socket, whole ones, without waiting.

use crate::error::Trouble;
use outboard_virtio::spec::vhost_user::{Header, MAX_CONFIG_BYTES, MAX_DESCRIPTORS};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use zerocopy::{FromBytes, IntoBytes};

/// The most bytes behind a header: a whole configuration, and what begins it.
const MAX_PAYLOAD: usize = 12 + MAX_CONFIG_BYTES;

/// A message that came.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) request: u32,
    pub(crate) flags: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Message {
    /// The payload, if it is exactly such a value.
    pub(crate) fn value<T: FromBytes>(&self) -> Option<T> {
        T::read_from_bytes(&self.payload).ok()
    }
}

/// One end of a connection. It never waits.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: OwnedFd,
    /// What has come of a message.
    bytes: [u8; Header::BYTES + MAX_PAYLOAD],
    filled: usize,
    descriptors: Vec<OwnedFd>,
}

impl Wire {
    /// Over a socket that does not block.
    pub(crate) const fn new(socket: OwnedFd) -> Self {
        let bytes = [0; Header::BYTES + MAX_PAYLOAD];
        Self { socket, bytes, filled: 0, descriptors: Vec::new() }
    }

    /// Sends a message, all at once: a peer that leaves so much unread that there is no room is
    /// not one to go on with.
    pub(crate) fn send(
        &self,
        request: u32,
        flags: u32,
        payload: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Trouble> {
        let flags = flags | Header::VERSION;
        let bytes = payload.len() as u32;
        let header = Header { request: request.into(), flags: flags.into(), bytes: bytes.into() };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(Trouble::System("passing a descriptor", Errno::TOOBIG));
        }
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(payload)];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(&self.socket, &parts, &mut ancillary, flags) {
            Ok(sent) if sent == Header::BYTES + payload.len() => Ok(()),
            Ok(_) | Err(Errno::AGAIN) => Err(Trouble::Deaf),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(Trouble::Closed),
            Err(error) => Err(Trouble::System("sending to it", error)),
        }
    }

    /// The next message, if all of it is there.
    pub(crate) fn receive(&mut self) -> Result<Option<Message>, Trouble> {
        loop {
            let wanted = self.wanted()?;
            if self.filled == wanted {
                let header = self.header();
                let payload = self.bytes[Header::BYTES..wanted].to_vec();
                self.filled = 0;
                return Ok(Some(Message {
                    request: header.request.get(),
                    flags: header.flags.get(),
                    payload,
                    descriptors: std::mem::take(&mut self.descriptors),
                }));
            }
            if !self.fill(wanted)? {
                return Ok(None);
            }
        }
    }

    fn header(&self) -> Header {
        let mut header = [0; Header::BYTES];
        header.copy_from_slice(&self.bytes[..Header::BYTES]);
        zerocopy::transmute!(header)
    }

    /// Bytes of the message that has begun, as far as its length is known.
    fn wanted(&self) -> Result<usize, Trouble> {
        if self.filled < Header::BYTES {
            return Ok(Header::BYTES);
        }
        let (request, bytes) = (self.header().request.get(), self.header().bytes.get());
        match bytes as usize {
            bytes if bytes <= MAX_PAYLOAD => Ok(Header::BYTES + bytes),
            _ => Err(Trouble::Length { request, bytes: bytes as usize }),
        }
    }

    /// Takes what there is up to `wanted` bytes; whether there was any.
    fn fill(&mut self, wanted: usize) -> Result<bool, Trouble> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.bytes[self.filled..wanted])];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(Errno::CONNRESET) => return Err(Trouble::Closed),
            Err(error) => return Err(Trouble::System("hearing from it", error)),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if received == 0 {
            return Err(Trouble::Closed);
        }
        if self.descriptors.len() > MAX_DESCRIPTORS {
            return Err(Trouble::Descriptors { request: self.header().request.get() });
        }
        self.filled += received;
        Ok(true)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
