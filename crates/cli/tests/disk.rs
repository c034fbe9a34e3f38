//! `outboard disk` as its users run it, against QEMU's disks.

mod support;

use rustix::fs::OFlags;
use rustix::pty;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use support::{PROGRAM, Server, good, image, noise, tool};

const SERIAL: &str = "QM00001";

fn json(text: &str) -> Value {
    let value: Value = serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(value["schema"], 1);
    value
}

/// A disk of 16 MiB of noise, with a partition of 4 MiB.
fn partitioned(folder: &Path) -> String {
    let path = image(folder, "disk", 16 << 20);
    std::fs::write(&path, noise(1, 16 << 20)).unwrap();
    good(tool("sgdisk").arg("--zap-all").arg(&path));
    good(tool("sgdisk").args(["-o", "-n", "1:2048:+4M"]).arg(&path));
    path
}

#[test]
fn info_says_what_the_disk_is_and_how_it_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[&partitioned(folder.path())]);
    let text = server.run(&["disk", "info", "sdC0"]);
    for line in ["model", "serial", "size", "status", "look ahead", "security", "generation"] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line}: {text}");
    }
    assert!(text.contains("16 MiB: 32768 sectors of 512 bytes"), "{text}");
    let info = json(&server.run(&["--json", "disk", "info", "sdC0"]));
    assert_eq!((&info["kind"], &info["serial"]), (&"disk-info".into(), &SERIAL.into()));
    assert_eq!((&info["sectors"], &info["parts"][1]), (&32768.into(), &"1 2048 10240".into()));
    let missing = server.fails(&["disk", "info", "sdC7"], 4);
    assert!(missing.contains("sdC7"), "{missing}");
    assert!(server.fails(&["disk", "info", "sdC0/part"], 1).contains("is not a disk"));
}

#[test]
fn trim_frees_what_it_is_told_of_and_only_with_the_serial_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = partitioned(folder.path());
    let server = Server::start(&[&path]);
    let blocks = || Path::new(&path).metadata().unwrap().blocks();
    let before = blocks();
    let refused = server.fails(&["disk", "trim", "sdC0/part/1"], 1);
    assert!(refused.contains("--force=SERIAL") && refused.contains("8192 sectors"), "{refused}");
    let other = server.fails(&["disk", "trim", "sdC0/part/1", "--force=QM00002"], 1);
    assert!(other.contains("nothing was done"), "{other}");
    assert_eq!(blocks(), before);
    let force = format!("--force={SERIAL}");
    let beyond = server
        .fails(&["disk", "trim", "sdC0/part/1", "--start", "8000", "--count", "193", &force], 1);
    assert!(beyond.contains("has 8192 sectors"), "{beyond}");
    let done = json(&server.run(&["--json", "disk", "trim", "sdC0/part/1", &force]));
    assert_eq!(done["command"], "trim 2048 8192");
    server.run(&["disk", "flush", "sdC0"]);
    assert!(blocks() + 7000 < before);
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(
        whole[10240 * 512..],
        noise(1, 16 << 20)[10240 * 512..(16 << 20) - 33 * 512]
            .iter()
            .chain(&whole[(16 << 20) - 33 * 512..])
            .copied()
            .collect::<Vec<_>>(),
        "behind it"
    );
}

#[test]
fn what_the_disk_cannot_do_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[&image(folder.path(), "disk", 1 << 20)]);
    for arguments in [
        &["disk", "eject", "sdC0"][..],
        &["disk", "load", "sdC0"],
        &["disk", "locate", "sdC0", "on"],
    ] {
        let error = server.fails(arguments, 4);
        assert!(error.contains("not support"), "{arguments:?}: {error}");
    }
}

#[test]
fn passwords_come_from_files_and_never_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[&image(folder.path(), "disk", 1 << 20)]);
    let security = json(&server.run(&["--json", "disk", "security", "status", "sdC0"]));
    assert_eq!((&security["kind"], &security["locked"]), (&"security".into(), &false.into()));
    if security["supported"] == false {
        // Nobody is asked for a password in vain.
        let error = server.fails(&["disk", "security", "unlock", "sdC0"], 1);
        assert!(error.contains("does not support passwords"), "{error}");
    }
    let mut unlock = server.verb(&["disk", "security", "unlock", "sdC0", "secret"]);
    assert_eq!(unlock.output().unwrap().status.code(), Some(2));
    let help = good(tool(PROGRAM).args(["disk", "security", "erase", "--help"]));
    assert!(help.contains("--password-file") && help.contains("--force"), "{help}");
}

