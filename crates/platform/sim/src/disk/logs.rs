//! Logs (ACS §9).

use super::{ABORTED, Abilities, Disk, Lies};
use crate::sata::{End, Plan, Protocol};
use outboard_ahci::spec::ata::{self, command};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::log::{self, NcqError, identify_page};
use outboard_ahci::spec::smart;
use zerocopy::{FromZeros, IntoBytes};

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

/// Pages of log 30h that there are (ACS §9.11).
const PAGES_OF_IDENTIFY_DATA: u16 = 9;

/// Whether it is the read that ends the state of error after a queued command (SATA §13.6.4).
pub(super) const fn is_queued_failure_read(fis: &RegisterH2d) -> bool {
    matches!(fis.command, command::READ_LOG_EXT | command::READ_LOG_DMA_EXT)
        && Pages::new(fis).log == log::NCQ_ERROR
}

impl Disk {
    /// How many pages a log has; 0 if there is none.
    const fn log_pages(&self, log: u8) -> u16 {
        let smart = self.config.has(Abilities::SMART);
        let tests = smart && self.config.has(Abilities::SELF_TESTS);
        match log {
            log::DIRECTORY => 1,
            log::NCQ_ERROR if self.config.queue_depth > 0 => 1,
            smart::log::ERRORS if smart => 1,
            smart::log::TESTS | smart::log::EXTENDED_TESTS if tests => 1,
            log::IDENTIFY_DEVICE_DATA => PAGES_OF_IDENTIFY_DATA,
            _ => 0,
        }
    }

    /// Whether SMART READ LOG gives so many pages of a log; those for it alone are its own.
    pub(super) const fn has_smart_log(&self, log: u8, count: u8) -> bool {
        let there = count as u16 <= self.log_pages(log);
        there && matches!(log, log::DIRECTORY | smart::log::ERRORS | smart::log::TESTS)
    }

    pub(super) fn plan_read_log(&mut self, fis: &RegisterH2d) -> Result<Plan, End> {
        let Pages { log, first, count } = Pages::new(fis);
        let there = u32::from(first) + u32::from(count) <= u32::from(self.log_pages(log));
        let unreadable = log == log::NCQ_ERROR && self.lies.contains(Lies::QUEUE_LOG_UNREADABLE);
        // These two are for SMART READ LOG alone.
        let of_smart = matches!(log, smart::log::ERRORS | smart::log::TESTS);
        let by_dma = fis.command == command::READ_LOG_DMA_EXT;
        let supported = self.config.has(Abilities::LOGS)
            && (!by_dma || self.config.has(Abilities::LOGS_BY_DMA));
        if !supported || of_smart || count == 0 || !there || unreadable {
            return Err(ABORTED);
        }
        let bytes = usize::from(count) * ata::BLOCK_BYTES;
        let protocol = if by_dma { Protocol::DmaIn } else { Protocol::PioIn };
        Ok(Plan { protocol, bytes, takes: self.config.timing.command })
    }

    pub(super) fn read_log(&mut self, fis: &RegisterH2d, data: &mut [u8]) -> End {
        let Pages { log, first, .. } = Pages::new(fis);
        self.fill_log(log, first, data)
    }

    /// Fills in pages of a log, from `first` on.
    pub(super) fn fill_log(&mut self, log: u8, first: u16, data: &mut [u8]) -> End {
        data.fill(0);
        for (number, page) in (first..).zip(data.chunks_exact_mut(ata::BLOCK_BYTES)) {
            match log {
                log::DIRECTORY => self.directory(page),
                log::NCQ_ERROR => self.queued_failure_page(page),
                smart::log::ERRORS => self.seal_into(page, self.smart.error_log().as_bytes()),
                smart::log::TESTS => self.seal_into(page, self.smart.tests.log().as_bytes()),
                smart::log::EXTENDED_TESTS => {
                    self.seal_into(page, self.smart.tests.extended_log().as_bytes());
                }
                log::IDENTIFY_DEVICE_DATA => self.identify_data_page(number, page),
                _ => return ABORTED,
            }
        }
        End::good(data.len())
    }

    /// How many pages each log has; word 0 is the version (ACS §9.2).
    fn directory(&self, page: &mut [u8]) {
        page[..2].copy_from_slice(&1u16.to_le_bytes());
        for log in 1..=u8::MAX {
            let pages = self.log_pages(log).to_le_bytes();
            page[usize::from(log) * 2..][..2].copy_from_slice(&pages);
        }
    }

    /// A page of the IDENTIFY DEVICE data log; zeros where there is none (ACS §9.11).
    fn identify_data_page(&mut self, number: u16, page: &mut [u8]) {
        const VALID: u64 = 1 << 63;
        const REVISION: u64 = 1;
        let mut set = |offset: usize, value: u64| {
            page[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        };
        let header = VALID | u64::from(number) << 16 | REVISION;
        match number {
            identify_page::SUPPORTED => {
                set(0, header);
                let pages =
                    [identify_page::COPY, identify_page::CAPACITY, identify_page::SERIAL_ATA];
                page[8] = pages.len() as u8 + 1;
                page[10..13].copy_from_slice(&pages.map(|page| page as u8));
            }
            identify_page::COPY => {
                self.identify(page);
            }
            identify_page::CAPACITY => {
                let relation = u64::from(self.config.physical_exponent.min(15)) << 16;
                set(0, header);
                set(8, VALID | self.sectors());
                set(16, VALID | 1 << 62 | 1 << 61 | relation);
                set(24, VALID | u64::from(self.config.sector_bytes / 2));
            }
            identify_page::SERIAL_ATA => {
                set(0, header);
                if self.config.has(Abilities::DEVICE_SLEEP) {
                    // Out of it within 20 ms; the signal is held for 10.
                    set(identify_page::DEVICE_SLEEP_TIMING, VALID | 20 << 8 | 10);
                }
            }
            _ => {}
        }
    }

    /// The page that names the queued command that failed; ends the state of error.
    fn queued_failure_page(&mut self, page: &mut [u8]) {
        self.queue_failed = false;
        let mut log = NcqError::new_zeroed();
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
        *last = ata::checksum(rest);
    }
}
