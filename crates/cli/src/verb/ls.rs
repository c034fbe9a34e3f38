//! Lists what a server serves.

use crate::args::LsArgs;
use crate::{print, remote};
use anyhow::Result;
use outboard_ninep::client::{Client, FileStatus, Mode};
use serde::Serialize;

#[derive(Serialize)]
struct Entry<'a> {
    path: &'a str,
    directory: bool,
    bytes: u64,
    permissions: u32,
}

/// Folders one in the other that are listed. The tree of disks has three.
const MAX_DEPTH: u8 = 16;

pub(crate) fn run(arguments: &LsArgs, json: bool) -> Result<()> {
    let client = &mut remote::connect(&arguments.server)?;
    let top = [String::new()];
    let paths = if arguments.paths.is_empty() { &top[..] } else { &arguments.paths };
    for path in paths {
        let path = remote::path(path).trim_matches('/');
        let (fid, status) = remote::find(client, path)?;
        client.clunk(fid)?;
        if status.directory {
            let depth = if arguments.recursive { MAX_DEPTH } else { 1 };
            folder(client, path, depth, json)?;
        } else {
            entry(path, &status, json)?;
        }
    }
    Ok(())
}

fn folder(client: &mut Client, path: &str, depth: u8, json: bool) -> Result<()> {
    let (fid, _) = remote::find(client, path)?;
    client.open(&fid, Mode::Read)?;
    let entries = client.entries(&fid)?;
    client.clunk(fid)?;
    for found in entries {
        let below = match path {
            "" => found.name.clone(),
            path => format!("{path}/{}", found.name),
        };
        entry(&below, &found, json)?;
        if found.directory && depth > 1 {
            folder(client, &below, depth - 1, json)?;
        }
    }
    Ok(())
}

fn entry(path: &str, status: &FileStatus, json: bool) -> Result<()> {
    let FileStatus { directory, bytes, permissions, .. } = *status;
    if json {
        print::json("entry", &Entry { path, directory, bytes, permissions })?;
        return Ok(());
    }
    let bits = [(0o400, 'r'), (0o200, 'w')];
    let access: String = bits
        .iter()
        .map(|(bit, letter)| if permissions & bit != 0 { *letter } else { '-' })
        .collect();
    let (kind, mark) = if directory { ('d', "/") } else { ('-', "") };
    let size = if directory { String::new() } else { print::bytes(bytes) };
    print::line_out(&format!("{kind}{access} {size:>12}  {path}{mark}"))?;
    Ok(())
}
