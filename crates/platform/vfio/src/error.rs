//! Why a function could not be had, and what to do about it.

use outboard_pci::Address;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why functions could not be opened, or were lost. The messages tell the user what to do next.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VfioError {
    /// The kernel has no VFIO, or its module is not loaded.
    #[error(
        "this kernel offers no VFIO: {} does not exist. Load its driver (as root): modprobe \
         vfio-pci. If there is no such module, the kernel was built without it", .0.display()
    )]
    NoVfio(PathBuf),
    /// There is no such function, or the kernel does not tell of it.
    #[error(transparent)]
    Function(#[from] outboard_sysfs::SysfsError),
    /// The function is the kernel's, or nobody's.
    #[error(
        "{address} is {}, not bound to vfio-pci. To take it away from the kernel (as root): \
         outboard bind {address}", .driver.as_ref().map_or_else(
            || "without a driver".to_owned(), |driver| format!("used by the kernel's driver {driver}"))
    )]
    NotBound {
        /// The function.
        address: Address,
        /// The kernel's driver that has it.
        driver: Option<String>,
    },
    /// Nothing keeps the function from reaching all memory.
    #[error(
        "{0} has no IOMMU in front of it, so a driver outside the kernel could let it overwrite \
         any memory, and this program does not do that. Switch the IOMMU on in the firmware's \
         setup (VT-d, AMD-Vi) and, on Intel, with intel_iommu=on on the kernel's command line; \
         outboard doctor says what is missing"
    )]
    NoIommu(Address),
    /// The function is bound, and the file by which it is used is missing.
    #[error(
        "{address} is bound to vfio-pci, but {} does not exist. In a container, pass it in \
         (--device={} --device=/dev/vfio/vfio); elsewhere, see that /dev is a devtmpfs: mount -t \
         devtmpfs dev /dev (as root)", .path.display(), .path.display()
    )]
    NoNode {
        /// The function.
        address: Address,
        /// The file.
        path: PathBuf,
    },
    /// The kernel's IOMMU is of a kind that is not known here.
    #[error(
        "this kernel's VFIO offers neither type 1 version 2 nor iommufd. It needs the module \
         vfio_iommu_type1 (as root): modprobe vfio_iommu_type1"
    )]
    NoIommuKind,
    /// Who runs this may not use VFIO's files.
    #[error(
        "{} may not be opened by this user. Run this as root, or give it to the user (as root): \
         chown {user} {}", .path.display(), .path.display()
    )]
    Permission {
        /// The file.
        path: PathBuf,
        /// Who runs this.
        user: u32,
    },
    /// Other functions, which the IOMMU cannot tell from this one, are used by the kernel.
    #[error(
        "{address} shares IOMMU group {group} with functions that the kernel uses: {}. The IOMMU \
         cannot tell them apart, so all of them have to be bound to vfio-pci, or to no driver: \
         outboard bind {} (as root)",
        .others.iter().map(|(other, driver)| format!("{other} ({driver})")).collect::<Vec<_>>()
            .join(", "),
        .others.iter().map(|(other, _)| other.to_string()).collect::<Vec<_>>().join(" ")
    )]
    NotViable {
        /// The function.
        address: Address,
        /// Its group.
        group: u32,
        /// The others of the group, with their drivers.
        others: Vec<(Address, String)>,
    },
    /// Somebody else has it open.
    #[error(
        "{address} is in use by another process{}. Stop that one first",
        .holder.as_ref().map(|holder| format!(": {holder}")).unwrap_or_default()
    )]
    Busy {
        /// The function.
        address: Address,
        /// Who that is, where that can be seen.
        holder: Option<String>,
    },
    /// The same function was asked for twice.
    #[error("{0} is given twice; leave one of them out")]
    Twice(Address),
    /// The limit of locked memory is too low.
    #[error(
        "{} MiB of memory for transfers have to be locked, and this process may lock {} KiB. Raise \
         the limit for the shell that starts it: ulimit -l {} (beyond the hard limit as root; for \
         a service of systemd: LimitMEMLOCK={}M), or run it as root{}",
        .wanted >> 20, .limit >> 10, .needed >> 10, .needed >> 20,
        .instead.map(|mib| format!(", or take less memory: --memory {mib}")).unwrap_or_default()
    )]
    LockedMemory {
        /// Bytes wanted.
        wanted: u64,
        /// Bytes allowed.
        limit: u64,
        /// Bytes that the limit has to be at least.
        needed: u64,
        /// MiB that would be allowed, if that is enough to be of use.
        instead: Option<u64>,
    },
    /// There is too little memory.
    #[error(
        "{} MiB of memory for transfers cannot be had: the machine has too little that is free. \
         Take less: --memory 16", .wanted >> 20
    )]
    NoMemory {
        /// Bytes wanted.
        wanted: u64,
    },
    /// The IOMMU has no room for the arena.
    #[error(
        "the IOMMU allows no {} MiB in one piece; the largest range has {} MiB. Take less: \
         --memory {}", .wanted >> 20, .largest >> 20, .largest >> 20
    )]
    NoAddresses {
        /// Bytes wanted.
        wanted: u64,
        /// Bytes of the largest range.
        largest: u64,
    },
    /// A function does not do what VFIO's functions do.
    #[error(
        "{address} cannot be used through VFIO: {what}. `dmesg` may say more; see whether the \
         function still answers: outboard list"
    )]
    Unusable {
        /// The function.
        address: Address,
        /// What is wrong.
        what: &'static str,
    },
    /// The functions are gone.
    #[error(
        "{} no longer there: {}. Put it back, or see whether it was reset or switched off (dmesg)",
        if .0.len() == 1 { "the device is" } else { "the devices are" },
        .0.iter().map(Address::to_string).collect::<Vec<_>>().join(", ")
    )]
    Removed(Vec<Address>),
    /// The kernel has asked for the functions, and got them.
    #[error(
        "the kernel wanted {} back (it is being unplugged, or unbound), and has it now",
        .0.iter().map(Address::to_string).collect::<Vec<_>>().join(", ")
    )]
    Requested(Vec<Address>),
    /// The kernel refused something.
    #[error("{what}: {error}. `dmesg` may say more, and outboard doctor what is missing")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

impl VfioError {
    pub(crate) fn system(what: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |error| Self::System { what, error: error.into() }
    }
}
