//! A multiplier's device port with the registers that a port of an HBA has (AHCI §3.3), so that
//! what drives a port drives a device port too.
//!
//! Nothing happens by itself here. What is asked for by a write is kept until the multiplier's
//! driver sees to it, and what it finds out is stored here to be read.

use crate::spec::registers::{
    PORT_BYTES, PX_CI, PX_CMD, PX_IS, PX_SACT, PX_SCTL, PX_SERR, PX_SIG, PX_SSTS, PX_TFD,
    PortCommand, PortInterrupts, SataControl, TaskFile, serial_error,
};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use outboard_hw::registers::{DwordRegisters, RegistersExt};

/// Status of a device that has not reported yet: BSY.
const BUSY: u8 = 0x80;

#[derive(Debug)]
struct Cells {
    registers: [AtomicU32; PORT_BYTES / 4],
    /// The link shall be brought up.
    wanted: AtomicBool,
    /// That was asked for since it was last looked at.
    asked: AtomicBool,
}

/// The registers of a device port. Clones are the same registers.
#[derive(Debug, Clone)]
pub(crate) struct Face(Arc<Cells>);

impl Face {
    pub(super) fn new() -> Self {
        let face = Self(Arc::new(Cells {
            registers: [const { AtomicU32::new(0) }; PORT_BYTES / 4],
            wanted: AtomicBool::new(false),
            asked: AtomicBool::new(false),
        }));
        face.reset();
        face
    }

    /// Nothing is known of the device, and nothing is asked for.
    pub(super) fn reset(&self) {
        self.0.registers.iter().for_each(|register| register.store(0, Ordering::Relaxed));
        self.0.wanted.store(false, Ordering::Relaxed);
        self.put(PX_TFD.offset(), TaskFile::new().with_status(BUSY).into());
        self.put(PX_SIG.offset(), u32::MAX);
        // Hot-plug works behind multipliers, whatever it does at the HBA's ports.
        self.put(PX_CMD.offset(), PortCommand::new().with_hot_plug(true).into());
    }

    fn cell(&self, offset: usize) -> &AtomicU32 {
        // A window of just these bytes keeps offsets inside.
        &self.0.registers[offset % PORT_BYTES / 4]
    }

    fn load(&self, offset: usize) -> u32 {
        self.cell(offset).load(Ordering::Relaxed)
    }

    fn put(&self, offset: usize, value: u32) {
        self.cell(offset).store(value, Ordering::Relaxed);
    }

    fn change(&self, offset: usize, clear: u32, set: u32) {
        self.put(offset, self.load(offset) & !clear | set);
    }

    fn write_command(&self, asked: PortCommand) {
        let before = PortCommand::from(self.load(PX_CMD.offset()));
        if asked.command_list_override() {
            self.change(PX_TFD.offset(), 0x88, 0);
        }
        let running = before.list_running() || asked.start();
        let next = asked
            .with_list_running(running)
            .with_fis_running(asked.fis_receive())
            .with_hot_plug(true)
            .with_command_list_override(false)
            .with_interface_state(0);
        self.put(PX_CMD.offset(), next.into());
        if asked.spin_up() && !before.spin_up() {
            self.want_link();
        }
    }

    fn write_link_control(&self, value: u32) {
        let before = SataControl::from(self.load(PX_SCTL.offset())).detection();
        let after = SataControl::from(value).detection();
        self.put(PX_SCTL.offset(), value);
        if after != 0 {
            self.link_is(0);
            self.0.wanted.store(false, Ordering::Relaxed);
        } else if before != 0 {
            self.want_link();
        }
    }

    /// PxIS, with what PxSERR shows there.
    fn interrupts(&self) -> u32 {
        let errors = self.load(PX_SERR.offset());
        let shown = |error, bit: PortInterrupts| if errors & error != 0 { bit.bits() } else { 0 };
        self.load(PX_IS.offset())
            | shown(serial_error::EXCHANGED, PortInterrupts::CONNECT)
            | shown(serial_error::PHY_READY, PortInterrupts::PHY_READY)
    }

    /// The link is to be brought up as soon as possible.
    pub(super) fn want_link(&self) {
        self.link_is(0);
        self.0.wanted.store(true, Ordering::Relaxed);
        self.0.asked.store(true, Ordering::Relaxed);
    }

