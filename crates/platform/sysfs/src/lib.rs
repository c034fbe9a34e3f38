//! PCI functions of this machine, as Linux shows them in its file systems.
//!
//! [`Machine`] is where to look: `/` for the machine itself, or a folder that looks like one, for
//! tests.
//!
//! * [`Function`]: what a function is, which driver has it, and in which IOMMU group it is.
//!
//! Everything here is read from text that the kernel writes. It may change between two reads, and
//! files may be missing where the kernel is older or was built without them.
#![forbid(unsafe_code)]

mod error;
mod function;
mod machine;
#[cfg(test)]
mod testing;

pub use error::SysfsError;
pub use function::{Function, VFIO_DRIVER};
pub use machine::Machine;
