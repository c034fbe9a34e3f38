//! What a device has to be told before it can be used, or put to sleep: commands of the driver's
//! own, one after the other.

use super::memory::Data;
use super::startup::INTERNAL_SLOT;
use super::{Context, Port, State};
use crate::config::limit;
use crate::event::Event;
use crate::spec::ata::{command, features, sata_feature};
use crate::spec::fis::RegisterH2d;
use crate::spec::log::{IDENTIFY_DATA, IDENTIFY_DATA_SATA, SleepTiming};
use crate::spec::registers::PX_CI;
use outboard_block::manage::LinkPower;
use outboard_block::{Completion, FailedReason};
use outboard_hw::registers::RegistersExt;
use outboard_hw::{Instant, Registers};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prepare {
    /// The device, in standby since it got power, is told to spin up (ACS §7.45.13).
    SpinUp,
    /// Reading how long it takes to fall asleep and to wake.
    Timing,
    /// It did not answer that; the engine is started again.
    Restart,
    /// Letting it be put to sleep.
    Sleep,
    /// Bringing the engine to rest, in which alone the times may be set.
    Settle,
}

impl<R: Registers> Port<R> {
    fn prepare_by(&mut self, step: Prepare, context: &Context<'_>) {
        let until = context.now
            + match step {
                Prepare::SpinUp => context.config.timeouts.spin_up,
                Prepare::Timing | Prepare::Sleep => context.config.timeouts.transfer,
                Prepare::Restart | Prepare::Settle => limit::ENGINE,
            };
        self.enter(State::Preparing { step, until }, context.now);
    }

    /// Issues a command of the driver's own without data.
    fn issue_plain(&mut self, fis: &RegisterH2d) {
        if let Some(memory) = &mut self.memory {
            memory.prepare(INTERNAL_SLOT, fis, false, Data::None);
            self.registers.set(PX_CI, 1 << INTERNAL_SLOT);
        }
    }

    /// Tells a device that waits in standby to spin up.
    pub(super) fn begin_spin_up(&mut self, context: &Context<'_>) {
        self.record(context, Event::SpinUp);
        let fis = RegisterH2d::command(command::SET_FEATURES);
        self.issue_plain(&fis.features(features::SPIN_UP));
        self.prepare_by(Prepare::SpinUp, context);
    }

    /// The device was identified, and is at rest: gets it ready, now or after it has been told to
    /// let itself be put to sleep.
    pub(super) fn get_ready(&mut self, context: &Context<'_>) {
        if self.link.power == LinkPower::DeviceSleep && !self.link.sleep_enabled {
            self.begin_sleep_setup(context);
        } else {
            self.become_ready(context);
        }
    }

    /// Finds out how the device sleeps, and lets it. Nothing is in flight.
    pub(super) fn begin_sleep_setup(&mut self, context: &Context<'_>) {
        self.registers
            .set(crate::spec::registers::PX_IE, crate::spec::registers::PortInterrupts::empty());
        self.link.timing = SleepTiming::DEFAULT;
        if !self.device.logs {
            return self.allow_sleep(context);
        }
        let read = RegisterH2d::command(command::READ_LOG_EXT);
        // Log address in LBA 7:0, page in LBA 15:8, one block (ACS §7.22.3).
        let address = u64::from(IDENTIFY_DATA_SATA) << 8 | u64::from(IDENTIFY_DATA);
        self.issue_internal(&read.lba48(address).count(1));
        self.prepare_by(Prepare::Timing, context);
    }

    fn allow_sleep(&mut self, context: &Context<'_>) {
        let fis = RegisterH2d::command(command::SET_FEATURES);
        let fis = fis.features(features::ENABLE_SATA).count(sata_feature::DEVICE_SLEEP);
        self.issue_plain(&fis);
        self.prepare_by(Prepare::Sleep, context);
    }

    pub(super) fn await_prepared(
        &mut self,
        step: Prepare,
        until: Instant,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        let ended = match step {
            Prepare::Restart | Prepare::Settle => self.is_stopped().then_some(true),
            Prepare::SpinUp | Prepare::Timing | Prepare::Sleep => self.internal_ended(),
        };
        let Some(well) = ended else {
            if !context.now.reached(until) {
                self.look_at = Some(context.now + limit::LOOK);
                return;
            }
            // A device that does not answer this is not asked for it again.
            self.refuse_sleep(context);
            return self.reset_again(FailedReason::GivenUp, context, done);
        };
        match step {
            Prepare::SpinUp if well => self.begin_identify(context),
            Prepare::SpinUp => self.reset_again(FailedReason::BadIdentity, context, done),
            Prepare::Timing if well => {
                let page = self.memory.as_ref().map(|memory| memory.internal());
                self.link.timing = page.map_or(SleepTiming::DEFAULT, |page| SleepTiming::of(&page));
                self.allow_sleep(context);
            }
            Prepare::Timing => self.prepare_by(Prepare::Restart, context),
            Prepare::Restart if self.start_engine(context) => self.allow_sleep(context),
            Prepare::Sleep => {
                self.link.sleep_enabled = well;
                if !well {
                    self.refuse_sleep(context);
                }
                self.prepare_by(Prepare::Settle, context);
            }
            Prepare::Settle => {
                if self.link.sleep_enabled {
                    self.set_sleep_timing();
                }
                match self.start_engine(context) {
                    true => self.become_ready(context),
                    false => self.reset_again(FailedReason::GivenUp, context, done),
                }
            }
            Prepare::Restart => self.reset_again(FailedReason::GivenUp, context, done),
        }
    }

    /// The device cannot be put to sleep after all.
    fn refuse_sleep(&mut self, context: &Context<'_>) {
        if self.link.power == LinkPower::DeviceSleep {
            self.link.most = LinkPower::Slumber;
            self.link.power = LinkPower::Slumber;
            self.link.sleep_refused = true;
            self.record(context, Event::NoDeviceSleep);
        }
    }
}
