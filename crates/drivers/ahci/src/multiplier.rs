//! A port multiplier: several devices at one port of the HBA (SATA §16, AHCI §9).
//!
//! Each device port with a device is a [`Port`] of its own, which works as those of the HBA do and
//! has all their states, but whose registers are a [`Face`]: what it asks for there is carried out
//! here, with the one set of registers that there is. So the ladder of recovery is the same behind
//! a multiplier: what is the port's reset elsewhere is a reset of the device port, and what is the
//! HBA's is a reset of the multiplier with its port.
//!
//! **Turns.** With command-based switching all commands in flight belong to one device. A device
//! whose turn it is may issue more only while no other waits; then it has to finish, and the
//! next one is served, so that none waits for longer than each of the others takes for one batch.
//! With FIS-based switching all devices have commands in flight, and share the slots.
//!
//! **Time.** While a device waits for its turn, its clock stands still: a command is overdue when
//! the device has had it for too long, not when a neighbour has.
//!
//! **Errands.** The multiplier's own registers are read and written by commands, one after the
//! other: for setting it up, for bringing up the link of a device port, and for looking what has
//! changed. With command-based switching they wait until no device has any, as each device waits
//! for the others; with FIS-based switching the multiplier is a device among them.
//!
//! **First frames.** With FIS-based switching, what a device sends after a reset of its link lies in
//! its own area, whenever that comes. Without, the HBA takes frames only from the device that it has
//! last sent something to, so a software reset makes the device say once more what it is; one that
//! spins up is asked again and again, and served are the others in between.
//!
//! **Trouble.** A device that has failed is let go of alone where FIS-based switching allows for it;
//! otherwise the command engine is stopped, once the neighbours have finished or have had their
//! time. Neighbours that had not finished are reset, and go on with what they had.

mod errand;
mod face;
mod memory;
mod traffic;
mod trouble;

use crate::config::limit;
use crate::port::{Context, Port};
use crate::spec::multiplier::MAX_DEVICE_PORTS;
use crate::spec::registers::{
    ALL_ONES, FisSwitching, MAX_SLOTS, PORT_BYTES, PX_CLB, PX_CLBU, PX_CMD, PX_FB, PX_FBS, PX_FBU,
    PX_IE, PX_IS, PX_SERR, PortInterrupts,
};
use alloc::boxed::Box;
use core::time::Duration;
use errand::{Errand, Next, Op};
pub(crate) use face::Face;
use memory::LinkMemory;
use outboard_block::{Completion, Unit, UnitId};
use outboard_hw::registers::{RegistersExt, Window};
use outboard_hw::time::earlier;
use outboard_hw::{Instant, Registers};

/// Units of one HBA port: a directly attached device, or those of a multiplier's device ports.
pub(crate) const UNITS_PER_PORT: u16 = MAX_DEVICE_PORTS as u16;
/// By how much the units of neighbouring device ports differ.
pub(crate) const UNIT_STRIDE: u16 = crate::spec::registers::MAX_PORTS as u16;

/// The states of a multiplier's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Commands are issued, or the multiplier's own.
    Serving,
    /// The command engine is brought to rest, to be started again.
    Stopping { until: Instant },
    /// The HBA lets go of the commands of one device.
    Clearing { device: u8, until: Instant },
    /// Both engines are brought to rest, to give the port back.
    Leaving { until: Instant },
    /// The port was given back, so that it finds out what is there.
    Left,
    /// Only a reset of the HBA helps.
    NeedsHbaReset,
}

/// What becomes of the HBA's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nothing; all is well.
    None,
    /// It is given back, to be reset and looked at.
    TakeBack,
    /// The HBA has to be reset.
    HbaReset,
}

/// The device at a device port.
struct Behind {
    port: Port<Face>,
    face: Face,
    /// By how much its clock is behind.
    lag: Duration,
    /// Its slots whose commands are with the HBA.
    sent: u32,
    /// Which slot of the HBA each of them has.
    places: [u8; MAX_SLOTS],
    /// The same of those that the HBA had to let go of last: the device may name one of them.
    lost: u32,
    places_lost: [u8; MAX_SLOTS],
    /// When its link may be brought up next.
    try_at: Instant,
    /// How often that was tried in a row.
    tries: u8,
    /// Its link was reset by the driver, and DIAG.X, which that has set, was not cleared since.
    reset: bool,
    /// Its first frame after a reset is waited for, while others are served.
    awaited: bool,
}

