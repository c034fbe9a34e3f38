//! Virtual machines, and other front ends, on disks of ours.

mod support;

use outboard_guest::{Device, Guest};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Exporter, PROGRAM, Server, fails, image, noise};

const SCRIPT: &str = include_str!("vhost.sh");
const BYTES: u64 = 48 << 20;
/// Where the guest begins to verify: what is there tells that it has begun.
const VERIFIED_FROM: u64 = 8 << 20;

/// Waits until the guest has begun to verify.
fn wait_for_verification(disk: &Path) {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let changes = inotify::init(flags).unwrap();
    inotify::add_watch(&changes, disk, inotify::WatchFlags::MODIFY).unwrap();
    let file = std::fs::File::open(disk).unwrap();
    let end = Instant::now() + Duration::from_secs(280);
    let mut bytes = vec![0; 1 << 20];
    loop {
        for part in 0..24 {
            file.read_exact_at(&mut bytes, VERIFIED_FROM + (part << 20)).unwrap();
            if bytes.iter().any(|byte| *byte != 0) {
                return;
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "the guest does not verify");
        let mut change = [PollFd::new(&changes, PollFlags::IN)];
        poll(&mut change, Some(&left.try_into().unwrap())).unwrap();
        // What happened is seen in the image itself; these only say that something did.
        let _ = rustix::io::read(&changes, &mut [0; 4096]);
    }
}

#[test]
fn a_guest_uses_a_disk_of_ours_and_goes_on_when_the_server_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), "disk", BYTES);
    let disk = format!("{path},serial=VHOST1");
    let mut exporter = Exporter::start(&["--sim", &disk], folder.path());
    let socket = exporter.socket.clone();
    // It does not use the program.
    let guest = Guest::new("vhost")
        .device(Device::VhostUserBlk { socket, packed: true, queues: 2 })
        .program("/bin/busybox")
        .tool("fio")
        .without_iommu()
        .memory_mib(512)
        .processors(2)
        .variable("SERIAL", "VHOST1")
        .variable("SIZE", &BYTES.to_string())
        .variable("QUEUES", "2");
    let running = std::thread::spawn(move || guest.run(SCRIPT));
    wait_for_verification(Path::new(&path));
    exporter.child.kill().unwrap();
    exporter.child.wait().unwrap();
    exporter = Exporter::start(&["--sim", &disk], folder.path());
    let report = running.join().unwrap().unwrap();
    assert_eq!(report.code, 0, "{report}");
    assert!(report.stdout.ends_with("done\n"), "{report}");
    assert_eq!(exporter.end(), Some(0));
}

/// A second server, whose disk is the first one's.
fn through(exporter: &Exporter, options: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("9p").display());
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--attach-vhost-user"]);
    command.arg(format!("{}{options}", exporter.socket.display()));
    Server::launch(command, &[&address], folder)
}

#[test]
fn our_own_front_end_reads_and_writes_the_disk_of_a_lab_through_a_back_end_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 8 << 20);
    for options in ["", ",queues=1"] {
        let mut exporter = Exporter::start(&["--lab", &disk], folder.path());
        let mut server = through(&exporter, options);
        let content = noise(options.len() as u64 + 1, 1_000_001);
        server.write("sdC0/data", 777, &content).unwrap();
        assert!(server.read("sdC0/data", 777, 1_000_001).unwrap() == content);
        assert_eq!(server.end(rustix::process::Signal::TERM), Some(0), "{}", server.errors());
        // It has let go of the disk, and another one has it.
        let mut server = through(&exporter, options);
        assert!(server.read("sdC0/data", 777, 1_000_001).unwrap() == content);
        assert_eq!(server.end(rustix::process::Signal::TERM), Some(0));
        assert_eq!(exporter.end(), Some(0));
        let written = std::fs::read(&disk).unwrap();
        assert!(written[777..777 + content.len()] == content);
    }
}

#[test]
fn a_disk_of_memory_is_read_and_written_through_both_ends_and_begins_with_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let mut exporter = Exporter::start(&["--ram", "8M"], folder.path());
    let mut server = through(&exporter, "");
    assert!(server.read("sdC0/data", 0, 8 << 20).unwrap().iter().all(|byte| *byte == 0));
    let content = noise(5, 1_000_001);
    server.write("sdC0/data", 777, &content).unwrap();
    assert_eq!(server.end(rustix::process::Signal::TERM), Some(0), "{}", server.errors());
    let server = through(&exporter, ",queues=1");
    assert!(server.read("sdC0/data", 777, 1_000_001).unwrap() == content);
    drop(server);
    assert_eq!(exporter.end(), Some(0));
    let odd = fails(&["serve", "--ram", "1000"], 1);
    assert!(odd.contains("a multiple of 4096 bytes"), "{odd}");
}

#[test]
fn a_front_end_of_ours_goes_on_when_the_back_end_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 8 << 20);
    let mut exporter = Exporter::start(&["--sim", &disk], folder.path());
    let server = through(&exporter, "");
    let parts = 40;
    for part in 0..parts {
        let content = noise(part, 65_536);
        if part % 13 == 12 {
            exporter.child.kill().unwrap();
            exporter.child.wait().unwrap();
            exporter = Exporter::start(&["--sim", &disk], folder.path());
        }
        server.write("sdC0/data", part * 65_536, &content).unwrap();
        assert!(server.read("sdC0/data", part * 65_536, 65_536).unwrap() == content, "{part}");
    }
    for part in 0..parts {
        let content = server.read("sdC0/data", part * 65_536, 65_536).unwrap();
        assert!(content == noise(part, 65_536), "{part}");
    }
}

#[test]
fn sockets_are_their_owners_and_go_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let disks = ["a", "b"].map(|name| image(folder.path(), name, 1 << 20));
    let sockets = folder.path().join("sockets");
    std::fs::create_dir(&sockets).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["--json", "serve", "--sim", &disks[0], "--sim", &disks[1], "--vhost-user"]);
    command.arg(&sockets).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let exports: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(&line).unwrap())
        .filter(|line: &serde_json::Value| line["kind"] == "export")
        .take(2)
        .collect();
    for (number, export) in exports.iter().enumerate() {
        let name = format!("sdC{number}");
        let socket = sockets.join(format!("{name}.sock"));
        assert_eq!(export["disk"], name);
        assert_eq!(export["socket"], socket.to_str().unwrap());
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&socket).unwrap();
    }
    let other = fails(
        &["serve", "--sim", &format!("{},ro", disks[0]), "--vhost-user", sockets.to_str().unwrap()],
        1,
    );
    assert!(other.contains("is in use by another") || other.contains("Stop"), "{other}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(sockets.read_dir().unwrap().count(), 0);
}

#[test]
fn folders_that_cannot_be_used_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 1 << 20);
    let serve = |folder: &Path| {
        let folder = folder.to_str().unwrap();
        fails(&["serve", "--sim", &disk, "--vhost-user", folder], 1)
    };
    let missing = serve(&folder.path().join("missing"));
    assert!(missing.contains("mkdir -p"), "{missing}");
    let file = serve(Path::new(&disk));
    assert!(file.contains("is not a folder"), "{file}");
    std::fs::write(folder.path().join("sdC0.sock"), "something").unwrap();
    let taken = serve(folder.path());
    assert!(taken.contains("is not a socket"), "{taken}");
}
