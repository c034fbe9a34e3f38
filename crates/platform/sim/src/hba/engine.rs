//! The engine of a port: it fetches commands, and the device carries them out (AHCI §5.3).

use super::port::Execution;
use super::{Event, HbaModel};
use crate::fault::Fault;
use crate::sata::{Command, End, Plan, Protocol};
use crate::seat::{HOST, Seat};
use core::time::Duration;
use outboard_ahci::spec::ata::{Error, command};
use outboard_ahci::spec::fis::{RegisterH2d, kind};
use outboard_ahci::spec::log::NCQ_ERROR;
use outboard_ahci::spec::registers::{MAX_SLOTS, PortInterrupts};
use outboard_ahci::spec::structures::CommandHeader;

/// From a doorbell to the fetch of a command.
const FETCH: Duration = Duration::from_nanos(600);

impl HbaModel {
    /// Sees to it that commands are fetched, if there are any.
    pub(super) fn look_for_commands(&mut self, index: u8) {
        let Some(port) = self.port_mut(index) else { return };
        if port.issued & !port.fetched != 0 && !port.fetching {
            port.fetching = true;
            self.after(FETCH, Event::Fetch { port: index });
        }
    }

    pub(super) fn fetch(&mut self, index: u8) {
        let Some(port) = self.port_mut(index) else { return };
        port.fetching = false;
        for _ in 0..MAX_SLOTS {
            let Some(port) = self.port_mut(index) else { return };
            let works = port.command.start() && !port.halted && port.is_up();
            let waiting = if works { port.fetchable() } else { 0 };
            if waiting == 0 {
                return;
            }
            // Round robin, from the slot after the last (AHCI §5.3.8).
            let rotated = waiting.rotate_right(port.next_slot.into());
            let slot = (rotated.trailing_zeros() as u8 + port.next_slot) % 32;
            port.next_slot = (slot + 1) % 32;
            port.fetched |= 1 << slot;
            port.command.set_current_slot(slot);
            self.take_command(index, slot);
        }
    }

    /// Fetches the command in a slot, and sends it to the device.
    fn take_command(&mut self, index: u8, slot: u8) {
        let Some((header, command)) = self.fetch_command(index, slot) else { return };
        if command.fis.kind != kind::REGISTER_H2D {
            // Nothing that can be sent; the slot stays as it is.
            return;
        }
        self.trace.note(
            self.now,
            format_args!(
                "port {index} slot {slot}: command {:#04x} lba {} count {:?} features {}",
                command.fis.command,
                command.fis.address48(),
                command.fis.count,
                command.fis.features_low,
            ),
        );
        let (now, config) = (self.now, self.config.capabilities);
        let multiplier_port = command.fis.multiplier_port();
        let mut wrong = self.misaddressed(index, &header, multiplier_port);
        let Some(port) = self.ports[usize::from(index)].as_deref_mut() else { return };
        let at = port.route(multiplier_port);
        port.shown = at;
        let (active, kept) = (port.active, port.kept);
        let is_log =
            command.fis.command == command::READ_LOG_EXT && command.fis.lba_low[0] == NCQ_ERROR;
        let queued_command = is_queued(&command.fis);
        let packet_bit = header.flags.get() & CommandHeader::PACKET != 0;
        let tagged = active >> slot & 1 == 1;
        let others = port.executing.iter().flatten().filter(|other| other.at == at);
        let mixed = others.clone().any(|other| other.plan.protocol.is_queued() != queued_command);
        // A device behind a multiplier that was reset without the host's doing waits with its first
        // frame until DIAG.X is cleared, with which all that is sent to it collides (SATA §16.3.3).
        let takes = |seat: &&mut Seat| seat.is_up() && (at == HOST || !seat.is_exchanged());
        let Some(seat) = port.seat_mut(at).filter(takes) else {
            // Nobody is there to take it.
            return;
        };
        let Some(device) = &mut seat.device else { return };
        match () {
            () if queued_command && !tagged => wrong = Some("queued without its bit in PxSACT"),
            () if !queued_command && tagged && !kept => {
                wrong = Some("not queued, with a bit in PxSACT")
            }
            () if queued_command && command.fis.count[0] >> 3 != slot => {
                wrong = Some("queued with another tag than its slot");
            }
            () if queued_command && !config.ncq() => wrong = Some("queued, for an HBA without NCQ"),
            () if packet_bit != (command.fis.command == command::PACKET) => {
                wrong = Some("a packet without its bit (A), or the other way round");
            }
            () if mixed => wrong = Some("sent while commands of the other kind were outstanding"),
            () if header.flags.get() & 0x1f != u16::from(RegisterH2d::DWORDS) => {
                wrong = Some("of another length than its FIS");
            }
            () => {}
        }
        if command.fis.flags & RegisterH2d::IS_COMMAND == 0 {
            return self.device_control(index, at, slot, &command);
        }
        let awaited = seat.report.is_some();
        if seat.queue_failed && !is_log {
            wrong = wrong.or(Some("sent before log 10h was read, or the port reset"));
        } else if awaited {
            wrong = wrong.or(Some("sent before the device was ready"));
        }
        let plan = if seat.queue_failed && !is_log || awaited {
            Err(End::bad(Error::ABORTED.bits(), 0))
        } else {
            device.plan(&command, now, &mut self.random)
        };
        if let Some(wrong) = wrong {
            self.violation(format_args!(
                "port {index} slot {slot}: command {:#04x} was {wrong}",
                command.fis.command
            ));
        }
        let (plan, refusal) = match plan {
            Ok(plan) => (plan, None),
            Err(end) => {
                let protocol = if queued_command { Protocol::QueuedIn } else { Protocol::NonData };
                let takes = Duration::from_micros(20);
                (Plan { protocol, bytes: 0, takes }, Some(end))
            }
        };
        self.start_command((index, at), slot, command, plan, refusal);
    }

