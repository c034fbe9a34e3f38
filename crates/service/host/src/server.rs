//! The server: drivers below, clients above, one loop between them.

use crate::cards::{Cards, HostedCard};
use crate::connection::Connection;
use crate::events::EventLog;
use crate::export::Exports;
use crate::follow::Follow;
use crate::leave::Leaving;
use crate::listener::{ListenError, Listener};
use crate::pace::{Pace, Reaping};
use crate::poller::{Interest, Poller};
use crate::ready::Ready;
use crate::signals::Signals;
use outboard_block::BlockDriver;
use outboard_block::UnitId;
use outboard_block::disk::{DiskId, DiskOptions, Disks, Token};
use outboard_hw::Instant;
use outboard_hw::time::earlier;
use outboard_linux::{InterruptSource, now};
use outboard_net::Interface;
use outboard_ninep::Address;
use outboard_ninep::sd::{SdDone, SdTree};
use outboard_ninep::server::{Completed, Limits, Owner, RequestId};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// How long clients wait to be accepted once the system had no more descriptors, unless another
/// client goes.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long disks may take until they are known: a driver gives one that stays busy up after two
/// minutes.
const START_TIME: Duration = Duration::from_secs(150);
/// How long shutting down may take: what is in flight, a flush, the drivers' own farewell.
const STOP_TIME: Duration = Duration::from_secs(75);
/// How long clients may take to fetch their last answers.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often everything is looked at before the system is asked what else is ready, while it is
/// looked at at all: to ask costs as much as some looks.
const LOOKS: usize = 8;
/// Session number of the server's own requests.
pub(crate) const OWN_SESSION: u32 = u32::MAX - 1;

/// What a platform tells of itself.
pub trait Platform {
    /// Readable once the platform has ended; `None` if it does not end.
    fn ended(&self) -> Option<BorrowedFd<'_>>;

