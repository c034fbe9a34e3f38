//! A device behind a socket, as a virtio driver sees it.

use crate::error::{Trouble, VhostError};
use crate::events::{Events, VhostInterrupts};
use crate::kind::Kind;
use crate::session::{Begins, Facts, Session};
use crate::setup::{Region, Setup};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, DmaSpace};
use outboard_linux::{EventFd, SharedMemory, now};
use outboard_virtio::VirtioError;
use outboard_virtio::queue::Areas;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::status::Status;
use outboard_virtio::spec::vhost_user::{BASE_USED_SHIFT, BASE_WRAP, LOG_ALL, PROTOCOL_FEATURES};
use outboard_virtio::transport::{Cause, Transport};
use rustix::event::Timespec;
use std::cell::RefCell;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Features of the device that are the protocol's business, or that need what it does not have here:
/// addresses that are translated, notifications with data, queues that are reset alone.
const NOT_OFFERED: u64 = PROTOCOL_FEATURES
    | LOG_ALL
    | Features::ACCESS_PLATFORM
        .union(Features::NOTIFICATION_DATA)
        .union(Features::NOTIF_CONFIG_DATA)
        .union(Features::RING_RESET)
        .bits();
/// From where on a fresh queue in the packed layout is used: both wrap counters are 1 (§2.8.1).
const PACKED_BASE: u32 = BASE_WRAP | BASE_WRAP << BASE_USED_SHIFT;
/// The most entries of a queue: the protocol does not say what a back end takes, and all that we
/// know of take this many.
const QUEUE_ENTRIES: u16 = 256;
/// The most queues.
const MAX_QUEUES: u16 = 64;
/// How long a change of the configuration may take.
const CONFIG_TIME: Duration = Duration::from_secs(1);
/// The first pause between two attempts to connect, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// A connection that lasts this long was a good one.
const STEADY: Duration = Duration::from_secs(1);
/// How often the system is asked for messages by a driver that looks at its queues and takes no
/// interrupts: each time costs more than a request.
const LOOK_STEP: Duration = Duration::from_millis(1);

/// Which back end, and for how long it is waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostConfig {
    /// The socket at which it listens.
    pub socket: PathBuf,
    /// What it is expected to have.
    pub kind: Kind,
    /// Bytes of memory for queues and transfers.
    pub dma_bytes: usize,
    /// How long it may take at the beginning until the device is known.
    pub start_time: Duration,
    /// For how long it is waited for once it was lost.
    pub return_time: Duration,
}

impl VhostConfig {
    /// The back end of a disk, with memory of 64 MiB.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let (start_time, return_time) = (Duration::from_secs(5), Duration::from_secs(60));
        let (socket, kind) = (socket.into(), Kind::Disk);
        Self { socket, kind, dma_bytes: 64 << 20, start_time, return_time }
    }

    /// The back end of a network card, likewise.
    pub fn card(socket: impl Into<PathBuf>) -> Self {
        Self { kind: Kind::Card, ..Self::new(socket) }
    }
}

/// Where the connection is.
#[derive(Debug)]
enum Link {
    Up(Box<Session>),
    /// There is none; when to make one.
    Away(Instant),
    /// There will be none any more.
    Ended,
}

/// A device behind a socket. Dropping it closes the connection.
#[derive(Debug)]
pub struct VhostUser {
    config: VhostConfig,
    events: Arc<Events>,
    kicks: Vec<EventFd>,
    memory: Arc<SharedMemory>,
    arena: Arena,
    back_end: BackEnd,
    /// When to ask the system for messages although no interrupt has told of any.
    look_at: Instant,
    state: RefCell<State>,
}

/// What changes.
#[derive(Debug)]
struct State {
    link: Link,
    /// What the back end said of its device at last.
    facts: Facts,
    /// Grows with what it says.
    generation: u32,
    /// There is something that the driver was not told of.
    news: bool,
    /// What the driver has said.
    status: Status,
    features: u64,
    queues: Vec<(Areas, u32)>,
    /// Where the back end keeps what is in flight.
    region: Option<Region>,
    /// Whether the connection of a device that was set up is gone.
    lost: bool,
    lost_since: Option<Instant>,
    pause: Duration,
}

