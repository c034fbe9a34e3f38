//! What a card offers to clients.

use crate::device::Offer;
use crate::queue::MAX_QUEUES;
use crate::ring::FEATURES;
use outboard_net::{Interface, Offloads};
use outboard_virtio::net::features::offers;
use outboard_virtio::spec::net::NetFeatures;
use outboard_virtio::spec::vhost_user::{PROTOCOL_FEATURES, ProtocolFeatures};

/// The most pairs of rings, whatever the card has: each is served by one of the card's.
pub(super) const MAX_PAIRS: usize = MAX_QUEUES / 2;

/// What the connection can do. There is no configuration: address, link and the control queue are
/// the front end's business, and none that we know of asks. What is in flight is not remembered,
/// since nothing is.
const PROTOCOL: ProtocolFeatures = ProtocolFeatures::MQ
    .union(ProtocolFeatures::REPLY_ACK)
    .union(ProtocolFeatures::NET_MTU)
    .union(ProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// What a card like this offers. Frames are worked on by the card below or not at all, but for
/// clients that do not take what the card has put together, or left out.
pub(super) fn offer(interface: &Interface) -> Offer {
    // What a card does to tags has no place in what stands before a frame.
    let said = interface.capabilities.transmit.difference(Offloads::VLAN);
    let heard = interface.capabilities.receive.difference(Offloads::VLAN);
    let features =
        offers(said, heard) | NetFeatures::MRG_RXBUF | NetFeatures::MQ | NetFeatures::MTU;
    Offer {
        features: features.bits() | FEATURES.bits() | PROTOCOL_FEATURES,
        protocol: PROTOCOL,
        queues: MAX_QUEUES,
        told_queues: MAX_PAIRS,
    }
}
