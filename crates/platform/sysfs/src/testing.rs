//! A machine that is made up, in a temporary folder.

use crate::Machine;
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
