//! What a simulated machine is made of.

use super::LiveError;
use crate::disk::{DiskConfig, Timing};
use core::fmt;
use core::time::Duration;
use outboard_linux::description;
use std::path::PathBuf;
use std::str::FromStr;

/// Characters of a serial number (ACS §7.12.7.10).
const SERIAL: usize = 20;

/// A simulated disk, and the image that keeps its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveDisk {
    /// The image: a file or a block device with what is on the disk, byte for byte.
    pub path: PathBuf,
    /// Nothing is written to the image.
    pub read_only: bool,
    /// Bytes of a sector: 512 or 4096.
    pub sector_bytes: u32,
    /// The seed of the faults that strike; none if there is none.
    pub faults: Option<u64>,
    /// Its serial number; one that tells it from the others of the machine if `None`.
    pub serial: Option<String>,
}

impl LiveDisk {
    /// A disk without faults, with 512-byte sectors, that is read and written.
    pub fn image(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path, read_only: false, sector_bytes: 512, faults: None, serial: None }
    }

    /// What the model is built from, for the disk with this number.
    pub(super) fn config(&self, sectors: u64, number: usize) -> DiskConfig {
        let modern = DiskConfig::modern(sectors);
        let model = match self.faults {
            Some(_) => "OUTBOARD SIMULATED SSD WITH FAULTS",
            None => "OUTBOARD SIMULATED SSD",
        };
        let serial = self.serial.clone().unwrap_or_else(|| format!("OBSIM{:04}", number + 1));
        DiskConfig {
            model: model.into(),
            serial,
            sector_bytes: self.sector_bytes,
            physical_exponent: if self.sector_bytes == 512 { 3 } else { 0 },
            cache_sectors: CACHE_BYTES / self.sector_bytes as usize,
            timing: Timing { sector: SECTOR, seek: SEEK, ..modern.timing },
            ..modern
        }
    }
}

/// A volatile cache of a size that real disks have.
const CACHE_BYTES: usize = 16 << 20;
/// The link would need longer for a sector; here, time is what copying costs.
const SECTOR: Duration = Duration::from_nanos(20);
/// A good disk in solid state.
const SEEK: Duration = Duration::from_micros(40);

impl FromStr for LiveDisk {
    type Err = LiveError;

    /// Reads `IMAGE[,ro][,sector=4096][,faults=SEED][,serial=TEXT]`.
    fn from_str(text: &str) -> Result<Self, LiveError> {
        let error = |reason: String| LiveError::Syntax { text: text.into(), reason };
        let (rest, options) =
            description::split(text, &["ro"]).ok_or_else(|| error("it names no image".into()))?;
        let mut disk = Self::image(rest);
        for option in options {
            match option.split_once('=') {
                None => disk.read_only = true,
                Some(("sector", value)) => {
                    disk.sector_bytes = description::sector_bytes(value).map_err(error)?;
                }
                Some(("faults", value)) => {
                    let seed = value.parse();
                    let reason = || format!("the seed of faults is a number, not {value:?}");
                    disk.faults = Some(seed.map_err(|_| error(reason()))?);
                }
                Some(("serial", value)) => {
                    let fits = (1..=SERIAL).contains(&value.len())
                        && value.bytes().all(|byte| byte.is_ascii_graphic());
                    let reason = || {
                        format!("a serial number has 1 to {SERIAL} ASCII characters, not {value:?}")
                    };
                    disk.serial = Some(fits.then(|| value.into()).ok_or_else(|| error(reason()))?);
                }
                Some((key, _)) => return Err(error(format!("there is no option {key:?}"))),
            }
        }
        Ok(disk)
    }
}

impl fmt::Display for LiveDisk {
    /// Writes what [`from_str`](Self::from_str) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},sector={}", self.path.display(), self.sector_bytes)?;
        if let Some(seed) = self.faults {
            write!(f, ",faults={seed}")?;
        }
        if let Some(serial) = &self.serial {
            write!(f, ",serial={serial}")?;
        }
        f.write_str(if self.read_only { ",ro" } else { "" })
    }
}

/// A machine with simulated disks.
#[derive(Debug, Clone)]
pub struct LiveConfig {
    /// The disks, which get the ports of as many AHCI controllers as they need.
    pub disks: Vec<LiveDisk>,
    /// Bytes of DMA memory; pages count only once they are touched.
    pub dma_bytes: usize,
    /// Whether the controllers signal by a pin, rather than by messages.
    pub pin: bool,
}

impl LiveConfig {
    /// Ports of a controller.
    pub const PORTS: usize = 6;

    /// A machine with these disks.
    pub const fn new(disks: Vec<LiveDisk>) -> Self {
        Self { disks, dma_bytes: 256 << 20, pin: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_described_by_text() {
        assert_eq!("a.img".parse::<LiveDisk>().unwrap(), LiveDisk::image("a.img"));
        let disk: LiveDisk = "dir/a,b.img,serial=X-1,sector=4096,faults=7,ro".parse().unwrap();
        let expected = LiveDisk {
            path: "dir/a,b.img".into(),
            read_only: true,
            sector_bytes: 4096,
            faults: Some(7),
            serial: Some("X-1".into()),
        };
        assert_eq!(disk, expected);
        assert_eq!(disk.to_string().parse::<LiveDisk>().unwrap(), disk);
    }

    #[test]
    fn what_describes_no_disk_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "names no image"),
            (",ro", "names no image"),
            ("a.img,sector=520", "512 or 4096"),
            ("a.img,faults=many", "seed of faults is a number"),
            ("a.img,serial=", "1 to 20"),
            ("a.img,serial=123456789012345678901", "1 to 20"),
            ("a.img,format=qcow2", "no option \"format\""),
        ] {
            let error = text.parse::<LiveDisk>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
