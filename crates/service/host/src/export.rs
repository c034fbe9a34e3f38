//! Disks that virtual machines use.

use crate::door::Door;
use crate::events::EventLog;
use crate::listener::Listener;
use crate::poller::{Interest, Poller};
use crate::ready::Ready;
use outboard_block::disk::{DiskId, Disks, Done};
use outboard_hw::Instant;
use outboard_hw::time::earlier;
use outboard_linux::now;
use outboard_vhost::Session;

/// Sessions are numbered from here on; those of 9P are below.
pub(crate) const FIRST_SESSION: u32 = 1 << 31;
/// The last one: behind it are numbers with a meaning of their own.
const LAST_SESSION: u32 = u32::MAX - 16;

/// A disk, and who is connected to it.
#[derive(Debug)]
struct Export {
    disk: DiskId,
    door: Door,
    session: Option<Session>,
    /// More waits for it in the rings than is taken in a turn.
    unfinished: bool,
}

/// All disks that are exported. Each has one client at a time.
#[derive(Debug)]
pub(crate) struct Exports {
    all: Vec<Export>,
    next_session: u32,
}

impl Exports {
    pub(crate) const fn new() -> Self {
        Self { all: Vec::new(), next_session: FIRST_SESSION }
    }

    /// Lets clients use a disk, one that was closed before, too.
    pub(crate) fn add(
        &mut self,
        (name, disk): (String, DiskId),
        listener: Listener,
        poller: &Poller,
    ) -> rustix::io::Result<()> {
        let place = self.all.iter().position(|export| export.disk == disk);
        let number = Ready::Export(place.unwrap_or(self.all.len()));
        let door = Door::open(name, listener, number, poller)?;
        match self.all.iter_mut().find(|export| export.disk == disk) {
            Some(export) => export.door = door,
            None => self.all.push(Export { disk, door, session: None, unfinished: false }),
        }
        Ok(())
    }

    /// Whether a disk has a socket.
    pub(crate) fn is_open(&self, disk: DiskId) -> bool {
        self.all.iter().any(|export| export.disk == disk && export.door.is_open())
    }

    /// Removes a disk's socket. Whoever is connected stays so, and has the disk again if it is back.
    pub(crate) fn close(&mut self, disk: DiskId, poller: &Poller) {
        if let Some(export) = self.all.iter_mut().find(|export| export.disk == disk) {
            export.door.close(poller);
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
        let is_taken = export.session.is_some();
        let Some(socket) = export.door.accept(is_taken, poller, events) else { return };
        let id = self.next_session;
        self.next_session = if id == LAST_SESSION { FIRST_SESSION } else { id + 1 };
        let added = Session::new(socket, id, export.disk, disks).and_then(|session| {
            poller.add(&session, Ready::Machine(index).number(), Interest::READ)?;
            Ok(session)
        });
        match added {
            Ok(session) => {
                events.log(at, &export.door.name, &"a virtual machine has connected");
                export.session = Some(session);
            }
            Err(error) => {
                events.log(
                    at,
                    &export.door.name,
                    &format_args!("a client was turned away: {error}"),
                );
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
        for export in &mut self.all {
            if let Some(session) = &mut export.session {
                export.unfinished = session.work(disks);
                if let Some(refusal) = session.take_refusal() {
                    let what = format_args!("data of the virtual machine is copied: {refusal}");
                    events.log(at, &export.door.name, &what);
                }
                if session.is_over() {
                    match session.closed() {
                        Some(reason) => events.log(
                            at,
                            &export.door.name,
                            &format_args!("the virtual machine was disconnected: {reason}"),
                        ),
                        None => events.log(at, &export.door.name, &"the virtual machine has gone"),
                    }
                    poller.remove(&*session);
                    export.session = None;
                    export.unfinished = false;
                }
            }
            export.door.attend(export.session.is_some(), poller, at);
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
        self.all.iter().fold(None, |at, export| earlier(at, export.door.deadline()))
    }

    /// Takes nothing more from clients, and no more clients.
    pub(crate) fn finish(&mut self, poller: &Poller) {
        for export in &mut self.all {
            export.door.close(poller);
            if let Some(session) = &mut export.session {
                session.finish();
            }
        }
    }
}
