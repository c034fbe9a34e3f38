//! Which drivers there are.

use anyhow::{Result, bail};
use outboard_ahci::{AhciConfig, Hba};
use outboard_block::BlockDriver;
use outboard_hw::Registers;
use outboard_hw::dma::DmaSpace;
use outboard_pci::{Address, Device, Identity};
use outboard_vhost_front::VhostDisk;
use outboard_virtio::spec::pci::KIND_BLOCK;
use outboard_virtio::transport::{MmioTransport, PciTransport};
use outboard_virtio::{Blk, BlkConfig};
use std::sync::Arc;

/// The driver of ours that fits a function.
pub(crate) fn fitting(identity: &Identity) -> Option<&'static str> {
    match outboard_virtio::is_network_card(identity) {
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

/// Refuses a function that there is a driver for, but no way to serve.
pub(crate) fn check_served(address: Address, identity: &Identity) -> Result<()> {
    match (fitting(identity), for_disks(identity)) {
        (Some(driver), None) => bail!(
            "{address} is a network card, which {driver} drives, but none can be served yet. It \
             stays with the kernel"
        ),
        _ => Ok(()),
    }
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
            let refused = check_served(Address::new(0, 0, 3, 0), &identity).unwrap_err();
            assert!(refused.to_string().contains("none can be served yet"), "{refused}");
        }
    }
}
