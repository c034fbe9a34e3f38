//! What only IDENTIFY PACKET DEVICE returns (ACS §7.13).

use super::Identify;

impl Identify {
    /// Word 0, bits 15:14: 10b for devices with packets, which IDENTIFY DEVICE never has.
    const PACKET_DEVICE: u16 = 0b10;

    /// The packets' command set, if it is a device that takes packets at all (word 0 bits 15:14,
    /// 12:8); see [`peripheral`](crate::spec::atapi::peripheral).
    pub fn packet_set(&self) -> Option<u8> {
        let configuration = self.word(0);
        let takes_packets = configuration >> 14 == Self::PACKET_DEVICE;
        takes_packets.then_some((configuration >> 8 & 0x1f) as u8)
    }

    /// Bytes of a packet: 12 or 16; `None` for what is reserved (word 0 bits 1:0).
    pub fn packet_bytes(&self) -> Option<u8> {
        match self.word(0) & 3 {
            0 => Some(12),
            1 => Some(16),
            _ => None,
        }
    }

    /// Whether PACKET must say which way it transfers by DMA (DMADIR, word 62 bit 15).
    pub fn needs_direction(&self) -> bool {
        self.has(62, 15)
    }

    /// Whether packets' data can be transferred by DMA (word 49 bit 8; word 62 bit 11 where the
    /// direction must be said).
    pub fn has_packet_dma(&self) -> bool {
        self.has(49, 8) || self.needs_direction() && self.has(62, 11)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::identify;

    #[test]
    fn a_device_with_packets_says_how_it_takes_them() {
        let drive = identify(&[(0, 0x8580), (49, 0x0300)]);
        assert_eq!((drive.packet_set(), drive.packet_bytes()), (Some(5), Some(12)));
        assert!(drive.has_packet_dma() && !drive.needs_direction());
        let bridge = identify(&[(0, 0x8581), (62, 0x8800)]);
        assert_eq!(bridge.packet_bytes(), Some(16));
        assert!(bridge.has_packet_dma() && bridge.needs_direction());
        assert!(!identify(&[(0, 0x8580), (62, 0x0800)]).has_packet_dma());
        assert_eq!(identify(&[(0, 0x8583)]).packet_bytes(), None);
        assert_eq!(identify(&[(0, 0x0040)]).packet_set(), None);
    }
}
