//! A port's registers (AHCI §3.3).

use super::{Event, HbaConfig, HbaModel};
use crate::fault::Fault;
use crate::sata::{Command, End, Plan};
use crate::seat::{HOST, Seat};
use core::time::Duration;
use outboard_ahci::spec::ata::Status;
use outboard_ahci::spec::registers::{
    DeviceSleep, FisSwitching, PX_CI, PX_CLB, PX_CLBU, PX_CMD, PX_DEVSLP, PX_FB, PX_FBS, PX_FBU,
    PX_IE, PX_IS, PX_SACT, PX_SCTL, PX_SERR, PX_SIG, PX_SNTF, PX_SSTS, PX_TFD, PortCommand,
    PortInterrupts, SataControl, SataStatus, serial_error,
};

/// A command that a device works on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Execution {
    /// Which seat's device that is.
    pub(super) at: u8,
    pub(super) command: Command,
    pub(super) plan: Plan,
    /// How it ends, if the device has refused it.
    pub(super) refusal: Option<End>,
    /// The fault that it was drawn for.
    pub(super) fault: Option<Fault>,
    pub(super) issue: u64,
}

/// A port.
pub(super) struct Port {
    pub(super) list: u64,
    pub(super) received: u64,
    pub(super) status: PortInterrupts,
    pub(super) enabled: u32,
    pub(super) command: PortCommand,
    pub(super) signature: u32,
    pub(super) active: u32,
    pub(super) issued: u32,
    /// Slots of `issued` that were fetched.
    pub(super) fetched: u32,
    /// Where the search for the next slot begins.
    pub(super) next_slot: u8,
    pub(super) fetching: bool,
    /// After an error nothing is fetched until ST was cleared.
    pub(super) halted: bool,
    /// Counts stops of the engine.
    pub(super) engine_epoch: u32,
    /// CR does not clear until the HBA is reset.
    pub(super) engine_stuck: bool,
    /// Bits were kept across a stop, so that others may be set twice.
    pub(super) kept: bool,

    pub(super) seat: Seat,
    /// Whose status PxTFD shows: the device's that was last sent a command.
    pub(super) shown: u8,
    /// PxFBS.
    pub(super) switching: FisSwitching,
    /// PxSNTF.
    pub(super) notified: u32,
    /// The multiplier's port that each slot's command is for.
    pub(super) addressees: [u8; 32],
    pub(super) executing: [Option<Execution>; 32],

    /// Whether there is a presence switch, and it is open.
    pub(super) switch_open: Option<bool>,
    /// Whether there is cold presence detection, and what it detects.
    pub(super) cold_present: Option<bool>,
    /// PxCMD reads as all ones.
    pub(super) mute: bool,
    /// PxDEVSLP.
    pub(super) sleep: DeviceSleep,
    /// The highest generation at which its cable does not damage data.
    pub(super) sound_up_to: u8,
    /// Tags that PxSACT shows while ST is set, though they were not issued.
    pub(super) strays: u32,
    pub(super) armed: Vec<Fault>,
}

impl Port {
    pub(super) fn new(config: &HbaConfig) -> Self {
        Self {
            list: 0,
            received: 0,
            status: PortInterrupts::empty(),
            enabled: 0,
            command: Self::initial(config),
            signature: u32::MAX,
            active: 0,
            issued: 0,
            fetched: 0,
            next_slot: 0,
            fetching: false,
            halted: false,
            engine_epoch: 0,
            engine_stuck: false,
            kept: false,
            seat: Seat::new(),
            shown: HOST,
            switching: FisSwitching::new().with_optimum(4),
            notified: 0,
            addressees: [HOST; 32],
            executing: [None; 32],
            switch_open: None,
            cold_present: None,
            mute: false,
            sleep: DeviceSleep::new(),
            sound_up_to: u8::MAX,
            strays: 0,
            armed: Vec::new(),
        }
    }

    fn initial(config: &HbaConfig) -> PortCommand {
        let up = !config.capabilities.staggered();
        let switching = config.capabilities.fis_switching();
        let command = PortCommand::new().with_spin_up(up).with_power_on(true).with_hot_plug(true);
        command.with_fis_switching(switching)
    }

