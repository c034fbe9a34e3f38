//! A server of simulated disks, with and without faults. No QEMU is needed.

mod support;

use rustix::process::Signal;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use support::{PROGRAM, Server, fails, fed, image, noise, tool};

/// Serves simulated disks, where there is no QEMU.
fn serve(disks: &[&str]) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("9p").display());
    let mut command = Command::new(PROGRAM);
    command.arg("serve").args(disks.iter().flat_map(|disk| ["--sim", disk]));
    command.env("OUTBOARD_QEMU", "/nonexistent/qemu").env("PATH", "/nonexistent");
    Server::launch(command, &[&socket], folder)
}

#[test]
fn a_partitioned_image_is_served_read_and_written_without_qemu() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), "disk", 32 << 20);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&noise(1, 32 << 20), 0).unwrap();
    let table = b"label: gpt\nsize=4M\nsize=8M\n";
    assert!(fed(tool("sfdisk").args(["-q", &path]), table).status.success());
    let original = folder.path().join("original");
    std::fs::copy(&path, &original).unwrap();
    let mut server = serve(&[&path]);
    let listed = server.run(&["ls", "sdC0/part"]);
    assert!(listed.contains("part/1") && listed.contains("part/2"), "{listed}");
    let told = server.run(&["cat", "sdC0/ctl"]);
    assert!(told.contains("model OUTBOARD SIMULATED SSD"), "{told}");
    assert!(server.errors().contains("(simulated)"), "{}", server.errors());

    let copy = folder.path().join("copy");
    server.run(&["cp", ":sdC0/data", copy.to_str().unwrap()]);
    support::good(Command::new("cmp").args([&copy, &original]));
    let part = folder.path().join("part");
    std::fs::write(&part, noise(2, 8 << 20)).unwrap();
    server.run(&["cp", "--yes", part.to_str().unwrap(), ":sdC0/part/2"]);
    assert_eq!(server.read("sdC0/part/2", 5000, 70_000).unwrap(), noise(2, 8 << 20)[5000..75_000]);
    // Not at sector boundaries.
    server.write("sdC0/part/1", 1000, b"in the middle of a sector").unwrap();
    assert_eq!(server.end(Signal::TERM), Some(0), "{}", server.errors());

    let mut expected = std::fs::read(&original).unwrap();
    expected[(1 << 20) + 1000..][..25].copy_from_slice(b"in the middle of a sector");
    expected[5 << 20..13 << 20].copy_from_slice(&noise(2, 8 << 20));
    assert!(std::fs::read(&path).unwrap() == expected, "the image is another");
}

#[test]
fn what_was_flushed_outlives_the_kill_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 8 << 20);
    let mut server = serve(&[&disk]);
    let data = noise(3, 1 << 20);
    server.write("sdC0/data", 1 << 20, &data).unwrap();
    server.end(Signal::KILL);
    assert!(std::fs::read(&disk).unwrap()[1 << 20..2 << 20] == data);
    let server = serve(&[&disk]);
    assert!(server.read("sdC0/data", 1 << 20, 1 << 20).unwrap() == data);
}

#[test]
fn what_was_not_flushed_is_in_the_image_after_an_orderly_end() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 4096 * 64);
    let mut server = serve(&[&format!("{disk},sector=4096")]);
    let text = "late news";
    server.run(&["write", "--no-sync", "--offset", "8192", "sdC0/data", text]);
    assert!(server.run(&["cat", "sdC0/ctl"]).contains("geometry 64 4096"));
    assert_eq!(server.end(Signal::TERM), Some(0), "{}", server.errors());
    assert_eq!(&std::fs::read(&disk).unwrap()[8192..8192 + text.len()], text.as_bytes());
}

#[test]
fn a_disk_with_faults_gives_its_content_or_names_the_sectors_that_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let content = noise(4, 4 << 20);
    // Each fails in a way of its own.
    let seeds = 1..=6;
    let disks: Vec<_> = seeds.map(|seed| folder.path().join(format!("disk{seed}"))).collect();
    disks.iter().for_each(|path| std::fs::write(path, &content).unwrap());
    let described: Vec<_> = disks
        .iter()
        .zip(1..)
        .map(|(path, seed)| format!("{},faults={seed}", path.display()))
        .collect();
    let described: Vec<_> = described.iter().map(String::as_str).collect();
    let mut server = serve(&described);
    assert!(server.run(&["cat", "sdC3/ctl"]).contains("SIMULATED SSD WITH FAULTS"));
    let strikes = |server: &Server| server.errors().matches("simulated fault").count();
    // Until the disks have failed often enough to be called bad.
    while strikes(&server) < 12 {
        for disk in 0..disks.len() {
            let copy = folder.path().join("copy");
            let from = format!(":sdC{disk}/data");
            let output = server.verb(&["cp", &from, copy.to_str().unwrap()]).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            let copied = std::fs::read(&copy).unwrap_or_default();
            assert!(content.starts_with(&copied), "disk {disk}");
            assert!(output.status.success() == (copied.len() == content.len()), "{errors}");
            if !output.status.success() {
                let away = server.errors().contains("simulated fault replug");
                assert!(errors.contains("sector ") || away, "{errors}");
            }
            let _ = std::fs::remove_file(&copy);
        }
    }
    assert!(server.run(&["ls"]).contains("sdC5"), "the server goes on");
    // A disk that was asked to flush may hang: the server waits for up to 75 s, then for its files.
    server.end_within(90, Signal::TERM);
    for path in &disks {
        assert!(std::fs::read(path).unwrap() == content, "nobody wrote {}", path.display());
    }
}

