//! From disks on the command line to drivers in a server.

use crate::drivers;
use anyhow::{Context, Result, bail};
use outboard_block::UnitId;
use outboard_block::disk::DiskOptions;
use outboard_host::{Hosted, HostedCard, Platform};
use outboard_hw::interrupt::InterruptKind;
use outboard_lab::{Bus, CardConfig, DiskConfig, Lab, LabConfig, Media};
use outboard_linux::SharedMemory;
use outboard_pci::Device;
use outboard_ram::Ram;
use outboard_sim::Live;
use outboard_sim::live::{LiveConfig, LiveDisk};
use outboard_sysfs::Machine;
use outboard_vfio::{Confinement, OpenFunction, Vfio, VfioConfig};
use outboard_vhost_front::{BackEnd, VhostCard, VhostConfig, VhostDisk, VhostUser};
use outboard_virtio::{Blk, Net, NetConfig};
use rustix::fd::BorrowedFd;
use std::error::Error;
use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// Starts a lab with these disks and network cards.
pub(crate) fn start_lab(
    disks: &[DiskConfig],
    cards: &[CardConfig],
    dma_bytes: usize,
    interrupts: Option<InterruptKind>,
) -> Result<Lab> {
    let mut config = LabConfig::new(disks.to_vec());
    (config.dma_bytes, config.interrupts) = (dma_bytes, interrupts);
    config.cards = cards.to_vec();
    Lab::start(&config).context("the lab did not start")
}

/// Drivers for all controllers of a lab with these disks.
pub(crate) fn host_lab(lab: &Lab, disks: &[DiskConfig]) -> Result<Vec<Hosted>> {
    let fixed = disks.iter().filter(|disk| matches!(disk.bus, Bus::VirtioMmio(_)));
    if fixed.count() == disks.len() {
        return host_fixed(lab, disks);
    }
    let functions = lab.functions().iter().filter(|f| drivers::for_disks(&f.identity).is_some());
    let mut hosted = Vec::new();
    for (function, disks) in functions.zip(LabConfig::controllers(disks)) {
        let (device, interrupts) = lab.open(function.address)?;
        let driver = drivers::start(device)
            .with_context(|| format!("the controller at {}", function.address))?;
        let units = (0..).map(UnitId).zip(disks).map(|(unit, disk)| (unit, options(disk)));
        hosted.push(Hosted { driver, interrupts: Box::new(interrupts), options: units.collect() });
    }
    Ok(hosted)
}

/// Drivers for the disks at fixed addresses.
fn host_fixed(lab: &Lab, disks: &[DiskConfig]) -> Result<Vec<Hosted>> {
    let mut hosted = Vec::new();
    for (place, disk) in disks.iter().enumerate() {
        let (registers, interrupts) = lab.open_mmio(place)?;
        let driver = drivers::start_mmio(registers, lab.dma())
            .with_context(|| format!("the device at place {place}"))?;
        let options = vec![(UnitId(0), options(disk))];
        hosted.push(Hosted { driver, interrupts: Box::new(interrupts), options });
    }
    Ok(hosted)
}

/// Drivers for all network cards of a lab, numbered from `first` on.
pub(crate) fn host_lab_cards(lab: &Lab, first: usize) -> Result<Vec<HostedCard>> {
    let cards = lab.functions().iter().filter(|f| drivers::is_card(&f.identity));
    let mut hosted = Vec::new();
    for (number, function) in (first..).zip(cards) {
        let (device, interrupts) = lab.open(function.address)?;
        let driver = drivers::start_card(device)
            .with_context(|| format!("the network card at {}", function.address))?;
        hosted.push(HostedCard {
            name: card_name(number),
            driver,
            interrupts: Box::new(interrupts),
        });
    }
    Ok(hosted)
}

/// What network card number `number` is called.
fn card_name(number: usize) -> String {
    format!("net{number}")
}

/// How a disk of the lab is to be presented. QEMU's IDE disks have sectors of 512 bytes whatever the
/// image is of, so larger ones are made up of these.
fn options(disk: &DiskConfig) -> DiskOptions {
    let made_up = disk.sector_bytes > disk.logical_sector_bytes();
    DiskOptions { sector_bytes: made_up.then_some(disk.sector_bytes), read_only: disk.read_only }
}

/// Starts simulated controllers with these disks.
pub(crate) fn start_sim(
    disks: &[LiveDisk],
    dma_bytes: usize,
    interrupts: Option<InterruptKind>,
) -> Result<Live> {
    let pin = interrupts == Some(InterruptKind::Pin);
    let config = LiveConfig { dma_bytes, pin, ..LiveConfig::new(disks.to_vec()) };
    Live::start(&config).context("the simulation did not start")
}

