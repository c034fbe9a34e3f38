//! Straight through the driver.

use crate::{drivers, hosting};

use super::{Clock, Measurement, Places, Setup, Target};
use anyhow::{Context, Result, bail};
use outboard_block::{BlockDriver, Completion, Durability, Request, Tag, UnitId, UnitState};
use outboard_host::{Hosted, Pace, Reaping};
use outboard_hw::dma::{DmaBuffer, SgList};
use outboard_hw::registers::{AccessCounts, Counted};
use outboard_lab::{Bus, Lab, LabConfig};
use outboard_linux::{InterruptSource, now};
use outboard_pci::{Counting, Device, Function};
use outboard_sim::Live;
use outboard_sim::live::LiveConfig;
use outboard_vfio::VfioConfig;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// How long the disk may take to come up.
const START_TIME: Duration = Duration::from_secs(30);
/// Before a measurement, everything is warmed up for this part of its time.
const WARM_UP: u32 = 10;

/// A disk, its driver, and who waits for its interrupts.
struct Rig {
    driver: Box<dyn BlockDriver>,
    interrupts: Box<dyn InterruptSource>,
    /// Of registers, if there are any.
    counts: Option<Arc<AccessCounts>>,
    pace: Pace,
    /// Whether to look rather than to wait for interrupts.
    looking: bool,
    /// The first disk.
    unit: UnitId,
    /// What the device is of, which ends with this value.
    _machine: Box<dyn Any>,
}

pub(crate) fn measure(disk: &Target, setup: &Setup) -> Result<Measurement> {
    let mut rig = Rig::new(disk, setup.reaping)?;
    let disk_bytes = rig.driver.unit(rig.unit).map_or(0, |unit| unit.geometry.bytes());
    let mut places = Places::new(setup, disk_bytes);
    let constraints = rig.driver.constraints();
    let dma = rig.driver.dma();
    let mut idle = Vec::new();
    for number in 0..setup.depth {
        let buffer = dma.allocate(setup.bytes, &constraints).context("no memory for transfers")?;
        idle.push((u64::from(number), buffer));
    }
    let mut warm = Clock::new(setup.depth)?;
    rig.run(setup, setup.seconds / WARM_UP, &mut places, &mut idle, &mut warm)?;
    let mut clock = Clock::new(setup.depth)?;
    let before = rig.accesses();
    let seconds = rig.run(setup, setup.seconds, &mut places, &mut idle, &mut clock)?;
    let accesses = rig.accesses().zip(before);
    let accesses = accesses.map(|(after, before)| (after.0 - before.0, after.1 - before.1));
    Ok(clock.measurement(setup, seconds, accesses))
}

impl Rig {
    fn new(disk: &Target, reaping: Reaping) -> Result<Self> {
        match disk {
            Target::Lab(disk) => {
                let lab = Lab::start(&LabConfig::new(vec![disk.clone()]))?;
                if matches!(disk.bus, Bus::VirtioMmio(_)) {
                    let (registers, interrupts) = lab.open_mmio(0)?;
                    let counts = Arc::new(AccessCounts::default());
                    let counted = Counted::new(registers, counts.clone());
                    let driver = drivers::start_mmio(counted, lab.dma())?;
                    let (interrupts, lab) = (Box::new(interrupts), Box::new(lab));
                    return Self::bring_up(driver, interrupts, Some(counts), lab, reaping);
                }
                let fits = |f: &&Function| drivers::for_disks(&f.identity).is_some();
                let function = lab.functions().iter().find(fits);
                let address = function.context("the lab has no disk")?.address;
                let (device, interrupts) = lab.open(address)?;
                Self::start(device, Box::new(interrupts), Box::new(lab), reaping)
            }
            Target::Pci(address, confinement) => {
                let (machine, functions) = hosting::open_functions(&VfioConfig {
                    functions: vec![*address],
                    dma_bytes: LabConfig::DMA_BYTES,
                    foreign_bytes: 0,
                    interrupts: None,
                    confinement: *confinement,
                })?;
                let function = functions.into_iter().next();
                let (device, interrupts) = function.context("no function was opened")?;
                Self::start(device, Box::new(interrupts), Box::new(machine), reaping)
            }
            Target::VhostUser(disk) => {
                let disks = std::slice::from_ref(disk);
                let (hosted, back_ends) = hosting::host_back_ends(disks, LabConfig::DMA_BYTES)?;
                let Hosted { driver, interrupts, .. } =
                    hosted.into_iter().next().context("no back end")?;
                Self::bring_up(driver, interrupts, None, Box::new(back_ends), reaping)
            }
            Target::Sim(disk) => {
                let sim = Live::start(&LiveConfig::new(vec![disk.clone()]))?;
                let function = sim.functions().next();
                let (device, interrupts) = function.context("no simulated controller")?;
                Self::start(device, Box::new(interrupts), Box::new(sim), reaping)
            }
        }
    }