    /// What a reset of the HBA leaves.
    pub(super) fn hba_reset(&mut self, config: &HbaConfig) {
        let fresh = Self::new(config);
        self.seat.was_reset();
        *self = Self {
            seat: core::mem::replace(&mut self.seat, Seat::new()),
            armed: core::mem::take(&mut self.armed),
            switch_open: self.switch_open,
            cold_present: self.cold_present,
            sleep: DeviceSleep::new().with_present(self.sleep.present()),
            sound_up_to: self.sound_up_to,
            engine_epoch: self.engine_epoch + 1,
            fetching: self.fetching,
            ..fresh
        };
    }

    /// PxIS, with the bits that PxSERR shows there.
    pub(super) fn interrupts(&self) -> u32 {
        let shown = [
            (serial_error::EXCHANGED, PortInterrupts::CONNECT),
            (serial_error::PHY_READY, PortInterrupts::PHY_READY),
            (serial_error::UNKNOWN_FIS, PortInterrupts::UNKNOWN_FIS),
        ];
        let shown = shown.into_iter().filter(|(error, _)| self.seat.errors & error != 0);
        shown.fold(self.status, |status, (_, bit)| status | bit).bits()
    }

    /// PxCMD, with what is between the device and its power.
    fn shown_command(&self) -> PortCommand {
        self.command
            .with_has_switch(self.switch_open.is_some())
            .with_switch_open(self.switch_open == Some(true))
            .with_cold_detection(self.cold_present.is_some())
            .with_cold_present(self.cold_present == Some(true))
    }

    /// Whether the device has power, and a way to talk.
    pub(super) fn is_closed(&self) -> bool {
        let powered = self.cold_present.is_none_or(|present| present && self.command.power_on());
        powered && self.switch_open != Some(true)
    }

    /// PxSSTS: the link saves power whenever it may, since nobody sees it at work (AHCI §8.3).
    fn sata_status(&self) -> SataStatus {
        let status = SataStatus::from(self.seat.sata_status());
        let forbidden = SataControl::from(self.seat.control).no_power_states();
        if !self.is_up() || !self.command.link_power() {
            return status;
        }
        match self.command.prefer_slumber() {
            true if forbidden & SataControl::NO_SLUMBER == 0 => {
                status.with_power(SataStatus::SLUMBER)
            }
            false if forbidden & SataControl::NO_PARTIAL == 0 => {
                status.with_power(SataStatus::PARTIAL)
            }
            _ => status,
        }
    }

    /// PxTFD.
    pub(super) fn task_file(&mut self) -> u32 {
        let shown = if self.switching.enabled() { self.switching.device() } else { self.shown };
        self.seat_mut(shown).map_or(0x7f, |seat| seat.task_file | seat.stuck_bits)
    }

    pub(super) fn is_busy(&mut self) -> bool {
        let switched = self.switching.enabled();
        !switched && Status::from_bits_retain(self.task_file() as u8).is_busy()
    }

    pub(super) const fn is_up(&self) -> bool {
        self.seat.is_up()
    }

    /// Takes one of these faults, if one is armed.
    pub(super) fn take_armed(&mut self, wanted: &[Fault]) -> Option<Fault> {
        let found = self.armed.iter().position(|fault| wanted.contains(fault))?;
        Some(self.armed.swap_remove(found))
    }
}

impl HbaModel {
    pub(super) fn read_port(&mut self, index: u8, offset: usize) -> u32 {
        let garbage = self.garble(index, offset);
        let Some(port) = self.port_mut(index) else { return 0 };
        let value = match offset {
            _ if offset == PX_CLB.offset() => port.list as u32,
            _ if offset == PX_CLBU.offset() => (port.list >> 32) as u32,
            _ if offset == PX_FB.offset() => port.received as u32,
            _ if offset == PX_FBU.offset() => (port.received >> 32) as u32,
            _ if offset == PX_IS.offset() => port.interrupts(),
            _ if offset == PX_IE.offset() => port.enabled,
            _ if offset == PX_CMD.offset() && port.mute => u32::MAX,
            _ if offset == PX_CMD.offset() => port.shown_command().into(),
            _ if offset == PX_TFD.offset() => port.task_file(),
            _ if offset == PX_SIG.offset() => port.signature,
            _ if offset == PX_SSTS.offset() => port.sata_status().into(),
            _ if offset == PX_DEVSLP.offset() => port.sleep.into(),
            _ if offset == PX_SCTL.offset() => port.seat.control,
            _ if offset == PX_SERR.offset() => port.seat.errors,
            _ if offset == PX_SACT.offset() && port.command.start() => port.active | port.strays,
            _ if offset == PX_SACT.offset() => port.active,
            _ if offset == PX_CI.offset() => port.issued,
            _ if offset == PX_SNTF.offset() => port.notified,
            _ if offset == PX_FBS.offset() => port.switching.into(),
            _ => 0,
        };
        garbage.map_or(value, |garbage| garbage(value))
    }

