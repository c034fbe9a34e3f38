//! The program `outboard`, linked so that it runs without anything else.

use crate::GuestError;
use crate::places;
use std::path::PathBuf;
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the program, in a folder of its own so that other builds stay valid.
pub(crate) fn build() -> Result<PathBuf, GuestError> {
    let folder = places::store().join("cargo");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package=outboard", "--target", TARGET])
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
        return Err(GuestError::Preparation { what: "building outboard".to_owned(), how });
    }
    Ok(folder.join(TARGET).join("release/outboard"))
}