#[test]
fn commands_to_ctl_say_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[&image(folder.path(), "disk", 1 << 20)]);
    for (command, said) in [
        ("apm 300", "254 is fastest"),
        ("smart maybe", "none of on, off"),
        ("security erase text:x", "serial number"),
        ("security erase text:x QM00002", SERIAL),
        ("unlock x", "text:WORD"),
        ("frobnicate", "selftest short|long"),
    ] {
        let error = server.fails(&["write", "sdC0/ctl", command], 4);
        assert!(error.contains(said), "{command}: {error}");
    }
    server.read("sdC0/data", 0, 512).unwrap();
    let stats = server.run(&["cat", "sdC0/stats"]);
    assert!(stats.contains("errors-media 0\n") && stats.contains("read-us-p99 "), "{stats}");
}

/// What the program says at a terminal where `typed` is typed, and its exit code.
fn at_a_terminal(server: &Server, arguments: &[&str], typed: &[u8]) -> (String, Option<i32>) {
    let ours = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&ours).unwrap();
    pty::unlockpt(&ours).unwrap();
    let name = pty::ptsname(&ours, Vec::new()).unwrap();
    let open = || rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, rustix::fs::Mode::empty());
    let theirs: File = open().unwrap().into();
    let mut command = server.verb(arguments);
    command.stdin(Stdio::from(theirs.try_clone().unwrap())).stderr(Stdio::from(theirs));
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    drop(command);
    let mut terminal = File::from(ours);
    let mut said = Vec::new();
    // The prompt first; then what is typed is read by whoever asks.
    let mut chunk = [0; 256];
    while !said.ends_with(b": ") {
        let count = terminal.read(&mut chunk).unwrap();
        said.extend_from_slice(&chunk[..count]);
    }
    terminal.write_all(typed).unwrap();
    // Once the program has ended, reading fails.
    while let Ok(count @ 1..) = terminal.read(&mut chunk) {
        said.extend_from_slice(&chunk[..count]);
    }
    (String::from_utf8_lossy(&said).into_owned(), child.wait().unwrap().code())
}

#[test]
fn at_a_terminal_the_serial_number_has_to_be_typed() {
    let folder = tempfile::tempdir().unwrap();
    let path = partitioned(folder.path());
    let server = Server::start(&[&path]);
    let trim = ["disk", "trim", "sdC0/part/1"];
    let before = std::fs::read(&path).unwrap();
    let (said, code) = at_a_terminal(&server, &trim, b"sdC0\n");
    assert!(said.contains("lose 8192 sectors") && said.contains("nothing was done"), "{said}");
    assert_eq!((code, std::fs::read(&path).unwrap() == before), (Some(1), true));
    let (_, code) = at_a_terminal(&server, &trim, b"QM00001\n");
    assert_eq!((code, std::fs::read(&path).unwrap() == before), (Some(0), false));
}

#[test]
fn health_is_printed_and_settings_are_made_or_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[&image(folder.path(), "disk", 1 << 20)]);
    let smart = json(&server.run(&["--json", "disk", "smart", "sdC0"]));
    assert_eq!((&smart["kind"], &smart["verdict"]), (&"smart".into(), &"passed".into()));
    assert!(!smart["attributes"].as_array().unwrap().is_empty(), "{smart}");
    assert!(server.run(&["disk", "smart", "sdC0"]).contains("reallocated"));
    let result = server.run(&["disk", "selftest", "sdC0", "short", "--wait"]);
    assert!(result.contains("self-test: short, passed"), "{result}");
    server.run(&["disk", "cache", "sdC0", "off"]);
    assert_eq!(json(&server.run(&["--json", "disk", "info", "sdC0"]))["cache"], "off");
    server.run(&["disk", "standby", "sdC0"]);
    let error = server.fails(&["disk", "lookahead", "sdC0", "off"], 4);
    assert!(error.contains("not support"), "{error}");
    // Whatever the disk was told, it serves.
    server.write("sdC0/data", 0, b"hello").unwrap();
    assert_eq!(server.read("sdC0/data", 0, 5).unwrap(), b"hello");
}
