//! Where the kernel's files are.

use crate::SysfsError;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The most that is read of a file. The longest is the list of mounts, with some 200 bytes each.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A machine: the folder below which `sys`, `proc`, `dev` and `etc` are.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine that this runs on.
    pub fn here() -> Self {
        Self::below("/")
    }

    /// What looks like a machine, below a folder. Its links must be relative.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a file of the machine is, given its absolute path there.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// The text of a file; `None` if there is no such file, or what it is about is gone.
pub(crate) fn text(path: &Path) -> Result<Option<String>, SysfsError> {
    let read = || {
        let mut bytes = Vec::new();
        let length = fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if length as u64 > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("it has over {MAX_FILE_BYTES} bytes")));
        }
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    present(read()).map_err(|error| SysfsError::Read { path: path.to_owned(), error })
}

/// The text of a file that says nothing if it is missing, cannot be read, or is empty.
pub(crate) fn attribute(folder: &Path, name: &str) -> Option<String> {
    text(&folder.join(name)).ok().flatten().filter(|text| !text.is_empty())
}

/// The name of what a link leads to.
pub(crate) fn link_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

/// The names in a folder, sorted; none if there is no such folder.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, SysfsError> {
    let read = || {
        let mut names = Vec::new();
        for entry in folder.read_dir()? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    };
    let names = present(read());
    let names = names.map_err(|error| SysfsError::Read { path: folder.to_owned(), error })?;
    Ok(names.unwrap_or_default())
}

/// What was found; `None` if it is not there, or went away meanwhile.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    let gone = |error: &io::Error| {
        let errno = rustix::io::Errno::from_io_error(error);
        errno.is_some_and(|errno| {
            [rustix::io::Errno::NODEV, rustix::io::Errno::NXIO].contains(&errno)
        })
    };
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
