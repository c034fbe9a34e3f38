//! Commands: what a request becomes, and which slot holds it.

use super::memory::Data;
use crate::spec::ata::{DEVICE_FUA, DSM_TRIM, command};
use crate::spec::fis::RegisterH2d;
use crate::spec::registers::MAX_SLOTS;
use heapless::Deque;
use outboard_block::{Durability, Operation, Request, Tag};
use outboard_hw::Instant;
use outboard_hw::dma::Constraints;

/// What of the device matters for building commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    /// Native command queuing is used.
    pub(crate) queuing: bool,
    /// 48-bit commands.
    pub(crate) lba48: bool,
    /// FUA writes.
    pub(crate) fua: bool,
    /// A volatile write cache is on.
    pub(crate) write_cache: bool,
    /// FLUSH CACHE EXT, else FLUSH CACHE.
    pub(crate) flush_ext: bool,
    /// Logs can be read.
    pub(crate) logs: bool,
}

impl Device {
    /// A device of which nothing is known that would matter.
    pub(crate) const PLAIN: Self = Self {
        queuing: false,
        lba48: false,
        fua: false,
        write_cache: false,
        flush_ext: false,
        logs: false,
    };
}

/// Which part of a request is being carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// What the request says.
    First,
    /// The flush after a durable write, for devices that cannot make single writes durable.
    FlushAfterWrite,
    /// So many orders of a program of management have been carried out.
    Order(u8),
}

/// A request in a slot.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) tag: Tag,
    pub(crate) request: Request,
    pub(crate) step: Step,
    /// To be issued alone: it may be the one that made the queue fail.
    pub(crate) alone: bool,
    /// How often it was issued and something went wrong.
    pub(crate) failures: u8,
    /// How often the device aborted it.
    pub(crate) aborts: u8,
    /// How often it was issued again because of other commands.
    pub(crate) requeued: u8,
    /// When it is overdue, once it is issued.
    pub(crate) deadline: Instant,
}

impl Command {
    pub(crate) const fn new(tag: Tag, request: Request) -> Self {
        let deadline = Instant::ORIGIN;
        let (step, alone) = (Step::First, false);
        Self { tag, request, step, alone, failures: 0, aborts: 0, requeued: 0, deadline }
    }

    /// What the device is asked to do at this step.
    pub(crate) const fn operation(&self) -> Operation {
        match self.step {
            Step::First | Step::Order(_) => self.request.operation,
            Step::FlushAfterWrite => Operation::Flush,
        }
    }

    /// Whether it is issued as a queued command.
    pub(crate) fn is_queued(&self, device: &Device) -> bool {
        let transfer = matches!(self.operation(), Operation::Read | Operation::Write(_));
        device.queuing && transfer && !self.alone
    }

    /// Whether a flush must follow before it may complete.
    pub(crate) fn needs_flush(&self, device: &Device) -> bool {
        let durable = self.request.operation == Operation::Write(Durability::Durable);
        durable && self.step == Step::First && device.write_cache && !device.fua
    }

    /// Whether it is a write that goes past the device's cache.
    pub(crate) fn is_forced(&self, device: &Device) -> bool {
        self.operation() == Operation::Write(Durability::Durable) && device.fua
    }

    /// The command FIS, for `slot`.
    pub(crate) fn fis(&self, slot: u8, device: &Device) -> RegisterH2d {
        let Request { lba, sectors, .. } = self.request;
        let operation = self.operation();
        let fua = self.is_forced(device);
        let write = matches!(operation, Operation::Write(_));
        match operation {
            Operation::Read | Operation::Write(_) if self.is_queued(device) => {
                let code =
                    if write { command::WRITE_FPDMA_QUEUED } else { command::READ_FPDMA_QUEUED };
                // The number of sectors goes into FEATURES, the tag into COUNT (ACS §7.23.3).
                let fis = RegisterH2d::command(code).lba48(lba).features(sectors as u16);
                let fis = fis.count(u16::from(slot) << 3);
                let fua = if fua { DEVICE_FUA } else { 0 };
                RegisterH2d { device: fis.device | fua, ..fis }
            }
            Operation::Read | Operation::Write(_) if device.lba48 => {
                let code = match (write, fua) {
                    (false, _) => command::READ_DMA_EXT,
                    (true, false) => command::WRITE_DMA_EXT,
                    (true, true) => command::WRITE_DMA_FUA_EXT,
                };
                RegisterH2d::command(code).lba48(lba).count(sectors as u16)
            }
            Operation::Read | Operation::Write(_) => {
                let code = if write { command::WRITE_DMA } else { command::READ_DMA };
                RegisterH2d::command(code).lba28(lba).count(sectors as u16 & 0xff)
            }
            Operation::Flush if device.flush_ext => RegisterH2d::command(command::FLUSH_CACHE_EXT),
            Operation::Flush | Operation::Manage(_) => RegisterH2d::command(command::FLUSH_CACHE),
            // The others are refused.
            Operation::Discard | Operation::WriteZeroes(_) | Operation::SecureErase => {
                let fis = RegisterH2d::command(command::DATA_SET_MANAGEMENT);
                fis.features(DSM_TRIM).count(1)
            }
        }
    }

