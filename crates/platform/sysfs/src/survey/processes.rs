//! Which processes have devices open.

use crate::machine::{names, text};
use crate::{Function, Machine, SysfsError};
use std::fmt;
use std::fs;
use std::path::Path;

/// What the descriptor of a function that VFIO hands out leads to.
const VFIO_DEVICE: &str = "anon_inode:[vfio-device]";
/// Where VFIO has its device nodes.
const VFIO: &str = "/dev/vfio/";

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// The program that it runs, as far as the kernel keeps its name.
    pub name: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.id, self.name)
    }
}

#[derive(Debug)]
struct Opened {
    process: Process,
    /// What is open, each once.
    targets: Vec<String>,
    /// The functions that it has through VFIO, below `/sys`, as far as the kernel says so.
    functions: Vec<String>,
}

/// The devices that processes have open. Only the superuser sees those of others.
#[derive(Debug)]
pub(super) struct OpenFiles(Vec<Opened>);

impl OpenFiles {
    pub(super) fn read(machine: &Machine) -> Result<Self, SysfsError> {
        let folder = machine.path("/proc");
        let mut found = Vec::new();
        for name in names(&folder)? {
            // Our own process opens disks to look at them.
            let id = name.parse::<u32>().ok().filter(|id| *id != std::process::id());
            if let Some(id) = id {
                found.extend(opened_by(&folder.join(&name), id));
            }
        }
        Ok(Self(found))
    }

    /// The processes that have a device node open.
    pub(super) fn holders<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Process> {
        let has = move |opened: &&Opened| opened.targets.iter().any(|target| target == node);
        self.0.iter().filter(has).map(|opened| &opened.process)
    }

    /// The processes that have a function through VFIO. One that has a function of which the kernel
    /// does not say which, and no group, may have this one.
    pub(super) fn vfio_users(&self, function: &Function, folder: Option<&Path>) -> Vec<Process> {
        let group = function.group.map(|group| format!("{VFIO}{group}"));
        let unsafe_group = function.group.map(|group| format!("{VFIO}noiommu-{group}"));
        let device = function.vfio_device.as_ref().map(|name| format!("{VFIO}devices/{name}"));
        let nodes = [group, unsafe_group, device];
        let address = function.address.to_string();
        let is_user = |opened: &&Opened| {
            let has = |node: &Option<String>| {
                node.as_ref().is_some_and(|node| opened.targets.contains(node))
            };
            if nodes.iter().any(has) {
                return true;
            }
            if !opened.targets.iter().any(|target| target == VFIO_DEVICE) {
                return false;
            }
            if !opened.functions.is_empty() {
                return folder.is_some()
                    && opened.functions.iter().any(|path| path.ends_with(&format!("/{address}")));
            }
            !opened
                .targets
                .iter()
                .any(|target| target.strip_prefix(VFIO).is_some_and(|node| node != "vfio"))
        };
        self.0.iter().filter(is_user).map(|opened| opened.process.clone()).collect()
    }
}

/// The devices that a process has open; `None` if there are none, or we may not know.
fn opened_by(folder: &Path, id: u32) -> Option<Opened> {
    let (mut targets, mut functions) = (Vec::new(), Vec::new());
    for entry in folder.join("fd").read_dir().ok()? {
        let entry = entry.ok()?;
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let Some(target) = target.to_str() else { continue };
        if target == VFIO_DEVICE {
            let info = folder.join("fdinfo").join(entry.file_name());
            let info = text(&info).ok().flatten().unwrap_or_default();
            let paths = info.lines().filter_map(|line| line.strip_prefix("vfio-device-syspath:"));
            functions.extend(paths.map(|path| path.trim().to_owned()));
        } else if !target.starts_with("/dev/") {
            continue;
        }
        if !targets.iter().any(|known| known == target) {
            targets.push(target.to_owned());
        }
    }
    let name = text(&folder.join("comm")).ok().flatten().unwrap_or_default();
    (!targets.is_empty()).then_some(Opened { process: Process { id, name }, targets, functions })
}
