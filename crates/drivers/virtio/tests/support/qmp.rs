//! QEMU's monitor, for what happens to a machine from outside.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use tempfile::TempDir;

/// Where QEMU will find the monitor's other end.
pub struct MonitorSocket {
    listener: UnixListener,
    folder: TempDir,
}

impl MonitorSocket {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("qmp")).unwrap();
        Self { listener, folder }
    }

    /// What QEMU has to be told.
    pub fn arguments(&self) -> [String; 2] {
        ["-qmp".into(), format!("unix:{}", self.folder.path().join("qmp").display())]
    }

    /// The monitor of a QEMU that was started with these arguments.
    pub fn accept(self) -> Monitor {
        let (stream, _) = self.listener.accept().unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        let mut monitor = Monitor { stream, reader };
        monitor.line();
        monitor.run("qmp_capabilities", "{}");
        monitor
    }
}

pub struct Monitor {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Monitor {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line
    }

    /// Runs a command, and waits until it is done.
    pub fn run(&mut self, command: &str, arguments: &str) {
        writeln!(&self.stream, r#"{{"execute": "{command}", "arguments": {arguments}}}"#).unwrap();
        loop {
            let line = self.line();
            assert!(!line.contains("\"error\""), "{command}: {line}");
            if line.contains("\"return\"") {
                return;
            }
        }
    }
}
