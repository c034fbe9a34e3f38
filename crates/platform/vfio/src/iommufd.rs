//! Functions one by one, bound to an `iommufd`.

use crate::VfioError;
use crate::device::Opened;
use crate::group::{self, FORGES_INTERRUPTS};
use crate::ioctl;
use crate::machine::{Purpose, explained, holder_of, open_file, patiently, retry};
use crate::space::Space;
use outboard_sysfs::{Function, Machine};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const IOMMUFD: &str = "/dev/iommu";

/// Whether the kernel has it.
pub(crate) fn is_there() -> bool {
    Path::new(IOMMUFD).exists()
}

/// The file of a function, by the name that VFIO gives it.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new("/dev/vfio/devices").join(name)
}

/// Opens functions, all in one address space.
pub(crate) fn open(functions: &[Function]) -> Result<(Space, Vec<Opened>), VfioError> {
    let descriptor = open_file(Path::new(IOMMUFD), None)?;
    let ioas = ioctl::ioas_alloc(&descriptor);
    let ioas = ioas.map_err(VfioError::system("making an address space of the IOMMU"))?;
    let mut opened = Vec::new();
    for function in functions {
        let address = function.address;
        let what = "there is no /dev/vfio/vfio (in a container, pass it in, with the file of the \
                    function's group), and the kernel was built without CONFIG_VFIO_DEVICE_CDEV, \
                    so it offers the function by no file of its own either";
        let name = function.vfio_device.as_ref();
        let path = file(name.ok_or(VfioError::Unusable { address, what })?);
        let device = open_file(&path, Some(Purpose { address, with: IOMMUFD }))?;
        bind(&device, descriptor.as_fd(), function)?;
        patiently(address, || ioctl::attach_ioas(&device, ioas))?;
        opened.push(Opened { address, device: Arc::new(device), _group: None });
    }
    Ok((Space::Iommufd { descriptor, ioas }, opened))
}

/// Binds a function whose file is open, which anybody may have open at the same time: it is here
/// that the kernel finds out who has the function.
fn bind(device: &OwnedFd, iommufd: BorrowedFd<'_>, function: &Function) -> Result<(), VfioError> {
    let attempt = || match ioctl::bind_iommufd(device, iommufd) {
        // A function that is bound already. The kernel says the same of IOMMUs that leave caches
        // out of step with memory, and of arguments that are wrong, neither of which a PC has.
        Err(Errno::INVAL) => Err(Errno::BUSY),
        result => result,
    };
    match retry(attempt) {
        Err(Errno::PERM) => {
            let machine = Machine::here();
            let members = function.group.map(|group| machine.group_members(group)).transpose()?;
            let remaps_interrupts = machine.remaps_interrupts()?;
            Err(not_permitted(function, &members.unwrap_or_default(), remaps_interrupts))
        }
        result => explained(function.address, result),
    }
}

/// Why the kernel does not let a function be bound. It says the same whether the kernel itself
/// uses others of the function's group, or a process does, or interrupts are not safe from it.
fn not_permitted(function: &Function, members: &[Function], remaps_interrupts: bool) -> VfioError {
    let address = function.address;
    let others = group::used_by_kernel(address, members);
    match function.group {
        Some(group) if !others.is_empty() => VfioError::NotViable { address, group, others },
        _ if !remaps_interrupts => VfioError::Unusable { address, what: FORGES_INTERRUPTS },
        _ => {
            let holder = members.iter().find_map(|member| holder_of(member.address));
            VfioError::Busy { address, holder }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outboard_pci::{Address, Class, Identity};

    fn function(number: u8, driver: &str) -> Function {
        let class = Class { base: 1, sub: 6, interface: 1 };
        let identity =
            Identity { vendor: 0x8086, device: 0x2922, class, revision: 2, subsystem: None };
        Function {
            address: Address::new(0, 0, 0x1f, number),
            identity,
            driver: Some(driver.into()),
            driver_override: None,
            group: Some(7),
            reset_methods: Vec::new(),
            numa_node: None,
            power_state: None,
            modalias: None,
            vfio_device: None,
        }
    }

    #[test]
    fn the_reasons_why_a_function_may_not_be_bound_are_told_apart() {
        let explain = |other: &str, remaps_interrupts| {
            let members = [function(2, "vfio-pci"), function(3, other)];
            not_permitted(&members[0], &members, remaps_interrupts).to_string()
        };
        let error = explain("vfio-pci", true);
        assert!(error.contains("0000:00:1f.2 is in use by another process"), "{error}");
        let error = explain("vfio-pci", false);
        assert!(error.contains("does not remap interrupts"), "{error}");
        for remaps_interrupts in [true, false] {
            let error = explain("i801_smbus", remaps_interrupts);
            assert!(error.contains("outboard bind 0000:00:1f.3"), "{error}");
        }
    }
}
