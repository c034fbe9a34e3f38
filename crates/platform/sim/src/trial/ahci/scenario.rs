//! What a seed stands for: an HBA, disks, work, and faults.

use crate::Random;
use crate::disk::{Abilities, DiskConfig};
use crate::fault::Fault;
use crate::hba::HbaConfig;
use crate::multiplier::MultiplierConfig;
use core::time::Duration;
use outboard_ahci::spec::registers::HandOff;
use outboard_ahci::{AhciConfig, Reaping};

/// A fault that is going to strike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) at: Duration,
    pub(super) port: u8,
    pub(super) fault: Fault,
}

/// What a trial is made of.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) hba: HbaConfig,
    pub(super) driver: AhciConfig,
    /// The port that has a multiplier, and what that is like.
    pub(super) multiplier: Option<(u8, MultiplierConfig)>,
    pub(super) disks: Vec<Planted>,
    pub(super) faults: Vec<Planned>,
}

/// A disk at its port.
#[derive(Debug)]
pub(super) struct Planted {
    pub(super) port: u8,
    /// The port of a multiplier that it is behind, if there is one.
    pub(super) behind: Option<u8>,
    pub(super) disk: DiskConfig,
    /// The sectors that are used: from here, so many.
    pub(super) base: u64,
    pub(super) sectors: usize,
    pub(super) requests: u32,
}

/// How often a trial is one with a multiplier.
const MULTIPLIER_ONCE_IN: u64 = 5;
/// What keeps faults of the whole HBA rare: each ends most of a trial's work.
const CONTROLLER_ONCE_IN: u64 = 40;
/// Likewise those that end a disk's.
const DISK_ONCE_IN: u64 = 3;

impl Scenario {
    /// Draws one. `only` restricts the faults.
    pub(super) fn draw(random: &mut Random, only: &[Fault]) -> Self {
        let ports = *random.pick(&[1, 1, 2, 2, 3, 4, 6, 32]);
        let mut hba = HbaConfig::new(ports);
        let capabilities = hba
            .capabilities
            .with_slots_minus_one(*random.pick(&[31, 31, 31, 30, 7, 0]))
            .with_ncq(!random.once_in(6))
            .with_wide(!random.once_in(6))
            .with_staggered(random.once_in(4))
            .with_ahci_only(!random.once_in(5));
        hba.capabilities = capabilities;
        hba.pin = random.once_in(5);
        if random.once_in(8) {
            let busy = random.once_in(2);
            hba.hand_off = Some(HandOff::new().with_bios_owned(true).with_bios_busy(busy));
        }
        let driver = AhciConfig {
            reaping: if random.once_in(6) { Reaping::Polling } else { Reaping::Interrupts },
            prdt_entries: 24,
            queuing: !random.once_in(8),
            ..AhciConfig::default()
        };
        let mut disks = Vec::new();
        for port in 0..ports {
            // A place may be empty, but not the first.
            if port == 0 || !random.once_in(3) && disks.len() < 4 {
                disks.push(Planted::draw(port, None, random));
            }
        }
        // What is drawn without a multiplier does not depend on there being such a thing.
        let mut aside = Random::new(!random.clone().bits());
        let multiplier = Self::draw_multiplier(&mut hba, &mut disks, only, &mut aside);
        let faults = Self::draw_faults(random, &disks, only);
        Self { hba, driver, multiplier, disks, faults }
    }

    /// Sometimes one of the ports has a multiplier, with several disks.
    fn draw_multiplier(
        hba: &mut HbaConfig,
        disks: &mut Vec<Planted>,
        only: &[Fault],
        random: &mut Random,
    ) -> Option<(u8, MultiplierConfig)> {
        let needed = only.iter().any(|fault| Fault::OF_MULTIPLIERS.contains(fault));
        let drawn = only.is_empty() && random.once_in(MULTIPLIER_ONCE_IN);
        if !needed && !drawn {
            return None;
        }
        hba.capabilities = hba
            .capabilities
            .with_port_multiplier(true)
            .with_fis_switching(random.once_in(2))
            .with_notification(random.once_in(2));
        // The HBA may as well be able to, and have none.
        let first = (needed || !random.once_in(6)).then(|| disks.remove(0))?;
        let ports = random.between(1, 6) as u8;
        let notification = !random.once_in(3);
        for behind in 0..ports {
            if behind + 1 == ports || !random.once_in(3) {
                disks.push(Planted::draw(first.port, Some(behind), random));
            }
        }
        Some((first.port, MultiplierConfig { notification, ..MultiplierConfig::new(ports) }))
    }

