//! PCI functions of this machine, as Linux shows them in its file systems.
//!
//! [`Machine`] is where to look: `/` for the machine itself, or a folder that looks like one, for
//! tests.
//!
//! * [`Function`]: what a function is, which driver has it, and in which IOMMU group it is.
//! * [`Survey`]: what the system has behind a function, and who uses that.
//! * [`Plan`]: how functions are handed to VFIO, and back to the kernel.
//! * [`Finding`]: what stands in the way, and what to do about it.
//! * [`System`]: what is done to the machine; [`Linux`] does it.
//!
//! Everything here is read from text that the kernel writes. It may change between two reads, and
//! files may be missing where the kernel is older or was built without them.
#![forbid(unsafe_code)]

mod doctor;
mod error;
mod function;
mod handover;
mod machine;
mod modules;
mod persist;
mod survey;
mod system;
#[cfg(test)]
mod testing;

pub use doctor::{Finding, Verdict, Viewer};
pub use error::SysfsError;
pub use function::{Function, VFIO_DRIVER};
pub use handover::{BindOptions, HandoverError, Move, Plan, Restored, Step, UnbindOptions};
pub use machine::Machine;
pub use survey::{Holder, Process, Survey, Use, Users};
pub use system::{Linux, System};
