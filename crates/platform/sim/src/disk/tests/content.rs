//! What a disk holds, whatever is done to it and in whatever order.

use super::harness::Host;
use crate::Random;
use crate::disk::{Disk, DiskConfig, ImageAccess, ImageMedium};
use crate::sata::Reset;
use outboard_ahci::spec::ata::{DEVICE_FUA, DSM_TRIM, command, features};
use outboard_ahci::spec::fis::RegisterH2d;
use std::os::unix::fs::FileExt;

const SECTORS: u64 = 64;

/// What one sector may hold: what is seen now is the last; a loss of power leaves any of them.
struct Sector(Vec<u8>);

impl Sector {
    fn write(&mut self, fill: u8, durable: bool) {
        if durable {
            self.0.clear();
        }
        self.0.push(fill);
    }

    fn settle(&mut self) {
        let now = self.0.pop();
        self.0.clear();
        self.0.extend(now);
    }
}

fn write(host: &mut Host, lba: u64, sectors: u16, fill: u8, forced: bool) {
    let fis = RegisterH2d::command(command::WRITE_FPDMA_QUEUED).lba48(lba).features(sectors);
    let device = fis.device | if forced { DEVICE_FUA } else { 0 };
    host.good(RegisterH2d { device, ..fis }, &vec![fill; usize::from(sectors) * 512]);
}

fn trim(host: &mut Host, lba: u64, sectors: u64) {
    let mut data = [0; 512];
    data[..8].copy_from_slice(&(lba | sectors << 48).to_le_bytes());
    let fis = RegisterH2d::command(command::DATA_SET_MANAGEMENT).features(DSM_TRIM);
    host.good(fis.count(1), &data);
}

#[test]
fn nothing_durable_is_lost_and_nothing_old_comes_back() {
    let mut cuts = 0;
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let cache_sectors = *random.pick(&[4, 16, 1000]);
        let config = DiskConfig { cache_sectors, ..DiskConfig::modern(SECTORS) };
        let mut host = Host::seeded(config, seed);
        let mut sectors: Vec<Sector> = (0..SECTORS).map(|_| Sector(vec![0])).collect();
        let mut cache = true;
        for _ in 0..200 {
            let lba = random.below(SECTORS);
            let count = random.between(1, 12.min(SECTORS - lba));
            let range = lba as usize..(lba + count) as usize;
            match random.below(40) {
                0..16 => {
                    let (fill, forced) = (random.bits() as u8, random.once_in(4));
                    write(&mut host, lba, count as u16, fill, forced);
                    sectors[range].iter_mut().for_each(|s| s.write(fill, forced || !cache));
                }
                16..20 => {
                    trim(&mut host, lba, count);
                    sectors[range].iter_mut().for_each(|sector| sector.write(0, true));
                }
                20..24 => {
                    assert!(!host.flush().is_bad());
                    sectors.iter_mut().for_each(Sector::settle);
                }
                24 => host.reset(*random.pick(&[Reset::Soft, Reset::Hard])),
                25 => {
                    cache = !cache;
                    let feature = if cache {
                        features::ENABLE_WRITE_CACHE
                    } else {
                        sectors.iter_mut().for_each(Sector::settle);
                        features::DISABLE_WRITE_CACHE
                    };
                    host.good(RegisterH2d::command(command::SET_FEATURES).features(feature), &[]);
                }
                26 => {
                    (cache, cuts) = (true, cuts + 1);
                    host.cycle_power();
                    for (sector, found) in sectors.iter_mut().zip(host.fills(0, SECTORS as u16)) {
                        assert!(sector.0.contains(&found), "seed {seed}: {found}, {:?}", sector.0);
                        *sector = Sector(vec![found]);
                    }
                }
                _ => {
                    let expected: Vec<u8> =
                        sectors[range].iter().filter_map(|s| s.0.last().copied()).collect();
                    assert_eq!(host.fills(lba, count as u16), expected, "seed {seed}");
                }
            }
        }
    }
    assert!(cuts > 150, "{cuts}");
}

#[test]
fn the_same_seed_leaves_the_same_disk() {
    let run = || {
        let config = DiskConfig { cache_sectors: 9, ..DiskConfig::modern(SECTORS) };
        let mut host = Host::seeded(config, 7);
        for fill in 0..100 {
            write(&mut host, u64::from(fill) * 7 % 50, 9, fill, fill % 10 == 0);
        }
        host.cycle_power();
        (host.fills(0, SECTORS as u16), host.now)
    };
    assert_eq!(run(), run());
}

#[test]
fn an_image_has_what_was_flushed_and_nothing_else_before_it_was() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SECTORS * 512).unwrap();
    let medium = ImageMedium::open(file.path(), 512, ImageAccess::ReadWrite).unwrap();
    let mut host = Host::new(DiskConfig::modern(medium.sectors()));
    host.disk = Disk::with_medium(host.disk.config().clone(), Box::new(medium));
    let byte = |lba: u64| {
        let mut byte = [0];
        file.as_file().read_exact_at(&mut byte, lba * 512 + 511).unwrap();
        byte[0]
    };
    write(&mut host, 3, 4, 9, false);
    assert_eq!((byte(3), host.fills(3, 1)[0]), (0, 9));
    assert!(!host.flush().is_bad());
    write(&mut host, 5, 1, 8, true);
    assert_eq!((byte(3), byte(4), byte(5), byte(6), byte(7)), (9, 9, 8, 9, 0));
    trim(&mut host, 4, 2);
    assert_eq!((byte(3), byte(4), byte(5), byte(6)), (9, 0, 0, 9));
    // What the file does not have any more cannot be read, and is the medium's error.
    file.as_file().set_len(5 * 512).unwrap();
    let (end, _) = host.read(3, 4);
    assert_eq!((end.error, end.lba, end.bytes), (0x40, 5, 1024));
}
