//! Which QEMU there is.

use crate::LabError;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

/// The oldest QEMU whose command line the lab speaks (devices described in JSON).
const NEEDED: (u32, u32) = (6, 2);
const NEEDED_TEXT: &str = "6.2";

/// Finds QEMU and makes sure that it is new enough.
pub(crate) fn find(program: Option<&Path>) -> Result<OsString, LabError> {
    let program = program.map(OsString::from);
    let program = program
        .or_else(|| std::env::var_os("OUTBOARD_QEMU"))
        .unwrap_or_else(|| "qemu-system-x86_64".into());
    let name = program.to_string_lossy().into_owned();
    let output = Command::new(&program).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => LabError::NoQemu { program: name.clone() },
        _ => LabError::Spawn { program: name.clone(), error },
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().next().unwrap_or("unknown").to_owned();
    match version(&text) {
        Some(version) if version >= NEEDED => Ok(program),
        _ => Err(LabError::OldQemu { program: name, found, needed: NEEDED_TEXT }),
    }
}

/// Reads `QEMU emulator version 7.2.22 (…)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (_, version) = text.split_once("version ")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(version("QEMU emulator version 7.2.22 (Debian 1:7.2)"), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0\n"), Some((10, 0)));
        assert_eq!(version("something else"), None);
        assert!(Some((10, 0)) > Some(NEEDED));
    }

    #[test]
    fn a_missing_program_and_a_wrong_one_say_what_to_do() {
        let missing = find(Some(Path::new("/nonexistent/qemu"))).unwrap_err().to_string();
        assert!(missing.contains("apt-get install qemu-system-x86"), "{missing}");
        let wrong = find(Some(Path::new("/bin/true"))).unwrap_err().to_string();
        assert!(wrong.contains("needs 6.2 or newer"), "{wrong}");
    }
}
