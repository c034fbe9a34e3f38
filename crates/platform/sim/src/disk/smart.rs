//! SMART: what it says of its own health (ACS §7, "SMART").

use super::selftest::SelfTests;
use super::store::Store;
use super::{ABORTED, Abilities, Disk, Lies, logs};
use crate::sata::{End, Plan, Protocol};
use core::time::Duration;
use outboard_ahci::spec::ata::BLOCK_BYTES;
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::smart::{
    ATTRIBUTES, Attribute, Data, ErrorCommand, ErrorEntry, ErrorLog, KEY, KEY_FAILING, Threshold,
    Thresholds, offline, subcommand, test,
};
use outboard_hw::Instant;
use zerocopy::{FromZeros, IntoBytes};

const HOUR: Duration = Duration::from_secs(3600);
/// Errors that the log keeps.
const ERRORS: usize = 5;

/// An attribute that it has: number, whether it foretells failure, threshold.
type Kind = (u8, bool, u8);
const RAW_READ_ERRORS: Kind = (1, true, 16);
const REALLOCATED: Kind = (5, true, 10);
const HOURS: Kind = (9, false, 0);
const POWER_CYCLES: Kind = (12, false, 0);
const REPORTED_UNCORRECTABLE: Kind = (187, false, 0);
const AIR_TEMPERATURE: Kind = (190, false, 45);
const TEMPERATURE: Kind = (194, false, 0);
const PENDING: Kind = (197, false, 0);
const OFFLINE_UNCORRECTABLE: Kind = (198, false, 0);
const CRC_ERRORS: Kind = (199, false, 0);
const KINDS: [Kind; 10] = [
    RAW_READ_ERRORS,
    REALLOCATED,
    HOURS,
    POWER_CYCLES,
    REPORTED_UNCORRECTABLE,
    AIR_TEMPERATURE,
    TEMPERATURE,
    PENDING,
    OFFLINE_UNCORRECTABLE,
    CRC_ERRORS,
];

/// An error for the log.
#[derive(Debug, Clone, Copy)]
struct Logged {
    fis: RegisterH2d,
    end: End,
    hours: u16,
    milliseconds: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Smart {
    pub(super) enabled: bool,
    failing: bool,
    temperature: u8,
    /// Hours under power before the clock began.
    hours_before: u64,
    power_cycles: u64,
    crc_errors: u64,
    worst: [u8; KINDS.len()],
    errors: [Option<Logged>; ERRORS],
    error_count: u16,
    powered: Instant,
    pub(super) tests: SelfTests,
}

impl Smart {
    pub(super) fn new() -> Self {
        Self {
            enabled: true,
            failing: false,
            temperature: 31,
            hours_before: 0,
            power_cycles: 0,
            crc_errors: 0,
            worst: [100; KINDS.len()],
            errors: [None; ERRORS],
            error_count: 0,
            powered: Instant::ORIGIN,
            tests: SelfTests::default(),
        }
    }

    /// Power comes.
    pub(super) const fn at_power_on(&mut self, now: Instant) {
        self.power_cycles += 1;
        self.powered = now;
    }

    /// Hours under power.
    pub(super) const fn hours(&self, now: Instant) -> u64 {
        self.hours_before + now.since(Instant::ORIGIN).as_secs() / HOUR.as_secs()
    }

    pub(super) fn abort_test(&mut self, now: Instant) {
        let hours = self.hours(now);
        self.tests.abort(now, hours);
    }

    /// Puts an error into the log.
    pub(super) fn note_error(&mut self, fis: &RegisterH2d, end: &End, now: Instant) {
        let milliseconds = now.since(self.powered).as_millis() as u32;
        let logged = Logged { fis: *fis, end: *end, hours: self.hours(now) as u16, milliseconds };
        self.errors[usize::from(self.error_count) % ERRORS] = Some(logged);
        // The log's index counts on from where it is, whatever the count is.
        self.error_count = self.error_count.wrapping_add(1);
    }

    /// The raw figure of an attribute, and its normalised one.
    fn measure(&self, kind: Kind, store: &Store, now: Instant) -> (u64, u8) {
        let less = |count: u64| 100u64.saturating_sub(count).max(1) as u8;
        let temperature = u64::from(self.temperature);
        match kind {
            RAW_READ_ERRORS => (store.wear.uncorrectable, less(store.wear.uncorrectable)),
            REALLOCATED => (store.wear.reallocated, less(store.wear.reallocated)),
            HOURS => (self.hours(now), less(self.hours(now) / 1000)),
            POWER_CYCLES => (self.power_cycles, 100),
            REPORTED_UNCORRECTABLE => (store.wear.uncorrectable, less(store.wear.uncorrectable)),
            AIR_TEMPERATURE | TEMPERATURE => (temperature, less(temperature)),
            PENDING | OFFLINE_UNCORRECTABLE => (store.pending(), less(store.pending())),
            _ => (self.crc_errors, less(self.crc_errors)),
        }
    }