    fn start_command(
        &mut self,
        (index, at): (u8, u8),
        slot: u8,
        command: Command,
        mut plan: Plan,
        refusal: Option<End>,
    ) {
        self.issues += 1;
        let issue = self.issues;
        let fault = if refusal.is_none() { self.draw_for(index, at, &command) } else { None };
        let fault = fault.or_else(|| self.damaged_by_cable(index, &command));
        if fault == Some(Fault::VerySlow) {
            let longer = Duration::from_millis(self.random.between(1_000, 20_000));
            plan.takes = plan.takes.saturating_add(longer);
        }
        let Some(port) = self.port_mut(index) else { return };
        if plan.protocol.is_queued() {
            // The device lets go of the bus, and the HBA of the slot (AHCI §5.6.4.1).
            port.issued &= !(1 << slot);
            port.fetched &= !(1 << slot);
        }
        port.executing[usize::from(slot)] =
            Some(Execution { at, command, plan, refusal, fault, issue });
        if let Some(seat) = port.seat_mut(at) {
            seat.task_file = if plan.protocol.is_queued() { 0x50 } else { 0xd0 };
            seat.stuck |= fault == Some(Fault::Stuck);
        }
        const NEVER: [Fault; 5] = [
            Fault::NeverEnds,
            Fault::Stuck,
            Fault::LogNeverEnds,
            Fault::IdentifyNeverEnds,
            Fault::RegisterNeverEnds,
        ];
        if !fault.is_some_and(|fault| NEVER.contains(&fault)) && plan.takes != Duration::MAX {
            self.after(plan.takes, Event::Finish { port: index, slot, issue });
        }
    }

    /// A device control FIS: SRST (SATA §11.4).
    fn device_control(&mut self, index: u8, at: u8, slot: u8, command: &Command) {
        if let Some(port) = self.port_mut(index) {
            port.issued &= !(1 << slot);
            port.fetched &= !(1 << slot);
            if port.switching.enabled() && at != HOST {
                self.violation(format_args!("port {index}.{at}: software reset with PxFBS.EN set"));
            }
        }
        if command.fis.control & RegisterH2d::SOFT_RESET != 0 {
            self.forget_commands(index, at);
        } else {
            self.soft_reset(index, at);
        }
    }

