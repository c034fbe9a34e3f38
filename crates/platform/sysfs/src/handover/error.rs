//! Why functions were not handed over.

use super::Step;
use crate::{Function, Process, SysfsError, Use};
use outboard_pci::Address;
use std::fmt;
use thiserror::Error;

/// Whether all is as it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// All is as it was.
    Wholly,
    /// What could not be put back, and what to try.
    Partly(Vec<String>),
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wholly => write!(f, "Everything was put back as it was"),
            Self::Partly(troubles) => {
                write!(f, "Not everything could be put back: {}", troubles.join("; "))
            }
        }
    }
}

/// Why functions were not handed over. The messages tell the user what to do next.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// The machine could not be looked at, or has no such function.
    #[error(transparent)]
    Machine(#[from] SysfsError),
    /// It is a bridge.
    #[error(
        "{0} is a bridge between PCI buses, and stays with the kernel. Name the functions behind \
         it: `outboard status --all` lists them"
    )]
    Bridge(Address),
    /// No IOMMU confines it.
    #[error(
        "{0} is in no IOMMU group: this machine has no IOMMU, or does not use it, and without one a \
         device can reach all memory. `outboard doctor` says what to do"
    )]
    NoIommu(Address),
    /// The kernel cannot be told which driver to use.
    #[error(
        "the kernel cannot name a driver for {0} (there is no driver_override, which came with \
         Linux 3.16). Use a newer kernel"
    )]
    NoOverride(Address),
    /// Others of its group have drivers of the kernel's.
    #[error(
        "{address} is in IOMMU group {group} with {}: the IOMMU cannot keep them apart, so they \
         move together or not at all. To move all of the group, bridges excepted: outboard bind \
         --group {address}", named(.others)
    )]
    GroupShared {
        /// The function that was to move.
        address: Address,
        /// Its group.
        group: u32,
        /// Who else has to move.
        others: Vec<Function>,
    },
    /// The system uses what is behind the functions.
    #[error("the system uses what would go away, so nothing was done:{}", listed(.uses))]
    Busy {
        /// What is in use, by function.
        uses: Vec<(Address, Use)>,
    },
    /// Processes have it through VFIO.
    #[error(
        "{address} is with {}, so nothing was done. End that first; a server of ours ends in order \
         with SIGTERM", .processes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Held {
        /// The function.
        address: Address,
        /// Who has it.
        processes: Vec<Process>,
    },
    /// This process may not change drivers.
    #[error(
        "you may not change the driver of {0}, so nothing was done. Run it as the superuser (sudo); \
         `--dry-run` shows what would be done"
    )]
    NotAllowed(Address),
    /// A step failed.
    #[error("`{step}` failed: {trouble}. {restored}{}", hint(.step))]
    Step {
        /// Which one.
        step: Step,
        /// Why.
        trouble: String,
        /// Whether all is as it was.
        restored: Restored,
    },
}

/// Functions, with their drivers.
fn named(functions: &[Function]) -> String {
    let names = functions.iter().map(|one| match &one.driver {
        Some(driver) => format!("{} (driver {driver})", one.address),
        None => one.address.to_string(),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// Uses, each on a line with its remedy.
fn listed(uses: &[(Address, Use)]) -> String {
    let line = |(address, one): &(Address, Use)| {
        format!("\n  {address}: {one}; to end that: {}", one.remedy())
    };
    uses.iter().map(line).collect()
}

fn hint(step: &Step) -> &'static str {
    match step {
        Step::LoadModule(_) => ". `outboard doctor` says where the module should be",
        _ => "",
    }
}