impl State {
    /// Whether there is no back end whose device can be used.
    fn is_away(&self) -> bool {
        match &self.link {
            Link::Up(session) => session.ready_at().is_none(),
            Link::Away(_) | Link::Ended => true,
        }
    }
}

/// Whether a back end is there, for whoever wonders why its disk is gone.
#[derive(Debug, Clone, Default)]
pub struct BackEnd(Arc<Mutex<Option<VhostError>>>);

impl BackEnd {
    /// The error that says why it was given up, once; `Ok` if it was not.
    pub fn check(&self) -> Result<(), VhostError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

impl VhostUser {
    /// Connects to a back end, and finds out what its device is.
    pub fn attach(config: VhostConfig) -> Result<(Self, VhostInterrupts, BackEnd), VhostError> {
        let system = VhostError::system;
        let memory = SharedMemory::for_model("vhost-user", config.dma_bytes);
        let (memory, arena) = memory.map_err(system("memory for transfers"))?;
        let events = Arc::new(Events::new().map_err(system("interrupts"))?);
        let _ = events.control.watch(events.error.as_fd());
        let _ = events.control.watch(events.news.as_fd());
        let path = &config.socket;
        let end = now() + config.start_time;
        let mut session =
            Session::open(path, config.kind, &events.control, now()).map_err(|trouble| {
                match trouble {
                    Trouble::Connect(error) => VhostError::Nobody {
                        path: path.clone(),
                        kind: config.kind,
                        error: error.into(),
                    },
                    trouble => VhostError::unusable(path, trouble),
                }
            })?;
        while session.ready_at().is_none() {
            events.control.wait(time_until(end));
            let looked = session.look(now());
            looked.map_err(|trouble| VhostError::unusable(path, trouble))?;
            if now().reached(end) {
                let trouble = session.silent(config.start_time.as_secs());
                return Err(VhostError::unusable(path, trouble));
            }
        }
        let state = State {
            facts: session.facts().clone(),
            link: Link::Up(Box::new(session)),
            generation: 0,
            news: false,
            status: Status::empty(),
            features: 0,
            queues: Vec::new(),
            region: None,
            lost: false,
            lost_since: None,
            pause: PAUSES.0,
        };
        let (state, back_end, kicks) = (RefCell::new(state), BackEnd::default(), Vec::new());
        let interrupts = VhostInterrupts(events.clone());
        let look_at = Instant::ORIGIN;
        let ours = Self {
            config,
            events,
            kicks,
            memory,
            arena,
            back_end: back_end.clone(),
            look_at,
            state,
        };
        Ok((ours, interrupts, back_end))
    }

    /// Takes what the back end has said.
    fn look(&self) {
        self.look_at(&mut self.state.borrow_mut());
    }

    fn look_at(&self, state: &mut State) {
        let Link::Up(session) = &mut state.link else { return };
        let at = now();
        match session.look(at) {
            Ok(_) if self.events.error.take() => self.lose(state, at, Trouble::RingError),
            Ok(changed) => {
                if changed {
                    state.facts = session.facts().clone();
                    state.generation = state.generation.wrapping_add(1);
                    state.news = true;
                    self.events.news.signal();
                }
                if let Some(region) = session.region() {
                    state.region = Some(region);
                    self.tell(state, |session, setup, region, at| {
                        session.start_queues(setup, region, at)
                    });
                }
            }
            Err(trouble) => self.lose(state, at, trouble),
        }
    }

    /// Tries to get back a back end that was lost.
    fn come_back(&self) {
        let state = &mut *self.state.borrow_mut();
        let at = now();
        if matches!(state.link, Link::Away(again) if at.reached(again)) {
            let control = &self.events.control;
            match Session::open(&self.config.socket, self.config.kind, control, at) {
                Ok(session) => state.link = Link::Up(Box::new(session)),
                Err(trouble) => self.lose(state, at, trouble),
            }
        }
    }

