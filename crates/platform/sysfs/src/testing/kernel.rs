//! A kernel for a machine that is made up: it does what is written to its files.

use super::MadeUp;
use crate::modules::TYPE1_MODULE;
use crate::{Linux, System};
use outboard_pci::Address;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// What writes to the files of a [`MadeUp`] machine do.
pub(crate) struct FakeKernel<'a> {
    made: &'a MadeUp,
    /// The drivers of functions that have no override.
    pub(crate) native: BTreeMap<String, String>,
    /// Drivers that take no function.
    pub(crate) refusing: Vec<String>,
    /// What ends the paths of files that cannot be written.
    pub(crate) broken: Vec<String>,
    /// Block devices that somebody has for himself.
    pub(crate) claimed: Vec<String>,
    /// Modules that can be loaded; all but one are drivers of that name.
    pub(crate) modules: Vec<String>,
    /// Whether this process may write anything.
    pub(crate) is_superuser: bool,
    /// What was written, as a shell would.
    pub(crate) log: Vec<String>,
}

impl<'a> FakeKernel<'a> {
    pub(crate) fn new(made: &'a MadeUp) -> Self {
        Self {
            made,
            native: BTreeMap::new(),
            refusing: Vec::new(),
            broken: Vec::new(),
            claimed: Vec::new(),
            modules: Vec::new(),
            is_superuser: true,
            log: Vec::new(),
        }
    }

    /// Lets a driver have a function, if it is the one that may.
    fn bind(&self, address: &str, driver: &str) -> io::Result<()> {
        let address: Address = address.parse().unwrap();
        let function = self.made.machine().function(address).unwrap();
        let allowed = function.driver_override.is_none_or(|only| only == driver);
        let is_loaded = self.made.path("/sys/bus/pci/drivers").join(driver).is_dir();
        let refuses = self.refusing.iter().any(|one| one == driver);
        if !allowed || !is_loaded || refuses || function.driver.is_some() {
            return Err(Errno::NODEV.into());
        }
        self.made.driver(&address.to_string(), driver);
        Ok(())
    }
}

impl System for FakeKernel<'_> {
    fn may_write(&self, _: &Path) -> bool {
        self.is_superuser
    }

    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let root = self.made.path("/");
        let shown = Path::new("/").join(path.strip_prefix(&root).unwrap()).display().to_string();
        self.log.push(format!("{} > {shown}", text.trim_end()));
        if self.broken.iter().any(|end| shown.ends_with(end)) {
            return Err(Errno::IO.into());
        }
        let parts: Vec<&str> = shown.split('/').collect();
        match parts[..] {
            [.., "devices", _, "driver_override"] => {
                let is_empty = text.trim_end().is_empty();
                fs::write(path, if is_empty { "(null)\n" } else { text })
            }
            [.., "drivers", driver, "unbind"] => {
                let link = self.made.path(MadeUp::device(text)).join("driver");
                assert!(fs::read_link(&link).unwrap().ends_with(driver));
                fs::remove_file(link)
            }
            [.., "drivers", driver, "bind"] => self.bind(text, driver),
            [.., "drivers_probe"] => {
                let function = self.made.machine().function(text.parse().unwrap()).unwrap();
                let driver = function.driver_override.or(self.native.get(text).cloned());
                // Whether anyone took it is not told.
                let _ = driver.map(|driver| self.bind(text, &driver));
                Ok(())
            }
            _ => panic!("nobody writes to {shown}"),
        }
    }

    fn load_module(&mut self, name: &str) -> io::Result<()> {
        self.log.push(format!("modprobe {name}"));
        if !self.modules.iter().any(|module| module == name) {
            return Err(io::Error::other(format!("modprobe: FATAL: Module {name} not found")));
        }
        let kind = if name == TYPE1_MODULE { "/sys/module" } else { "/sys/bus/pci/drivers" };
        fs::create_dir_all(self.made.path(kind).join(name))
    }

    fn put(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let broken = self.broken.iter().any(|end| path.ends_with(end));
        if broken { Err(Errno::NOSPC.into()) } else { Linux.put(path, text) }
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        Linux.remove(path)
    }

    fn is_claimed(&self, node: &Path) -> io::Result<bool> {
        let name = node.file_name().unwrap().to_str().unwrap();
        Ok(self.claimed.iter().any(|claimed| claimed == name))
    }
}
