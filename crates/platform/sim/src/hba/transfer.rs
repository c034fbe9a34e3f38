//! Memory as the HBA reaches it (AHCI §4.2).

use super::HbaModel;
use crate::sata::{Command, End};
use outboard_ahci::spec::fis::{
    RECEIVED_BYTES, RECEIVED_REGISTER, RECEIVED_SET_DEVICE_BITS, RegisterD2h, RegisterH2d,
    SetDeviceBits, kind,
};
use outboard_ahci::spec::structures::{CommandHeader, PACKET_OFFSET, PrdtEntry};
use zerocopy::{FromBytes, IntoBytes};

impl HbaModel {
    /// Reads a plain value; `None`, and a violation, if the driver does not own that memory.
    fn load<T: FromBytes + IntoBytes>(&mut self, index: u8, address: u64) -> Option<T> {
        let mut value = T::new_zeroed();
        self.fetch_bytes(index, address, value.as_mut_bytes()).then_some(value)
    }

    fn fetch_bytes(&mut self, index: u8, address: u64, into: &mut [u8]) -> bool {
        let result = if self.bus_master { self.memory.read(address, into) } else { return false };
        if let Err(unmapped) = result {
            self.violation(format_args!("port {index} read where it must not: {unmapped}"));
        }
        result.is_ok()
    }

    fn store(&mut self, index: u8, address: u64, from: &[u8]) -> bool {
        if !self.bus_master {
            return false;
        }
        let result = self.memory.write(address, from);
        if let Err(unmapped) = result {
            self.violation(format_args!("port {index} wrote where it must not: {unmapped}"));
        }
        result.is_ok()
    }

    fn header_at(&self, index: u8, slot: u8) -> Option<u64> {
        let port = self.ports.get(usize::from(index))?.as_deref()?;
        Some(port.list + CommandHeader::offset(slot.into()) as u64)
    }

    /// The header of a slot, and the command that it leads to.
    pub(super) fn read_command(&mut self, index: u8, slot: u8) -> Option<(CommandHeader, Command)> {
        let at = self.header_at(index, slot)?;
        let header: CommandHeader = self.load(index, at)?;
        let table = table_of(&header);
        let fis: RegisterH2d = self.load(index, table)?;
        let packet: [u8; 16] = self.load(index, table + PACKET_OFFSET as u64)?;
        Some((header, Command { fis, packet }))
    }

    /// Calls `each` with the address and the length of each piece of a command's memory, until
    /// `bytes` are covered; whether they were.
    fn pieces(
        &mut self,
        index: u8,
        slot: u8,
        bytes: usize,
        each: &mut dyn FnMut(&mut Self, u64, core::ops::Range<usize>) -> bool,
    ) -> bool {
        let Some(at) = self.header_at(index, slot) else { return false };
        let Some(header) = self.load::<CommandHeader>(index, at) else { return false };
        let table = table_of(&header);
        let mut done = 0;
        for entry in 0..usize::from(header.prdt_entries.get()) {
            if done == bytes {
                break;
            }
            let at = table + PrdtEntry::offset(entry) as u64;
            let Some(entry) = self.load::<PrdtEntry>(index, at) else { return false };
            let count = entry.count.get();
            if count & 1 == 0 || entry.base_low.get() & 1 != 0 {
                self.violation(format_args!("port {index} slot {slot}: an odd PRDT entry"));
            }
            let len = ((count & 0x3f_ffff) as usize + 1).min(bytes - done);
            let address = u64::from(entry.base_low.get()) | u64::from(entry.base_high.get()) << 32;
            if !each(self, address, done..done + len) {
                return false;
            }
            done += len;
        }
        if done != bytes {
            self.violation(format_args!("port {index} slot {slot}: {done} bytes for {bytes}"));
        }
        done == bytes
    }

    /// Fetches a command's data from memory.
    pub(super) fn gather(&mut self, index: u8, slot: u8, data: &mut [u8]) -> bool {
        self.pieces(index, slot, data.len(), &mut |hba, address, range| {
            hba.fetch_bytes(index, address, &mut data[range])
        })
    }

