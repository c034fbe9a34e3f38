//! Setting the device up, and what it says it is.

use super::event::Cause as ResetCause;
use super::recovery::{CHECK_STEP, MOST_RESETS};
use super::slots::Slots;
use super::{Blk, Event, Phase};
use crate::VirtioError;
use crate::queue::Piece;
use crate::sabotage::Sabotage;
use crate::setup::{KNOWN, check_queue, make_queue, negotiate};
use crate::spec::blk::{
    BLK_SIZE, BlkFeatures, CAPACITY, GET_ID, Header, ID_BYTES, MAX_DISCARD_SECTORS,
    MAX_SECURE_ERASE_SECTORS, MAX_WRITE_ZEROES_SECTORS, NUM_QUEUES, PHYSICAL_BLOCK_EXP,
    SECTOR_BYTES, SEG_MAX, SIZE_MAX, STATUS_OK, STATUS_UNSUPPORTED, WRITEBACK,
};
use crate::spec::features::Features;
use crate::spec::status::Status;
use crate::transport::{Transport, read_config};
use outboard_block::manage::{Features as UnitFeatures, Switch};
use outboard_block::{FailedReason, Geometry, Identity, Medium, UnitState};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaBuffer, Segment};

/// The features of rings and transports that the driver knows.
const RINGS: Features = KNOWN.union(Features::RING_RESET);
/// The features of disks that it knows.
const KNOWN_BLK: BlkFeatures = BlkFeatures::all();
/// Those of them that requests rely upon which outlive a reset.
const KEPT_BLK: BlkFeatures = BlkFeatures::FLUSH.union(BlkFeatures::BLK_SIZE);
/// The most bytes of a transfer: a request's bytes have to fit into 32 bits, and a time-out counts
/// for the whole of it.
const MAX_TRANSFER_BYTES: u32 = 16 << 20;
/// The most bytes of a segment, where the device does not say.
const MAX_SEGMENT_BYTES: u32 = 1 << 30;
/// The most segments of a request whose descriptors are all in the ring.
const DIRECT_SEGMENTS: u16 = 30;
/// How often a device that was never asked before is asked for its name before it has none.
const NAME_TRIES: u8 = 2;
/// The most requests of a queue: a legacy device may have a queue of any length.
const MAX_REQUESTS: u16 = 1024;
/// Descriptors of a request beside its data: header and status.
pub(super) const EXTRA_PIECES: u16 = 2;

/// What a device's configuration says, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    capacity: u64,
    segment_bytes: u32,
    segments: u32,
    sector_bytes: u32,
    physical_bytes: u32,
    write_cache: bool,
    queues: u16,
    discard_sectors: u32,
    zero_sectors: u32,
    erase_sectors: u32,
}

impl<T: Transport> Blk<T> {
    /// Whether these features were agreed upon.
    pub(super) const fn has(&self, features: BlkFeatures) -> bool {
        self.features & features.bits() == features.bits()
    }

    /// Whether the disk has said before who it is.
    pub(super) fn is_known(&self) -> bool {
        !self.unit.identity.model.is_empty()
    }

    pub(super) const fn ring_features(&self) -> Features {
        Features::from_bits_retain(self.features)
    }

    /// Sets up a device that was reset, up to the question for its serial number.
    pub(super) fn bring_up(&mut self, now: Instant) {
        let was = self.unit.geometry;
        match self.set_up() {
            Ok(()) => {
                if self.is_known() && was.sectors != self.unit.geometry.sectors {
                    self.note_size(now);
                }
                self.phase = Phase::Identifying;
                self.ask_for_identity(now);
            }
            // It may have been in the middle of something: another reset, and another try.
            Err(error) if self.may_set_up_again(&error) => self.reset(now, ResetCause::SetUp),
            Err(error) => {
                // No bit is ever cleared but by a reset (§2.1.1).
                let status = self.transport.status();
                self.transport.set_status(status | Status::FAILED);
                let reason = match error {
                    VirtioError::Hw(_) => FailedReason::NoMemory,
                    VirtioError::FeaturesRefused | VirtioError::Draft => {
                        FailedReason::Unsupported("a virtio device of another version")
                    }
                    _ => FailedReason::BadIdentity,
                };
                self.give_up(now, reason);
            }
        }
    }