    fn draw_faults(random: &mut Random, disks: &[Planted], only: &[Fault]) -> Vec<Planned> {
        let count = match random.below(8) {
            0 => random.between(0, 2),
            1..6 => random.between(3, 24),
            _ => random.between(25, 80),
        };
        let multiplied = disks.iter().find(|disk| disk.behind.is_some()).map(|disk| disk.port);
        let mut faults = Vec::new();
        // Some ports stay unharmed.
        let harmed: Vec<u8> = disks.iter().map(|disk| disk.port).collect();
        let harmed = &harmed[..random.between(1, harmed.len() as u64) as usize];
        // Few kinds, so that they meet themselves; or any.
        let kinds: Vec<Fault> = match random.below(3) {
            _ if !only.is_empty() => only.to_vec(),
            0 => (0..4).map(|_| *random.pick(Fault::ALL)).collect(),
            _ => Fault::ALL.to_vec(),
        };
        for _ in 0..count {
            let of_multiplier = multiplied.is_some() && only.is_empty() && random.once_in(3);
            let kinds = if of_multiplier { &Fault::OF_MULTIPLIERS[..] } else { &kinds[..] };
            let fault = *random.pick(kinds);
            use crate::fault::Cost;
            let skipped = match fault.cost() {
                Cost::Controller => !random.once_in(CONTROLLER_ONCE_IN),
                Cost::Disk => !random.once_in(DISK_ONCE_IN),
                _ => false,
            };
            if skipped && only.is_empty() {
                continue;
            }
            // While it works, or later, when it may be recovering.
            let at = match random.below(4) {
                0 => Duration::from_micros(random.below(2_000)),
                1 | 2 => Duration::from_micros(random.below(60_000)),
                _ => Duration::from_millis(random.below(40_000)),
            };
            let port = match multiplied.filter(|_| Fault::OF_MULTIPLIERS.contains(&fault)) {
                Some(port) => port,
                None => *random.pick(harmed),
            };
            faults.push(Planned { at, port, fault });
        }
        faults
    }
}

impl Planted {
    fn draw(port: u8, behind: Option<u8>, random: &mut Random) -> Self {
        let sectors: u64 = *random.pick(&[600, 70_000, 1 << 27, 1 << 33, (1 << 48) - 1]);
        let mut disk = match random.below(8) {
            0 => DiskConfig::ancient(sectors.min((1 << 28) - 1)),
            1 | 2 => DiskConfig::rotating(sectors),
            _ => DiskConfig::modern(sectors),
        };
        if random.once_in(6) {
            disk.sector_bytes = 4096;
        }
        disk.queue_depth = disk.queue_depth.min(*random.pick(&[32, 32, 32, 31, 8, 2, 0]));
        for (ability, times) in [
            (Abilities::FUA, 4),
            (Abilities::WRITE_CACHE, 6),
            (Abilities::LOGS, 6),
            (Abilities::CHECKSUM, 6),
            (Abilities::FLUSH_EXT, 12),
        ] {
            if random.once_in(times) {
                disk = disk.without(ability);
            }
        }
        disk.serial = match behind {
            Some(behind) => format!("TRIAL{port}-{behind}"),
            None => format!("TRIAL{port}"),
        };
        let used = random.between(8, 256).min(disk.sectors);
        let base = random.below(disk.sectors - used + 1);
        let requests = random.between(20, 160) as u32;
        Self { port, behind, disk, base, sectors: used as usize, requests }
    }
}
