//! An AHCI host bus adapter in software (AHCI §3, §5).
//!
//! It does what the specification says, in the time that is given to it, and lies where a
//! [`Fault`] tells it to. What a driver must not do (start an engine whose device is busy, issue a
//! slot twice, give it memory that is not its own) is noted as a violation.

mod behind;
mod enclosure;
mod engine;
mod inject;
mod link;
mod play;
mod port;
mod switching;
mod transfer;

pub use enclosure::Enclosure;

use crate::fault::{Fault, FaultCounts, Struck};
use crate::sata::SataDevice;
use crate::schedule::Schedule;
use crate::seat::HOST;
use crate::{Random, Trace};
use core::time::Duration;
use outboard_ahci::spec::registers::{
    BOHC, CAP, CAP2, Capabilities, Capabilities2, EM_CTL, EM_LOC, GHC, GlobalControl, HandOff, IS,
    MAX_PORTS, PI, PORT_BYTES, PORTS_BASE, VS,
};
use outboard_hw::Instant;
use outboard_hw::dma::DeviceView;
use outboard_pci::Identity;
use port::Port;

/// What an HBA is like.
#[derive(Debug, Clone)]
pub struct HbaConfig {
    /// Which ports are implemented, a bit each.
    pub ports: u32,
    /// What it can do. Number of ports and slots are in it.
    pub capabilities: Capabilities,
    /// What else it can do.
    pub capabilities2: Capabilities2,
    /// Whether a BIOS owns it at first.
    pub hand_off: Option<HandOff>,
    /// Vendor, device and so on.
    pub identity: Identity,
    /// Whether it signals by the pin, rather than by messages.
    pub pin: bool,
}

impl HbaConfig {
    /// An ordinary HBA with so many ports, of 32 slots each.
    pub fn new(ports: u8) -> Self {
        let capabilities = Capabilities::new()
            .with_ports_minus_one(ports.clamp(1, MAX_PORTS as u8) - 1)
            .with_slots_minus_one(31)
            .with_speed(3)
            .with_ncq(true)
            .with_wide(true)
            .with_ahci_only(true)
            .with_command_list_override(true);
        let class = outboard_pci::Class { base: 1, sub: 6, interface: 1 };
        let identity =
            Identity { vendor: 0x8086, device: 0x2922, subsystem: None, class, revision: 2 };
        Self {
            ports: u32::MAX >> (32 - u32::from(ports.clamp(1, MAX_PORTS as u8))),
            capabilities,
            capabilities2: Capabilities2::new(),
            hand_off: None,
            identity,
            pin: false,
        }
    }
}

/// Something that is going to happen in the HBA.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The engine of a port looks for commands.
    Fetch { port: u8 },
    /// A device has done its work on the command in a slot.
    Finish { port: u8, slot: u8, issue: u64 },
    /// A link comes up.
    LinkUp { port: u8, at: u8, epoch: u32 },
    /// A device is ready after a reset.
    Report { port: u8, at: u8, epoch: u32 },
    /// PxCMD.CR clears.
    EngineStops { port: u8, epoch: u32 },
    /// The reset of the HBA ends.
    ResetEnds { epoch: u32 },
    /// An interrupt that was late comes.
    Message,
    /// A disk is plugged in.
    Plug { port: u8, at: u8 },
    /// A fault strikes.
    Strike { port: u8, fault: Fault },
    /// A fault of a multiplier strikes.
    StrikeBehind { port: u8, behind: u8, fault: Fault },
}

/// The model.
pub struct HbaModel {
    config: HbaConfig,
    memory: DeviceView,
    now: Instant,
    control: GlobalControl,
    pending: u32,
    hand_off: HandOff,
    enclosure: Enclosure,
    ports: Vec<Option<Box<Port>>>,
    schedule: Schedule<Event>,
    random: Random,
    bus_master: bool,
    /// Everything reads as all ones.
    removed: bool,
    reset_epoch: u32,
    /// The next reset takes this long; `None` for ever.
    reset_takes: Option<Duration>,
    /// How often AHCI mode has still to be asked for.
    reluctant: u8,
    /// Messages that were sent and not yet taken.
    messages: u32,
    /// Until then no interrupt is sent.
    silent_until: Instant,
    /// Bits of IS that mean nothing.
    strangers: u32,
    issues: u64,
    counts: FaultCounts,
    struck: Vec<Struck>,
    violations: Vec<String>,
    trace: Trace,
    /// Reused between transfers.
    scratch: Vec<u8>,
}

/// So many violations are noted in full; more say nothing new.
const MAX_VIOLATIONS: usize = 16;

