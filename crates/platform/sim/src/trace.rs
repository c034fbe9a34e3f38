//! What has happened, for whoever replays a seed.

use outboard_hw::Instant;
use std::fmt;

/// A list of what has happened, with the time of each. It costs nothing until it is switched on.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<Vec<String>>,
}

/// So many lines are kept; a trial that has more is not read by anybody.
const MAX_LINES: usize = 1 << 20;

impl Trace {
    /// Switches it on.
    pub fn start(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// Whether it is on.
    pub const fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Notes something.
    pub fn note(&mut self, at: Instant, what: fmt::Arguments<'_>) {
        if let Some(lines) = self.lines.as_mut().filter(|lines| lines.len() < MAX_LINES) {
            lines.push(format!("{at:?} {what}"));
        }
    }

    /// All that was noted.
    pub fn take(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}
