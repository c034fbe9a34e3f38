//! Commands of the devices: whose turn it is, and which have ended.

use super::{Behind, Multiplier, State};
use crate::config::limit;
use crate::port::Context;
use crate::spec::ata::Status;
use crate::spec::fis::kind;
use crate::spec::multiplier::{self, MAX_DEVICE_PORTS};
use crate::spec::registers::{
    ALL_ONES, FisSwitching, PX_CI, PX_FBS, PX_IS, PX_SACT, PX_SNTF, PX_TFD, PortInterrupts,
    TaskFile,
};
use outboard_block::Completion;
use outboard_hw::Registers;
use outboard_hw::registers::RegistersExt;

impl Behind {
    /// Slots whose commands wait to be sent.
    pub(super) fn waiting(&self) -> u32 {
        match self.face.wants_stop() || self.face.link() == 0 {
            true => 0,
            false => self.face.issued() & !self.sent,
        }
    }
}

impl<R: Registers> Multiplier<R> {
    /// Sends what may be sent.
    pub(super) fn issue(&mut self) {
        let own = !self.switching && (self.is_talking() || self.wants_to_talk());
        if self.state != State::Serving || own || self.draining.is_some() {
            return;
        }
        let waiting = |device: u8, all: &Self| {
            let behind = all.devices[usize::from(device)].as_ref();
            behind.is_some_and(|behind| behind.waiting() != 0)
        };
        let others = (1..=MAX_DEVICE_PORTS as u8).map(|step| self.turn + step);
        let mut others = others.map(|device| device % MAX_DEVICE_PORTS as u8);
        if self.switching {
            // Whoever was first last time is last now.
            let first = others.next().unwrap_or(0);
            for step in 0..MAX_DEVICE_PORTS as u8 {
                self.send((first + step) % MAX_DEVICE_PORTS as u8);
            }
            self.turn = first;
            return;
        }
        let next = others.find(|device| waiting(*device, self));
        let Some(next) = next else { return };
        if self.in_flight == 0 {
            if next != self.turn {
                // What another has sent says nothing of this one.
                self.memory.forget_received(0);
            }
            self.turn = next;
            self.send(next);
        } else if next == self.turn {
            // Nobody else waits.
            self.send(next);
        }
    }

    /// Sends a device's commands, as far as there are slots.
    fn send(&mut self, device: u8) {
        let mut free = self.slots & !self.in_flight & !self.own_place();
        if self.wants_to_talk() {
            // One is kept for what is to be asked of the multiplier.
            free &= free.wrapping_sub(1);
        }
        let Some(behind) = self.devices[usize::from(device)].as_deref_mut() else { return };
        let (mut waiting, active) = (behind.waiting(), behind.face.active());
        let (mut issue, mut queued) = (0u32, 0u32);
        while waiting != 0 {
            let slot = waiting.trailing_zeros() as u8;
            waiting &= waiting - 1;
            let is_queued = active >> slot & 1 == 1;
            // A tag must be below the device's depth, which its own slots are.
            let depth = if is_queued { behind.port.unit().geometry.queue_depth } else { 32 };
            let usable = free & !issue & u32::MAX >> (32 - u32::from(depth).clamp(1, 32));
            if usable == 0 {
                break;
            }
            let place = match usable >> slot & 1 {
                1 => slot,
                _ => usable.trailing_zeros() as u8,
            };
            let tag = is_queued.then_some(place);
            let Some(header) = behind.port.addressed(slot, device, tag) else { break };
            self.memory.put(place, &header);
            behind.sent |= 1 << slot;
            behind.places[usize::from(slot)] = place;
            self.owners[usize::from(place)] = (device, slot);
            issue |= 1 << place;
            queued |= u32::from(is_queued) << place;
        }
        if issue == 0 {
            return;
        }
        self.in_flight |= issue;
        if self.switching {
            self.select(device);
        }
        if queued != 0 {
            self.registers.set(PX_SACT, queued);
        }
        self.registers.set(PX_CI, issue);
    }

    /// Tells the HBA which device the next accesses are for (AHCI §3.3.16).
    pub(super) fn select(&mut self, device: u8) {
        let selected = FisSwitching::new().with_enabled(true).with_device(device);
        self.registers.set(PX_FBS, selected);
    }

    /// Where frames of a device are received.
    pub(super) const fn area(&self, device: u8) -> u8 {
        if self.switching { device } else { 0 }
    }

