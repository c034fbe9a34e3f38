//! Copies whose other end is no ordinary file.

#[path = "../../service/ninep/tests/support/liar.rs"]
mod liar;
mod support;

use outboard_ninep::wire::{Reply, Request, Stat};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;
use support::{PROGRAM, Server, fed, good, image, noise};

#[test]
fn what_has_no_length_is_copied_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 1 << 20);
    let server = Server::start(&[&disk]);
    for len in [0, 1, 700_000, 1 << 20] {
        let data = noise(len as u64, len);
        let mut cp = server.verb(&["--json", "cp", "--yes", "/dev/stdin", ":sdC0/data"]);
        let output = fed(&mut cp, &data);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!("\"bytes\":{len},")), "{output:?}");
        assert!(std::fs::read(&disk).unwrap()[..len] == data);
    }
    // A file that says that it is empty.
    let version = std::fs::read("/proc/version").unwrap();
    server.run(&["cp", "--yes", "/proc/version", ":sdC0/data"]);
    assert_eq!(std::fs::read(&disk).unwrap()[..version.len()], version);
    let asked = server.fails(&["cp", "/dev/zero", ":sdC0/data"], 1);
    assert!(asked.contains("overwrite up to all 1 MiB of sdC0/data"), "{asked}");
}

#[test]
fn what_never_ends_fills_the_target_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 3 << 20);
    std::fs::write(&disk, noise(1, 3 << 20)).unwrap();
    let server = Server::start(&[&disk]);
    server.run(&["write", "sdC0/ctl", "part middle 2048 4097"]);
    let error = server.fails(&["cp", "--yes", "/dev/zero", ":sdC0/part/middle"], 1);
    assert!(error.contains("is full: 1049088 bytes were written, and /dev/zero goes"), "{error}");
    let mut expected = noise(1, 3 << 20);
    expected[2048 * 512..4097 * 512].fill(0);
    assert!(std::fs::read(&disk).unwrap() == expected);
}

#[test]
fn pipes_and_devices_take_what_is_copied_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 4 << 20);
    // With zeros in it, which are no holes in a pipe.
    let mut data = noise(1, 4 << 20);
    data[1 << 20..3 << 20].fill(0);
    std::fs::write(&disk, &data).unwrap();
    let server = Server::start(&[&disk]);
    let output = server.verb(&["cp", ":sdC0/data", "/dev/stdout"]).output().unwrap();
    assert!(output.status.success() && output.stdout == data, "{:?}", output.stderr);
    server.run(&["cp", ":sdC0/data", "/dev/null"]);
    let error = server.fails(&["cp", ":sdC0/data", "/dev/full"], 1);
    assert!(error.contains("/dev/full: No space left on device"), "{error}");
}

#[test]
fn folders_are_not_copied() {
    let server = Server::start(&["null:1048576"]);
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().to_str().unwrap();
    let file = image(folder.path(), "file", 1);
    for (from, to) in [(here, ":sdC0/data"), (&file, ":sdC0/part"), (":sdC0/ctl", ":sdC0")] {
        let error = server.fails(&["cp", "--yes", from, to], 1);
        assert!(error.contains("is a folder"), "{error}");
    }
}

#[test]
fn commands_need_no_leave_and_a_partition_called_ctl_does() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&["null:1048576"]);
    let commands = folder.path().join("commands");
    // Longer than what the ctl files say.
    std::fs::write(&commands, format!("flush{}", " ".repeat(2000))).unwrap();
    let commands = commands.to_str().unwrap();
    server.run(&["write", "sdC0/ctl", "part ctl 0 8"]);
    for control in [":ctl", ":/./ctl", ":sdC0/ctl", ":sdC0//./ctl"] {
        server.run(&["cp", commands, control]);
    }
    for partition in [":sdC0/part/ctl", ":./sdC0/part//ctl", ":sdC0/part/./ctl/"] {
        assert!(server.fails(&["cp", commands, partition], 1).contains("add --yes"), "{partition}");
    }
}

/// Serves one client a file that it calls what it likes, whatever it is asked for.
fn serve_misnamed(listener: &UnixListener, name: &str) {
    liar::serve(listener.accept().unwrap().0, |request| misnamed(request, name));
}

fn misnamed<'a>(request: &Request<'_>, name: &'a str) -> Reply<'a> {
    match request {
        Request::Read { offset: 0, .. } => Reply::Read { data: b"evil" },
        Request::Read { .. } => Reply::Read { data: b"" },
        Request::Stat { .. } => {
            Reply::Stat { stat: Stat { mode: 0o600, length: 4, name, ..Stat::UNCHANGED } }
        }
        request => panic!("{request:?}"),
    }
}

#[test]
fn the_user_says_what_a_copy_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let (target, socket) = (folder.path().join("target"), folder.path().join("9p"));
    std::fs::create_dir(&target).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    let listener = UnixListener::bind(&socket).unwrap();
    for name in ["../elsewhere", elsewhere.to_str().unwrap(), ".."] {
        thread::scope(|scope| {
            scope.spawn(|| serve_misnamed(&listener, name));
            let mut cp = Command::new(PROGRAM);
            cp.args(["cp", ":sdC0/./data/"]).arg(&target);
            good(cp.arg("--at").arg(format!("unix:{}", socket.display())));
        });
        assert!(!elsewhere.exists());
        assert_eq!(std::fs::read(target.join("data")).unwrap(), b"evil");
        std::fs::remove_file(target.join("data")).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| serve_misnamed(&listener, "name"));
        let mut cp = Command::new(PROGRAM);
        cp.args(["cp", ":sdC0/.."]).arg(&target);
        let output = cp.arg("--at").arg(format!("unix:{}", socket.display())).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("what to call the copy"));
    });
}
