//! The driver with the simulator's HBA and disks, in virtual time.

use super::pattern;
use outboard_ahci::spec::registers::{ABAR, PORT_BYTES, PORTS_BASE};
use outboard_ahci::{AhciConfig, Hba};
use outboard_block::{
    BlockDriver, BlockError, Completion, Durability, Features, Management, RefusedReason, Request,
    Tag, UnitId, UnitState,
};
use outboard_hw::dma::{Constraints, DeviceView, ModelSpace, SgList};
use outboard_hw::{Instant, Registers};
use outboard_linux::SharedMemory;
use outboard_pci::Device;
use outboard_sim::disk::{Defect, Medium, MemoryMedium};
use outboard_sim::hba::{HbaConfig, HbaModel};
use outboard_sim::{Disk, DiskConfig, Fault, Random, SimDevice};
use std::sync::Arc;
use std::time::Duration;

/// As often as anybody tries.
pub const ALWAYS: u32 = u32::MAX;

/// A driver, its controller, and the time.
pub struct SimBench {
    pub device: SimDevice,
    pub driver: Hba<SimDevice>,
    pub now: Instant,
    pub done: Vec<Completion>,
    pub submitted: usize,
    pub events: Vec<String>,
    /// Where the controller finds memory.
    pub space: ModelSpace,
    memory: Arc<SharedMemory>,
}

/// A disk whose every 8 bytes hold their own offset.
pub fn disk(sectors: u64) -> Disk {
    disk_as(DiskConfig::modern(sectors))
}

/// Such a disk that is like that.
pub fn disk_as(config: DiskConfig) -> Disk {
    let mut medium = MemoryMedium::new(config.sector_bytes);
    medium.write(0, &pattern(0, config.sectors)).unwrap();
    Disk::with_medium(config, Box::new(medium))
}

/// A disk with sectors that can never be read.
pub fn bad_disk(bad: impl IntoIterator<Item = u64>) -> Disk {
    let mut disk = disk(4096);
    bad.into_iter().for_each(|lba| disk.damage(lba, Defect::Permanent));
    disk
}

impl SimBench {
    /// Disks at the ports from 0 on, as the driver finds them.
    pub fn starting(disks: Vec<Option<Disk>>) -> Self {
        Self::starting_at(HbaConfig::new(disks.len() as u8), disks, |_| ())
    }

    /// Likewise at an HBA that is like that, to which something is done before.
    pub fn starting_at(
        config: HbaConfig,
        disks: Vec<Option<Disk>>,
        before: impl FnOnce(&mut HbaModel),
    ) -> Self {
        let (memory, arena) = SharedMemory::for_model("model", 64 << 20).unwrap();
        let space = ModelSpace::new(arena.clone());
        let view = DeviceView::of_space(space.clone());
        let mut hba = HbaModel::new(config, view, Random::new(1));
        for (port, disk) in disks.into_iter().enumerate() {
            if let Some(disk) = disk {
                hba.attach(port as u8, Box::new(disk));
            }
        }
        before(&mut hba);
        let device = SimDevice::new(hba, arena);
        let driver = Hba::new(device.clone(), AhciConfig::default()).unwrap();
        let (done, events) = (Vec::new(), Vec::new());
        let (now, submitted) = (Instant::from_nanos(1), 0);
        Self { device, driver, now, done, submitted, events, space, memory }
    }

    /// The same, until it is known what is at every port.
    pub fn new(disks: Vec<Option<Disk>>) -> Self {
        let mut bench = Self::starting(disks);
        bench.run_until(|bench| {
            let mut units = (0..32).filter_map(|unit| bench.driver.unit(UnitId(unit)));
            units.all(|unit| unit.state != UnitState::Starting)
        });
        bench
    }

    pub fn state(&self, unit: u16) -> UnitState {
        self.driver.unit(UnitId(unit)).unwrap().state
    }

    pub fn generation(&self, unit: u16) -> u32 {
        self.driver.unit(UnitId(unit)).unwrap().generation
    }

    pub fn features(&self, unit: u16) -> Features {
        self.driver.unit(UnitId(unit)).unwrap().features
    }