impl HbaModel {
    /// An HBA that reaches memory through `memory` and draws from `random`.
    pub fn new(config: HbaConfig, memory: DeviceView, random: Random) -> Self {
        let ports = (0..MAX_PORTS as u8)
            .map(|index| (config.ports >> index & 1 == 1).then(|| Box::new(Port::new(&config))))
            .collect();
        Self {
            hand_off: config.hand_off.unwrap_or_default(),
            enclosure: Enclosure::default(),
            memory,
            now: Instant::ORIGIN,
            control: GlobalControl::new().with_ahci(config.capabilities.ahci_only()),
            pending: 0,
            ports,
            schedule: Schedule::new(),
            random,
            bus_master: false,
            removed: false,
            reset_epoch: 0,
            reset_takes: Some(RESET),
            reluctant: 0,
            messages: 0,
            silent_until: Instant::ORIGIN,
            strangers: 0,
            issues: 0,
            counts: FaultCounts::default(),
            struck: Vec::new(),
            violations: Vec::new(),
            trace: Trace::default(),
            scratch: Vec::new(),
            config,
        }
    }

    /// Plugs a device into a port.
    pub fn attach(&mut self, port: u8, device: Box<dyn SataDevice>) {
        if let Some(port) = self.port_mut(port) {
            port.seat.device = Some(device);
        }
        self.plugged(port, HOST);
    }

    /// What it is like.
    pub const fn config(&self) -> &HbaConfig {
        &self.config
    }

    /// The last instant that it was advanced to.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// When something happens next by itself.
    pub fn next_event(&self) -> Option<Instant> {
        self.schedule.next_at()
    }

    /// Lets everything happen that is due.
    pub fn advance(&mut self, now: Instant) {
        while let Some((at, event)) = self.schedule.pop_due(now) {
            self.now = self.now.max(at);
            self.handle(event);
        }
        self.now = self.now.max(now);
        if self.enclosure.send() {
            self.violation(format_args!("the enclosure was sent what is no LED message"));
        }
        if self.config.capabilities.notification() {
            (0..MAX_PORTS as u8).for_each(|port| self.take_notification(port));
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Fetch { port } => self.fetch(port),
            Event::Finish { port, slot, issue } => self.finish(port, slot, issue),
            Event::LinkUp { port, at, epoch } => self.link_up(port, at, epoch),
            Event::Report { port, at, epoch } => self.report(port, at, epoch),
            Event::EngineStops { port, epoch } => self.engine_stops(port, epoch),
            Event::ResetEnds { epoch } => self.reset_ends(epoch),
            Event::Message => self.messages += 1,
            Event::Plug { port, at } => self.plug(port, at),
            Event::Strike { port, fault } => self.inject(port, fault),
            Event::StrikeBehind { port, behind, fault } => self.inject_behind(port, behind, fault),
        }
    }

    fn after(&mut self, time: Duration, event: Event) {
        self.schedule.add(self.now + time, event);
    }

    fn port_mut(&mut self, port: u8) -> Option<&mut Port> {
        self.ports.get_mut(usize::from(port))?.as_deref_mut()
    }

    /// Takes the messages that were sent: whether there were any. With the pin, whether it is
    /// asserted.
    pub fn take_interrupt(&mut self) -> bool {
        if self.config.pin {
            let asserted = self.control.interrupts() && self.pending != 0 && self.bus_is_there();
            return core::mem::take(&mut self.messages) > 0 || asserted;
        }
        core::mem::take(&mut self.messages) > 0
    }

    /// How often each fault has struck.
    pub const fn counts(&self) -> &FaultCounts {
        &self.counts
    }

    /// The faults that have struck since this was last asked.
    pub fn take_struck(&mut self) -> Vec<Struck> {
        core::mem::take(&mut self.struck)
    }

    /// Whether faults have struck since they were last asked for.
    pub const fn has_struck(&self) -> bool {
        !self.struck.is_empty()
    }

    /// What the driver did that it must not.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// What has happened, if it is traced.
    pub const fn trace(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// Switches bus mastering: without it, no memory is reached and no message sent.
    pub(crate) const fn set_bus_master(&mut self, on: bool) {
        self.bus_master = on;
    }

    /// Whether it may reach memory.
    pub const fn bus_master(&self) -> bool {
        self.bus_master
    }

    const fn bus_is_there(&self) -> bool {
        !self.removed
    }

    fn violation(&mut self, what: core::fmt::Arguments<'_>) {
        let now = self.now;
        self.trace.note(now, format_args!("VIOLATION: {what}"));
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(format!("{now:?}: {what}"));
        }
    }

    pub(crate) fn read(&mut self, offset: usize) -> u32 {
        if self.removed {
            return u32::MAX;
        }
        if offset >= PORTS_BASE {
            let (port, offset) = ((offset - PORTS_BASE) / PORT_BYTES, offset % PORT_BYTES);
            return self.read_port(port as u8, offset);
        }
        match offset {
            _ if offset == CAP.offset() => self.config.capabilities.into(),
            _ if offset == GHC.offset() => self.control.into(),
            _ if offset == IS.offset() => {
                self.pending | core::mem::take(&mut self.strangers) & !self.config.ports
            }
            _ if offset == PI.offset() => self.config.ports,
            _ if offset == VS.offset() => 0x0001_0301,
            _ if offset == CAP2.offset() => {
                let hand_off = self.config.hand_off.is_some();
                self.config.capabilities2.with_hand_off(hand_off).into()
            }
            _ if offset == EM_LOC.offset() && self.has_enclosure() => {
                self.enclosure.location().into()
            }
            _ if offset == EM_CTL.offset() && self.has_enclosure() => {
                self.enclosure.control().into()
            }
            _ if offset == BOHC.offset() => self.hand_off.into(),
            _ => 0,
        }
    }

