//! The tree, through the program's own client.

mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use support::{Server, fed, good, image, noise, tool};

/// A disk of 16 MiB with two partitions, of 4 MiB and of 1000 sectors, full of noise.
fn partitioned(folder: &std::path::Path) -> String {
    let path = image(folder, "disk", 16 << 20);
    std::fs::write(&path, noise(1, 16 << 20)).unwrap();
    let table = ["-o", "-n", "1:2048:+4M", "-c", "1:first", "-a", "1", "-n", "2:20000:20999"];
    good(tool("sgdisk").arg("--zap-all").arg(&path));
    good(tool("sgdisk").args(table).arg(&path));
    path
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn the_tree_has_what_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[&partitioned(folder.path()), "null:1048576"]);
    let listed = server.run(&["ls", "--recursive"]);
    let paths: Vec<_> = listed.lines().map(|l| l.rsplit("  ").next().unwrap()).collect();
    let expected = [
        "ctl",
        "stats",
        "sdC0/",
        "sdC0/ctl",
        "sdC0/raw",
        "sdC0/data",
        "sdC0/geometry",
        "sdC0/smart",
        "sdC0/stats",
        "sdC0/part/",
        "sdC0/part/0",
        "sdC0/part/1",
        "sdC0/part/2",
        "sdC1/",
        "sdC1/ctl",
        "sdC1/raw",
        "sdC1/data",
        "sdC1/geometry",
        "sdC1/smart",
        "sdC1/stats",
        "sdC1/part/",
        "sdC1/part/0",
    ];
    assert_eq!(paths, expected);
    let control = server.run(&["cat", "sdC0/ctl"]);
    let lines = lines(&control);
    assert_eq!(
        lines[..4],
        ["device sdC0", "model QEMU HARDDISK", "serial QM00001", "status ready"]
    );
    for line in ["geometry 32768 512", "part 0 0 32768", "part 1 2048 10240", "part 2 20000 21000"]
    {
        assert!(lines.contains(&line), "{control}");
    }
    let geometry = server.run(&["cat", "sdC0/geometry"]);
    assert_eq!(geometry, "sectors 32768\nsecsize 512\ncylinders 2\nheads 255\nsectors/track 63\n");
    let top = server.run(&["cat", "ctl"]);
    assert!(top.contains("disk sdC1 1048576 QEMU HARDDISK ready"), "{top}");
    assert!(server.run(&["cat", "stats"]).contains("sdC0 kicks "));
    for line in server.run(&["--json", "ls", "sdC0/part"]).lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&entry["schema"], &entry["kind"]), (&1.into(), &"entry".into()));
        if entry["path"] == "sdC0/part/2" {
            assert_eq!(entry["bytes"], 512_000);
        }
    }
}

#[test]
fn bytes_are_read_and_written_anywhere_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = partitioned(folder.path());
    let mut content = std::fs::read(&path).unwrap();
    let server = Server::start(&[&path]);
    assert_eq!(server.read("sdC0/raw", 0, u64::MAX).unwrap(), content);
    assert_eq!(server.read("sdC0/part/2", 0, u64::MAX).unwrap(), content[10_240_000..10_752_000]);
    for (at, len) in [(0, 1), (511, 2), (1000, 3_000_000), (10_240_000 - 5, 10)] {
        let data = noise(at as u64, len);
        server.write("sdC0/data", at as u64, &data).unwrap();
        content[at..at + len].copy_from_slice(&data);
        assert_eq!(server.read("sdC0/data", at as u64, len as u64).unwrap(), data);
    }
    // The end of a partition, and of the disk.
    server.write("sdC0/part/2", 511_999, b"!").unwrap();
    content[10_751_999] = b'!';
    for (path, bytes) in [("sdC0/part/2", 512_000), ("sdC0/data", 16 << 20)] {
        assert!(server.read(path, bytes, 100).unwrap().is_empty());
        assert!(server.read(path, u64::MAX, 100).unwrap().is_empty());
        assert_eq!(server.read(path, bytes - 1, 100).unwrap().len(), 1);
        for (offset, data) in [(bytes - 1, &b"ab"[..]), (bytes, b"a"), (u64::MAX, b"a")] {
            let error = server.write(path, offset, data).unwrap_err().to_string();
            let said = format!("{path} ends at byte");
            assert!(error.contains(&said) && error.contains("not carried out"), "{error}");
        }
    }
    assert_eq!(std::fs::read(&path).unwrap(), content);
}