    /// Whether that was asked for, once more perhaps; true once for each time.
    pub(super) fn take_asked(&self) -> bool {
        self.0.asked.swap(false, Ordering::Relaxed)
    }

    /// Whether the link is to be brought up.
    pub(super) fn wants_link(&self) -> bool {
        self.0.wanted.load(Ordering::Relaxed)
    }

    /// The link is being brought up, as far as that goes.
    pub(super) fn link_was_tried(&self) {
        self.0.wanted.store(false, Ordering::Relaxed);
    }

    /// Slots that were issued and have not ended.
    pub(super) fn issued(&self) -> u32 {
        self.load(PX_CI.offset()) | self.active()
    }

    /// Those of them that are queued commands.
    pub(super) fn active(&self) -> u32 {
        self.load(PX_SACT.offset())
    }

    /// A command has ended.
    pub(super) fn ended(&self, slot: u8) {
        self.change(PX_CI.offset(), 1 << slot, 0);
        self.change(PX_SACT.offset(), 1 << slot, 0);
    }

    /// Whether the command engine was asked to stop, and has not.
    pub(super) fn wants_stop(&self) -> bool {
        let command = PortCommand::from(self.load(PX_CMD.offset()));
        command.list_running() && !command.start()
    }

    /// The command engine has stopped: all commands are forgotten.
    pub(super) fn stopped(&self) {
        let command = PortCommand::from(self.load(PX_CMD.offset()));
        self.put(PX_CMD.offset(), command.with_list_running(false).into());
        self.forget_issued();
    }

    /// All commands are forgotten.
    pub(super) fn forget_issued(&self) {
        self.put(PX_CI.offset(), 0);
        self.put(PX_SACT.offset(), 0);
    }

    /// What the link looks like: SStatus. Without a link, the device is not ready.
    pub(super) fn link_is(&self, status: u32) {
        self.put(PX_SSTS.offset(), status);
        if status == 0 {
            self.task_file_is(TaskFile::new().with_status(BUSY).into());
        }
    }

    /// SStatus.
    pub(super) fn link(&self) -> u32 {
        self.load(PX_SSTS.offset())
    }

    /// The device is ready, and is of this kind.
    pub(super) fn reported(&self, signature: u32) {
        self.put(PX_SIG.offset(), signature);
        self.task_file_is(TaskFile::new().with_status(0x50).with_error(1).into());
    }

    /// Bits of SError have come up.
    pub(super) fn errors_came(&self, errors: u32) {
        self.change(PX_SERR.offset(), 0, errors);
    }

    /// Something has happened.
    pub(super) fn interrupted(&self, interrupts: PortInterrupts) {
        self.change(PX_IS.offset(), 0, interrupts.bits());
    }

    /// STATUS and ERROR.
    pub(super) fn task_file_is(&self, task_file: u32) {
        self.put(PX_TFD.offset(), task_file);
    }

    /// Enabled interrupts that have not been served.
    pub(super) fn has_interrupts(&self) -> bool {
        use crate::spec::registers::PX_IE;
        self.interrupts() & self.get(PX_IE).bits() != 0
    }
}

impl DwordRegisters for Face {
    fn size_bytes(&self) -> usize {
        PORT_BYTES
    }

    fn read_dword(&self, offset: usize) -> u32 {
        if offset == PX_IS.offset() { self.interrupts() } else { self.load(offset) }
    }

    fn write_dword(&mut self, offset: usize, value: u32) {
        let started = || PortCommand::from(self.load(PX_CMD.offset())).start();
        match offset {
            _ if offset == PX_IS.offset() => self.change(offset, value, 0),
            _ if offset == PX_SERR.offset() => self.change(offset, value, 0),
            _ if offset == PX_CI.offset() || offset == PX_SACT.offset() => {
                if started() {
                    self.change(offset, 0, value);
                }
            }
            _ if offset == PX_CMD.offset() => self.write_command(value.into()),
            _ if offset == PX_SCTL.offset() => self.write_link_control(value),
            _ if offset == PX_TFD.offset()
                || offset == PX_SIG.offset()
                || offset == PX_SSTS.offset() => {}
            _ => self.put(offset, value),
        }
    }
}
