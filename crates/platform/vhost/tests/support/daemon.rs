//! QEMU's storage daemon, whose exports are vhost-user disks.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// A daemon that exports one image.
pub struct Daemon {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// An image, and where it is exported.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new(content: &[u8]) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(place.image(), content).unwrap();
        place
    }

    pub fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub fn content(&self) -> Vec<u8> {
        std::fs::read(self.image()).unwrap()
    }

    /// Exports the image, with more options of the export.
    pub fn export(&self, options: &str) -> Daemon {
        Daemon::start(&self.image(), &self.socket(), options)
    }
}

impl Daemon {
    /// Starts one; it listens when this returns.
    pub fn start(image: &Path, socket: &Path, options: &str) -> Self {
        // The socket of one that was killed is still there.
        let _ = std::fs::remove_file(socket);
        let (image, socket) = (image.display(), socket.display());
        let mut command = Command::new("qemu-storage-daemon");
        command.arg("--blockdev");
        command.arg(format!("file,node-name=disk,filename={image},discard=unmap"));
        command.arg("--export");
        command.arg(format!(
            "vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={socket}{options}"
        ));
        // Options are carried out in their order: once this one says hello, all is ready.
        command.args(["--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut daemon = Self { child, input, output };
        assert!(daemon.line()["QMP"].is_object());
        daemon.execute("qmp_capabilities", json!({}));
        daemon
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// Has a command carried out.
    pub fn execute(&mut self, command: &str, arguments: Value) {
        writeln!(self.input, "{}", json!({ "execute": command, "arguments": arguments })).unwrap();
        loop {
            let answer = self.line();
            if !answer["return"].is_null() {
                return;
            }
            assert!(answer["error"].is_null(), "{command}: {answer}");
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
