//! What a lab is made of.

mod text;

use crate::CardConfig;
use outboard_hw::interrupt::InterruptKind;
use std::path::PathBuf;

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
    /// As a virtio device at a fixed address, of a machine without PCI: with registers of version 2,
    /// or of version 1 if it is a legacy one.
    VirtioMmio(VirtioConfig),
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

    /// The same device with every combination of registers, layout of the rings, tables, event
    /// indices and addresses that there can be: no legacy device has packed rings, and QEMU has none
    /// that insist on the platform's addresses and have the registers from before.
    pub fn combinations(&self) -> Vec<Self> {
        use VirtioVersion::{Legacy, Modern, Transitional};
        let versions = [Modern, Transitional, Legacy];
        let all = versions.into_iter().flat_map(|version| (0..16).map(move |bits| (version, bits)));
        let all = all.map(|(version, bits)| Self {
            version,
            packed: bits & 1 != 0,
            indirect: bits & 2 != 0,
            event_index: bits & 4 != 0,
            access_platform: bits & 8 != 0,
            ..self.clone()
        });
        let exists = |one: &Self| match one.version {
            Modern => true,
            Transitional => !one.access_platform,
            Legacy => !one.access_platform && !one.packed,
        };
        all.filter(exists).collect()
    }
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

    /// The same disk as a virtio device at a fixed address.
    pub fn over_mmio(self, virtio: VirtioConfig) -> Self {
        Self { bus: Bus::VirtioMmio(virtio), ..self }
    }

    /// Bytes in its logical sectors, as its driver will see them.
    pub const fn logical_sector_bytes(&self) -> u32 {
        match (self.kind, &self.bus) {
            (DiskKind::Cd, _) => 2048,
            (DiskKind::Disk, Bus::Ahci) => 512,
            (DiskKind::Disk, Bus::Virtio(_) | Bus::VirtioMmio(_)) => self.sector_bytes,
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

    /// The one that these disks are made for, which some of them do not fit if they differ.
    fn of(disks: &[DiskConfig]) -> Self {
        let fixed = disks.iter().find_map(|disk| match &disk.bus {
            Bus::VirtioMmio(virtio) => Some(virtio.version),
            Bus::Ahci | Bus::Virtio(_) => None,
        });
        match fixed {
            None => Self::Pc,
            Some(VirtioVersion::Legacy) => Self::MicroV1,
            Some(VirtioVersion::Modern | VirtioVersion::Transitional) => Self::MicroV2,
        }
    }
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

    /// A lab with these disks, in the machine that they are made for.
    pub fn new(disks: Vec<DiskConfig>) -> Self {
        Self {
            machine: Machine::of(&disks),
            disks,
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
    fn disks_at_fixed_addresses_are_in_a_machine_of_their_own() {
        let machine = |text: &str| LabConfig::new(vec![text.parse().unwrap()]).machine;
        assert_eq!(machine("null:512"), Machine::Pc);
        assert_eq!(machine("null:512,bus=virtio-legacy"), Machine::Pc);
        assert_eq!(machine("null:512,bus=virtio-mmio"), Machine::MicroV2);
        assert_eq!(machine("null:512,bus=virtio-mmio-legacy"), Machine::MicroV1);
    }
}
