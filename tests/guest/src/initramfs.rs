//! What a guest has in its memory when it starts: a layer that is kept, and what is this guest's.

use crate::GuestError;
use crate::cpio::Archive;
use crate::kernel::Kernel;
use crate::modules::Modules;
use crate::{places, tools};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The guest's first process.
const INIT: &str = include_str!("init.sh");

/// Makes the layer of modules and tools, unless there is one of the same contents.
pub(crate) fn layer(kernel: &Kernel, further: &[String]) -> Result<PathBuf, GuestError> {
    let modules = Modules::choose(kernel)?;
    let folder = format!("lib/modules/{}", kernel.version);
    let mut files = tools::files(further)?;
    files.insert("bin/busybox".to_owned(), tools::find("busybox")?);
    for path in &modules.paths {
        files.insert(format!("{folder}/{path}"), kernel.modules.join(path));
    }
    let mut key = Key::new();
    for (name, path) in &files {
        let about = fs::metadata(path).map_err(GuestError::file(path))?;
        key.add(name.as_bytes());
        for number in [about.len() as i64, about.mtime(), about.mtime_nsec()] {
            key.add(&number.to_le_bytes());
        }
    }
    key.add(modules.dependencies.as_bytes());
    key.add(modules.aliases.as_bytes());
    let layers = places::store().join("layers");
    fs::create_dir_all(&layers).map_err(GuestError::file(&layers))?;
    let layer = layers.join(format!("{:016x}.cpio", key.0));
    if layer.exists() {
        return Ok(layer);
    }
    let text = [
        (format!("{folder}/modules.dep"), modules.dependencies),
        (format!("{folder}/modules.alias"), modules.aliases),
    ];
    let file = tempfile::NamedTempFile::new_in(&layers).map_err(GuestError::file(&layers))?;
    let write = |archive: &mut Archive<_>| -> io::Result<()> {
        for applet in applets()? {
            archive.link(&format!("bin/{applet}"), "busybox")?;
        }
        // Where the kernel looks for it.
        archive.link("sbin/modprobe", "../bin/busybox")?;
        archive.device("dev/console", 5, 1)?;
        for (name, path) in &files {
            archive.file(name, &fs::read(path)?)?;
        }
        text.iter().try_for_each(|(name, text)| archive.file(name, text.as_bytes()))
    };
    let mut archive = Archive::new(BufWriter::new(file));
    write(&mut archive).map_err(GuestError::file(&layer))?;
    let file = archive.finish().and_then(|buffer| buffer.into_inner().map_err(Into::into));
    let file = file.map_err(GuestError::file(&layer))?;
    file.persist(&layer).map_err(|error| GuestError::file(&layer)(error.error))?;
    Ok(layer)
}

/// Writes the initramfs of one guest: the layer, and its own files.
pub(crate) fn write(
    path: &Path,
    layer: &Path,
    files: &[(String, Vec<u8>)],
) -> Result<(), GuestError> {
    let write = || -> io::Result<()> {
        let mut output = File::create(path)?;
        io::copy(&mut File::open(layer)?, &mut output)?;
        let mut archive = Archive::new(BufWriter::new(output));
        archive.file("init", INIT.as_bytes())?;
        for folder in ["proc", "sys", "tmp", "run", "mnt", "root", "job"] {
            archive.folder(folder)?;
        }
        files.iter().try_for_each(|(name, bytes)| archive.file(name, bytes))?;
        archive.finish()?.flush()
    };
    write().map_err(GuestError::file(path))
}

/// The names under which busybox is called.
fn applets() -> io::Result<Vec<String>> {
    let output = Command::new("busybox").arg("--list").output()?;
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names.lines().filter(|name| *name != "busybox").map(str::to_owned).collect())
}

/// A number that stands for contents: FNV-1a (Fowler, Noll, Vo).
struct Key(u64);

impl Key {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        // The length first, so that neighbours do not run together.
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
