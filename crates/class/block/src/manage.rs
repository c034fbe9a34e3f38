//! What a disk can be asked and told beside its data, whatever kind of disk it is.
//!
//! A [`Management`] travels as a [`Request`](crate::Request) like any other. What it finds out is
//! kept with the unit: [`Features`] in [`Unit`](crate::Unit), and [`Health`] where
//! [`BlockDriver::health`](crate::BlockDriver::health) gives it.

use heapless::Vec;

/// Bytes of a password, padded with zeros.
pub const PASSWORD_BYTES: usize = 32;

/// Something that a disk is asked or told beside its data.
///
/// Settings that a reset of the disk undoes are applied again after it. What destroys data or
/// counts wrong attempts is never issued twice: if nobody knows how it ended, it fails with
/// [`Interrupted`](crate::BlockError::Interrupted). The driver wipes its own copy of a password;
/// the request's memory is the caller's to wipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Management {
    /// Reads what the disk knows of its own health; see [`Health`].
    ReadHealth,
    /// Switches health reporting on or off.
    SetHealth(bool),
    /// Starts a self-test, which goes on by itself, or ends the one that runs.
    SelfTest(SelfTest),
    /// Finds out [`Features::power`] without waking the disk.
    ReadPower,
    /// Saves power at once, or wakes the disk.
    SetPower(Power),
    /// After how many seconds without requests the disk goes to standby by itself; 0 for never.
    /// Rounded up to what the disk can be told.
    SetStandbyTimer(u32),
    /// Advanced power management: from 1 (saves most) to 254 (fastest); 255 switches it off.
    SetPowerLevel(u8),
    /// Switches the volatile write cache on or off.
    SetWriteCache(bool),
    /// Switches reading ahead on or off.
    SetLookAhead(bool),
    /// Opens a disk that is locked by a password. The request's memory holds
    /// [`PASSWORD_BYTES`] bytes.
    Unlock(Password),
    /// Sets a password: the user's locks the disk from the next loss of power on. `maximum`: the
    /// master password then cannot unlock it but by erasing.
    SetPassword {
        /// Which password.
        which: Password,
        /// The security level; only for the user's.
        maximum: bool,
    },
    /// Removes the user's password.
    DisablePassword(Password),
    /// Erases the whole disk, and removes the user's password. It takes as long as
    /// [`Security::erase_minutes`] says, and cannot be stopped.
    Erase {
        /// Which password the memory holds.
        which: Password,
        /// Also what was reallocated, with a pattern of the maker's.
        enhanced: bool,
    },
    /// Refuses all changes of passwords and erasing until the next loss of power.
    FreezeSecurity,
    /// Finds out [`Features::native_sectors`].
    ReadNativeCapacity,
    /// Makes the disk pretend to have so many sectors, for good.
    SetCapacity {
        /// How many sectors there are from then on.
        sectors: u64,
    },
    /// Opens the tray, or lets go of the medium.
    Eject,
    /// Closes the tray.
    Load,
    /// Keeps the medium in, or lets the button eject it again.
    LockMedium(bool),
    /// Lights, or darkens, the locate LED of the disk's place.
    Locate(bool),
    /// Lights, or darkens, the fault LED of the disk's place.
    FaultLight(bool),
    /// How the link saves power by itself while nothing is transferred.
    SetLinkPower(LinkPower),
}

impl Management {
    /// Whether the request's memory holds a password.
    pub const fn takes_password(self) -> bool {
        matches!(
            self,
            Self::Unlock(_)
                | Self::SetPassword { .. }
                | Self::DisablePassword(_)
                | Self::Erase { .. }
        )
    }
}

/// A self-test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SelfTest {
    /// Some minutes.
    Short,
    /// The whole medium: hours.
    Extended,
    /// Damage from transport.
    Conveyance,
    /// Ends the test that runs.
    Abort,
}

/// How much power a disk draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Power {
    /// Not known.
    #[default]
    Unknown,
    /// Ready at once.
    Active,
    /// Ready soon.
    Idle,
    /// Its platters stand still; the next request wakes it.
    Standby,
    /// It answers to nothing but being woken, which resets it.
    Sleep,
}

/// How a link saves power while nothing is transferred, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum LinkPower {
    /// Never: the fastest.
    #[default]
    Full,
    /// Partial: awake within microseconds.
    Partial,
    /// Slumber: awake within milliseconds.
    Slumber,
    /// Slumber, and then device sleep, which takes tens of milliseconds to end.
    DeviceSleep,
}

/// Which password of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Password {
    /// The user's.
    User,
    /// The master password.
    Master,
}

/// Whether something can be switched, and how it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Switch {
    /// The disk does not have it.
    #[default]
    Absent,
    /// It is off.
    Off,
    /// It is on.
    On,
}

impl Switch {
    /// `on`, where it is `supported`.
    pub const fn new(supported: bool, on: bool) -> Self {
        match (supported, on) {
            (false, _) => Self::Absent,
            (true, false) => Self::Off,
            (true, true) => Self::On,
        }
    }

    /// Whether it can be switched.
    pub const fn is_present(self) -> bool {
        !matches!(self, Self::Absent)
    }
}

