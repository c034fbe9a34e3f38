//! The host bus adapter: what its ports share.

mod behind;
mod enclosure;
mod startup;

use crate::config::{AhciConfig, Reaping, limit};
use crate::error::AhciError;
use crate::multiplier::{Multiplier, UNIT_STRIDE, UNITS_PER_PORT};
use crate::port::{Context, Port};
use crate::quirks::Quirks;
use crate::spec::registers::{
    ABAR, ALL_ONES, CAP, CAP2, Capabilities, Capabilities2, GHC, GlobalControl, IS, MAX_PORTS,
    PORT_BYTES, port_base,
};
use crate::spec::structures::{MAX_PRD_BYTES, MAX_PRDT_ENTRIES};
use alloc::sync::Arc;
use alloc::vec::Vec;
use behind::Place;
use core::fmt;
use enclosure::Enclosure;
use outboard_block::{
    BlockDriver, Completion, Health, Refused, RefusedReason, Request, Tag, Unit, UnitId, UnitState,
};
use outboard_hw::dma::{Constraints, DmaSpace};
use outboard_hw::interrupt::VectorRange;
use outboard_hw::registers::{RegistersExt, Window};
use outboard_hw::time::earlier;
use outboard_hw::{HwError, Instant};
use outboard_pci::{Claimed, Device, Identity};
use startup::State;

/// Class code of AHCI controllers: mass storage, Serial ATA, AHCI (AHCI §2.1.5).
const CLASS: (u8, u8, u8) = (0x01, 0x06, 0x01);

/// Whether this driver drives such a function.
pub fn matches(identity: &Identity) -> bool {
    let class = identity.class;
    (class.base, class.sub, class.interface) == CLASS
}

/// A Serial ATA host bus adapter with the disks at its ports. Units are numbered as its
/// ports; behind a multiplier, those of the second device port and further are 32 higher each.
///
/// The order of the fields matters: the device is cut off before the ports' memory is freed.
pub struct Hba<D: Device> {
    device: Claimed<D>,
    registers: D::Registers,
    ports: Vec<Option<Port<D::Registers>>>,
    /// Multipliers at ports, as far as any were found.
    multipliers: Vec<Multiplier<D::Registers>>,
    /// The unit of device ports where nothing is, nor was.
    nobody: Unit,
    /// The same while nobody knows yet.
    unknown: Unit,
    dma: Arc<dyn DmaSpace>,
    config: AhciConfig,
    capabilities: Capabilities,
    capabilities2: Capabilities2,
    enclosure: Enclosure,
    implemented: u32,
    constraints: Constraints,
    quirks: Quirks,
    state: State,
    look_at: Option<Instant>,
    /// When to look at all ports though nothing has called for it.
    watch_at: Instant,
    interrupted: bool,
    /// Whether it is kept from interrupting for a while.
    masked: bool,
    stopping: bool,
    /// State and generation of each port's unit when they were last compared, and how often they
    /// were found changed.
    seen: Vec<Option<(UnitState, u32)>>,
    changes: u64,
}

impl<D: Device> Hba<D> {
    /// Takes a controller over and begins to bring it up; [`poll`](BlockDriver::poll) goes on.
    ///
    /// Units are [`Starting`](UnitState::Starting) until it is known what is at their ports.
    pub fn new(device: D, config: AhciConfig) -> Result<Self, AhciError> {
        let identity = device.identity();
        if !matches(&identity) {
            return Err(AhciError::NotAhci { class: identity.class });
        }
        if config.prdt_entries == 0 {
            return Err(AhciError::BadConfig(config.prdt_entries));
        }
        let dma = device.dma();
        let mut device = Claimed::new(device);
        let registers = device.device().map_bar(ABAR)?;
        if registers.get(CAP).into_bits() == ALL_ONES {
            return Err(HwError::Gone.into());
        }
        let quirks = Quirks::of(&identity);
        let mut hba = Self {
            device,
            enclosure: Enclosure::find(&registers, false, MAX_PORTS),
            registers,
            ports: Vec::new(),
            multipliers: Vec::new(),
            unknown: Unit::UNKNOWN,
            nobody: Unit { state: UnitState::Absent, ..Unit::UNKNOWN.clone() },
            dma,
            config,
            capabilities: Capabilities::new(),
            capabilities2: Capabilities2::new(),
            implemented: 0,
            constraints: Constraints::NONE,
            quirks,
            state: State::Starting,
            look_at: Some(Instant::ORIGIN),
            watch_at: Instant::ORIGIN,
            interrupted: false,
            masked: false,
            stopping: false,
            seen: Vec::new(),
            changes: 0,
        };
        hba.read_capabilities()?;
        if config.reaping == Reaping::Interrupts {
            hba.device.device().enable_interrupts(match quirks.no_messages {
                true => VectorRange::ONE_PIN,
                false => VectorRange::ONE,
            })?;
        }
        Ok(hba)
    }