#[test]
fn the_end_of_an_image_that_was_cut_short_is_bad_sectors() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 8 << 20);
    let server = serve(&[&disk]);
    std::fs::OpenOptions::new().write(true).open(&disk).unwrap().set_len(4 << 20).unwrap();
    let error = server.fails(&["read", "--offset", "8000s", "--count", "600s", "sdC0/data"], 4);
    assert!(error.contains("sector 8192 cannot be read"), "{error}");
    assert_eq!(server.read("sdC0/data", 1 << 20, 4096).unwrap(), [0; 4096]);
}

#[test]
fn many_disks_get_several_controllers() {
    let folder = tempfile::tempdir().unwrap();
    let disks: Vec<_> = (0..8u64)
        .map(|number| image(folder.path(), &format!("disk{number}"), (number + 1) << 20))
        .collect();
    let names: Vec<_> = disks.iter().map(String::as_str).collect();
    let mut server = serve(&names);
    for number in 0..8u64 {
        let told = server.run(&["cat", &format!("sdC{number}/ctl")]);
        assert!(told.contains(&format!("geometry {} 512", (number + 1) << 11)), "{told}");
        assert!(told.contains(&format!("serial OBSIM000{}", number + 1)), "{told}");
    }
    assert_eq!(server.end(Signal::TERM), Some(0));
}

#[test]
fn it_reports_as_json_that_a_disk_is_simulated() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 1 << 20);
    let socket = format!("unix:{}", folder.path().join("9p").display());
    let mut command = Command::new(PROGRAM);
    command.args(["--json", "serve", "--9p", &socket, "--interrupts", "pin"]);
    command.args(["--sim", &format!("{disk},faults=9,serial=ABC,ro")]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(lines).map(|line| line.unwrap());
    let disk: serde_json::Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!((&disk["kind"], &disk["simulated"]), (&"disk".into(), &true.into()));
    assert_eq!((&disk["serial"], &disk["faults"]), (&"ABC".into(), &9.into()));
    assert_eq!(disk["read_only"], true);
    let ready: serde_json::Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(ready["kind"], "ready");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn images_that_cannot_be_used_are_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: u64| image(folder.path(), name, bytes);
    let (empty, odd, busy) = (file("empty", 0), file("odd", 1000), file("busy", 1 << 20));
    let missing = folder.path().join("missing").display().to_string();
    let _server = serve(&[&busy]);
    for (disk, advice) in [
        (missing.as_str(), "truncate -s 1G"),
        (&empty, "is empty"),
        (&odd, "truncate -s 1024"),
        (&format!("{busy},sector=4096"), "in use by another process"),
        (folder.path().to_str().unwrap(), "neither a file nor a block device"),
    ] {
        let error = fails(&["serve", "--sim", disk], 1);
        assert!(error.contains(advice), "{error}");
    }
    let error = fails(&["serve", "--sim", "a,faults=often"], 2);
    assert!(error.contains("the seed of faults is a number"), "{error}");
    let error = fails(&["serve", "--sim", &odd, "--lab", &odd], 1);
    assert!(error.contains("both with --lab and with --sim"), "{error}");
}

/// Time that a process has had of the processors, in ticks.
fn ticks(server: &Server) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.child.id())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_server_with_nothing_to_do_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 1 << 20);
    let server = serve(&[&disk]);
    let client = &mut server.client();
    let fid = client.walk("sdC0/ctl").unwrap();
    let before = ticks(&server);
    // This is the time in which nothing is to happen, the server's end neither.
    assert!(!support::ends_within(server.pid(), 2));
    assert!(ticks(&server) - before <= 1, "{} ticks in two seconds", ticks(&server) - before);
    client.stat(&fid).unwrap();
}