    pub fn counter(&self, unit: u16, wanted: &str) -> u64 {
        let mut found = None;
        self.driver.counters(UnitId(unit), &mut |name, count| {
            found = found.or((name == wanted).then_some(count));
        });
        found.unwrap()
    }

    pub fn happened(&self, what: &str) -> usize {
        self.events.iter().filter(|event| event.contains(what)).count()
    }

    /// Does something to a disk.
    pub fn disk<T>(&self, port: u8, act: impl FnOnce(&mut Disk) -> T) -> T {
        act(self.device.hba().device(port).unwrap().as_any().downcast_mut().unwrap())
    }

    /// What a read of a sector would return.
    pub fn sector(&self, port: u8, lba: u64) -> [u8; 512] {
        let mut sector = [0; 512];
        self.disk(port, |disk| disk.visible(lba, &mut sector));
        sector
    }

    pub fn inject(&self, port: u8, fault: Fault, times: u32) {
        (0..times).for_each(|_| self.device.hba().inject(port, fault));
    }

    /// The disk is without power for a moment.
    pub fn brown_out(&self, port: u8) {
        self.device.hba().lose_power(port, Duration::from_millis(5));
    }

    /// How often memory that the driver shares with the HBA holds `secret`.
    pub fn count(&self, secret: &[u8]) -> usize {
        let bytes = rustix::fs::fstat(&*self.memory).unwrap().st_size as usize;
        let mut all = vec![0; bytes];
        rustix::io::pread(&*self.memory, &mut all, 0).unwrap();
        // What is as short as a secret does not cross pages, and most of them are blank.
        let pages = all.chunks(4096).filter(|page| **page != [0; 4096]);
        pages.flat_map(|page| page.windows(secret.len())).filter(|bytes| *bytes == secret).count()
    }

    /// The codes of the commands other than transfers that a disk has got since this was last
    /// asked.
    pub fn commands(&self, port: u8) -> Vec<u8> {
        self.disk(port, Disk::take_commands).iter().map(|fis| fis.command).collect()
    }

    /// A register of a port, as a driver reads it.
    pub fn register(&self, port: u8, offset: usize) -> u32 {
        let registers = self.device.clone().map_bar(ABAR).unwrap();
        registers.read_u32(PORTS_BASE + usize::from(port) * PORT_BYTES + offset)
    }

    /// All that happens at one moment.
    pub fn turn(&mut self) {
        if self.advance() {
            self.driver.interrupt(0);
        }
        self.poll();
    }

    /// Lets the controller do all that is due; whether it has sent an interrupt.
    pub fn advance(&mut self) -> bool {
        let mut hba = self.device.hba();
        hba.advance(self.now);
        hba.take_interrupt()
    }

    /// Lets the driver do all that is due.
    pub fn poll(&mut self) {
        let done = &mut self.done;
        self.driver.poll(self.now, &mut |completion| done.push(completion));
        let events = &mut self.events;
        self.driver.drain_events(&mut |unit, _, event| events.push(format!("{}: {event}", unit.0)));
        let hba = self.device.hba();
        assert!(hba.violations().is_empty(), "{:#?} {:#?}", hba.violations(), self.events);
    }

    /// Lets time pass from one thing that happens to the next, for at most ten minutes.
    pub fn run_until(&mut self, condition: impl Fn(&Self) -> bool) {
        self.run(self.now + Duration::from_secs(600), condition);
    }