    /// The error that says why it ended; `Ok` if it has not.
    fn check(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// Readable when [`drain_news`](Self::drain_news) has something to tell; `None` if it never has.
    fn news(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Tells what has happened since the last call, for the log: at which driver's device, by the
    /// order in which they were given to the server, at which of its units, and what. Called often.
    fn drain_news(&mut self, _tell: &mut dyn FnMut(usize, UnitId, &dyn std::fmt::Display)) {}

    /// Readable when [`drain_requests`](Self::drain_requests) has something to tell; `None` if it
    /// never has.
    fn requests(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Calls `wanted` with each driver, by the order in which they were given to the server (those of
    /// network cards after all others), whose
    /// device somebody has asked for since the last call. The driver is brought to rest and
    /// dropped, and the others go on.
    fn drain_requests(&mut self, _wanted: &mut dyn FnMut(usize)) {}
}

/// A driver to be hosted.
#[expect(missing_debug_implementations, reason = "drivers need not have one")]
pub struct Hosted {
    /// The driver.
    pub driver: Box<dyn BlockDriver>,
    /// Its device's interrupts.
    pub interrupts: Box<dyn InterruptSource>,
    /// How its disks are to be presented.
    pub options: Vec<(UnitId, DiskOptions)>,
}

/// Why a server could not start, or had to end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The system refused something that the loop needs.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// An address cannot be listened at.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The devices are gone.
    #[error("{0}")]
    Platform(Box<dyn std::error::Error + Send + Sync>),
    /// The disks did not come up.
    #[error("the disks did not come up within {} s", START_TIME.as_secs())]
    Slow,
}

/// How a server ended, when it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything in flight was finished, and the disks were flushed.
    InOrder,
    /// A disk could not be flushed, or there was no time.
    Unflushed,
    /// A second signal came.
    AtOnce,
}

/// A process's drivers, disks and clients.
pub struct Server<P> {
    pub(crate) poller: Poller,
    signals: Signals,
    signalled: usize,
    platform: P,
    /// Of each driver that was not dropped.
    pub(crate) interrupts: Vec<Option<Box<dyn InterruptSource>>>,
    pub(crate) tree: SdTree,
    pub(crate) listeners: Vec<Listener>,
    /// Until when nobody is accepted, and the poller does not know the listeners.
    pub(crate) accept_again: Option<Instant>,
    /// The log says so; it need not each time.
    pub(crate) told_of_pause: bool,
    pub(crate) connections: BTreeMap<u32, Connection>,
    pub(crate) last_connection: u32,
    /// Who is attended to first in the next turn.
    first_connection: u32,
    pub(crate) owner: Arc<Owner>,
    pub(crate) limits: Limits,
    /// Disks that virtual machines use.
    pub(crate) exports: Exports,
    /// Where each disk has a socket.
    pub(crate) follow: Option<Follow>,
    /// Network cards that virtual machines use.
    pub(crate) cards: Cards,
    /// Answers to the server's own requests: how many are left, and whether all were good.
    pub(crate) own: (usize, bool),
    /// Drivers whose devices are being given back.
    pub(crate) leaving: Vec<Leaving>,
    pub(crate) events: EventLog,
    pace: Pace,
    /// Whether the drivers, and the rings of virtual machines, are looked at rather than waited for,
    /// and the drivers' interrupts masked.
    looking: bool,
    /// How often that is done before the system is asked again.
    looks: usize,
    /// Reused between turns.
    ready: Vec<(u64, bool)>,
}

impl<P: Platform> Server<P> {
    /// Takes the drivers over, and SIGINT, SIGTERM and SIGHUP. `budget` is the most bytes of DMA
    /// memory that all transfers together may take.
    pub fn new(
        platform: P,
        hosted: Vec<Hosted>,
        budget: usize,
        owner: Owner,
    ) -> Result<Self, ServerError> {
        let poller = Poller::new().map_err(system("epoll"))?;
        let signals = Signals::take_over()
            .map_err(|error| ServerError::System { what: "taking signals over", error })?;
        let wait = system("waiting for a descriptor");
        for descriptor in signals.descriptors() {
            poller.add(descriptor, Ready::Signal.number(), Interest::READ).map_err(&wait)?;
        }
        if let Some(ended) = platform.ended() {
            poller.add(ended, Ready::Platform.number(), Interest::READ).map_err(&wait)?;
        }
        if let Some(news) = platform.news() {
            poller.add(news, Ready::News.number(), Interest::READ).map_err(&wait)?;
        }
        if let Some(requests) = platform.requests() {
            poller.add(requests, Ready::Requests.number(), Interest::READ).map_err(&wait)?;
        }
        let (mut disks, mut interrupts) = (Disks::new(), Vec::new());
        for Hosted { driver, interrupts: source, options } in hosted {
            let index = disks.add_driver(driver, options, budget);
            for descriptor in source.descriptors() {
                let number = Ready::Interrupt(index).number();
                // Two devices may share a pin's descriptor; the first one's readiness is enough,
                // since all are asked.
                match poller.add(descriptor, number, Interest::READ) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(wait(error)),
                }
            }
            interrupts.push(Some(source));
        }
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let time = time.map_or(0, |time| time.as_secs() as u32);
        Ok(Self {
            poller,
            signals,
            signalled: 0,
            platform,
            interrupts,
            tree: SdTree::new(disks, time),
            listeners: Vec::new(),
            accept_again: None,
            told_of_pause: false,
            connections: BTreeMap::new(),
            last_connection: 0,
            first_connection: 0,
            owner: Arc::new(owner),
            limits: Limits::default(),
            exports: Exports::new(),
            follow: None,
            cards: Cards::new(),
            own: (0, true),
            leaving: Vec::new(),
            events: EventLog::default(),
            pace: Pace::new(Reaping::default()),
            looking: false,
            looks: 0,
            ready: Vec::new(),
        })
    }

    /// Runs until it is known what disks there are and what partitions they have; `false` if a
    /// signal came before.
    pub fn settle(&mut self) -> Result<bool, ServerError> {
        let end = now() + START_TIME;
        while !self.tree.disks().is_settled() || !self.cards.is_settled() {
            if now().reached(end) {
                return Err(ServerError::Slow);
            }
            self.turn(Some(end))?;
            if self.signalled > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says how to learn that requests have ended.
    pub const fn set_reaping(&mut self, reaping: Reaping) {
        self.pace = Pace::new(reaping);
        self.cards.set_reaping(reaping);
    }

    /// Takes the driver of a network card over. Before [`settle`](Self::settle).
    pub fn add_card(&mut self, card: HostedCard) -> Result<(), ServerError> {
        self.cards.add(card, &self.poller).map_err(system("waiting for a descriptor"))
    }

    /// The network cards that can be used, by their numbers and names.
    pub fn cards(&self) -> impl Iterator<Item = (usize, &str, &Interface)> {
        self.cards.known()
    }

    /// The disks.
    pub const fn disks(&mut self) -> &mut Disks {
        self.tree.disks()
    }

    /// Listens for 9P at `address`; the address with the port that the system chose, if any, and
    /// whether only programs on this machine reach it.
    pub fn listen(&mut self, address: &Address) -> Result<(Address, bool), ServerError> {
        let listener = Listener::new(address)?;
        let number = Ready::Listener(self.listeners.len()).number();
        self.poller.add(&listener, number, Interest::READ).map_err(system("listening"))?;
        let told = (listener.address.clone(), listener.is_local());
        self.listeners.push(listener);
        Ok(told)
    }

    /// Lets virtual machines use a disk by vhost-user, at a Unix socket.
    pub fn export(&mut self, disk: DiskId, path: &Path) -> Result<(), ServerError> {
        let listener = Listener::for_machines(path)?;
        let name = self.tree.disks().info(disk).map_or_else(String::new, |info| info.name);
        let added = self.exports.add((name, disk), listener, &self.poller);
        added.map_err(system("listening"))
    }

    /// Lets virtual machines use a network card by vhost-user, at a Unix socket.
    pub fn export_card(&mut self, card: usize, path: &Path) -> Result<(), ServerError> {
        let listener = Listener::for_machines(path)?;
        self.cards.export(card, listener, &self.poller).map_err(system("listening"))
    }

    /// Serves until a signal comes or nothing is left to serve; then shuts down.
    pub fn run(&mut self) -> Result<Ended, ServerError> {
        while self.signalled == 0 {
            self.turn(None)?;
        }
        self.shut_down()
    }

    /// One turn of the loop: waits, passes on what is ready, lets everybody do what is due.
    pub(crate) fn turn(&mut self, deadline: Option<Instant>) -> Result<(), ServerError> {
        if self.looking && self.looks > 0 {
            self.looks -= 1;
        } else {
            self.wait(deadline)?;
            self.looks = LOOKS;
        }
        let clients = self.connections.len();
        let mut ended = self.work();
        // What a driver does at once is passed on before the system is asked for more.
        for _ in 1..LOOKS {
            if self.tree.disks().next_deadline() != Some(Instant::ORIGIN) {
                break;
            }
            ended |= self.work();
        }
        self.keep_pace(ended);
        self.follow_disks();
        self.resume_accepting(self.connections.len() < clients);
        let drivers = self.interrupts.len() + self.cards.len();
        if self.tree.disks().is_stopped() && self.cards.is_stopped() && drivers > 0 {
            self.platform.check().map_err(ServerError::Platform)?;
        }
        Ok(())
    }

    /// Waits until something is ready or due, unless it is looked for, and passes on what is ready.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), ServerError> {
        let deadline = earlier(deadline, self.tree.disks().next_deadline());
        let deadline = earlier(earlier(deadline, self.accept_again), self.exports.deadline());
        let deadline = earlier(deadline, self.cards.deadline());
        let deadline = self.leaving.iter().fold(deadline, |at, one| earlier(at, one.deadline()));
        let unfinished = self.connections.values().any(Connection::is_unfinished);
        // Those who are looked at need not tell.
        let awake = self.looking || self.exports.is_awake() | self.cards.is_awake();
        let deadline = if unfinished || awake { Some(Instant::ORIGIN) } else { deadline };
        self.cards.look();
        let mut ready = std::mem::take(&mut self.ready);
        ready.extend(self.poller.wait(deadline).map_err(system("epoll"))?);
        for (number, gone) in ready.drain(..) {
            self.serve(Ready::of(number), gone);
        }
        self.ready = ready;
        Ok(())
    }

    /// Decides whether to look or to sleep from here on.
    fn keep_pace(&mut self, ended: bool) {
        let disks = self.tree.disks();
        let looking = self.pace.looks(now(), !disks.is_idle(), ended);
        if looking != self.looking {
            self.looking = looking;
            disks.mask(looking);
        }
    }

    fn serve(&mut self, what: Ready, gone: bool) {
        match what {
            Ready::Signal => self.signalled += self.signals.count(),
            // The drivers find out by themselves; polling makes them look.
            Ready::Platform => {
                if let Some(ended) = self.platform.ended() {
                    self.poller.remove(ended);
                }
                (0..self.interrupts.len()).for_each(|i| self.tree.disks().interrupt(i, 0));
                self.cards.interrupt_all();
            }
            // Told before what the drivers have to tell.
            Ready::News => {}
            Ready::Requests => {
                let mut wanted = Vec::new();
                self.platform.drain_requests(&mut |driver| wanted.push(driver));
                for driver in wanted {
                    match driver.checked_sub(self.interrupts.len()) {
                        None => self.begin_leave(driver),
                        Some(card) => self.cards.begin_leave(card),
                    }
                }
            }
            Ready::Interrupt(_) => {
                for (index, source) in self.interrupts.iter_mut().enumerate() {
                    let Some(source) = source else { continue };
                    source.take(&mut |vector| self.tree.disks().interrupt(index, vector));
                }
            }
            Ready::Listener(index) => self.accept(index),
            Ready::Export(index) => {
                self.exports.accept(index, &self.poller, self.tree.disks(), &mut self.events);
            }
            Ready::Machine(index) => self.exports.receive(index),
            Ready::CardInterrupt(_) => self.cards.interrupt(),
            Ready::CardDoor(index) => self.cards.accept(index, &self.poller, &mut self.events),
            Ready::CardClient(index) => self.cards.receive(index),
            Ready::Connection(id) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.receive();
                    if gone {
                        connection.abandon();
                    }
                }
            }
        }
    }

