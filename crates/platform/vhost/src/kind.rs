//! What kinds of devices differ in.

use outboard_virtio::spec::blk::CONFIG_LENGTHS;
use outboard_virtio::spec::net::{MAX_PAIRS, NetFeatures};
use outboard_virtio::spec::vhost_user::ProtocolFeatures;
use std::path::Path;

/// What kind of device a back end has. By the protocol alone they cannot be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A disk.
    Disk,
    /// A network card. Its back end only passes frames: address, link and commands are the front
    /// end's own affair.
    Card,
}

/// What back ends of network cards offer for front ends to offer it in turn: they do not serve it.
/// Nor do they tell MTU or link.
const FRONT_END: NetFeatures = NetFeatures::MAC
    .union(NetFeatures::MTU)
    .union(NetFeatures::STATUS)
    .union(NetFeatures::SPEED_DUPLEX)
    .union(NetFeatures::CTRL_VQ)
    .union(NetFeatures::CTRL_RX)
    .union(NetFeatures::CTRL_VLAN)
    .union(NetFeatures::CTRL_RX_EXTRA)
    .union(NetFeatures::CTRL_GUEST_OFFLOADS)
    .union(NetFeatures::GUEST_ANNOUNCE)
    .union(NetFeatures::CTRL_MAC_ADDR);

impl Kind {
    /// What of the protocol is made use of.
    pub(crate) fn protocol(self) -> ProtocolFeatures {
        let both = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK | ProtocolFeatures::STATUS;
        match self {
            Self::Disk => {
                let disk = ProtocolFeatures::BACKEND_REQ
                    | ProtocolFeatures::CONFIG
                    | ProtocolFeatures::INFLIGHT_SHMFD;
                both | disk
            }
            // Frames in flight may be lost, so nobody remembers them.
            Self::Card => both,
        }
    }

    /// A command that starts a back end.
    pub(crate) fn example(self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Disk => format!(
                "qemu-storage-daemon --blockdev file,node-name=disk,filename=IMAGE --export \
                 vhost-user-blk,id=disk,node-name=disk,writable=on,addr.type=unix,addr.path={path}"
            ),
            Self::Card => format!("dpdk-testpmd --no-pci --vdev net_vhost0,iface={path}"),
        }
    }

    /// Lengths that the configuration may have, the one that is asked for first.
    pub(crate) const fn config_lengths(self) -> &'static [usize] {
        match self {
            Self::Disk => &CONFIG_LENGTHS,
            Self::Card => &[],
        }
    }

    /// Features that the device itself does not have.
    pub(crate) const fn not_offered(self) -> u64 {
        match self {
            Self::Disk => 0,
            Self::Card => FRONT_END.bits(),
        }
    }

    /// How many queues there are if the back end says so many: of cards it counts pairs.
    pub(crate) const fn queues(self, told: u16) -> u16 {
        match self {
            Self::Disk => told,
            Self::Card => told.saturating_mul(2),
        }
    }

    /// The configuration of a device with so many queues whose back end has none.
    pub(crate) fn config(self, queues: u16) -> Vec<u8> {
        match self {
            Self::Disk => Vec::new(),
            Self::Card => {
                let mut config = vec![0; MAX_PAIRS + 2];
                config[MAX_PAIRS..].copy_from_slice(&(queues / 2).to_le_bytes());
                config
            }
        }
    }
}