#[test]
fn commands_to_ctl_act_or_are_answered_with_the_list_of_commands() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = partitioned(folder.path());
    let server = Server::start(&[&path, "null:1048576"]);
    let control = |command: &str| server.run(&["write", "sdC0/ctl", command]);
    control("flush");
    control("part mine 0x10 20");
    let content = std::fs::read(&path).unwrap();
    assert_eq!(server.read("sdC0/part/mine", 0, 9999).unwrap(), content[16 * 512..20 * 512]);
    control("delpart 2");
    let parts = server.run(&["ls", "sdC0/part"]);
    assert!(parts.contains("part/mine") && !parts.contains("part/2"), "{parts}");
    control("delpart mine");
    control("rescan");
    assert!(server.run(&["ls", "sdC0/part"]).contains("part/2"));
    let blocks = || path.parse::<std::path::PathBuf>().unwrap().metadata().unwrap().blocks();
    let before = blocks();
    control("trim 2048 8192");
    control("flush");
    assert!(blocks() + 7000 < before);
    server.run(&["write", "ctl", "flush"]);
    server.run(&["write", "ctl", "rescan"]);
    for command in ["", "fluhs", "trim 5", "trim 32768 1", "part 1 0 5", "part a 5 5", "delpart 9"]
    {
        let error =
            server.fails(&["write", "sdC0/ctl", command], if command.is_empty() { 0 } else { 4 });
        let said = ["trim START COUNT", "on the disk", "partition of that name", "below END"];
        assert!(command.is_empty() || said.iter().any(|s| error.contains(s)), "{command}: {error}");
    }
    assert!(server.fails(&["write", "ctl", "trim 1 1"], 4).contains("flush; rescan"));
    assert!(server.fails(&["write", "stats", "x"], 4).contains("cannot be written"));
    assert!(server.fails(&["cat", "sdC0/nothing"], 4).contains("there is no file"));
    for verb in [&["cat", "sdC0"][..], &["read", "sdC0/part"], &["cp", ":sdC0", "x"]] {
        assert!(server.fails(verb, 1).contains("is a folder"));
    }
}

#[test]
fn a_rescan_sees_what_a_tool_has_done_to_the_image_through_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), "disk", 16 << 20);
    let other = image(folder.path(), "other", 16 << 20);
    good(tool("sgdisk").args(["-n", "1:2048:+1M", "-n", "7:8192:+2M"]).arg(&other));
    let server = Server::start(&[&path]);
    assert!(!server.run(&["ls", "sdC0/part"]).contains("part/1"));
    server.run(&["cp", "--yes", &other, ":sdC0/data"]);
    assert!(!server.run(&["ls", "sdC0/part"]).contains("part/7"));
    server.run(&["write", "sdC0/ctl", "rescan"]);
    assert!(server.run(&["ls", "sdC0/part"]).contains("2 MiB  sdC0/part/7"));
}

