//! ATAPI: packets that carry SCSI commands to drives with removable media.
//!
//! "MMC" is the SCSI Multimedia Command Set 6, "SPC" SCSI Primary Commands 4, "SBC" SCSI Block
//! Commands 3; commands are found in them by their names. Packets travel as ACS §7.17 says.

mod sense;

pub use sense::{Sense, SenseKey, code};

/// Codes of packets' commands.
pub mod opcode {
    /// TEST UNIT READY (SPC).
    pub const TEST_UNIT_READY: u8 = 0x00;
    /// REQUEST SENSE (SPC).
    pub const REQUEST_SENSE: u8 = 0x03;
    /// INQUIRY (SPC).
    pub const INQUIRY: u8 = 0x12;
    /// START STOP UNIT (MMC).
    pub const START_STOP_UNIT: u8 = 0x1b;
    /// PREVENT ALLOW MEDIUM REMOVAL (MMC).
    pub const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = 0x1e;
    /// READ CAPACITY (10) (MMC).
    pub const READ_CAPACITY_10: u8 = 0x25;
    /// READ (10) (MMC).
    pub const READ_10: u8 = 0x28;
    /// GET EVENT STATUS NOTIFICATION (MMC).
    pub const GET_EVENT_STATUS_NOTIFICATION: u8 = 0x4a;
    /// READ (12) (MMC).
    pub const READ_12: u8 = 0xa8;
}

/// Bytes of the room that a command table has for a packet (ACMD, AHCI §4.2.3.2).
pub const PACKET_BYTES: usize = 16;
/// Bytes in a sector of data on optical media (MMC).
pub const SECTOR_BYTES: u32 = 2048;

/// FEATURES of PACKET: the data is transferred by DMA (ACS §7.17).
pub const FEATURE_DMA: u16 = 1 << 0;
/// FEATURES of PACKET: DMADIR, the data goes to the host (ACS §7.17).
pub const FEATURE_DMA_TO_HOST: u16 = 1 << 2;
/// COUNT after a PACKET command has ended: I/O and C/D are both set (ACS §7.17).
pub const REASON_ENDED: u8 = IN | COMMAND;
/// Interrupt reason I/O: towards the host.
const IN: u8 = 1 << 1;
/// Interrupt reason C/D: a command, or its status; data if clear.
const COMMAND: u8 = 1 << 0;

/// Command packet sets that IDENTIFY PACKET DEVICE and INQUIRY name (SPC).
pub mod peripheral {
    /// CD and DVD drives.
    pub const MULTIMEDIA: u8 = 0x05;
}

/// A command packet, padded with zeros. Drives take the first 12 bytes, or all 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet(pub [u8; PACKET_BYTES]);

impl Packet {
    /// Bytes of sense data that are asked for: all of the fixed format.
    pub const SENSE_BYTES: u8 = 18;
    /// Bytes of the header and the one event of media.
    pub const EVENT_BYTES: u8 = 8;

    const fn new<const N: usize>(bytes: [u8; N]) -> Self {
        let mut packet = [0; PACKET_BYTES];
        let mut index = 0;
        while index < N {
            packet[index] = bytes[index];
            index += 1;
        }
        Self(packet)
    }

    /// Asks whether the medium can be accessed.
    pub const fn test_unit_ready() -> Self {
        Self::new([opcode::TEST_UNIT_READY])
    }

    /// Asks for sense data: why the last command failed.
    pub const fn request_sense() -> Self {
        Self::new([opcode::REQUEST_SENSE, 0, 0, 0, Self::SENSE_BYTES])
    }

    /// Asks for what the drive is.
    pub const fn inquiry(bytes: u8) -> Self {
        Self::new([opcode::INQUIRY, 0, 0, 0, bytes])
    }

    /// Asks how large the medium is; see [`Capacity`].
    pub const fn read_capacity() -> Self {
        Self::new([opcode::READ_CAPACITY_10])
    }

    /// Reads sectors, at most 65535.
    pub const fn read_10(lba: u32, sectors: u16) -> Self {
        let ([a, b, c, d], [high, low]) = (lba.to_be_bytes(), sectors.to_be_bytes());
        Self::new([opcode::READ_10, 0, a, b, c, d, 0, high, low])
    }