    /// The device has done its work on a command.
    pub(super) fn finish(&mut self, index: u8, slot: u8, issue: u64) {
        let now = self.now;
        let Some(port) = self.ports[usize::from(index)].as_deref_mut() else { return };
        let place = &mut port.executing[usize::from(slot)];
        let Some(execution) = place.filter(|execution| execution.issue == issue) else { return };
        let Execution { at, command, plan, fault, .. } = execution;
        let Some(seat) = port.seat_mut(at).filter(|seat| !seat.stuck) else { return };
        let queued = plan.protocol.is_queued();
        seat.task_file = if queued { seat.task_file } else { 0x50 };
        port.executing[usize::from(slot)] = None;
        if !port.command.list_running() && !port.engine_stuck {
            // Given up by the HBA: nothing is transferred, and nobody is told.
            return;
        }
        if !queued && let Some(seat) = port.seat_mut(at) {
            seat.task_file = 0xd0;
        }
        if !self.accepts(index, at) {
            return;
        }
        if let Some(end) = execution.refusal.or_else(|| spoiled(fault)) {
            return self.end(index, slot, &execution, end);
        }
        if let Some(bits) = halting(fault) {
            // The command is neither done nor forgotten: the device waits for what does not come.
            if let Some(port) = self.port_mut(index) {
                port.executing[usize::from(slot)] = Some(Execution { issue: 0, ..execution });
            }
            return self.stop_with(index, bits);
        }
        // What a device behind a multiplier still has when its slot was taken from it.
        let empty = self.header(index, slot).is_some_and(|header| header.prdt_entries.get() == 0);
        if at != HOST && empty && plan.bytes > 0 {
            return self.stop_with(index, PortInterrupts::OVERFLOW);
        }
        let mut data = core::mem::take(&mut self.scratch);
        data.clear();
        data.resize(plan.bytes, 0);
        let gathered = !plan.protocol.is_out() || self.gather(index, slot, &mut data);
        if !gathered {
            self.scratch = data;
            return self.host_bus_failed(index);
        }
        let Some(port) = self.ports[usize::from(index)].as_deref_mut() else { return };
        let device = port.seat_mut(at).and_then(|seat| seat.device.as_deref_mut());
        let Some(device) = device else { return };
        let mut end = device.carry_out(&command, &mut data, now, &mut self.random);
        self.falsify((index, at), &command, fault, &mut data, &mut end);
        let transferred = end.bytes.min(plan.bytes);
        let moved = plan.protocol.is_out() || self.scatter(index, slot, &data[..transferred]);
        self.scratch = data;
        if !moved {
            return self.host_bus_failed(index);
        }
        self.end(index, slot, &execution, end);
        self.do_what_was_asked(index);
    }

    /// A command has ended, in whatever way: the device's last FIS arrives.
    pub(super) fn end(&mut self, index: u8, slot: u8, execution: &Execution, end: End) {
        self.trace.note(
            self.now,
            format_args!(
                "port {index} slot {slot}: ends, status {:#04x} error {:#04x} lba {} bytes {}{}",
                end.status,
                end.error,
                end.lba,
                end.bytes,
                execution.fault.map(|fault| format!(" ({fault})")).unwrap_or_default()
            ),
        );
        let Execution { command, plan, fault, at, .. } = execution;
        let at = *at;
        let queued = plan.protocol.is_queued();
        if self.misdirected(index, at, &end) {
            return;
        }
        let Some(port) = self.ports[usize::from(index)].as_deref_mut() else { return };
        let active = port.active;
        let Some(seat) = port.seat_mut(at) else { return };
        seat.task_file = u32::from(end.error) << 8 | u32::from(end.status);
        let log_read = command.fis.command == command::READ_LOG_EXT
            && command.fis.lba_low[0] == NCQ_ERROR
            && !end.is_bad();
        if log_read {
            seat.queue_failed = false;
        }
        let mut interrupts = PortInterrupts::empty();
        if end.is_bad() {
            if queued {
                seat.queue_failed = true;
                seat.active_at_failure = active;
                if let Some(device) = &mut seat.device {
                    device.note_queued_failure(slot, command, &end);
                }
                // The device has forgotten all the others (SATA §13.6.4).
                for place in &mut port.executing {
                    place.take_if(|other| other.at == at && other.plan.protocol.is_queued());
                }
            }
            self.device_failed(index, at, *fault);
        } else {
            port.issued &= !(1 << slot);
            port.fetched &= !(1 << slot);
            if queued {
                port.active &= !(1 << slot);
            }
        }
        if !queued {
            let count = match fault {
                Some(Fault::CountShort) => (end.bytes as u32 / 2) & !1,
                Some(Fault::CountLong) => end.bytes as u32 + 512,
                _ => end.bytes as u32,
            };
            self.write_count(index, slot, count);
        }
        let stale = *fault == Some(Fault::ReceivedStale);
        interrupts |= match plan.protocol {
            Protocol::QueuedIn | Protocol::QueuedOut => {
                let finished = if end.is_bad() { 0 } else { 1 << slot };
                if !stale {
                    self.post_bits(index, at, (end.status, end.error), finished);
                }
                PortInterrupts::SET_DEVICE_BITS_FIS
            }
            Protocol::PioIn if !end.is_bad() => PortInterrupts::PIO_SETUP_FIS,
            _ => {
                if !stale {
                    self.post_register(index, at, &end);
                }
                PortInterrupts::REGISTER_FIS
            }
        };
        match fault {
            Some(Fault::StatusNotSet) if !end.is_bad() => interrupts = PortInterrupts::empty(),
            Some(Fault::InterfaceNonFatal) => interrupts |= PortInterrupts::INTERFACE_NON_FATAL,
            Some(Fault::ReceivedGarbage) => self.garbage_received(index, at),
            Some(Fault::BusyStuck) => self.stick(index, at, 0x80),
            Some(Fault::DataRequestStuck) => self.stick(index, at, 0x08),
            _ => {}
        }
        if let Some(port) = self.port_mut(index) {
            port.status |= interrupts;
        }
        self.update_pending(index);
        self.look_for_commands(index);
    }

