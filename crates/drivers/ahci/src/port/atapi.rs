//! ATAPI drives: what of one matters, how requests become packets, and what its sense means.
//!
//! A drive executes one packet at a time. A packet that fails stops the command engine, and the
//! drive keeps its reasons (sense) until it is asked for them.

mod compare;
mod fingerprint;
mod medium;
mod talk;

use super::Verdict;
use super::command::Command;
use crate::spec::ata::command;
use crate::spec::atapi::{
    FEATURE_DMA, FEATURE_DMA_TO_HOST, Packet, SECTOR_BYTES, Sense, SenseKey, code,
};
use crate::spec::fis::RegisterH2d;
use crate::spec::identify::Identify;
use compare::Found;
use fingerprint::Fingerprint;
use outboard_block::{BlockError, Management, Operation};
use outboard_hw::Instant;

/// The most sectors in one read: 128 KiB, which every drive and bridge takes.
const MAX_SECTORS: u32 = 64;
/// The most bytes that a drive may announce at once when the processor's protocol (PIO) is used:
/// it goes into 16 bits, and is even (ACS §7.17).
const BYTE_COUNT_LIMIT: u16 = 0xf800;

/// A drive, as far as the driver has to know it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drive {
    transfer: Transfer,
    /// READ (12) is used, since the drive does not know READ (10).
    long_reads: bool,
    watching: Watching,
    /// When to look for events while nothing else is going on.
    watch_at: Option<Instant>,
    /// To look at the medium itself next time, and not for events.
    look_closely: bool,
    /// A medium is in it that can be read.
    medium: bool,
    /// Whether it is the medium that requests were accepted for.
    doubt: Medium,
    /// What that one is known by.
    fingerprint: Fingerprint,
    /// What is found in the drive, while it is compared.
    found: Found,
    /// How often the drive has fallen silent over that.
    silences: u8,
    asked: Asked,
    phase: Phase,
    /// Until when a medium may take to become ready.
    patience: Instant,
    /// Answers in a row that told nothing of the medium.
    evasions: u8,
}

/// How data is transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transfer {
    /// By DMA.
    Dma,
    /// By DMA, and the drive wants to be told which way (DMADIR).
    DirectedDma,
    /// By PIO: the drive has no DMA.
    Pio,
}

/// How changes of the medium are noticed while nothing is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watching {
    /// The drive tells (asynchronous notification).
    Notified,
    /// It is asked for events.
    Events,
    /// It knows nothing of events, and is asked whether it is ready.
    Readiness,
}

/// What the driver has asked the drive, or why it is in want of sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// To tell of changes by itself.
    Notify,
    /// For events.
    Events,
    /// Whether it is ready.
    Ready,
    /// For the medium's size.
    Capacity,
    /// For a sector that the medium is known by.
    Sector,
    /// Nothing: a request's packet has failed.
    Trouble,
}

/// How far that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The packet is with the drive.
    Asking,
    /// It failed, and the command engine is being stopped.
    Stopping,
    /// The drive is asked for its reasons.
    Sensing,
    /// Waiting before it is asked again.
    Pausing,
}

/// What is thought of the medium, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Medium {
    /// It is as it was.
    Same,
    /// It has to be compared with the one before.
    Doubtful,
    /// It is another one.
    Changed,
}

impl Drive {
    /// What it says of itself; a drive whose packets have a size that nobody knows is none.
    fn new(identify: &Identify, notifications: bool) -> Option<Self> {
        identify.packet_bytes()?;
        let transfer = match (identify.has_packet_dma(), identify.needs_direction()) {
            (false, _) => Transfer::Pio,
            (true, false) => Transfer::Dma,
            (true, true) => Transfer::DirectedDma,
        };
        let notified = notifications && identify.asynchronous_notification().is_present();
        Some(Self {
            transfer,
            long_reads: false,
            watching: if notified { Watching::Notified } else { Watching::Events },
            watch_at: None,
            look_closely: false,
            medium: false,
            doubt: Medium::Same,
            fingerprint: Fingerprint::default(),
            found: Found::default(),
            silences: 0,
            asked: Asked::Ready,
            phase: Phase::Asking,
            patience: Instant::ORIGIN,
            evasions: 0,
        })
    }