#[test]
fn read_only_disks_and_large_sectors_are_served_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = partitioned(folder.path());
    let wide = image(folder.path(), "wide", 16 << 20);
    let fdisk = fed(tool("fdisk").args(["-b", "4096", &wide]), b"g\nn\n1\n\n+4M\nw\n");
    assert!(fdisk.status.success());
    let before = std::fs::read(&path).unwrap();
    let mut server = Server::start(&[&format!("{path},ro"), &format!("{wide},sector=4096")]);
    assert!(server.run(&["cat", "sdC0/ctl"]).contains("access read-only"));
    assert_eq!(server.read("sdC0/data", 0, u64::MAX).unwrap(), before);
    for target in ["sdC0/data", "sdC0/part/1", "sdC0/raw"] {
        assert!(server.fails(&["write", target, "x"], 4).contains("cannot be written"));
    }
    assert!(server.fails(&["write", "sdC0/ctl", "trim 0 1"], 4).contains("read-only"));
    let geometry = server.run(&["cat", "sdC1/geometry"]);
    assert!(geometry.starts_with("sectors 4096\nsecsize 4096\n"), "{geometry}");
    assert!(server.run(&["cat", "sdC1/ctl"]).contains("part 1 256 1280"));
    server.write("sdC1/part/1", 100, b"written into a large sector").unwrap();
    assert_eq!(server.end(Signal::TERM), Some(0));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let content = std::fs::read(&wide).unwrap();
    assert_eq!(&content[256 * 4096 + 100..][..27], b"written into a large sector");
}

#[test]
fn the_verbs_print_parts_texts_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = partitioned(folder.path());
    let content = std::fs::read(&path).unwrap();
    let server = Server::start(&[&path]);
    let mut read = server.verb(&["read", "--offset", "3s", "--count", "1k", "sdC0/data"]);
    assert_eq!(read.output().unwrap().stdout, content[1536..1536 + 1024]);
    let json = server.run(&["--json", "read", "--offset", "510", "--count", "2", "sdC0/data"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["kind"], &json["hex"]), (&"content".into(), &"55aa".into()));
    let json: Value =
        serde_json::from_str(&server.run(&["--json", "cat", "sdC0/geometry"])).unwrap();
    assert!(json["text"].as_str().unwrap().starts_with("sectors 32768\n"));
    let output =
        fed(&mut server.verb(&["--json", "write", "--offset", "1M", "sdC0/data"]), b"piped");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["bytes"], &json["offset"]), (&5.into(), &1_048_576.into()));
    assert_eq!(server.read("sdC0/data", 1 << 20, 5).unwrap(), b"piped");
    let closed = Command::new("sh")
        .args(["-c", r#""$0" read --at "$1" sdC0/data | head -c 1"#])
        .args([support::PROGRAM, &server.address()])
        .output()
        .unwrap();
    assert_eq!(closed.stdout.len(), 1);
    assert_eq!(closed.stderr, b"", "whoever has seen enough is not bothered");
}

#[test]
fn a_server_that_goes_away_during_a_write_is_no_closed_output() {
    let mut server = Server::start(&["null:16777216"]);
    let mut command = server.verb(&["write", "sdC0/data"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&noise(1, 2 << 20)).unwrap();
    while server.run(&["cat", "stats"]).contains("sdC0 file-writes 0\n") {}
    server.end(Signal::KILL);
    // More than it holds back, so that it has to send.
    let _ = input.write_all(&noise(2, 4 << 20));
    drop(input);
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("sdC0/data: the connection failed"), "{errors}");
    assert_eq!(
        errors.matches("the server has ended").count(),
        1,
        "the reason is said once: {errors}"
    );
}

#[test]
fn a_write_that_fails_says_how_far_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), "disk", 4 << 20);
    let server = Server::start(&[&format!("{path},bad=6000")]);
    // One whose end is past that of the disk, and one with a sector that cannot be written.
    for (offset, bytes) in [("1M", 4 << 20), ("0", 3 << 20)] {
        let data = noise(bytes, bytes as usize);
        let arguments = ["write", "--no-sync", "--offset", offset, "sdC0/data"];
        let output = fed(&mut server.verb(&arguments), &data);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{errors}");
        let said = errors.split("after ").nth(1).and_then(|rest| rest.split(' ').next());
        let written: usize = said.expect("how far it came").parse().unwrap();
        assert!((1 << 20..3 << 20).contains(&written), "{errors}");
        let start = if offset == "0" { 0 } else { 1 << 20 };
        let found = std::fs::read(&path).unwrap();
        assert!(found[start..start + written] == data[..written], "{errors}");
    }
    assert!(!server.fails(&["write", "sdC0/ctl", "fluhs"], 4).contains("written"));
}