    /// The driver was told a lie about a register, and may do what it otherwise must not.
    fn mislead(&mut self, index: u8) {
        if let Some(port) = self.port_mut(index) {
            port.kept = true;
        }
    }

    /// A lie about a register, if one was drawn.
    fn garble(&mut self, index: u8, offset: usize) -> Option<fn(u32) -> u32> {
        if self.port_mut(index)?.armed.is_empty() {
            return None;
        }
        let (fault, lie): (_, fn(u32) -> u32) = match offset {
            _ if offset == PX_IS.offset() => (Fault::InterruptGarbage, |value| value | 0x0030_ff00),
            _ if offset == PX_TFD.offset() => (Fault::TaskFileGarbage, |value| value ^ 0xa5a5_5a20),
            _ if offset == PX_SSTS.offset() => (Fault::StatusGarbage, |value| value ^ 0xbad6),
            _ if offset == PX_CI.offset() => (Fault::StrayIssue, |value| value | !value & 1 << 31),
            _ if offset == PX_SACT.offset() => (Fault::StrayActive, |value| value | 0x8000_0000),
            _ => (Fault::OnesOnce, |_| u32::MAX),
        };
        if let Some(fault) = self.strike(index, &[fault]) {
            self.trace.note(self.now, format_args!("port {index}: {fault} at {offset:#x}"));
            self.mislead(index);
            return Some(lie);
        }
        let all_ones: &[usize] = &[PX_IS.offset(), PX_CMD.offset(), PX_TFD.offset()];
        if all_ones.contains(&offset) && self.strike(index, &[Fault::OnesOnce]).is_some() {
            self.mislead(index);
            return Some(|_| u32::MAX);
        }
        None
    }

    pub(super) fn write_port(&mut self, index: u8, offset: usize, value: u32) {
        let Some(port) = self.port_mut(index) else { return };
        let (start, receive) = (port.command.start(), port.command.fis_receive());
        let low = |whole: u64, value: u32| whole >> 32 << 32 | u64::from(value);
        let high = |whole: u64, value: u32| u64::from(value) << 32 | whole & 0xffff_ffff;
        match offset {
            _ if offset == PX_CLB.offset() => port.list = low(port.list, value & !0x3ff),
            _ if offset == PX_CLBU.offset() => port.list = high(port.list, value),
            _ if offset == PX_FB.offset() => port.received = low(port.received, value & !0xff),
            _ if offset == PX_FBU.offset() => port.received = high(port.received, value),
            _ if offset == PX_IS.offset() => {
                port.status.remove(PortInterrupts::from_bits_retain(value));
                self.update_pending(index);
            }
            _ if offset == PX_IE.offset() => {
                port.enabled = value;
                self.update_pending(index);
            }
            _ if offset == PX_SERR.offset() => {
                port.seat.errors &= !value;
                self.update_pending(index);
                self.try_report(index, HOST);
            }
            _ if offset == PX_SACT.offset() => self.write_active(index, value),
            _ if offset == PX_CI.offset() => self.write_issue(index, value),
            _ if offset == PX_SCTL.offset() => self.write_link_control(index, HOST, value),
            _ if offset == PX_CMD.offset() => self.write_command(index, value.into()),
            _ if offset == PX_DEVSLP.offset() => self.write_sleep(index, value.into()),
            _ if offset == PX_SNTF.offset() => port.notified &= !value,
            _ if offset == PX_FBS.offset() => self.write_switching(index, value.into()),
            _ => {}
        }
        let moved = [PX_CLB.offset(), PX_CLBU.offset()].contains(&offset) && start
            || [PX_FB.offset(), PX_FBU.offset()].contains(&offset) && receive;
        if moved {
            self.violation(format_args!("port {index}: an address was changed under an engine"));
        }
    }

