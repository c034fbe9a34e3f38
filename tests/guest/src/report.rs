//! What came of a guest.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// What a script did. Its display shows everything that a failed assertion should.
#[derive(Debug)]
pub struct Report {
    /// The script's exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it printed as errors.
    pub stderr: String,
    /// The kernel's messages, whole.
    pub kernel_log: String,
    /// From QEMU's start until the script began.
    pub boot_time: Duration,
    /// From QEMU's start to its end.
    pub time: Duration,
    pub(crate) folder: TempDir,
}

impl Report {
    /// The file that the script left as `$RESULTS/name`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("out/files").join(name)
    }

    /// The text that the script left as `$RESULTS/name`, if it did.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        let bytes = std::fs::read(self.file(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the script ended with code {} after {:?}", self.code, self.time)?;
        for (name, text) in [
            ("standard output", &self.stdout),
            ("standard error", &self.stderr),
            ("the kernel's messages", &self.kernel_log),
        ] {
            writeln!(f, "--- {name}\n{}", last_lines(text))?;
        }
        Ok(())
    }
}

/// As much of the end of a text as one wants to read.
pub(crate) fn last_lines(text: &str) -> String {
    const LINES: usize = 60;
    let count = text.lines().count();
    text.lines().skip(count.saturating_sub(LINES)).flat_map(|line| [line, "\n"]).collect()
}
