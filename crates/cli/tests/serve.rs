//! A server's life: start, ready, end, however it comes.

mod support;

use rustix::process::{Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use support::{PROGRAM, Server, fails, image, is_running, noise, wait_for_end};

#[test]
fn it_says_where_it_is_ready_and_ends_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let folder = tempfile::tempdir().unwrap();
        let disk = image(folder.path(), "disk", 1 << 20);
        let socket = folder.path().join("socket");
        let unix = format!("unix:{}", socket.display());
        let mut server = Server::start_at(&[&disk], &[&unix, "tcp:127.0.0.1:0"], folder);
        let mode = socket.metadata().unwrap();
        assert!(mode.file_type().is_socket());
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        let tcp = server.addresses[1].to_string();
        assert!(tcp.starts_with("tcp:127.0.0.1:") && !tcp.ends_with(":0"), "{tcp}");
        for address in server.addresses.clone() {
            let listed =
                Command::new(PROGRAM).args(["ls", "--at", &address.to_string()]).output().unwrap();
            assert!(String::from_utf8_lossy(&listed.stdout).contains("sdC0/"), "{address}");
        }
        let qemu = server.qemu();
        assert!(is_running(qemu));
        if signal == Signal::HUP {
            // The kernel and the shell both say so; that is not twice.
            kill_process(server.pid(), signal).unwrap();
        }
        assert_eq!(server.end(signal), Some(0), "{}", server.errors());
        assert!(!is_running(qemu));
        assert!(!socket.exists());
        let left: Vec<_> = server.folder.path().read_dir().unwrap().collect();
        assert_eq!(left.len(), 2, "the disk and our notes: {left:?}");
    }
}

#[test]
fn a_server_that_is_to_outlive_its_terminal_does() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("9p").display());
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" serve --lab null:1048576 --9p \"$1\""]);
    command.args([PROGRAM, &address]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    kill_process(pid, Signal::HUP).unwrap();
    let listed = support::good(Command::new(PROGRAM).args(["ls", "--at", &address]));
    assert!(listed.contains("sdC0"));
    kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn it_reports_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 1 << 20);
    let socket = format!("unix:{}", folder.path().join("9p").display());
    let mut command = Command::new(PROGRAM);
    command.args(["--json", "serve", "--lab", &disk, "--9p", &socket]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(lines).map(|line| line.unwrap());
    let disk: serde_json::Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!((&disk["schema"], &disk["kind"]), (&1.into(), &"disk".into()));
    assert_eq!((&disk["name"], &disk["bytes"]), (&"sdC0".into(), &1_048_576.into()));
    let ready: serde_json::Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!((&ready["kind"], &ready["address"]), (&"ready".into(), &socket.into()));
    kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_log_that_nobody_reads_does_not_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("9p");
    let address = format!("unix:{}", socket.display());
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--lab", "null:1048576", "--9p", &address]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready "), "{line}");
    // A message of no size: its sender is disconnected, which is said in the log.
    let mut client = UnixStream::connect(&socket).unwrap();
    client.write_all(&[0; 7]).unwrap();
    assert_eq!(client.read(&mut [0; 100]).unwrap(), 0);
    let listed = support::good(Command::new(PROGRAM).args(["ls", "--at", &address]));
    assert!(listed.contains("sdC0"));
    kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_was_acknowledged_before_the_end_is_in_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 8 << 20);
    let mut server = Server::start(&[&disk]);
    let mut client = server.client();
    let writer = std::thread::spawn(move || {
        use outboard_ninep::client::{Mode, Transferred};
        let fid = client.walk("sdC0/data").unwrap();
        client.open(&fid, Mode::Write).unwrap();
        let mut acknowledged = Vec::new();
        let block = |number: u64| noise(number, 4096);
        for number in 0..2048u64 {
            if client.start_write(0, &fid, number * 4096, &block(number)).is_err() {
                break;
            }
            match client.finish(|_, answer| matches!(answer, Ok(Transferred::Written(4096)))) {
                Ok(true) => acknowledged.push(number),
                _ => break,
            }
        }
        acknowledged
    });
    // End it in the middle of that.
    let half = || {
        let stats = server.run(&["cat", "stats"]);
        let line = stats.lines().find(|line| line.contains("file-writes")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() > 200
    };
    while !half() {}
    assert_eq!(server.end(Signal::TERM), Some(0), "{}", server.errors());
    let acknowledged = writer.join().unwrap();
    assert!(acknowledged.len() > 200);
    let content = std::fs::read(&disk).unwrap();
    for number in acknowledged {
        let at = number as usize * 4096;
        assert_eq!(content[at..at + 4096], noise(number, 4096), "block {number}");
    }
}

