//! What the fuzzer makes of the HBA, step by step.

use super::disk;
use super::model::{Lie, Model, Outcome, REGISTERS, bits, stuck};
use crate::input::Input;
use outboard_ahci::spec::registers::{port_base, serial_error};

impl Model {
    /// A step of the HBA's own: its `kind` is 14 or higher.
    pub(super) fn step(&mut self, kind: u8, small: u8, input: &mut Input<'_>) {
        let port = usize::from(small & 1);
        let choice = small >> 1;
        match kind {
            14..=16 => self.end_commands(kind, port, choice, input),
            17..=20 => self.change_register(kind, port, choice, input),
            21 | 22 => self.change_memory(kind, port, choice, input),
            23..=25 => self.change_answers(kind, port, small, input),
            26 => self.change_link(port, choice),
            27 => self.removed = port == 1,
            28 => self.change_disk(port, choice, input),
            29 => self.stuck ^= input.byte() & !(stuck::SLOTS * (small & 1)),
            30 => {
                // A port stops with an interrupt of the fatal ones, or others that tell of trouble.
                const BITS: [u32; 4] = [1 << 27, 1 << 24, 1 << 22, 1 << 30];
                *self.port(port, 0x10 / 4) |= BITS[usize::from(choice)];
                self.raise(port);
            }
            _ => self.heal(),
        }
    }

    /// Commands end: some of them well, one with an error, or one with fewer bytes.
    fn end_commands(&mut self, kind: u8, port: usize, choice: u8, input: &mut Input<'_>) {
        let outstanding = self.outstanding(port);
        let first = outstanding.trailing_zeros().min(31) as u8;
        match kind {
            14 => {
                let slots = match choice {
                    0 => u32::from(input.byte()),
                    1 => u32::MAX,
                    2 => 1 << (input.byte() & 0x1f),
                    _ => u32::MAX << (input.byte() & 0x1f),
                };
                bits(slots & outstanding).for_each(|slot| self.execute(port, slot, Outcome::Good));
            }
            15 => {
                const ERRORS: [u8; 4] = [0x40, 0x04, 0x84, 0x10];
                let slot = input.byte() & 0x1f;
                let slot = if outstanding >> slot & 1 == 1 { slot } else { first };
                let error = ERRORS[usize::from(choice)];
                self.execute(port, slot, Outcome::Error { status: 0x41, error });
            }
            _ => {
                let lost = u32::from(input.half());
                self.execute(port, first, Outcome::Short(lost));
            }
        }
    }

    /// A register is other than it should be, for good or for one read: of the port (17 and 19), or
    /// any of all (18 and 20).
    fn change_register(&mut self, kind: u8, port: usize, choice: u8, input: &mut Input<'_>) {
        let index = usize::from(input.byte());
        let of_port = matches!(kind, 17 | 19);
        let index = if of_port { port_base(port) / 4 + index % 32 } else { index };
        let now = *self.register(index);
        let value = input.value(now);
        if matches!(kind, 17 | 18) {
            *self.register(index) = value;
            self.honest = false;
        } else {
            self.lie(Lie { register: index % REGISTERS, value, after: choice });
        }
    }

    /// The HBA writes the port's memory: what was received, or anything from the command list on.
    fn change_memory(&mut self, kind: u8, port: usize, choice: u8, input: &mut Input<'_>) {
        let (at, each) = match kind {
            21 => (self.received(port) + u64::from(input.byte()), 2),
            _ => (self.list(port) + u64::from(input.half() & 0x3fff), 4),
        };
        let count = 1 + usize::from(choice) * each;
        self.honest = false;
        self.store(at, input.bytes(count));
    }

    /// The disk answers something else: in its identification, log 10h, or anything.
    fn change_answers(&mut self, kind: u8, port: usize, small: u8, input: &mut Input<'_>) {
        let disk = &mut self.disks[port];
        match kind {
            23 => {
                let word = usize::from(input.byte());
                let value = input.half();
                disk.patch(word, value);
            }
            24 => {
                let (tag, status, error) = (input.byte(), input.byte(), input.byte());
                disk.blame(tag, status, error);
            }
            _ => {
                let at = usize::from(input.half()) % disk::BLOCK;
                let block = if small & 2 == 0 { &mut disk.reply } else { &mut disk.log };
                let count = (1 + usize::from(small >> 2) * 15).min(disk::BLOCK - at);
                let bytes = input.bytes(count);
                block[at..][..bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// The link is lost, comes up, another device or none is there, or one announces itself.
    fn change_link(&mut self, port: usize, choice: u8) {
        match choice {
            0 => self.disconnect(port),
            1 => self.connect(port),
            2 => {
                let present = &mut self.disks[port].present;
                *present = !*present;
                self.connect(port);
            }
            _ => {
                *self.port(port, 0x30 / 4) |= serial_error::EXCHANGED;
                self.raise(port);
            }
        }
    }

    /// The disk behaves differently from now on.
    fn change_disk(&mut self, port: usize, choice: u8, input: &mut Input<'_>) {
        let disk = &mut self.disks[port];
        match choice {
            0 => disk.silent = !disk.silent,
            1 => disk.prompt = !disk.prompt,
            2 => disk.busy = !disk.busy,
            _ => disk.signature = input.value(disk.signature),
        }
    }
}