    /// Whether it expects to fail soon.
    fn is_failing(&self, store: &Store, now: Instant) -> bool {
        let crossed = |kind: &Kind| kind.1 && self.measure(*kind, store, now).1 <= kind.2;
        self.failing || KINDS.iter().any(crossed)
    }

    fn data(&mut self, store: &Store, now: Instant) -> Data {
        let mut data = Data::new_zeroed();
        data.revision.set(16);
        for ((kind, slot), worst) in KINDS.into_iter().zip(&mut data.attributes).zip(0..KINDS.len())
        {
            let (raw, value) = self.measure(kind, store, now);
            // One that is told to fail says it by this one.
            let value = if self.failing && kind == REALLOCATED { 1 } else { value };
            self.worst[worst] = self.worst[worst].min(value);
            let mut attribute = Attribute::new_zeroed();
            attribute.id = kind.0;
            let foretells = if kind.1 { Attribute::PREFAILURE } else { 0 };
            attribute.flags.set(0x0002 | foretells);
            (attribute.value, attribute.worst) = (value, self.worst[worst]);
            attribute.raw.copy_from_slice(&raw.to_le_bytes()[..6]);
            *slot = attribute;
        }
        data.test_status = self.tests.status(now);
        data.offline = offline::EXECUTE | offline::SELF_TESTS | offline::CONVEYANCE;
        data.capability.set(0x0003);
        data.error_logging = 1;
        data
    }

    fn thresholds() -> Thresholds {
        let mut block = Thresholds::new_zeroed();
        block.revision.set(16);
        for (kind, slot) in KINDS.into_iter().zip(&mut block.thresholds) {
            *slot = Threshold { id: kind.0, threshold: kind.2, reserved: [0; 10] };
        }
        block
    }

    /// Summary SMART error log.
    pub(super) fn error_log(&self) -> ErrorLog {
        let mut log = ErrorLog::new_zeroed();
        log.version = 1;
        if let Some(last) = self.error_count.checked_sub(1) {
            log.newest = (usize::from(last) % ERRORS) as u8 + 1;
        }
        log.count.set(self.error_count);
        for (logged, slot) in self.errors.iter().zip(&mut log.errors) {
            let Some(Logged { fis, end, hours, milliseconds }) = logged else { continue };
            let [a, b, c, d, ..] = end.lba.to_le_bytes();
            let mut entry = ErrorEntry::new_zeroed();
            entry.commands[4] = ErrorCommand {
                control: fis.control,
                features: fis.features_low,
                count: fis.count[0],
                lba: fis.lba_low,
                device: fis.device,
                command: fis.command,
                milliseconds: (*milliseconds).into(),
            };
            (entry.error, entry.status, entry.lba) = (end.error, end.status, [a, b, c]);
            entry.device = end.device | d & 0xf;
            entry.state = 3;
            entry.hours.set(*hours);
            *slot = entry;
        }
        log
    }
}

const _: () = assert!(KINDS.len() <= ATTRIBUTES);

impl Disk {
    /// Sets what SMART says of it: that it expects to fail, or what its attributes say.
    pub const fn set_failing(&mut self, failing: bool) {
        self.smart.failing = failing;
    }

    /// Sets its temperature, in °C.
    pub const fn set_temperature(&mut self, celsius: u8) {
        self.smart.temperature = celsius;
    }

    /// Makes it older by hours under power.
    pub const fn age(&mut self, hours: u64) {
        self.smart.hours_before += hours;
    }

    /// Counts a frame that was damaged on the link.
    pub const fn note_crc_error(&mut self) {
        self.smart.crc_errors += 1;
    }

    /// Whether SMART knows of a command, in the state that it is in.
    fn allows_smart(&self, fis: &RegisterH2d) -> bool {
        let keyed = fis.lba_low[1..] == KEY.to_le_bytes();
        let on = self.smart.enabled || u16::from(fis.features_low) == subcommand::ENABLE;
        keyed && on && self.config.has(Abilities::SMART)
    }

