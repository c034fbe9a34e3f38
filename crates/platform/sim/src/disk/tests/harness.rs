//! A host that gives a disk one command after the other.

use crate::sata::{Command, End, Protocol, Reset, SataDevice};
use crate::{Disk, DiskConfig, Random};
use core::time::Duration;
use outboard_ahci::spec::ata::{Error, command};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::identify::Identify;
use outboard_hw::Instant;

/// A disk, its clock and its luck.
pub(super) struct Host {
    pub(super) disk: Disk,
    pub(super) now: Instant,
    pub(super) random: Random,
    /// How long the last command took.
    pub(super) took: Duration,
}

impl Host {
    pub(super) fn new(config: DiskConfig) -> Self {
        Self::seeded(config, 1)
    }

    pub(super) fn seeded(config: DiskConfig, seed: u64) -> Self {
        let mut disk = Disk::new(config);
        let now = Instant::ORIGIN;
        let report = disk.reset(Reset::PowerOn, now);
        assert_eq!(report.signature, 0x101);
        Self { disk, now: now + report.takes, random: Random::new(seed), took: Duration::ZERO }
    }

    /// Carries a command out with data from the host, or returns what came.
    pub(super) fn run(&mut self, fis: RegisterH2d, data: &[u8]) -> (End, Vec<u8>) {
        let command = Command { fis, packet: [0; 16] };
        let plan = match self.disk.plan(&command, self.now, &mut self.random) {
            Ok(plan) => plan,
            Err(end) => {
                assert!(end.is_bad());
                return (end, Vec::new());
            }
        };
        let mut buffer = vec![0; plan.bytes];
        if plan.protocol.is_out() {
            assert_eq!(data.len(), plan.bytes, "{fis:?}");
            buffer.copy_from_slice(data);
        }
        self.took = plan.takes;
        self.now = self.now + plan.takes;
        let end = self.disk.carry_out(&command, &mut buffer, self.now, &mut self.random);
        if plan.protocol.is_queued() && end.is_bad() {
            let tag = fis.count[0] >> 3;
            self.disk.note_queued_failure(tag, &command, &end);
        }
        if plan.protocol.is_out() || plan.protocol == Protocol::NonData {
            buffer.clear();
        }
        (end, buffer)
    }

    /// Carries a command out that must end well, and returns what came.
    pub(super) fn good(&mut self, fis: RegisterH2d, data: &[u8]) -> Vec<u8> {
        let (end, back) = self.run(fis, data);
        assert!(!end.is_bad(), "{fis:?} {end:?}");
        back
    }

    /// Carries a command out that must be aborted.
    pub(super) fn aborted(&mut self, fis: RegisterH2d, data: &[u8]) {
        let (end, _) = self.run(fis, data);
        assert!(end.is_bad() && end.error == Error::ABORTED.bits(), "{fis:?} {end:?}");
    }

    pub(super) fn identify(&mut self) -> Vec<u8> {
        self.good(RegisterH2d::command(command::IDENTIFY_DEVICE), &[])
    }

    /// A word of the identification.
    pub(super) fn word(&mut self, index: usize) -> u16 {
        let data = self.identify();
        u16::from_le_bytes([data[index * 2], data[index * 2 + 1]])
    }

    /// The identification as the driver takes it.
    pub(super) fn identity(&mut self) -> Option<Identify> {
        Identify::new(&self.identify().try_into().unwrap())
    }

    pub(super) fn write(&mut self, lba: u64, sectors: u16, fill: u8) -> End {
        let data = vec![fill; usize::from(sectors) * self.disk.config().sector_bytes as usize];
        self.run(RegisterH2d::command(command::WRITE_DMA_EXT).lba48(lba).count(sectors), &data).0
    }

    pub(super) fn read(&mut self, lba: u64, sectors: u16) -> (End, Vec<u8>) {
        self.run(RegisterH2d::command(command::READ_DMA_EXT).lba48(lba).count(sectors), &[])
    }

    /// The first byte of each sector.
    pub(super) fn fills(&mut self, lba: u64, sectors: u16) -> Vec<u8> {
        let (end, data) = self.read(lba, sectors);
        assert!(!end.is_bad(), "{end:?}");
        let sectors = data.chunks(self.disk.config().sector_bytes as usize);
        let whole = |sector: &[u8]| {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is not torn");
            sector[0]
        };
        sectors.map(whole).collect()
    }

    pub(super) fn flush(&mut self) -> End {
        self.run(RegisterH2d::command(command::FLUSH_CACHE_EXT), &[]).0
    }

    /// Power goes and comes back.
    pub(super) fn cycle_power(&mut self) {
        self.disk.cut_power(self.now, &mut self.random);
        self.reset(Reset::PowerOn);
    }

    pub(super) fn reset(&mut self, reset: Reset) {
        let report = self.disk.reset(reset, self.now);
        self.now = self.now + report.takes;
    }

    pub(super) fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }
}
