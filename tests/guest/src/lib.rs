//! A virtual machine with the distribution's kernel, to try Outboard in.
//!
//! Many machines have no IOMMU to spare, and most have no disk to spare. QEMU under software
//! emulation has both: a [`Guest`] boots the distribution's own kernel with an IOMMU and the
//! devices that it is told to have, runs a script there as root, and brings back what the script
//! printed, its exit code, and the files that it left in `$RESULTS`.
//!
//! ```no_run
//! use outboard_guest::{Device, Disk, Guest};
//!
//! let guest = Guest::new("example").device(Device::Ahci(vec![Disk::Null(1 << 30)]));
//! let report = guest.run("outboard list; ls /sys/kernel/iommu_groups >$RESULTS/groups")?;
//! assert_eq!(report.code, 0, "{report}");
//! # Ok::<(), outboard_guest::GuestError>(())
//! ```
//!
//! Nothing of this needs root, KVM, or anything installed but QEMU and the tools that the guest
//! gets; `scripts/need.sh` installs those, and the first run fetches the kernel.
#![forbid(unsafe_code)]

mod cpio;
mod device;
mod error;
mod guest;
mod initramfs;
mod kernel;
mod modules;
mod places;
mod program;
mod qemu;
mod report;
mod tools;

pub use device::{Device, Disk, Virtio, VirtioVersion};
pub use error::GuestError;
pub use guest::Guest;
pub use kernel::Release;
pub use program::example;
pub use report::Report;
