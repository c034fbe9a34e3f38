//! A port, as its user sees it.

use super::line::Line;
use heapless::String;

/// A console's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// A port of a console device.
#[derive(Debug)]
pub struct Port {
    /// Whether the device has it.
    pub is_there: bool,
    /// Whether it is a console, rather than a channel for programs.
    pub is_console: bool,
    /// Whether somebody has opened it on the device's side.
    pub is_open: bool,
    /// What the device calls it, as far as that is printable.
    pub name: String<64>,
    /// The console's size, if the device has said it.
    pub size: Option<Size>,
    pub(super) receive: Line,
    pub(super) transmit: Line,
    /// Whether the device was told that it is open on this side.
    pub(super) is_told: bool,
}

impl Port {
    pub(super) const fn new(receive: Line, transmit: Line) -> Self {
        Self {
            is_there: false,
            is_console: false,
            is_open: false,
            name: String::new(),
            size: None,
            receive,
            transmit,
            is_told: false,
        }
    }

    /// Forgets what the device has said. What was received stays.
    pub(super) fn restart(&mut self) {
        (self.is_there, self.is_open, self.is_told) = (false, false, false);
        self.receive.restart();
        self.transmit.restart();
    }

    /// Whether there is something to read.
    pub fn has_received(&self) -> bool {
        self.receive.has_received()
    }
}