    /// Reads sectors.
    pub const fn read_12(lba: u32, sectors: u32) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (lba.to_be_bytes(), sectors.to_be_bytes());
        Self::new([opcode::READ_12, 0, a, b, c, d, e, f, g, h])
    }

    /// Opens the tray, or lets go of the medium (LoEj without Start, MMC).
    pub const fn eject() -> Self {
        Self::new([opcode::START_STOP_UNIT, 0, 0, 0, START_LOAD_EJECT])
    }

    /// Closes the tray (LoEj and Start).
    pub const fn load() -> Self {
        Self::new([opcode::START_STOP_UNIT, 0, 0, 0, START_LOAD_EJECT | START])
    }

    /// Keeps the medium in.
    pub const fn prevent_removal() -> Self {
        Self::new([opcode::PREVENT_ALLOW_MEDIUM_REMOVAL, 0, 0, 0, PREVENT])
    }

    /// Lets the medium be taken out.
    pub const fn allow_removal() -> Self {
        Self::new([opcode::PREVENT_ALLOW_MEDIUM_REMOVAL])
    }

    /// Asks for an event of the medium, at once (polled; MMC).
    pub const fn media_event() -> Self {
        let code = opcode::GET_EVENT_STATUS_NOTIFICATION;
        Self::new([code, EVENT_POLLED, 0, 0, 1 << MediaEvent::CLASS, 0, 0, 0, Self::EVENT_BYTES])
    }

    /// The address of a read.
    pub const fn lba(&self) -> u32 {
        let [_, _, a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    /// How many sectors a read is of; 0 for other commands.
    pub const fn sectors(&self) -> u32 {
        let packet = self.0;
        match packet[0] {
            opcode::READ_10 => u16::from_be_bytes([packet[7], packet[8]]) as u32,
            opcode::READ_12 => u32::from_be_bytes([packet[6], packet[7], packet[8], packet[9]]),
            _ => 0,
        }
    }
}

/// START STOP UNIT, byte 4: LoEj (MMC).
pub const START_LOAD_EJECT: u8 = 1 << 1;
/// START STOP UNIT, byte 4: Start.
pub const START: u8 = 1 << 0;
/// PREVENT ALLOW MEDIUM REMOVAL, byte 4: Prevent (MMC).
pub const PREVENT: u8 = 1 << 0;
/// GET EVENT STATUS NOTIFICATION, byte 1: Polled (MMC).
pub const EVENT_POLLED: u8 = 1 << 0;

/// What READ CAPACITY returns (MMC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The address of the last sector.
    pub last_lba: u32,
    /// Bytes in a sector. Some drives give those of raw sectors.
    pub sector_bytes: u32,
}

impl Capacity {
    /// Bytes of the data.
    pub const BYTES: usize = 8;

    /// From the data.
    pub const fn new(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = *bytes;
        let (last_lba, sector_bytes) = ([a, b, c, d], [e, f, g, h]);
        let last_lba = u32::from_be_bytes(last_lba);
        Self { last_lba, sector_bytes: u32::from_be_bytes(sector_bytes) }
    }

    /// The data.
    pub const fn to_bytes(self) -> [u8; Self::BYTES] {
        let ([a, b, c, d], [e, f, g, h]) =
            (self.last_lba.to_be_bytes(), self.sector_bytes.to_be_bytes());
        [a, b, c, d, e, f, g, h]
    }

    /// Sectors of [`SECTOR_BYTES`] on the medium; `None` if it cannot be read as such.
    ///
    /// Drives that give 0 or the size of a raw sector (2336 to 2352) read 2048 all the same. An
    /// address of all ones means that there are more sectors than fit (SBC): on no disc.
    pub const fn sectors(&self) -> Option<u64> {
        let readable = matches!(self.sector_bytes, 0 | SECTOR_BYTES | 2336..=2352);
        if readable && self.last_lba != u32::MAX { Some(self.last_lba as u64 + 1) } else { None }
    }
}

/// What GET EVENT STATUS NOTIFICATION returns of the media class (MMC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaEvent {
    /// What happened last; see the constants.
    pub event: u8,
    /// The tray is open.
    pub open: bool,
    /// A medium is in the drive.
    pub present: bool,
}

