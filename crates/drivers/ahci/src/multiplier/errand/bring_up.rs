//! Bringing up the link of a device port, until the device has reported.

use super::{COMRESET, Errand, Next, QUIET, status_of};
use crate::config::limit;
use crate::multiplier::Multiplier;
use crate::port::Context;
use crate::spec::multiplier::port as of_port;
use crate::spec::registers::{ALL_ONES, SataControl, SataStatus, serial_error};
use outboard_hw::{Instant, Registers};

/// The step that was begun last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::multiplier) enum BringUp {
    Begun,
    LookBack,
    Reset,
    Hold,
    Release,
    Wait { until: Instant },
    Look { until: Instant },
    ClearErrors { status: u32 },
    AskAgain,
    BeginSoftReset,
    HoldSoftReset,
    EndSoftReset,
}

impl<R: Registers> Multiplier<R> {
    /// A step has ended, with this value; what comes next, if anything.
    pub(super) fn advance_link(
        &mut self,
        device: u8,
        step: BringUp,
        value: u32,
        context: &Context<'_>,
    ) -> Option<(Errand, Next)> {
        let write = |value: SataControl| {
            let value = value.into();
            Next::Write { port: device, register: of_port::CONTROL, value }
        };
        let pause = |time| Next::Pause { until: context.now + time };
        let (step, next) = match step {
            BringUp::Begun => {
                let read = Next::Read { port: device, register: of_port::ERROR };
                (BringUp::LookBack, read)
            }
            BringUp::LookBack => {
                // The reset takes the traces away.
                let behind = self.behind(device)?;
                if value & serial_error::EXCHANGED != 0 && !behind.reset {
                    behind.port.doubt_cache();
                }
                behind.reset = true;
                (BringUp::Reset, write(COMRESET))
            }
            BringUp::Reset => (BringUp::Hold, pause(limit::COMRESET)),
            BringUp::Hold => (BringUp::Release, write(QUIET)),
            BringUp::Release => {
                let until = context.now + limit::PRESENCE;
                (BringUp::Wait { until }, pause(limit::LOOK * 2))
            }
            BringUp::Wait { until } => (BringUp::Look { until }, status_of(device)),
            BringUp::Look { until } => {
                let detection = SataStatus::from(value).detection();
                if detection == SataStatus::COMMUNICATION {
                    if self.switching {
                        self.memory.forget_received(device);
                    }
                    let clear =
                        Next::Write { port: device, register: of_port::ERROR, value: ALL_ONES };
                    (BringUp::ClearErrors { status: value }, clear)
                } else if context.now.reached(until) {
                    // What comes later is seen by whoever watches.
                    self.behind(device)?.face.link_was_tried();
                    return None;
                } else {
                    (BringUp::Wait { until }, pause(limit::LOOK_SLOWLY))
                }
            }
            BringUp::ClearErrors { status } => {
                let switching = self.switching;
                let behind = self.behind(device)?;
                behind.reset = false;
                behind.face.link_is(status);
                if switching {
                    // A software reset is nothing for FIS-based switching (AHCI §9.3.9), nor is it
                    // needed: the first frame, which DIAG.X has held back, comes by itself.
                    behind.face.link_was_tried();
                    (behind.tries, behind.awaited) = (0, true);
                    return None;
                }
                (BringUp::BeginSoftReset, Next::BeginSoftReset { device })
            }
            BringUp::AskAgain => (BringUp::BeginSoftReset, Next::BeginSoftReset { device }),
            BringUp::BeginSoftReset => {
                (BringUp::HoldSoftReset, Next::Hold { until: context.now + limit::LOOK })
            }
            BringUp::HoldSoftReset => (BringUp::EndSoftReset, Next::EndSoftReset { device }),
            BringUp::EndSoftReset => {
                let behind = self.behind(device)?;
                // Unless its port has begun to reset it meanwhile.
                if behind.face.link() != 0 {
                    behind.face.link_was_tried();
                    behind.tries = 0;
                    behind.face.reported(value);
                }
                return None;
            }
        };
        Some((Errand::BringUp { device, step }, next))
    }
}