    /// Passes on what devices have to tell by themselves (SATA §13.8).
    pub(super) fn take_notification(&mut self, index: u8) {
        let now = self.now;
        for at in 0..=HOST {
            if !self.port_mut(index).is_some_and(|port| port.is_up()) {
                return;
            }
            let Some(seat) = self.seat_mut(index, at).filter(|seat| seat.is_up()) else { continue };
            if seat.device.as_mut().is_some_and(|device| device.notifies(now)) {
                self.notify_from(index, at);
            }
        }
    }

    fn stick(&mut self, index: u8, at: u8, bits: u32) {
        if let Some(seat) = self.seat_mut(index, at) {
            seat.stuck_bits = bits;
        }
    }

    /// Memory could not be reached: the HBA stops (AHCI §6.2.2).
    pub(super) fn host_bus_failed(&mut self, index: u8) {
        self.stop_with(index, PortInterrupts::HOST_BUS_DATA);
    }

    /// The HBA stops working on a port, with these bits.
    pub(super) fn stop_with(&mut self, index: u8, bits: PortInterrupts) {
        if let Some(port) = self.port_mut(index) {
            port.halted = true;
            port.status |= bits;
        }
        self.update_pending(index);
    }

    /// The device has forgotten all commands; with a multiplier, so have those behind it.
    pub(super) fn drop_commands(&mut self, index: u8, at: u8) {
        self.forget_commands(index, at);
        if at == HOST {
            (0..HOST).for_each(|at| self.forget_commands(index, at));
        }
    }

    /// The one device has forgotten all commands.
    pub(super) fn forget_commands(&mut self, index: u8, at: u8) {
        let Some(port) = self.port_mut(index) else { return };
        for execution in &mut port.executing {
            execution.take_if(|execution| execution.at == at);
        }
        if let Some(seat) = port.seat_mut(at) {
            seat.forget_commands();
        }
    }

    /// The header of a slot's command, and the command.
    fn fetch_command(&mut self, index: u8, slot: u8) -> Option<(CommandHeader, Command)> {
        let fetched = self.read_command(index, slot);
        if fetched.is_none() {
            self.host_bus_failed(index);
        }
        fetched
    }
}

/// How a fault ends a command before the device carries it out, if it does.
fn spoiled(fault: Option<Fault>) -> Option<End> {
    let crc = Error::INTERFACE_CRC.union(Error::ABORTED);
    match fault? {
        Fault::Aborted
        | Fault::ErrorNotSingle
        | Fault::LogAborted
        | Fault::IdentifyAborted
        | Fault::RegisterAborted => Some(End::bad(Error::ABORTED.bits(), 0)),
        Fault::ErrorWithoutReason => Some(End::bad(0, 0)),
        Fault::WriteFault => Some(End { status: 0x71, ..End::bad(0, 0) }),
        Fault::InterfaceCrc | Fault::CrcBurst => Some(End::bad(crc.bits(), 0)),
        _ => None,
    }
}

/// With which bits of PxIS a fault makes the HBA stop, if it does.
const fn halting(fault: Option<Fault>) -> Option<PortInterrupts> {
    match fault {
        Some(Fault::InterfaceFatal) => Some(PortInterrupts::INTERFACE_FATAL),
        Some(Fault::HostBusData) => Some(PortInterrupts::HOST_BUS_DATA),
        Some(Fault::HostBusFatal) => Some(PortInterrupts::HOST_BUS_FATAL),
        Some(Fault::Overflow) => Some(PortInterrupts::OVERFLOW),
        _ => None,
    }
}

/// Whether a FIS is that of a queued command.
pub(super) const fn is_queued(fis: &RegisterH2d) -> bool {
    matches!(fis.command, command::READ_FPDMA_QUEUED | command::WRITE_FPDMA_QUEUED)
}
