//! From disks on the command line to drivers in a server.

use anyhow::{Context, Result};
use outboard_ahci::{AhciConfig, Hba};
use outboard_block::UnitId;
use outboard_block::disk::DiskOptions;
use outboard_host::{Hosted, Platform};
use outboard_hw::interrupt::InterruptKind;
use outboard_lab::{DiskConfig, Lab, LabConfig};
use rustix::fd::BorrowedFd;
use std::error::Error;

/// Disks of one AHCI controller of the lab.
const PORTS: usize = 6;

/// Starts a lab with these disks.
pub(crate) fn start_lab(
    disks: &[DiskConfig],
    dma_bytes: usize,
    interrupts: Option<InterruptKind>,
) -> Result<Lab> {
    let mut config = LabConfig::new(disks.to_vec());
    (config.dma_bytes, config.interrupts) = (dma_bytes, interrupts);
    Lab::start(&config).context("the lab did not start")
}

/// Drivers for all AHCI controllers of a lab with these disks.
pub(crate) fn host_lab(lab: &Lab, disks: &[DiskConfig]) -> Result<Vec<Hosted>> {
    let functions = lab.functions().iter().filter(|f| outboard_ahci::matches(&f.identity));
    let mut hosted = Vec::new();
    for (function, disks) in functions.zip(disks.chunks(PORTS)) {
        let (device, interrupts) = lab.open(function.address)?;
        let driver = Hba::new(device, AhciConfig::default())
            .with_context(|| format!("the controller at {}", function.address))?;
        let units = (0..).map(UnitId).zip(disks).map(|(unit, disk)| (unit, options(disk)));
        let (driver, interrupts) = (Box::new(driver), Box::new(interrupts));
        hosted.push(Hosted { driver, interrupts, options: units.collect() });
    }
    Ok(hosted)
}

/// How a disk of the lab is to be presented. QEMU's disks have sectors of 512 bytes whatever the
/// image is of, so larger ones are made up of these; its CD drives have their own.
fn options(disk: &DiskConfig) -> DiskOptions {
    let sector_bytes = (disk.sector_bytes != 512).then_some(disk.sector_bytes);
    DiskOptions { sector_bytes, read_only: disk.read_only }
}

/// The lab as the platform of a server.
#[derive(Debug)]
pub(crate) struct LabPlatform(pub(crate) Lab);

impl Platform for LabPlatform {
    fn ended(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.ended_descriptor())
    }

    fn check(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.0.check().map_err(Into::into)
    }
}
