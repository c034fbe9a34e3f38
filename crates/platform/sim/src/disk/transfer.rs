//! Reads, writes, flushes and TRIM.

use super::{ABORTED, Abilities, Depth, Disk, Lies, PowerState, failed, in_28_bits};
use crate::Random;
use crate::sata::{End, Plan, Protocol};
use core::time::Duration;
use outboard_ahci::spec::ata::{self, command};
use outboard_ahci::spec::fis::RegisterH2d;

/// A read or a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) protocol: Protocol,
    pub(super) lba: u64,
    pub(super) sectors: u32,
    /// It goes past the cache.
    forced: bool,
    /// Its address has 48 bits.
    long: bool,
    /// The tag of a queued one.
    tag: u8,
}

impl Transfer {
    /// What the registers say, if they say that.
    pub(super) fn new(fis: &RegisterH2d) -> Option<Self> {
        let (protocol, long) = match fis.command {
            command::READ_DMA => (Protocol::DmaIn, false),
            command::READ_DMA_EXT => (Protocol::DmaIn, true),
            command::WRITE_DMA => (Protocol::DmaOut, false),
            command::WRITE_DMA_EXT | command::WRITE_DMA_FUA_EXT => (Protocol::DmaOut, true),
            command::READ_FPDMA_QUEUED => (Protocol::QueuedIn, true),
            command::WRITE_FPDMA_QUEUED => (Protocol::QueuedOut, true),
            _ => return None,
        };
        // Queued commands have their count in FEATURES, and their tag in COUNT (ACS §7.23.3).
        let queued = protocol.is_queued();
        let count = match (queued, long) {
            (true, _) => u32::from(u16::from_le_bytes([fis.features_low, fis.features_high])),
            (false, true) => u32::from(u16::from_le_bytes(fis.count)),
            (false, false) => u32::from(fis.count[0]),
        };
        let most = if long { ata::MAX_SECTORS_48 } else { ata::MAX_SECTORS_28 };
        let forced = fis.command == command::WRITE_DMA_FUA_EXT
            || queued && fis.device & ata::DEVICE_FUA != 0;
        Some(Self {
            protocol,
            lba: if long { fis.address48() } else { fis.address28() },
            sectors: if count == 0 { most } else { count },
            forced,
            long,
            tag: if queued { fis.count[0] >> 3 } else { 0 },
        })
    }
}

impl Disk {
    pub(super) fn plan_transfer(
        &mut self,
        transfer: &Transfer,
        random: &mut Random,
    ) -> Result<Plan, End> {
        let Transfer { protocol, lba, sectors, .. } = *transfer;
        let queued = protocol.is_queued();
        let known = match (queued, transfer.long) {
            (true, _) => transfer.tag < self.config.queue_depth,
            (false, true) => {
                let fua = self.config.has(Abilities::FUA);
                self.config.has(Abilities::LBA48) && (fua || !transfer.forced)
            }
            (false, false) => true,
        };
        if !known {
            return Err(ABORTED);
        }
        if u64::from(sectors) > self.sectors().saturating_sub(lba) {
            // Addresses behind the end are not found (ACS §6.2.8).
            let end = End::bad(ata::Error::ID_NOT_FOUND.bits(), lba);
            return Err(if transfer.long { end } else { in_28_bits(end) });
        }
        let timing = self.config.timing;
        let moving = timing.sector.saturating_mul(sectors);
        let bytes = sectors as usize * self.config.sector_bytes as usize;
        let woken = self.wake()?;
        let takes = timing.command + woken + seek(timing.seek, random) + moving;
        Ok(Plan { protocol, bytes, takes })
    }

    /// Gets the medium ready; returns how long that takes.
    fn wake(&mut self) -> Result<Duration, End> {
        match self.power.state {
            PowerState::WaitsForSpinUp => Err(ABORTED),
            _ => Ok(self.power.wake(self.config.timing.spin_up, self.now)),
        }
    }

