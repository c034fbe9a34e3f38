//! Where faults strike.

use super::{Event, HbaModel};
use crate::disk::{Defect, Disk};
use crate::fault::{Fault, Struck};
use crate::sata::{Command, End};
use crate::seat::{HOST, Link};
use core::time::Duration;
use outboard_ahci::spec::ata::{Error, command};
use outboard_ahci::spec::log::{NCQ_ERROR, NcqError};
use outboard_ahci::spec::multiplier::{READ_PORT_MULTIPLIER, WRITE_PORT_MULTIPLIER};
use outboard_ahci::spec::registers::{PortInterrupts, serial_error};
use outboard_hw::Instant;
use zerocopy::{FromBytes, IntoBytes};

impl HbaModel {
    /// Lets a fault strike at a port at some time.
    pub fn schedule_fault(&mut self, at: Instant, port: u8, fault: Fault) {
        self.schedule.add(at, Event::Strike { port, fault });
    }

    /// The disk that replaces the one at a port when it is pulled out for another.
    pub fn prepare_spare(&mut self, port: u8, device: Box<dyn crate::sata::SataDevice>) {
        if let Some(port) = self.port_mut(port) {
            port.seat.spare = Some(device);
        }
    }

    pub(super) fn note_struck(&mut self, port: u8, fault: Fault, lba: Option<u64>) {
        self.note_struck_behind(port, None, fault, lba);
    }

    /// Likewise; `behind`: the one device of a multiplier's that it concerns.
    pub(super) fn note_struck_behind(
        &mut self,
        port: u8,
        behind: Option<u8>,
        fault: Fault,
        lba: Option<u64>,
    ) {
        self.counts.add(fault);
        self.trace.note(self.now, format_args!("port {port}: FAULT {fault}"));
        self.struck.push(Struck { at: self.now, port, behind, fault, lba });
    }

    /// Takes one of these faults, if one is armed at the port.
    pub(super) fn strike(&mut self, index: u8, wanted: &[Fault]) -> Option<Fault> {
        let port = self.port_mut(index).filter(|port| !port.armed.is_empty())?;
        let fault = port.take_armed(wanted)?;
        self.note_struck(index, fault, None);
        Some(fault)
    }

    /// Lets a fault strike now, or when the next occasion for it comes.
    pub fn inject(&mut self, index: u8, fault: Fault) {
        if self.removed || self.port_mut(index).is_none() {
            return;
        }
        if Fault::OF_MULTIPLIERS.contains(&fault) {
            let behind =
                self.random.below(outboard_ahci::spec::multiplier::MAX_DEVICE_PORTS as u64);
            return self.inject_behind(index, behind as u8, fault);
        }
        if !self.strike_at_once(index, fault)
            && let Some(port) = self.port_mut(index)
            && port.armed.len() < 64
        {
            port.armed.push(fault);
        }
    }

    /// Takes back the faults that wait at a port for an occasion.
    pub fn disarm(&mut self, index: u8) {
        if let Some(port) = self.port_mut(index) {
            port.armed.clear();
        }
    }

    /// Lets a fault of a multiplier strike, at one of its device ports if it is of that kind.
    pub(super) fn inject_behind(&mut self, index: u8, behind: u8, fault: Fault) {
        if !self.removed
            && !self.strike_multiplier(index, behind, fault)
            && let Some(port) = self.port_mut(index)
            && port.armed.len() < 64
        {
            port.armed.push(fault);
        }
    }

