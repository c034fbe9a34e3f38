//! A drive for discs, behind packets (ATAPI): tray, medium, attentions, sense.
//!
//! The drive executes one packet at a time. What it refuses it explains in sense data, which is
//! kept until REQUEST SENSE fetches it. It lies only where [`Lies`] say so.

mod disc;
mod packet;

pub use disc::Disc;

use crate::Random;
use crate::sata::{Command, End, Plan, Protocol, Report, Reset, SataDevice};
use core::time::Duration;
use outboard_ahci::spec::ata::{BLOCK_BYTES, Error, command, features, sata_feature};
use outboard_ahci::spec::atapi::{
    Capacity, FEATURE_DMA, FEATURE_DMA_TO_HOST, MediaEvent, REASON_ENDED, Sense, SenseKey, code,
};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::registers::signature;
use outboard_hw::Instant;
use std::collections::VecDeque;

/// How long the drive takes for what needs no medium.
const QUICK: Duration = Duration::from_micros(50);
/// How long it takes until it reads, and for each sector.
const SEEK: Duration = Duration::from_millis(2);
const SECTOR: Duration = Duration::from_micros(100);
/// Longer than anybody waits.
const HOURS: Duration = Duration::from_secs(10_000);
/// From a reset to its signature.
const RESET: Duration = Duration::from_millis(5);
/// Events that are kept until they are asked for; older ones are forgotten.
const EVENTS: usize = 8;

/// How a drive transfers data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// By DMA or PIO, as it is asked.
    Dma,
    /// Likewise, but DMA only with its direction (DMADIR).
    DirectedDma,
    /// By PIO only.
    Pio,
}

/// What a drive is like.
#[derive(Debug, Clone)]
pub struct AtapiOptions {
    /// Its serial number.
    pub serial: &'static str,
    /// How it transfers.
    pub transfer: Transfer,
    /// It tells of events by itself, once that was switched on.
    pub notification: bool,
    /// It knows GET EVENT STATUS NOTIFICATION.
    pub events: bool,
    /// It knows READ (10), and not only READ (12).
    pub read_10: bool,
    /// How long a medium takes to become ready.
    pub load: Duration,
}

impl Default for AtapiOptions {
    fn default() -> Self {
        Self {
            serial: "DRIVE1",
            transfer: Transfer::Dma,
            notification: false,
            events: true,
            read_10: true,
            load: Duration::from_secs(3),
        }
    }
}

/// What a drive says that is not so.
#[derive(Debug, Clone, Default)]
pub struct Lies {
    /// The medium's size.
    pub capacity: Option<Capacity>,
    /// Sense data, whatever it is about. Every read is refused for it.
    pub sense: Option<Vec<u8>>,
    /// It answers no question for sense.
    pub silent: bool,
    /// A read of this sector takes hours.
    pub hangs_at: Option<u32>,
}

/// A drive.
#[derive(Debug)]
pub struct AtapiDrive {
    options: AtapiOptions,
    disc: Option<Disc>,
    /// What takes the disc's place when the drive is reset.
    unseen: Option<Disc>,
    open: bool,
    locked: bool,
    /// When the medium in the closed drive is ready.
    ready_at: Instant,
    /// Attentions that were not told yet.
    attentions: VecDeque<(u8, u8)>,
    /// Why the last packet was refused.
    sense: Option<Sense>,
    events: VecDeque<u8>,
    notifying: bool,
    notified: bool,
    /// What it says that is not so.
    pub lies: Lies,
}

impl AtapiDrive {
    /// A drive that is closed and under power, with a disc that is ready, or with none.
    pub fn new(options: AtapiOptions, disc: Option<Disc>) -> Self {
        Self {
            options,
            disc,
            unseen: None,
            open: false,
            locked: false,
            ready_at: Instant::ORIGIN,
            attentions: VecDeque::from([code::RESET]),
            sense: None,
            events: VecDeque::new(),
            notifying: false,
            notified: false,
            lies: Lies::default(),
        }
    }

    /// Whether the tray is open.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the button does nothing.
    pub const fn is_locked(&self) -> bool {
        self.locked
    }

    /// Somebody presses the button: the tray opens or closes, or the drive says that it was asked.
    pub fn press_button(&mut self, now: Instant) {
        if self.open {
            self.close(now);
        } else if self.locked {
            self.happened(MediaEvent::EJECT_REQUEST);
        } else {
            self.open();
        }
    }