#[test]
fn virtio_disks_are_served_whatever_they_are_attached_to() {
    let folder = tempfile::tempdir().unwrap();
    let content = noise(9, 100_000);
    for (number, bus) in [
        "virtio-transitional,queues=4",
        "virtio-legacy",
        "virtio-mmio,packed,queues=4",
        "virtio-mmio-legacy",
    ]
    .into_iter()
    .enumerate()
    {
        let disk = image(folder.path(), &format!("disk{number}"), 1 << 20);
        let [first, second] = [format!("{disk},bus={bus}"), format!("null:4096,bus={bus}")];
        let mut server = Server::start(&[&first, &second]);
        server.write("sdC0/data", 513, &content).unwrap();
        assert!(server.read("sdC0/data", 513, 100_000).unwrap() == content, "{bus}");
        assert_eq!(server.read("sdC1/data", 0, 9).unwrap(), [0; 9]);
        assert_eq!(server.end(Signal::TERM), Some(0), "{}", server.errors());
        assert!(std::fs::read(&disk).unwrap()[513..][..content.len()] == content, "{bus}");
    }
    let mixed = ["serve", "--lab", "null:512,bus=virtio-mmio", "--lab", "null:512"];
    let refused = fails(&mixed, 1);
    assert!(refused.contains("with a second server"), "{refused}");
}

#[test]
fn killing_it_leaves_no_qemu_behind_and_the_next_server_starts() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 1 << 20);
    let socket = folder.path().join("9p");
    let address = format!("unix:{}", socket.display());
    let mut server = Server::start_at(&[&disk], &[&address], folder);
    let qemu = server.qemu();
    server.end(Signal::KILL);
    wait_for_end(qemu);
    assert!(socket.exists(), "nobody was left to remove it");
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap());
    let mut server = Server::start_at(&[&disk], &[&address], folder);
    assert!(server.run(&["ls"]).contains("sdC0"));
    assert_eq!(server.end(Signal::TERM), Some(0));
}

#[test]
fn the_end_of_qemu_ends_the_server_with_a_reason() {
    let mut server = Server::start(&["null:1048576"]);
    let mut client = server.client();
    let fid = client.walk("sdC0/data").unwrap();
    kill_process(server.qemu(), Signal::KILL).unwrap();
    let status = server.child.wait().unwrap();
    assert_eq!(status.code(), Some(5));
    assert!(server.errors().contains("QEMU ended (signal: 9"), "{}", server.errors());
    assert!(client.stat(&fid).is_err());
}

#[test]
fn a_qemu_that_stops_answering_ends_the_server_with_a_reason() {
    let mut server = Server::start(&["null:1048576"]);
    let qemu = server.qemu();
    // The server may have something to ask of QEMU before it sees a client that comes later.
    let mut client = server.client();
    kill_process(qemu, Signal::STOP).unwrap();
    let reading = std::thread::spawn(move || {
        let fid = client.walk("sdC0/data")?;
        client.open(&fid, outboard_ninep::client::Mode::Read)?;
        client.read_range(&fid, 0, 512, |_| Ok::<_, outboard_ninep::client::ClientError>(()))
    });
    let status = server.child.wait().unwrap();
    assert_eq!(status.code(), Some(5));
    assert!(server.errors().contains("has not answered"), "{}", server.errors());
    assert!(reading.join().unwrap().is_err());
    assert!(!is_running(qemu));
}

#[test]
fn addresses_that_are_taken_or_wrong_are_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("unix:{}", folder.path().join(name).display());
    let held = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", held.path().join("9p").display());
    let server = Server::start_at(&["null:1048576"], &[&socket, "tcp:127.0.0.1:0"], held);
    let serve = |address: &str| fails(&["serve", "--lab", "null:1048576", "--9p", address], 1);
    for address in &server.addresses {
        let error = serve(&address.to_string());
        assert!(error.contains("in use by another server"), "{error}");
    }
    assert!(server.run(&["ls"]).contains("sdC0"), "the first server goes on");
    std::fs::write(folder.path().join("file"), "precious").unwrap();
    assert!(serve(&path("file")).contains("is not a socket; it was left alone"));
    assert_eq!(std::fs::read_to_string(folder.path().join("file")).unwrap(), "precious");
    assert!(serve(&path("missing/9p")).contains("mkdir -p"));
    assert!(serve(&path(&"x".repeat(120))).contains("too long for a socket"));
    let error = fails(&["serve", "--lab", "null:512", "--9p", "somewhere"], 2);
    assert!(error.contains("write unix:PATH or tcp:HOST:PORT"), "{error}");
}