    pub(super) fn transfer(
        &mut self,
        transfer: &Transfer,
        data: &mut [u8],
        random: &mut Random,
    ) -> End {
        // What was planned before the capacity changed does not fit any more.
        if u64::from(transfer.sectors) > self.sectors().saturating_sub(transfer.lba) {
            return End::bad(ata::Error::ID_NOT_FOUND.bits(), transfer.lba);
        }
        let ended = if transfer.protocol.is_out() {
            self.counters.writes += 1;
            let honest = !self.lies.contains(Lies::LOSES_FLUSHED);
            let durable = !self.settings.write_cache || transfer.forced && honest;
            let depth = if durable { Depth::Durable } else { Depth::Cached };
            self.store.write(transfer.lba, data, depth, random)
        } else {
            self.counters.reads += 1;
            self.store.read(transfer.lba, data, random)
        };
        let end = match ended {
            Ok(()) => End::good(data.len()),
            Err(failure) => {
                let sectors = failure.lba.saturating_sub(transfer.lba) as usize;
                failed(failure, sectors * self.config.sector_bytes as usize)
            }
        };
        if transfer.long { end } else { in_28_bits(end) }
    }

    pub(super) fn plan_flush(
        &mut self,
        fis: &RegisterH2d,
        random: &mut Random,
    ) -> Result<Plan, End> {
        let long = fis.command == command::FLUSH_CACHE_EXT;
        if long && !self.config.has(Abilities::FLUSH_EXT) {
            return Err(ABORTED);
        }
        let something = self.store.cached() > 0;
        let flush = if something { seek(self.config.timing.flush, random) } else { Duration::ZERO };
        let woken = if something { self.wake()? } else { Duration::ZERO };
        let takes = self.config.timing.command + woken + flush;
        Ok(Plan { protocol: Protocol::NonData, bytes: 0, takes })
    }

    pub(super) fn flush(&mut self) -> End {
        self.counters.flushes += 1;
        self.write_back()
    }

    /// Makes what is cached durable.
    pub(super) fn write_back(&mut self) -> End {
        if self.lies.contains(Lies::LOSES_FLUSHED) {
            return End::good(0);
        }
        match self.store.flush() {
            Ok(()) => End::good(0),
            Err(failure) => failed(failure, 0),
        }
    }

    pub(super) fn plan_trim(&mut self, fis: &RegisterH2d) -> Result<Plan, End> {
        let features = u16::from_le_bytes([fis.features_low, fis.features_high]);
        let blocks = u16::from_le_bytes(fis.count);
        let trim = features & ata::DSM_TRIM != 0 && self.config.has(Abilities::TRIM);
        if !trim || blocks == 0 || blocks > self.config.trim_blocks {
            return Err(ABORTED);
        }
        let bytes = usize::from(blocks) * ata::BLOCK_BYTES;
        let takes = self.config.timing.command + self.wake()?;
        Ok(Plan { protocol: Protocol::DmaOut, bytes, takes })
    }

    pub(super) fn trim(&mut self, data: &[u8]) -> End {
        self.counters.trims += 1;
        // Each range is an address of 48 bits and a length of 16 (ACS §7.5.3.2).
        let ranges = || {
            data.chunks_exact(8).map(|range| {
                let range = u64::from_le_bytes(range.try_into().unwrap_or_default());
                (range & 0xffff_ffff_ffff, range >> 48)
            })
        };
        let capacity = self.sectors();
        let outside =
            |&(lba, sectors): &(u64, u64)| sectors > 0 && sectors > capacity.saturating_sub(lba);
        if let Some((lba, _)) = ranges().find(outside) {
            return End { lba, ..ABORTED };
        }
        for (lba, sectors) in ranges().filter(|(_, sectors)| *sectors > 0) {
            if let Err(failure) = self.store.trim(lba, sectors) {
                return failed(failure, 0);
            }
        }
        End::good(data.len())
    }
}

/// How long it takes this time, up to `most`.
fn seek(most: Duration, random: &mut Random) -> Duration {
    Duration::from_nanos(random.below((most.as_nanos() as u64).saturating_add(1)))
}
