//! An HBA and disks behind it.

mod scenario;

use super::client::Client;
use super::machine::{Content, End, Machine, Made};
use super::oracle::Oracle;
use super::{TrialOptions, Tried, disk_key};
use crate::Random;
use crate::device::SimDevice;
use crate::disk::Disk;
use crate::fault::{Cost, Fault, Struck};
use crate::hba::HbaModel;
use crate::multiplier::Multiplier;
use core::fmt;
use outboard_ahci::Hba;
use outboard_block::{BlockDriver, UnitId};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, DeviceView};
use scenario::{Planted, Scenario};

/// By how much the units of neighbouring device ports of a multiplier differ.
const UNIT_STRIDE: u16 = 32;

/// An HBA in a trial.
struct Bus {
    device: SimDevice,
    /// The port with a multiplier.
    multiplied: Option<u8>,
}

impl Tried for Fault {
    #[cfg(feature = "sabotage")]
    type Sabotage = outboard_ahci::Sabotage;

    fn make(random: &mut Random, arena: &Arena, options: &TrialOptions) -> Made<Self> {
        let scenario = Scenario::draw(random, &options.only);
        let view = DeviceView::new(arena.clone());
        let mut hba = HbaModel::new(scenario.hba, view, random.fork());
        if options.trace {
            hba.trace().start();
        }
        if let Some((port, config)) = scenario.multiplier {
            hba.attach(port, Box::new(Multiplier::new(config)));
        }
        let disks = scenario.disks.into_iter();
        let clients = disks.map(|planted| plant(planted, &mut hba, random)).collect();
        for planned in scenario.faults {
            hba.schedule_fault(Instant::ORIGIN + planned.at, planned.port, planned.fault);
        }
        let device = SimDevice::new(hba, arena.clone());
        #[cfg(feature = "sabotage")]
        let config = outboard_ahci::AhciConfig { sabotage: options.sabotage, ..scenario.driver };
        #[cfg(not(feature = "sabotage"))]
        let config = scenario.driver;
        let driver = Hba::new(device.clone(), config);
        let driver = driver.map(|driver| Box::new(driver) as Box<dyn BlockDriver>);
        let driver = driver.map_err(|error| Some(error.to_string()));
        let multiplied = scenario.multiplier.map(|(port, _)| port);
        Made { machine: Box::new(Bus { device, multiplied }), driver, clients }
    }

    fn concerns(struck: &Struck, unit: UnitId) -> bool {
        let (port, behind) = (unit.0 % UNIT_STRIDE, unit.0 / UNIT_STRIDE);
        let there = port == u16::from(struck.port)
            && struck.behind.is_none_or(|struck| u16::from(struck) == behind);
        there || struck.fault.cost() == Cost::Controller
    }

    fn cuts_power(self) -> bool {
        // Whatever is pulled out is without power, behind a multiplier as well.
        matches!(
            self,
            Self::BrownOut
                | Self::PowerCut
                | Self::Unplug
                | Self::Replug
                | Self::ReplugOther
                | Self::BehindUnplug
                | Self::BehindReplug
                | Self::BehindReplugOther
        )
    }

    fn hides_sector(self) -> bool {
        matches!(
            self,
            Self::WriteFault
                | Self::ReceivedStale
                | Self::ReceivedGarbage
                | Self::TaskFileGarbage
                | Self::UncorrectableForGood
                | Self::IdNotFound
        )
    }
}

/// Attaches a disk, and makes its client.
fn plant(planted: Planted, hba: &mut HbaModel, random: &mut Random) -> Client<Fault> {
    let key = disk_key(&planted.disk.serial);
    let bytes = planted.disk.sector_bytes as usize;
    let oracle = Oracle::new(key, planted.base, planted.sectors, bytes);
    let behind = u16::from(planted.behind.unwrap_or(0));
    let unit = UnitId(u16::from(planted.port) + UNIT_STRIDE * behind);
    let client = Client::new(unit, oracle, planted.requests, random.fork());
    let mut other = planted.disk.clone();
    other.serial = planted.disk.serial.replace("TRIAL", "OTHER");
    let (disk, other) = (Box::new(Disk::new(planted.disk)), Box::new(Disk::new(other)));
    if let Some(behind) = planted.behind {
        hba.prepare_spare_behind(planted.port, behind, other);
        hba.attach_behind(planted.port, behind, disk);
    } else {
        hba.prepare_spare(planted.port, other);
        hba.attach(planted.port, disk);
    }
    client
}

impl Machine<Fault> for Bus {
    fn advance(&mut self, now: Instant, clients: &mut [Client<Fault>]) {
        let mut hba = self.device.hba();
        hba.advance(now);
        if let Some(port) = self.multiplied {
            let resets = hba.resets() + hba.link_resets(port);
            let behind =
                |client: &&mut Client<Fault>| client.unit.0 % UNIT_STRIDE == u16::from(port);
            let behind = clients.iter_mut().filter(behind);
            behind.for_each(|client| client.multiplier_was_reset(resets));
        }
    }

    fn next_event(&self) -> Option<Instant> {
        self.device.hba().next_event()
    }

    fn take_interrupts(&mut self, fired: &mut dyn FnMut(u16)) {
        // The driver that is told looks at the HBA.
        let interrupt = self.device.hba().take_interrupt();
        if interrupt {
            fired(0);
        }
    }

    fn take_struck(&mut self) -> Vec<Struck> {
        self.device.hba().take_struck()
    }

    fn note(&mut self, at: Instant, what: fmt::Arguments<'_>) {
        self.device.hba().trace().note(at, what);
    }

    fn check(&mut self, client: &Client<Fault>) -> Result<(), String> {
        let mut hba = self.device.hba();
        let port = (client.unit.0 % UNIT_STRIDE) as u8;
        let behind = (client.unit.0 / UNIT_STRIDE) as u8;
        let device = match hba.has_multiplier(port) {
            true => hba.device_behind(port, behind),
            false => hba.device(port),
        };
        let disk = device.and_then(|device| device.as_any().downcast_mut::<Disk>());
        let Some(disk) = disk else { return Ok(()) };
        if disk_key(&disk.config().serial) != client.oracle.disk {
            // Another one, which the driver has not taken up.
            return Ok(());
        }
        client.oracle.check_disk(disk).map_err(|what| format!("port {port}: {what}"))
    }

    fn end(&mut self) -> End<Fault> {
        let mut hba = self.device.hba();
        let counts = hba.counts().clone();
        End { counts, violations: hba.violations().to_vec(), trace: hba.trace().take() }
    }
}

impl Content for Disk {
    fn is_damaged(&self, lba: u64) -> bool {
        self.defect(lba).is_some()
    }

    fn visible(&mut self, lba: u64, sector: &mut [u8]) {
        self.visible(lba, sector);
    }

    fn durable(&mut self, lba: u64, sector: &mut [u8]) {
        self.durable(lba, sector);
    }
}
