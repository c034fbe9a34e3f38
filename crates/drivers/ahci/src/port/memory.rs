//! A port's memory that the HBA reads and writes.

use crate::spec::ata::BLOCK_BYTES;
use crate::spec::atapi::{PACKET_BYTES, Packet, SECTOR_BYTES};
use crate::spec::fis::{
    RECEIVED_REGISTER, RECEIVED_SET_DEVICE_BITS, RegisterD2h, RegisterH2d, SetDeviceBits,
};
use crate::spec::registers::MAX_SLOTS;
use crate::spec::security::PasswordBlock;
use crate::spec::structures::{
    COMMAND_LIST_BYTES, COMMAND_TABLE_ALIGNMENT, CommandHeader, PACKET_OFFSET, PRDT_OFFSET,
    PrdtEntry,
};
use core::ops::Range;
use outboard_hw::dma::{Constraints, DeviceAddress, DmaBuffer, DmaError, DmaSpace, Segment};
use zerocopy::FromBytes;

/// Where things are in the one buffer that a port has. The first page holds what is small; its
/// parts are aligned as AHCI §4.2 asks because the buffer starts on a page.
const COMMAND_LIST: usize = 0;
const RECEIVED: usize = COMMAND_LIST_BYTES;
/// A block for what the driver itself reads: identification, logs.
const INTERNAL: usize = 2048;
/// A block of TRIM ranges.
const TRIM: usize = INTERNAL + BLOCK_BYTES;
const TABLES: usize = 4096;

/// A whole sector of a disc takes the place of both; drives for discs have no TRIM.
const SECTOR: usize = INTERNAL;
const SECTOR_END: usize = SECTOR + SECTOR_BYTES as usize;

const _: () = assert!(TRIM + BLOCK_BYTES <= TABLES && SECTOR_END <= TABLES);

/// A port's command list, received FIS area, command tables, and a block for itself.
#[derive(Debug)]
pub(crate) struct PortMemory {
    buffer: DmaBuffer,
    table_bytes: usize,
    /// Whether the internal block holds a password.
    secret: bool,
}

/// The data of a command.
pub(crate) enum Data<'a> {
    None,
    /// Segments of a request's memory, within the HBA's constraints.
    Segments(outboard_hw::dma::Segments<'a>),
    /// The block for what the driver itself reads.
    Internal,
    /// The block of TRIM ranges.
    Trim,
    /// The sector of a disc that the driver itself reads.
    Sector,
}

impl PortMemory {
    /// Allocates the memory for all slots of a port, with PRDTs of `prdt_entries`.
    pub(crate) fn allocate(
        dma: &dyn DmaSpace,
        constraints: &Constraints,
        prdt_entries: u16,
    ) -> Result<Self, DmaError> {
        let table_bytes = PrdtEntry::offset(prdt_entries.into());
        let table_bytes = table_bytes.next_multiple_of(COMMAND_TABLE_ALIGNMENT);
        let bytes = TABLES + MAX_SLOTS * table_bytes;
        let whole = Constraints { boundary: 0, ..constraints.aligned(TABLES as u64) };
        Ok(Self { buffer: dma.allocate(bytes, &whole)?, table_bytes, secret: false })
    }

    pub(crate) fn command_list(&self) -> DeviceAddress {
        self.buffer.address_of(COMMAND_LIST)
    }

    pub(crate) fn received(&self) -> DeviceAddress {
        self.buffer.address_of(RECEIVED)
    }

    fn table(&self, slot: u8) -> usize {
        TABLES + usize::from(slot) * self.table_bytes
    }

    /// Writes command table and command header of `slot`.
    pub(crate) fn prepare(&mut self, slot: u8, fis: &RegisterH2d, to_device: bool, data: Data<'_>) {
        let table = self.table(slot);
        self.buffer.write(table, fis);
        let entries = match data {
            Data::None => 0,
            Data::Segments(segments) => segments.enumerate().fold(0, |_, (index, segment)| {
                self.describe(table, index, segment);
                index + 1
            }),
            Data::Internal => self.describe_own(table, INTERNAL..INTERNAL + BLOCK_BYTES),
            Data::Trim => self.describe_own(table, TRIM..TRIM + BLOCK_BYTES),
            Data::Sector => self.describe_own(table, SECTOR..SECTOR_END),
        };
        let direction = if to_device { CommandHeader::WRITE } else { 0 };
        let flags = u16::from(RegisterH2d::DWORDS) | direction;
        let header = CommandHeader::new(flags, entries as u16, self.buffer.address_of(table));
        let header_offset = COMMAND_LIST + CommandHeader::offset(slot.into());
        self.buffer.write(header_offset, &header);
        let table_end = table + PrdtEntry::offset(entries);
        self.buffer.sync_for_device(table..table_end);
        self.buffer.sync_for_device(header_offset..header_offset + size_of::<CommandHeader>());
    }

