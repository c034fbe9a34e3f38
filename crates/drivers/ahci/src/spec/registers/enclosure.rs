//! Registers and messages of enclosure management (AHCI §3.1.7, §3.1.8, §12).

use bitfield_struct::bitfield;

/// Where the enclosure management buffers are (AHCI §3.1.7).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct EnclosureLocation {
    /// SZ: size of the transmit buffer in dwords; the receive buffer, if any, follows it. 0 is
    /// invalid.
    pub size_dwords: u16,
    /// OFST: where the transmit buffer starts behind ABAR, in dwords.
    pub offset_dwords: u16,
}

/// Enclosure management control (AHCI §3.1.8).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct EnclosureControl {
    /// STS.MR: a message was received; write 1 to clear.
    pub received: bool,
    #[bits(7)]
    __: u8,
    /// CTL.TM: transmit the message in the buffer; reads 1 until that is done.
    pub transmit: bool,
    /// CTL.RST: reset the enclosure management; reads 1 until that is done.
    pub reset: bool,
    #[bits(6)]
    __: u8,
    /// SUPP.LED: LED messages.
    pub led: bool,
    /// SUPP.SAFTE: SAF-TE messages.
    pub saf_te: bool,
    /// SUPP.SES2: SES-2 messages.
    pub ses: bool,
    /// SUPP.SGPIO: SGPIO registers as messages.
    pub sgpio: bool,
    #[bits(4)]
    __: u8,
    /// ATTR.SMB: one buffer for both directions.
    pub single_buffer: bool,
    /// ATTR.XMT: messages are only transmitted.
    pub transmit_only: bool,
    /// ATTR.ALHD: the HBA drives the activity LED by itself.
    pub activity_by_hardware: bool,
    /// ATTR.PM: messages can name devices behind port multipliers.
    pub port_multiplier: bool,
    #[bits(4)]
    __: u8,
}

/// An LED message (AHCI §12.2.1): what the LEDs at one port show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedMessage {
    /// The port.
    pub port: u8,
    /// The locate LED is lit.
    pub locate: bool,
    /// The fault LED is lit.
    pub fault: bool,
}

impl LedMessage {
    /// Dwords of a message: its header, and the LEDs.
    pub const DWORDS: u16 = 2;
    /// The header: message type 0, and the size of the message in bytes (MSIZE, bits 15:8).
    const HEADER: u32 = 4 << 8;
    /// The value of the locate LED, "on", in bits 21:19.
    const LOCATE: u32 = 1 << 19;
    /// The value of the fault LED, "on", in bits 24:22.
    const FAULT: u32 = 1 << 22;

    /// The message, as it lies in the transmit buffer.
    pub const fn dwords(self) -> [u32; 2] {
        let locate = if self.locate { Self::LOCATE } else { 0 };
        let fault = if self.fault { Self::FAULT } else { 0 };
        [Self::HEADER, self.port as u32 & 0x1f | locate | fault]
    }

    /// The message that a transmit buffer holds, if it is an LED message.
    pub const fn from_dwords([header, leds]: [u32; 2]) -> Option<Self> {
        if header & 0x0f00_ff00 != Self::HEADER {
            return None;
        }
        let (locate, fault) = (leds >> 19 & 7 != 0, leds >> 22 & 7 != 0);
        Some(Self { port: (leds & 0x1f) as u8, locate, fault })
    }
}