    /// Whether its data goes to the device.
    pub(crate) const fn is_to_device(&self) -> bool {
        matches!(self.operation(), Operation::Write(_) | Operation::Discard)
    }

    /// Its data.
    pub(crate) fn data(&self, constraints: &Constraints) -> Data<'_> {
        match self.operation() {
            Operation::Read | Operation::Write(_) => {
                Data::Segments(self.request.data.segments(constraints))
            }
            Operation::Discard => Data::Trim,
            _ => Data::None,
        }
    }

    /// How many bytes it transfers; `None` if the HBA need not count them right.
    pub(crate) const fn expected_bytes(&self) -> Option<usize> {
        match self.operation() {
            Operation::Read | Operation::Write(_) => Some(self.request.data.bytes()),
            _ => None,
        }
    }
}

/// The slots of a port: who holds them, who waits, who was issued.
#[derive(Debug)]
pub(crate) struct Slots {
    held: [Option<Command>; MAX_SLOTS],
    /// Slots that may be used and hold nothing.
    free: u32,
    /// Slots to be issued, in order.
    waiting: Deque<u8, MAX_SLOTS>,
    /// Slots that were issued as queued commands.
    pub(crate) queued: u32,
    /// The slot that was issued alone.
    pub(crate) alone: Option<u8>,
}

impl Slots {
    /// `count` slots, all free.
    pub(crate) fn new(count: u8) -> Self {
        let free = u32::MAX >> (MAX_SLOTS as u32 - u32::from(count).clamp(1, MAX_SLOTS as u32));
        let held = [const { None }; MAX_SLOTS];
        Self { held, free, waiting: Deque::new(), queued: 0, alone: None }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u16 {
        let held = self.held.iter().flatten().count();
        held as u16 + self.free.count_ones() as u16
    }

    pub(crate) const fn has_room(&self) -> bool {
        self.free != 0
    }

    /// Whether no slot is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.iter().all(Option::is_none)
    }

    /// Whether commands were issued that have not ended.
    pub(crate) const fn in_flight(&self) -> bool {
        self.queued != 0 || self.alone.is_some()
    }

    /// Bits of all slots that were issued.
    pub(crate) fn issued(&self) -> u32 {
        self.queued | self.alone.map_or(0, |slot| 1 << slot)
    }

    /// Takes a slot for `command` and lets it wait; the caller has made sure that there is room.
    pub(crate) fn hold(&mut self, command: Command) {
        let slot = self.free.trailing_zeros() as u8;
        debug_assert!(self.has_room());
        self.free &= !(1 << slot);
        self.held[usize::from(slot)] = Some(command);
        let _ = self.waiting.push_back(slot);
    }

    pub(crate) fn get(&self, slot: u8) -> Option<&Command> {
        self.held.get(usize::from(slot))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u8) -> Option<&mut Command> {
        self.held.get_mut(usize::from(slot))?.as_mut()
    }

    /// Which slot is to be issued next.
    pub(crate) fn next_waiting(&self) -> Option<u8> {
        self.waiting.front().copied()
    }

    /// Notes that the next waiting slot was issued.
    pub(crate) fn issue_next(&mut self) {
        let _ = self.waiting.pop_front();
    }

    /// Frees a slot that is neither issued nor waiting, and returns what it held.
    pub(crate) fn release(&mut self, slot: u8) -> Option<Command> {
        let command = self.held.get_mut(usize::from(slot))?.take()?;
        self.free |= 1 << slot;
        Some(command)
    }

    /// Takes a slot out of those that were issued.
    pub(crate) fn retire(&mut self, slot: u8) {
        self.queued &= !(1 << slot);
        if self.alone == Some(slot) {
            self.alone = None;
        }
    }

    /// Lets a retired slot wait again, behind all others.
    pub(crate) fn wait_again(&mut self, slot: u8) {
        let _ = self.waiting.push_back(slot);
    }

    /// Lets a retired slot wait again, before all others.
    pub(crate) fn wait_first(&mut self, slot: u8) {
        let _ = self.waiting.push_front(slot);
    }

    /// Lets all issued slots wait again, before all others. Among themselves they keep the order
    /// of their numbers: commands in flight at the same time have no order.
    pub(crate) fn requeue_issued(&mut self) {
        let issued = self.issued();
        for slot in (0..MAX_SLOTS as u8).rev().filter(|slot| issued >> slot & 1 == 1) {
            let _ = self.waiting.push_front(slot);
        }
        (self.queued, self.alone) = (0, None);
    }

    /// Takes the memory of all commands away from them.
    pub(crate) fn forget_memory(&mut self) {
        let requests = self.held.iter_mut().flatten().map(|command| &mut command.request);
        requests.for_each(|request| drop(core::mem::take(&mut request.data)));
    }