    /// Passes on to the log what the platform has to tell.
    fn tell_news(&mut self) {
        let disks = self.tree.disks();
        self.platform.drain_news(&mut |driver, unit, what| {
            let name = disks.name_of(driver, unit).unwrap_or("a port without a disk");
            tracing::info!("{name}: {what}");
        });
    }

    /// Lets drivers, disks and clients do what is due; whether a request has ended.
    fn work(&mut self) -> bool {
        let at = now();
        self.tree.disks().poll(at);
        self.interrupts.iter_mut().flatten().for_each(|source| source.rearm());
        let mut ended = false;
        while let Some(done) = self.tree.disks().next_done() {
            ended = true;
            let done = self.exports.complete(done, self.tree.disks());
            if let Some((request, result)) = done.and_then(|done| self.tree.ended(done)) {
                self.answer(request, result);
            }
        }
        self.go_on_leaving(at);
        self.exports.work(&self.poller, self.tree.disks(), (&mut self.events, at));
        self.cards.work(&self.poller, (&mut self.events, at));
        self.work_sessions();
        self.tree.disks().kick(at);
        self.attend_connections(at);
        // Answers that were sent may have let more requests in.
        self.tree.disks().kick(at);
        // What a device did comes before what its driver says of it.
        self.tell_news();
        let events = &mut self.events;
        self.tree.disks().drain_events(&mut |disk, _, event| match disk {
            Some(disk) => events.log(at, disk, event),
            None => tracing::debug!("a port without a disk: {event}"),
        });
        ended
    }

