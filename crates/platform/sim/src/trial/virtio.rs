//! A virtio disk.

mod scenario;

use super::client::Client;
use super::machine::{Content, End, Machine, Made};
use super::oracle::Oracle;
use super::{TrialOptions, Tried, disk_key};
use crate::Random;
use crate::disk::Store;
use crate::fault::{Cost, Struck, VirtioFault};
use crate::virtio::{VirtioDevice, VirtioModel};
use core::fmt;
use outboard_block::{BlockDriver, UnitId};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, DeviceView};
use outboard_virtio::Blk;
use outboard_virtio::transport::PciTransport;
use scenario::Scenario;

impl Tried for VirtioFault {
    #[cfg(feature = "sabotage")]
    type Sabotage = outboard_virtio::Sabotage;

    fn make(random: &mut Random, arena: &Arena, options: &TrialOptions<Self>) -> Made<Self> {
        let scenario = Scenario::draw(random, &options.only);
        let bytes = scenario.disk.sector_bytes as usize;
        let view = DeviceView::new(arena.clone());
        let mut model = VirtioModel::new(scenario.disk, view, random.fork());
        if options.trace {
            model.trace().start();
        }
        for planned in scenario.faults {
            match planned.at.is_zero() {
                true => model.inject(planned.fault),
                false => model.schedule_fault(Instant::ORIGIN + planned.at, planned.fault),
            }
        }
        let key = disk_key(model.serial());
        let oracle = Oracle::new(key, scenario.base, scenario.used, bytes);
        let client = Client::new(UnitId(0), oracle, scenario.requests, random.fork());
        let device = VirtioDevice::new(model, arena.clone());
        #[cfg(feature = "sabotage")]
        let config = outboard_virtio::BlkConfig { sabotage: options.sabotage, ..scenario.driver };
        #[cfg(not(feature = "sabotage"))]
        let config = scenario.driver;
        let driver = PciTransport::new(device.clone()).and_then(|port| Blk::new(port, config));
        let driver = driver.map(|driver| Box::new(driver) as Box<dyn BlockDriver>);
        let driver = driver.map_err(|error| Some(error.to_string()));
        Made { machine: Box::new(Function(device)), driver, clients: vec![client] }
    }

    fn concerns(_: &Struck<Self>, _: UnitId) -> bool {
        true
    }

    fn cuts_power(self) -> bool {
        self == Self::PowerCut
    }

    fn hides_sector(self) -> bool {
        matches!(self.cost(), Cost::Sectors | Cost::Request)
    }

    fn spoils_flushes(self) -> bool {
        self == Self::SectorBadForGood
    }
}

/// The device in a trial.
struct Function(VirtioDevice);

impl Machine<VirtioFault> for Function {
    fn advance(&mut self, now: Instant, _: &mut [Client<VirtioFault>]) {
        self.0.model().advance(now);
    }

    fn next_event(&self) -> Option<Instant> {
        self.0.model().next_event()
    }

    fn take_interrupts(&mut self, fired: &mut dyn FnMut(u16)) {
        // The driver that is told looks at the device.
        let mut vectors = Vec::new();
        self.0.model().take_interrupts(&mut |vector| vectors.push(vector));
        vectors.into_iter().for_each(fired);
    }

    fn take_struck(&mut self) -> Vec<Struck<VirtioFault>> {
        self.0.model().take_struck()
    }

    fn spoilt_attempts(&self) -> Option<usize> {
        Some(self.0.model().resets_with_reason() as usize)
    }

    fn note(&mut self, at: Instant, what: fmt::Arguments<'_>) {
        self.0.model().trace().note(at, what);
    }

    fn check(&mut self, client: &Client<VirtioFault>) -> Result<(), String> {
        let mut model = self.0.model();
        if disk_key(model.serial()) != client.oracle.disk {
            // Another one, which the driver has not taken up.
            return Ok(());
        }
        client.oracle.check_disk(model.store())
    }

    fn end(&mut self) -> End<VirtioFault> {
        let mut model = self.0.model();
        let counts = model.counts().clone();
        End { counts, violations: model.violations().to_vec(), trace: model.trace().take() }
    }
}

impl Content for Store {
    fn is_damaged(&self, lba: u64) -> bool {
        self.defects.contains_key(&lba)
    }

    fn visible(&mut self, lba: u64, sector: &mut [u8]) {
        self.visible(lba, sector);
    }

    fn durable(&mut self, lba: u64, sector: &mut [u8]) {
        self.durable(lba, sector);
    }
}
