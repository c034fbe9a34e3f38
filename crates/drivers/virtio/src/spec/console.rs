//! Consoles (§5.3).

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags! {
    /// Features of consoles (§5.3.3).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ConsoleFeatures: u64 {
        /// `cols` and `rows` are valid.
        const SIZE = 1 << 0;
        /// Several ports, and a control queue.
        const MULTIPORT = 1 << 1;
    }
}

/// `cols`: 16 bits (§5.3.4).
pub const COLS: usize = 0;
/// `rows`: 16 bits.
pub const ROWS: usize = 2;
/// `max_nr_ports`: 32 bits.
pub const MAX_NR_PORTS: usize = 4;

/// The queue of control messages from the device (§5.3.2).
pub const CONTROL_RECEIVE: u16 = 2;
/// The queue of control messages to the device.
pub const CONTROL_TRANSMIT: u16 = 3;

/// The queue on which a port receives (§5.3.2). Port 0 comes before the control queues.
pub const fn receive_queue(port: u16) -> u16 {
    if port == 0 { 0 } else { 2 + 2 * port }
}

/// The queue on which it transmits.
pub const fn transmit_queue(port: u16) -> u16 {
    receive_queue(port) + 1
}

/// A control message (§5.3.6.2). A name or a size may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// The port's number.
    pub id: U32,
    /// What it is about.
    pub event: U16,
    /// More of that.
    pub value: U16,
}

/// Bytes of one.
pub const CONTROL_BYTES: usize = 8;

const _: () = assert!(size_of::<Control>() == CONTROL_BYTES);

/// The driver is ready for messages (`VIRTIO_CONSOLE_DEVICE_READY`).
pub const DEVICE_READY: u16 = 0;
/// The device has a port.
pub const DEVICE_ADD: u16 = 1;
/// It has taken a port away.
pub const DEVICE_REMOVE: u16 = 2;
/// The driver is ready to use a port, with 1 as the value.
pub const PORT_READY: u16 = 3;
/// The port is a console.
pub const CONSOLE_PORT: u16 = 4;
/// The console has this size: [`Resize`] follows.
pub const RESIZE: u16 = 5;
/// A port is open on the sender's side, with 1 as the value, or is not.
pub const PORT_OPEN: u16 = 6;
/// The port's name follows.
pub const PORT_NAME: u16 = 7;

/// A console's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Resize {
    /// Columns.
    pub cols: U16,
    /// Rows.
    pub rows: U16,
}

const _: () = assert!(size_of::<Resize>() == 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_queues_are_behind_port_0() {
        let queues = [0, 1, 2].map(|port| (receive_queue(port), transmit_queue(port)));
        assert_eq!(queues, [(0, 1), (4, 5), (6, 7)]);
    }
}
