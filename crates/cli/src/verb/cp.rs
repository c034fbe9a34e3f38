//! Copies from, to, or between files of a server.

mod local;

use crate::args::{CpArgs, ServerArgs};
use crate::print;
use crate::remote::{self, TransferError};
use crate::verb::write::fill;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use local::{Source, Target};
use outboard_ninep::client::{Client, Mode};
use serde::Serialize;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

/// What is read before it is written when copying between two files of a server.
const BETWEEN_BYTES: u64 = 16 << 20;

/// One end of a copy.
enum Place {
    /// A file of this machine.
    Here(PathBuf),
    /// A file of the server.
    There(String),
}

#[derive(Serialize)]
struct Copied<'a> {
    from: &'a str,
    to: &'a str,
    bytes: u64,
    seconds: f64,
}

pub(crate) fn run(arguments: &CpArgs, json: bool) -> Result<()> {
    let CpArgs { from, to, yes, server } = arguments;
    let began = std::time::Instant::now();
    let bytes = match (place(from), place(to)) {
        (Place::There(from), Place::Here(to)) => fetch(server, &from, &to, json)?,
        (Place::Here(from), Place::There(to)) => store(server, &from, &to, *yes, json)?,
        (Place::There(from), Place::There(to)) => between(server, &from, &to, *yes, json)?,
        (Place::Here(_), Place::Here(_)) => bail!(
            "neither is a file of the server; those have a colon in front, as in :sdC0/part/1"
        ),
    };
    if json {
        let seconds = began.elapsed().as_secs_f64();
        print::json("copied", &Copied { from, to, bytes, seconds })?;
    }
    Ok(())
}

fn place(text: &str) -> Place {
    match text.strip_prefix(':') {
        Some(path) => Place::There(path.to_owned()),
        None => Place::Here(text.into()),
    }
}

/// From the server to this machine. What reads as zeros becomes holes, where there can be any.
fn fetch(server: &ServerArgs, from: &str, to: &Path, json: bool) -> Result<u64> {
    let client = &mut remote::connect(server)?;
    let (fid, status) = remote::open(client, from, Mode::Read)?;
    let to = if to.is_dir() { to.join(file_name(from)?) } else { to.to_owned() };
    let named = || to.display().to_string();
    let mut target = Target::open(&to).with_context(named)?;
    let bar = progress(Some(status.bytes), json);
    let copied = client.read_range(&fid, 0, u64::MAX, |bytes| {
        let written = target.write(bytes);
        bar.set_position(target.len());
        written.map_err(|error| TransferError::File { path: to.clone(), error })
    });
    bar.finish_and_clear();
    let len = target.len();
    // What came before an error is kept.
    let finished = target.finish();
    let copied =
        copied.with_context(|| format!("{from}: after {} were copied", print::bytes(len)))?;
    finished.with_context(named)?;
    client.clunk(fid)?;
    Ok(copied)
}

/// What a file is to be called in a folder of this machine. The user says that, not the server,
/// whose names may lead anywhere.
fn file_name(from: &str) -> Result<&str> {
    match remote::names(from).last() {
        Some(name) if *name != ".." => Ok(name),
        _ => bail!("{from} does not say what to call the copy; name a file rather than a folder"),
    }
}

/// From this machine to the server. Holes are not read, but written as zeros: the disk may hold
/// something else there.
fn store(server: &ServerArgs, from: &Path, to: &str, yes: bool, json: bool) -> Result<u64> {
    let source = Source::open(from)?;
    let len = source.len();
    let client = &mut remote::connect(server)?;
    let (fid, status) = remote::find_file(client, to)?;
    // The length of a ctl file is that of what it says, not of what it takes.
    let room = if is_control(to) { u64::MAX } else { status.bytes };
    if let Some(len) = len.filter(|len| *len > room) {
        bail!(
            "{} has {} and {to} only {}; nothing was written",
            from.display(),
            print::bytes(len),
            print::bytes(room)
        );
    }
    confirm(client, to, &extent(len, room), yes)?;
    client.open(&fid, Mode::Write).with_context(|| to.to_owned())?;
    let bar = progress(len, json);
    let (mut source, mut written) = (source.take(room), 0);
    let in_file = |error| TransferError::File { path: from.to_owned(), error };
    let data = |room: &mut [u8]| fill(&mut source, room).map_err(in_file);
    let copied = client.write_range(&fid, 0, data, |count| {
        written = count;
        bar.set_position(count);
    });
    let copied = copied.and_then(|bytes| {
        client.sync(&fid)?;
        Ok(bytes)
    });
    bar.finish_and_clear();
    let copied = copied.with_context(|| remote::written(to, written))?;
    client.clunk(fid)?;
    if source.limit() == 0 && fill(source.get_mut(), &mut [0]).map_err(in_file)? > 0 {
        bail!("{to} is full: {copied} bytes were written, and {} goes on", from.display());
    }
    Ok(copied)
}