    /// Faults that need no occasion; whether this is one.
    fn strike_at_once(&mut self, index: u8, fault: Fault) -> bool {
        let up = self.port_mut(index).is_some_and(|port| port.is_up());
        if needs_link(fault) && !up {
            // There is nothing to be lost, or to send anything.
            return true;
        }
        let struck = self.strike_link(index, fault)
            || self.strike_seat(index, fault)
            || self.strike_frames(index, fault)
            || self.strike_hba(fault);
        if struck {
            self.note_struck(index, fault, None);
        }
        struck
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.between(from, to))
    }

    /// The link fails, or what PxSERR tells of it.
    fn strike_link(&mut self, index: u8, fault: Fault) -> bool {
        let lost_for = match fault {
            Fault::LinkLost => (1, 90),
            Fault::LinkLostLong => (200, 9_000),
            Fault::FirmwareRestart => (1, 50),
            Fault::LinkFlapping => {
                let mut at = Duration::ZERO;
                for _ in 0..self.random.between(3, 12) {
                    at += self.millis(3, 60);
                    self.after(at, Event::Strike { port: index, fault: Fault::LinkLost });
                }
                return true;
            }
            _ => {
                let errors = match fault {
                    Fault::LinkBlip => serial_error::PHY_READY,
                    Fault::UnknownFis => serial_error::UNKNOWN_FIS,
                    Fault::Announced => serial_error::EXCHANGED,
                    // Recovered errors, and errors of the link layer; nothing that shows in PxIS.
                    Fault::ErrorsNoted => self.random.bits() as u32 & 0x01ee_0f03,
                    _ => return false,
                };
                self.set_errors(index, errors);
                return true;
            }
        };
        let back = self.millis(lost_for.0, lost_for.1);
        self.link_down(index, HOST, Some(back));
        true
    }

    /// The disk loses its power, or is pulled out.
    fn strike_seat(&mut self, index: u8, fault: Fault) -> bool {
        match fault {
            Fault::BrownOut | Fault::PowerCut => {
                // In the middle of a reset of its own a driver cannot tell a short loss from the
                // reset's effect, and no disk says.
                let works = self.port_mut(index).is_some_and(|port| port.command.start());
                let back = match fault {
                    Fault::BrownOut if works => self.millis(1, 30),
                    _ => self.millis(300, 8_000),
                };
                self.cut_power(index);
                self.link_down(index, HOST, Some(back));
            }
            Fault::Unplug => self.unplug(index, HOST),
            Fault::Replug | Fault::ReplugOther => {
                if fault == Fault::Replug
                    && let Some(port) = self.port_mut(index)
                {
                    port.seat.spare = None;
                }
                self.unplug(index, HOST);
                let back = self.millis(20, 20_000);
                self.after(back, Event::Plug { port: index, at: HOST });
            }
            _ => return false,
        }
        true
    }

    /// The device sends what nobody asked for.
    fn strike_frames(&mut self, index: u8, fault: Fault) -> bool {
        match fault {
            Fault::UnsolicitedRegisterFis => {
                let end = End { lba: 7, ..End::bad(Error::UNCORRECTABLE.bits(), 7) };
                self.post_register(index, HOST, &end);
                self.add_status(index, PortInterrupts::REGISTER_FIS);
            }
            Fault::UnsolicitedBits => {
                self.post_bits(index, HOST, (End::GOOD_STATUS, 0), 0x8000_0001);
                self.add_status(index, PortInterrupts::SET_DEVICE_BITS_FIS);
            }
            _ => return false,
        }
        true
    }

    /// The HBA itself misbehaves.
    fn strike_hba(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::StrangersPending => {
                self.strangers = self.random.bits() as u32 & !self.config.ports;
                self.messages += 1;
            }
            Fault::InterruptSpurious => self.messages += 1,
            Fault::InterruptStorm => {
                for number in 0..self.random.between(50, 300) {
                    self.after(Duration::from_micros(number * 5), Event::Message);
                }
            }
            Fault::InterruptsStop => self.silent_until = self.now + Duration::from_secs(1),
            Fault::ResetSlow => self.reset_takes = Some(Duration::from_millis(900)),
            Fault::ResetNever => self.reset_takes = None,
            Fault::EnableReluctant => self.reluctant = 4,
            Fault::Removed => self.removed = true,
            _ => return false,
        }
        true
    }

    pub(super) fn cut_power(&mut self, index: u8) {
        let now = self.now;
        let Some(port) = self.ports[usize::from(index)].as_deref_mut() else { return };
        if let Some(device) = &mut port.seat.device {
            device.cut_power(now, &mut self.random);
            port.seat.unpowered = true;
        }
    }

    pub(super) fn set_errors(&mut self, index: u8, errors: u32) {
        if let Some(port) = self.port_mut(index) {
            port.seat.errors |= errors;
        }
        self.update_pending(index);
    }

    pub(super) fn add_status(&mut self, index: u8, status: PortInterrupts) {
        if let Some(port) = self.port_mut(index) {
            port.status |= status;
        }
        self.update_pending(index);
    }

    /// The fault that a command is drawn for when the device takes it.
    pub(super) fn draw_for(&mut self, index: u8, at: u8, command: &Command) -> Option<Fault> {
        const TRANSFER: [Fault; 27] = [
            Fault::ErrorNotSingle,
            Fault::Uncorrectable,
            Fault::UncorrectableForGood,
            Fault::IdNotFound,
            Fault::WriteFault,
            Fault::Aborted,
            Fault::ErrorWithoutReason,
            Fault::NeverEnds,
            Fault::VerySlow,
            Fault::Stuck,
            Fault::BusyStuck,
            Fault::DataRequestStuck,
            Fault::InterfaceCrc,
            Fault::CrcBurst,
            Fault::InterfaceFatal,
            Fault::InterfaceNonFatal,
            Fault::BitsTwice,
            Fault::HostBusData,
            Fault::HostBusFatal,
            Fault::Overflow,
            Fault::CountShort,
            Fault::CountLong,
            Fault::ReceivedGarbage,
            Fault::ReceivedStale,
            Fault::StatusNotSet,
            Fault::InterruptLost,
            Fault::InterruptLate,
        ];
        const LOG: [Fault; 6] = [
            Fault::LogAborted,
            Fault::LogDamaged,
            Fault::LogNamesStranger,
            Fault::LogNamesInnocent,
            Fault::LogNotQueued,
            Fault::LogNeverEnds,
        ];
        const IDENTIFY: [Fault; 4] = [
            Fault::IdentifyDamaged,
            Fault::IdentifyBlank,
            Fault::IdentifyAborted,
            Fault::IdentifyNeverEnds,
        ];
        let armed = &self.ports.get(usize::from(index))?.as_deref()?.armed;
        if armed.is_empty() {
            return None;
        }
        let wanted: &[Fault] = match command.fis.command {
            command::IDENTIFY_DEVICE => &IDENTIFY,
            command::READ_LOG_EXT if command.fis.lba_low[0] == NCQ_ERROR => &LOG,
            command::READ_LOG_EXT => return None,
            READ_PORT_MULTIPLIER | WRITE_PORT_MULTIPLIER => return self.draw_for_registers(index),
            code => {
                let queued = super::engine::is_queued(&command.fis);
                let write = is_write(code);
                let suits = |fault: &Fault| match fault {
                    // The interrupts' own faults are drawn when they are sent.
                    Fault::InterruptLost | Fault::InterruptLate => false,
                    Fault::WriteFault => write,
                    // What a queued command leaves behind has no place for these.
                    Fault::BusyStuck
                    | Fault::DataRequestStuck
                    | Fault::CountShort
                    | Fault::CountLong => !queued && transfers(code),
                    Fault::BitsTwice => queued,
                    Fault::Uncorrectable | Fault::UncorrectableForGood | Fault::IdNotFound => {
                        transfers(code)
                    }
                    fault => TRANSFER.contains(fault),
                };
                let found = armed.iter().copied().find(suits)?;
                return self.strike_command(index, at, found, command);
            }
        };
        self.strike(index, wanted)
    }

    /// What happens to a command whose link is faster than its cable allows.
    pub(super) fn damaged_by_cable(&mut self, index: u8, command: &Command) -> Option<Fault> {
        let port = self.port_mut(index)?;
        let Link::Up(generation) = port.seat.link else { return None };
        let damaged = generation > port.sound_up_to && transfers(command.fis.command);
        damaged.then_some(Fault::InterfaceCrc)
    }

    fn strike_command(
        &mut self,
        index: u8,
        at: u8,
        fault: Fault,
        command: &Command,
    ) -> Option<Fault> {
        self.port_mut(index)?.take_armed(&[fault])?;
        let lba = match fault {
            Fault::Uncorrectable | Fault::UncorrectableForGood | Fault::IdNotFound => {
                let sectors = sectors_of(command);
                let lba = command.fis.address48() + self.random.below(sectors);
                self.damage(index, at, lba, fault);
                Some(lba)
            }
            _ => None,
        };
        if fault == Fault::CrcBurst {
            let port = self.port_mut(index)?;
            port.armed.extend([Fault::InterfaceCrc; 2]);
        }
        self.note_struck_behind(index, (at != HOST).then_some(at), fault, lba);
        Some(fault)
    }

    /// Damages a sector of a disk.
    fn damage(&mut self, index: u8, at: u8, lba: u64, fault: Fault) {
        let device = self.seat_mut(index, at).and_then(|seat| seat.device.as_deref_mut());
        let disk = device.and_then(|device| device.as_any().downcast_mut::<Disk>());
        let defect = match fault {
            Fault::Uncorrectable => Defect::Uncorrectable,
            Fault::UncorrectableForGood => Defect::Permanent,
            _ => Defect::NotFound,
        };
        if let Some(disk) = disk {
            disk.damage(lba, defect);
        }
    }

    /// Lets the device say what is not so.
    pub(super) fn falsify(
        &mut self,
        (index, at): (u8, u8),
        command: &Command,
        fault: Option<Fault>,
        data: &mut [u8],
        end: &mut End,
    ) {
        match fault {
            // The checksum is wrong, and so is the capacity. Nobody could tell without a checksum.
            Some(Fault::IdentifyDamaged) if data[510] == 0xa5 => {
                data[200] ^= 0x40;
                data[120] ^= 0x20;
            }
            Some(Fault::IdentifyDamaged | Fault::IdentifyBlank) => data.fill(0),
            Some(Fault::LogDamaged) => data[20] ^= 0x10,
            Some(Fault::LogNotQueued) => rewrite_log(data, |log| log.tag |= 1 << 7),
            Some(Fault::LogNamesStranger) => {
                let active = self.seat_mut(index, at).map_or(0, |seat| seat.active_at_failure);
                let stranger = (0..32).find(|tag| active >> tag & 1 == 0).unwrap_or(31);
                rewrite_log(data, |log| log.tag = stranger);
            }
            Some(Fault::LogNamesInnocent) => {
                let active = self.seat_mut(index, at).map_or(0, |seat| seat.active_at_failure);
                let named = data[0] & 0x1f;
                let innocent = (0..32).find(|tag| active >> tag & 1 == 1 && *tag != named);
                rewrite_log(data, |log| log.tag = innocent.unwrap_or(named));
            }
            Some(Fault::BitsTwice) if !end.is_bad() => {
                let tag = command.fis.count[0] >> 3;
                self.post_bits(index, at, (end.status, 0), 1 << tag);
            }
            _ => {}
        }
    }
}

