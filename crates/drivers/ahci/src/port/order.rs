//! Orders: the ATA commands that management is made of.

use super::command::Device;
use crate::config::Timeouts;
use crate::spec::ata::{SET_MAX_KEEP, accessible_max, command, features, standby_timer};
use crate::spec::fis::RegisterH2d;
use crate::spec::security::control;
use crate::spec::smart::{self, log, subcommand, test};
use core::time::Duration;
use heapless::Vec;
use outboard_block::manage::{Features, Management, Password, Power, SelfTest};

/// The most orders in a program.
const MAX_ORDERS: usize = 5;

/// One ATA command, which runs alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Flush,
    Identify,
    CheckPower,
    IdleImmediate,
    StandbyImmediate,
    Sleep,
    StandbyTimer(u8),
    SetFeature {
        subcommand: u16,
        count: u8,
    },
    SmartSwitch(bool),
    SmartStatus,
    SmartData,
    SmartThresholds,
    SmartTests,
    SmartErrors,
    SmartTest(u8),
    /// A security command with a password, and bits of its block.
    Security {
        code: u8,
        control: u16,
    },
    ErasePrepare,
    Freeze,
    NativeMax {
        accessible: bool,
    },
    SetMax {
        accessible: bool,
        sectors: u64,
    },
}

/// What goes through the block that the port has for the driver's own commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// Nothing.
    None,
    /// The device writes it.
    Answer,
    /// A password with these bits, for the device.
    Password(u16),
}

/// The orders that carry out `what`, for a disk whose maximum address is `accessible` or in a host
/// protected area.
pub(super) fn program(what: Management, accessible: bool) -> Vec<Order, MAX_ORDERS> {
    use Order::{
        CheckPower, ErasePrepare, Flush, Freeze, Identify, IdleImmediate, NativeMax, SetMax, Sleep,
        SmartData, SmartErrors, SmartStatus, SmartSwitch, SmartTest, SmartTests, SmartThresholds,
        StandbyImmediate, StandbyTimer,
    };
    let set = |subcommand, count| Order::SetFeature { subcommand, count };
    let secure = |code, which, bits: u16| {
        let master = if which == Password::Master { control::MASTER } else { 0 };
        Order::Security { code, control: master | bits }
    };
    let orders: &[Order] = match what {
        Management::ReadHealth => {
            &[SmartStatus, SmartThresholds, SmartData, SmartTests, SmartErrors]
        }
        Management::SetHealth(on) => &[SmartSwitch(on), Identify],
        Management::SelfTest(which) => &[SmartTest(match which {
            SelfTest::Short => test::SHORT,
            SelfTest::Extended => test::EXTENDED,
            SelfTest::Conveyance => test::CONVEYANCE,
            SelfTest::Abort => test::ABORT,
        })],
        Management::SetPower(Power::Idle | Power::Active) => &[IdleImmediate, CheckPower],
        Management::SetPower(Power::Standby) => &[Flush, StandbyImmediate, CheckPower],
        Management::SetPower(Power::Sleep) => &[Flush, Sleep],
        Management::SetStandbyTimer(seconds) => &[StandbyTimer(standby_timer(seconds))],
        Management::SetPowerLevel(u8::MAX) => &[set(features::DISABLE_ADVANCED_POWER, 0), Identify],
        Management::SetPowerLevel(level) => {
            &[set(features::ENABLE_ADVANCED_POWER, level), Identify]
        }
        Management::SetWriteCache(true) => &[set(features::ENABLE_WRITE_CACHE, 0), Identify],
        Management::SetWriteCache(false) => {
            &[Flush, set(features::DISABLE_WRITE_CACHE, 0), Identify]
        }
        Management::SetLookAhead(true) => &[set(features::ENABLE_LOOK_AHEAD, 0), Identify],
        Management::SetLookAhead(false) => &[set(features::DISABLE_LOOK_AHEAD, 0), Identify],
        Management::Unlock(which) => &[secure(command::SECURITY_UNLOCK, which, 0), Identify],
        Management::SetPassword { which, maximum } => {
            let level = if maximum { control::MAXIMUM } else { 0 };
            &[secure(command::SECURITY_SET_PASSWORD, which, level), Identify]
        }
        Management::DisablePassword(which) => {
            &[secure(command::SECURITY_DISABLE_PASSWORD, which, 0), Identify]
        }
        Management::Erase { which, enhanced } => {
            let mode = if enhanced { control::ENHANCED } else { 0 };
            &[ErasePrepare, secure(command::SECURITY_ERASE_UNIT, which, mode), Identify]
        }
        Management::FreezeSecurity => &[Freeze, Identify],
        Management::ReadNativeCapacity => &[NativeMax { accessible }],
        // The second right after the first (ACS-2 §7, "SET MAX ADDRESS EXT").
        Management::SetCapacity { sectors } => {
            &[Flush, NativeMax { accessible }, SetMax { accessible, sectors }, Identify]
        }
        Management::ReadPower => &[CheckPower],
        // Everything else was refused.
        _ => &[],
    };
    Vec::from_slice(orders).unwrap_or_default()
}