    fn run(&mut self, end: Instant, condition: impl Fn(&Self) -> bool) {
        loop {
            self.turn();
            if condition(self) {
                return;
            }
            assert!(!self.now.reached(end), "nothing came of it: {:#?}", self.events);
            let deadline = self.driver.next_deadline();
            let far = deadline.is_some_and(|at| at.since(self.now) > Duration::from_secs(1));
            assert!(!far, "nobody waits long");
            let next = outboard_hw::time::earlier(deadline, self.device.hba().next_event());
            let next = next.unwrap_or(end).max(self.now) + Duration::from_nanos(500);
            // What is far off may be of no concern to anybody.
            self.now = next.min(end).min(self.now + Duration::from_secs(1));
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.run(end, |bench| bench.now.reached(end));
    }

    pub fn submit_request(&mut self, unit: u16, tag: u64, request: Request) {
        self.driver.submit(UnitId(unit), Tag(tag), request).map_err(|r| r.reason).unwrap();
        self.submitted += 1;
    }

    /// Submits a read, named by its first sector.
    pub fn submit(&mut self, unit: u16, lba: u64, sectors: u64) {
        let bytes = sectors as usize * 512;
        let buffer = self.driver.dma().allocate(bytes, &Constraints::NONE.aligned(2)).unwrap();
        let data = SgList::single(buffer, 0..bytes);
        self.submit_request(unit, lba, Request::read(lba, sectors, data));
    }

    /// Writes one sector of `byte`.
    pub fn submit_write(&mut self, unit: u16, lba: u64, byte: u8, durability: Durability) {
        let mut buffer = self.driver.dma().allocate(512, &Constraints::NONE.aligned(2)).unwrap();
        buffer.fill(0..512, byte);
        let data = SgList::single(buffer, 0..512);
        self.submit_request(unit, lba, Request::write(lba, 1, data, durability));
    }

    pub fn submit_flush(&mut self, unit: u16) {
        self.submit_request(unit, u64::MAX, Request::flush());
    }

    /// Asks or tells the disk something, with a password if it takes one, and waits for the end.
    pub fn manage(
        &mut self,
        unit: u16,
        what: Management,
        password: &[u8],
    ) -> Result<(), BlockError> {
        self.submit_management(unit, what, password).unwrap();
        self.finish().pop().unwrap().result
    }

    pub fn submit_management(
        &mut self,
        unit: u16,
        what: Management,
        password: &[u8],
    ) -> Result<(), RefusedReason> {
        let mut request = Request::manage(what);
        if !password.is_empty() {
            let mut buffer = self.driver.dma().allocate(32, &Constraints::NONE.aligned(2)).unwrap();
            buffer.fill(0..32, 0);
            buffer.write_bytes(0, password);
            request = Request::manage_with(what, SgList::single(buffer, 0..32));
        }
        self.driver.submit(UnitId(unit), Tag(u64::MAX), request).map_err(|r| r.reason)?;
        self.submitted += 1;
        Ok(())
    }

    /// Runs until everything submitted has completed, and no port recovers any more.
    pub fn finish(&mut self) -> Vec<Completion> {
        self.driver.kick(self.now);
        self.run_until(|bench| {
            let mut units = (0..32).filter_map(|unit| bench.driver.unit(UnitId(unit)));
            bench.done.len() == bench.submitted
                && units.all(|unit| unit.state != UnitState::Recovering)
        });
        self.submitted = 0;
        let mut done = std::mem::take(&mut self.done);
        // Passwords are their owner's to wipe.
        for completion in done.iter_mut().filter(|completion| completion.data.bytes() == 32) {
            let data = std::mem::replace(&mut completion.data, SgList::EMPTY);
            data.into_buffers().for_each(|mut buffer| buffer.fill(0..32, 0));
        }
        done.sort_by_key(|completion| completion.tag.0);
        done
    }

    /// The same for one request.
    pub fn result(&mut self) -> Result<(), BlockError> {
        let done = self.finish();
        assert_eq!(done.len(), 1);
        done[0].result
    }

    /// Reads eight sectors at each multiple of eight, 32 at once.
    pub fn read_batch(&mut self, unit: u16) -> Vec<Completion> {
        (0..32).for_each(|slot| self.submit(unit, slot * 8, 8));
        self.finish()
    }
}

/// Checks that `completion` is a good read of what was asked for.
pub fn good(completion: Completion) {
    completion.result.unwrap();
    let lba = completion.tag.0;
    let bytes = completion.data.bytes();
    let mut content = vec![0; bytes];
    completion.data.into_buffers().next().unwrap().read_bytes(0, &mut content);
    assert_eq!(content, pattern(lba, bytes as u64 / 512));
}