    /// Puts a disc on the open tray, or takes the one away that is there; returns that.
    ///
    /// Panics if the tray is closed.
    pub fn exchange(&mut self, disc: Option<Disc>) -> Option<Disc> {
        assert!(self.open, "the tray is closed");
        std::mem::replace(&mut self.disc, disc)
    }

    /// The disc is going to be exchanged while the drive is reset the next time, or starts with
    /// power again. The drive sees nothing of it, and tells of the reset alone.
    pub fn exchange_in_reset(&mut self, disc: Disc) {
        self.unseen = Some(disc);
    }

    /// The disc, wherever it is.
    pub const fn disc(&mut self) -> Option<&mut Disc> {
        self.disc.as_mut()
    }

    fn open(&mut self) {
        self.open = true;
        if self.disc.is_some() {
            self.happened(MediaEvent::MEDIA_REMOVAL);
        }
    }

    fn close(&mut self, now: Instant) {
        self.open = false;
        if self.disc.is_some() {
            self.ready_at = now + self.options.load;
            self.attentions.push_back(code::MEDIUM_CHANGED);
            self.happened(MediaEvent::NEW_MEDIA);
        }
    }

    fn happened(&mut self, event: u8) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
        self.notified |= self.notifying;
    }

    /// How a packet's data moves; `None` if the drive does not transfer so.
    fn protocol(&self, fis: &RegisterH2d, bytes: usize) -> Option<Protocol> {
        let features = u16::from(fis.features_low);
        let dma = features & FEATURE_DMA != 0;
        let directed = features & FEATURE_DMA_TO_HOST != 0;
        match (bytes, dma, self.options.transfer) {
            (0, ..) => Some(Protocol::NonData),
            (_, false, _) => Some(Protocol::PioIn),
            (_, true, Transfer::Dma) => Some(Protocol::DmaIn),
            (_, true, Transfer::DirectedDma) => directed.then_some(Protocol::DmaIn),
            (_, true, Transfer::Pio) => None,
        }
    }

    /// Sets or clears what SET FEATURES names; whether it is known.
    fn set_feature(&mut self, fis: &RegisterH2d) -> bool {
        let which = u16::from(fis.count[0]);
        let enable = match u16::from(fis.features_low) {
            features::ENABLE_SATA => true,
            features::DISABLE_SATA => false,
            _ => return false,
        };
        let known = which == sata_feature::ASYNCHRONOUS_NOTIFICATION && self.options.notification;
        if known {
            self.notifying = enable;
        }
        known
    }

    fn identify(&self) -> [u8; BLOCK_BYTES] {
        let mut words = [0u16; 256];
        // Packets of 12 bytes, a CD drive, removable.
        words[0] = 0x8580;
        put_text(&mut words[10..20], self.options.serial);
        put_text(&mut words[23..27], "1.0");
        put_text(&mut words[27..47], "OUTBOARD DISC DRIVE");
        words[49] = 1 << 9 | u16::from(self.options.transfer == Transfer::Dma) << 8;
        if self.options.transfer == Transfer::DirectedDma {
            words[62] = 1 << 15 | 1 << 11;
        }
        words[76] = 1 << 1;
        words[78] = u16::from(self.options.notification) << 5;
        words[79] = u16::from(self.notifying) << 5;
        words[80] = 1 << 7;
        // PACKET and DEVICE RESET are supported, and enabled.
        words[82] = 1 << 9 | 1 << 4;
        words[83] = 1 << 14;
        words[84] = 1 << 14;
        words[85] = words[82];
        words[87] = 1 << 14;
        let mut bytes = [0; BLOCK_BYTES];
        bytes.as_chunks_mut::<2>().0.iter_mut().zip(words).for_each(|(b, w)| *b = w.to_le_bytes());
        bytes[510] = 0xa5;
        bytes[511] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        bytes
    }

    fn was_reset(&mut self) {
        (self.sense, self.locked) = (None, false);
        if let Some(disc) = self.unseen.take() {
            self.disc = Some(disc);
            self.attentions.clear();
            self.events.clear();
        }
        self.attentions.push_back(code::RESET);
        // Attentions of one kind are told once.
        let mut told = VecDeque::new();
        self.attentions.retain(|what| {
            let new = !told.contains(what);
            told.push_back(*what);
            new
        });
    }
}

