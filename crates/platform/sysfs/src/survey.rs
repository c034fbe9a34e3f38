//! Who uses what is behind a function.
//!
//! A [`Survey`] looks at the whole machine once; [`Survey::users`] then says for a function what the
//! system would lose with it, and which of that is in use. It is as of the moment of the survey:
//! who starts to use a disk afterwards is not seen.

mod block;
mod net;
mod processes;
mod usage;

use crate::{Function, Machine, SysfsError, System};
use block::BlockDevices;
use net::Network;
use processes::OpenFiles;
pub use processes::Process;
pub use usage::{Holder, Use};

/// What the system has behind a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// Names of whole disks, such as `sda`.
    pub disks: Vec<String>,
    /// Names of network interfaces.
    pub interfaces: Vec<String>,
    /// Which of that is in use, and how.
    pub uses: Vec<Use>,
}

impl Users {
    /// Whether nothing behind the function is in use, so that it may be taken away.
    pub fn is_idle(&self) -> bool {
        self.uses.is_empty()
    }
}

/// The machine's disks, network interfaces and processes at one moment.
#[derive(Debug)]
pub struct Survey {
    machine: Machine,
    block: BlockDevices,
    network: Network,
    open: OpenFiles,
}

impl Survey {
    /// Looks at the machine.
    ///
    /// Which processes have what open, and what is claimed by parts of the kernel that do not say
    /// so, can be seen only by the superuser.
    pub fn take(machine: &Machine) -> Result<Self, SysfsError> {
        Ok(Self {
            machine: machine.clone(),
            block: BlockDevices::read(machine)?,
            network: Network::read(machine)?,
            open: OpenFiles::read(machine)?,
        })
    }

    /// What is behind a function, and who uses it.
    pub fn users(&self, function: &Function, system: &dyn System) -> Users {
        let folder = self.machine.function_folder(function.address);
        let Ok(folder) = folder.canonicalize() else { return Users::default() };
        let mut users = Users::default();
        for disk in self.block.disks_below(&folder) {
            let first = users.uses.len();
            for device in self.block.with_partitions(disk) {
                self.block.uses(device, &mut users.uses);
                let path = format!("/dev/{device}");
                users.uses.extend(self.open.holders(&path).map(|process| Use::Opened {
                    device: device.to_owned(),
                    process: process.clone(),
                }));
            }
            // What has no other explanation, such as ZFS, or a mount that only others see.
            if users.uses.len() == first {
                users.uses.extend(self.claimed(disk, system));
            }
            users.disks.push(disk.to_owned());
        }
        for interface in self.network.interfaces_below(&folder) {
            self.network.uses(interface, &mut users.uses);
            users.interfaces.push(interface.to_owned());
        }
        let virtual_functions = crate::machine::attribute(&folder, "sriov_numvfs");
        let count = virtual_functions.and_then(|text| text.parse().ok()).unwrap_or(0);
        if count > 0 {
            users.uses.push(Use::VirtualFunctions { address: function.address, count });
        }
        users
    }

    /// The processes that have a function through VFIO, or may have.
    pub fn vfio_users(&self, function: &Function) -> Vec<Process> {
        let folder = self.machine.function_folder(function.address).canonicalize().ok();
        self.open.vfio_users(function, folder.as_deref())
    }

    /// Whether the kernel lets nobody else have a disk, or one of its partitions.
    fn claimed(&self, disk: &str, system: &dyn System) -> Option<Use> {
        let is_claimed = |device: &&str| {
            let path = self.machine.path("/dev").join(device);
            system.is_claimed(&path).unwrap_or(false)
        };
        // A claim to a partition is one to the disk, too.
        let disk = Some(disk).filter(is_claimed)?;
        let partition =
            self.block.with_partitions(disk).filter(|name| *name != disk).find(is_claimed);
        Some(Use::Claimed { device: partition.unwrap_or(disk).to_owned() })
    }
}

#[cfg(test)]
mod tests;