/// What a unit can do beside transfers, and how it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Health reporting.
    pub health: Switch,
    /// Self-tests can be run.
    pub self_tests: bool,
    /// The volatile write cache.
    pub write_cache: Switch,
    /// Reading ahead.
    pub look_ahead: Switch,
    /// Whether its power can be managed.
    pub power_management: bool,
    /// How much it drew when it was last asked or told. A request wakes it without changing this.
    pub power: Power,
    /// Advanced power management.
    pub advanced_power: Switch,
    /// Its level, while it is on.
    pub power_level: u8,
    /// Passwords.
    pub security: Security,
    /// Sectors that the medium has, if it can pretend to have fewer and was asked.
    pub native_sectors: Option<u64>,
    /// Whether the number of sectors can be set.
    pub capacity: bool,
    /// Whether the medium can be taken out.
    pub removable: bool,
    /// LEDs at the disk's place.
    pub lights: bool,
    /// Generation of the link's speed; 0 if that is not known.
    pub link_speed: u8,
    /// How the link saves power, and the most that it could be told to.
    pub link_power: LinkPower,
    /// Most saving that the link and the disk are capable of.
    pub link_power_most: LinkPower,
}

impl Features {
    /// None at all.
    pub const NONE: Self = Self {
        health: Switch::Absent,
        self_tests: false,
        write_cache: Switch::Absent,
        look_ahead: Switch::Absent,
        power_management: false,
        power: Power::Unknown,
        advanced_power: Switch::Absent,
        power_level: 0,
        security: Security::NONE,
        native_sectors: None,
        capacity: false,
        removable: false,
        lights: false,
        link_speed: 0,
        link_power: LinkPower::Full,
        link_power_most: LinkPower::Full,
    };
}

/// A disk's passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Security {
    /// Whether there are such things.
    pub supported: bool,
    /// A user password is set.
    pub enabled: bool,
    /// Nothing can be read or written until it is unlocked.
    pub locked: bool,
    /// Nothing of this can be changed until the next loss of power.
    pub frozen: bool,
    /// Too many wrong passwords were tried; power has to be cut first.
    pub expired: bool,
    /// The master password can only erase.
    pub maximum: bool,
    /// How long erasing takes, in minutes; 0 if the disk does not say.
    pub erase_minutes: u16,
    /// How long enhanced erasing takes, if it can be done.
    pub enhanced_erase_minutes: Option<u16>,
}

impl Security {
    /// None at all.
    pub const NONE: Self = Self {
        supported: false,
        enabled: false,
        locked: false,
        frozen: false,
        expired: false,
        maximum: false,
        erase_minutes: 0,
        enhanced_erase_minutes: None,
    };
}

/// What a disk knows of its own health.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// The disk's own verdict.
    pub verdict: Verdict,
    /// Degrees Celsius.
    pub temperature: Option<i16>,
    /// Hours under power.
    pub power_on_hours: Option<u64>,
    /// How often it was switched on.
    pub power_cycles: Option<u64>,
    /// Attributes, in the disk's order.
    pub attributes: Vec<Attribute, 30>,
    /// Percent left of the self-test that runs.
    pub running_test: Option<u8>,
    /// Results of self-tests, the newest first.
    pub tests: Vec<TestResult, 21>,
    /// Errors that the disk has counted over its life.
    pub errors: u64,
    /// The last of them, the newest first.
    pub last_errors: Vec<LoggedError, 5>,
    /// Minutes that a short and an extended test take; 0 if the disk cannot, or does not say.
    pub test_minutes: (u16, u16),
}

/// A disk's verdict on itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Verdict {
    /// It does not say.
    #[default]
    Unknown,
    /// It sees no trouble coming.
    Passed,
    /// It expects to fail soon.
    Failing,
}

/// Something that a disk measures on itself, normalised so that less is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute {
    /// Number.
    pub id: u8,
    /// What it is commonly taken for.
    pub name: &'static str,
    /// How it is now.
    pub value: u8,
    /// The lowest that it ever was.
    pub worst: u8,
    /// At or below this the disk is failing or old; 0 for never.
    pub threshold: u8,
    /// Whether crossing the threshold means failure soon, rather than age.
    pub prefailure: bool,
    /// The maker's own figure.
    pub raw: u64,
}

impl Attribute {
    /// Whether it has crossed its threshold.
    pub const fn has_failed(&self) -> bool {
        self.threshold > 0 && self.value <= self.threshold
    }
}

/// How a self-test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestResult {
    /// Which.
    pub test: SelfTest,
    /// How.
    pub outcome: TestOutcome,
    /// Percent that were left when it ended.
    pub left: u8,
    /// Hours under power at that time.
    pub hours: u64,
    /// First sector that failed.
    pub lba: Option<u64>,
}

/// How a self-test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestOutcome {
    /// Nothing was found.
    Passed,
    /// The host ended it.
    Aborted,
    /// A reset ended it.
    Interrupted,
    /// It could not be carried through.
    Fatal,
    /// Something failed.
    Failed,
    /// It is still running.
    Running,
}

/// An error that a disk has noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedError {
    /// Its running number.
    pub number: u64,
    /// Hours under power at that time.
    pub hours: u64,
    /// STATUS and ERROR.
    pub registers: (u8, u8),
    /// Where.
    pub lba: u64,
}
