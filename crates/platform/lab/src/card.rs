//! Network cards of a lab.

use crate::LabError;
use crate::config::{VirtioConfig, VirtioVersion};
use outboard_linux::description;
use serde_json::{Value, json};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;

/// What is at the other end of a card's wire.
#[derive(Debug, Clone)]
pub enum Wire {
    /// One end of a pair of sockets: each datagram is a frame. Without offloads.
    Datagrams(Arc<OwnedFd>),
    /// An interface of the kernel's, made when the machine starts; QEMU has to be allowed that, as
    /// it is in a network namespace of one's own. With offloads, and as many queues as the card.
    Tap {
        /// The interface's name.
        name: String,
    },
    /// QEMU's own network behind a translation of addresses, which gives addresses by DHCP and needs
    /// no permissions. Without offloads.
    User,
}

/// A network card of the lab.
#[derive(Debug, Clone)]
pub struct CardConfig {
    /// What it offers.
    pub virtio: VirtioConfig,
    /// What it is connected to.
    pub wire: Wire,
    /// Its address.
    pub mac: [u8; 6],
    /// The most bytes behind a frame's header, if it says so.
    pub mtu: Option<u16>,
    /// Whether a frame may take several buffers.
    pub merges: bool,
    /// More of its properties, as QEMU names them.
    pub properties: Vec<(&'static str, Value)>,
}

impl CardConfig {
    /// A card with this at the end of its wire.
    pub const fn new(wire: Wire) -> Self {
        Self {
            virtio: VirtioConfig::DEFAULT,
            wire,
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            mtu: None,
            merges: true,
            properties: Vec::new(),
        }
    }

    /// A card, and the other end of its wire.
    pub fn wired() -> std::io::Result<(Self, UnixDatagram)> {
        let (ours, theirs) = UnixDatagram::pair()?;
        Ok((Self::new(Wire::Datagrams(Arc::new(theirs.into()))), ours))
    }

    /// The same card with another property.
    pub fn with(mut self, property: &'static str, value: impl Into<Value>) -> Self {
        self.properties.push((property, value.into()));
        self
    }

    /// The descriptor that QEMU has to have, if any.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match &self.wire {
            Wire::Datagrams(socket) => Some(socket.as_raw_fd()),
            Wire::Tap { .. } | Wire::User => None,
        }
    }

    /// Adds the card and its wire, both of this number, at an address of the bus.
    pub(crate) fn add(&self, command: &mut Command, number: usize, address: usize) {
        let (virtio, wire) = (&self.virtio, format!("wire{number}"));
        let queues = virtio.queues.max(1);
        let netdev = match &self.wire {
            Wire::Datagrams(socket) => format!("socket,id={wire},fd={}", socket.as_raw_fd()),
            Wire::Tap { name } => {
                let name = name.replace(',', ",,");
                let scripts = "script=no,downscript=no";
                format!("tap,id={wire},ifname={name},{scripts},vhost=off,queues={queues}")
            }
            Wire::User => format!("user,id={wire}"),
        };
        command.arg("-netdev").arg(netdev);
        let on = |value| if value { "on" } else { "off" };
        let [a, b, c, d, e, f] = self.mac;
        let mut device = json!({
            "driver": "virtio-net-pci",
            "id": format!("card{number}"),
            "netdev": wire,
            "addr": format!("{address:#x}"),
            "mac": format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
            // There is no firmware that would boot from it.
            "romfile": "",
            "disable-legacy": on(virtio.version == VirtioVersion::Modern),
            "disable-modern": virtio.version == VirtioVersion::Legacy,
            "packed": virtio.packed,
            "mq": queues > 1,
            // For each queue, for commands, and for changes of the configuration.
            "vectors": 2 * queues + 2,
            "rx_queue_size": virtio.queue_entries.max(LEAST_ENTRIES),
            "indirect_desc": virtio.indirect,
            "event_idx": virtio.event_index,
            "iommu_platform": virtio.access_platform,
            "mrg_rxbuf": self.merges,
        });
        if let Some(mtu) = self.mtu {
            device["host_mtu"] = mtu.into();
        }
        for (property, value) in &self.properties {
            device[*property] = value.clone();
        }
        command.arg("-device").arg(device.to_string());
    }
}

impl FromStr for CardConfig {
    type Err = LabError;

    /// Reads `user[,packed]` or `tap=NAME[,packed][,queues=N]`.
    fn from_str(text: &str) -> Result<Self, LabError> {
        let error = |reason: String| LabError::CardSyntax { text: text.into(), reason };
        let (wire, options) = description::split(text, &["packed"])
            .ok_or_else(|| error("it names no network".into()))?;
        let mut card = Self::new(match wire.split_once('=') {
            None if wire == "user" => Wire::User,
            Some(("tap", name)) if !name.is_empty() => Wire::Tap { name: name.into() },
            _ => return Err(error(format!("there is no network {wire:?}"))),
        });
        for option in options {
            match option.split_once('=') {
                None => card.virtio.packed = true,
                Some(("queues", value)) if matches!(card.wire, Wire::Tap { .. }) => {
                    let number = value.parse().ok().filter(|number| (1..=8).contains(number));
                    let reason = || format!("there are 1 to 8 pairs of queues, not {value:?}");
                    card.virtio.queues = number.ok_or_else(|| error(reason()))?;
                }
                Some((key, _)) => return Err(error(format!("there is no option {key:?}"))),
            }
        }
        Ok(card)
    }
}

/// The least entries of QEMU's queues for frames.
const LEAST_ENTRIES: u16 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_described_by_text() {
        let card: CardConfig = "tap=net7,queues=4,packed".parse().unwrap();
        assert!(matches!(&card.wire, Wire::Tap { name } if name == "net7"));
        assert_eq!((card.virtio.queues, card.virtio.packed), (4, true));
        let card: CardConfig = "user".parse().unwrap();
        assert!(matches!(card.wire, Wire::User) && !card.virtio.packed);
        for (text, reason) in [
            ("", "names no network"),
            ("tap=", "no network"),
            ("vde=x", "no network \"vde=x\""),
            ("user,queues=2", "no option \"queues\""),
            ("tap=x,queues=9", "1 to 8"),
            ("user,mtu=3", "no option \"mtu\""),
        ] {
            let error = text.parse::<CardConfig>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
