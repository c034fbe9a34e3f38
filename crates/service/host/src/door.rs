//! A socket that lets one client in at a time. Another one waits, as a successor does that connects
//! before it is noticed that its predecessor is gone.

use crate::events::EventLog;
use crate::listener::Listener;
use crate::poller::{Interest, Poller};
use crate::ready::Ready;
use crate::server::ACCEPT_PAUSE;
use outboard_hw::Instant;
use outboard_linux::now;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

/// The listener, and whether it is listened to.
#[derive(Debug)]
pub(crate) struct Door {
    /// What it leads to.
    pub(crate) name: String,
    number: Ready,
    /// `None` once it is closed.
    listener: Option<Listener>,
    /// Whether the poller tells of those who connect. While somebody is inside, others wait.
    listening: bool,
    /// When they can be accepted again, after there was no descriptor for one.
    again: Option<Instant>,
}

impl Door {
    /// A door that the poller is told of, by this number.
    pub(crate) fn open(
        name: String,
        listener: Listener,
        number: Ready,
        poller: &Poller,
    ) -> rustix::io::Result<Self> {
        poller.add(&listener, number.number(), Interest::READ)?;
        Ok(Self { name, number, listener: Some(listener), listening: true, again: None })
    }

    /// Somebody connects; whoever is let in.
    pub(crate) fn accept(
        &mut self,
        is_taken: bool,
        poller: &Poller,
        events: &mut EventLog,
    ) -> Option<OwnedFd> {
        let at = now();
        let listener = self.listener.as_ref()?;
        if is_taken {
            // Whoever waits would keep the listener ready.
            poller.remove(listener);
            self.listening = false;
            let what = "another virtual machine waits until the one that uses it is gone";
            events.log(at, &self.name, &what);
            return None;
        }
        match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => Some(socket),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => None,
            Err(error) => {
                // Without descriptors to spare it would be tried again and again.
                poller.remove(listener);
                (self.listening, self.again) = (false, Some(at + ACCEPT_PAUSE));
                events.log(at, &self.name, &format_args!("nobody can connect for now: {error}"));
                None
            }
        }
    }

    /// Listens again, if that is due.
    pub(crate) fn attend(&mut self, is_taken: bool, poller: &Poller, at: Instant) {
        if self.again.is_some_and(|again| at.reached(again)) {
            self.again = None;
        }
        let idle = !is_taken && !self.listening && self.again.is_none();
        if let Some(listener) = self.listener.as_ref().filter(|_| idle) {
            self.listening = poller.add(listener, self.number.number(), Interest::READ).is_ok();
        }
    }

    /// When somebody can be accepted again.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.again
    }

    /// Whether anybody can be let in, now or later.
    pub(crate) const fn is_open(&self) -> bool {
        self.listener.is_some()
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&mut self, poller: &Poller) {
        if let Some(listener) = self.listener.take() {
            poller.remove(&listener);
        }
    }
}
