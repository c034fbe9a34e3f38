//! Disks that virtual machines use.

use crate::events::EventLog;
use crate::listener::Listener;
use crate::poller::{Interest, Poller};
use crate::ready::Ready;
use crate::server::ACCEPT_PAUSE;
use outboard_block::disk::{DiskId, Disks, Done};
use outboard_hw::Instant;
use outboard_hw::time::earlier;
use outboard_linux::now;
use outboard_vhost::Session;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

/// Sessions are numbered from here on; those of 9P are below.
pub(crate) const FIRST_SESSION: u32 = 1 << 31;
/// The last one: behind it are numbers with a meaning of their own.
const LAST_SESSION: u32 = u32::MAX - 16;

/// A disk's socket, and who is connected to it.
#[derive(Debug)]
struct Export {
    name: String,
    disk: DiskId,
    /// `None` once the server ends.
    listener: Option<Listener>,
    /// Whether the poller tells of those who connect. While somebody has the disk, others wait.
    listening: bool,
    /// When they can be accepted again, after there was no descriptor for one.
    again: Option<Instant>,
    session: Option<Session>,
    /// More waits for it in the rings than is taken in a turn.
    unfinished: bool,
}

/// All disks that are exported. Each has one client at a time: another one waits, as a successor
/// does that connects before it is noticed that its predecessor is gone.
#[derive(Debug)]
pub(crate) struct Exports {
    all: Vec<Export>,
    next_session: u32,
}

impl Exports {
    pub(crate) const fn new() -> Self {
        Self { all: Vec::new(), next_session: FIRST_SESSION }
    }

    /// The number by which the poller is to know a disk's listener.
    pub(crate) fn number(&self, disk: DiskId) -> Ready {
        let place = self.all.iter().position(|export| export.disk == disk);
        Ready::Export(place.unwrap_or(self.all.len()))
    }

    /// Adds a disk, or one that was closed; the poller knows the listener.
    pub(crate) fn add(&mut self, name: String, disk: DiskId, listener: Listener) {
        let (listener, listening) = (Some(listener), true);
        if let Some(export) = self.all.iter_mut().find(|export| export.disk == disk) {
            (export.listener, export.listening, export.again) = (listener, listening, None);
            return;
        }
        let (again, session, unfinished) = (None, None, false);
        self.all.push(Export { name, disk, listener, listening, again, session, unfinished });
    }

    /// Whether a disk has a socket.
    pub(crate) fn is_open(&self, disk: DiskId) -> bool {
        self.all.iter().any(|export| export.disk == disk && export.listener.is_some())
    }

    /// Removes a disk's socket. Whoever is connected stays so, and has the disk again if it is back.
    pub(crate) fn close(&mut self, disk: DiskId, poller: &Poller) {
        let export = self.all.iter_mut().find(|export| export.disk == disk);
        if let Some(listener) = export.and_then(|export| export.listener.take()) {
            poller.remove(&listener);
        }
    }

    /// Somebody connects.
    pub(crate) fn accept(
        &mut self,
        index: usize,
        poller: &Poller,
        disks: &Disks,
        events: &mut EventLog,
    ) {
        let at = now();
        let Some(export) = self.all.get_mut(index) else { return };
        let Some(listener) = &export.listener else { return };
        if export.session.is_some() {
            // Whoever waits would keep the listener ready.
            poller.remove(listener);
            export.listening = false;
            let what = "another virtual machine waits until the one that uses the disk is gone";
            events.log(at, &export.name, &what);
            return;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match accept_with(listener, flags) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
            Err(error) => {
                // Without descriptors to spare it would be tried again and again.
                poller.remove(listener);
                (export.listening, export.again) = (false, Some(at + ACCEPT_PAUSE));
                events.log(at, &export.name, &format_args!("nobody can connect for now: {error}"));
                return;
            }
        };
        let id = self.next_session;
        self.next_session = if id == LAST_SESSION { FIRST_SESSION } else { id + 1 };
        let added = Session::new(socket, id, export.disk, disks).and_then(|session| {
            poller.add(&session, Ready::Machine(index).number(), Interest::READ)?;
            Ok(session)
        });
        match added {
            Ok(session) => {
                events.log(at, &export.name, &"a virtual machine has connected");
                export.session = Some(session);
            }
            Err(error) => {
                events.log(at, &export.name, &format_args!("a client was turned away: {error}"));
            }
        }
    }

    /// A client's descriptor is ready.
    pub(crate) fn receive(&mut self, index: usize) {
        let session = self.all.get_mut(index).and_then(|export| export.session.as_mut());
        if let Some(session) = session {
            session.receive();
        }
    }

    /// Passes on what has ended at a disk, unless it is somebody else's: then it is given back.
    pub(crate) fn complete(&mut self, done: Done, disks: &mut Disks) -> Option<Done> {
        let id = (done.token.0 >> 32) as u32;
        if !(FIRST_SESSION..=LAST_SESSION).contains(&id) {
            return Some(done);
        }
        let sessions = self.all.iter_mut().filter_map(|export| export.session.as_mut());
        if let Some(session) = sessions.into_iter().find(|session| session.id() == id) {
            session.complete(done, disks);
        }
        None
    }

    /// Lets all clients go on, and lets go of those that are gone.
    pub(crate) fn work(
        &mut self,
        poller: &Poller,
        disks: &mut Disks,
        (events, at): (&mut EventLog, Instant),
    ) {
        for (index, export) in self.all.iter_mut().enumerate() {
            if let Some(session) = &mut export.session {
                export.unfinished = session.work(disks);
                if session.is_over() {
                    match session.closed() {
                        Some(reason) => events.log(
                            at,
                            &export.name,
                            &format_args!("the virtual machine was disconnected: {reason}"),
                        ),
                        None => events.log(at, &export.name, &"the virtual machine has gone"),
                    }
                    poller.remove(&*session);
                    export.session = None;
                    export.unfinished = false;
                }
            }
            if export.again.is_some_and(|again| at.reached(again)) {
                export.again = None;
            }
            let idle = export.session.is_none() && !export.listening && export.again.is_none();
            if let Some(listener) = export.listener.as_ref().filter(|_| idle) {
                let number = Ready::Export(index).number();
                export.listening = poller.add(listener, number, Interest::READ).is_ok();
            }
        }
    }

    /// Whether the loop must not sleep: there is more to do, or there is something in a ring now that
    /// drivers are asked to tell when there is.
    pub(crate) fn is_awake(&mut self) -> bool {
        let mut awake = false;
        for export in &mut self.all {
            let asked = export.session.as_mut().is_some_and(Session::sleep);
            awake |= asked || export.unfinished;
        }
        awake
    }

    /// When clients can be accepted again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.all.iter().fold(None, |at, export| earlier(at, export.again))
    }

    /// Takes nothing more from clients, and no more clients.
    pub(crate) fn finish(&mut self, poller: &Poller) {
        for export in &mut self.all {
            if let Some(listener) = export.listener.take() {
                poller.remove(&listener);
            }
            if let Some(session) = &mut export.session {
                session.finish();
            }
        }
    }
}
