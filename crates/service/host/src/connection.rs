//! A client's connection.

use crate::poller::Interest;
use outboard_ninep::sd::SdTree;
use outboard_ninep::server::Session;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A socket and the session on it.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    pub(crate) session: Session<SdTree>,
    /// What the poller was told to wait for.
    pub(crate) interest: Interest,
    /// The client sends nothing more.
    finished: bool,
    /// The socket is of no use any more.
    broken: bool,
    /// More was received than is worked off in a turn.
    unfinished: bool,
}

impl Connection {
    pub(crate) const fn new(socket: OwnedFd, session: Session<SdTree>) -> Self {
        let interest = Interest::READ;
        Self { socket, session, interest, finished: false, broken: false, unfinished: false }
    }

    /// Receives what there is room for, once: a client that sends without end gets its turn like
    /// all others.
    pub(crate) fn receive(&mut self) {
        let room = self.session.room();
        if self.finished || self.broken || room.is_empty() {
            return;
        }
        match recv(&self.socket, room, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => self.finished = true,
            Ok((_, count)) => self.session.received(count),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.broken = true,
        }
    }

    /// Sends what there is to send, as far as the socket takes it. What had to wait for room among
    /// the answers goes on as soon as there is some.
    pub(crate) fn attend(&mut self, tree: &mut SdTree) {
        while self.transmit() && !self.unfinished {
            self.work(tree);
        }
    }

    /// Works off what was received.
    pub(crate) fn work(&mut self, tree: &mut SdTree) {
        self.unfinished = self.session.work(tree);
    }

    /// Whether there is work that only waits for the next turn.
    pub(crate) const fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// Whether the socket took anything.
    fn transmit(&mut self) -> bool {
        let mut sent = false;
        while !self.broken && !self.session.unsent().is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.socket, self.session.unsent(), flags) {
                Ok(count) => {
                    self.session.sent(count);
                    sent = true;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => self.broken = true,
            }
        }
        sent
    }

    /// What to wait for now.
    pub(crate) fn wanted(&self) -> Interest {
        let write = !self.session.unsent().is_empty();
        Interest { read: !self.finished && self.session.wants_input(), write }
    }

    /// The client is gone: nobody takes what there is to send.
    pub(crate) const fn abandon(&mut self) {
        self.broken = true;
    }

    /// Takes nothing more from the client; what there is to send is still sent.
    pub(crate) fn finish(&mut self) {
        (self.finished, self.unfinished) = (true, false);
        self.session.forget_input();
    }

    /// Whether nothing more will come of it.
    pub(crate) fn is_over(&self) -> bool {
        let closing = self.session.closed().is_some() && self.session.unsent().is_empty();
        self.broken || closing || self.finished && self.session.is_idle()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
