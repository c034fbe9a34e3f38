//! Why a function could not be had, and what to do about it.

use crate::Locked;
use outboard_pci::Address;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// What lets functions be used without an IOMMU.
const FLAG: &str = "--let-devices-reach-all-memory";
/// Whether the kernel does.
const MODE: &str = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

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
         outboard doctor says what is missing. On a machine that has none, {FLAG} gives up what an \
         IOMMU is for"
    )]
    NoIommu(Address),
    /// The function is bound, and the file by which it is used is missing.
    #[error(
        "{address} is bound to vfio-pci, but {} does not exist. In a container, pass it in \
         (--device={} --device={}); elsewhere, see that /dev is a devtmpfs: mount -t devtmpfs dev \
         /dev (as root)", .path.display(), .path.display(), .with.display()
    )]
    NoNode {
        /// The function.
        address: Address,
        /// The file.
        path: PathBuf,
        /// The other file that it takes.
        with: PathBuf,
    },
    /// An IOMMU confines the function, and was to be given up.
    #[error(
        "{0} has an IOMMU in front of it, which there is no reason to give up: leave {FLAG} out"
    )]
    Confined(Address),
    /// The kernel's VFIO has no mode for functions without an IOMMU, or is not loaded.
    #[error(
        "this kernel hands out no function without an IOMMU. If VFIO is not loaded (as root): \
         modprobe vfio. If there is no {MODE} then, as with Debian's kernels, it was built without \
         CONFIG_VFIO_NOIOMMU, and it takes another kernel, or an IOMMU"
    )]
    NoSuchMode,
    /// The kernel was not told to hand out functions without an IOMMU.
    #[error(
        "the kernel hands out no function without an IOMMU unless it is told to. If devices may \
         reach all memory of this machine (as root): echo Y > {MODE}; outboard bind {0}. For good: \
         vfio.enable_unsafe_noiommu_mode=1 on the kernel's command line"
    )]
    NotAllowed(Address),
    /// Without an IOMMU, only root may.
    #[error(
        "only root may let devices reach all memory: the kernel asks for CAP_SYS_RAWIO, and tells \
         where memory lies to those with CAP_SYS_ADMIN alone. Run this as root (sudo)"
    )]
    NotRoot,
    /// Too few huge pages are set aside.
    #[error(
        "without an IOMMU, memory for transfers has to be huge pages, of which {free} are free, and \
         at least {least} are needed. Set {wanted} aside (as root), soon after the machine has \
         started, while memory is in large pieces: sysctl vm.nr_hugepages={wanted}; or for good, \
         with hugepages={wanted} on the kernel's command line"
    )]
    NoHugePages {
        /// Huge pages of 2 MiB that are wanted.
        wanted: usize,
        /// How many there are.
        free: usize,
        /// How many are enough to be of use.
        least: usize,
    },
    /// The huge pages do not lie side by side.
    #[error(
        "without an IOMMU, memory for transfers has to be in one piece, and the longest of {taken} \
         huge pages has {} MiB; at least {} are needed. Set huge pages aside while memory is in \
         large pieces: restart with hugepages={wanted} on the kernel's command line, or run sysctl \
         vm.nr_hugepages={wanted} (as root) soon after the machine has started",
        .longest << 1, .least << 1
    )]
    Scattered {
        /// Huge pages of 2 MiB that are wanted.
        wanted: usize,
        /// How many the longest piece has.
        longest: usize,
        /// How many are enough to be of use.
        least: usize,
        /// How many were looked at.
        taken: usize,
    },
    /// The kernel moved pages while they were being arranged.
    #[error(
        "the kernel is moving huge pages about, so devices cannot be told where they are. Try again"
    )]
    Moved,
    /// The kernel's IOMMU is of a kind that is not known here.
    #[error(
        "this kernel's VFIO offers no IOMMU of type 1 version 2. It needs the module \
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
        "{} MiB of memory for transfers have to be locked, and this process may lock {} KiB{}. \
         Raise the limit for the shell that starts it: ulimit -l {} (beyond the hard limit as \
         root; for a service of systemd: LimitMEMLOCK={}M), or run it as root{}",
        .wanted >> 20, .limit >> 10, .locked, .needed >> 10, .needed >> 20,
        .instead.map(|mib| format!(", or take less memory: --memory {mib}")).unwrap_or_default()
    )]
    LockedMemory {
        /// Bytes wanted.
        wanted: u64,
        /// Bytes allowed.
        limit: u64,
        /// What is locked already.
        locked: Locked,
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
    /// A region of another process's memory is longer than all that functions may reach.
    #[error(
        "a region of {} MiB is more than the {} MiB of virtual machines' memory that controllers \
         may reach. Let them reach more: --zero-copy {}",
        .bytes.div_ceil(1 << 20), .limit >> 20, .bytes.div_ceil(1 << 20)
    )]
    ForeignTooLarge {
        /// Bytes of the region.
        bytes: u64,
        /// Bytes that may be reached.
        limit: u64,
    },
    /// Functions reach as much of other processes' memory as they may.
    #[error(
        "controllers reach {} MiB of virtual machines' memory already, which is all that they may. \
         Let them reach more: --zero-copy {}", .limit >> 20, .limit >> 19
    )]
    ForeignUsedUp {
        /// Bytes that may be reached.
        limit: u64,
    },
    /// The limit of locked memory is too low for another process's memory.
    #[error(
        "memory that controllers reach has to be locked, and this process may lock {} KiB{}. Raise \
         the limit for the shell that starts it: ulimit -l {} (beyond the hard limit as root; for a \
         service of systemd: LimitMEMLOCK={}M), or run it as root",
        .limit >> 10, .locked, .needed >> 10, .needed >> 20
    )]
    ForeignLocked {
        /// Bytes allowed.
        limit: u64,
        /// What is locked already.
        locked: Locked,
        /// Bytes that the limit has to be at least, for all of the region.
        needed: u64,
    },
    /// The kernel has too little memory to pin another process's.
    #[error("the kernel has too little memory to keep virtual machines' in place")]
    NoForeignMemory,
    /// The IOMMU has no room for another process's memory where the device reaches it.
    #[error(
        "the IOMMU has no room for {} MiB in one piece where the controller reaches it",
        .bytes.div_ceil(1 << 20)
    )]
    NoForeignAddresses {
        /// Bytes of the region.
        bytes: u64,
    },
    /// The kernel keeps no more mappings.
    #[error(
        "the kernel maps no more pieces of memory. Let it map more (as root): echo 1000000 > \
         /sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
    )]
    ForeignMappings,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_without_an_iommu_is_named_with_the_remedy() {
        let address = Address::new(0, 0, 0x1f, 2);
        let no_pages = VfioError::NoHugePages { wanted: 128, free: 3, least: 8 };
        let scattered = VfioError::Scattered { wanted: 128, longest: 5, least: 8, taken: 300 };
        let texts: [(VfioError, &[&str]); 7] = [
            (VfioError::NoIommu(address), &["0000:00:1f.2 has no IOMMU", FLAG]),
            (VfioError::Confined(address), &["0000:00:1f.2 has an IOMMU", "leave", FLAG]),
            (VfioError::NoSuchMode, &["CONFIG_VFIO_NOIOMMU", "modprobe vfio"]),
            (
                VfioError::NotAllowed(address),
                &["echo Y > /sys/module/vfio", "outboard bind 0000:00:1f.2", "noiommu_mode=1"],
            ),
            (VfioError::NotRoot, &["CAP_SYS_RAWIO", "CAP_SYS_ADMIN", "as root"]),
            (no_pages, &["of which 3 are free", "at least 8", "sysctl vm.nr_hugepages=128"]),
            (scattered, &["300 huge pages has 10 MiB; at least 16", " hugepages=128"]),
        ];
        for (error, parts) in texts {
            let text = error.to_string();
            for part in parts {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
        }
    }
}