    fn start<D: Device + 'static>(
        device: D,
        interrupts: Box<dyn InterruptSource>,
        machine: Box<dyn Any>,
        reaping: Reaping,
    ) -> Result<Self> {
        let counts = Arc::new(AccessCounts::default());
        let driver = drivers::start(Counting::new(device, counts.clone()))?;
        Self::bring_up(driver, interrupts, Some(counts), machine, reaping)
    }

    fn bring_up(
        driver: Box<dyn BlockDriver>,
        interrupts: Box<dyn InterruptSource>,
        counts: Option<Arc<AccessCounts>>,
        machine: Box<dyn Any>,
        reaping: Reaping,
    ) -> Result<Self> {
        let unit = UnitId(0);
        let pace = Pace::new(reaping);
        let mut rig =
            Self { driver, interrupts, counts, pace, looking: false, unit, _machine: machine };
        let end = now() + START_TIME;
        while rig.unit_in(UnitState::Starting).is_some() {
            if now().reached(end) {
                bail!("the disk does not come up");
            }
            rig.turn(false, &mut |_| {})?;
        }
        rig.unit = rig.unit_in(UnitState::Ready).context("there is no disk that is ready")?;
        Ok(rig)
    }

    /// Reads and writes of registers so far.
    fn accesses(&self) -> Option<(u64, u64)> {
        self.counts.as_ref().map(|counts| (counts.reads(), counts.writes()))
    }

    /// The first unit in a state.
    fn unit_in(&self, state: UnitState) -> Option<UnitId> {
        let mut units = (0..self.driver.unit_count()).map(UnitId);
        units.find(|unit| self.driver.unit(*unit).is_some_and(|unit| unit.state == state))
    }

    /// Keeps transfers under way for `time`, then lets them end; how long that took, in seconds.
    fn run(
        &mut self,
        setup: &Setup,
        time: Duration,
        places: &mut Places,
        idle: &mut Vec<(u64, DmaBuffer)>,
        clock: &mut Clock,
    ) -> Result<f64> {
        let unit = self.driver.unit(self.unit).context("no disk")?;
        let sector = u64::from(unit.geometry.sector_bytes);
        let sectors = setup.bytes as u64 / sector;
        let mut failure = None;
        while clock.elapsed() < time || idle.len() < setup.depth.into() {
            while let Some((number, buffer)) = idle.pop_if(|_| clock.elapsed() < time) {
                let lba = places.next() / sector;
                let data = SgList::single(buffer, 0..setup.bytes);
                let request = match setup.is_write() {
                    true => Request::write(lba, sectors, data, Durability::Cached),
                    false => Request::read(lba, sectors, data),
                };
                clock.start(number as usize);
                let accepted = self.driver.submit(self.unit, Tag(number), request);
                accepted.map_err(|refused| refused.reason)?;
            }
            self.driver.kick(now());
            let busy = idle.len() < setup.depth.into();
            self.turn(busy, &mut |Completion { tag, result, data, .. }| {
                clock.end(tag.0 as usize);
                failure = failure.or(result.err());
                idle.extend(data.into_buffers().map(|buffer| (tag.0, buffer)));
            })?;
            if let Some(error) = failure {
                return Err(error.into());
            }
        }
        Ok(clock.elapsed().as_secs_f64())
    }

    /// One turn of an event loop. `busy`: transfers are under way.
    fn turn(&mut self, busy: bool, done: &mut dyn FnMut(Completion)) -> Result<()> {
        let driver = &mut self.driver;
        if !self.looking {
            let deadline = driver.next_deadline();
            let time = deadline.map_or(Duration::from_secs(1), |deadline| deadline.since(now()));
            self.interrupts.wait(time)?;
            self.interrupts.take(&mut |vector| driver.interrupt(vector));
        }
        let (at, mut ended) = (now(), false);
        driver.poll(at, &mut |completion| {
            ended = true;
            done(completion);
        });
        self.interrupts.rearm();
        let looking = self.pace.looks(at, busy, ended);
        if std::mem::replace(&mut self.looking, looking) != looking {
            driver.mask(looking);
        }
        Ok(())
    }
}
