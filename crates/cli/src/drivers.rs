//! Which drivers there are.

use anyhow::{Result, bail};
use outboard_ahci::{AhciConfig, Hba};
use outboard_block::BlockDriver;
use outboard_hw::Registers;
use outboard_hw::dma::DmaSpace;
use outboard_net::{NetDriver, Offloads};
use outboard_pci::{Device, Identity};
use outboard_vhost_front::VhostDisk;
use outboard_virtio::spec::pci::KIND_BLOCK;
use outboard_virtio::transport::{MmioTransport, PciTransport};
use outboard_virtio::{Blk, BlkConfig, Net, NetConfig};
use std::sync::Arc;

/// The driver of ours that fits a function.
pub(crate) fn fitting(identity: &Identity) -> Option<&'static str> {
    match is_card(identity) {
        true => Some("virtio-net"),
        false => for_disks(identity),
    }
}

/// The driver of ours that fits a function with disks.
pub(crate) fn for_disks(identity: &Identity) -> Option<&'static str> {
    if outboard_ahci::matches(identity) {
        Some("ahci")
    } else if outboard_virtio::is_disk(identity) {
        Some("virtio-blk")
    } else {
        None
    }
}

/// Whether a function is a network card that there is a driver of ours for.
pub(crate) const fn is_card(identity: &Identity) -> bool {
    outboard_virtio::is_network_card(identity)
}

/// Starts the driver that fits a device with disks.
pub(crate) fn start<D: Device + 'static>(device: D) -> Result<Box<dyn BlockDriver>> {
    let identity = device.identity();
    Ok(match for_disks(&identity) {
        Some("ahci") => Box::new(Hba::new(device, AhciConfig::default())?),
        Some(_) => Box::new(Blk::new(PciTransport::new(device)?, BlkConfig::default())?),
        None => bail!("there is no driver for disks of class {}", identity.class),
    })
}

/// Starts the driver of the disk whose registers are at a fixed address.
pub(crate) fn start_mmio<R: Registers + Send + 'static>(
    registers: R,
    dma: Arc<dyn DmaSpace>,
) -> Result<Box<dyn BlockDriver>> {
    let transport = MmioTransport::new(registers, dma)?;
    if transport.kind() != u32::from(KIND_BLOCK) {
        bail!("it is a virtio device of kind {}, and no disk", transport.kind());
    }
    Ok(Box::new(Blk::new(transport, BlkConfig::default())?))
}

/// Starts the driver of a network card.
pub(crate) fn start_card<D: Device + 'static>(device: D) -> Result<Box<dyn NetDriver>> {
    Ok(Box::new(Net::new(PciTransport::new(device)?, net_config())?))
}

/// How network cards are driven: what they do to frames, virtual machines let them do, and what a
/// virtual machine does not take is undone for it.
pub(crate) fn net_config() -> NetConfig {
    let segments = Offloads::TCP4 | Offloads::TCP6 | Offloads::TCP_ECN;
    NetConfig { queues: 8, receive: Offloads::CHECKSUM | segments, ..NetConfig::default() }
}

/// How the disk of a back end is driven.
pub(crate) fn over_vhost_user(disk: &VhostDisk) -> BlkConfig {
    let config = BlkConfig::default();
    BlkConfig { queues: disk.queues.unwrap_or(config.queues), ..config }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outboard_pci::Class;

    #[test]
    fn a_network_card_has_a_driver_and_is_no_disk() {
        for device in [0x1000, 0x1041] {
            let class = Class { base: 2, sub: 0, interface: 0 };
            let identity = Identity { vendor: 0x1af4, device, subsystem: None, class, revision: 0 };
            assert_eq!(fitting(&identity), Some("virtio-net"));
            assert_eq!(for_disks(&identity), None);
            assert!(is_card(&identity));
        }
    }
}