    /// Adds a packet to the command that was prepared in `slot`.
    pub(crate) fn add_packet(&mut self, slot: u8, packet: &Packet) {
        let at = self.table(slot) + PACKET_OFFSET;
        self.buffer.write_bytes(at, &packet.0);
        self.buffer.sync_for_device(at..at + PACKET_BYTES);
        let header = COMMAND_LIST + CommandHeader::offset(slot.into());
        let flags = self.buffer.load_u32(header) | u32::from(CommandHeader::PACKET);
        self.buffer.store_u32(header, flags);
        self.buffer.sync_for_device(header..header + size_of::<u32>());
    }

    fn describe(&mut self, table: usize, index: usize, segment: Segment) {
        let offset = table + PrdtEntry::offset(index);
        // Segments were counted when the request was accepted.
        debug_assert!(offset + size_of::<PrdtEntry>() <= table + self.table_bytes);
        self.buffer.write(offset, &PrdtEntry::new(segment.address, segment.bytes));
    }

    fn describe_own(&mut self, table: usize, range: Range<usize>) -> usize {
        let entry = PrdtEntry::new(self.buffer.address_of(range.start), range.len() as u64);
        self.buffer.write(table + PrdtEntry::offset(0), &entry);
        1
    }

    /// Takes the memory out of a slot's command, which has ended: a disk that names the slot's tag
    /// once more is given none by the HBA.
    pub(crate) fn disarm(&mut self, slot: u8) {
        let header = COMMAND_LIST + CommandHeader::offset(slot.into());
        self.buffer.store_u32(header, 0);
        self.buffer.sync_for_device(header..header + size_of::<u32>());
    }

    /// Makes a slot's command table something that the HBA does not send anywhere: a FIS of type 0,
    /// and no memory to transfer to.
    pub(crate) fn blank(&mut self, slot: u8) {
        let table = self.table(slot);
        self.buffer.fill(table..table + PRDT_OFFSET, 0);
        self.buffer.sync_for_device(table..table + PRDT_OFFSET);
        // Nor may it look for the table where there is none, if this memory is new.
        let header = CommandHeader::new(0, 0, self.buffer.address_of(table));
        let offset = COMMAND_LIST + CommandHeader::offset(slot.into());
        self.buffer.write(offset, &header);
        self.buffer.sync_for_device(offset..offset + size_of::<CommandHeader>());
    }

    /// Bytes that the HBA says the command in `slot` has transferred.
    pub(crate) fn transferred(&self, slot: u8) -> u32 {
        let header = COMMAND_LIST + CommandHeader::offset(slot.into());
        let offset = header + CommandHeader::TRANSFERRED_OFFSET;
        self.buffer.sync_for_cpu(offset..offset + 4);
        self.buffer.load_u32(offset)
    }

    /// The header of a slot, for the device behind a multiplier's port; the command's frame is
    /// addressed to it as well, and a queued one gets the tag by which the HBA knows it.
    pub(crate) fn addressed(&mut self, slot: u8, port: u8, tag: Option<u8>) -> CommandHeader {
        let table = self.table(slot);
        let fis = self.buffer.read::<RegisterH2d>(table).behind(port);
        let count = tag.map_or(fis.count, |tag| [tag << 3, fis.count[1]]);
        self.buffer.write(table, &RegisterH2d { count, ..fis });
        self.buffer.sync_for_device(table..table + size_of::<RegisterH2d>());
        let header: CommandHeader =
            self.buffer.read(COMMAND_LIST + CommandHeader::offset(slot.into()));
        let flags = CommandHeader::behind(header.flags.get(), port).into();
        CommandHeader { flags, ..header }
    }

    /// Prepares a frame that writes the device control register. `flags`: bits of the header
    /// besides length and port.
    pub(crate) fn prepare_control(&mut self, slot: u8, fis: &RegisterH2d, flags: u16) {
        self.prepare(slot, fis, false, Data::None);
        let at = COMMAND_LIST + CommandHeader::offset(slot.into());
        let flags = u16::from(RegisterH2d::DWORDS) | flags;
        let flags = CommandHeader::behind(flags, fis.multiplier_port()).into();
        let header: CommandHeader = self.buffer.read(at);
        self.buffer.write(at, &CommandHeader { flags, ..header });
        self.buffer.sync_for_device(at..at + size_of::<CommandHeader>());
    }