    fn may_set_up_again(&self, error: &VirtioError) -> bool {
        self.resets < MOST_RESETS
            && self.does(Sabotage::SetUps)
            && !matches!(error, VirtioError::Hw(_) | VirtioError::Draft)
    }

    /// The steps of §3.1.1.
    fn set_up(&mut self) -> Result<(), VirtioError> {
        let (status, said) = self.agree()?;
        self.lay_out(&said)?;
        self.transport.start()?;
        for (number, queue) in (0..).zip(&mut self.queues) {
            queue.reset();
            self.transport.enable_queue(number, queue.areas())?;
        }
        self.transport.set_status(status | Status::DRIVER_OK);
        Ok(())
    }

    /// Those of them that come before the queues: how far the device is then, and what it says.
    pub(super) fn agree(&mut self) -> Result<(Status, Said), VirtioError> {
        let known = RINGS.difference(self.config.without).bits() | KNOWN_BLK.bits();
        let kept = RINGS.bits() | KEPT_BLK.bits();
        let laid_out = !self.queues.is_empty() && self.does(Sabotage::Agreement);
        let was = self.features & kept;
        // The queues are laid out; what a device that came back offers beside that is ignored.
        let wanted = if laid_out { known & (!kept | was) } else { known };
        let (features, status) = negotiate(&mut self.transport, |offered| offered & wanted)?;
        if laid_out && features & was != was {
            return Err(VirtioError::FeaturesRefused);
        }
        // What was missed once is missed at the next try, too.
        self.features = features;
        let mut said = self.read()?;
        if self.has(BlkFeatures::CONFIG_WCE | BlkFeatures::FLUSH) {
            // A reset has undone what was switched, and what nobody has written need not be true
            // (QEMU's storage daemon, whose cache is on while it says that it is off).
            let was = self.unit.geometry.write_cache;
            let on = if self.is_known() { was } else { said.write_cache };
            self.transport.set_config_u8(WRITEBACK, on.into());
            said = self.read()?;
        }
        Ok((status, said))
    }

    /// Makes queues and slots, the first time; later the device must have as much room as then.
    fn lay_out(&mut self, said: &Said) -> Result<(), VirtioError> {
        let indirect = self.ring_features().contains(Features::INDIRECT);
        let most = if indirect { self.config.segments } else { DIRECT_SEGMENTS };
        let mut segments = u16::try_from(said.segments).unwrap_or(u16::MAX).min(most).max(1);
        if !self.queues.is_empty() {
            for (number, queue) in (0..).zip(&self.queues) {
                check_queue(&mut self.transport, number, queue)?;
            }
            // Requests that wait were measured by the constraints that were.
            if self.constraints.max_segments > usize::from(segments)
                || self.constraints.max_segment_bytes > said.segment_bytes.into()
            {
                return Err(VirtioError::BadConfig("it takes shorter requests than before"));
            }
            self.describe(said);
            return Ok(());
        }
        let count = said.queues.min(self.config.queues).max(1);
        let (mut depth, dma) = (0, self.transport.dma());
        for number in 0..count {
            // The way to a device may have fewer than the device.
            if number > 0 && self.transport.queue_limit(number) == 0 {
                break;
            }
            let most = self.config.queue_entries;
            let queue = make_queue(&mut self.transport, &*dma, number, most, self.features)?;
            let entries = queue.areas().entries;
            // No request has more descriptors than its queue, in a table neither (§2.7.5.3.1).
            segments = segments.min(entries.saturating_sub(EXTRA_PIECES)).max(1);
            // Without tables a request takes three descriptors, or more.
            let requests = if indirect { entries } else { entries / (EXTRA_PIECES + 1) };
            depth += requests.clamp(1, MAX_REQUESTS);
            self.queues.push(queue);
        }
        if !indirect && self.queues.iter().any(|queue| queue.free() <= EXTRA_PIECES) {
            return Err(VirtioError::NoQueue(0));
        }
        self.slots = Slots::new(&*dma, depth, segments)?;
        self.waiting.reserve(usize::from(depth) + 1);
        self.own.reserve(usize::from(depth) + 1);
        self.constraints = Constraints {
            max_segment_bytes: said.segment_bytes.into(),
            max_segments: segments.into(),
            ..Constraints::NONE
        };
        self.unit.geometry.queue_depth = depth;
        self.describe(said);
        Ok(())
    }