    fn answer(
        &mut self,
        request: RequestId,
        result: Result<SdDone, outboard_ninep::server::FileError>,
    ) {
        if request.session == OWN_SESSION {
            self.own.0 -= 1;
            self.own.1 &= result.is_ok();
            return;
        }
        let session = self.connections.get_mut(&request.session).map(|c| &mut c.session);
        match (result, session) {
            (Ok(SdDone::Data(disk, data)), session) => {
                if let Some(session) = session {
                    session.complete(request, Completed::Data(&data));
                }
                self.tree.recycle(disk, data);
            }
            (_, None) => {}
            (Ok(SdDone::Text(text)), Some(session)) => {
                session.complete(request, Completed::Data(&text));
            }
            (Ok(SdDone::Count(count)), Some(session)) => {
                session.complete(request, Completed::Count(count));
            }
            (Ok(SdDone::All), Some(session)) => session.complete(request, Completed::All),
            (Err(error), Some(session)) => session.complete(request, Completed::Failed(error)),
        }
    }

    /// Lets every client's session go on: with what was received, and with what had to wait for
    /// memory, or for others of its requests. Whoever was first is the last in the next turn, so
    /// that nobody takes all memory each time that there is some.
    fn work_sessions(&mut self) {
        let first = self.first_connection;
        let later = self.connections.range(first..).next().or(self.connections.iter().next());
        self.first_connection = later.map_or(0, |(id, _)| id + 1);
        for range in [(Included(first), Unbounded), (Unbounded, Excluded(first))] {
            for (_, connection) in self.connections.range_mut(range) {
                connection.work(&mut self.tree);
            }
        }
    }

