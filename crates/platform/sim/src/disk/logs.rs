//! Logs (ACS §9).

use super::{ABORTED, Abilities, Disk, Lies};
use crate::sata::{End, Plan, Protocol};
use outboard_ahci::spec::ata::{self, command};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::log::{self, NcqError};
use zerocopy::IntoBytes;

/// A queued command that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueuedFailure {
    pub(super) tag: u8,
    pub(super) device: u8,
    pub(super) end: End,
}

/// Which pages of which log are to be read.
#[derive(Debug, Clone, Copy)]
struct Pages {
    log: u8,
    first: u16,
    count: u16,
}

impl Pages {
    /// The log is in LBA 7:0, the page in LBA 39:32 and 15:8 (ACS §7.22.3).
    const fn new(fis: &RegisterH2d) -> Self {
        let first = u16::from_le_bytes([fis.lba_low[1], fis.lba_high[1]]);
        Self { log: fis.lba_low[0], first, count: u16::from_le_bytes(fis.count) }
    }
}

/// Whether it is the read that ends the state of error after a queued command (SATA §13.6.4).
pub(super) const fn is_queued_failure_read(fis: &RegisterH2d) -> bool {
    fis.command == command::READ_LOG_EXT && Pages::new(fis).log == log::NCQ_ERROR
}

impl Disk {
    /// How many pages a log has; 0 if there is none.
    const fn log_pages(&self, log: u8) -> u16 {
        match log {
            log::NCQ_ERROR if self.config.queue_depth > 0 => 1,
            _ => 0,
        }
    }

    pub(super) fn plan_read_log(&mut self, fis: &RegisterH2d) -> Result<Plan, End> {
        let Pages { log, first, count } = Pages::new(fis);
        let there = u32::from(first) + u32::from(count) <= u32::from(self.log_pages(log));
        let unreadable = log == log::NCQ_ERROR && self.lies.contains(Lies::QUEUE_LOG_UNREADABLE);
        if !self.config.has(Abilities::LOGS) || count == 0 || !there || unreadable {
            return Err(ABORTED);
        }
        let bytes = usize::from(count) * ata::BLOCK_BYTES;
        Ok(Plan { protocol: Protocol::PioIn, bytes, takes: self.config.timing.command })
    }

    pub(super) fn read_log(&mut self, fis: &RegisterH2d, data: &mut [u8]) -> End {
        let Pages { log, first, .. } = Pages::new(fis);
        data.fill(0);
        for (_, page) in (first..).zip(data.chunks_exact_mut(ata::BLOCK_BYTES)) {
            match log {
                log::NCQ_ERROR => self.queued_failure_page(page),
                _ => return ABORTED,
            }
        }
        End::good(data.len())
    }

    /// The page that names the queued command that failed; ends the state of error.
    fn queued_failure_page(&mut self, page: &mut [u8]) {
        self.queue_failed = false;
        let mut log = NcqError {
            tag: 0,
            reserved: 0,
            status: 0,
            error: 0,
            lba_low: [0; 3],
            device: 0,
            lba_high: [0; 3],
            reserved_after: 0,
            count: [0; 2],
            sense: [0; 3],
            rest: [0; 494],
            checksum: 0,
        };
        if let Some(QueuedFailure { tag, device, end }) = self.failure {
            let lba =
                if self.lies.contains(Lies::QUEUE_LOG_WRONG_SECTOR) { !end.lba } else { end.lba };
            let [a, b, c, d, e, f, ..] = lba.to_le_bytes();
            let wrong_tag = self.lies.contains(Lies::QUEUE_LOG_WRONG_TAG);
            let not_queued = self.lies.contains(Lies::QUEUE_LOG_NOT_QUEUED);
            log.tag = if wrong_tag { tag ^ 1 } else { tag } | u8::from(not_queued) << 7;
            (log.status, log.error, log.device) = (end.status, end.error, device);
            (log.lba_low, log.lba_high) = ([a, b, c], [d, e, f]);
            log.count = end.count.to_le_bytes();
        } else {
            log.tag = 1 << 7;
        }
        page.copy_from_slice(log.as_bytes());
        seal(page);
        if self.lies.contains(Lies::QUEUE_LOG_CHECKSUM) {
            page[511] ^= 0x55;
        }
    }
}

/// Makes the sum of a page's bytes zero by its last one.
pub(super) fn seal(page: &mut [u8]) {
    if let Some((last, rest)) = page.split_last_mut() {
        *last = rest.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    }
}
