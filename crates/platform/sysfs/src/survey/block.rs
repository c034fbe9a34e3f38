//! Disks, and what is built on them.

use super::{Holder, Use};
use crate::machine::{attribute, link_name, names, text};
use crate::{Machine, SysfsError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the kernel shows NVMe disks that may be reached over several controllers.
const NVME_SUBSYSTEM: &str = "nvme-subsystem";

/// A disk, a partition, or what is made of some.
#[derive(Debug)]
struct BlockDevice {
    /// Its folder, behind all links.
    folder: PathBuf,
    /// Major and minor number, as in `8:1`.
    number: String,
    /// The disk that it is a partition of.
    disk: Option<String>,
    /// The devices that are made of it.
    holders: Vec<String>,
}

/// All block devices by name, and who uses them.
#[derive(Debug)]
pub(super) struct BlockDevices {
    devices: BTreeMap<String, BlockDevice>,
    /// Names of devices, with where each is mounted.
    mounts: Vec<(String, String)>,
    swaps: Vec<String>,
    /// Names of devices, with the UUID of the file system that is made of them.
    btrfs: Vec<(String, String)>,
}

impl BlockDevices {
    pub(super) fn read(machine: &Machine) -> Result<Self, SysfsError> {
        let mut devices = BTreeMap::new();
        let class = machine.path("/sys/class/block");
        for name in names(&class)? {
            // One that has gone meanwhile.
            let Ok(folder) = class.join(&name).canonicalize() else { continue };
            let is_partition = folder.join("partition").exists();
            let parent = folder.parent().and_then(|parent| parent.file_name()?.to_str());
            let device = BlockDevice {
                number: attribute(&folder, "dev").unwrap_or_default(),
                disk: parent.filter(|_| is_partition).map(str::to_owned),
                holders: names(&folder.join("holders"))?,
                folder,
            };
            devices.insert(name, device);
        }
        let mut this = Self { devices, mounts: Vec::new(), swaps: Vec::new(), btrfs: Vec::new() };
        this.read_loops(machine);
        this.read_mounts(machine)?;
        this.read_swaps(machine)?;
        this.read_btrfs(machine)?;
        Ok(this)
    }

    /// Loop devices over other devices are holders of those. (One over a file has its file system
    /// mounted.)
    fn read_loops(&mut self, machine: &Machine) {
        let loops = self.devices.iter().filter_map(|(name, device)| {
            let ground = attribute(&device.folder.join("loop"), "backing_file")?;
            Some((self.named_by(machine, &ground)?, name.clone()))
        });
        for (ground, name) in loops.collect::<Vec<_>>() {
            let device = self.devices.get_mut(&ground);
            device.into_iter().for_each(|device| device.holders.push(name.clone()));
        }
    }

    /// Each line is: id, parent, major:minor, root, mount point, options, more, `-`, type, source
    /// (proc_pid_mountinfo(5)). The number is made up for some file systems, so the source counts,
    /// too.
    fn read_mounts(&mut self, machine: &Machine) -> Result<(), SysfsError> {
        let mounts = text(&machine.path("/proc/self/mountinfo"))?.unwrap_or_default();
        for line in mounts.lines() {
            let (fields, rest) = line.split_once(" - ").unwrap_or((line, ""));
            let mut fields = fields.split(' ').skip(2);
            let (Some(number), Some(at)) = (fields.next(), fields.nth(1)) else { continue };
            let source = rest.split(' ').nth(1).unwrap_or("");
            let by_number = self.devices.iter().find(|(_, device)| device.number == number);
            let name = by_number.map(|(name, _)| name.clone());
            let name = name.or_else(|| self.named_by(machine, &unescaped(source)));
            self.mounts.extend(name.map(|name| (name, unescaped(at))));
        }
        Ok(())
    }

    /// A heading, and lines that begin with a path (proc_swaps(5)).
    fn read_swaps(&mut self, machine: &Machine) -> Result<(), SysfsError> {
        let swaps = text(&machine.path("/proc/swaps"))?.unwrap_or_default();
        for line in swaps.lines().skip(1) {
            let path = unescaped(line.split_whitespace().next().unwrap_or(""));
            self.swaps.extend(self.named_by(machine, &path));
        }
        Ok(())
    }

    /// The mount of a file system over several devices names one of them only.
    fn read_btrfs(&mut self, machine: &Machine) -> Result<(), SysfsError> {
        let folder = machine.path("/sys/fs/btrfs");
        for uuid in names(&folder)? {
            for device in names(&folder.join(&uuid).join("devices"))? {
                self.btrfs.push((device, uuid.clone()));
            }
        }
        Ok(())
    }

    /// The device that a path below `/dev` means.
    fn named_by(&self, machine: &Machine, path: &str) -> Option<String> {
        let path = path.strip_prefix("/dev/").map(|_| machine.path(path))?;
        let name = path.canonicalize().ok()?.file_name()?.to_str()?.to_owned();
        self.devices.contains_key(&name).then_some(name)
    }

    /// The whole disks behind the function that is shown in `folder`.
    pub(super) fn disks_below(&self, folder: &Path) -> impl Iterator<Item = &str> {
        let below = move |device: &&BlockDevice| {
            device.folder.starts_with(folder) || is_nvme_disk_of(&device.folder, folder)
        };
        let disks = self.devices.iter().filter(|(_, device)| device.disk.is_none());
        // What the kernel hides has no device node; the disk that it belongs to is shown.
        let disks =
            disks.filter(|(_, device)| attribute(&device.folder, "hidden").as_deref() != Some("1"));
        disks.filter(move |(_, device)| below(device)).map(|(name, _)| name.as_str())
    }

    /// A disk's name, and those of its partitions.
    pub(super) fn with_partitions<'a>(&'a self, disk: &'a str) -> impl Iterator<Item = &'a str> {
        let parts = self.devices.iter().filter(move |(_, part)| part.disk.as_deref() == Some(disk));
        std::iter::once(disk).chain(parts.map(|(name, _)| name.as_str()))
    }

    /// What a device is in use for, and what is made of it.
    pub(super) fn uses(&self, device: &str, uses: &mut Vec<Use>) {
        let mut seen = BTreeSet::new();
        let mut stack = vec![device.to_owned()];
        while let Some(device) = stack.pop() {
            if !seen.insert(device.clone()) {
                continue;
            }
            let mounts = self.mounts.iter().filter(|(name, _)| *name == device);
            let mounted = mounts.map(|(device, at)| (device.clone(), at.clone()));
            let mounted: BTreeSet<_> = mounted.collect();
            if mounted.is_empty() {
                let systems = self.btrfs.iter().filter(|(name, _)| *name == device);
                uses.extend(systems.map(|(device, by)| Use::Held {
                    device: device.clone(),
                    holder: Holder::Btrfs,
                    by: by.clone(),
                }));
            }
            uses.extend(mounted.into_iter().map(|(device, at)| Use::Mounted { device, at }));
            if self.swaps.contains(&device) {
                uses.push(Use::Swap { device: device.clone() });
            }
            for name in self.devices.get(&device).into_iter().flat_map(|device| &device.holders) {
                let (holder, by) = self.holder(name);
                uses.push(Use::Held { device: device.clone(), holder, by });
                stack.push(name.clone());
                // What is mounted may be a partition of an array, or of a loop device.
                stack.extend(self.with_partitions(name).skip(1).map(str::to_owned));
            }
        }
    }

    /// What a device that is made of others is, and the name that its own tools know.
    fn holder(&self, name: &str) -> (Holder, String) {
        let mapped = self.devices.get(name).map(|device| device.folder.join("dm"));
        let mapped = mapped.filter(|folder| folder.is_dir());
        let Some(folder) = mapped else {
            let kinds = [("md", Holder::Raid), ("bcache", Holder::Cache), ("loop", Holder::Loop)];
            let kind = kinds.iter().find(|(prefix, _)| name.starts_with(prefix));
            return (kind.map_or(Holder::Other, |(_, kind)| *kind), name.to_owned());
        };
        // The part before the dash is given by whoever made the volume.
        let uuid = attribute(&folder, "uuid").unwrap_or_default();
        let holder = match uuid.split('-').next() {
            Some("LVM") => Holder::LogicalVolume,
            Some("CRYPT") => Holder::Encrypted,
            Some("mpath") => Holder::Multipath,
            _ => Holder::Mapped,
        };
        (holder, attribute(&folder, "name").unwrap_or_else(|| name.to_owned()))
    }
}

/// Whether a disk is shown at its NVMe subsystem rather than at a controller, and one of the
/// subsystem's controllers is the function in `folder`.
fn is_nvme_disk_of(disk: &Path, folder: &Path) -> bool {
    let Some(subsystem) = disk.ancestors().skip(1).find(|above| {
        above.parent().and_then(Path::file_name).is_some_and(|name| name == NVME_SUBSYSTEM)
    }) else {
        return false;
    };
    let links = names(subsystem).unwrap_or_default().into_iter().map(|name| subsystem.join(name));
    links
        .filter(|link| link_name(link).is_some())
        .filter_map(|link| link.canonicalize().ok())
        .any(|controller| controller.starts_with(folder))
}

/// A path as it was before the kernel wrote blanks and the like as `\040`.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(|_| *first == b'\\') {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_blanks_are_read_as_they_are() {
        assert_eq!(unescaped(r"/mnt/my\040disk\134x"), r"/mnt/my disk\x");
        assert_eq!(unescaped(r"/mnt\04"), r"/mnt\04");
    }
}