/// Drivers for all simulated controllers.
pub(crate) fn host_sim(sim: &Live, disks: &[LiveDisk]) -> Result<Vec<Hosted>> {
    let mut hosted = Vec::new();
    for ((device, interrupts), disks) in sim.functions().zip(disks.chunks(LiveConfig::PORTS)) {
        let driver = drivers::start(device).context("a simulated controller")?;
        let options =
            |disk: &LiveDisk| DiskOptions { sector_bytes: None, read_only: disk.read_only };
        let options = (0..).map(UnitId).zip(disks.iter().map(options)).collect();
        hosted.push(Hosted { driver, interrupts: Box::new(interrupts), options });
    }
    Ok(hosted)
}

/// Drivers for disks of so many bytes of memory.
pub(crate) fn host_ram(sizes: &[u64], dma_bytes: usize) -> Result<Vec<Hosted>> {
    const PAGE: usize = 4096;
    let mut hosted = Vec::new();
    for (number, size) in sizes.iter().enumerate() {
        let bytes = usize::try_from(*size).ok();
        let bytes = bytes.filter(|bytes| *bytes > 0 && bytes.is_multiple_of(PAGE));
        let bytes = bytes.with_context(|| {
            format!("a disk of memory has a multiple of 4096 bytes, which {size} is not")
        })?;
        let content = SharedMemory::of_large_pages("outboard-ram", bytes).with_context(|| {
            format!("there is no memory for a disk of {size} bytes: choose a smaller one")
        })?;
        let (_, space) = SharedMemory::for_model("outboard-transfers", dma_bytes)
            .context("making memory for transfers")?;
        let driver = Ram::new(content.into_buffer(), Arc::new(space), &format!("RAM{number}"));
        let (driver, interrupts) = (Box::new(driver), Box::new(()));
        hosted.push(Hosted { driver, interrupts, options: Vec::new() });
    }
    Ok(hosted)
}

/// Drivers for disks of back ends, and word of whether these are there.
pub(crate) fn host_back_ends(
    disks: &[VhostDisk],
    dma_bytes: usize,
) -> Result<(Vec<Hosted>, Vec<BackEnd>)> {
    let (mut hosted, mut back_ends) = (Vec::new(), Vec::new());
    for disk in disks {
        let config = VhostConfig { dma_bytes, ..VhostConfig::new(&disk.socket) };
        let (transport, interrupts, back_end) = VhostUser::attach(config)?;
        let config = drivers::over_vhost_user(disk);
        let driver = Blk::new(transport, config)
            .with_context(|| format!("the disk at {}", disk.socket.display()))?;
        let options = DiskOptions { sector_bytes: None, read_only: disk.read_only };
        let options = vec![(UnitId(0), options)];
        hosted.push(Hosted { driver: Box::new(driver), interrupts: Box::new(interrupts), options });
        back_ends.push(back_end);
    }
    Ok((hosted, back_ends))
}

/// Drivers for network cards of back ends, numbered from `first` on, and word of whether these are
/// there.
pub(crate) fn host_card_back_ends(
    cards: &[VhostCard],
    dma_bytes: usize,
    first: usize,
) -> Result<(Vec<HostedCard>, Vec<BackEnd>)> {
    let (mut hosted, mut back_ends) = (Vec::new(), Vec::new());
    for (number, card) in (first..).zip(cards) {
        let config = VhostConfig { dma_bytes, ..VhostConfig::card(&card.socket) };
        let (transport, interrupts, back_end) = VhostUser::attach(config)?;
        let config = NetConfig { queues: card.queues, ..drivers::net_config() };
        let driver = Net::new(transport, config)
            .with_context(|| format!("the network card at {}", card.socket.display()))?;
        let (driver, interrupts) = (Box::new(driver), Box::new(interrupts));
        hosted.push(HostedCard { name: card_name(number), driver, interrupts });
        back_ends.push(back_end);
    }
    Ok((hosted, back_ends))
}

/// Opens functions of this machine for which there are drivers.
pub(crate) fn open_functions(config: &VfioConfig) -> Result<(Vfio, Vec<OpenFunction>)> {
    let VfioConfig { functions, dma_bytes, confinement, .. } = config;
    for address in functions {
        let identity = Machine::here().function(*address)?.identity;
        if drivers::fitting(&identity).is_none() {
            bail!(
                "there is no driver here for {address}, which is of class {}. To see for which \
                 functions there is one: outboard list",
                identity.class
            );
        }
    }
    let opened = Vfio::open(config)?;
    if *confinement == Confinement::DevicesReachAllMemory {
        tracing::warn!(
            "no IOMMU confines {}: a faulty device, or a mistake of its driver, can overwrite any \
             memory of this machine",
            functions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        );
    }
    let got = opened.0.dma_bytes();
    if got < *dma_bytes {
        tracing::warn!("{} MiB of memory for transfers lie in one piece, and are used", got >> 20);
    }
    Ok(opened)
}