#[test]
fn files_are_copied_there_and_back_and_between() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = partitioned(folder.path());
    let server = Server::start(&[&path, "null:1048576"]);
    let there = |name: &str| folder.path().join(name).display().to_string();
    // A file with holes, a little shorter than the partition.
    let mut data = vec![0; 4 << 20];
    data[1 << 20..][..100_000].copy_from_slice(&noise(5, 100_000));
    data.truncate((4 << 20) - 777);
    std::fs::write(there("source"), &data).unwrap();
    let copied = server.run(&["--json", "cp", "--yes", &there("source"), ":sdC0/part/1"]);
    let copied: Value = serde_json::from_str(&copied).unwrap();
    assert_eq!(
        (&copied["kind"], copied["bytes"].as_u64()),
        (&"copied".into(), Some(data.len() as u64))
    );
    assert_eq!(server.read("sdC0/part/1", 0, data.len() as u64).unwrap(), data);
    // Pieces of a copy do not share sectors; only the one at the source's ragged end is merged.
    let stats = server.run(&["cat", "stats"]);
    assert!(stats.contains("sdC0 file-merges 1\n"), "{stats}");
    server.run(&["cp", ":sdC0/part/1", &there("back")]);
    let back = std::fs::read(there("back")).unwrap();
    assert_eq!((back.len(), &back[..data.len()]), (4 << 20, &data[..]));
    let blocks = std::fs::metadata(there("back")).unwrap().blocks();
    assert!(blocks * 512 < 300_000, "zeros became holes: {blocks} blocks");
    server.run(&["cp", "--yes", ":sdC0/part/2", ":sdC0/part/1"]);
    let (first, second) =
        (server.read("sdC0/part/1", 0, 512_000), server.read("sdC0/part/2", 0, 1 << 30));
    assert_eq!(first.unwrap(), second.unwrap());
    // What does not fit, or was not meant, is not begun.
    let before = std::fs::read(&path).unwrap();
    assert!(
        server.fails(&["cp", "--yes", &there("source"), ":sdC1/data"], 1).contains("only 1 MiB")
    );
    assert!(server.fails(&["cp", &there("source"), ":sdC0/part/1"], 1).contains("add --yes"));
    assert!(server.fails(&["cp", "a", "b"], 1).contains("a colon in front"));
    assert!(server.fails(&["cp", &there("none"), ":sdC0/data", "--yes"], 1).contains("none"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn many_clients_write_to_their_own_bytes_of_shared_sectors() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), "disk", 1 << 20);
    let server = Server::start(&[&path]);
    // Eight clients, each with every eighth run of 100 bytes.
    std::thread::scope(|scope| {
        for client in 0..8u8 {
            let server = &server;
            scope.spawn(move || {
                let mut connection = server.client();
                let fid = connection.walk("sdC0/data").unwrap();
                connection.open(&fid, outboard_ninep::client::Mode::Write).unwrap();
                let mut free: Vec<u16> = (0..8).collect();
                for run in 0..200u64 {
                    let offset = (run * 8 + u64::from(client)) * 100;
                    let tag = free.pop().unwrap();
                    connection.start_write(tag, &fid, offset, &[client + 1; 100]).unwrap();
                    while free.is_empty() || run == 199 && free.len() < 8 {
                        free.push(
                            connection.finish(|tag, answer| answer.map(|_| tag)).unwrap().unwrap(),
                        );
                    }
                }
            });
        }
    });
    let content = server.read("sdC0/data", 0, 160_000).unwrap();
    for (run, bytes) in content.chunks(100).enumerate() {
        assert!(bytes.iter().all(|byte| usize::from(*byte) == run % 8 + 1), "run {run}");
    }
}