    /// Changes the tag in a log of queued errors in the internal block, if it is one.
    pub(crate) fn rename_in_log(&mut self, slot_of: impl FnOnce(u8) -> Option<u8>) {
        use crate::spec::log::NcqError;
        let Ok(mut log) = NcqError::read_from_bytes(&self.internal()) else { return };
        let Some(slot) = log.failed_tag().and_then(slot_of) else { return };
        let tag = log.tag & !0x1f | slot;
        log.checksum = log.checksum.wrapping_add(log.tag).wrapping_sub(tag);
        log.tag = tag;
        self.buffer.write(INTERNAL, &log);
    }

    /// Takes over how many bytes a command has transferred.
    pub(crate) fn take_over(&mut self, slot: u8, transferred: u32) {
        let header = COMMAND_LIST + CommandHeader::offset(slot.into());
        self.buffer.store_u32(header + CommandHeader::TRANSFERRED_OFFSET, transferred);
    }

    /// Takes over what was received.
    pub(crate) fn receive(&mut self, frames: &[u8; crate::spec::fis::RECEIVED_BYTES]) {
        self.buffer.write_bytes(RECEIVED, frames);
    }

    /// The last device-to-host register FIS.
    pub(crate) fn received_register(&self) -> RegisterD2h {
        let offset = RECEIVED + RECEIVED_REGISTER;
        self.buffer.sync_for_cpu(offset..offset + size_of::<RegisterD2h>());
        self.buffer.read(offset)
    }

    /// The last set-device-bits FIS.
    pub(crate) fn received_bits(&self) -> SetDeviceBits {
        let offset = RECEIVED + RECEIVED_SET_DEVICE_BITS;
        self.buffer.sync_for_cpu(offset..offset + size_of::<SetDeviceBits>());
        self.buffer.read(offset)
    }

    /// Forgets all received FISes, so that none is taken for a new one after a reset.
    pub(crate) fn forget_received(&mut self) {
        let range = RECEIVED..RECEIVED + crate::spec::fis::RECEIVED_BYTES;
        self.buffer.fill(range.clone(), 0);
        self.buffer.sync_for_device(range);
    }

    /// Fills the block that the driver itself reads into with ones, which are neither a valid
    /// identification nor a valid log.
    pub(crate) fn clear_internal(&mut self) {
        self.buffer.fill(INTERNAL..INTERNAL + BLOCK_BYTES, 0xff);
        self.buffer.sync_for_device(INTERNAL..INTERNAL + BLOCK_BYTES);
    }

    /// Likewise for a sector of a disc, which could be of ones.
    pub(crate) fn clear_sector(&mut self) {
        self.buffer.fill(SECTOR..SECTOR_END, 0xff);
        self.buffer.sync_for_device(SECTOR..SECTOR_END);
    }

    /// The sector of a disc, block by block.
    pub(crate) fn sector_blocks(&self) -> impl Iterator<Item = [u8; BLOCK_BYTES]> {
        self.buffer.sync_for_cpu(SECTOR..SECTOR_END);
        (SECTOR..SECTOR_END).step_by(BLOCK_BYTES).map(|block| self.buffer.read(block))
    }

    /// Puts a password into the block, for a command to send.
    pub(crate) fn write_secret(&mut self, block: &PasswordBlock) {
        self.secret = true;
        self.buffer.write(INTERNAL, block);
        self.buffer.sync_for_device(INTERNAL..INTERNAL + BLOCK_BYTES);
    }

    /// Wipes the password in the block, if there is one. Its command has ended, or the HBA has let
    /// go of it: what the HBA reads from then on would become the password.
    pub(crate) fn wipe_secret(&mut self) {
        if core::mem::take(&mut self.secret) {
            self.buffer.fill(INTERNAL..INTERNAL + BLOCK_BYTES, 0);
            self.buffer.sync_for_device(INTERNAL..INTERNAL + BLOCK_BYTES);
        }
    }

    /// The block that the driver itself reads into.
    pub(crate) fn internal(&self) -> [u8; BLOCK_BYTES] {
        self.buffer.sync_for_cpu(INTERNAL..INTERNAL + BLOCK_BYTES);
        self.buffer.read(INTERNAL)
    }

    /// Writes the block of TRIM ranges: 48 bits of address, 16 bits of length each (ACS §7.5.3).
    pub(crate) fn write_trim(&mut self, lba: u64, sectors: u64) {
        use crate::spec::ata::TRIM_RANGE_SECTORS;
        let mut block = [0; BLOCK_BYTES];
        let (mut lba, mut left) = (lba, sectors);
        for range in block.as_chunks_mut::<8>().0 {
            let count = left.min(TRIM_RANGE_SECTORS);
            *range = (lba & 0xffff_ffff_ffff | count << 48).to_le_bytes();
            if count == 0 {
                *range = [0; 8];
            }
            (lba, left) = (lba + count, left - count);
        }
        self.buffer.write_bytes(TRIM, &block);
        self.buffer.sync_for_device(TRIM..TRIM + BLOCK_BYTES);
    }
}