impl Order {
    /// Whether the program goes on if the device aborts it.
    pub(super) const fn is_optional(self) -> bool {
        use Order::{SmartErrors, SmartStatus, SmartTests, SmartThresholds};
        matches!(self, SmartStatus | SmartThresholds | SmartTests | SmartErrors)
    }

    /// Whether it must not be issued twice: it destroys, or the device counts attempts.
    pub(super) const fn is_once(self) -> bool {
        matches!(self, Self::Security { .. } | Self::SetMax { .. })
    }

    /// What goes through the port's own block.
    pub(super) const fn block(self) -> Block {
        match self {
            Self::Identify
            | Self::SmartData
            | Self::SmartThresholds
            | Self::SmartTests
            | Self::SmartErrors => Block::Answer,
            Self::Security { control, .. } => Block::Password(control),
            _ => Block::None,
        }
    }

    /// How long it may take.
    pub(super) fn timeout(self, timeouts: &Timeouts, features: &Features) -> Duration {
        match self {
            Self::Security { code: command::SECURITY_ERASE_UNIT, control: bits } => {
                let enhanced = features.security.enhanced_erase_minutes.unwrap_or_default();
                erase_timeout(match bits & control::ENHANCED {
                    0 => features.security.erase_minutes,
                    _ => enhanced,
                })
            }
            // Any of them may have to wait for platters to turn, or for the cache.
            _ => timeouts.flush.max(timeouts.spin_up),
        }
    }