    /// Does without a connection that is of no use, until the next attempt.
    fn lose(&self, state: &mut State, at: Instant, trouble: Trouble) {
        let path = self.config.socket.display();
        if let Link::Up(session) = &state.link
            && session.ready_at().is_some_and(|since| at.reached(since + STEADY))
        {
            log::warn!("the back end at {path} {trouble}. Requests are kept until it is back");
            (state.lost_since, state.pause) = (None, PAUSES.0);
        }
        (state.lost, state.news) = (state.lost || !state.status.is_empty(), true);
        self.events.news.signal();
        let since = *state.lost_since.get_or_insert(at);
        if at.reached(since + self.config.return_time) {
            state.link = Link::Ended;
            let (path, seconds) = (self.config.socket.clone(), self.config.return_time.as_secs());
            let error = VhostError::Lost { path, seconds, trouble };
            log::warn!("{error}");
            *self.back_end.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            return;
        }
        state.link = Link::Away(at + state.pause);
        state.pause = (state.pause * 2).min(PAUSES.1);
    }

    /// Tells the back end something about all that is set up.
    fn tell(
        &self,
        state: &mut State,
        tell: impl FnOnce(&mut Session, &Setup<'_>, Option<&Region>, Instant) -> Result<(), Trouble>,
    ) {
        let at = now();
        let setup = Setup {
            features: state.features,
            memory: self.memory.as_fd(),
            memory_bytes: self.memory.size_bytes() as u64,
            queues: &state.queues,
            kicks: &self.kicks,
            calls: self.events.calls(),
            error: &self.events.error,
        };
        if let Link::Up(session) = &mut state.link
            && let Err(trouble) = tell(session, &setup, state.region.as_ref(), at)
        {
            self.lose(state, at, trouble);
        }
    }

    /// `N` bytes of the configuration; ones where there is none.
    fn config_bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
        let state = self.state.borrow();
        let bytes = state.facts.config.get(offset..).and_then(|rest| rest.first_chunk());
        bytes.copied().unwrap_or([u8::MAX; N])
    }
}

impl Transport for VhostUser {
    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::new(self.arena.clone())
    }

    fn uses_all_pairs(&self) -> bool {
        true
    }

    fn is_away(&mut self) -> bool {
        let at = now();
        if self.state.borrow().is_away() || self.events.take_told() || at.reached(self.look_at) {
            self.look_at = at + LOOK_STEP;
            self.look();
            self.come_back();
        }
        self.state.borrow().is_away()
    }

    fn can_resume(&self) -> bool {
        let state = self.state.borrow();
        let takes = matches!(&state.link, Link::Up(session) if session.takes_regions());
        takes && state.region.is_some()
    }

    fn resume(&mut self, queues: &[(Areas, u32)]) {
        let state = &mut *self.state.borrow_mut();
        state.queues = queues.to_vec();
        self.tell(state, |session, setup, region, at| {
            session.stop_queue(0, at)?;
            session.start_queues(setup, region, at)
        });
        // Whatever was added meanwhile is looked for, whether or not that was said before.
        self.kicks.iter().for_each(EventFd::signal);
    }

    fn offered_features(&mut self) -> u64 {
        self.state.borrow().facts.features & !NOT_OFFERED & !self.config.kind.not_offered()
    }

    fn accept_features(&mut self, features: u64) {
        self.state.borrow_mut().features = features;
    }

    fn status(&self) -> Status {
        self.look();
        let state = self.state.borrow();
        match (&state.link, state.lost) {
            (Link::Ended, _) => Status::from_bits_retain(u8::MAX),
            (_, true) => state.status | Status::NEEDS_RESET,
            (_, false) => state.status,
        }
    }

