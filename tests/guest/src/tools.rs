//! Programs of other people that guests get, with their libraries.

use crate::GuestError;
use crate::places::find_program;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// What every guest has.
const USUAL: &[&str] = &["cmp", "dd", "tar", "mkfs.ext4", "e2fsck", "sgdisk"];
/// What programs look for beside their libraries.
const SETTINGS: &[(&str, &str)] = &[("mkfs.ext4", "/etc/mke2fs.conf")];

/// Where in the guest each file goes (no leading slash), and where it comes from.
pub(crate) fn files(further: &[String]) -> Result<BTreeMap<String, PathBuf>, GuestError> {
    let mut files = BTreeMap::new();
    for name in USUAL.iter().copied().chain(further.iter().map(String::as_str)) {
        let program = find(name)?;
        for library in libraries(&program)? {
            files.insert(library.trim_start_matches('/').to_owned(), PathBuf::from(library));
        }
        files.insert(format!("usr/bin/{name}"), program);
        let settings = SETTINGS.iter().filter(|(program, _)| *program == name);
        for (_, path) in settings {
            files.insert(path.trim_start_matches('/').to_owned(), PathBuf::from(path));
        }
    }
    Ok(files)
}

/// The program `name` of this machine.
pub(crate) fn find(name: &str) -> Result<PathBuf, GuestError> {
    find_program(name).ok_or_else(|| GuestError::MissingProgram(name.to_owned()))
}

/// The libraries of a program, and the program that loads them.
fn libraries(program: &PathBuf) -> Result<Vec<String>, GuestError> {
    let output = Command::new("ldd").arg(program).output();
    let output = output.map_err(GuestError::preparation("running ldd"))?;
    // Of a program that has none it says so, and fails.
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.lines().filter_map(|line| {
        let path = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
        path.starts_with('/').then(|| path.split(' ').next().unwrap_or(path).to_owned())
    });
    Ok(paths.collect())
}
