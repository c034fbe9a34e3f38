//! Features of network cards: which of them are made use of, and what they mean.

use super::NetConfig;
use crate::setup::KNOWN;
use crate::spec::features::Features;
use crate::spec::net::{Header, NetFeatures, WHOLE_FRAME_BYTES};
use outboard_net::{Capabilities, Offloads, ReceiveMode};

/// Features, and what card or driver does with each.
type Meanings<const N: usize> = [(NetFeatures, Offloads); N];

const HOST: Meanings<6> = [
    (NetFeatures::CSUM, Offloads::CHECKSUM),
    (NetFeatures::HOST_TSO4, Offloads::TCP4),
    (NetFeatures::HOST_TSO6, Offloads::TCP6),
    (NetFeatures::HOST_ECN, Offloads::TCP_ECN),
    (NetFeatures::HOST_UFO, Offloads::UDP_FRAGMENTS),
    (NetFeatures::HOST_USO, Offloads::UDP),
];

const GUEST_USO: NetFeatures = NetFeatures::GUEST_USO4.union(NetFeatures::GUEST_USO6);

const GUEST: Meanings<6> = [
    (NetFeatures::GUEST_CSUM, Offloads::CHECKSUM),
    (NetFeatures::GUEST_TSO4, Offloads::TCP4),
    (NetFeatures::GUEST_TSO6, Offloads::TCP6),
    (NetFeatures::GUEST_ECN, Offloads::TCP_ECN),
    (NetFeatures::GUEST_UFO, Offloads::UDP_FRAGMENTS),
    (GUEST_USO, Offloads::UDP),
];

/// Frames that the driver takes although they are longer than the network's.
pub(super) const GUEST_SEGMENTS: NetFeatures = NetFeatures::GUEST_TSO4
    .union(NetFeatures::GUEST_TSO6)
    .union(NetFeatures::GUEST_ECN)
    .union(NetFeatures::GUEST_UFO)
    .union(GUEST_USO);

/// Which features need others (§5.1.3.1): all of the first ones any of the second ones.
const NEEDS: [(NetFeatures, NetFeatures); 6] = [
    (GUEST_SEGMENTS, NetFeatures::GUEST_CSUM),
    (NetFeatures::GUEST_ECN, NetFeatures::GUEST_TSO4.union(NetFeatures::GUEST_TSO6)),
    (
        NetFeatures::HOST_TSO4
            .union(NetFeatures::HOST_TSO6)
            .union(NetFeatures::HOST_ECN)
            .union(NetFeatures::HOST_UFO)
            .union(NetFeatures::HOST_USO),
        NetFeatures::CSUM,
    ),
    (NetFeatures::HOST_ECN, NetFeatures::HOST_TSO4.union(NetFeatures::HOST_TSO6)),
    (
        NetFeatures::CTRL_RX
            .union(NetFeatures::CTRL_RX_EXTRA)
            .union(NetFeatures::CTRL_VLAN)
            .union(NetFeatures::CTRL_MAC_ADDR)
            .union(NetFeatures::GUEST_ANNOUNCE)
            .union(NetFeatures::CTRL_GUEST_OFFLOADS)
            .union(NetFeatures::MQ),
        NetFeatures::CTRL_VQ,
    ),
    (NetFeatures::GUEST_ANNOUNCE, NetFeatures::STATUS),
];

/// What of a device's features is made use of. With `all_pairs`, pairs of queues need no command.
pub(super) fn choose(offered: u64, all_pairs: bool, config: &NetConfig) -> u64 {
    let rings = KNOWN.union(Features::ANY_LAYOUT).difference(config.without).bits();
    let mut net = NetFeatures::from_bits_truncate(offered).difference(config.without_net);
    for (feature, offload) in GUEST {
        if !config.receive.contains(offload) {
            net.remove(feature);
        }
    }
    if !net.contains(NetFeatures::MRG_RXBUF)
        && config.buffer_bytes < Header::BYTES + WHOLE_FRAME_BYTES
    {
        net.remove(GUEST_SEGMENTS);
    }
    if config.queues <= 1 {
        net.remove(NetFeatures::MQ);
    }
    let pairs = net.intersection(NetFeatures::MQ);
    for (features, needed) in NEEDS {
        if !net.intersects(needed) {
            net.remove(features);
        }
    }
    if all_pairs {
        net.insert(pairs);
    }
    offered & rings | net.bits()
}

/// What of these a card may do to frames that are received: those that need others, only with them.
pub(super) fn consistent(receive: Offloads) -> Offloads {
    let mut net = guest_features(receive);
    for (features, needed) in NEEDS {
        if features.intersects(guest_features(Offloads::all())) && !net.intersects(needed) {
            net.remove(features);
        }
    }
    meant(&GUEST, net)
}