/// How much of a file is to be overwritten, in words.
fn extent(len: Option<u64>, room: u64) -> String {
    match len {
        Some(len) => format!("the first {}", print::bytes(len)),
        None => format!("up to all {}", print::bytes(room)),
    }
}

/// Whether it takes commands rather than data. A partition may have that name, too.
fn is_control(path: &str) -> bool {
    matches!(remote::names(path)[..], ["ctl"] | [_, "ctl"])
}

/// From one file of the server to another.
fn between(server: &ServerArgs, from: &str, to: &str, yes: bool, json: bool) -> Result<u64> {
    let client = &mut remote::connect(server)?;
    let (source, status) = remote::open(client, from, Mode::Read)?;
    let (target, room) = remote::find_file(client, to)?;
    if status.bytes > room.bytes {
        bail!(
            "{from} has {} and {to} only {}; nothing was written",
            print::bytes(status.bytes),
            print::bytes(room.bytes)
        );
    }
    confirm(client, to, &extent(Some(status.bytes), room.bytes), yes)?;
    client.open(&target, Mode::Write).with_context(|| to.to_owned())?;
    let bar = progress(Some(status.bytes), json);
    let mut offset = 0;
    loop {
        let mut data = Vec::new();
        let read = client.read_range(&source, offset, BETWEEN_BYTES, |bytes| {
            data.extend_from_slice(bytes);
            Ok::<_, TransferError>(())
        });
        let (mut rest, start) = (data.as_slice(), offset);
        let data = |room: &mut [u8]| Ok::<_, TransferError>(fill(&mut rest, room)?);
        let written = client.write_range(&target, start, data, |count| offset = start + count);
        written.with_context(|| remote::written(to, offset))?;
        bar.set_position(offset);
        let count =
            read.with_context(|| format!("{from}: after {} were copied", print::bytes(offset)))?;
        if count == 0 {
            break;
        }
    }
    client.sync(&target).with_context(|| remote::written(to, offset))?;
    bar.finish_and_clear();
    client.clunk(source)?;
    client.clunk(target)?;
    Ok(offset)
}

/// Has the user type the disk's name before it is overwritten.
fn confirm(client: &mut Client, path: &str, extent: &str, yes: bool) -> Result<()> {
    if yes || is_control(path) {
        return Ok(());
    }
    let disk = remote::names(path).first().copied().unwrap_or(path);
    if !io::stdin().is_terminal() {
        bail!("this would overwrite {extent} of {path}; to do it without being asked, add --yes");
    }
    let mut description = Vec::new();
    let (fid, _) = remote::open(client, &format!("{disk}/ctl"), Mode::Read)?;
    client.read_range(&fid, 0, u64::MAX, |bytes| {
        description.extend_from_slice(bytes);
        Ok::<_, TransferError>(())
    })?;
    client.clunk(fid)?;
    let description = String::from_utf8_lossy(&description).into_owned();
    let of = |key: &str| {
        let line = description.lines().find_map(|line| line.strip_prefix(key));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    print::note(&format!(
        "This overwrites {extent} of {path} ({}, serial {}).",
        of("model "),
        of("serial ")
    ));
    let mut out = io::stderr().lock();
    write!(out, "To go on, type the disk's name ({disk}): ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if answer.trim() != disk {
        bail!("that was not {disk}; nothing was written");
    }
    Ok(())
}

/// A bar with rate and time left, on a terminal; without a length only what is known.
fn progress(bytes: Option<u64>, json: bool) -> ProgressBar {
    if json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => {
            let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
            (ProgressBar::new(bytes), template)
        }
        None => (ProgressBar::no_length(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
    bar.with_style(style)
}
