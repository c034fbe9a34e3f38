//! How something is in use, and how to end that.

use super::Process;
use outboard_pci::Address;
use std::fmt;

/// What has a block device as its ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A logical volume of LVM.
    LogicalVolume,
    /// An encrypted volume (dm-crypt).
    Encrypted,
    /// Several paths to one disk (multipath).
    Multipath,
    /// Another volume of the device mapper.
    Mapped,
    /// A RAID array of the kernel's (MD).
    Raid,
    /// A cache (bcache).
    Cache,
    /// A loop device.
    Loop,
    /// A file system over several devices, whose name is its UUID.
    Btrfs,
    /// Something else.
    Other,
}

/// A use that would break if the function went away.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Use {
    /// A file system is mounted.
    Mounted {
        /// The block device, such as `sda1`.
        device: String,
        /// Where.
        at: String,
    },
    /// The system swaps to it.
    Swap {
        /// The block device.
        device: String,
    },
    /// Another block device, or a file system, is made of it.
    Held {
        /// The block device.
        device: String,
        /// What kind of thing holds it.
        holder: Holder,
        /// Its name.
        by: String,
    },
    /// The kernel lets nobody else have it, without saying why.
    Claimed {
        /// The block device.
        device: String,
    },
    /// A process has it open.
    Opened {
        /// The block device.
        device: String,
        /// The process.
        process: Process,
    },
    /// The default route leads through it.
    DefaultRoute {
        /// The network interface.
        interface: String,
        /// The one with the route, if it is not the same: a bridge, a bond, a VLAN.
        through: Option<String>,
    },
    /// It is up, and has addresses or routes.
    Configured {
        /// The network interface.
        interface: String,
        /// The one with the addresses, if it is not the same.
        through: Option<String>,
    },
    /// It is up, and part of a bridge, a bond or the like.
    Part {
        /// The network interface.
        interface: String,
        /// What it is part of.
        of: String,
    },
    /// It has virtual functions, which go away with it.
    VirtualFunctions {
        /// The physical function.
        address: Address,
        /// How many.
        count: u32,
    },
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = |through: &Option<String>| match through {
            Some(name) => format!(" (through {name})"),
            None => String::new(),
        };
        match self {
            Self::Mounted { device, at } => write!(f, "{device} is mounted at {at}"),
            Self::Swap { device } => write!(f, "{device} is in use as swap"),
            Self::Held { device, holder, by } => {
                let what = match holder {
                    Holder::LogicalVolume => "LVM volume",
                    Holder::Encrypted => "encrypted volume",
                    Holder::Multipath => "multipath disk",
                    Holder::Mapped => "device mapper volume",
                    Holder::Raid => "RAID array",
                    Holder::Cache => "cache",
                    Holder::Loop => "loop device",
                    Holder::Btrfs => "mounted btrfs file system",
                    Holder::Other => "device",
                };
                write!(f, "{device} is part of the {what} {by}")
            }
            Self::Claimed { device } => write!(
                f,
                "{device} is in use by the kernel (ZFS, or a mount in another namespace?)"
            ),
            Self::Opened { device, process } => write!(f, "{device} is open in {process}"),
            Self::DefaultRoute { interface, through } => {
                write!(f, "{interface} carries the default route{}", over(through))
            }
            Self::Configured { interface, through } => {
                write!(f, "{interface} is up, with addresses{}", over(through))
            }
            Self::Part { interface, of } => write!(f, "{interface} is up, and part of {of}"),
            Self::VirtualFunctions { address, count } => {
                write!(f, "{address} has {count} virtual functions")
            }
        }
    }
}

impl Use {
    /// What ends the use: a command, or what to do.
    pub fn remedy(&self) -> String {
        match self {
            Self::Mounted { at, .. } if at == "/" => {
                "start the system from another disk".to_owned()
            }
            Self::Mounted { at, .. } => format!("umount {}", quoted(at)),
            Self::Swap { device } => format!("swapoff /dev/{device}"),
            Self::Held { device, holder, by } => match holder {
                Holder::LogicalVolume => format!("lvchange --activate n {}", mapper(by)),
                Holder::Encrypted => format!("cryptsetup close {}", quoted(by)),
                Holder::Multipath => format!("multipath -f {}", quoted(by)),
                Holder::Mapped => format!("dmsetup remove {}", quoted(by)),
                Holder::Raid => format!("mdadm --stop /dev/{by}"),
                Holder::Cache => format!("echo 1 > /sys/block/{by}/bcache/stop"),
                Holder::Loop => format!("losetup --detach /dev/{by}"),
                Holder::Btrfs => {
                    format!("umount all of its mount points, or btrfs device remove /dev/{device}")
                }
                Holder::Other => format!("stop what uses /dev/{by}"),
            },
            Self::Claimed { device } => {
                format!("zpool export, or umount where it is mounted; lsblk /dev/{device} may help")
            }
            Self::Opened { process, .. } => format!("end {process}"),
            Self::DefaultRoute { interface, .. } => format!(
                "reach the network through another interface first, then: ip link set {interface} down"
            ),
            Self::Configured { interface, .. } => format!("ip link set {interface} down"),
            Self::Part { interface, .. } => format!("ip link set {interface} nomaster"),
            Self::VirtualFunctions { address, .. } => {
                format!("echo 0 > /sys/bus/pci/devices/{address}/sriov_numvfs")
            }
        }
    }
}

/// A logical volume as LVM's commands want it: by its device node.
fn mapper(name: &str) -> String {
    format!("/dev/mapper/{name}")
}

/// A name as a shell reads it.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    }
}
