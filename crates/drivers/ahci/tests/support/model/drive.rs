//! A drive with packets behind the model of a controller.

use super::Model;
use outboard_ahci::spec::ata::command;
use outboard_ahci::spec::atapi::PACKET_BYTES;
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::registers::PortInterrupts;
use outboard_ahci::spec::structures::{CommandHeader, PACKET_OFFSET, PrdtEntry};
use outboard_hw::Instant;
use outboard_sim::sata::{Command, End, Plan, SataDevice};

/// A command that the drive has taken.
#[derive(Debug)]
pub struct Job {
    slot: u8,
    command: Command,
    plan: Plan,
    due: Instant,
    entries: Vec<PrdtEntry>,
}

impl Model {
    /// When the next drive is done with its command.
    pub fn next_due(&self) -> Option<Instant> {
        self.ports.iter().filter_map(|port| Some(port.job.as_ref()?.due)).min()
    }

    /// Hands a slot's command to the drive.
    pub(super) fn begin_job(&mut self, index: usize, slot: u8, header: &CommandHeader, table: u64) {
        let fis: RegisterH2d = self.read_memory(table);
        let packet: [u8; PACKET_BYTES] = self.read_memory(table + PACKET_OFFSET as u64);
        let marked = header.flags.get() & CommandHeader::PACKET != 0;
        assert_eq!(marked, fis.command == command::PACKET, "A is set for packets");
        let entries = (0..header.prdt_entries.get().into())
            .map(|entry| self.read_memory(table + PrdtEntry::offset(entry) as u64))
            .collect();
        let command = Command { fis, packet };
        let (now, random) = (self.now, &mut self.random);
        let port = &mut self.ports[index];
        let Some(drive) = &mut port.drive else { return };
        match drive.plan(&command, now, random) {
            Ok(plan) => {
                port.task_file = 0xd0;
                let due = now + plan.takes;
                port.job = Some(Job { slot, command, plan, due, entries });
            }
            Err(end) => self.end_job(index, slot, &end),
        }
    }

    /// Carries out what the drive is done with, and passes on what it has to tell.
    pub(super) fn run_drive(&mut self, index: usize) {
        let (now, random) = (self.now, &mut self.random);
        let port = &mut self.ports[index];
        let Some(drive) = &mut port.drive else { return };
        if drive.notifies(now) && self.capabilities.notification() {
            port.notified |= 1;
            port.interrupts |= PortInterrupts::SET_DEVICE_BITS_FIS.bits();
        }
        let Some(job) = port.job.take_if(|job| now.reached(job.due)) else { return };
        let mut data = vec![0; job.plan.bytes];
        let end = drive.carry_out(&job.command, &mut data, now, random);
        let mut rest = &data[..end.bytes];
        for entry in &job.entries {
            let len = ((entry.count.get() as usize & 0x3f_ffff) + 1).min(rest.len());
            let address = u64::from(entry.base_low) | u64::from(entry.base_high) << 32;
            let (piece, after) = rest.split_at(len);
            self.write_memory(address, piece);
            rest = after;
        }
        assert!(rest.is_empty(), "the PRDT covers the transfer");
        let header = self.ports[index].list + CommandHeader::offset(job.slot.into()) as u64;
        let transferred = CommandHeader::TRANSFERRED_OFFSET as u64;
        self.write_memory(header + transferred, &(end.bytes as u32).to_le_bytes());
        self.end_job(index, job.slot, &end);
    }

    fn end_job(&mut self, index: usize, slot: u8, end: &End) {
        let port = &mut self.ports[index];
        port.task_file = u32::from(end.error) << 8 | u32::from(end.status);
        if end.is_bad() {
            port.interrupts |= PortInterrupts::TASK_FILE_ERROR.bits();
        } else {
            port.issued &= !(1 << slot);
        }
        self.register_fis(index, end.status, end.error, end.lba);
    }
}
