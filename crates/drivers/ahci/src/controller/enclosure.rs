//! LEDs at the disks' places (AHCI §12): messages to the enclosure, one at a time.

use crate::config::limit;
use crate::spec::registers::{EM_CTL, EM_LOC, EnclosureControl, LedMessage, MAX_PORTS, port_base};
use heapless::Deque;
use outboard_block::{
    BlockError, Completion, Management, Operation, Refused, RefusedReason, Request, Tag, UnitId,
    UnitState,
};
use outboard_hw::dma::SgList;
use outboard_hw::registers::{ReadWrite, Register, RegistersExt};
use outboard_hw::time::earlier;
use outboard_hw::{Instant, Registers};

/// Requests for LEDs, held at once.
const WAITING: usize = 16;
/// How often a message is tried.
const ATTEMPTS: u8 = 3;

/// A request that waits until its port's LEDs are as they should be.
#[derive(Debug)]
struct Waiting {
    unit: UnitId,
    tag: Tag,
    data: SgList,
}

/// A message on its way.
#[derive(Debug, Clone, Copy)]
struct Sending {
    port: u8,
    /// What it says.
    message: LedMessage,
    until: Instant,
    /// When to look whether it has gone.
    look_at: Instant,
}

/// The enclosure, as far as an HBA speaks to it.
#[derive(Debug)]
pub(super) struct Enclosure {
    /// Where its transmit buffer starts; `None` if it takes no LED messages.
    buffer: Option<usize>,
    /// What each port's LEDs shall show.
    lights: [LedMessage; MAX_PORTS],
    /// Ports whose LEDs may show something else.
    stale: u32,
    sending: Option<Sending>,
    /// Failures in a row.
    failures: u8,
    waiting: Deque<Waiting, WAITING>,
}

impl Enclosure {
    /// Finds out whether there is one that takes LED messages. `ports`: the highest port and one.
    pub(super) fn find(registers: &impl Registers, has_enclosure: bool, ports: usize) -> Self {
        let control = registers.get(EM_CTL);
        let location = registers.get(EM_LOC);
        let start = usize::from(location.offset_dwords()) * 4;
        let end = start + usize::from(LedMessage::DWORDS) * 4;
        // Where other registers are, a message would do harm.
        let usable = has_enclosure
            && control.led()
            && location.size_dwords() >= LedMessage::DWORDS
            && start >= port_base(ports)
            && end <= registers.size_bytes();
        let light = |port| LedMessage { port, locate: false, fault: false };
        Self {
            buffer: usable.then_some(start),
            lights: core::array::from_fn(|port| light(port as u8)),
            stale: 0,
            sending: None,
            failures: 0,
            waiting: Deque::new(),
        }
    }

    /// Whether there are LEDs.
    pub(super) const fn has_lights(&self) -> bool {
        self.buffer.is_some()
    }

    /// Whether a request is for the enclosure.
    pub(super) const fn concerns(request: &Request) -> bool {
        matches!(
            request.operation,
            Operation::Manage(Management::Locate(_) | Management::FaultLight(_))
        )
    }

    /// Takes a request for a place's LEDs. `state`: of its unit; it may be without a disk.
    pub(super) fn submit(
        &mut self,
        unit: UnitId,
        state: UnitState,
        tag: Tag,
        request: Request,
    ) -> Result<(), Refused> {
        let refused = match () {
            () if state == UnitState::Stopping => Some(RefusedReason::NotReady(state)),
            () if !self.has_lights() => Some(RefusedReason::Unsupported),
            () if request.data.bytes() != 0 => Some(RefusedReason::BadMemory),
            () if self.waiting.is_full() => Some(RefusedReason::QueueFull),
            () => None,
        };
        if let Some(reason) = refused {
            return Err(request.refused(reason));
        }
        let light = &mut self.lights[usize::from(unit.0) % MAX_PORTS];
        match request.operation {
            Operation::Manage(Management::Locate(on)) => light.locate = on,
            Operation::Manage(Management::FaultLight(on)) => light.fault = on,
            _ => return Err(request.refused(RefusedReason::Unsupported)),
        }
        self.stale |= 1 << light.port;
        let _ = self.waiting.push_back(Waiting { unit, tag, data: request.data });
        Ok(())
    }

