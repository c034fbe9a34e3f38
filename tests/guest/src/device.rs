//! The devices that a guest has.

use std::path::PathBuf;

/// What is behind a disk of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disk {
    /// So many bytes, which read as zeros and forget writes: storage is not the limit.
    Null(u64),
    /// A raw image file, which is written.
    Image(PathBuf),
}

/// Which registers a virtio device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtioVersion {
    /// Those of virtio 1.0 and later.
    Modern,
    /// Those, and the ones from before.
    Transitional,
    /// Only those from before.
    Legacy,
}

/// What a virtio device offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Virtio {
    /// Which registers it has.
    pub version: VirtioVersion,
    /// Rings in the packed layout.
    pub packed: bool,
    /// How many queues a disk has.
    pub queues: u16,
    /// It reaches memory through the IOMMU, as only modern ones can; else it goes round it.
    pub through_iommu: bool,
}

impl Virtio {
    /// A modern one that an IOMMU confines, with one queue.
    pub const CONFINED: Self =
        Self { version: VirtioVersion::Modern, packed: false, queues: 1, through_iommu: true };

    /// One that no IOMMU confines, with one queue.
    pub const fn unconfined(version: VirtioVersion) -> Self {
        Self { version, packed: false, queues: 1, through_iommu: false }
    }

    /// Its properties, as QEMU names them.
    fn properties(&self) -> String {
        let on = |value| if value { "on" } else { "off" };
        let legacy = on(self.version == VirtioVersion::Modern);
        let modern = on(self.version == VirtioVersion::Legacy);
        let (platform, packed) = (on(self.through_iommu), on(self.packed));
        format!(
            "disable-legacy={legacy},disable-modern={modern},iommu_platform={platform},packed={packed}"
        )
    }
}

/// A PCI function, or a controller with its disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// A Serial ATA controller with up to six disks.
    Ahci(Vec<Disk>),
    /// An NVMe controller with one namespace.
    Nvme(Disk),
    /// A disk over virtio.
    VirtioBlk(Disk, Virtio),
    /// A disk over virtio that another process serves by vhost-user, at a socket.
    VhostUserBlk {
        /// Where the socket is.
        socket: PathBuf,
        /// Whether the rings are packed.
        packed: bool,
        /// How many there are.
        queues: u16,
    },
    /// A network interface over virtio that another process serves by vhost-user, at a socket.
    VhostUserNet {
        /// Where the socket is.
        socket: PathBuf,
        /// Whether the rings are packed.
        packed: bool,
    },
    /// A network interface over virtio. All network interfaces are on one hub.
    VirtioNet(Virtio),
    /// An Intel 82540EM.
    E1000,
    /// An Intel 82574L.
    E1000e,
}

/// The first slot of the root bus that devices get; those before are the machine's own.
const FIRST_SLOT: usize = 4;
/// How many devices fit.
pub(crate) const MAX_DEVICES: usize = 24;

