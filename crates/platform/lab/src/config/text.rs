//! Disks as text, as the command line has them.

use super::{Bus, DiskConfig, DiskKind, Fault, Format, Media, VirtioConfig, VirtioVersion};
use crate::LabError;
use core::fmt;
use outboard_linux::description;
use std::str::FromStr;

/// Buses, as they are called; of virtio devices, in a PC or without PCI, with which registers.
const AHCI: &str = "ahci";
const PCI: [(&str, VirtioVersion); 3] = [
    ("virtio", VirtioVersion::Modern),
    ("virtio-transitional", VirtioVersion::Transitional),
    ("virtio-legacy", VirtioVersion::Legacy),
];
const MMIO: [(&str, VirtioVersion); 2] =
    [("virtio-mmio", VirtioVersion::Modern), ("virtio-mmio-legacy", VirtioVersion::Legacy)];

/// The bus of a name.
fn bus(name: &str) -> Result<Bus, String> {
    let find = |buses: &[(&str, VirtioVersion)]| {
        let found = buses.iter().find(|(bus, _)| *bus == name);
        found.map(|(_, version)| VirtioConfig { version: *version, ..VirtioConfig::default() })
    };
    match (find(&PCI), find(&MMIO)) {
        _ if name == AHCI => Ok(Bus::Ahci),
        (Some(virtio), _) => Ok(Bus::Virtio(virtio)),
        (_, Some(virtio)) => Ok(Bus::VirtioMmio(virtio)),
        (None, None) => {
            let names = PCI.iter().chain(&MMIO).map(|(name, _)| *name).collect::<Vec<_>>();
            Err(format!("a disk's bus is {AHCI}, {}, not {name:?}", names.join(", ")))
        }
    }
}

impl FromStr for DiskConfig {
    type Err = LabError;

    /// Reads `IMAGE[,ro][,cd][,sector=4096][,format=qcow2][,bad=SECTOR]…` and, for disks over virtio,
    /// `[,bus=virtio|virtio-transitional|virtio-legacy|virtio-mmio|virtio-mmio-legacy][,packed]
    /// [,queues=N]`; or `null:BYTES[,…]` for a disk that reads as zeros and forgets writes.
    fn from_str(text: &str) -> Result<Self, LabError> {
        let error = |reason: String| LabError::DiskSyntax { text: text.into(), reason };
        let (rest, options) = description::split(text, &["ro", "cd", "packed"])
            .ok_or_else(|| error("it names no image".into()))?;
        let mut disk = match rest.strip_prefix("null:").and_then(|bytes| bytes.parse().ok()) {
            Some(bytes) if bytes > 0 && bytes % 512 == 0 => Self::null(bytes),
            Some(_) => return Err(error("it is null:BYTES, a multiple of 512".into())),
            None => Self::image(rest),
        };
        let (mut packed, mut queues) = (false, None);
        for option in options {
            match option.split_once('=') {
                None if option == "cd" => (disk.kind, disk.read_only) = (DiskKind::Cd, true),
                None if option == "packed" => packed = true,
                None => disk.read_only = true,
                Some(("bus", value)) => disk.bus = bus(value).map_err(error)?,
                Some(("queues", value)) => {
                    let number = value.parse().ok();
                    let most = VirtioConfig::MAX_QUEUES;
                    queues = number.filter(|number| (1..=most).contains(number));
                    if queues.is_none() {
                        return Err(error(format!("there are from 1 to {most} queues")));
                    }
                }
                Some(("sector", value)) => {
                    disk.sector_bytes = description::sector_bytes(value).map_err(error)?;
                }
                Some(("format", value)) => {
                    let found = Format::ALL.into_iter().find(|format| format.name() == value);
                    let names = Format::ALL.map(Format::name).join(", ");
                    let unknown = || error(format!("formats are {names}, not {value:?}"));
                    let format = found.ok_or_else(unknown)?;
                    let Media::Image { format: was, .. } = &mut disk.media else {
                        return Err(error("a disk of zeros has no format".into()));
                    };
                    *was = format;
                }
                Some(("bad", value)) => {
                    let sector = value.parse().map_err(|_| {
                        error(format!(
                            "a bad sector is a number of 512-byte sectors, not {value:?}"
                        ))
                    })?;
                    disk.faults.extend(Fault::bad_sector(sector));
                }
                Some((key, _)) => return Err(error(format!("there is no option {key:?}"))),
            }
        }
        if disk.kind == DiskKind::Cd && disk.sector_bytes != 512 {
            return Err(error("a CD always has sectors of 2048 bytes".into()));
        }
        match &mut disk.bus {
            Bus::Virtio(_) | Bus::VirtioMmio(_) if disk.kind == DiskKind::Cd => {
                return Err(error("a CD drive is not attached over virtio".into()));
            }
            Bus::Virtio(virtio) | Bus::VirtioMmio(virtio)
                if packed && virtio.version == VirtioVersion::Legacy =>
            {
                return Err(error("legacy devices are older than packed rings".into()));
            }
            Bus::Virtio(virtio) | Bus::VirtioMmio(virtio) => {
                (virtio.packed, virtio.queues) = (packed, queues.unwrap_or(virtio.queues));
            }
            Bus::Ahci if packed || queues.is_some() => {
                return Err(error("packed and queues= are for disks with bus=virtio".into()));
            }
            Bus::Ahci => {}
        }
        Ok(disk)
    }
}