    pub(super) fn plan_smart(&mut self, fis: &RegisterH2d) -> Result<Plan, End> {
        if !self.allows_smart(fis) {
            return Err(ABORTED);
        }
        let timing = self.config.timing;
        let mut takes = timing.command;
        let blocks = match u16::from(fis.features_low) {
            subcommand::READ_DATA | subcommand::READ_THRESHOLDS => 1,
            subcommand::READ_LOG => {
                let count = fis.count[0];
                if count == 0 || !self.has_smart_log(fis.lba_low[0], count) {
                    return Err(ABORTED);
                }
                usize::from(count)
            }
            subcommand::EXECUTE_OFFLINE => {
                takes += self.plan_test(fis.lba_low[0])?;
                0
            }
            subcommand::AUTOSAVE
            | subcommand::ENABLE
            | subcommand::DISABLE
            | subcommand::RETURN_STATUS => 0,
            _ => return Err(ABORTED),
        };
        let protocol = if blocks > 0 { Protocol::PioIn } else { Protocol::NonData };
        Ok(Plan { protocol, bytes: blocks * BLOCK_BYTES, takes })
    }

    pub(super) fn carry_out_smart(&mut self, fis: &RegisterH2d, data: &mut [u8]) -> End {
        data.fill(0);
        match u16::from(fis.features_low) {
            subcommand::READ_DATA => {
                let mut block = self.smart.data(&self.store, self.now);
                let minutes = |duration: Duration| duration.as_secs().div_ceil(60);
                let (short, extended) =
                    (self.config.timing.short_test, self.config.timing.extended_test);
                block.short_minutes = minutes(short).clamp(1, 255) as u8;
                block.conveyance_minutes = block.short_minutes;
                block.extended_minutes = minutes(extended).clamp(1, 255) as u8;
                if block.extended_minutes == 255 {
                    block.extended_minutes_wide.set(minutes(extended).min(0xffff) as u16);
                }
                self.seal_into(data, block.as_bytes());
            }
            subcommand::READ_THRESHOLDS => self.seal_into(data, Smart::thresholds().as_bytes()),
            subcommand::READ_LOG => return self.fill_log(fis.lba_low[0], 0, data),
            subcommand::EXECUTE_OFFLINE => return self.execute_test(fis.lba_low[0]),
            subcommand::ENABLE => self.smart.enabled = true,
            subcommand::DISABLE => self.smart.enabled = false,
            subcommand::RETURN_STATUS => {
                let failing = self.smart.is_failing(&self.store, self.now);
                let key = if failing { KEY_FAILING } else { KEY };
                let key = if self.lies.contains(Lies::SMART_VERDICT) { !key } else { key };
                return End { lba: u64::from(key) << 8, ..End::good(0) };
            }
            subcommand::AUTOSAVE => {}
            _ => return ABORTED,
        }
        End::good(data.len())
    }

    /// Copies a block, and makes the sum of its bytes zero, or not if it is told to lie.
    pub(super) fn seal_into(&self, page: &mut [u8], block: &[u8]) {
        page.copy_from_slice(block);
        if let Some(byte) = self.smart_byte {
            page.fill(byte);
        }
        logs::seal(page);
        if self.lies.contains(Lies::SMART_CHECKSUM) {
            page[511] ^= 0x33;
        }
    }

    /// Whether a self-test, or what ends one, is known; returns for how long it makes the disk
    /// busy.
    fn plan_test(&self, code: u8) -> Result<Duration, End> {
        let tests = self.config.has(Abilities::SELF_TESTS);
        match code {
            0 => Ok(Duration::ZERO),
            test::ABORT if tests => Ok(Duration::ZERO),
            code if tests && self.test_duration(code).is_some() => {
                let captive = code & test::CAPTIVE != 0;
                Ok(self.test_duration(code).filter(|_| captive).unwrap_or_default())
            }
            _ => Err(ABORTED),
        }
    }

    /// How long a test takes, if there is such a one.
    fn test_duration(&self, code: u8) -> Option<Duration> {
        let timing = self.config.timing;
        match code & !test::CAPTIVE {
            test::SHORT | test::CONVEYANCE => Some(timing.short_test),
            test::EXTENDED => Some(timing.extended_test),
            _ => None,
        }
    }

    fn execute_test(&mut self, code: u8) -> End {
        let hours = self.smart.hours(self.now);
        if code == 0 {
            return End::good(0);
        }
        self.smart.tests.abort(self.now, hours);
        let Some(takes) = self.test_duration(code) else { return End::good(0) };
        let captive = code & test::CAPTIVE != 0;
        // Its time has passed already, if nothing else could be done meanwhile.
        let started = if captive { Duration::ZERO } else { takes };
        let end = self.now + started;
        self.smart.tests.start(code, end, takes);
        self.advance_test();
        if captive && !self.smart.tests.passed_last() {
            return End { lba: u64::from(KEY_FAILING) << 8, ..ABORTED };
        }
        End::good(0)
    }

    /// Lets the self-test that runs get on.
    pub(super) fn advance_test(&mut self) {
        if self.smart.tests.is_running() {
            let hours = self.smart.hours(self.now);
            self.smart.tests.advance(self.now, hours, self.config.sectors, &self.store);
        }
    }
}