/// Drivers for functions of this machine: of disks, and of network cards, numbered from `first` on.
pub(crate) fn host_functions(
    functions: Vec<OpenFunction>,
    first: usize,
) -> Result<(Vec<Hosted>, Vec<HostedCard>)> {
    let (mut hosted, mut cards) = (Vec::new(), Vec::new());
    for (device, interrupts) in functions {
        let (address, interrupts) = (device.address(), Box::new(interrupts));
        if drivers::is_card(&device.identity()) {
            let driver = drivers::start_card(device)
                .with_context(|| format!("the network card at {address}"))?;
            cards.push(HostedCard { name: card_name(first + cards.len()), driver, interrupts });
            continue;
        }
        let driver =
            drivers::start(device).with_context(|| format!("the controller at {address}"))?;
        hosted.push(Hosted { driver, interrupts, options: Vec::new() });
    }
    Ok((hosted, cards))
}

/// Refuses an image that is to be the content of both a disk of the lab and a simulated one. Those
/// who would share it look for each other's locks in different ways.
pub(crate) fn check_shared(lab: &[DiskConfig], sim: &[LiveDisk]) -> Result<()> {
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    for disk in lab {
        let Media::Image { path, .. } = &disk.media else { continue };
        let same = |other: &&LiveDisk| {
            identity(path).is_some_and(|file| Some(file) == identity(&other.path))
        };
        if let Some(other) = sim.iter().find(same).filter(|o| !(o.read_only && disk.read_only)) {
            bail!(
                "{} is given both with --lab and with --sim: two writers would destroy what is on \
                 it. Leave one of them out, or add ,ro to both",
                other.path.display()
            );
        }
    }
    Ok(())
}

/// What a server's devices are of: a lab, a simulation, other processes, this machine. Their
/// drivers come in this order.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    pub(crate) lab: Option<Lab>,
    pub(crate) sim: Option<Live>,
    pub(crate) back_ends: Vec<BackEnd>,
    pub(crate) functions: Option<Vfio>,
    /// How many drivers are for the lab's controllers.
    pub(crate) lab_drivers: usize,
    /// How many drivers of disks are for others than functions of this machine.
    pub(crate) other_drivers: usize,
    /// How many drivers of network cards are.
    pub(crate) other_cards: usize,
    /// Of each function of this machine, whether it is a network card.
    pub(crate) are_cards: Vec<bool>,
}

impl Devices {
    /// The driver of a function of this machine: those of network cards come after all others.
    fn driver_of(&self, function: usize) -> usize {
        let before = &self.are_cards[..function];
        let cards = before.iter().filter(|is_card| **is_card).count();
        if self.are_cards[function] {
            let disks = self.other_drivers + self.are_cards.iter().filter(|card| !**card).count();
            disks + self.other_cards + cards
        } else {
            self.other_drivers + function - cards
        }
    }
}

impl Platform for Devices {
    fn ended(&self) -> Option<BorrowedFd<'_>> {
        self.lab.as_ref().map(Lab::ended_descriptor)
    }

    fn check(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        if let Some(lab) = &mut self.lab {
            lab.check()?;
        }
        self.sim.as_ref().map_or(Ok(()), Live::check)?;
        self.back_ends.iter().try_for_each(BackEnd::check)?;
        match &self.functions {
            // The others are served on.
            Some(_) if self.other_drivers + self.other_cards > 0 => Ok(()),
            Some(functions) => functions.check().map_err(Into::into),
            None => Ok(()),
        }
    }

    fn requests(&self) -> Option<BorrowedFd<'_>> {
        self.functions.as_ref().map(Vfio::requests)
    }

    fn drain_requests(&mut self, wanted: &mut dyn FnMut(usize)) {
        let mut numbers = Vec::new();
        if let Some(functions) = &mut self.functions {
            functions.drain_requests(&mut |number| numbers.push(number));
        }
        numbers.into_iter().for_each(|number| wanted(self.driver_of(number)));
    }

    fn news(&self) -> Option<BorrowedFd<'_>> {
        self.sim.as_ref().map(Live::news)
    }

    fn drain_news(&mut self, tell: &mut dyn FnMut(usize, UnitId, &dyn Display)) {
        let first = self.lab_drivers;
        if let Some(sim) = &mut self.sim {
            sim.drain_news(&mut |controller, port, what| {
                tell(first + controller, UnitId(port.into()), what);
            });
        }
    }
}
