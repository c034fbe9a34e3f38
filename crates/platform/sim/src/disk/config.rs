//! What kind of disk it is.

use bitflags::bitflags;
use core::time::Duration;

bitflags! {
    /// What a disk is capable of.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Abilities: u32 {
        /// 48-bit addresses; without them there are at most 2^28 - 1 sectors.
        const LBA48 = 1 << 0;
        /// Writes past the cache: FUA.
        const FUA = 1 << 1;
        /// FLUSH CACHE EXT.
        const FLUSH_EXT = 1 << 2;
        /// A volatile write cache.
        const WRITE_CACHE = 1 << 3;
        /// Reading ahead can be switched.
        const LOOK_AHEAD = 1 << 4;
        /// TRIM.
        const TRIM = 1 << 5;
        /// SMART.
        const SMART = 1 << 6;
        /// SMART self-tests and error logs.
        const SELF_TESTS = 1 << 7;
        /// Passwords.
        const SECURITY = 1 << 8;
        /// Standby, idle, sleep.
        const POWER_MANAGEMENT = 1 << 9;
        /// Advanced power management.
        const APM = 1 << 10;
        /// Power-up in standby, and on: it spins up when it is told to.
        const PUIS = 1 << 11;
        /// Host protected area: READ and SET NATIVE MAX ADDRESS.
        const HPA = 1 << 12;
        /// Accessible max address.
        const AMA = 1 << 13;
        /// General purpose logging.
        const LOGS = 1 << 14;
        /// Logs by DMA.
        const LOGS_BY_DMA = 1 << 15;
        /// Word 255 of the identification holds a checksum.
        const CHECKSUM = 1 << 16;
        /// Device sleep of the link.
        const DEVICE_SLEEP = 1 << 17;
        /// Link power management that the device initiates.
        const DIPM = 1 << 18;
        /// Software settings preservation: settings outlive COMRESET.
        const SETTINGS_PRESERVATION = 1 << 19;
        /// Enhanced security erase.
        const ENHANCED_ERASE = 1 << 20;
    }
}

/// What reads return where TRIM was (ACS §7.5.3.3, words 69 and 169).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrimPromise {
    /// Nothing is promised: something else at every read.
    Nothing,
    /// The same at every read (DRAT).
    Deterministic,
    /// Zeros (DRAT and RZAT).
    Zeros,
}

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Every command.
    pub command: Duration,
    /// Each sector that is transferred.
    pub sector: Duration,
    /// Up to this in addition where the medium is touched.
    pub seek: Duration,
    /// A flush of something, at most.
    pub flush: Duration,
    /// From standstill to ready.
    pub spin_up: Duration,
    /// A short self-test, and a conveyance one.
    pub short_test: Duration,
    /// An extended self-test.
    pub extended_test: Duration,
    /// Erasing.
    pub erase: Duration,
}

/// What a disk is built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// Logical sectors.
    pub sectors: u64,
    /// Bytes of a logical sector: 512 or 4096.
    pub sector_bytes: u32,
    /// Logical sectors in a physical one, as an exponent of two.
    pub physical_exponent: u8,
    /// Model number, up to 40 printable characters.
    pub model: String,
    /// Serial number, up to 20.
    pub serial: String,
    /// Firmware revision, up to 8.
    pub firmware: String,
    /// Queued commands at once, up to 32; 0 without native command queuing.
    pub queue_depth: u8,
    /// What it is capable of.
    pub abilities: Abilities,
    /// What reads return where TRIM was.
    pub trim_promise: TrimPromise,
    /// Blocks of ranges in one TRIM.
    pub trim_blocks: u16,
    /// Revolutions a minute; 0 for solid state.
    pub rotation: u16,
    /// Sectors that the write cache has room for.
    pub cache_sectors: usize,
    /// Highest generation of the link, 1 to 3.
    pub generation: u8,
    /// How long things take.
    pub timing: Timing,
}

impl DiskConfig {
    /// A modern disk in solid state, which has everything but a delay at power-up.
    pub fn modern(sectors: u64) -> Self {
        Self {
            sectors,
            sector_bytes: 512,
            physical_exponent: 3,
            model: "OUTBOARD SIMULATED SSD".into(),
            serial: "OBSIM0001".into(),
            firmware: "1.0".into(),
            queue_depth: 32,
            // The two ways of limiting the capacity exclude each other.
            abilities: Abilities::all().difference(Abilities::PUIS | Abilities::HPA),
            trim_promise: TrimPromise::Zeros,
            trim_blocks: 8,
            rotation: 0,
            cache_sectors: 4096,
            generation: 3,
            timing: Timing {
                command: Duration::from_micros(10),
                sector: Duration::from_nanos(100),
                seek: Duration::from_micros(100),
                flush: Duration::from_micros(500),
                spin_up: Duration::from_millis(1),
                short_test: Duration::from_secs(60),
                extended_test: Duration::from_secs(600),
                erase: Duration::from_secs(120),
            },
        }
    }

    /// A disk with platters, which can do all that they can.
    pub fn rotating(sectors: u64) -> Self {
        let modern = Self::modern(sectors);
        let timing = Timing {
            seek: Duration::from_millis(12),
            flush: Duration::from_millis(50),
            spin_up: Duration::from_secs(6),
            short_test: Duration::from_secs(120),
            extended_test: Duration::from_secs(7200),
            erase: Duration::from_secs(7200),
            ..modern.timing
        };
        Self {
            model: "OUTBOARD SIMULATED HDD".into(),
            rotation: 7200,
            abilities: (modern.abilities | Abilities::HPA)
                .difference(Abilities::TRIM | Abilities::AMA | Abilities::DEVICE_SLEEP),
            timing,
            ..modern
        }
    }

    /// A disk of the first generation: no queue, no 48-bit addresses, no logs, no checksum.
    pub fn ancient(sectors: u64) -> Self {
        let abilities = Abilities::WRITE_CACHE | Abilities::LOOK_AHEAD;
        Self {
            model: "OUTBOARD SIMULATED OLD DISK".into(),
            abilities: abilities | Abilities::SMART | Abilities::POWER_MANAGEMENT,
            queue_depth: 0,
            physical_exponent: 0,
            generation: 1,
            ..Self::rotating(sectors)
        }
    }

    /// The same without some abilities.
    pub fn without(self, abilities: Abilities) -> Self {
        Self { abilities: self.abilities.difference(abilities), ..self }
    }

    /// Whether it is capable of all of `abilities`.
    pub const fn has(&self, abilities: Abilities) -> bool {
        self.abilities.contains(abilities)
    }
}