    /// Reads what the HBA can do, before a reset may change it (AHCI §10.4.3).
    fn read_capabilities(&mut self) -> Result<(), AhciError> {
        use crate::spec::registers::PI;
        self.capabilities = self.registers.get(CAP);
        self.capabilities2 = match self.registers.get(CAP2) {
            none if none.into_bits() == ALL_ONES => Capabilities2::new(),
            capabilities => capabilities,
        };
        self.implemented = match self.registers.get(PI) {
            // Some firmware leaves it unset; then the number of ports is all there is to go by.
            0 => u32::MAX >> (31 - self.capabilities.ports_minus_one()),
            implemented => implemented,
        };
        let highest_address = match self.capabilities.wide() {
            true => self.quirks.highest_address(),
            false => u32::MAX.into(),
        };
        let ports = MAX_PORTS - self.implemented.leading_zeros() as usize;
        self.enclosure = Enclosure::find(&self.registers, self.capabilities.enclosure(), ports);
        self.constraints = Constraints {
            // Data is transferred in words (AHCI §4.2.3.3).
            alignment: 2,
            highest_address,
            boundary: 0,
            max_segment_bytes: MAX_PRD_BYTES,
            max_segments: usize::from(self.config.prdt_entries).min(MAX_PRDT_ENTRIES),
        };
        let slots = self.capabilities.slots_minus_one() + 1;
        // No place is kept above the highest port: ports are large, and looked at often.
        let places = MAX_PORTS - self.implemented.leading_zeros() as usize;
        self.ports.reserve_exact(places);
        for index in 0..places {
            if self.implemented >> index & 1 == 0 {
                self.ports.push(None);
                continue;
            }
            let window = Window::new(self.registers.clone(), port_base(index), PORT_BYTES)?;
            self.ports.push(Some(Port::new(UnitId(index as u16), window, slots)));
        }
        Ok(())
    }

    /// What a port needs to know of its HBA, and the ports.
    fn split(&mut self, now: Instant) -> (Context<'_>, &mut [Option<Port<D::Registers>>]) {
        let context = Context {
            config: &self.config,
            capabilities: self.capabilities,
            capabilities2: self.capabilities2,
            lights: self.enclosure.has_lights(),
            constraints: self.constraints,
            quirks: self.quirks,
            polling: self.masked || self.config.reaping == Reaping::Polling,
            dma: &*self.dma,
            now,
        };
        (context, &mut self.ports)
    }

    /// Serves an interrupt: first on the assumption that it means nothing but commands that ended
    /// well at the one busy port, which takes one register read; if that finds nothing, in full.
    fn serve_interrupt(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        let mut busy = self.ports.iter().enumerate().filter_map(|(index, port)| {
            port.as_ref().filter(|port| port.in_flight()).map(|_| index)
        });
        if let (Some(index), None) = (busy.next(), busy.next()) {
            let mut registers = self.registers.clone();
            let (context, ports) = self.split(now);
            let Some(port) = &mut ports[index] else { return };
            // PxIS before IS (AHCI §5.6.4), and both before looking at what has ended.
            if port.acknowledge_good() {
                registers.set(IS, 1 << index);
                if port.reap(&context, done) {
                    return;
                }
            }
        }
        self.serve_in_full(now, done);
    }

    fn serve_in_full(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        let pending = self.registers.get(IS);
        if pending == ALL_ONES && self.is_gone() {
            return self.lose(now, done);
        }
        let pending = pending & self.implemented;
        let (context, ports) = self.split(now);
        for (index, port) in ports.iter_mut().enumerate() {
            if let Some(port) = port.as_mut().filter(|_| pending >> index & 1 == 1) {
                port.serve(&context, done);
            }
        }
        self.interrupt_multipliers(pending);
        if pending != 0 {
            self.registers.set(IS, pending);
        }
    }

    /// Does whatever is due.
    fn run(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        if self.state != State::Running {
            if self.look_at.is_some_and(|at| now.reached(at)) {
                self.step(now, done);
            }
            return;
        }
        if core::mem::take(&mut self.interrupted) {
            self.serve_interrupt(now, done);
        }
        if now.reached(self.watch_at) {
            self.watch_at = now + limit::WATCH;
            if self.is_gone() {
                return self.lose(now, done);
            }
            let (context, ports) = self.split(now);
            ports.iter_mut().flatten().for_each(|port| port.look_around(&context, done));
            self.look_around_behind(now, done);
        }
        let (context, ports) = self.split(now);
        ports.iter_mut().flatten().for_each(|port| port.poll(&context, done));
        self.poll_multipliers(now, done);
        self.enclosure.poll(&mut self.registers, now, done);
        self.check_ports(now, done);
    }

