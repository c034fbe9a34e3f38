//! Network cards that virtual machines use.

use crate::door::Door;
use crate::events::EventLog;
use crate::listener::Listener;
use crate::pace::{Pace, Reaping};
use crate::poller::{Interest, Poller};
use crate::ready::Ready;
use outboard_hw::Instant;
use outboard_hw::time::earlier;
use outboard_linux::{InterruptSource, now};
use outboard_net::{Interface, InterfaceState, NetDriver};
use outboard_vhost::{Card, NetSession};
use rustix::io::{self, Errno};
use std::time::Duration;

/// How soon a client is looked at again that has room for a part of a frame.
const SOON: Duration = Duration::from_millis(1);
/// How often the cards are looked at before descriptors are, while they are looked at at all.
const LOOKS: usize = 8;

/// A driver of a network card to be hosted.
#[expect(missing_debug_implementations, reason = "drivers need not have one")]
pub struct HostedCard {
    /// What the card is called.
    pub name: String,
    /// The driver.
    pub driver: Box<dyn NetDriver>,
    /// Its device's interrupts.
    pub interrupts: Box<dyn InterruptSource>,
}

/// A card, and who uses it.
struct Hosting {
    name: String,
    /// `None` once its device was given back.
    card: Option<(Card, Box<dyn InterruptSource>)>,
    /// What the log was told of it.
    state: InterfaceState,
    is_leaving: bool,
    door: Option<Door>,
    session: Option<NetSession>,
    /// More waits for it than is done in a turn.
    unfinished: bool,
}

/// All network cards. Each has one client at a time.
pub(crate) struct Cards {
    all: Vec<Hosting>,
    pace: Pace,
    /// Whether the cards are looked at rather than waited for, and their interrupts masked.
    looking: bool,
    last_session: u32,
}

impl Cards {
    pub(crate) const fn new() -> Self {
        let pace = Pace::new(Reaping::Adaptive);
        Self { all: Vec::new(), pace, looking: false, last_session: 0 }
    }

    pub(crate) const fn set_reaping(&mut self, reaping: Reaping) {
        self.pace = Pace::new(reaping);
    }

