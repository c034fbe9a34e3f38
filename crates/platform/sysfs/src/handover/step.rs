//! One thing that is done to the machine.

use crate::function::VFIO_DRIVER;
use crate::{Machine, System};
use outboard_pci::Address;
use std::fmt;
use std::path::Path;

/// Has the kernel find a driver for a function.
const PROBE: &str = "/sys/bus/pci/drivers_probe";

/// One thing that is done to the machine. It is printed as what a shell would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Loads a module of the kernel's.
    LoadModule(&'static str),
    /// Names the only driver that may have a function, or allows any.
    Override {
        /// The function.
        address: Address,
        /// The driver; `None` allows any.
        driver: Option<String>,
    },
    /// Takes a function away from its driver.
    Unbind {
        /// The function.
        address: Address,
        /// The driver that has it.
        driver: String,
    },
    /// Has the kernel find a driver for a function.
    Probe(Address),
    /// Has driverctl bind a function to VFIO whenever the machine starts.
    Persist(Address),
    /// Ends that.
    Forget(Address),
}

impl Step {
    /// Takes the step; why it failed, if it did.
    pub(super) fn take(&self, machine: &Machine, system: &mut dyn System) -> Result<(), String> {
        let result = match self {
            Self::LoadModule(name) => system.load_module(name),
            Self::Override { address, driver } => {
                let file = machine.function_folder(*address).join("driver_override");
                // An empty line is no name; the kernel sees no write of nothing at all.
                system.write(&file, &format!("{}\n", driver.as_deref().unwrap_or_default()))
            }
            Self::Unbind { address, driver } => {
                system.write(&machine.path(driver_file(driver, "unbind")), &address.to_string())
            }
            Self::Probe(address) => system.write(&machine.path(PROBE), &address.to_string()),
            Self::Persist(address) => {
                system.put(&machine.persisted_path(*address), &format!("{VFIO_DRIVER}\n"))
            }
            Self::Forget(address) => system.remove(&machine.persisted_path(*address)),
        };
        result.map_err(|error| match error.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem => format!(
                "{error}. In a container, do this on the machine itself, or give the container a \
                 writable /sys"
            ),
            _ => error.to_string(),
        })
    }
}

/// A file of a driver's.
pub(super) fn driver_file(driver: &str, name: &str) -> std::path::PathBuf {
    Path::new("/sys/bus/pci/drivers").join(driver).join(name)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let here = Machine::here();
        match self {
            Self::LoadModule(name) => write!(f, "modprobe {name}"),
            Self::Override { address, driver } => {
                let file = here.function_folder(*address).join("driver_override");
                let driver = driver.as_deref().map(|name| format!("{name} ")).unwrap_or_default();
                write!(f, "echo {driver}> {}", file.display())
            }
            Self::Unbind { address, driver } => {
                write!(f, "echo {address} > {}", driver_file(driver, "unbind").display())
            }
            Self::Probe(address) => write!(f, "echo {address} > {PROBE}"),
            Self::Persist(address) => {
                write!(f, "echo {VFIO_DRIVER} > {}", here.persisted_path(*address).display())
            }
            Self::Forget(address) => {
                write!(f, "rm {}", here.persisted_path(*address).display())
            }
        }
    }
}
