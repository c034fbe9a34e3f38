//! Letting clients of 9P in.

use crate::connection::Connection;
use crate::export::FIRST_SESSION;
use crate::poller::Interest;
use crate::ready::Ready;
use crate::server::{ACCEPT_PAUSE, Platform, Server};
use outboard_linux::now;
use outboard_ninep::Address;
use outboard_ninep::server::Session;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

/// Clients at once.
const MAX_CONNECTIONS: usize = 256;
/// Clients that are accepted in a turn; the others have theirs next.
const ACCEPTS: usize = 32;

impl<P: Platform> Server<P> {
    pub(crate) fn accept(&mut self, index: usize) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get(index) else { return };
            match accept_with(listener, flags) {
                Ok(socket) => {
                    self.told_of_pause = false;
                    let tcp = matches!(listener.address, Address::Tcp { .. });
                    self.admit(socket, tcp);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return self.pause_accepting(error),
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd, tcp: bool) {
        if self.connections.len() >= MAX_CONNECTIONS {
            let full = format_args!("{MAX_CONNECTIONS} are connected; another was turned away");
            self.events.log(now(), "clients", &full);
            return;
        }
        if tcp {
            let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
        }
        self.last_connection = self.last_connection.wrapping_add(1) % FIRST_SESSION;
        let id = self.last_connection;
        let session = Session::new(id, self.limits, self.owner.clone());
        let connection = Connection::new(socket, session);
        let number = Ready::Connection(id).number();
        if self.poller.add(&connection, number, connection.interest).is_ok() {
            self.connections.insert(id, connection);
        }
    }

    /// Whoever waits at a listener keeps it ready, so the loop would spin.
    fn pause_accepting(&mut self, error: Errno) {
        if !std::mem::replace(&mut self.told_of_pause, true) {
            let message = format_args!(
                "more of them cannot be accepted for now, and wait: {error}. A higher limit of open \
                 files (ulimit -n) lets more in"
            );
            self.events.log(now(), "clients", &message);
        }
        self.listeners.iter().for_each(|listener| self.poller.remove(listener));
        self.accept_again = Some(now() + ACCEPT_PAUSE);
    }

    pub(crate) fn resume_accepting(&mut self, client_gone: bool) {
        if !self.accept_again.is_some_and(|end| client_gone || now().reached(end)) {
            return;
        }
        self.accept_again = None;
        for (index, listener) in self.listeners.iter().enumerate() {
            let number = Ready::Listener(index).number();
            match self.poller.add(listener, number, Interest::READ) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(_) => self.accept_again = Some(now() + ACCEPT_PAUSE),
            }
        }
    }
}
