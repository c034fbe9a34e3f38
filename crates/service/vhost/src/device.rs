//! What devices differ in, as far as messages are concerned.

use outboard_virtio::spec::vhost_user::{MAX_CONFIG_BYTES, ProtocolFeatures};

/// What a front end is offered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// The features of device and rings.
    pub(crate) features: u64,
    /// What the connection can do.
    pub(crate) protocol: ProtocolFeatures,
    /// How many rings there are.
    pub(crate) queues: usize,
    /// How many queues that is: of network cards, pairs of rings count.
    pub(crate) told_queues: usize,
}

/// A device, as messages ask about it. Each is asked only what it has offered.
pub(crate) trait Device {
    /// The configuration; what lies behind it is zeros.
    fn config(&self) -> [u8; MAX_CONFIG_BYTES];

    /// The driver writes part of the configuration; whether it may.
    fn set_config(&mut self, offset: usize, bytes: &[u8]) -> bool;

    /// The front end says how many bytes may be behind a frame's Ethernet header; whether they may.
    fn set_mtu(&mut self, _mtu: u64) -> bool {
        false
    }
}