    /// Looks at the port: takes what has ended, and notices trouble.
    pub(super) fn look(
        &mut self,
        interrupted: bool,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        let due = self.in_flight != 0 && context.now.reached(self.check_at) || self.is_talking();
        let polling = context.polling && self.in_flight != 0;
        if !interrupted && !due && !polling {
            return;
        }
        self.check_at = context.now + limit::CHECKUP;
        let mut interrupts = core::mem::replace(&mut self.interrupts, PortInterrupts::empty());
        if !interrupted {
            let more = self.registers.get(PX_IS);
            self.registers.set(PX_IS, more);
            interrupts |= more;
        }
        if interrupts.bits() == ALL_ONES {
            return self.call_for_hba_reset();
        }
        self.reap(context, done);
        if interrupts.contains(PortInterrupts::SET_DEVICE_BITS_FIS)
            && context.capabilities.notification()
        {
            let notified = self.registers.get(PX_SNTF);
            if notified != 0 && notified != ALL_ONES {
                self.registers.set(PX_SNTF, notified);
                self.watch_soon(context);
            }
        }
        self.judge(interrupts, context, done);
    }

    /// Takes the commands that have ended.
    pub(super) fn reap(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        if self.in_flight == 0 || self.state != State::Serving {
            return;
        }
        let busy = self.registers.get(PX_CI) | self.registers.get(PX_SACT);
        let issued = self.in_flight | self.own_place();
        if busy == ALL_ONES && issued != ALL_ONES || busy & !issued != 0 {
            // Commands that nobody has issued: whatever is in flight cannot be told from them.
            return self.stop_engine(context);
        }
        let mut ended = self.in_flight & !busy;
        let mut devices = 0u16;
        while ended != 0 {
            let place = ended.trailing_zeros() as u8;
            ended &= ended - 1;
            self.in_flight &= !(1 << place);
            let (device, slot) = self.owners[usize::from(place)];
            let transferred = self.memory.transferred(place);
            if let Some(behind) = self.behind(device) {
                behind.sent &= !(1 << slot);
                behind.port.took_over(slot, transferred);
                behind.face.ended(slot);
                if behind.port.is_reading_log() {
                    let (lost, places) = (behind.lost, behind.places_lost);
                    behind.port.rename_in_log(|tag| {
                        let is = |slot: &u8| places[usize::from(*slot)] == tag;
                        (0..32u8).filter(|slot| lost >> slot & 1 == 1).find(is)
                    });
                }
            }
            devices |= 1 << device;
        }
        // Errors of queued commands are seen in the frames, and only there.
        for (device, behind) in self.devices.iter().enumerate() {
            if behind.as_ref().is_some_and(|behind| behind.sent != 0) {
                devices |= 1 << device;
            }
        }
        for device in (0..self.count).filter(|device| devices >> device & 1 == 1) {
            if self.state == State::Serving {
                self.tell(device, PortInterrupts::empty(), context, done);
            }
        }
    }

    /// Shows a device's port what the HBA has received of the device, and lets it look.
    pub(super) fn tell(
        &mut self,
        device: u8,
        interrupts: PortInterrupts,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        let frames = self.memory.received_by(self.area(device));
        let task_file = self.task_file(device);
        let error = Status::from_bits_retain(task_file.status()).is_error();
        if error && (!self.link_is_up() || self.has_started_anew()) {
            // It says nothing of what ended before the link was lost (AHCI §3.3.8).
            return self.lost(context);
        }
        let Some(behind) = self.behind(device) else { return };
        behind.port.received(&frames);
        behind.face.task_file_is(task_file.into());
        behind.face.interrupted(interrupts);
        let context = context.behind(behind.lag);
        behind.port.serve(&context, done);
    }

    /// Takes the first frames of devices whose links were reset, where each has an area of its own.
    pub(super) fn take_reports(&mut self) {
        for device in 0..self.count {
            let Some(behind) = self.devices[usize::from(device)].as_deref_mut() else { continue };
            if !behind.awaited {
                continue;
            }
            let frame = self.memory.received_register(device);
            let busy = Status::from_bits_retain(frame.status).is_busy();
            let reported = frame.kind == kind::REGISTER_D2H && frame.flags & 0xf == device && !busy;
            if behind.face.link() == 0 {
                behind.awaited = false;
            } else if reported {
                behind.awaited = false;
                // Where the first frame of a device puts its signature (AHCI §3.3.9).
                behind.face.reported(multiplier::returned(&frame));
            }
        }
    }

    /// PxTFD for a device.
    pub(super) fn task_file(&mut self, device: u8) -> TaskFile {
        if self.switching {
            self.select(device);
        }
        self.registers.get(PX_TFD)
    }
}
