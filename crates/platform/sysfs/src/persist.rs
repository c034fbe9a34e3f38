//! Which driver a function is to get at the next start, in the files of driverctl(8).
//!
//! Its udev rule asks for a service when a function with such a file is found; that service has
//! driverctl set the `driver_override`. Without driverctl nobody reads the files.

use crate::Machine;
use crate::machine::attribute;
use outboard_pci::Address;
use std::path::PathBuf;

/// The folder of the files. Each is named by bus and address, and holds a driver's name and the
/// line's end.
const FOLDER: &str = "/etc/driverctl.d";

/// Where the rule may be; the first is that of Debian 12 and before.
const RULES: [&str; 4] = [
    "/lib/udev/rules.d/05-driverctl.rules",
    "/usr/lib/udev/rules.d/05-driverctl.rules",
    "/usr/local/lib/udev/rules.d/05-driverctl.rules",
    "/etc/udev/rules.d/05-driverctl.rules",
];

impl Machine {
    /// The driver that a function gets whenever the machine starts, if one was chosen.
    pub fn persisted(&self, address: Address) -> Option<String> {
        attribute(&self.path(FOLDER), &name(address))
    }

    /// Whether driverctl is there to read what is persisted.
    pub fn has_driverctl(&self) -> bool {
        RULES.iter().any(|rule| self.path(rule).exists())
    }

    /// Where a function's driver is persisted.
    pub(crate) fn persisted_path(&self, address: Address) -> PathBuf {
        self.path(FOLDER).join(name(address))
    }
}

fn name(address: Address) -> String {
    format!("pci-{address}")
}