    /// The HBA was reset, and with it the LEDs: those that are lit are lit again.
    pub(super) fn was_reset(&mut self) {
        self.sending = None;
        let lit = self.lights.iter().filter(|light| light.locate || light.fault);
        self.stale |= lit.fold(0, |ports, light| ports | 1 << light.port);
    }

    /// Sends what is to be sent, and looks whether it has gone. The HBA is running.
    pub(super) fn poll(
        &mut self,
        registers: &mut impl Registers,
        now: Instant,
        done: &mut dyn FnMut(Completion),
    ) {
        if let Some(sending) = self.sending {
            if !now.reached(sending.look_at) {
                return;
            }
            let control = registers.get(EM_CTL);
            if control.transmit() && !now.reached(sending.until) {
                let look_at = now + limit::LOOK;
                self.sending = Some(Sending { look_at, ..sending });
                return;
            }
            self.sending = None;
            match control.transmit() {
                false => self.sent(sending, done),
                true => self.failed(registers, sending, done),
            }
        }
        if self.stale != 0 && self.sending.is_none() {
            self.send(self.stale.trailing_zeros() as u8, registers, now);
        }
    }

    fn send(&mut self, port: u8, registers: &mut impl Registers, now: Instant) {
        let Some(buffer) = self.buffer else { return self.stale = 0 };
        let control = registers.get(EM_CTL);
        let (until, look_at) = (now + limit::ENCLOSURE, now + limit::LOOK);
        let message = self.lights[usize::from(port)];
        if !control.transmit() && !control.reset() {
            for (index, dword) in message.dwords().into_iter().enumerate() {
                registers.set(Register::<u32, ReadWrite>::at(buffer + 4 * index), dword);
            }
            registers.set(EM_CTL, EnclosureControl::new().with_transmit(true));
        }
        self.sending = Some(Sending { port, message, until, look_at });
    }

    fn sent(&mut self, sending: Sending, done: &mut dyn FnMut(Completion)) {
        self.failures = 0;
        // What it should show may have changed since.
        if self.lights[usize::from(sending.port)] == sending.message {
            self.stale &= !(1 << sending.port);
            self.complete(|unit| unit.0 == u16::from(sending.port), Ok(()), done);
        }
    }

    /// The enclosure did not take a message: it is reset, and in the end no longer spoken to.
    fn failed(
        &mut self,
        registers: &mut impl Registers,
        sending: Sending,
        done: &mut dyn FnMut(Completion),
    ) {
        registers.set(EM_CTL, EnclosureControl::new().with_reset(true));
        self.failures += 1;
        if self.failures >= ATTEMPTS {
            (self.failures, self.stale) = (0, self.stale & !(1 << sending.port));
            let port = u16::from(sending.port);
            self.complete(|unit| unit.0 == port, Err(BlockError::Timeout), done);
        }
    }

    fn complete(
        &mut self,
        ended: impl Fn(UnitId) -> bool,
        result: Result<(), BlockError>,
        done: &mut dyn FnMut(Completion),
    ) {
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else { return };
            if ended(waiting.unit) {
                let Waiting { unit, tag, data } = waiting;
                done(Completion { unit, tag, result, data });
            } else {
                let _ = self.waiting.push_back(waiting);
            }
        }
    }

    /// The HBA is gone.
    pub(super) fn gone(&mut self, done: &mut dyn FnMut(Completion)) {
        (self.sending, self.stale) = (None, 0);
        self.complete(|_| true, Err(BlockError::Gone), done);
    }

    /// Whether nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let sending = self.sending.map(|sending| sending.look_at);
        let to_send = (self.stale != 0 && self.sending.is_none()).then_some(Instant::ORIGIN);
        earlier(sending, to_send)
    }
}