#[test]
fn the_socket_of_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let address = format!("unix:{}", socket.display());
    let refused = || {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--lab", "null:1048576", "--9p", &address]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // One that goes on would say that it is ready.
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let _ = child.kill();
        let errors = child.wait_with_output().unwrap().stderr;
        line.is_empty() && String::from_utf8_lossy(&errors).contains("is in use by another")
    };
    let stream = UnixListener::bind(&socket).unwrap();
    assert!(refused());
    UnixStream::connect(&socket).expect("it is still reached there");
    drop(stream);
    std::fs::remove_file(&socket).unwrap();
    let datagrams = UnixDatagram::bind(&socket).unwrap();
    assert!(refused());
    UnixDatagram::unbound().unwrap().send_to(b"hello", &socket).unwrap();
    drop(datagrams);
    let left: Vec<_> = folder.path().read_dir().unwrap().collect();
    assert_eq!(left.len(), 1, "the socket alone: {left:?}");
}

#[test]
fn a_socket_that_nobody_listens_at_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("9p");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let address = format!("unix:{}", socket.display());
    let server = Server::start_at(&["null:1048576"], &[&address], folder);
    assert!(server.run(&["ls"]).contains("sdC0"));
}

#[test]
fn images_that_cannot_be_used_are_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: u64| image(folder.path(), name, bytes);
    let (empty, odd) = (file("empty", 0), file("odd", 1000));
    let missing = folder.path().join("missing").display().to_string();
    for (disk, advice) in [
        (missing.as_str(), "truncate -s 1G"),
        (&empty, "is empty"),
        (&odd, "truncate -s 1024"),
        (folder.path().to_str().unwrap(), "neither a file nor a block device"),
    ] {
        let error = fails(&["serve", "--lab", disk], 1);
        assert!(error.contains(advice), "{error}");
    }
    let error = fails(&["serve", "--lab", "a,sector=100"], 2);
    assert!(error.contains("512 or 4096"), "{error}");
    assert!(fails(&["serve"], 2).contains("--lab"));
    let json = fails(&["--json", "serve", "--lab", &missing], 1);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["kind"], &json["code"]), (&"error".into(), &1.into()));
}

#[test]
fn an_image_is_a_disk_once_be_it_of_the_lab_or_simulated() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 1 << 20);
    let mut server = Server::start(&[&disk]);
    let error = fails(&["serve", "--sim", &disk], 1);
    assert!(error.contains("in use by another process"), "{error}");
    assert_eq!(server.end(Signal::TERM), Some(0));
    let other = image(folder.path(), "other", 2 << 20);
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--sim", &disk, "--lab", &other]);
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("9p").display());
    let server = Server::launch(command, &[&socket], folder);
    let error = fails(&["serve", "--lab", &disk], 1);
    assert!(error.contains("in use by another process"), "{error}");
    // Those of the lab come first.
    assert!(server.run(&["cat", "sdC0/ctl"]).contains("geometry 4096 512"));
    assert!(server.run(&["cat", "sdC1/ctl"]).contains("SIMULATED"));
}

#[test]
fn without_qemu_it_says_how_to_install_it() {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--lab", "null:512"]).env("OUTBOARD_QEMU", "/nonexistent/qemu");
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("apt-get install qemu-system-x86"), "{errors}");
}

#[test]
fn without_a_server_the_other_verbs_say_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = format!("unix:{}", folder.path().join("9p").display());
    let error = fails(&["ls", "--at", &nowhere], 3);
    assert!(error.contains("Start one with: outboard serve"), "{error}");
}

#[test]
fn the_default_address_is_the_users_own() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("XDG_RUNTIME_DIR", folder.path()).stdin(Stdio::null());
        command
    };
    let mut serve = run(&["serve", "--lab", "null:1048576"]);
    let mut child = serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    let socket = folder.path().join("outboard/9p");
    assert_eq!(line, format!("ready unix:{}\n", socket.display()));
    assert!(support::good(&mut run(&["ls"])).contains("sdC0"));
    let mode = folder.path().join("outboard").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    // A folder that others may enter is not used.
    std::fs::set_permissions(folder.path().join("outboard"), PermissionsExt::from_mode(0o755))
        .unwrap();
    for verb in [&["serve", "--lab", "null:1048576"][..], &["ls"], &["cp", "/dev/null", ":x"]] {
        let output = run(verb).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("not this user's alone"));
    }
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let script = support::good(Command::new(PROGRAM).args(["completions", shell]));
        assert!(script.contains("serve") && script.contains("offset"), "{shell}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(PROGRAM).args(["completions", "bash"]).stdout(full).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("standard output: No space left"), "{errors}");
    assert!(fails(&["man", "/dev/null/man"], 1).contains("cannot write manual pages"));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    support::good(Command::new(PROGRAM).arg("man").arg(&pages));
    let page = std::fs::read_to_string(pages.join("outboard-serve.1")).unwrap();
    assert!(page.contains("Listen for 9P here"), "{page}");
    assert!(std::fs::read_to_string(pages.join("outboard.1")).unwrap().contains("Exit codes"));
}