    fn set_status(&mut self, status: Status) {
        let state = &mut *self.state.borrow_mut();
        state.status = status;
        if status.is_empty() {
            (state.lost, state.news, state.region) = (false, false, None);
            self.events.news.take();
            if matches!(&state.link, Link::Up(session) if session.is_started()) {
                // Whatever the back end still does ends with its connection.
                (state.lost_since, state.pause) = (None, PAUSES.0);
                state.link = Link::Away(now());
            }
        } else if status == Status::ACKNOWLEDGE {
            // A device that is set up, anew or again.
            state.lost = false;
            state.queues.clear();
        } else if status.contains(Status::DRIVER_OK) && !state.lost {
            let begins = if state.region.is_some() { Begins::Again } else { Begins::Anew };
            self.tell(state, |session, setup, _, at| {
                session.start(setup, begins, &self.events.control, at)
            });
        }
    }

    fn queue_limit(&mut self, queue: u16) -> u16 {
        let there = queue < self.state.borrow().facts.queues && queue < self.kicks.len() as u16;
        if there { QUEUE_ENTRIES } else { 0 }
    }

    fn enable_interrupts(&mut self, queues: u16) -> Result<(), VirtioError> {
        let there = self.state.borrow().facts.queues;
        let count = queues.min(there).clamp(1, MAX_QUEUES);
        let make = || (0..count).map(|_| EventFd::new()).collect::<rustix::io::Result<Vec<_>>>();
        let refused = |_| outboard_hw::HwError::Platform("the system has no descriptors left");
        self.kicks = make().map_err(refused)?;
        let _ = self.events.calls.set(make().map_err(refused)?);
        Ok(())
    }

    fn start(&mut self) -> Result<(), VirtioError> {
        Ok(())
    }

    fn cut_off(&mut self) {
        self.state.borrow_mut().link = Link::Ended;
    }

    fn enable_queue(&mut self, queue: u16, areas: Areas) -> Result<(), VirtioError> {
        let state = &mut *self.state.borrow_mut();
        if usize::from(queue) != state.queues.len() {
            return Err(VirtioError::NoQueue(queue));
        }
        let packed = state.features & Features::PACKED.bits() != 0;
        state.queues.push((areas, if packed { PACKED_BASE } else { 0 }));
        Ok(())
    }

    #[inline]
    fn notify(&mut self, queue: u16, _next: u16) {
        if let Some(kick) = self.kicks.get(usize::from(queue)) {
            kick.signal();
        }
    }

    fn cause(&mut self, vector: u16) -> Cause {
        if vector > 0 {
            return Cause { queues: true, config: false };
        }
        self.look();
        self.events.news.take();
        let config = std::mem::take(&mut self.state.borrow_mut().news);
        Cause { queues: false, config }
    }

    fn config_generation(&self) -> u32 {
        self.state.borrow().generation
    }

    fn config_u8(&self, offset: usize) -> u8 {
        u8::from_le_bytes(self.config_bytes(offset))
    }

    fn config_u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.config_bytes(offset))
    }

    fn config_u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.config_bytes(offset))
    }

    fn set_config_u8(&mut self, offset: usize, value: u8) {
        let end = now() + CONFIG_TIME;
        let state = &mut *self.state.borrow_mut();
        let Link::Up(session) = &mut state.link else { return };
        // If that fails, the connection does, which is seen when it is next looked at.
        let _ = session.set_config(offset as u32, &[value], now());
        if !session.is_started() {
            // Carried out, and answered, before any queue is served.
            if let Some(byte) = state.facts.config.get_mut(offset) {
                *byte = value;
            }
            return;
        }
        let is_waiting = |state: &State| match &state.link {
            Link::Up(session) => session.is_waiting(),
            Link::Away(_) | Link::Ended => false,
        };
        while is_waiting(state) && !now().reached(end) {
            self.events.control.wait(time_until(end));
            self.look_at(state);
        }
    }
}

/// The time from now to `end`.
fn time_until(end: Instant) -> Timespec {
    let time = end.since(now());
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}
