//! The model in real time, as the ground of a server: simulated controllers, whose disks' content
//! is in images.
//!
//! Each controller has a thread that advances its model to the monotonic clock, and sleeps until
//! the model's next event is due or a doorbell makes one due earlier. A driver's access advances
//! the model first, so that nobody sees a time that has passed. While the model works on an image
//! it is locked: a driver that accesses it waits, as for a bus that is busy.
//!
//! An image holds what is durable, and nothing else: what a disk has acknowledged and not flushed
//! is in its volatile cache, in this process. Simulated faults do nothing to an image that is not
//! theirs to do: a bad sector is bad in the model alone, and its data stays in the image; cut
//! power loses what was not flushed.

mod config;
mod controller;
mod error;
mod plan;

pub use config::{LiveConfig, LiveDisk};
pub use controller::LiveInterrupts;
pub use error::LiveError;

use crate::Random;
use crate::device::SimDevice;
use crate::disk::{Disk, ImageAccess, ImageMedium};
use crate::hba::{HbaConfig, HbaModel};
use controller::{Controller, News};
use core::fmt::Display;
use outboard_hw::dma::{Arena, DeviceView};
use outboard_linux::{SharedMemory, now};
use plan::Plan;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// A machine of simulated controllers. Dropping it ends their threads, and puts on the images what
/// is in the disks' caches.
#[derive(Debug)]
pub struct Live {
    controllers: Vec<Controller>,
    news: Arc<News>,
}

impl Live {
    /// Opens the images, and lets time begin.
    pub fn start(config: &LiveConfig) -> Result<Self, LiveError> {
        let memory = SharedMemory::for_model("simulated-memory", config.dma_bytes);
        let (_, arena) = memory.map_err(LiveError::system("making memory for transfers"))?;
        let news = News::new().map_err(LiveError::system("eventfd"))?;
        let mut live = Self { controllers: Vec::new(), news: Arc::new(news) };
        for (index, disks) in config.disks.chunks(LiveConfig::PORTS).enumerate() {
            live.add(index * LiveConfig::PORTS, disks, &arena, config.pin)?;
        }
        Ok(live)
    }

    fn add(
        &mut self,
        first: usize,
        disks: &[LiveDisk],
        arena: &Arena,
        pin: bool,
    ) -> Result<(), LiveError> {
        let start = now();
        let config = HbaConfig { pin, ..HbaConfig::new(disks.len() as u8) };
        let seed = disks.iter().find_map(|disk| disk.faults).unwrap_or_default();
        let view = DeviceView::new(arena.clone());
        let mut hba = HbaModel::new(config, view, Random::new(seed));
        hba.advance(start);
        let mut plans = Vec::new();
        for ((port, number), disk) in (0u8..).zip(first..).zip(disks) {
            let access =
                if disk.read_only { ImageAccess::ReadOnly } else { ImageAccess::ReadWrite };
            let medium = ImageMedium::open(&disk.path, disk.sector_bytes, access)?;
            let config = disk.config(medium.sectors(), number);
            hba.attach(port, Box::new(Disk::with_medium(config, Box::new(medium))));
            plans.extend(disk.faults.map(|seed| (port, Plan::new(seed, number, start))));
        }
        let controller = Controller::start(hba, arena.clone(), plans, self.news.clone());
        let system = |error| LiveError::System { what: "starting a simulated controller", error };
        self.controllers.push(controller.map_err(system)?);
        Ok(())
    }

    /// The controllers, each with its interrupts: for one driver each. The disks are behind them in
    /// order, [`LiveConfig::PORTS`] behind each but the last.
    pub fn functions(&self) -> impl Iterator<Item = (SimDevice, LiveInterrupts)> {
        self.controllers.iter().map(|one| (one.device.clone(), one.interrupts()))
    }

    /// Readable when [`drain_news`](Self::drain_news) has something to tell.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.news.event.as_fd()
    }

    /// Tells what has happened since the last call: at which controller, at which of its ports, and
    /// what.
    pub fn drain_news(&mut self, tell: &mut dyn FnMut(usize, u8, &dyn Display)) {
        if !self.news.take() {
            return;
        }
        for (index, controller) in self.controllers.iter_mut().enumerate() {
            controller.drain(&mut |port, what| tell(index, port, what));
        }
    }

    /// The error that says why a controller has stopped; `Ok` if none has.
    pub fn check(&self) -> Result<(), LiveError> {
        if self.controllers.iter().any(Controller::died) { Err(LiveError::Stopped) } else { Ok(()) }
    }
}
