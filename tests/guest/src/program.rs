//! The program `outboard`, linked so that it runs without anything else.

use crate::GuestError;
use crate::places;
use std::path::PathBuf;
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the program.
pub(crate) fn build() -> Result<PathBuf, GuestError> {
    cargo(&["--package=outboard"]).map(|folder| folder.join("outboard"))
}

/// Builds an example of a crate, linked in the same way: a program for one test.
///
/// # Errors
///
/// If it cannot be built.
pub fn example(package: &str, name: &str) -> Result<PathBuf, GuestError> {
    let options = [format!("--package={package}"), format!("--example={name}")];
    let folder = cargo(&options.each_ref().map(String::as_str))?;
    Ok(folder.join("examples").join(name))
}

/// Builds something, in a folder of its own so that other builds stay valid; the folder that it is
/// in then.
fn cargo(what: &[&str]) -> Result<PathBuf, GuestError> {
    let folder = places::store().join("cargo");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--target", TARGET])
        .args(what)
        .arg("--target-dir")
        .arg(&folder)
        .current_dir(places::workspace())
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // The guest has little memory, and nobody looks at lines there.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .output()
        .map_err(GuestError::preparation("running cargo"))?;
    if !output.status.success() {
        let how = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(GuestError::Preparation { what: format!("building {what:?}"), how });
    }
    Ok(folder.join(TARGET).join("release"))
}
