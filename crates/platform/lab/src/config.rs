//! What a lab is made of.

use crate::LabError;
use outboard_hw::interrupt::InterruptKind;
use outboard_linux::description;
use std::path::PathBuf;
use std::str::FromStr;

/// The format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Byte for byte what is on the disk.
    Raw,
    /// QEMU's own format.
    Qcow2,
    /// VMware's format.
    Vmdk,
    /// VirtualBox's format.
    Vdi,
    /// Hyper-V's format.
    Vhdx,
}

impl Format {
    /// As QEMU calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
        }
    }

    const ALL: [Self; 5] = [Self::Raw, Self::Qcow2, Self::Vmdk, Self::Vdi, Self::Vhdx];
}

/// What is behind a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// An image in a file, or a block device.
    Image {
        /// Where it is.
        path: PathBuf,
        /// What format it has. It is never guessed: a guest could make a raw image look like
        /// another format, one that names files of the host.
        format: Format,
    },
    /// Nothing: reads give zeros and writes are forgotten, at once. For measuring.
    Null {
        /// Size of the disk in bytes.
        bytes: u64,
    },
}

/// When an injected fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultAt {
    /// On reads.
    Read,
    /// On writes.
    Write,
    /// On flushes.
    Flush,
}

/// An I/O error that QEMU injects below the disk (its `blkdebug` driver).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// On what.
    pub at: FaultAt,
    /// On requests that touch this 512-byte sector; on all if `None`.
    pub sector: Option<u64>,
    /// Only the first time.
    pub once: bool,
}

impl Fault {
    /// A 512-byte sector that can neither be read nor written.
    pub const fn bad_sector(sector: u64) -> [Self; 2] {
        let sector = Some(sector);
        [
            Self { at: FaultAt::Read, sector, once: false },
            Self { at: FaultAt::Write, sector, once: false },
        ]
    }
}

/// What kind of device a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    /// A hard disk.
    Disk,
    /// A CD drive with the image as its disc, read-only, with sectors of 2048 bytes.
    Cd,
}

/// A disk of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// What kind of device it is.
    pub kind: DiskKind,
    /// What is behind it.
    pub media: Media,
    /// Nothing is written to the image, whatever is written to the disk.
    pub read_only: bool,
    /// Bytes in a physical sector, 512 or 4096. QEMU's disk models have logical sectors of 512.
    pub sector_bytes: u32,
    /// Errors to inject.
    pub faults: Vec<Fault>,
}

impl DiskConfig {
    /// A writable raw image with 512-byte sectors.
    pub fn image(path: impl Into<PathBuf>) -> Self {
        let media = Media::Image { path: path.into(), format: Format::Raw };
        Self {
            kind: DiskKind::Disk,
            media,
            read_only: false,
            sector_bytes: 512,
            faults: Vec::new(),
        }
    }

    /// A disk that swallows writes and reads as zeros.
    pub const fn null(bytes: u64) -> Self {
        let media = Media::Null { bytes };
        Self {
            kind: DiskKind::Disk,
            media,
            read_only: false,
            sector_bytes: 512,
            faults: Vec::new(),
        }
    }

    /// The image as a disc in a CD drive.
    pub fn cd(path: impl Into<PathBuf>) -> Self {
        Self { kind: DiskKind::Cd, read_only: true, ..Self::image(path) }
    }

    /// The same disk, read-only.
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// The same disk with one more fault.
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }
}

impl FromStr for DiskConfig {
    type Err = LabError;

    /// Reads `IMAGE[,ro][,cd][,sector=4096][,format=qcow2][,bad=SECTOR]…`, or `null:BYTES` for a disk
    /// that reads as zeros and forgets writes.
    fn from_str(text: &str) -> Result<Self, LabError> {
        let error = |reason: String| LabError::DiskSyntax { text: text.into(), reason };
        let (rest, options) = description::split(text, &["ro", "cd"])
            .ok_or_else(|| error("it names no image".into()))?;
        if let Some(bytes) = rest.strip_prefix("null:").and_then(|bytes| bytes.parse().ok()) {
            let whole = options.is_empty() && bytes > 0 && bytes % 512 == 0;
            let whole = whole.then_some(Self::null(bytes));
            return whole.ok_or_else(|| error("it is null:BYTES, a multiple of 512".into()));
        }
        let mut disk = Self::image(rest);
        for option in options {
            match option.split_once('=') {
                None if option == "cd" => (disk.kind, disk.read_only) = (DiskKind::Cd, true),
                None => disk.read_only = true,
                Some(("sector", value)) => {
                    disk.sector_bytes = description::sector_bytes(value).map_err(error)?;
                }
                Some(("format", value)) => {
                    let found = Format::ALL.into_iter().find(|format| format.name() == value);
                    let names = Format::ALL.map(Format::name).join(", ");
                    let unknown = || error(format!("formats are {names}, not {value:?}"));
                    let path = rest.into();
                    disk.media = Media::Image { path, format: found.ok_or_else(unknown)? };
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
        Ok(disk)
    }
}

/// A lab to be started.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// Disks, which get the ports of as many AHCI controllers as they need.
    pub disks: Vec<DiskConfig>,
    /// Bytes of DMA memory, at most [`MAX_DMA_BYTES`](Self::MAX_DMA_BYTES); pages count only once
    /// they are touched.
    pub dma_bytes: usize,
    /// Use interrupts of this kind even where a better one is offered.
    pub interrupts: Option<InterruptKind>,
    /// The QEMU to run; `OUTBOARD_QEMU` or `qemu-system-x86_64` if `None`.
    pub program: Option<PathBuf>,
    /// More arguments for QEMU, such as further devices.
    pub arguments: Vec<String>,
}

impl LabConfig {
    /// DMA memory of a lab that does not say otherwise.
    pub const DMA_BYTES: usize = 256 << 20;

    /// The most DMA memory of a lab. With the first MiB it makes 2 GiB: of more RAM, the machine
    /// may move a part above 4 GiB.
    pub const MAX_DMA_BYTES: usize = (2 << 30) - (1 << 20);

    /// A lab with these disks.
    pub const fn new(disks: Vec<DiskConfig>) -> Self {
        Self {
            disks,
            dma_bytes: Self::DMA_BYTES,
            interrupts: None,
            program: None,
            arguments: Vec::new(),
        }
    }

    /// The same lab with more arguments for QEMU.
    pub fn with_arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
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
        ] {
            let error = text.parse::<DiskConfig>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
