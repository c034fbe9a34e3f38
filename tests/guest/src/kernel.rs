//! Which kernel a guest runs, and where it comes from.

use crate::GuestError;
use crate::places;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable that names a folder with a kernel to use, whatever was asked for.
const OVERRIDE: &str = "OUTBOARD_GUEST_KERNEL";
/// In a kernel's folder once it is complete.
const COMPLETE: &str = "complete";

/// Which of the distribution's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Release {
    /// The one that the release came with.
    #[default]
    Stable,
    /// The newest one that was made for the release.
    Backports,
}

impl Release {
    const fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Backports => "backports",
        }
    }
}

/// A kernel, unpacked.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) version: String,
    /// What QEMU loads.
    pub(crate) image: PathBuf,
    /// The folder `lib/modules/VERSION`.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// Finds a kernel, which is fetched if it is not there yet.
    pub(crate) fn find(release: Release) -> Result<Self, GuestError> {
        if let Some(folder) = std::env::var_os(OVERRIDE) {
            return Self::within(Path::new(&folder));
        }
        let store = places::store();
        fs::create_dir_all(&store).map_err(GuestError::file(&store))?;
        let folder = store.join(format!("kernel-{}", release.name()));
        let complete = folder.join(COMPLETE);
        // Tests that start at the same time fetch it once.
        let lock = folder.with_extension("lock");
        let lock = File::create(&lock).map_err(GuestError::file(&lock))?;
        lock.lock().map_err(GuestError::file(&folder))?;
        if !complete.exists() {
            fetch(release, &folder)?;
            File::create(&complete).map_err(GuestError::file(&complete))?;
        }
        Self::within(&folder)
    }

    fn within(folder: &Path) -> Result<Self, GuestError> {
        let image = ["vmlinux", "vmlinuz"].map(|name| folder.join(name));
        let modules = folder.join("lib/modules");
        let entries = fs::read_dir(&modules).map_err(GuestError::file(&modules))?;
        let version = entries.flatten().next().map(|entry| entry.file_name());
        let version = version.map(|name| name.to_string_lossy().into_owned());
        let image = image.into_iter().find(|path| path.exists());
        match (image, version) {
            (Some(image), Some(version)) => {
                Ok(Self { image, modules: modules.join(&version), version })
            }
            _ => Err(GuestError::Preparation {
                what: format!("finding a kernel in {}", folder.display()),
                how: "it has no vmlinuz, or no lib/modules/VERSION".to_owned(),
            }),
        }
    }
}

fn fetch(release: Release, folder: &Path) -> Result<(), GuestError> {
    let script = places::workspace().join("tests/guest/fetch-kernel");
    let output = Command::new(&script).arg(release.name()).arg(folder).output();
    let output = output.map_err(GuestError::file(&script))?;
    if output.status.success() {
        return Ok(());
    }
    Err(GuestError::Preparation {
        what: format!("fetching the {} kernel", release.name()),
        how: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
