//! What Outboard's platforms on Linux share.
//!
//! * [`SharedMemory`]: memory that another process maps too, as the ground of a DMA arena.
//! * [`ForeignMemory`]: memory that another process has made, and may take away.
//! * [`IoMemory`]: a device's registers, whose loss is survived.
//! * [`InterruptSource`]: vectors as descriptors that an event loop can wait on.
//! * [`description`]: disks on a command line.
//! * [`EventFd`] and [`now`]: the kernel's counter to wait on, and its monotonic clock.
#![deny(unsafe_code)]

mod bus_error;
mod clock;
pub mod description;
mod eventfd;
mod foreign;
mod interrupts;
mod io_memory;
mod memory;

pub use clock::now;
pub use eventfd::EventFd;
pub use foreign::{ForeignError, ForeignMemory};
pub use interrupts::InterruptSource;
pub use io_memory::IoMemory;
pub use memory::{MappedRange, SharedMemory};
