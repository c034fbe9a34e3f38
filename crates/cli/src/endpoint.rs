//! Where this user's server is.

use anyhow::{Context, Result, bail};
use outboard_ninep::Address;
use rustix::process::getuid;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

/// The socket's name in the user's folder.
const SOCKET: &str = "9p";

/// Where a server listens unless it is told otherwise, and where the other verbs look for it.
pub(crate) fn default_address() -> Address {
    Address::Unix(folder().join(SOCKET))
}

/// The user's own folder: below `XDG_RUNTIME_DIR`, or below `/tmp` under the user's number.
fn folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder).join("outboard"),
        None => PathBuf::from(format!("/tmp/outboard-{}", getuid().as_raw())),
    }
}

/// Makes the user's folder, for nobody else to enter.
pub(crate) fn make_folder() -> Result<()> {
    let folder = folder();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.with_context(|| format!("cannot make {}", folder.display()))?;
    check_folder("--9p")
}

/// Refuses a folder that others may have made or may write to: the server there might not be this
/// user's. That there is none is for whoever connects to say. `option` chooses another place.
pub(crate) fn check_folder(option: &str) -> Result<()> {
    let folder = folder();
    let Ok(found) = folder.symlink_metadata() else { return Ok(()) };
    let ours = found.is_dir() && found.uid() == getuid().as_raw();
    if !ours || found.permissions().mode() & 0o077 != 0 {
        bail!(
            "{} is not this user's alone, so a socket there is not safe. Remove it, or choose \
             another place with {option} unix:PATH",
            folder.display()
        );
    }
    Ok(())
}