/// A port multiplier with the devices behind it.
pub(crate) struct Multiplier<R> {
    index: u8,
    registers: Window<R>,
    memory: LinkMemory,
    devices: [Option<Box<Behind>>; MAX_DEVICE_PORTS],
    /// Device ports.
    count: u8,
    /// Slots that the HBA has, a bit each.
    slots: u32,
    /// It was set up once.
    was_set_up: bool,
    /// FIS-based switching is used.
    switching: bool,
    state: State,
    wish: Wish,
    /// Slots whose commands are with the HBA.
    in_flight: u32,
    /// Whose they are: the device, and its slot.
    owners: [(u8, u8); MAX_SLOTS],
    /// The device whose turn it is, or was last.
    turn: u8,
    errand: Option<Errand>,
    op: Option<Op>,
    /// The slot of the HBA that its step under way has.
    own_slot: u8,
    /// Its step under way has failed.
    op_failed: bool,
    /// Its step that waits until the link is free.
    next: Option<Next>,
    /// The device port whose link was brought up last.
    tried: u8,
    /// Steps in a row that have failed.
    failures: u8,
    /// When to look for changes.
    watch_at: Instant,
    /// When the links of places that look empty are reset next, and how often that is still done.
    rearm_at: Instant,
    rearms: u8,
    /// When to look at commands in flight though there was no interrupt.
    check_at: Instant,
    /// The HBA has stopped because of a device, whose port has to ask by then to go on.
    halted_until: Option<Instant>,
    /// Since when neighbours are waited for.
    draining: Option<Instant>,
    /// The last instant that it was polled at.
    clock: Instant,
    /// Whether an interrupt came, and what it has said.
    interrupted: bool,
    interrupts: PortInterrupts,
    stopping: bool,
}

impl<R: Registers> Multiplier<R> {
    /// Takes over the port at which a multiplier was found, and whose engines are at rest. `None`
    /// if there is no memory.
    pub(crate) fn new(index: u8, registers: Window<R>, context: &Context<'_>) -> Option<Self> {
        let memory = LinkMemory::allocate(context.dma, &context.constraints).ok()?;
        let slots = u32::MAX >> (31 - u32::from(context.capabilities.slots_minus_one()));
        let mut multiplier = Self {
            index,
            registers,
            memory,
            devices: [const { None }; MAX_DEVICE_PORTS],
            count: 0,
            was_set_up: false,
            slots,
            switching: false,
            state: State::Left,
            wish: Wish::None,
            in_flight: 0,
            owners: [(0, 0); MAX_SLOTS],
            turn: 0,
            errand: None,
            op: None,
            own_slot: 0,
            op_failed: false,
            next: None,
            tried: 0,
            failures: 0,
            check_at: Instant::ORIGIN,
            halted_until: None,
            watch_at: Instant::ORIGIN,
            rearm_at: Instant::ORIGIN,
            rearms: 0,
            draining: None,
            clock: context.now,
            interrupted: false,
            interrupts: PortInterrupts::empty(),
            stopping: false,
        };
        multiplier.attach(context);
        Some(multiplier)
    }

    pub(crate) const fn index(&self) -> u8 {
        self.index
    }

    /// Whether the port was given back, and the multiplier was not found again so far.
    pub(crate) const fn has_left(&self) -> bool {
        matches!(self.state, State::Left)
    }

