//! Copies from, to, or between files of a server.

use crate::args::{CpArgs, ServerArgs};
use crate::print;
use crate::remote::{self, TransferError};
use crate::verb::write::fill;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use outboard_ninep::client::{Client, Mode};
use rustix::fs::SeekFrom as Seek;
use rustix::io::Errno;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// Runs of zeros from this length on become holes in files of this machine.
const HOLE_BYTES: usize = 4096;
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

/// From the server to this machine. What reads as zeros becomes holes.
fn fetch(server: &ServerArgs, from: &str, to: &Path, json: bool) -> Result<u64> {
    let client = &mut remote::connect(server)?;
    let (fid, status) = remote::open(client, from, Mode::Read)?;
    let to = if to.is_dir() { to.join(status.name.as_str()) } else { to.to_owned() };
    let named = || to.display().to_string();
    let device = to.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(!device);
    let file = options.open(&to).with_context(named)?;
    let bar = progress(status.bytes, json);
    let mut offset = 0;
    let copied = client.read_range(&fid, 0, u64::MAX, |bytes| {
        if device {
            file.write_all_at(bytes, offset)?;
        } else {
            write_sparsely(&file, bytes, offset)?;
        }
        offset += bytes.len() as u64;
        bar.set_position(offset);
        Ok::<_, TransferError>(())
    });
    bar.finish_and_clear();
    if !device {
        // A hole at the end is only there once the file is that long.
        file.set_len(offset).with_context(named)?;
    }
    let copied =
        copied.with_context(|| format!("{from}: after {} were copied", print::bytes(offset)))?;
    file.sync_all().with_context(named)?;
    client.clunk(fid)?;
    Ok(copied)
}

fn write_sparsely(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let mut at = 0;
    for run in
        bytes.chunks(HOLE_BYTES).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b))
    {
        let len: usize = run.iter().map(|block| block.len()).sum();
        if !run.first().is_some_and(|block| is_zero(block)) {
            file.write_all_at(&bytes[at..at + len], offset + at as u64)?;
        }
        at += len;
    }
    Ok(())
}

/// From this machine to the server. Holes are not read, but written as zeros: the disk may hold
/// something else there.
fn store(server: &ServerArgs, from: &Path, to: &str, yes: bool, json: bool) -> Result<u64> {
    let named = || from.display().to_string();
    let file = File::open(from).with_context(named)?;
    let mut source = Holey::new(file).with_context(named)?;
    let client = &mut remote::connect(server)?;
    let (fid, status) = remote::find(client, to)?;
    if source.len > status.bytes {
        bail!(
            "{} has {} and {to} only {}; nothing was written",
            named(),
            print::bytes(source.len),
            print::bytes(status.bytes)
        );
    }
    confirm(client, to, source.len, yes)?;
    client.open(&fid, Mode::Write).with_context(|| to.to_owned())?;
    let bar = progress(source.len, json);
    let source = |room: &mut [u8]| Ok::<_, TransferError>(source.read(room)?);
    let copied =
        client.write_range(&fid, 0, source, |count| bar.set_position(count)).and_then(|bytes| {
            client.sync(&fid)?;
            Ok(bytes)
        });
    let written = bar.position();
    bar.finish_and_clear();
    let copied = copied.with_context(|| remote::written(to, written))?;
    client.clunk(fid)?;
    Ok(copied)
}