/// Changes a page of log 10h, and makes its checksum good again.
fn rewrite_log(data: &mut [u8], change: impl FnOnce(&mut NcqError)) {
    let Ok(mut log) = NcqError::read_from_bytes(data) else { return };
    change(&mut log);
    log.checksum = 0;
    log.checksum = log.as_bytes().iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    data.copy_from_slice(log.as_bytes());
}

/// Faults that strike a link that is up.
const fn needs_link(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::LinkBlip
            | Fault::LinkLost
            | Fault::LinkLostLong
            | Fault::LinkFlapping
            | Fault::Announced
            | Fault::FirmwareRestart
            | Fault::BrownOut
            | Fault::PowerCut
            | Fault::Unplug
            | Fault::Replug
            | Fault::ReplugOther
            | Fault::UnknownFis
            | Fault::UnsolicitedRegisterFis
            | Fault::UnsolicitedBits
    )
}

const fn is_write(code: u8) -> bool {
    matches!(
        code,
        command::WRITE_DMA
            | command::WRITE_DMA_EXT
            | command::WRITE_DMA_FUA_EXT
            | command::WRITE_FPDMA_QUEUED
    )
}

const fn transfers(code: u8) -> bool {
    is_write(code)
        || matches!(code, command::READ_DMA | command::READ_DMA_EXT | command::READ_FPDMA_QUEUED)
}

/// How many sectors a command transfers.
fn sectors_of(command: &Command) -> u64 {
    let fis = &command.fis;
    let count = match fis.command {
        command::READ_FPDMA_QUEUED | command::WRITE_FPDMA_QUEUED => {
            u16::from_le_bytes([fis.features_low, fis.features_high])
        }
        command::READ_DMA | command::WRITE_DMA => match fis.count[0] {
            0 => 256,
            count => count.into(),
        },
        _ => u16::from_le_bytes(fis.count),
    };
    if count == 0 { 65536 } else { count.into() }
}