    /// Whether there is nothing to read.
    pub(super) const fn is_empty(&self) -> bool {
        !self.medium
    }

    pub(super) const fn watch_at(&self) -> Option<Instant> {
        self.watch_at
    }

    /// Whether it can be told something beside its data.
    pub(super) const fn manages(what: Management) -> bool {
        matches!(what, Management::Eject | Management::Load | Management::LockMedium(_))
    }

    /// What a request becomes.
    pub(super) fn command(&self, command: &Command) -> (RegisterH2d, Packet) {
        let request = &command.request;
        let packet = match command.operation() {
            // Sectors were compared with a capacity of 32 bits, and are at most MAX_SECTORS.
            Operation::Read => {
                let (lba, sectors) = (request.lba as u32, request.sectors as u32);
                return (self.transferring(), self.read(lba, sectors));
            }
            Operation::Manage(Management::Eject) => Packet::eject(),
            Operation::Manage(Management::Load) => Packet::load(),
            Operation::Manage(Management::LockMedium(true)) => Packet::prevent_removal(),
            Operation::Manage(Management::LockMedium(false)) => Packet::allow_removal(),
            // The others are not accepted for a drive, or end without being issued.
            _ => Packet::test_unit_ready(),
        };
        (by_pio(), packet)
    }

    const fn read(&self, lba: u32, sectors: u32) -> Packet {
        match self.long_reads {
            false => Packet::read_10(lba, sectors as u16),
            true => Packet::read_12(lba, sectors),
        }
    }

    fn transferring(&self) -> RegisterH2d {
        match self.transfer {
            Transfer::Dma => by_pio().features(FEATURE_DMA),
            Transfer::DirectedDma => by_pio().features(FEATURE_DMA | FEATURE_DMA_TO_HOST),
            Transfer::Pio => by_pio(),
        }
    }

    /// What sense says of a request's packet.
    fn judge(&mut self, sense: Option<Sense>, command: &Command) -> Verdict {
        let aborted = Verdict::Retry(BlockError::Aborted);
        let Some(sense) = sense else { return aborted };
        let managing = matches!(command.operation(), Operation::Manage(_));
        match sense.key {
            _ if managing && sense.code == code::NOT_MOVED => Verdict::Final(BlockError::Locked),
            SenseKey::NOT_READY if sense.code == code::NO_MEDIUM => {
                Verdict::Final(BlockError::MediumChanged)
            }
            SenseKey::NOT_READY => Verdict::Retry(BlockError::MediumChanged),
            // Whatever medium it is, it can be ejected.
            SenseKey::UNIT_ATTENTION if sense.what() == code::MEDIUM_CHANGED => match managing {
                true => Verdict::Retry(BlockError::MediumChanged),
                false => Verdict::Final(BlockError::MediumChanged),
            },
            SenseKey::UNIT_ATTENTION => Verdict::Retry(BlockError::Transport),
            SenseKey::MEDIUM_ERROR | SenseKey::BLANK_CHECK => {
                let lba = sense.information.filter(|lba| {
                    let request = &command.request;
                    // The drive may say anything; only a sector of this request can have failed.
                    *lba >= request.lba && *lba - request.lba < request.sectors
                });
                Verdict::Final(BlockError::Media { lba })
            }
            SenseKey::HARDWARE_ERROR => Verdict::Retry(BlockError::Media { lba: None }),
            SenseKey::ILLEGAL_REQUEST => self.judge_refusal(sense, managing),
            SenseKey::ABORTED_COMMAND if sense.code == code::TRANSPORT_CRC => {
                Verdict::Retry(BlockError::Transport)
            }
            _ => aborted,
        }
    }

    fn judge_refusal(&mut self, sense: Sense, managing: bool) -> Verdict {
        match sense.what() {
            code::INVALID_COMMAND if !managing && !self.long_reads => {
                self.long_reads = true;
                Verdict::Retry(BlockError::Unsupported)
            }
            code::OUT_OF_RANGE => Verdict::Final(BlockError::Aborted),
            _ => Verdict::Final(BlockError::Unsupported),
        }
    }
}