/// What [`from_str`](DiskConfig::from_str) reads. Faults are told as bad sectors, which is all that
/// it makes.
impl fmt::Display for DiskConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.media {
            Media::Null { bytes } => write!(f, "null:{bytes}")?,
            Media::Image { path, format } => {
                write!(f, "{},format={}", path.display(), format.name())?;
            }
        }
        match self.kind {
            DiskKind::Cd => f.write_str(",cd")?,
            DiskKind::Disk => write!(f, ",sector={}", self.sector_bytes)?,
        }
        if self.read_only {
            f.write_str(",ro")?;
        }
        let virtio = match &self.bus {
            Bus::Ahci => None,
            Bus::Virtio(virtio) => Some((&PCI[..], virtio)),
            Bus::VirtioMmio(virtio) => Some((&MMIO[..], virtio)),
        };
        if let Some((names, virtio)) = virtio {
            let name = names.iter().find(|(_, version)| *version == virtio.version);
            let name = name.map_or("virtio-mmio", |(name, _)| name);
            write!(f, ",bus={name},queues={}", virtio.queues)?;
            f.write_str(if virtio.packed { ",packed" } else { "" })?;
        }
        let mut sectors: Vec<_> = self.faults.iter().filter_map(|fault| fault.sector).collect();
        sectors.dedup();
        // Options are read from the end.
        sectors.iter().rev().try_for_each(|sector| write!(f, ",bad={sector}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_described_by_text() {
        assert_eq!("a.img".parse::<DiskConfig>().unwrap(), DiskConfig::image("a.img"));
        assert_eq!(
            "a.img,ro".parse::<DiskConfig>().unwrap(),
            DiskConfig::image("a.img").read_only()
        );
        assert_eq!("a.iso,cd".parse::<DiskConfig>().unwrap(), DiskConfig::cd("a.iso"));
        assert_eq!("a.iso,cd,ro".parse::<DiskConfig>().unwrap(), DiskConfig::cd("a.iso"));
        let virtio = VirtioConfig { packed: true, queues: 4, ..VirtioConfig::default() };
        assert_eq!(
            "a.img,bus=virtio,queues=4,packed".parse::<DiskConfig>().unwrap(),
            DiskConfig::image("a.img").over(virtio.clone())
        );
        assert_eq!(
            "a.img,bus=virtio-mmio,packed,queues=4".parse::<DiskConfig>().unwrap(),
            DiskConfig::image("a.img").over_mmio(virtio)
        );
        let null = "null:1024,ro,bus=virtio".parse::<DiskConfig>().unwrap();
        assert_eq!(null, DiskConfig::null(1024).read_only().over(VirtioConfig::default()));
        assert_eq!("null:1024".parse::<DiskConfig>().unwrap(), DiskConfig::null(1024));
        let disk: DiskConfig = "dir/a,b.img,sector=4096,format=qcow2,ro".parse().unwrap();
        let media = Media::Image { path: "dir/a,b.img".into(), format: Format::Qcow2 };
        let expected =
            DiskConfig { media, sector_bytes: 4096, ..DiskConfig::image("").read_only() };
        assert_eq!(disk, expected);
        assert_eq!(
            "x,ro=1/y".parse::<DiskConfig>().unwrap().media,
            Media::Image { path: "x,ro=1/y".into(), format: Format::Raw }
        );
    }

    #[test]
    fn a_description_is_read_as_the_disk_that_it_was_made_of() {
        for text in [
            "a.img",
            "dir/a,b.img,ro,sector=4096,format=vdi,bad=7,bad=9",
            "a.iso,cd",
            "null:1024,bus=virtio,queues=4,packed",
            "a.img,bus=virtio-transitional,queues=2",
            "a.img,bus=virtio-legacy",
            "a.img,bus=virtio-mmio,queues=16,packed,ro",
            "a.img,bus=virtio-mmio-legacy",
        ] {
            let disk: DiskConfig = text.parse().unwrap();
            assert_eq!(disk.to_string().parse::<DiskConfig>().unwrap(), disk, "{disk}");
        }
    }

    #[test]
    fn what_describes_no_disk_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "names no image"),
            (",ro", "names no image"),
            ("a.img,sector=520", "512 or 4096"),
            ("a.img,bad=x", "number of 512-byte sectors"),
            ("a.img,format=iso", "raw, qcow2"),
            ("a.img,size=3", "no option \"size\""),
            ("a.iso,cd,sector=4096", "2048 bytes"),
            ("null:1000", "multiple of 512"),
            ("null:1024,format=raw", "no format"),
            ("a.img,bus=scsi", "ahci, virtio, virtio-transitional"),
            ("a.img,bus=virtio-legacy,packed", "older than packed rings"),
            ("a.img,bus=virtio-mmio-legacy,packed", "older than packed rings"),
            ("a.img,packed", "bus=virtio"),
            ("a.img,bus=virtio,queues=17", "from 1 to 16"),
            ("a.iso,cd,bus=virtio", "not attached over virtio"),
            ("a.iso,cd,bus=virtio-mmio", "not attached over virtio"),
        ] {
            let error = text.parse::<DiskConfig>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
