//! The log of what happens.

use outboard_hw::Instant;

/// Events that are printed in a second; the rest is counted.
const EVENTS_A_SECOND: u32 = 10;

/// Prints what happens at drivers and clients, but not more than makes a log of use: neither a
/// device nor a client can flood it.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    second: u64,
    printed: u32,
    dropped: u64,
}

impl EventLog {
    pub(crate) fn log(&mut self, at: Instant, disk: &str, event: &dyn std::fmt::Display) {
        let second = at.as_nanos() / 1_000_000_000;
        if second != self.second {
            if self.dropped > 0 {
                tracing::warn!("{} more events", self.dropped);
            }
            (self.second, self.printed, self.dropped) = (second, 0, 0);
        }
        if self.printed < EVENTS_A_SECOND {
            self.printed += 1;
            tracing::info!("{disk}: {event}");
        } else {
            self.dropped += 1;
        }
    }
}