impl Medium {
    /// What sense tells of it.
    fn told_by(sense: Option<Sense>) -> Self {
        match sense.map(|sense| (sense.key, sense.what())) {
            Some((SenseKey::UNIT_ATTENTION, code::MEDIUM_CHANGED)) => Self::Changed,
            // A tray that stays closed has nothing else in it.
            Some((SenseKey::NOT_READY, (code::NOT_MOVED, _))) => Self::Same,
            Some((SenseKey::UNIT_ATTENTION | SenseKey::NOT_READY, _)) => Self::Doubtful,
            _ => Self::Same,
        }
    }
}

/// PACKET without DMA, as what carries little or no data is sent: transfers by DMA of other
/// lengths than multiples of 16 bytes are too much for some drives.
fn by_pio() -> RegisterH2d {
    let [low, high] = BYTE_COUNT_LIMIT.to_le_bytes();
    RegisterH2d { lba_low: [0, low, high], ..RegisterH2d::command(command::PACKET) }
}

const _: () = assert!(MAX_SECTORS * SECTOR_BYTES == 128 << 10 && MAX_SECTORS <= u16::MAX as u32);

#[cfg(test)]
mod tests {
    use super::*;
    use outboard_block::{Request, Tag};
    use outboard_hw::dma::SgList;

    fn identify(words: &[(usize, u16)]) -> Identify {
        let mut bytes = [0; 512];
        for (index, word) in words {
            bytes[index * 2..][..2].copy_from_slice(&word.to_le_bytes());
        }
        Identify::new(&bytes).unwrap()
    }

    fn drive(words: &[(usize, u16)]) -> Drive {
        Drive::new(&identify(words), true).unwrap()
    }

    fn read() -> Command {
        Command::new(Tag(0), Request::read(100, 8, SgList::EMPTY))
    }

    #[test]
    fn a_read_is_sent_the_way_that_the_drive_takes_it() {
        for (words, features) in [
            ([(0, 0x8580), (49, 0x0100)], 1),
            ([(0, 0x8580), (62, 0x8800)], 5),
            ([(0, 0x8580), (49, 0x0000)], 0),
        ] {
            let (fis, packet) = drive(&words).command(&read());
            assert_eq!((fis.command, fis.features_low), (0xa0, features));
            assert_eq!(packet, Packet::read_10(100, 8));
        }
    }

    #[test]
    fn data_is_asked_for_in_lengths_that_fit_the_byte_count() {
        let (fis, packet) = drive(&[(0, 0x8580)])
            .command(&Command::new(Tag(0), Request::manage(Management::Eject)));
        assert_eq!((fis.lba_low, fis.features_low), ([0, 0x00, 0xf8], 0));
        assert_eq!(packet, Packet::eject());
    }

    #[test]
    fn only_sectors_of_the_request_can_be_bad() {
        let mut drive = drive(&[(0, 0x8580)]);
        let sense = Sense::new(SenseKey::MEDIUM_ERROR, code::UNRECOVERED_READ_ERROR);
        for (lba, expected) in
            [(99, None), (100, Some(100)), (107, Some(107)), (108, None), (u64::MAX, None)]
        {
            let verdict = drive.judge(Some(sense.at(lba)), &read());
            assert_eq!(verdict, Verdict::Final(BlockError::Media { lba: expected }));
        }
    }

    #[test]
    fn a_drive_without_read_10_is_asked_by_read_12_once() {
        let mut drive = drive(&[(0, 0x8580)]);
        let unknown = Sense::new(SenseKey::ILLEGAL_REQUEST, code::INVALID_COMMAND);
        let verdict = drive.judge(Some(unknown), &read());
        assert_eq!(verdict, Verdict::Retry(BlockError::Unsupported));
        assert_eq!(drive.command(&read()).1, Packet::read_12(100, 8));
        let verdict = drive.judge(Some(unknown), &read());
        assert_eq!(verdict, Verdict::Final(BlockError::Unsupported));
    }
}