    /// The multiplier was found again: sets its port up, whose engines are at rest.
    pub(crate) fn attach(&mut self, context: &Context<'_>) {
        self.memory.forget();
        let started_anew = self.has_started_anew();
        let (list, received) = (self.memory.command_list(), self.memory.received());
        self.registers.set(PX_CLB, list.low());
        self.registers.set(PX_CLBU, list.high());
        self.registers.set(PX_FB, received.low());
        self.registers.set(PX_FBU, received.high());
        self.registers.set(PX_SERR, ALL_ONES);
        self.registers.set(PX_IS, PortInterrupts::all());
        let Some(command) = self.command_register() else { return self.call_for_hba_reset() };
        let command = command.with_multiplier(true).with_fis_receive(true);
        self.switching = context.capabilities.fis_switching() && command.fis_switching();
        self.registers.set(PX_CMD, command);
        if self.switching {
            self.registers.set(PX_FBS, FisSwitching::new().with_enabled(true));
        }
        (self.wish, self.clock) = (Wish::None, context.now);
        if started_anew || !self.link_is_up() || self.is_busy() {
            // It is not what was found any more.
            return self.leave(context);
        }
        self.registers.set(PX_CMD, command.with_start(true));
        self.registers.set(PX_IE, self.enabled(context));
        self.state = State::Serving;
        self.begin_setup(context);
    }

    /// What to be told of.
    fn enabled(&self, context: &Context<'_>) -> PortInterrupts {
        match context.config.reaping {
            crate::config::Reaping::Interrupts => {
                PortInterrupts::FATAL
                    | PortInterrupts::REGISTER_FIS
                    | PortInterrupts::PIO_SETUP_FIS
                    | PortInterrupts::SET_DEVICE_BITS_FIS
                    | PortInterrupts::CONNECT
                    | PortInterrupts::PHY_READY
                    | PortInterrupts::TASK_FILE_ERROR
            }
            crate::config::Reaping::Polling => PortInterrupts::empty(),
        }
    }

    /// Makes a port for a device that was found.
    fn found(&mut self, device: u8) {
        let face = Face::new();
        let Ok(window) = Window::new(face.clone(), 0, PORT_BYTES) else { return };
        let Some(place) = self.devices.get_mut(usize::from(device)) else { return };
        let unit = UnitId(u16::from(self.index) + UNIT_STRIDE * u16::from(device));
        let mut port = Port::new(unit, window, self.slots.count_ones() as u8);
        if self.stopping {
            port.stop();
        }
        *place = Some(Box::new(Behind {
            port,
            face,
            lag: Duration::ZERO,
            sent: 0,
            places: [0; MAX_SLOTS],
            lost: 0,
            places_lost: [0; MAX_SLOTS],
            try_at: Instant::ORIGIN,
            tries: 0,
            reset: true,
            awaited: false,
        }));
    }

    fn behind(&mut self, device: u8) -> Option<&mut Behind> {
        self.devices.get_mut(usize::from(device))?.as_deref_mut()
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Behind> {
        self.devices.iter_mut().flatten().map(Box::as_mut)
    }

    /// The port of a device behind it.
    pub(crate) fn port(&self, device: u16) -> Option<&Port<Face>> {
        self.devices.get(usize::from(device))?.as_ref().map(|behind| &behind.port)
    }

    /// Likewise, to be changed.
    pub(crate) fn port_mut(&mut self, device: u16) -> Option<&mut Port<Face>> {
        self.devices.get_mut(usize::from(device))?.as_mut().map(|behind| &mut behind.port)
    }

    /// The units of all device ports.
    pub(crate) fn units(&self) -> impl Iterator<Item = Option<&Unit>> {
        self.devices.iter().map(|behind| behind.as_ref().map(|behind| behind.port.unit()))
    }

    /// All ports behind it.
    pub(crate) fn ports_mut(&mut self) -> impl Iterator<Item = &mut Port<Face>> {
        self.all().map(|behind| &mut behind.port)
    }

    /// Accepts nothing more.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        self.ports_mut().for_each(Port::stop);
    }

    /// Whether nothing more happens at any device.
    pub(crate) fn is_resting(&self) -> bool {
        self.devices.iter().flatten().all(|behind| behind.port.is_resting())
    }

    /// The generation of the first device's unit, whose number a device that is attached directly
    /// has as well.
    pub(crate) fn generation(&self) -> u32 {
        self.port(0).map_or(0, |port| port.unit().generation)
    }

    /// Something else was found at the port, or nothing.
    pub(crate) fn is_missed(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        for behind in self.all() {
            behind.port.was_taken_away(&context.behind(behind.lag), done);
        }
    }

