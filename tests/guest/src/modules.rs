//! The kernel's modules that a guest gets.

use crate::GuestError;
use crate::kernel::Kernel;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// What guests need; what these depend on comes with them.
const WANTED: &[&str] = &[
    // The way out of the guest.
    "virtio_pci",
    "virtio_console",
    // Devices, and the kernel's own drivers for them.
    "ahci",
    "sd_mod",
    "sr_mod",
    "nvme",
    "virtio_blk",
    "virtio_net",
    "e1000",
    "e1000e",
    "igb",
    // Other people's front ends, file systems, and disks without hardware.
    "9p",
    "9pnet_virtio",
    "nbd",
    "loop",
    "null_blk",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "crc32c_generic",
    "dm_mod",
    "raid1",
    "fuse",
    "tun",
    // The drivers of what shares a group with the machine's own Serial ATA controller.
    "i2c_i801",
    "lpc_ich",
    // Ours.
    "vfio-pci",
];
/// What some kernels have as modules, and others within or not at all.
const OPTIONAL: &[&str] = &["9pnet_fd", "iommufd", "ublk_drv", "vfio_iommu_type1"];

/// Chosen modules, by their paths below `lib/modules/VERSION`, and the tables of `modprobe` for
/// them.
#[derive(Debug)]
pub(crate) struct Modules {
    pub(crate) paths: Vec<String>,
    pub(crate) dependencies: String,
    pub(crate) aliases: String,
}

impl Modules {
    pub(crate) fn choose(kernel: &Kernel) -> Result<Self, GuestError> {
        let read = |name: &str| {
            let path = kernel.modules.join(name);
            fs::read_to_string(&path).map_err(GuestError::file(path))
        };
        let table = read("modules.dep")?;
        let lines = table.lines().filter_map(|line| line.split_once(':'));
        let lines: BTreeMap<String, (&str, Vec<&str>)> = lines
            .map(|(path, needs)| (name(path), (path, needs.split_whitespace().collect())))
            .collect();
        let built_in = read("modules.builtin")?;
        let built_in: BTreeSet<String> = built_in.lines().map(name).collect();
        let mut chosen = BTreeSet::new();
        for module in WANTED.iter().chain(OPTIONAL) {
            match lines.get(&name(module)) {
                Some((path, needs)) => {
                    chosen.insert(*path);
                    chosen.extend(needs);
                }
                None if built_in.contains(&name(module)) || OPTIONAL.contains(module) => {}
                None => {
                    let (version, module) = (kernel.version.clone(), (*module).to_owned());
                    return Err(GuestError::NoModule { version, module });
                }
            }
        }
        let names: BTreeSet<String> = chosen.iter().map(|path| name(path)).collect();
        let of_chosen = |line: &&str| {
            line.rsplit_once(' ').is_some_and(|(_, module)| names.contains(&name(module)))
        };
        let aliases = read("modules.alias")?;
        Ok(Self {
            dependencies: lines_where(&table, |line| {
                line.split_once(':').is_some_and(|(path, _)| chosen.contains(path))
            }),
            aliases: lines_where(&aliases, |line| of_chosen(&line)),
            paths: chosen.into_iter().map(str::to_owned).collect(),
        })
    }
}

fn lines_where(text: &str, wanted: impl Fn(&str) -> bool) -> String {
    text.lines().filter(|line| wanted(line)).flat_map(|line| [line, "\n"]).collect()
}

/// The name of the module at `path`; the kernel takes dashes and underscores for the same.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}
