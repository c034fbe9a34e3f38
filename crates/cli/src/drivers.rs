//! Which drivers there are.

use anyhow::{Result, bail};
use outboard_ahci::{AhciConfig, Hba};
use outboard_block::BlockDriver;
use outboard_pci::{Device, Identity};
use outboard_vhost_front::VhostDisk;
use outboard_virtio::transport::PciTransport;
use outboard_virtio::{Blk, BlkConfig};

/// The driver of ours that fits a function.
pub(crate) fn fitting(identity: &Identity) -> Option<&'static str> {
    if outboard_ahci::matches(identity) {
        Some("ahci")
    } else if outboard_virtio::is_disk(identity) {
        Some("virtio-blk")
    } else {
        None
    }
}

/// Starts the driver that fits a device.
pub(crate) fn start<D: Device + 'static>(device: D) -> Result<Box<dyn BlockDriver>> {
    let identity = device.identity();
    Ok(match fitting(&identity) {
        Some("ahci") => Box::new(Hba::new(device, AhciConfig::default())?),
        Some(_) => Box::new(Blk::new(PciTransport::new(device)?, BlkConfig::default())?),
        None => bail!("there is no driver for a device of class {}", identity.class),
    })
}

/// How the disk of a back end is driven.
pub(crate) fn over_vhost_user(disk: &VhostDisk) -> BlkConfig {
    let config = BlkConfig::default();
    BlkConfig { queues: disk.queues.unwrap_or(config.queues), ..config }
}