    /// Stores a command's data to memory.
    pub(super) fn scatter(&mut self, index: u8, slot: u8, data: &[u8]) -> bool {
        self.pieces(index, slot, data.len(), &mut |hba, address, range| {
            hba.store(index, address, &data[range])
        })
    }

    /// Writes PRDBC.
    pub(super) fn write_count(&mut self, index: u8, slot: u8, count: u32) {
        if let Some(at) = self.header_at(index, slot) {
            let at = at + CommandHeader::TRANSFERRED_OFFSET as u64;
            self.store(index, at, &count.to_le_bytes());
        }
    }

    /// The header of a slot's command.
    pub(super) fn header(&mut self, index: u8, slot: u8) -> Option<CommandHeader> {
        let at = self.header_at(index, slot)?;
        self.load(index, at)
    }

    /// Posts a frame that comes from a seat.
    fn post(&mut self, index: u8, at: u8, offset: usize, fis: &[u8]) {
        let Some(port) = self.port_mut(index) else { return };
        // Each device has an area of its own (AHCI §9.3.3).
        let area = if port.switching.enabled() { usize::from(at) * RECEIVED_BYTES } else { 0 };
        if port.command.fis_receive() {
            let address = port.received + (area + offset) as u64;
            self.store(index, address, fis);
        }
    }

    /// The port that a frame from a seat names.
    pub(super) fn sender(&mut self, index: u8, at: u8) -> u8 {
        let multiplied = self.port_mut(index).is_some_and(|port| port.multiplier().is_some());
        if multiplied { at } else { 0 }
    }

    /// Posts a set-device-bits FIS that only notifies.
    pub(super) fn post_notification(&mut self, index: u8, at: u8) {
        let fis = SetDeviceBits {
            kind: kind::SET_DEVICE_BITS,
            flags: SetDeviceBits::NOTIFICATION | 1 << 6 | self.sender(index, at),
            status: End::GOOD_STATUS,
            error: 0,
            finished: [0; 4],
        };
        self.post(index, at, RECEIVED_SET_DEVICE_BITS, fis.as_bytes());
    }

    /// Posts a register FIS.
    pub(super) fn post_register(&mut self, index: u8, at: u8, end: &End) {
        let [a, b, c, d, e, f, ..] = end.lba.to_le_bytes();
        let fis = RegisterD2h {
            kind: kind::REGISTER_D2H,
            flags: 1 << 6 | self.sender(index, at),
            status: end.status,
            error: end.error,
            lba_low: [a, b, c],
            device: end.device,
            lba_high: [d, e, f],
            reserved: 0,
            count: end.count.to_le_bytes(),
            reserved_end: [0; 6],
        };
        self.post(index, at, RECEIVED_REGISTER, fis.as_bytes());
    }

    /// Posts a set-device-bits FIS.
    pub(super) fn post_bits(
        &mut self,
        index: u8,
        at: u8,
        (status, error): (u8, u8),
        finished: u32,
    ) {
        // BSY and DRQ have no place in it (SATA §10.5.7).
        let (status, finished) = (status & 0x77, finished.to_le_bytes());
        let flags = 1 << 6 | self.sender(index, at);
        let fis = SetDeviceBits { kind: kind::SET_DEVICE_BITS, flags, status, error, finished };
        self.post(index, at, RECEIVED_SET_DEVICE_BITS, fis.as_bytes());
    }

    /// Overwrites the received FIS area.
    pub(super) fn garbage_received(&mut self, index: u8, at: u8) {
        let mut garbage = [0; 256];
        for chunk in garbage.as_chunks_mut::<8>().0 {
            *chunk = self.random.bits().to_le_bytes();
        }
        // Not what would be a FIS: that would be another fault.
        garbage[RECEIVED_REGISTER] = 0xee;
        garbage[RECEIVED_SET_DEVICE_BITS] = 0xee;
        self.post(index, at, 0, &garbage);
    }
}

fn table_of(header: &CommandHeader) -> u64 {
    u64::from(header.table_low.get()) | u64::from(header.table_high.get()) << 32
}