/// The features behind what a card may do to frames that are received.
pub(super) fn guest_features(receive: Offloads) -> NetFeatures {
    let wanted = GUEST.iter().filter(|(_, offload)| receive.contains(*offload));
    wanted.fold(NetFeatures::empty(), |sum, (feature, _)| sum | *feature)
}

fn meant(meanings: &Meanings<6>, features: NetFeatures) -> Offloads {
    let had = meanings.iter().filter(|(feature, _)| features.intersects(*feature));
    had.fold(Offloads::empty(), |sum, (_, offload)| sum | *offload)
}

/// What a card with these features can do.
pub fn capabilities(features: NetFeatures) -> Capabilities {
    let has_rx = features.contains(NetFeatures::CTRL_RX);
    let usual = ReceiveMode::PROMISCUOUS | ReceiveMode::ALL_MULTICAST;
    let receive_modes = match (has_rx, features.contains(NetFeatures::CTRL_RX_EXTRA)) {
        (true, true) => ReceiveMode::all(),
        (true, false) => usual,
        (false, true) => ReceiveMode::all().difference(usual),
        (false, false) => ReceiveMode::empty(),
    };
    Capabilities {
        transmit: meant(&HOST, features),
        receive: meant(&GUEST, features),
        receive_modes,
        has_address_filter: has_rx,
        has_vlan_filter: features.contains(NetFeatures::CTRL_VLAN),
        can_set_mac: features.contains(NetFeatures::CTRL_MAC_ADDR),
        can_set_receive: features.contains(NetFeatures::CTRL_GUEST_OFFLOADS),
    }
}

/// What a device offers that can do this much to frames that are sent, and may do this much to those
/// that are received. The driver may do with less.
pub fn offers(transmit: Offloads, receive: Offloads) -> NetFeatures {
    let able = HOST.iter().filter(|(_, offload)| transmit.contains(*offload));
    able.fold(guest_features(receive), |sum, (feature, _)| sum | *feature)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(offered: NetFeatures, config: &NetConfig) -> NetFeatures {
        NetFeatures::from_bits_truncate(choose(offered.bits(), false, config))
    }

    #[test]
    fn what_needs_something_else_is_only_taken_with_it() {
        let config = NetConfig { queues: 4, receive: Offloads::all(), ..NetConfig::default() };
        let all = NetFeatures::all();
        assert_eq!(chosen(all, &config), all.difference(config.without_net));
        for (features, needed) in NEEDS {
            let without = chosen(all.difference(needed), &config);
            assert!(!without.intersects(features), "{features:?} needs any of {needed:?}");
        }
        let pairs = choose(NetFeatures::MQ.bits(), true, &config);
        assert_eq!(pairs, NetFeatures::MQ.bits(), "where nobody has to be told");
        let nothing = chosen(all.difference(NetFeatures::CTRL_VQ), &config);
        assert_eq!(capabilities(nothing).receive_modes, ReceiveMode::empty());
    }

    #[test]
    fn what_is_left_of_the_offloads_makes_sense_together() {
        let all = Offloads::all().difference(Offloads::VLAN);
        assert_eq!(consistent(Offloads::all()), all, "but for what virtio does not know");
        assert_eq!(consistent(Offloads::TCP4 | Offloads::UDP), Offloads::empty(), "no checksums");
        let some = Offloads::CHECKSUM | Offloads::TCP4;
        assert_eq!(consistent(some), some);
        assert_eq!(consistent(Offloads::CHECKSUM | Offloads::TCP_ECN), Offloads::CHECKSUM);
        let udp = NetFeatures::GUEST_USO4 | NetFeatures::GUEST_USO6;
        assert_eq!(guest_features(Offloads::UDP), udp);
    }

    #[test]
    fn segments_are_put_together_only_where_there_is_room_for_them() {
        let config = NetConfig { receive: Offloads::all(), ..NetConfig::default() };
        let unmerged = NetFeatures::all().difference(NetFeatures::MRG_RXBUF);
        assert!(!chosen(unmerged, &config).intersects(GUEST_SEGMENTS));
        let large = NetConfig { buffer_bytes: 66_000, ..config };
        assert!(chosen(unmerged, &large).intersects(GUEST_SEGMENTS));
        let plain = NetConfig { receive: Offloads::empty(), ..large };
        assert_eq!(capabilities(chosen(unmerged, &plain)).receive, Offloads::empty());
        assert!(!chosen(unmerged, &plain).contains(NetFeatures::MQ), "one pair is wanted");
    }
}
