//! What a lab is made of.

use crate::{CardConfig, LabError};
use outboard_hw::interrupt::InterruptKind;
use outboard_linux::description;
use std::path::PathBuf;
use std::str::FromStr;

/// Ports of one AHCI controller of QEMU's `ich9-ahci`.
const AHCI_PORTS: usize = 6;

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

/// How a disk is attached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Bus {
    /// To a port of an AHCI controller, which it shares with those beside it in the list.
    #[default]
    Ahci,
    /// As a virtio device of its own.
    Virtio(VirtioConfig),
}

/// Which registers a virtio device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VirtioVersion {
    /// Those of virtio 1.0 and later.
    #[default]
    Modern,
    /// Those, and the ones from before.
    Transitional,
    /// Only those from before.
    Legacy,
}

/// What a virtio device offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtioConfig {
    /// Which registers it has.
    pub version: VirtioVersion,
    /// Rings in the packed layout.
    pub packed: bool,
    /// How many queues it has; of a network card, how many pairs.
    pub queues: u16,
    /// The entries of each.
    pub queue_entries: u16,
    /// Tables of descriptors.
    pub indirect: bool,
    /// Event indices.
    pub event_index: bool,
    /// It insists on the addresses that the platform gives.
    pub access_platform: bool,
}

impl VirtioConfig {
    /// The most queues that there is an interrupt vector for, beside those of other devices.
    pub const MAX_QUEUES: u16 = 16;

    /// A device of virtio 1.0 with one queue, or one pair of them.
    pub const DEFAULT: Self = Self {
        version: VirtioVersion::Modern,
        packed: false,
        queues: 1,
        queue_entries: 256,
        indirect: true,
        event_index: true,
        access_platform: false,
    };
}

impl Default for VirtioConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A disk of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// What kind of device it is.
    pub kind: DiskKind,
    /// How it is attached.
    pub bus: Bus,
    /// What is behind it.
    pub media: Media,
    /// Nothing is written to the image, whatever is written to the disk.
    pub read_only: bool,
    /// Bytes in a physical sector, 512 or 4096. QEMU's IDE disks have logical sectors of 512; those
    /// over virtio have logical sectors of this size.
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
            bus: Bus::Ahci,
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
            bus: Bus::Ahci,
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

    /// The same disk over virtio.
    pub fn over(self, virtio: VirtioConfig) -> Self {
        Self { bus: Bus::Virtio(virtio), ..self }
    }

    /// Bytes in its logical sectors, as its driver will see them.
    pub const fn logical_sector_bytes(&self) -> u32 {
        match (self.kind, &self.bus) {
            (DiskKind::Cd, _) => 2048,
            (DiskKind::Disk, Bus::Ahci) => 512,
            (DiskKind::Disk, Bus::Virtio(_)) => self.sector_bytes,
        }
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

    /// Reads `IMAGE[,ro][,cd][,sector=4096][,format=qcow2][,bad=SECTOR]…` and, for disks over virtio,
    /// `[,bus=virtio|virtio-legacy][,packed][,queues=N]`; or `null:BYTES[,…]` for a disk that reads as zeros and
    /// forgets writes.
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
                Some(("bus", "ahci")) => disk.bus = Bus::Ahci,
                Some(("bus", "virtio")) => disk.bus = Bus::Virtio(VirtioConfig::default()),
                Some(("bus", "virtio-legacy")) => {
                    let version = VirtioVersion::Legacy;
                    disk.bus = Bus::Virtio(VirtioConfig { version, ..VirtioConfig::default() });
                }
                Some(("bus", value)) => {
                    let buses = "ahci, virtio or virtio-legacy";
                    return Err(error(format!("a disk's bus is {buses}, not {value:?}")));
                }
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
            Bus::Virtio(_) if disk.kind == DiskKind::Cd => {
                return Err(error("a CD drive is not attached over virtio".into()));
            }
            Bus::Virtio(virtio) if packed && virtio.version == VirtioVersion::Legacy => {
                return Err(error("legacy devices are older than packed rings".into()));
            }
            Bus::Virtio(virtio) => {
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

/// What kind of machine a lab is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Machine {
    /// A PC (`q35`): its devices are PCI functions.
    #[default]
    Pc,
    /// QEMU's `microvm`, without PCI: its disks are virtio devices at fixed addresses, with registers
    /// of version 1.
    MicroV1,
    /// The same with registers of version 2.
    MicroV2,
}

impl Machine {
    /// The most devices at fixed addresses.
    pub const MMIO_DEVICES: usize = 8;
}

/// A lab to be started.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// Disks, which get the ports of as many AHCI controllers as they need, or are devices of their
    /// own; see [`controllers`](Self::controllers).
    pub disks: Vec<DiskConfig>,
    /// The machine that they are attached to.
    pub machine: Machine,
    /// Network cards, at the addresses behind the disks' controllers.
    pub cards: Vec<CardConfig>,
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
            machine: Machine::Pc,
            cards: Vec::new(),
            dma_bytes: Self::DMA_BYTES,
            interrupts: None,
            program: None,
            arguments: Vec::new(),
        }
    }

    /// The disks of each controller, in the order of the controllers' addresses.
    pub fn controllers(disks: &[DiskConfig]) -> impl Iterator<Item = &[DiskConfig]> {
        let together =
            |one: &DiskConfig, next: &DiskConfig| one.bus == Bus::Ahci && next.bus == Bus::Ahci;
        disks.chunk_by(together).flat_map(|disks| disks.chunks(AHCI_PORTS))
    }

    /// The same lab with one more network card.
    pub fn with_card(mut self, card: CardConfig) -> Self {
        self.cards.push(card);
        self
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
        let virtio = VirtioConfig { packed: true, queues: 4, ..VirtioConfig::default() };
        assert_eq!(
            "a.img,bus=virtio,queues=4,packed".parse::<DiskConfig>().unwrap(),
            DiskConfig::image("a.img").over(virtio)
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
    fn disks_share_ahci_controllers_and_have_their_place_in_the_order() {
        let of = |text: &str| text.parse::<DiskConfig>().unwrap();
        let mut disks = vec![of("null:512"); 8];
        disks.push(of("null:512,bus=virtio"));
        disks.push(of("null:512,bus=virtio"));
        disks.push(of("null:512"));
        let lengths: Vec<_> = LabConfig::controllers(&disks).map(<[_]>::len).collect();
        assert_eq!(lengths, [6, 2, 1, 1, 1]);
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
            ("a.img,bus=scsi", "ahci, virtio or"),
            ("a.img,bus=virtio-legacy,packed", "older than packed rings"),
            ("a.img,packed", "bus=virtio"),
            ("a.img,bus=virtio,queues=17", "from 1 to 16"),
            ("a.iso,cd,bus=virtio", "not attached over virtio"),
        ] {
            let error = text.parse::<DiskConfig>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
