//! Configuration mechanism #1: the ports 0xCF8 and 0xCFC (PCI §3.2.2.3.2).

use super::{CONVENTIONAL_BYTES, ConfigAccess};
use crate::Address;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// Port input and output of the x86 kind.
pub trait PortIo {
    /// Reads 8 bits from a port.
    fn in_u8(&mut self, port: u16) -> u8;
    /// Reads 16 bits from a port.
    fn in_u16(&mut self, port: u16) -> u16;
    /// Reads 32 bits from a port.
    fn in_u32(&mut self, port: u16) -> u32;
    /// Writes 8 bits to a port.
    fn out_u8(&mut self, port: u16, value: u8);
    /// Writes 16 bits to a port.
    fn out_u16(&mut self, port: u16, value: u16);
    /// Writes 32 bits to a port.
    fn out_u32(&mut self, port: u16, value: u32);
}

/// Configuration space through the two ports: 256 bytes of each function of segment 0.
///
/// An access takes two port operations, so whoever holds this must be the only user of the ports.
#[derive(Debug)]
pub struct PortConfig<P> {
    io: P,
}

impl<P: PortIo> PortConfig<P> {
    /// Takes the ports.
    pub const fn new(io: P) -> Self {
        Self { io }
    }

    /// Selects the word that holds `offset`; returns the data port for the byte, if it exists.
    fn select(&mut self, address: Address, offset: u16) -> Option<u16> {
        if address.segment != 0 || offset >= CONVENTIONAL_BYTES {
            return None;
        }
        let word = u32::from(address.requester_id()) << 8 | u32::from(offset & 0xfc);
        self.io.out_u32(CONFIG_ADDRESS, ENABLE | word);
        Some(CONFIG_DATA + offset % 4)
    }
}

macro_rules! through_ports {
    ($($int:ty: $read:ident $in:ident, $write:ident $out:ident;)*) => {$(
        fn $read(&mut self, address: Address, offset: u16) -> $int {
            match self.select(address, offset) {
                Some(port) => self.io.$in(port),
                None => <$int>::MAX,
            }
        }
        fn $write(&mut self, address: Address, offset: u16, value: $int) {
            if let Some(port) = self.select(address, offset) {
                self.io.$out(port, value);
            }
        }
    )*};
}

impl<P: PortIo> ConfigAccess for PortConfig<P> {
    fn size_bytes(&self) -> u16 {
        CONVENTIONAL_BYTES
    }

    through_ports! {
        u8: read_u8 in_u8, write_u8 out_u8;
        u16: read_u16 in_u16, write_u16 out_u16;
        u32: read_u32 in_u32, write_u32 out_u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Remembers what was written to the ports.
    #[derive(Default)]
    struct Recorder(Vec<(u16, u32)>);

    macro_rules! record {
        ($($int:ty: $in:ident, $out:ident;)*) => {$(
            fn $in(&mut self, port: u16) -> $int {
                port as $int
            }
            fn $out(&mut self, port: u16, value: $int) {
                self.0.push((port, u32::from(value)));
            }
        )*};
    }

    impl PortIo for Recorder {
        record! { u8: in_u8, out_u8; u16: in_u16, out_u16; u32: in_u32, out_u32; }
    }

    #[test]
    fn narrow_accesses_go_to_the_byte_of_the_data_port() {
        let mut config = PortConfig::new(Recorder::default());
        let address = Address::new(0, 0x12, 0x1f, 2);
        config.write_u16(address, 0x06, 0xbeef);
        assert_eq!(config.read_u8(address, 0x3d), 0xfd);
        let selected = 0x8012_fa00;
        let expected = [(0xcf8, selected | 0x04), (0xcfe, 0xbeef), (0xcf8, selected | 0x3c)];
        assert_eq!(config.io.0, expected);
    }

    #[test]
    fn what_the_ports_cannot_reach_reads_as_ones() {
        let mut config = PortConfig::new(Recorder::default());
        assert_eq!(config.read_u32(Address::new(1, 0, 0, 0), 0), u32::MAX);
        assert_eq!(config.read_u32(Address::new(0, 0, 0, 0), 0x100), u32::MAX);
        config.write_u32(Address::new(0, 0, 0, 0), 0x100, 1);
        assert!(config.io.0.is_empty());
    }
}