    /// Finds out whether a port's unit has changed, be it since the last poll.
    fn note_changes(&mut self) {
        let behind = self.multipliers.len() * usize::from(UNITS_PER_PORT);
        self.seen.resize(self.ports.len() + behind, None);
        let direct = self.ports.iter().map(|port| port.as_ref().map(Port::unit));
        let behind = self.multipliers.iter().flat_map(Multiplier::units);
        for (unit, seen) in direct.chain(behind).zip(&mut self.seen) {
            let now = unit.map(|unit| (unit.state, unit.generation));
            if now != *seen {
                *seen = now;
                self.changes += 1;
            }
        }
    }

    /// Whether the HBA no longer answers: its capabilities are never all ones.
    fn is_gone(&self) -> bool {
        self.registers.get(CAP).into_bits() == ALL_ONES
    }
}

impl<D: Device> BlockDriver for Hba<D> {
    fn unit_count(&self) -> u16 {
        UNIT_STRIDE * UNITS_PER_PORT
    }

    fn unit(&self, unit: UnitId) -> Option<&Unit> {
        match self.place(unit)? {
            Place::Direct(port) => Some(port.unit()),
            Place::Behind(port) => Some(port.unit()),
            Place::Unknown => Some(&self.unknown),
            Place::Empty => Some(&self.nobody),
        }
    }

    fn changes(&self) -> u64 {
        self.changes
    }

    fn constraints(&self) -> Constraints {
        self.constraints
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.dma.clone()
    }

    fn submit(&mut self, unit: UnitId, tag: Tag, request: Request) -> Result<(), Refused> {
        let constraints = self.constraints;
        if self.is_behind(unit) {
            return self.submit_behind(unit, tag, request);
        }
        match self.ports.get_mut(usize::from(unit.0)).and_then(Option::as_mut) {
            Some(port) if Enclosure::concerns(&request) => {
                let state = if self.stopping { UnitState::Stopping } else { port.unit().state };
                match self.state {
                    State::Lost => Err(request.refused(RefusedReason::NotReady(state))),
                    _ => self.enclosure.submit(unit, state, tag, request),
                }
            }
            Some(port) => port.submit(tag, request, &constraints),
            None => Err(request.refused(RefusedReason::NotReady(UnitState::Absent))),
        }
    }

    fn kick(&mut self, now: Instant) {
        if self.state == State::Running {
            let (context, ports) = self.split(now);
            ports.iter_mut().flatten().for_each(|port| port.kick(&context));
            self.kick_multipliers(now);
        }
    }

    fn interrupt(&mut self, _vector: u16) {
        self.interrupted = true;
    }

    fn mask(&mut self, masked: bool) {
        if self.masked != masked && self.config.reaping == Reaping::Interrupts {
            self.masked = masked;
            // Perhaps it has not told all that has happened by then.
            self.interrupted |= !masked;
            if self.state == State::Running {
                self.enable();
            }
        }
    }

    fn poll(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        self.run(now, done);
        self.note_changes();
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.state != State::Running {
            return self.look_at;
        }
        if self.interrupted {
            return Some(Instant::ORIGIN);
        }
        let ports = self.ports.iter().flatten().map(Port::next_deadline);
        let others = earlier(Some(self.watch_at), self.enclosure.next_deadline());
        let behind = self.multipliers.iter().map(Multiplier::next_deadline);
        behind.chain(ports).fold(others, earlier)
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.ports.iter_mut().flatten().for_each(Port::stop);
        self.multipliers.iter_mut().for_each(Multiplier::stop);
    }

    fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped | State::Lost)
    }

    fn health(&self, unit: UnitId) -> Option<&Health> {
        match self.place(unit)? {
            Place::Direct(port) => port.health(),
            Place::Behind(port) => port.health(),
            Place::Empty | Place::Unknown => None,
        }
    }

    fn counters(&self, unit: UnitId, counter: &mut dyn FnMut(&'static str, u64)) {
        match self.place(unit) {
            Some(Place::Direct(port)) => port.counters().each(counter),
            Some(Place::Behind(port)) => port.counters().each(counter),
            Some(Place::Empty | Place::Unknown) | None => {}
        }
    }

    fn drain_events(&mut self, event: &mut dyn FnMut(UnitId, Instant, &dyn fmt::Display)) {
        self.ports.iter_mut().flatten().for_each(|port| port.drain_events(event));
        let behind = self.multipliers.iter_mut().flat_map(Multiplier::ports_mut);
        behind.for_each(|port| port.drain_events(event));
    }
}

impl<D: Device> Drop for Hba<D> {
    /// Lets the HBA forget all commands; then its claim takes it off the bus, and only then is the
    /// memory freed.
    fn drop(&mut self) {
        if !self.is_stopped() {
            let reset = GlobalControl::new().with_ahci(true).with_reset(true);
            self.registers.set(GHC, reset);
        }
    }
}

impl<D: Device> fmt::Debug for Hba<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hba")
            .field("state", &self.state)
            .field("capabilities", &self.capabilities)
            .field("implemented", &self.implemented)
            .finish_non_exhaustive()
    }
}
