//! What the user has set and a reset of the disk undoes: applied again after each.

use super::order::Order;
use super::{Context, Port, State};
use crate::event::Event;
use crate::spec::ata::features;
use core::fmt;
use outboard_block::Completion;
use outboard_block::manage::{Features, Management, Switch};
use outboard_hw::{Instant, Registers};

/// A setting that a disk loses in a reset, or may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// The volatile write cache.
    WriteCache,
    /// Reading ahead.
    LookAhead,
    /// The level of advanced power management.
    PowerLevel,
    /// The standby timer.
    StandbyTimer,
    /// That passwords cannot be changed.
    Freeze,
}

impl Setting {
    const ALL: [Self; 5] =
        [Self::WriteCache, Self::LookAhead, Self::PowerLevel, Self::StandbyTimer, Self::Freeze];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteCache => "write cache",
            Self::LookAhead => "look-ahead",
            Self::PowerLevel => "power level",
            Self::StandbyTimer => "standby timer",
            Self::Freeze => "freezing of passwords",
        })
    }
}

/// What the user has set, as far as a reset undoes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Settings {
    write_cache: Option<bool>,
    look_ahead: Option<bool>,
    power_level: Option<u8>,
    /// As COUNT of the command.
    standby_timer: Option<u8>,
    freeze: bool,
    /// Bits of the settings that the disk may have lost since its last reset.
    doubtful: u8,
}

impl Settings {
    /// Remembers what was done.
    pub(super) fn remember(&mut self, what: Management) {
        match what {
            Management::SetWriteCache(on) => self.write_cache = Some(on),
            Management::SetLookAhead(on) => self.look_ahead = Some(on),
            Management::SetPowerLevel(level) => self.power_level = Some(level),
            Management::SetStandbyTimer(seconds) => {
                self.standby_timer = Some(crate::spec::ata::standby_timer(seconds));
            }
            Management::FreezeSecurity => self.freeze = true,
            _ => {}
        }
    }

    /// The disk was reset, and may have lost them all.
    pub(super) const fn doubt(&mut self) {
        self.doubtful = u8::MAX;
    }

    /// The next setting that the disk may have lost and that is not as the user has set it, with
    /// the order that sets it.
    fn next_lost(&self, features: &Features) -> Option<(Setting, Order)> {
        let doubtful = Setting::ALL.into_iter().filter(|s| self.doubtful & s.bit() != 0);
        doubtful.into_iter().find_map(|setting| Some((setting, self.lost(setting, features)?)))
    }

    /// The order that sets `setting` again, if it has to be.
    fn lost(&self, setting: Setting, features: &Features) -> Option<Order> {
        let switch = |wanted: Option<bool>, is: Switch, on: u16, off: u16| {
            let wanted = wanted.filter(|wanted| is == Switch::new(true, !wanted))?;
            Some(Order::SetFeature { subcommand: if wanted { on } else { off }, count: 0 })
        };
        match setting {
            Setting::WriteCache => switch(
                self.write_cache,
                features.write_cache,
                features::ENABLE_WRITE_CACHE,
                features::DISABLE_WRITE_CACHE,
            ),
            Setting::LookAhead => switch(
                self.look_ahead,
                features.look_ahead,
                features::ENABLE_LOOK_AHEAD,
                features::DISABLE_LOOK_AHEAD,
            ),
            Setting::PowerLevel => match (self.power_level?, features.advanced_power) {
                (u8::MAX, Switch::On) => {
                    let subcommand = features::DISABLE_ADVANCED_POWER;
                    Some(Order::SetFeature { subcommand, count: 0 })
                }
                (u8::MAX, _) | (_, Switch::Absent) => None,
                (level, Switch::On) if level == features.power_level => None,
                (level, Switch::On | Switch::Off) => {
                    let subcommand = features::ENABLE_ADVANCED_POWER;
                    Some(Order::SetFeature { subcommand, count: level })
                }
            },
            // The disk does not say how it is set.
            Setting::StandbyTimer => self.standby_timer.map(Order::StandbyTimer),
            // A locked disk cannot be frozen without keeping its owner out.
            Setting::Freeze => {
                let security = &features.security;
                let lost = self.freeze && !security.frozen && !security.locked;
                lost.then_some(Order::Freeze)
            }
        }
    }

    /// It was applied again.
    fn applied(&mut self, setting: Setting) {
        self.doubtful &= !setting.bit();
    }

    /// The disk does not take it any more.
    fn forget(&mut self, setting: Setting) {
        match setting {
            Setting::WriteCache => self.write_cache = None,
            Setting::LookAhead => self.look_ahead = None,
            Setting::PowerLevel => self.power_level = None,
            Setting::StandbyTimer => self.standby_timer = None,
            Setting::Freeze => self.freeze = false,
        }
    }
}

impl<R: Registers> Port<R> {
    /// Applies the next setting that the disk has lost; whether there was one.
    pub(super) fn restore_next(&mut self, context: &Context<'_>) -> bool {
        let lost = self.manager.settings.next_lost(&self.unit.features);
        let Some((setting, order)) = lost else { return false };
        let timeout = order.timeout(&context.config.timeouts, &self.unit.features);
        self.issue_internal(&order.fis(&self.device));
        let until = context.now + timeout;
        self.enter(State::Restoring { setting, until }, context.now);
        true
    }

    /// Waits until a setting is applied, then has a look whether it is.
    pub(super) fn await_restored(
        &mut self,
        setting: Setting,
        until: Instant,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        match self.internal_ended_by(until, context) {
            None => {}
            Some(true) => {
                self.record(context, Event::Restored(setting));
                self.manager.settings.applied(setting);
                self.begin_identify(context);
            }
            Some(false) => {
                self.record(context, Event::NotRestored(setting));
                // Not once more: then it would never end.
                self.manager.settings.forget(setting);
                self.reset_again(outboard_block::FailedReason::GivenUp, context, done);
            }
        }
    }
}
