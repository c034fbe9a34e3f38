//! Functions one by one, bound to an `iommufd`.

use crate::VfioError;
use crate::device::Opened;
use crate::ioctl;
use crate::machine::{open_file, patiently};
use crate::space::Space;
use outboard_sysfs::Function;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

const IOMMUFD: &str = "/dev/iommu";

/// Whether the kernel has it.
pub(crate) fn is_there() -> bool {
    Path::new(IOMMUFD).exists()
}

/// Opens functions, all in one address space.
pub(crate) fn open(functions: &[Function]) -> Result<(Space, Vec<Opened>), VfioError> {
    let descriptor = open_file(Path::new(IOMMUFD), None)?;
    let ioas = ioctl::ioas_alloc(&descriptor);
    let ioas = ioas.map_err(VfioError::system("making an address space of the IOMMU"))?;
    let mut opened = Vec::new();
    for function in functions {
        let address = function.address;
        let what = "the kernel offers it neither in a group nor by itself";
        let name = function.vfio_device.as_ref();
        let name = name.ok_or(VfioError::Unusable { address, what })?;
        let path = Path::new("/dev/vfio/devices").join(name);
        let device = open_file(&path, Some(address))?;
        patiently(address, || ioctl::bind_iommufd(&device, descriptor.as_fd()))?;
        patiently(address, || ioctl::attach_ioas(&device, ioas))?;
        opened.push(Opened { address, device: Arc::new(device), _group: None });
    }
    Ok((Space::Iommufd { descriptor, ioas }, opened))
}