    /// Looks at all devices though nothing has called for it.
    pub(crate) fn look_around(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        for behind in self.all() {
            behind.port.look_around(&context.behind(behind.lag), done);
        }
    }

    /// Whether it is known what is behind it.
    pub(crate) const fn was_set_up(&self) -> bool {
        self.was_set_up
    }

    /// What has to become of the HBA's port; said once.
    pub(crate) fn take_wish(&mut self) -> Wish {
        core::mem::replace(&mut self.wish, Wish::None)
    }

    /// An interrupt of the port.
    pub(crate) fn interrupt(&mut self) {
        self.interrupted = true;
        if self.state == State::Serving {
            let interrupts = self.registers.get(PX_IS);
            self.registers.set(PX_IS, interrupts);
            self.interrupts |= interrupts;
        }
    }

    /// Passes waiting commands on.
    pub(crate) fn kick(&mut self, context: &Context<'_>) {
        for behind in self.all() {
            behind.port.kick(&context.behind(behind.lag));
        }
        self.issue();
    }

    /// Does whatever is due.
    pub(crate) fn poll(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        self.let_clocks_go(context);
        if self.state == State::NeedsHbaReset {
            return;
        }
        let interrupted = core::mem::take(&mut self.interrupted);
        if self.state == State::Serving {
            self.look(interrupted, context, done);
        }
        self.take_reports();
        self.go_on(context, done);
        for device in 0..MAX_DEVICE_PORTS as u8 {
            self.poll_device(device, context, done);
        }
        if self.stopping && self.state == State::Serving && self.is_resting() {
            self.leave(context);
        }
        self.let_go(context);
        self.run_errands(context);
        self.issue();
    }

    fn poll_device(&mut self, device: u8, outer: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        let serving = self.state == State::Serving && !self.is_being_set_up();
        let Some(behind) = self.behind(device) else { return };
        let context = outer.behind(behind.lag);
        if behind.port.is_idle() && serving {
            behind.port.start(&context, done);
        }
        if behind.face.has_interrupts() {
            behind.port.serve(&context, done);
        }
        behind.port.poll(&context, done);
        let hopeless = behind.port.needs_hba_reset();
        if hopeless && self.state == State::Serving {
            self.leave(outer);
        }
    }

    /// Advances the clocks of the devices that are being served, and of no others.
    fn let_clocks_go(&mut self, context: &Context<'_>) {
        let passed = context.now.since(core::mem::replace(&mut self.clock, context.now));
        // Without a multiplier nothing is waited for that only it can do.
        let serving = match self.state {
            State::Serving => !self.is_being_set_up(),
            state => state == State::Left,
        };
        let errand = self.errand_for();
        for (device, behind) in self.devices.iter_mut().enumerate() {
            let Some(behind) = behind else { continue };
            if behind.face.take_asked() {
                (behind.tries, behind.try_at) = (0, Instant::ORIGIN);
            }
            // It waits for others, or for the multiplier; but not without end.
            let wants_link = behind.face.wants_link()
                && (context.now.reached(behind.try_at)
                    || behind.face.link() == 0 && behind.tries <= limit::ERRANDS);
            let waits = behind.sent == 0 && behind.waiting() != 0
                || behind.face.wants_stop()
                || wants_link
                || errand == Some(device as u8) && behind.face.link() == 0;
            if waits || !serving {
                behind.lag += passed;
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::NeedsHbaReset => return None,
            State::Left => {
                return self.devices.iter().flatten().fold(None, |at, behind| {
                    earlier(at, behind.port.next_deadline().map(|at| at + behind.lag))
                });
            }
            State::Stopping { .. } | State::Clearing { .. } | State::Leaving { .. } => {
                return Some(self.clock + limit::LOOK);
            }
            State::Serving => {}
        }
        let ports = self.devices.iter().flatten().map(|behind| {
            let at = behind.port.next_deadline()?;
            Some(at + behind.lag)
        });
        let ports = ports.fold(None, earlier);
        earlier(ports, self.own_deadline())
    }
}