    pub(crate) fn write(&mut self, offset: usize, value: u32) {
        if self.removed {
            return;
        }
        if let Some(offset) = offset.checked_sub(enclosure::BUFFER) {
            return self.enclosure.write_buffer(offset, value);
        }
        if offset >= PORTS_BASE {
            let (port, offset) = ((offset - PORTS_BASE) / PORT_BYTES, offset % PORT_BYTES);
            return self.write_port(port as u8, offset, value);
        }
        match offset {
            _ if offset == GHC.offset() => self.write_control(value.into()),
            _ if offset == EM_CTL.offset() => self.enclosure.write_control(value.into()),
            _ if offset == IS.offset() => {
                self.pending &= !value;
                // Bits whose cause is still there come back, and what is left is told anew.
                (0..MAX_PORTS as u8).for_each(|port| self.update_pending(port));
                if self.pending != 0 {
                    self.signal(None);
                }
            }
            _ if offset == BOHC.offset() => {
                let asked = HandOff::from(value);
                if asked.os_owned() && self.hand_off.bios_owned() {
                    // The BIOS lets go as soon as it is asked, unless it is busy for good.
                    let lets_go = !self.hand_off.bios_busy();
                    self.hand_off = asked.with_bios_owned(!lets_go).with_bios_busy(!lets_go);
                } else {
                    self.hand_off = asked;
                }
            }
            _ => {}
        }
    }

    fn write_control(&mut self, value: GlobalControl) {
        if value.reset() {
            return self.reset();
        }
        let enables = value.ahci() && !self.control.ahci();
        if enables && self.reluctant > 0 {
            self.reluctant -= 1;
            return;
        }
        let ahci = value.ahci() || self.config.capabilities.ahci_only();
        let before = self.control.interrupts();
        self.control = self.control.with_ahci(ahci).with_interrupts(value.interrupts());
        if !before && value.interrupts() && self.pending != 0 {
            self.signal(None);
        }
    }

    /// HBA reset (AHCI §10.4.3).
    fn reset(&mut self) {
        self.trace.note(self.now, format_args!("HBA reset"));
        self.reset_epoch += 1;
        let epoch = self.reset_epoch;
        self.pending = 0;
        self.messages = 0;
        let ahci = self.config.capabilities.ahci_only();
        self.control = GlobalControl::new().with_ahci(ahci).with_reset(true);
        for port in 0..MAX_PORTS as u8 {
            self.drop_commands(port, HOST);
            let config = &self.config;
            if let Some(port) = self.ports[usize::from(port)].as_deref_mut() {
                port.hba_reset(config);
            }
        }
        if let Some(takes) = self.reset_takes {
            self.after(takes, Event::ResetEnds { epoch });
        }
        if self.reset_takes.is_some() {
            self.reset_takes = Some(RESET);
        }
    }

    fn reset_ends(&mut self, epoch: u32) {
        if epoch != self.reset_epoch {
            return;
        }
        self.control.set_reset(false);
        for port in 0..MAX_PORTS as u8 {
            if self.config.capabilities.staggered() {
                self.keep_announcement(port);
            } else {
                self.begin_link(port, HOST);
            }
        }
    }

    /// Sets the port's bit in IS if it has an enabled interrupt, and sends a message if it is new.
    fn update_pending(&mut self, index: u8) {
        let Some(port) = self.ports[usize::from(index)].as_deref_mut() else { return };
        if port.interrupts() & port.enabled == 0 || self.pending >> index & 1 == 1 {
            return;
        }
        if port.take_armed(&[Fault::PendingNotSet]).is_some() {
            self.note_struck(index, Fault::PendingNotSet, None);
            return self.signal(Some(index));
        }
        self.pending |= 1 << index;
        self.signal(Some(index));
    }

    /// Sends a message, or asserts the pin.
    fn signal(&mut self, port: Option<u8>) {
        if !self.control.interrupts() || self.removed {
            return;
        }
        if !self.now.reached(self.silent_until) {
            return;
        }
        const LATE: [Fault; 2] = [Fault::InterruptLost, Fault::InterruptLate];
        let armed = port.and_then(|port| self.strike(port, &LATE));
        match armed {
            Some(Fault::InterruptLost) => {}
            Some(_) => {
                let late = Duration::from_micros(self.random.between(100, 400_000));
                self.after(late, Event::Message);
            }
            None => self.messages += 1,
        }
    }
}

/// How long a reset of the HBA takes.
const RESET: Duration = Duration::from_micros(500);

impl core::fmt::Debug for HbaModel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HbaModel")
            .field("now", &self.now)
            .field("control", &self.control)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}
