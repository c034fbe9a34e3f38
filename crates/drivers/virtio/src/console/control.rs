//! What is said on the control queue (§5.3.6.2).

use super::{Console, Size};
use crate::spec::console::{
    CONSOLE_PORT, CONTROL_BYTES, CONTROL_RECEIVE, CONTROL_TRANSMIT, Control, DEVICE_ADD,
    DEVICE_READY, DEVICE_REMOVE, PORT_NAME, PORT_OPEN, PORT_READY, RESIZE, Resize,
};
use crate::transport::Transport;
use zerocopy::{FromBytes, IntoBytes};

/// The longest message that is looked at: one with a name.
const MESSAGE_BYTES: usize = CONTROL_BYTES + 64;
/// Messages that wait at most: a device that says more than it listens to is not answered.
const MOST_MESSAGES: usize = 256;

impl<T: Transport> Console<T> {
    /// The device was set up: says that the driver is ready, or takes note of the one port.
    pub(super) fn greet(&mut self) {
        self.messages.clear();
        match &mut self.control {
            Some((receive, transmit)) => {
                receive.restart();
                transmit.restart();
                self.say(0, DEVICE_READY, 1);
            }
            None => {
                if let Some(port) = self.ports.first_mut() {
                    (port.is_there, port.is_console, port.is_open) = (true, true, true);
                }
            }
        }
        self.converse();
    }

    fn say(&mut self, port: u16, event: u16, value: u16) {
        if self.messages.len() < MOST_MESSAGES {
            self.messages.push_back((port, event, value));
        }
    }

    /// Listens to what the device says, and says what there is to say.
    pub(super) fn converse(&mut self) {
        let mut bytes = [0; MESSAGE_BYTES];
        while let Some((receive, _)) = &mut self.control {
            let Some(count) = receive.read_one(&mut bytes) else { break };
            self.heed(&bytes[..count]);
        }
        let Some((receive, transmit)) = &mut self.control else { return };
        if !self.device.is_up() {
            return;
        }
        if receive.offer(&mut self.device.queues[usize::from(CONTROL_RECEIVE)]) {
            self.device.publish(CONTROL_RECEIVE);
        }
        let queue = &mut self.device.queues[usize::from(CONTROL_TRANSMIT)];
        while let Some((port, event, value)) = self.messages.front().copied() {
            let (id, event, value) = (u32::from(port).into(), event.into(), value.into());
            if transmit.send(queue, Control { id, event, value }.as_bytes()) == 0 {
                break;
            }
            self.messages.pop_front();
        }
        self.device.publish(CONTROL_TRANSMIT);
    }

    /// Heeds one message. What makes no sense, or is about a port that nobody uses, is let pass.
    fn heed(&mut self, bytes: &[u8]) {
        let Ok((message, rest)) = Control::read_from_prefix(bytes) else { return };
        let (event, value) = (message.event.get(), message.value.get());
        let Ok(number) = u16::try_from(message.id.get()) else { return };
        let Some(port) = self.ports.get_mut(usize::from(number)) else {
            if event == DEVICE_ADD {
                self.say(number, PORT_READY, 0);
            }
            return;
        };
        match event {
            DEVICE_ADD => {
                port.is_there = true;
                let told = core::mem::replace(&mut port.is_told, true);
                if !told {
                    self.say(number, PORT_READY, 1);
                    self.say(number, PORT_OPEN, 1);
                }
            }
            DEVICE_REMOVE => {
                (port.is_there, port.is_open, port.is_told) = (false, false, false);
            }
            CONSOLE_PORT => port.is_console = true,
            PORT_OPEN => port.is_open = value != 0,
            RESIZE => {
                if let Ok((Resize { cols, rows }, _)) = Resize::read_from_prefix(rest) {
                    port.size = Some(Size { cols: cols.get(), rows: rows.get() });
                }
            }
            PORT_NAME => {
                port.name.clear();
                let printable = rest.iter().take_while(|byte| **byte != 0);
                for byte in printable.filter(|byte| byte.is_ascii_graphic() || **byte == b' ') {
                    // One that is longer than anybody's is cut off.
                    let _ = port.name.push(char::from(*byte));
                }
            }
            _ => {}
        }
    }
}