/// Puts text into words, the first character into a word's high byte, padded with blanks.
fn put_text(words: &mut [u16], text: &str) {
    let mut characters = text.bytes().chain(std::iter::repeat(b' '));
    for word in words {
        let (high, low) = (characters.next(), characters.next());
        *word = u16::from_be_bytes([high.unwrap_or(b' '), low.unwrap_or(b' ')]);
    }
}

/// The signature, as a device with packets puts it into LBA and COUNT.
const fn with_signature(end: End) -> End {
    End { lba: (signature::ATAPI >> 8) as u64, count: (signature::ATAPI & 0xff) as u16, ..end }
}

/// How a packet ends: I/O and C/D are set; ERROR holds the sense key (ACS §7.17).
const fn packet_end(refused: Option<SenseKey>, bytes: usize) -> End {
    let end = match refused {
        None => End::good(bytes),
        Some(key) => End { bytes, ..End::bad(key.0 << 4 | Error::ABORTED.bits(), 0) },
    };
    End { count: REASON_ENDED as u16, ..end }
}

impl SataDevice for AtapiDrive {
    fn plan(&mut self, command: &Command, now: Instant, _random: &mut Random) -> Result<Plan, End> {
        let aborted = End::bad(Error::ABORTED.bits(), 0);
        let quick = |protocol, bytes| Plan { protocol, bytes, takes: QUICK };
        match command.fis.command {
            command::PACKET => {
                let bytes = self.expected(&command.packet, now);
                let protocol = self.protocol(&command.fis, bytes).ok_or(aborted)?;
                let (lba, sectors) = self.reads(&command.packet).unwrap_or_default();
                let hangs = |at: u32| (lba..lba.saturating_add(sectors)).contains(&at);
                let takes = match sectors {
                    0 => QUICK,
                    _ if self.lies.hangs_at.is_some_and(hangs) => HOURS,
                    _ => SEEK + SECTOR * sectors,
                };
                Ok(Plan { protocol, bytes, takes })
            }
            command::IDENTIFY_PACKET_DEVICE => Ok(quick(Protocol::PioIn, BLOCK_BYTES)),
            command::DEVICE_RESET => Ok(quick(Protocol::NonData, 0)),
            command::SET_FEATURES if self.set_feature(&command.fis) => {
                Ok(quick(Protocol::NonData, 0))
            }
            command::SET_FEATURES => Err(aborted),
            // What disks know is answered with the signature, so that hosts see what it is.
            _ => Err(with_signature(aborted)),
        }
    }

    fn carry_out(
        &mut self,
        command: &Command,
        data: &mut [u8],
        now: Instant,
        _random: &mut Random,
    ) -> End {
        match command.fis.command {
            command::PACKET => match self.execute(&command.packet, data, now) {
                Ok(()) => packet_end(None, data.len()),
                Err((sense, bytes)) => {
                    self.sense = Some(sense);
                    packet_end(Some(sense.key), bytes)
                }
            },
            command::IDENTIFY_PACKET_DEVICE => {
                let identify = self.identify();
                let bytes = data.len().min(identify.len());
                data[..bytes].copy_from_slice(&identify[..bytes]);
                End::good(bytes)
            }
            command::DEVICE_RESET => {
                self.was_reset();
                // Diagnostics passed: ERROR is 1, and STATUS has nothing in it.
                with_signature(End { status: 0, error: 1, ..End::good(0) })
            }
            _ => End::good(0),
        }
    }

    fn reset(&mut self, reset: Reset, now: Instant) -> Report {
        self.was_reset();
        if reset == Reset::PowerOn {
            self.ready_at = now + self.options.load;
        }
        if reset != Reset::Soft {
            (self.notifying, self.notified) = (false, false);
        }
        Report { signature: signature::ATAPI, takes: RESET }
    }

    fn cut_power(&mut self, _now: Instant, _random: &mut Random) {
        self.events.clear();
        self.attentions.clear();
        (self.sense, self.locked) = (None, false);
        (self.notifying, self.notified) = (false, false);
    }

    fn notifies(&mut self, _now: Instant) -> bool {
        std::mem::take(&mut self.notified)
    }

    fn as_any(&mut self) -> &mut dyn core::any::Any {
        self
    }
}

#[cfg(test)]
mod tests;