    /// Reads the configuration (§5.2.4).
    fn read(&self) -> Result<Said, VirtioError> {
        let has = |feature| self.has(feature);
        let said = read_config(&self.transport, |config| {
            let when = |feature, offset, other| {
                if has(feature) { config.config_u32(offset) } else { other }
            };
            let sector_bytes = when(BlkFeatures::BLK_SIZE, BLK_SIZE, SECTOR_BYTES);
            let exponent =
                if has(BlkFeatures::TOPOLOGY) { config.config_u8(PHYSICAL_BLOCK_EXP) } else { 0 };
            let physical_bytes = sector_bytes.checked_shl(exponent.into());
            let low = u64::from(config.config_u32(CAPACITY));
            Said {
                capacity: low | u64::from(config.config_u32(CAPACITY + 4)) << 32,
                segment_bytes: when(BlkFeatures::SIZE_MAX, SIZE_MAX, MAX_SEGMENT_BYTES),
                segments: when(BlkFeatures::SEG_MAX, SEG_MAX, 1),
                sector_bytes,
                physical_bytes: physical_bytes.unwrap_or(0),
                write_cache: has(BlkFeatures::FLUSH)
                    && (!has(BlkFeatures::CONFIG_WCE) || config.config_u8(WRITEBACK) != 0),
                queues: if has(BlkFeatures::MULTI_QUEUE) {
                    config.config_u16(NUM_QUEUES)
                } else {
                    1
                },
                discard_sectors: when(BlkFeatures::DISCARD, MAX_DISCARD_SECTORS, 0),
                zero_sectors: when(BlkFeatures::WRITE_ZEROES, MAX_WRITE_ZEROES_SECTORS, 0),
                erase_sectors: when(BlkFeatures::SECURE_ERASE, MAX_SECURE_ERASE_SECTORS, 0),
            }
        });
        let mut said = said.ok_or(VirtioError::RestlessConfig)?;
        let bytes = said.sector_bytes;
        if !bytes.is_power_of_two() || !(SECTOR_BYTES..=64 << 10).contains(&bytes) {
            return Err(VirtioError::BadConfig("its logical sectors have an impossible size"));
        }
        // QEMU's storage daemon offers a limit, and says that it is 0.
        if said.segment_bytes == 0 {
            said.segment_bytes = MAX_SEGMENT_BYTES;
        }
        if said.segment_bytes < bytes || said.segments == 0 {
            return Err(VirtioError::BadConfig("a sector does not fit into a segment"));
        }
        if said.queues == 0 || said.capacity > u64::MAX / u64::from(SECTOR_BYTES) {
            return Err(VirtioError::BadConfig("it has no queues, or too many sectors"));
        }
        if said.physical_bytes < bytes {
            said.physical_bytes = bytes;
        }
        said.segment_bytes = said.segment_bytes.min(MAX_SEGMENT_BYTES);
        Ok(said)
    }

    /// Puts into words what was read.
    fn describe(&mut self, said: &Said) {
        let factor = said.sector_bytes / SECTOR_BYTES;
        let by_segments = u64::from(said.segment_bytes) * self.constraints.max_segments as u64;
        let transfer = u64::from(MAX_TRANSFER_BYTES).min(by_segments);
        let was = self.unit.geometry;
        self.said = Some(*said);
        self.unit.geometry = Geometry {
            sector_bytes: said.sector_bytes,
            physical_sector_bytes: said.physical_bytes,
            sectors: said.capacity / u64::from(factor),
            max_transfer_sectors: (transfer / u64::from(said.sector_bytes)) as u32,
            max_discard_sectors: u64::from(said.discard_sectors / factor),
            max_zero_sectors: u64::from(said.zero_sectors / factor),
            max_erase_sectors: u64::from(said.erase_sectors / factor),
            queue_depth: was.queue_depth,
            write_cache: said.write_cache,
            durable_writes: false,
            read_only: self.has(BlkFeatures::READ_ONLY),
            medium: Medium::Unknown,
        };
        self.plain_bytes = transfer.min(self.constraints.max_segment_bytes);
        let switchable = self.has(BlkFeatures::CONFIG_WCE);
        self.unit.features = UnitFeatures {
            write_cache: Switch::new(switchable, said.write_cache),
            health: Switch::new(self.has(BlkFeatures::LIFETIME), true),
            ..UnitFeatures::NONE
        };
        if was != self.unit.geometry {
            self.changes += 1;
        }
    }

