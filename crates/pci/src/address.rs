//! Where a function sits.

use core::fmt;
use core::str::FromStr;
use thiserror::Error;

/// Segment, bus, device and function, written `0000:00:1f.2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Segment group: one per host bridge that has a configuration space of its own.
    pub segment: u16,
    /// Bus number, 0–255.
    pub bus: u8,
    device: u8,
    function: u8,
}

impl Address {
    /// Devices on a bus.
    pub const DEVICES: u8 = 32;
    /// Functions of a device.
    pub const FUNCTIONS: u8 = 8;

    /// The function at `device` (0–31) and `function` (0–7) of a bus; higher bits are ignored.
    pub const fn new(segment: u16, bus: u8, device: u8, function: u8) -> Self {
        let (device, function) = (device % Self::DEVICES, function % Self::FUNCTIONS);
        Self { segment, bus, device, function }
    }

    /// Device number, 0–31.
    pub const fn device(self) -> u8 {
        self.device
    }

    /// Function number, 0–7.
    pub const fn function(self) -> u8 {
        self.function
    }

    /// Bus, device and function as in a requester ID (PCIe §2.2.6.2).
    pub const fn requester_id(self) -> u16 {
        (self.bus as u16) << 8 | (self.device as u16) << 3 | self.function as u16
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, bus, device, function } = self;
        write!(f, "{segment:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

/// The text is no PCI address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a PCI address; write one as 0000:00:1f.2 or 00:1f.2")]
pub struct ParseAddressError;

impl FromStr for Address {
    type Err = ParseAddressError;

    /// Reads `[segment:]bus:device.function`, in hexadecimal, as lspci prints it.
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let field = |text: &str, max: u16| {
            let digits = !text.is_empty() && text.len() <= 4;
            let digits = digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let value = digits.then(|| u16::from_str_radix(text, 16).ok()).flatten();
            value.filter(|value| *value <= max).ok_or(ParseAddressError)
        };
        let (rest, function) = text.split_once('.').ok_or(ParseAddressError)?;
        let (rest, device) = rest.rsplit_once(':').ok_or(ParseAddressError)?;
        let (segment, bus) = rest.split_once(':').unwrap_or(("0", rest));
        let (bus, device) = (field(bus, 0xff)?, field(device, 31)?);
        let (segment, function) = (field(segment, 0xffff)?, field(function, 7)?);
        Ok(Self::new(segment, bus as u8, device as u8, function as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn addresses_read_back_as_they_are_written() {
        let address: Address = "0001:3a:1f.7".parse().unwrap();
        assert_eq!(address, Address::new(1, 0x3a, 0x1f, 7));
        assert_eq!(address.to_string(), "0001:3a:1f.7");
        assert_eq!("00:1f.2".parse(), Ok(Address::new(0, 0, 0x1f, 2)));
        assert_eq!(address.requester_id(), 0x3aff);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "1f.2", "00:20.0", "00:1f.8", "0:0:0:0.0", "00:+1.0", "100:00.0", "::."] {
            assert_eq!(text.parse::<Address>(), Err(ParseAddressError), "{text}");
        }
    }
}