impl Device {
    /// The variable in which the script finds the addresses of devices of this kind.
    pub(crate) fn variable(&self) -> &'static str {
        match self {
            Self::Ahci(_) => "AHCI",
            Self::Nvme(_) => "NVME",
            Self::VirtioBlk(..) => "VIRTIO_BLK",
            Self::VhostUserBlk { .. } => "VHOST_USER_BLK",
            Self::VhostUserNet { .. } => "VHOST_USER_NET",
            Self::VirtioNet(_) => "VIRTIO_NET",
            Self::E1000 => "E1000",
            Self::E1000e => "E1000E",
        }
    }

    /// The address of the guest's device number `index`.
    pub(crate) fn address(index: usize) -> String {
        format!("0000:00:{:02x}.0", FIRST_SLOT + index)
    }

    /// What QEMU is told about the guest's device number `index`.
    pub(crate) fn arguments(&self, index: usize) -> Vec<String> {
        let at = format!("addr=0x{:x}", FIRST_SLOT + index);
        let node = format!("node{index}");
        let device = |text: String| ["-device".to_owned(), text];
        match self {
            Self::Ahci(disks) => {
                let mut arguments: Vec<_> = device(format!("ahci,id=ahci{index},{at}")).into();
                for (port, disk) in disks.iter().enumerate() {
                    let node = format!("{node}p{port}");
                    arguments.extend(disk.backend(&node));
                    let serial = format!("AHCI{index}P{port}");
                    let bus = format!("bus=ahci{index}.{port}");
                    arguments.extend(device(format!("ide-hd,drive={node},{bus},serial={serial}")));
                }
                arguments
            }
            Self::Nvme(disk) => {
                let text = format!("nvme,{at},serial=NVME{index},drive={node}");
                disk.backend(&node).into_iter().chain(device(text)).collect()
            }
            Self::VirtioBlk(disk, virtio) => {
                let (properties, queues) = (virtio.properties(), virtio.queues);
                let text =
                    format!("virtio-blk-pci,{at},{properties},num-queues={queues},drive={node}");
                disk.backend(&node).into_iter().chain(device(text)).collect()
            }
            Self::VhostUserBlk { socket, packed, queues } => {
                let socket = socket.display().to_string().replace(',', ",,");
                // Whoever serves it may die and come again.
                let channel = format!("socket,id=vhost{index},path={socket},reconnect=1");
                let rings =
                    format!("packed={},num-queues={queues}", if *packed { "on" } else { "off" });
                let text = format!(
                    "vhost-user-blk-pci,{at},disable-legacy=on,chardev=vhost{index},{rings}"
                );
                ["-chardev".to_owned(), channel].into_iter().chain(device(text)).collect()
            }
            Self::VhostUserNet { socket, packed } => {
                let socket = socket.display().to_string().replace(',', ",,");
                let channel = format!("socket,id=vhost{index},path={socket},reconnect=1");
                let network = format!("vhost-user,id=net{index},chardev=vhost{index}");
                let packed = if *packed { "on" } else { "off" };
                let mac = format!("mac=52:54:00:00:00:{index:02x}");
                // QEMU 7.2 without KVM dies when such a device sends messages; the pin is well.
                let pin = "vectors=0";
                let text = format!(
                    "virtio-net-pci,{at},disable-legacy=on,netdev=net{index},{mac},{pin},\
                     packed={packed},romfile="
                );
                let options = ["-chardev", &channel, "-netdev", &network].map(str::to_owned);
                options.into_iter().chain(device(text)).collect()
            }
            Self::VirtioNet(virtio) => {
                on_hub(index, &format!("virtio-net-pci,{at},{}", virtio.properties()))
            }
            Self::E1000 => on_hub(index, &format!("e1000,{at}")),
            Self::E1000e => on_hub(index, &format!("e1000e,{at}")),
        }
    }

    /// Whether another process has to reach the guest's memory for it.
    pub(crate) const fn shares_memory(&self) -> bool {
        matches!(self, Self::VhostUserBlk { .. } | Self::VhostUserNet { .. })
    }
}

/// A network interface; hubs connect them with each other, and with nothing else.
fn on_hub(index: usize, device: &str) -> Vec<String> {
    let mac = format!("52:54:00:00:00:{index:02x}");
    ["-netdev", &format!("hubport,id=net{index},hubid=0"), "-device"]
        .into_iter()
        .map(str::to_owned)
        .chain([format!("{device},netdev=net{index},mac={mac},romfile=")])
        .collect()
}

impl Disk {
    fn backend(&self, node: &str) -> [String; 2] {
        let text = match self {
            Self::Null(bytes) => {
                format!("driver=null-co,node-name={node},size={bytes},read-zeroes=on")
            }
            Self::Image(path) => {
                // QEMU reads two commas as one that belongs to the name.
                let path = path.display().to_string().replace(',', ",,");
                // A guest's data need not survive this machine.
                let cache = "cache.no-flush=on";
                format!("driver=raw,node-name={node},{cache},file.driver=file,file.filename={path}")
            }
        };
        ["-blockdev".to_owned(), text]
    }
}