    /// Takes a driver over, whose interrupts the poller is told of.
    pub(crate) fn add(&mut self, hosted: HostedCard, poller: &Poller) -> io::Result<()> {
        let HostedCard { name, driver, interrupts } = hosted;
        let number = Ready::CardInterrupt(self.all.len()).number();
        for descriptor in interrupts.descriptors() {
            match poller.add(descriptor, number, Interest::READ) {
                // Two devices may share a pin's descriptor; all are asked.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        let state = driver.interface().state;
        let card = Some((Card::new(driver), interrupts));
        let (door, session) = (None, None);
        let (is_leaving, unfinished) = (false, false);
        self.all.push(Hosting { name, card, state, is_leaving, door, session, unfinished });
        Ok(())
    }

    /// The cards that can be used, by their numbers and names.
    pub(crate) fn known(&self) -> impl Iterator<Item = (usize, &str, &Interface)> {
        let known =
            |hosting: &Hosting| hosting.card.as_ref().is_some_and(|(card, _)| card.is_known());
        self.all.iter().enumerate().filter(move |(_, hosting)| known(hosting)).filter_map(
            |(index, hosting)| {
                let (card, _) = hosting.card.as_ref()?;
                Some((index, &*hosting.name, card.interface()))
            },
        )
    }

    /// Whether it is known of all whether they can be used.
    pub(crate) fn is_settled(&self) -> bool {
        self.all.iter().filter_map(|hosting| hosting.card.as_ref()).all(|(card, _)| {
            let failed = matches!(card.interface().state, InterfaceState::Failed(_));
            card.is_known() || failed || card.lacks_memory()
        })
    }

    /// Lets clients use a card, at a Unix socket.
    pub(crate) fn export(
        &mut self,
        index: usize,
        listener: Listener,
        poller: &Poller,
    ) -> io::Result<()> {
        let Some(hosting) = self.all.get_mut(index) else { return Ok(()) };
        let name = hosting.name.clone();
        hosting.door = Some(Door::open(name, listener, Ready::CardDoor(index), poller)?);
        Ok(())
    }

    /// Somebody connects.
    pub(crate) fn accept(&mut self, index: usize, poller: &Poller, events: &mut EventLog) {
        let Some(hosting) = self.all.get_mut(index) else { return };
        let is_taken = hosting.session.is_some();
        let (Some(door), Some((card, _))) = (&mut hosting.door, &hosting.card) else { return };
        let Some(socket) = door.accept(is_taken, poller, events) else { return };
        self.last_session = self.last_session.wrapping_add(1);
        let added = NetSession::new(socket, self.last_session, card).and_then(|session| {
            poller.add(&session, Ready::CardClient(index).number(), Interest::READ)?;
            Ok(session)
        });
        match added {
            Ok(session) => {
                events.log(now(), &hosting.name, &"a virtual machine has connected");
                hosting.session = Some(session);
            }
            Err(error) => {
                let what = format_args!("a client was turned away: {error}");
                events.log(now(), &hosting.name, &what);
            }
        }
    }

    /// A client's descriptor is ready.
    pub(crate) fn receive(&mut self, index: usize) {
        let session = self.all.get_mut(index).and_then(|hosting| hosting.session.as_mut());
        if let Some(session) = session {
            session.receive();
        }
    }

    /// Lets all find out whether they are gone.
    pub(crate) fn interrupt_all(&mut self) {
        for (card, _) in self.all.iter_mut().filter_map(|hosting| hosting.card.as_mut()) {
            card.interrupt(0);
        }
    }

    /// Some card has interrupted.
    pub(crate) fn interrupt(&mut self) {
        for (card, interrupts) in self.all.iter_mut().filter_map(|hosting| hosting.card.as_mut()) {
            interrupts.take(&mut |vector| card.interrupt(vector));
        }
    }

    /// Lets frames pass between cards and clients; whether any did.
    pub(crate) fn pass(&mut self, at: Instant) -> bool {
        let mut moved = false;
        for hosting in &mut self.all {
            let Some((card, _)) = &mut hosting.card else { continue };
            moved |= card.poll(at);
            match &mut hosting.session {
                Some(session) => {
                    let before = session.traffic();
                    hosting.unfinished = session.work(card);
                    moved |= session.traffic() != before;
                }
                None => drop(card.drop_arrived()),
            }
            card.kick(at);
        }
        moved
    }

    /// Looks for frames for a moment, if it is time for that.
    pub(crate) fn look(&mut self) {
        if self.looking {
            for _ in 0..LOOKS {
                self.pass(now());
            }
        }
    }

    /// Lets all go on, lets go of clients that are gone, and tells the log what happened.
    pub(crate) fn work(&mut self, poller: &Poller, (events, at): (&mut EventLog, Instant)) {
        let moved = self.pass(at);
        let mut any = false;
        for hosting in &mut self.all {
            if let Some((card, interrupts)) = &mut hosting.card {
                interrupts.rearm();
                card.drain_events(&mut |at, event| events.log(at, &hosting.name, event));
                let state = card.interface().state;
                if state != hosting.state {
                    hosting.state = state;
                    events.log(at, &hosting.name, &state);
                }
                if hosting.is_leaving && card.is_stopped() {
                    hosting.card = None;
                }
            }
            if let Some(session) = hosting.session.take_if(|session| session.is_over()) {
                let traffic = session.traffic();
                match session.closed() {
                    Some(reason) => {
                        let what = format_args!("the virtual machine was disconnected: {reason}");
                        events.log(at, &hosting.name, &what);
                    }
                    None => {
                        let what = format_args!("the virtual machine has gone; {traffic}");
                        events.log(at, &hosting.name, &what);
                    }
                }
                poller.remove(&session);
                hosting.unfinished = false;
            }
            any |= hosting.session.is_some();
            if let Some(door) = &mut hosting.door {
                door.attend(hosting.session.is_some(), poller, at);
            }
        }
        self.keep_pace(at, any, moved);
    }

    fn keep_pace(&mut self, at: Instant, busy: bool, moved: bool) {
        let looking = self.pace.looks(at, busy, moved);
        if looking != self.looking {
            self.looking = looking;
            for (card, _) in self.all.iter_mut().filter_map(|hosting| hosting.card.as_mut()) {
                card.mask(looking);
            }
        }
    }

    /// Whether the loop must not sleep: there is more to do, or there is something in a ring now that
    /// drivers are asked to tell when there is.
    pub(crate) fn is_awake(&mut self) -> bool {
        let mut awake = self.looking;
        for hosting in &mut self.all {
            let (Some(session), Some((card, _))) = (&mut hosting.session, &hosting.card) else {
                continue;
            };
            // Those who are looked at need not tell.
            awake |= hosting.unfinished || !self.looking && session.sleep(card);
        }
        awake
    }

    /// When to look again, if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.all.iter().fold(None, |at, hosting| {
            let card = hosting.card.as_ref().and_then(|(card, _)| card.next_deadline());
            let door = hosting.door.as_ref().and_then(Door::deadline);
            let short = hosting.session.as_ref().is_some_and(NetSession::is_short);
            let soon = short.then(|| now() + SOON);
            earlier(earlier(at, card), earlier(door, soon))
        })
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.all.len()
    }

    /// Begins to bring a card to rest, since somebody wants its device.
    pub(crate) fn begin_leave(&mut self, index: usize) {
        let Some(hosting) = self.all.get_mut(index) else { return };
        if let Some((card, _)) = hosting.card.as_mut().filter(|_| !hosting.is_leaving) {
            tracing::warn!("{}: somebody wants the card, so it goes", hosting.name);
            hosting.is_leaving = true;
            card.stop();
        }
    }

    /// Takes nothing more from clients, lets no more of them in, and brings the cards to rest.
    pub(crate) fn stop(&mut self, poller: &Poller) {
        for hosting in &mut self.all {
            if let Some(door) = &mut hosting.door {
                door.close(poller);
            }
            if let Some(session) = &mut hosting.session {
                session.finish();
            }
            if let Some((card, _)) = &mut hosting.card {
                card.stop();
            }
        }
    }

    /// Whether all are at rest, or lost.
    pub(crate) fn is_stopped(&self) -> bool {
        self.all
            .iter()
            .all(|hosting| hosting.card.as_ref().is_none_or(|(card, _)| card.is_stopped()))
    }
}
