//! Functions by way of their groups, in a container.

use crate::VfioError;
use crate::device::Opened;
use crate::ioctl;
use crate::machine::{Purpose, holder_of, open_file, patiently};
use crate::space::Space;
use outboard_pci::Address;
use outboard_sysfs::{Function, Machine};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vfio_bindings::bindings::vfio::*;

pub(crate) const CONTAINER: &str = "/dev/vfio/vfio";
/// Why the kernel lets only root have functions, and only if it was told to.
pub(crate) const FORGES_INTERRUPTS: &str = "the IOMMU does not remap interrupts, so the function \
                                            could forge them. Switch interrupt remapping on in \
                                            the firmware's setup";

/// Whether the kernel has containers.
pub(crate) fn is_there() -> bool {
    Path::new(CONTAINER).exists()
}

/// The file of a group behind an IOMMU.
pub(crate) fn file(number: u32) -> PathBuf {
    format!("/dev/vfio/{number}").into()
}

/// What a container's groups are behind.
#[derive(Debug, Clone, Copy)]
enum Behind {
    /// An IOMMU.
    Type1,
    /// Nothing.
    NoIommu,
}

impl Behind {
    const fn kind(self) -> u32 {
        match self {
            Self::Type1 => VFIO_TYPE1v2_IOMMU,
            Self::NoIommu => VFIO_NOIOMMU_IOMMU,
        }
    }

    fn group_file(self, number: u32) -> PathBuf {
        match self {
            Self::Type1 => file(number),
            Self::NoIommu => format!("/dev/vfio/noiommu-{number}").into(),
        }
    }
}

/// Opens functions, all in one container, which is their address space.
pub(crate) fn open(functions: &[Function]) -> Result<(Space, Vec<Opened>), VfioError> {
    let (container, opened) = open_behind(Behind::Type1, functions)?;
    Ok((Space::Container(container), opened))
}

/// Opens functions that no IOMMU confines, all in one container.
pub(crate) fn open_unconfined(functions: &[Function]) -> Result<(OwnedFd, Vec<Opened>), VfioError> {
    open_behind(Behind::NoIommu, functions).map_err(|error| match error {
        // Giving the files away is no remedy: the kernel asks for CAP_SYS_RAWIO.
        VfioError::Permission { .. } => VfioError::NotRoot,
        error => error,
    })
}

fn open_behind(
    behind: Behind,
    functions: &[Function],
) -> Result<(OwnedFd, Vec<Opened>), VfioError> {
    let container = open_file(Path::new(CONTAINER), None)?;
    let version = ioctl::api_version(&container).map_err(VfioError::system("asking VFIO"))?;
    let kind = ioctl::has_extension(&container, behind.kind());
    if version != VFIO_API_VERSION || !kind.map_err(VfioError::system("asking VFIO"))? {
        return Err(match behind {
            Behind::Type1 => VfioError::NoIommuKind,
            Behind::NoIommu => VfioError::NoSuchMode,
        });
    }
    let mut groups: BTreeMap<u32, Arc<OwnedFd>> = BTreeMap::new();
    let mut opened = Vec::new();
    for function in functions {
        let address = function.address;
        let number = function.group.ok_or(VfioError::NoIommu(address))?;
        let group = match groups.get(&number) {
            Some(group) => group.clone(),
            None => {
                let group = Arc::new(join(&container, behind, number, address)?);
                if groups.is_empty() {
                    let set = ioctl::set_iommu(&container, behind.kind());
                    set.map_err(VfioError::system("putting the group behind its IOMMU"))?;
                }
                groups.insert(number, group.clone());
                group
            }
        };
        let name = CString::new(address.to_string()).expect("an address has no zeros");
        let device = patiently(address, || ioctl::group_device(&*group, &name))?;
        let device = Arc::new(device);
        opened.push(Opened { address, device, _group: Some(group) });
    }
    Ok((container, opened))
}

/// Opens a group, and puts it into the container.
fn join(
    container: &OwnedFd,
    behind: Behind,
    number: u32,
    address: Address,
) -> Result<OwnedFd, VfioError> {
    let purpose = Purpose { address, with: CONTAINER };
    let group = open_file(&behind.group_file(number), Some(purpose))?;
    let flags = ioctl::group_flags(&group).map_err(VfioError::system("asking for the group"))?;
    if flags & VFIO_GROUP_FLAGS_VIABLE == 0 {
        let others = used_by_kernel(address, &Machine::here().group_members(number)?);
        return Err(VfioError::NotViable { address, group: number, others });
    }
    match ioctl::set_container(&group, container.as_fd()) {
        Ok(()) => Ok(group),
        Err(Errno::BUSY) => Err(VfioError::Busy { address, holder: holder_of(address) }),
        Err(Errno::PERM) if matches!(behind, Behind::NoIommu) => Err(VfioError::NotRoot),
        Err(Errno::PERM) => {
            // The kernel only lets root use an IOMMU that cannot keep messages apart.
            Err(VfioError::Unusable { address, what: FORGES_INTERRUPTS })
        }
        Err(error) => Err(VfioError::system("putting the group into a container")(error)),
    }
}

/// The members of a function's group that keep it from being used, with their drivers.
pub(crate) fn used_by_kernel(address: Address, members: &[Function]) -> Vec<(Address, String)> {
    let others = members.iter().filter(|other| other.address != address && other.keeps_group());
    others.map(|other| (other.address, other.driver.clone().unwrap_or_default())).collect()
}
