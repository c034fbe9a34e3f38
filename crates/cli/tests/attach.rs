//! Other processes' disks: `--attach-vhost-user`, on QEMU's storage daemon.

mod support;

use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use support::{PROGRAM, Server, fails, fed, image, noise};

/// A daemon that exports an image, until it is killed.
struct Daemon {
    child: Child,
    _input: ChildStdin,
}

impl Daemon {
    fn start(image: &str, socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let mut command = Command::new("qemu-storage-daemon");
        command.args(["--blockdev", &format!("file,node-name=disk,filename={image}")]);
        let export = "vhost-user-blk,id=disk,node-name=disk,writable=on,addr.type=unix,addr.path=";
        command.args(["--export", &format!("{export}{},num-queues=2", socket.display())]);
        // Options are carried out in their order: once this one says hello, all is ready.
        command.args(["--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("QMP"), "{line}");
        Self { child, _input: input }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_disk_of_another_process_is_served_and_its_death_is_waited_out() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 4 << 20);
    let back_end = folder.path().join("back-end");
    let daemon = Daemon::start(&disk, &back_end);
    let address = format!("unix:{}", folder.path().join("9p").display());
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--attach-vhost-user", back_end.to_str().unwrap()]);
    let mut server = Server::launch(command, &[&address], folder);
    assert!(server.run(&["cat", "sdC0/ctl"]).contains("geometry 8192 512"));
    let (before, after) = (noise(1, 300_000), noise(2, 200_000));
    let put = |offset: &str, bytes: &[u8]| {
        let output = fed(&mut server.verb(&["write", "--offset", offset, "sdC0/data"]), bytes);
        assert!(output.status.success(), "{output:?}");
    };
    put("512", &before);
    drop(daemon);
    let daemon = std::thread::scope(|scope| {
        // It may begin before the next one is there, or after.
        let write = scope.spawn(|| put("1M", &after));
        let daemon = Daemon::start(&disk, &back_end);
        write.join().unwrap();
        daemon
    });
    assert!(server.read("sdC0/data", 512, 300_000).unwrap() == before);
    assert!(server.read("sdC0/data", 1 << 20, 200_000).unwrap() == after);
    assert_eq!(server.end(Signal::TERM), Some(0), "{}", server.errors());
    drop(daemon);
    let content = std::fs::read(&disk).unwrap();
    assert!(content[512..][..300_000] == before && content[1 << 20..][..200_000] == after);
}

#[test]
fn what_cannot_be_attached_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = folder.path().join("nobody");
    let nobody = nobody.to_str().unwrap();
    let at = format!("unix:{}", folder.path().join("9p").display());
    let error = fails(&["serve", "--attach-vhost-user", nobody, "--9p", &at], 1);
    assert!(error.contains("Start it first"), "{error}");
    let error = fails(&["serve", "--attach-vhost-user", &format!("{nobody},queues=0")], 2);
    assert!(error.contains("SOCKET[,ro][,queues=N]"), "{error}");
    let error = fails(&["bench", "--attach-vhost-user", nobody, "--pattern", "write"], 1);
    assert!(error.contains("--yes"), "{error}");
}