    fn write_command(&mut self, index: u8, asked: PortCommand) {
        let Some(port) = self.port_mut(index) else { return };
        let before = port.command;
        let mut next = asked
            .with_current_slot(before.current_slot())
            .with_list_running(before.list_running())
            .with_fis_running(asked.fis_receive())
            .with_hot_plug(before.hot_plug())
            .with_fis_switching(before.fis_switching())
            .with_command_list_override(false)
            .with_interface_state(0);
        if asked.command_list_override() {
            let shown = port.shown;
            if let Some(seat) = port.seat_mut(shown) {
                seat.task_file &= !0x88;
            }
        }
        let mut wrong = None;
        if asked.start() && !before.start() {
            wrong = match () {
                () if !asked.fis_receive() => Some("ST was set without FRE"),
                () if before.list_running() => Some("ST was set while CR was"),
                () if port.is_busy() => Some("ST was set while the device was busy"),
                () if !port.is_up() => Some("ST was set without a link"),
                () => None,
            };
            next = next.with_list_running(true);
            port.halted = false;
            port.fetched = 0;
        }
        if !asked.fis_receive() && before.fis_receive() && before.list_running() {
            wrong = Some("FRE was cleared while CR was set");
        }
        let (stops, spins_up) =
            (before.start() && !asked.start(), !before.spin_up() && asked.spin_up());
        port.command = next;
        if next.link_power() && port.is_up() {
            // Entering and leaving the states that save power, the PHY is not ready for a moment.
            self.set_errors(index, serial_error::PHY_READY);
        }
        if let Some(wrong) = wrong {
            self.violation(format_args!("port {index}: {wrong}"));
        }
        if stops {
            self.stop_engine(index);
        }
        if spins_up {
            self.begin_link(index, HOST);
        }
        self.report_all(index);
        self.look_for_commands(index);
    }

    fn write_sleep(&mut self, index: u8, asked: DeviceSleep) {
        let Some(port) = self.port_mut(index) else { return };
        let asked = asked.with_present(port.sleep.present());
        // The times are set at rest (AHCI §3.3.17).
        let timed = asked.with_aggressive(false) != port.sleep.with_aggressive(false);
        let wrong = timed && port.command.start();
        port.sleep = asked;
        if wrong {
            self.violation(format_args!("port {index}: times of device sleep set under an engine"));
        }
    }

    fn stop_engine(&mut self, index: u8) {
        let kept = [Fault::IssueKept, Fault::ActiveKept, Fault::EngineStuck, Fault::EngineSlow];
        let fault = self.strike(index, &kept);
        let takes = match fault {
            Some(Fault::EngineSlow) => Duration::from_millis(self.random.between(1, 450)),
            _ => Duration::from_nanos(self.random.between(0, 20_000)),
        };
        let Some(port) = self.port_mut(index) else { return };
        port.engine_epoch += 1;
        let epoch = port.engine_epoch;
        if fault == Some(Fault::EngineStuck) || port.engine_stuck {
            port.engine_stuck = true;
            // What it works on goes on, and so does its hold on memory.
            return;
        }
        port.halted = false;
        port.switching.set_single_device_error(false);
        for at in 0..HOST {
            port.seat_mut(at).into_iter().for_each(|seat| seat.halted = false);
        }
        port.kept |= matches!(fault, Some(Fault::IssueKept | Fault::ActiveKept));
        if fault != Some(Fault::IssueKept) {
            port.issued = 0;
        }
        if fault != Some(Fault::ActiveKept) {
            port.active = 0;
        }
        port.fetched = 0;
        self.after(takes, Event::EngineStops { port: index, epoch });
    }

    pub(super) fn engine_stops(&mut self, index: u8, epoch: u32) {
        if let Some(port) = self.port_mut(index).filter(|port| port.engine_epoch == epoch) {
            port.command.set_list_running(false);
        }
    }

    fn write_active(&mut self, index: u8, value: u32) {
        let Some(port) = self.port_mut(index) else { return };
        let twice = if port.kept { 0 } else { port.active & value };
        if port.command.start() {
            port.active |= value;
        }
        if twice != 0 {
            self.violation(format_args!("port {index}: tags {twice:#x} were made active twice"));
        }
    }

    fn write_issue(&mut self, index: u8, value: u32) {
        let slots = self.config.capabilities.slots_minus_one();
        let Some(port) = self.port_mut(index) else { return };
        let twice = if port.kept { 0 } else { port.issued & value };
        let started = port.command.start();
        self.note_addressees(index, value);
        let Some(port) = self.port_mut(index) else { return };
        if started {
            port.issued |= value;
        }
        if twice != 0 {
            self.violation(format_args!("port {index}: slots {twice:#x} were issued twice"));
        }
        if !started {
            self.violation(format_args!("port {index}: commands were issued with ST clear"));
        }
        if u64::from(value) >> (slots + 1) != 0 {
            self.violation(format_args!("port {index}: {value:#x} has slots that do not exist"));
        }
        self.look_for_commands(index);
    }
}