    /// Sends what there is to send, drops connections that are over, and tells the poller what to
    /// wait for.
    fn attend_connections(&mut self, at: Instant) {
        let (poller, tree, events) = (&self.poller, &mut self.tree, &mut self.events);
        self.connections.retain(|id, connection| {
            connection.attend(tree);
            if connection.is_over() {
                if let Some(reason) = connection.session.closed() {
                    events.log(at, "clients", &format_args!("{id} was disconnected: {reason}"));
                }
                connection.session.disconnect(tree);
                poller.remove(&*connection);
                return false;
            }
            let wanted = connection.wanted();
            if wanted != connection.interest {
                let changed = poller.change(&*connection, Ready::Connection(*id).number(), wanted);
                connection.interest = wanted;
                if changed.is_err() {
                    connection.session.disconnect(tree);
                    return false;
                }
            }
            true
        });
    }

    /// Finishes what is in flight, flushes the disks, sends the last answers, and brings the
    /// drivers to rest.
    fn shut_down(&mut self) -> Result<Ended, ServerError> {
        let end = now() + STOP_TIME;
        for listener in self.listeners.drain(..) {
            self.poller.remove(&listener);
        }
        // Nothing more is taken from clients.
        self.follow = None;
        self.exports.finish(&self.poller);
        self.connections.values_mut().for_each(Connection::finish);
        self.turn_until(end, |server| server.tree.disks().is_idle())?;
        for disk in self.tree.disks().ids() {
            let request = Token(u64::from(OWN_SESSION) << 32);
            let writable = self.tree.disks().geometry(disk).is_some_and(|g| !g.read_only);
            if writable && self.tree.disks().flush(disk, request).is_ok() {
                self.own.0 += 1;
            }
        }
        self.tree.disks().kick(now());
        self.turn_until(end, |server| server.own.0 == 0)?;
        let flushed = self.own == (0, true);
        let unsent = |server: &mut Self| {
            server.connections.values().all(|connection| connection.session.unsent().is_empty())
        };
        self.turn_until(now() + FAREWELL, unsent)?;
        self.tree.disks().stop();
        self.cards.stop(&self.poller);
        self.turn_until(end, |server| {
            server.tree.disks().is_stopped() && server.cards.is_stopped()
        })?;
        Ok(match (self.signalled, flushed) {
            (2.., _) => Ended::AtOnce,
            (_, true) => Ended::InOrder,
            (_, false) => Ended::Unflushed,
        })
    }

    /// Runs until `condition` holds, `end` has come, or a second signal.
    fn turn_until(
        &mut self,
        end: Instant,
        condition: impl Fn(&mut Self) -> bool,
    ) -> Result<(), ServerError> {
        while !condition(self) && !now().reached(end) && self.signalled < 2 {
            self.turn(Some(end))?;
        }
        Ok(())
    }
}

impl<P> std::fmt::Debug for Server<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}

fn system(what: &'static str) -> impl Fn(Errno) -> ServerError {
    move |error| ServerError::System { what, error: error.into() }
}
