//! An enclosure with LEDs (AHCI §12).

use outboard_ahci::spec::registers::{EnclosureControl, EnclosureLocation, LedMessage};

/// Where its buffer is, behind the registers of the last port that there may be.
pub(crate) const BUFFER: usize = 0x1100;

/// The enclosure of an HBA that says it has one (CAP.EMS).
#[derive(Debug, Clone, Default)]
pub struct Enclosure {
    /// Where it says that its buffer is, in dwords; 0 for where it is.
    pub claims_dwords: u16,
    /// It takes no message until it was reset so often.
    pub stuck: u32,
    /// How often it was reset.
    pub resets: u32,
    /// The messages that it got.
    pub messages: Vec<LedMessage>,
    buffer: [u32; LedMessage::DWORDS as usize],
    transmitting: bool,
}

impl Enclosure {
    pub(super) const fn location(&self) -> EnclosureLocation {
        let place = BUFFER as u16 / 4;
        let offset = if self.claims_dwords == 0 { place } else { self.claims_dwords };
        EnclosureLocation::new().with_size_dwords(LedMessage::DWORDS).with_offset_dwords(offset)
    }

    pub(super) const fn control(&self) -> EnclosureControl {
        EnclosureControl::new().with_led(true).with_transmit(self.transmitting)
    }

    pub(super) fn write_control(&mut self, control: EnclosureControl) {
        if control.reset() {
            (self.transmitting, self.resets) = (false, self.resets + 1);
            self.stuck = self.stuck.saturating_sub(1);
        }
        self.transmitting |= control.transmit();
    }

    pub(super) fn write_buffer(&mut self, offset: usize, value: u32) {
        if let Some(dword) = self.buffer.get_mut(offset / 4) {
            *dword = value;
        }
    }

    /// Sends the message that is to be sent; whether it was none.
    pub(super) fn send(&mut self) -> bool {
        if !self.transmitting || self.stuck > 0 {
            return false;
        }
        self.transmitting = false;
        let message = LedMessage::from_dwords(self.buffer);
        self.messages.extend(message);
        message.is_none()
    }
}