    /// Lets all writes that only wait for their flush begin with their first step again.
    pub(crate) fn restart(&mut self) {
        let commands = self.held.iter_mut().flatten();
        let flushing = commands.filter(|command| command.step == Step::FlushAfterWrite);
        flushing.for_each(|command| command.step = Step::First);
    }

    /// Takes a slot out of those that wait.
    pub(crate) fn withdraw(&mut self, slot: u8) {
        for _ in 0..self.waiting.len() {
            if let Some(next) = self.waiting.pop_front().filter(|next| *next != slot) {
                let _ = self.waiting.push_back(next);
            }
        }
    }

    /// Empties all slots.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Command> {
        self.requeue_issued();
        self.waiting.clear();
        (0..MAX_SLOTS as u8)
            .filter_map(|slot| self.get(slot).is_some().then(|| self.release(slot))?)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use outboard_hw::dma::SgList;
    use zerocopy::IntoBytes;

    /// A disk of today.
    pub(in crate::port) const MODERN: Device = Device {
        queuing: true,
        lba48: true,
        fua: true,
        write_cache: true,
        flush_ext: true,
        logs: true,
    };
    const ANCIENT: Device = Device {
        queuing: false,
        lba48: false,
        fua: false,
        write_cache: true,
        flush_ext: false,
        logs: false,
    };

    fn write(durability: Durability) -> Command {
        Command::new(Tag(1), Request::write(0x0a23_4567, 65536, SgList::EMPTY, durability))
    }

    fn bytes(command: &Command, device: &Device) -> [u8; 14] {
        command.fis(5, device).as_bytes()[..14].try_into().unwrap()
    }

    #[test]
    fn queued_commands_carry_the_count_in_features_and_the_tag_in_count() {
        let read = Command::new(Tag(1), Request::read(0x1122_3344_5566, 0x0102, SgList::EMPTY));
        let expected =
            [0x27, 0x80, 0x60, 2, 0x66, 0x55, 0x44, 0x40, 0x33, 0x22, 0x11, 1, 5 << 3, 0];
        assert_eq!(bytes(&read, &MODERN), expected);
        let durable = bytes(&write(Durability::Durable), &MODERN);
        assert_eq!((durable[2], durable[7]), (0x61, 0xc0), "forced unit access");
        assert_eq!((durable[3], durable[11]), (0, 0), "65536 sectors are written as 0");
    }

    #[test]
    fn commands_that_run_alone_are_not_queued() {
        let mut command = write(Durability::Durable);
        command.alone = true;
        let fis = bytes(&command, &MODERN);
        assert_eq!((fis[2], fis[12], fis[13]), (0x3d, 0, 0));
        command.request.operation = Operation::Write(Durability::Cached);
        assert_eq!(bytes(&command, &MODERN)[2], 0x35);
        command.request.operation = Operation::Read;
        assert_eq!(bytes(&command, &MODERN)[2], 0x25);
    }

    #[test]
    fn old_devices_get_28_bit_commands() {
        let mut command = write(Durability::Cached);
        command.request.sectors = 256;
        let fis = bytes(&command, &ANCIENT);
        assert_eq!(fis, [0x27, 0x80, 0xca, 0, 0x67, 0x45, 0x23, 0x4a, 0, 0, 0, 0, 0, 0]);
        let flush = Command::new(Tag(1), Request::flush());
        assert_eq!(bytes(&flush, &ANCIENT)[2], 0xe7);
        assert_eq!(bytes(&flush, &MODERN)[2], 0xea);
    }

    #[test]
    fn durable_writes_flush_where_the_device_cannot_do_it_by_itself() {
        assert!(!write(Durability::Durable).needs_flush(&MODERN));
        assert!(!write(Durability::Cached).needs_flush(&ANCIENT));
        let mut command = write(Durability::Durable);
        assert!(command.needs_flush(&ANCIENT));
        assert!(!command.needs_flush(&Device { write_cache: false, ..ANCIENT }));
        command.step = Step::FlushAfterWrite;
        assert_eq!(bytes(&command, &ANCIENT)[2], 0xe7);
        assert!(!command.needs_flush(&ANCIENT) && !command.is_queued(&MODERN));
    }

    #[test]
    fn slots_are_held_issued_requeued_and_released() {
        let mut slots = Slots::new(2);
        slots.hold(Command::new(Tag(7), Request::flush()));
        slots.hold(Command::new(Tag(8), Request::flush()));
        assert!(!slots.has_room());
        assert_eq!(slots.next_waiting(), Some(0));
        slots.issue_next();
        slots.queued = 1;
        slots.requeue_issued();
        assert_eq!((slots.next_waiting(), slots.in_flight()), (Some(0), false));
        slots.issue_next();
        slots.alone = Some(0);
        slots.retire(0);
        assert_eq!(slots.release(0).unwrap().tag, Tag(7));
        assert!(slots.has_room() && !slots.is_empty());
        let drained: std::vec::Vec<_> = slots.drain().map(|command| command.tag).collect();
        assert_eq!(drained, [Tag(8)]);
        assert!(slots.is_empty() && slots.next_waiting().is_none());
    }
}