    /// The command FIS.
    pub(super) fn fis(self, device: &Device) -> RegisterH2d {
        let plain = RegisterH2d::command;
        let smart =
            |subcommand, low| plain(command::SMART).features(subcommand).lba28(smart::address(low));
        match self {
            Self::Flush if device.flush_ext => plain(command::FLUSH_CACHE_EXT),
            Self::Flush => plain(command::FLUSH_CACHE),
            Self::Identify => plain(command::IDENTIFY_DEVICE),
            Self::CheckPower => plain(command::CHECK_POWER_MODE),
            Self::IdleImmediate => plain(command::IDLE_IMMEDIATE),
            Self::StandbyImmediate => plain(command::STANDBY_IMMEDIATE),
            Self::Sleep => plain(command::SLEEP),
            Self::StandbyTimer(count) => plain(command::IDLE).count(count.into()),
            Self::SetFeature { subcommand, count } => {
                plain(command::SET_FEATURES).features(subcommand).count(count.into())
            }
            Self::SmartSwitch(true) => smart(subcommand::ENABLE, 0),
            Self::SmartSwitch(false) => smart(subcommand::DISABLE, 0),
            Self::SmartStatus => smart(subcommand::RETURN_STATUS, 0),
            Self::SmartData => smart(subcommand::READ_DATA, 0).count(1),
            Self::SmartThresholds => smart(subcommand::READ_THRESHOLDS, 0).count(1),
            Self::SmartTests => smart(subcommand::READ_LOG, log::TESTS).count(1),
            Self::SmartErrors => smart(subcommand::READ_LOG, log::ERRORS).count(1),
            Self::SmartTest(which) => smart(subcommand::EXECUTE_OFFLINE, which),
            Self::Security { code, .. } => plain(code),
            Self::ErasePrepare => plain(command::SECURITY_ERASE_PREPARE),
            Self::Freeze => plain(command::SECURITY_FREEZE_LOCK),
            Self::NativeMax { accessible: true } => {
                plain(command::ACCESSIBLE_MAX_ADDRESS).features(accessible_max::GET_NATIVE)
            }
            Self::NativeMax { .. } if device.lba48 => plain(command::READ_NATIVE_MAX_EXT),
            Self::NativeMax { .. } => plain(command::READ_NATIVE_MAX),
            Self::SetMax { accessible, sectors } => {
                let last = sectors.saturating_sub(1);
                match (accessible, device.lba48) {
                    (true, _) => {
                        let set = plain(command::ACCESSIBLE_MAX_ADDRESS);
                        set.features(accessible_max::SET).lba48(last)
                    }
                    (false, true) => plain(command::SET_MAX_EXT).lba48(last).count(SET_MAX_KEEP),
                    (false, false) => plain(command::SET_MAX).lba28(last).count(SET_MAX_KEEP),
                }
            }
        }
    }
}

/// How long erasing may take, for a disk that says so many minutes: twice that and a margin. A disk
/// that does not say, or says no more than that it takes "longer", gets two days; none more than
/// fourteen.
fn erase_timeout(minutes: u16) -> Duration {
    const MINUTE: u64 = 60;
    const DAY: u64 = 24 * 60 * MINUTE;
    /// All that the short format can say: more than 508 minutes.
    const LONGER: u16 = 510;
    let seconds = match minutes {
        0 | LONGER => 2 * DAY,
        minutes => u64::from(minutes) * 2 * MINUTE + 10 * MINUTE,
    };
    Duration::from_secs(seconds.min(14 * DAY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::command::tests::MODERN;
    use zerocopy::IntoBytes;

    fn bytes(order: Order) -> [u8; 14] {
        order.fis(&MODERN).as_bytes()[..14].try_into().unwrap()
    }

    #[test]
    fn commands_carry_their_keys_and_counts() {
        let log = bytes(Order::SmartTests);
        assert_eq!(log, [0x27, 0x80, 0xb0, 0xd5, 6, 0x4f, 0xc2, 0x40, 0, 0, 0, 0, 1, 0]);
        let sectors = 0x0102_0304_0506;
        let hpa = bytes(Order::SetMax { accessible: false, sectors });
        assert_eq!((hpa[2], hpa[4], hpa[10], hpa[12]), (0x37, 5, 1, 1));
        let ama = bytes(Order::SetMax { accessible: true, sectors });
        assert_eq!((ama[2], ama[3], ama[4], ama[12]), (0x78, 1, 5, 0));
    }

    #[test]
    fn erasing_is_prepared_right_before() {
        let erase = Management::Erase { which: Password::Master, enhanced: true };
        let orders = program(erase, false);
        let code = command::SECURITY_ERASE_UNIT;
        assert_eq!(orders[..2], [Order::ErasePrepare, Order::Security { code, control: 3 }]);
        assert!(orders[1].is_once() && !orders[0].is_once());
    }

    #[test]
    fn erasing_is_waited_for_as_long_as_it_takes_but_not_for_ever() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(erase_timeout(60), hours(2) + Duration::from_secs(600));
        assert_eq!((erase_timeout(0), erase_timeout(510)), (hours(48), hours(48)));
        assert_eq!(erase_timeout(65534), hours(14 * 24));
    }
}