impl MediaEvent {
    /// The number of the class.
    pub const CLASS: u8 = 4;
    /// Nothing happened.
    pub const NO_CHANGE: u8 = 0;
    /// Somebody has asked for the medium, by the button of a locked drive.
    pub const EJECT_REQUEST: u8 = 1;
    /// A medium was put in and can be accessed.
    pub const NEW_MEDIA: u8 = 2;
    /// The medium was taken out.
    pub const MEDIA_REMOVAL: u8 = 3;
    /// Asked for a change of media, in a changer.
    pub const MEDIA_CHANGED: u8 = 4;
    /// Bytes of header and event.
    pub const BYTES: usize = Packet::EVENT_BYTES as usize;
    const HEADER_BYTES: usize = 4;
    const NO_EVENT: u8 = 1 << 7;

    /// From the data; `None` if it has no event of this class.
    pub const fn new(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let following = u16::from_be_bytes([bytes[0], bytes[1]]) as usize;
        let class = bytes[2] & 7;
        // The length counts what follows it: the other half of the header, and the event.
        if bytes[2] & Self::NO_EVENT != 0 || class != Self::CLASS {
            return None;
        }
        if following < Self::BYTES - 2 {
            return None;
        }
        let (event, status) = (bytes[4] & 0xf, bytes[5]);
        Some(Self { event, open: status & 1 != 0, present: status & 2 != 0 })
    }

    /// The data.
    pub const fn to_bytes(self) -> [u8; Self::BYTES] {
        let following = (Self::BYTES - 2) as u8;
        let status = self.open as u8 | (self.present as u8) << 1;
        [0, following, Self::CLASS, 1 << Self::CLASS, self.event, status, 0, 0]
    }

    /// The header alone: the class is not supported, and there is no event.
    pub const fn none() -> [u8; Self::HEADER_BYTES] {
        [0, (Self::HEADER_BYTES - 2) as u8, Self::NO_EVENT, 1 << Self::CLASS]
    }

    /// Whether the medium may be another one than before, or none, or a first one.
    pub const fn is_change(&self) -> bool {
        matches!(self.event, Self::NEW_MEDIA | Self::MEDIA_REMOVAL | Self::MEDIA_CHANGED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_laid_out_as_specified() {
        let read = Packet::read_10(0x0102_0304, 0x0506);
        assert_eq!(read.0, [0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((read.lba(), read.sectors()), (0x0102_0304, 0x0506));
        let read = Packet::read_12(0x0102_0304, 0x0506_0708);
        assert_eq!(read.0[..10], [0xa8, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(read.sectors(), 0x0506_0708);
        assert_eq!(Packet::media_event().0[..9], [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]);
        assert_eq!((Packet::eject().0[4], Packet::load().0[4]), (2, 3));
        assert_eq!((Packet::prevent_removal().0[4], Packet::allow_removal().0[4]), (1, 0));
    }

    #[test]
    fn a_capacity_is_believed_only_in_sectors_of_data() {
        let sectors = |last_lba, sector_bytes| Capacity { last_lba, sector_bytes }.sectors();
        assert_eq!(sectors(99, 2048), Some(100));
        assert_eq!(sectors(99, 2352), Some(100));
        assert_eq!(sectors(0, 0), Some(1));
        assert_eq!(sectors(u32::MAX, 2048), None);
        assert_eq!(sectors(99, 512), None);
        let capacity = Capacity { last_lba: 0x0102_0304, sector_bytes: 2048 };
        assert_eq!(capacity.to_bytes(), [1, 2, 3, 4, 0, 0, 8, 0]);
        assert_eq!(Capacity::new(&capacity.to_bytes()), capacity);
    }

    #[test]
    fn an_event_of_another_class_or_length_is_none() {
        let event = MediaEvent { event: MediaEvent::NEW_MEDIA, open: false, present: true };
        assert_eq!(event.to_bytes(), [0, 6, 4, 0x10, 2, 2, 0, 0]);
        assert_eq!(MediaEvent::new(&event.to_bytes()), Some(event));
        assert_eq!(MediaEvent::new(&[0xff; 8]), None);
        assert_eq!(MediaEvent::new(&[0, 2, 0x84, 0x10, 0, 0, 0, 0]), None);
        assert_eq!(MediaEvent::new(&[0, 6, 1, 0x10, 2, 2, 0, 0]), None);
        assert_eq!(MediaEvent::new(&[0, 4, 4, 0x10, 2, 2, 0, 0]), None);
    }
}