/// From one file of the server to another.
fn between(server: &ServerArgs, from: &str, to: &str, yes: bool, json: bool) -> Result<u64> {
    let client = &mut remote::connect(server)?;
    let (source, status) = remote::open(client, from, Mode::Read)?;
    let (target, room) = remote::find(client, to)?;
    if status.bytes > room.bytes {
        bail!(
            "{from} has {} and {to} only {}; nothing was written",
            print::bytes(status.bytes),
            print::bytes(room.bytes)
        );
    }
    confirm(client, to, status.bytes, yes)?;
    client.open(&target, Mode::Write).with_context(|| to.to_owned())?;
    let bar = progress(status.bytes, json);
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
fn confirm(client: &mut Client, path: &str, bytes: u64, yes: bool) -> Result<()> {
    let disk = path.split('/').find(|name| !name.is_empty()).unwrap_or(path);
    if yes || path.ends_with("/ctl") || path == "ctl" {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        bail!(
            "this would overwrite {} of {path}; to do it without being asked, add --yes",
            print::bytes(bytes)
        );
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
        "This overwrites the first {} of {path} ({}, serial {}).",
        print::bytes(bytes),
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

/// A bar with rate and time left, on a terminal.
fn progress(bytes: u64, json: bool) -> ProgressBar {
    if json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style)
}

/// A file whose holes are known to be zeros without being read.
struct Holey {
    file: File,
    len: u64,
    at: u64,
    /// Up to where the data goes on that `at` is in; `at` itself in a hole.
    data_end: u64,
    /// Up to where the hole goes on that `at` is in.
    hole_end: u64,
}

impl Holey {
    fn new(file: File) -> io::Result<Self> {
        // Block devices have no length but an end.
        let len = rustix::fs::seek(&file, Seek::End(0))?;
        rustix::fs::seek(&file, Seek::Start(0))?;
        Ok(Self { file, len, at: 0, data_end: 0, hole_end: 0 })
    }

    /// Finds out what `at`, which is before the end, is in: afterwards one of the two ends is
    /// behind it, whatever the file system says.
    fn look(&mut self) {
        let at = self.at;
        self.hole_end = match rustix::fs::seek(&self.file, Seek::Data(at)) {
            Ok(start) => start.clamp(at, self.len),
            // No data from here on.
            Err(Errno::NXIO) => self.len,
            // Where the file system does not know, all is data.
            Err(_) => at,
        };
        if self.hole_end > at {
            return;
        }
        self.data_end = match rustix::fs::seek(&self.file, Seek::Hole(at)) {
            Ok(end) if end > at => end.min(self.len),
            // It does not know, or the file is being changed: reading tells.
            _ => self.len,
        };
    }
}

impl Read for Holey {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < room.len() && self.at < self.len {
            if self.at >= self.hole_end && self.at >= self.data_end {
                self.look();
            }
            let hole = self.at < self.hole_end;
            let end = if hole { self.hole_end } else { self.data_end };
            let count =
                (room.len() - filled).min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
            let part = &mut room[filled..filled + count];
            if hole {
                part.fill(0);
            } else {
                self.file.read_exact_at(part, self.at)?;
            }
            filled += count;
            self.at += count as u64;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_read_as_zeros_and_written_as_holes() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("holey");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(10 << 20).unwrap();
        file.write_all_at(&[7; 5000], 3 << 20).unwrap();
        file.write_all_at(&[8; 100], (10 << 20) - 100).unwrap();
        let mut read = Vec::new();
        Holey::new(File::open(&path).unwrap()).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, std::fs::read(&path).unwrap());

        let copy = folder.path().join("copy");
        let file = File::create(&copy).unwrap();
        for (index, chunk) in read.chunks(1_000_000).enumerate() {
            write_sparsely(&file, chunk, index as u64 * 1_000_000).unwrap();
        }
        assert_eq!(std::fs::read(&copy).unwrap(), read);
        assert!(copy.metadata().unwrap().blocks() * 512 < 100_000);
    }

    #[test]
    fn an_empty_file_and_a_file_of_holes_are_read() {
        // File systems differ: one has no data in it, one calls all of it data.
        let memory = rustix::fs::memfd_create("holes", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        for file in [tempfile::tempfile().unwrap(), memory.into()] {
            for len in [0, 1, 1 << 20] {
                file.set_len(len).unwrap();
                let mut read = Vec::new();
                let mut source = Holey::new(file.try_clone().unwrap()).unwrap();
                source.read_to_end(&mut read).unwrap();
                assert_eq!(read, vec![0; len as usize]);
            }
        }
    }
}
