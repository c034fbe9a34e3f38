//! The kernel's modules that VFIO consists of.

use crate::handover::VFIO_FOLDER;
use crate::machine::text;
use crate::{Machine, SysfsError};

/// The module of VFIO's containers: address spaces behind an IOMMU.
///
/// The module `vfio` asks for it by a soft dependency, which not every `modprobe` follows
/// (busybox' does not), so it is loaded by name.
pub(crate) const TYPE1_MODULE: &str = "vfio_iommu_type1";

/// The file of VFIO's containers.
pub(crate) const CONTAINER: &str = "/dev/vfio/vfio";
/// The file of address spaces that need no containers.
pub(crate) const IOMMUFD: &str = "/dev/iommu";

impl Machine {
    /// Whether the module of containers is there: loaded, or a part of the kernel.
    pub(crate) fn has_type1(&self) -> bool {
        self.path("/sys/module").join(TYPE1_MODULE).is_dir()
    }

    /// Whether functions are used through `iommufd`: where VFIO has no containers, or will have none
    /// when it is loaded.
    pub(crate) fn goes_by_iommufd(&self) -> Result<bool, SysfsError> {
        if self.path(CONTAINER).exists() || !self.path(IOMMUFD).exists() {
            return Ok(false);
        }
        let is_loaded = self.path(VFIO_FOLDER).is_dir();
        Ok(is_loaded || self.comes_with(TYPE1_MODULE)? != Some(true))
    }

    /// The version of the running kernel.
    pub(crate) fn release(&self) -> Result<String, SysfsError> {
        Ok(text(&self.path("/proc/sys/kernel/osrelease"))?.unwrap_or_default())
    }

    /// Whether the running kernel comes with a module, loaded or not; `None` if that is not known.
    pub(crate) fn comes_with(&self, module: &str) -> Result<Option<bool>, SysfsError> {
        let folder = self.path("/lib/modules").join(self.release()?);
        let file = format!("/{module}.ko");
        let mut known = None;
        for name in ["modules.dep", "modules.builtin"] {
            if let Some(list) = text(&folder.join(name))? {
                // What others depend on is on their lines, and has one of its own.
                known = Some(known == Some(true) || list.contains(&file));
            }
        }
        Ok(known)
    }
}