    /// Reads the configuration again: the device has said that it changed (§5.2.5.2).
    pub(super) fn configuration_changed(&mut self, now: Instant) {
        let Ok(said) = self.read() else {
            // It would not be told of again when it makes sense.
            return self.reset(now, ResetCause::SetUp);
        };
        let was = self.unit.geometry;
        // Anything but size and cache would need a reset, and is the device's to ask for.
        if said.sector_bytes == was.sector_bytes {
            self.describe(&said);
            if was.sectors != self.unit.geometry.sectors {
                self.note_size(now);
            }
        }
    }

    fn note_size(&mut self, now: Instant) {
        let sectors = self.unit.geometry.sectors;
        self.events.record(now, Event::Resized { sectors });
        // Whoever has opened it sees another disk: part of it may be gone.
        self.unit.generation += 1;
        self.changes += 1;
    }

    /// Asks for the serial number, in the driver's own slot.
    pub(super) fn ask_for_identity(&mut self, now: Instant) {
        let own = self.slots.own();
        let header = Header { kind: GET_ID.into(), reserved: 0.into(), sector: 0.into() };
        let Some((mut memory, _)) = self.slots.open(own) else { return };
        let Some((header, status)) = memory.begin(&header) else { return };
        let (_, _, address) = memory.table();
        let serial = Segment { address, bytes: ID_BYTES as u64 };
        let pieces = [(header, false), (serial, true), (status, true)];
        let pieces = pieces.map(|(segment, writable)| Piece { segment, writable });
        let queue = match self.phase {
            Phase::Greeting => self.greeting.as_mut(),
            _ => self.queues.first_mut(),
        };
        let Some(queue) = queue else { return };
        let added = queue.add(own, pieces.len() as u16, pieces.into_iter());
        if added.is_ok() && queue.publish() {
            self.transport.notify(0, queue.next_entry());
        }
        self.identifying_since = Some(now);
        self.check_at = Some(now + CHECK_STEP);
    }

    /// Who the device has just said that it is.
    fn answer(&mut self) -> Identity {
        let own = self.slots.own();
        let mut serial = [0; ID_BYTES];
        let status = self.slots.status(own);
        if let Some((mut memory, _)) = self.slots.open(own) {
            let (buffer, at, _): (&mut DmaBuffer, _, _) = memory.table();
            buffer.read_bytes(at, &mut serial);
        }
        identity(if status == STATUS_OK { &serial } else { &[] })
    }

    /// Whether that is who it was.
    pub(super) fn says_the_same(&mut self) -> bool {
        self.answer() == self.unit.identity
    }

    /// Takes the answer: the unit is ready.
    pub(super) fn identified(&mut self, now: Instant) {
        let status = self.slots.status(self.slots.own());
        let enough = if self.is_known() { MOST_RESETS } else { NAME_TRIES };
        if !matches!(status, STATUS_OK | STATUS_UNSUPPORTED) && self.resets < enough {
            return self.reset(now, ResetCause::SetUp);
        }
        let identity = self.answer();
        let same = self.unit.identity == identity || !self.does(Sabotage::Identity);
        if self.is_known() && !same {
            return self.give_up(now, FailedReason::Changed);
        }
        self.unit.identity = identity;
        if self.resets > 0 {
            self.events.record(now, Event::Recovered);
        }
        self.is_ready(now);
    }

    /// Serves requests from here on.
    pub(super) fn is_ready(&mut self, now: Instant) {
        self.phase = Phase::Running;
        (self.identifying_since, self.check_at) = (None, None);
        self.set_state(if self.stopping { UnitState::Stopping } else { UnitState::Ready });
        // What it said meanwhile was about a device that was not known.
        self.look_at_device(now);
    }
}

/// What there is to say of a disk that names itself by a serial number alone.
fn identity(serial: &[u8]) -> Identity {
    let printable = |byte: &&u8| byte.is_ascii_graphic() || **byte == b' ';
    let text = serial.iter().take_while(|byte| **byte != 0).filter(printable);
    let mut identity = Identity::default();
    let _ = identity.model.push_str("virtio disk");
    for byte in text {
        let _ = identity.serial.push(char::from(*byte));
    }
    identity
}
