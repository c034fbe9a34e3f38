//! A machine that is made up, in a temporary folder.

mod kernel;

use crate::Machine;
pub(crate) use kernel::FakeKernel;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A machine with nothing in it but what a test puts there.
pub(crate) struct MadeUp(TempDir);

impl MadeUp {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn machine(&self) -> Machine {
        Machine::below(self.0.path())
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.machine().path(path)
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Makes a link to another path of the machine, relative as those of the kernel are.
    pub(crate) fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        let path = path.as_ref();
        let folder = path.parent().unwrap();
        let above: PathBuf = folder.components().skip(1).map(|_| "..").collect();
        let target = above.join(target.as_ref().strip_prefix("/").unwrap());
        fs::create_dir_all(self.path(folder)).unwrap();
        let _ = fs::remove_file(self.path(path));
        symlink(target, self.path(path)).unwrap();
    }

    /// Where the kernel has a function among all devices.
    pub(crate) fn device(address: &str) -> PathBuf {
        Path::new("/sys/devices/pci0000:00").join(address)
    }

    /// Adds a function, with vendor and device ID in one number.
    pub(crate) fn function(&self, address: &str, id: u32, class: u32) {
        let device = Self::device(address);
        self.link(Path::new("/sys/bus/pci/devices").join(address), &device);
        let set = |name: &str, text: String| self.write(device.join(name), &(text + "\n"));
        set("vendor", format!("0x{:04x}", id >> 16));
        set("device", format!("0x{:04x}", id & 0xffff));
        set("class", format!("0x{class:06x}"));
        set("revision", "0x02".into());
        set("subsystem_vendor", "0x1af4".into());
        set("subsystem_device", "0x1100".into());
        set("driver_override", "(null)".into());
        set("modalias", format!("pci:v{:08X}d{:08X}", id >> 16, id & 0xffff));
    }

    pub(crate) fn attribute(&self, address: &str, name: &str, text: &str) {
        self.write(Self::device(address).join(name), &format!("{text}\n"));
    }

    /// Has a driver of the kernel take a function.
    pub(crate) fn driver(&self, address: &str, driver: &str) {
        let folder = Path::new("/sys/bus/pci/drivers").join(driver);
        fs::create_dir_all(self.path(&folder)).unwrap();
        self.link(Self::device(address).join("driver"), folder);
    }

    pub(crate) fn group(&self, address: &str, group: u32) {
        let folder = Path::new("/sys/kernel/iommu_groups").join(group.to_string());
        self.link(folder.join("devices").join(address), Self::device(address));
        self.link(Self::device(address).join("iommu_group"), folder);
    }
}

impl MadeUp {
    /// Adds a disk, or with `disk` a partition of one, behind a function.
    pub(crate) fn disk(&self, address: &str, name: &str, number: &str, disk: Option<&str>) {
        let host = Self::device(address).join("ata1/host0/target0:0:0/0:0:0:0/block");
        let folder = disk.map_or(host.clone(), |disk| host.join(disk)).join(name);
        self.block_device(name, number, &folder);
        if disk.is_some() {
            self.write(folder.join("partition"), "1\n");
        }
    }

    /// Adds a block device of the kernel's own making.
    pub(crate) fn virtual_disk(&self, name: &str, number: &str) -> PathBuf {
        let folder = Path::new("/sys/devices/virtual/block").join(name);
        self.block_device(name, number, &folder);
        folder
    }

    pub(crate) fn block_device(&self, name: &str, number: &str, folder: &Path) {
        self.write(folder.join("dev"), &format!("{number}\n"));
        self.link(Path::new("/sys/class/block").join(name), folder);
        self.write(Path::new("/dev").join(name), "");
    }

    /// Makes a block device the ground of another.
    pub(crate) fn holder(&self, device: &str, holder: &str) {
        let folder = self.path("/sys/class/block").join(device).canonicalize().unwrap();
        let root = self.path("/").canonicalize().unwrap();
        let folder = Path::new("/").join(folder.strip_prefix(root).unwrap());
        let target = Path::new("/sys/devices/virtual/block").join(holder);
        self.link(folder.join("holders").join(holder), target);
    }

    pub(crate) fn mount(&self, number: &str, at: &str, source: &str) {
        let path = self.path("/proc/self/mountinfo");
        let before = fs::read_to_string(path).unwrap_or_default();
        let line = format!("36 35 {number} / {at} rw,noatime shared:1 - ext4 {source} rw\n");
        self.write("/proc/self/mountinfo", &(before + &line));
    }

    /// Adds a network interface that is up behind a function.
    pub(crate) fn interface(&self, address: &str, name: &str) {
        self.interface_in(&Self::device(address).join("net").join(name), name);
    }

    pub(crate) fn interface_in(&self, folder: &Path, name: &str) {
        self.write(folder.join("flags"), "0x1003\n");
        self.link(Path::new("/sys/class/net").join(name), folder);
    }

    /// Adds a process that has `target` open.
    pub(crate) fn process(&self, id: u32, name: &str, target: &str) {
        let folder = Path::new("/proc").join(id.to_string());
        self.write(folder.join("comm"), &format!("{name}\n"));
        fs::create_dir_all(self.path(folder.join("fd"))).unwrap();
        symlink(target, self.path(folder.join("fd/3"))).unwrap();
    }

    /// All files and links, with what they hold.
    pub(crate) fn everything(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_symlink() {
                    found.push((path.clone(), fs::read_link(&path).unwrap().display().to_string()));
                } else if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push((path.clone(), fs::read_to_string(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }
}
