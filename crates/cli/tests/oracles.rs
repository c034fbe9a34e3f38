//! What other people's tools have made is read right, and what was written they find right.

mod support;

use outboard_ninep::client::{ClientError, Mode};
use rustix::process::Signal;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use support::{Server, good, image, noise, python, tool};

const SECTOR: usize = 512;

/// A folder with files to be found again, some of them large.
fn make_files(folder: &Path) {
    std::fs::create_dir_all(folder.join("deep/er")).unwrap();
    for (index, name) in ["a", "b.bin", "deep/c", "deep/er/d"].iter().enumerate() {
        let bytes = noise(index as u64 + 1, 100_000 * (index + 1));
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// An ext4 file system of 8 MiB that holds `files`.
fn ext4(folder: &Path, files: &Path) -> String {
    let path = image(folder, "ext4.img", 8 << 20);
    good(tool("mkfs.ext4").args(["-q", "-F", "-d"]).arg(files).arg(&path));
    path
}

/// A FAT file system of 8 MiB that holds `files`.
fn fat(folder: &Path, files: &Path) -> String {
    let path = image(folder, "fat.img", 8 << 20);
    good(tool("mkfs.vfat").arg(&path));
    let entries = files.read_dir().unwrap().map(|entry| entry.unwrap().path());
    good(tool("mcopy").args(["-s", "-i", &path]).args(entries).arg("::"));
    path
}

/// Puts what is in `part` at a sector of an image.
fn implant(image: &str, lba: usize, part: &str) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    file.write_all_at(&std::fs::read(part).unwrap(), (lba * SECTOR) as u64).unwrap();
}

/// The files in a file system are those of `files`, by the file system's own tools.
fn check_ext4(path: &str, files: &Path) {
    good(tool("e2fsck").args(["-fn", path]));
    let dumped = tempfile::tempdir().unwrap();
    let dump = format!("rdump / {}", dumped.path().display());
    good(tool("debugfs").args(["-R", &dump, path]));
    let differences = Command::new("diff")
        .args(["-r", "--exclude=lost+found"])
        .args([files, dumped.path()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&differences.stdout), "");
}

#[test]
fn images_by_sgdisk_sfdisk_mkfs_ext4_and_mkfs_vfat_are_read_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("files");
    make_files(&files);
    let (ext4, fat) = (ext4(folder.path(), &files), fat(folder.path(), &files));
    let gpt = image(folder.path(), "gpt", 32 << 20);
    good(tool("sgdisk").args(["-n", "1:2048:+8M", "-n", "2:0:+8M", "-t", "2:ef00"]).arg(&gpt));
    let mbr = image(folder.path(), "mbr", 32 << 20);
    let script = b"label: dos\nstart=2048,size=16384,type=83\nstart=20480,size=40000,type=5\n\
                   start=22528,size=16384,type=c\n";
    assert!(support::fed(tool("sfdisk").arg(&mbr), script).status.success());
    for (image, second) in [(&gpt, 2048 + 16384), (&mbr, 22528)] {
        implant(image, 2048, &ext4);
        implant(image, second, &fat);
    }
    let whole: Vec<_> = [&gpt, &mbr].iter().map(|path| std::fs::read(path).unwrap()).collect();
    let mut server = Server::start(&[&gpt, &mbr, &ext4, &fat]);
    let there = |name: &str| folder.path().join(name).display().to_string();
    for (disk, whole) in ["sdC0", "sdC1"].iter().zip(&whole) {
        assert!(server.read(&format!("{disk}/data"), 0, u64::MAX).unwrap() == *whole);
        let second = if *disk == "sdC0" { "2" } else { "5" };
        for (number, original) in [("1", &ext4), (second, &fat)] {
            let name = there(&format!("{disk}-{number}"));
            server.run(&["cp", &format!(":{disk}/part/{number}"), &name]);
            assert!(std::fs::read(&name).unwrap() == std::fs::read(original).unwrap());
        }
    }
    check_ext4(&there("sdC0-1"), &files);
    let listed = good(tool("mdir").args(["-/", "-b", "-i", &there("sdC1-5"), "::"]));
    assert!(listed.contains("::/deep/er/d"), "{listed}");
    // Disks without a partition table have none.
    for disk in ["sdC2", "sdC3"] {
        assert!(server.run(&["cat", &format!("{disk}/ctl")]).contains("table none"));
    }
    assert_eq!(server.end(Signal::TERM), Some(0));
    for (path, whole) in [gpt, mbr].iter().zip(whole) {
        assert!(std::fs::read(path).unwrap() == whole, "reading changes nothing");
    }
}

#[test]
fn a_file_system_that_was_written_through_the_driver_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("files");
    make_files(&files);
    let source = ext4(folder.path(), &files);
    let disk = image(folder.path(), "disk", 16 << 20);
    good(tool("sgdisk").args(["-n", "1:2048:+8M"]).arg(&disk));
    // The same by other means, to be compared with.
    let twin = folder.path().join("twin").display().to_string();
    std::fs::copy(&disk, &twin).unwrap();
    implant(&twin, 2048, &source);
    let mut server = Server::start(&[&disk]);
    server.run(&["cp", "--yes", &source, ":sdC0/part/1"]);
    assert_eq!(server.end(Signal::TERM), Some(0));
    let compare = ["compare", "-f", "raw", "-F", "raw", &disk, &twin];
    assert!(good(tool("qemu-img").args(compare)).contains("Images are identical"));
    let part = folder.path().join("part").display().to_string();
    std::fs::write(&part, &std::fs::read(&disk).unwrap()[2048 * SECTOR..][..8 << 20]).unwrap();
    check_ext4(&part, &files);
}

#[test]
fn scattered_writes_of_every_size_end_up_where_they_belong() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 8 << 20);
    let twin = image(folder.path(), "twin", 8 << 20);
    let mut expected = vec![0; 8 << 20];
    let mut server = Server::start(&[&disk]);
    let mut client = server.client();
    let fid = client.walk("sdC0/data").unwrap();
    client.open(&fid, Mode::Write).unwrap();
    for step in 0..400u64 {
        let draw = noise(step + 1, 16);
        let word = |at: usize| u64::from_le_bytes(draw[at..at + 8].try_into().unwrap());
        let len = 1 + (word(0) % (1 << (step % 21))) as usize;
        let offset = word(8) % ((8 << 20) - len as u64);
        let data = noise(step + 7, len);
        let mut rest = data.as_slice();
        let source = |room: &mut [u8]| Ok::<_, ClientError>(rest.read(room)?);
        client.write_range(&fid, offset, source, |_| ()).unwrap();
        expected[offset as usize..][..len].copy_from_slice(&data);
    }
    client.clunk(fid).unwrap();
    assert_eq!(server.end(Signal::TERM), Some(0));
    std::fs::write(&twin, &expected).unwrap();
    let compare = ["compare", "-f", "raw", "-F", "raw", &disk, &twin];
    assert!(good(tool("qemu-img").args(compare)).contains("Images are identical"));
}

#[test]
fn a_bad_sector_is_named_and_its_neighbours_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 4 << 20);
    let content = noise(3, 4 << 20);
    std::fs::write(&disk, &content).unwrap();
    let server = Server::start(&[&format!("{disk},bad=4321"), "null:1048576"]);
    let bad = 4321 * SECTOR as u64;
    let read = |offset: u64, count: u64| server.read("sdC0/data", offset, count);
    assert_eq!(read(0, bad).unwrap(), content[..bad as usize]);
    assert_eq!(read(bad + 512, 1 << 30).unwrap(), content[bad as usize + 512..]);
    for (offset, count) in [(bad, 512), (bad + 511, 1), (bad, 1 << 20)] {
        let error = read(offset, count).unwrap_err().to_string();
        assert!(error.contains("sdC0: sector 4321"), "{error}");
    }
    // A copy stops there, having copied all before it, and says so.
    let copy = folder.path().join("copy").display().to_string();
    let error = server.fails(&["cp", ":sdC0/data", &copy], 4);
    assert!(error.contains("sector 4321") && error.contains("were copied"), "{error}");
    assert_eq!(std::fs::read(&copy).unwrap(), content[..bad as usize]);
    let error = server.write("sdC0/data", bad, b"x").unwrap_err().to_string();
    assert!(error.contains("sector 4321"), "{error}");
    server.write("sdC0/data", bad - 1, b"x").unwrap();
    server.write("sdC0/data", bad + 512, b"y").unwrap();
    assert!(server.run(&["cat", "sdC0/ctl"]).contains("status ready"));
    assert!(server.read("sdC1/data", 0, 4096).is_ok(), "the other disk goes on");
}

#[test]
fn a_damaged_partition_table_is_served_from_its_backup_or_not_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, spoil: &[usize]| {
        let path = image(folder.path(), name, 4 << 20);
        good(tool("sgdisk").args(["-n", "1:2048:+1M"]).arg(&path));
        let mut content = std::fs::read(&path).unwrap();
        spoil.iter().for_each(|sector| content[sector * SECTOR..][..SECTOR].fill(0x77));
        std::fs::write(&path, content).unwrap();
        path
    };
    let last = (4 << 20) / SECTOR - 1;
    let (one, both) = (make("one", &[1]), make("both", &[1, last]));
    let before = std::fs::read(&both).unwrap();
    let server = Server::start(&[&one, &both]);
    let control = server.run(&["cat", "sdC0/ctl"]);
    assert!(control.contains("part 1 2048 4096"), "{control}");
    assert!(control.contains("warning the primary GPT is damaged"), "{control}");
    let control = server.run(&["cat", "sdC1/ctl"]);
    assert!(!control.contains("part 1 "), "{control}");
    assert!(control.contains("warning both copies of the GPT are damaged"), "{control}");
    assert_eq!(server.read("sdC1/data", 0, u64::MAX).unwrap(), before);
    assert!(server.errors().contains("both copies of the GPT are damaged"));
}

#[test]
fn other_peoples_clients_list_read_and_write() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk", 8 << 20);
    good(tool("sgdisk").args(["-n", "1:2048:+1M", "-n", "2:8192:+2M"]).arg(&disk));
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start_at(&[&disk], &["tcp:127.0.0.1:0"], data);
    let address = server.address();
    let port = address.rsplit(':').next().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/client.py");
    for (index, dialect) in ["9P2000", "9P2000.u", "9P2000.L"].iter().enumerate() {
        let printed = good(Command::new(python()).args([script, "127.0.0.1", port, dialect]));
        assert_eq!(printed, format!("{dialect} is served\n"));
        // What it wrote into the second partition.
        let written = server.read("sdC0/part/2", 1000, 100_000).unwrap();
        let expected: Vec<u8> = (0..100_000u32).map(|i| (i * 7 + index as u32 + 1) as u8).collect();
        assert!(written == expected, "{dialect}");
    }
    // The tools of diod, for 9P2000.L.
    let host = format!("127.0.0.1:{port}");
    let listed = good(tool("diodls").args(["-s", &host, "-a", "/", "-l", "sdC0/part"]));
    assert!(listed.contains("2097152") && listed.contains(" 2\n"), "{listed}");
    let mut cat = tool("diodcat");
    let read = cat.args(["-s", &host, "-a", "/", "sdC0/part/2"]).output().unwrap();
    assert!(read.stdout == server.read("sdC0/part/2", 0, u64::MAX).unwrap());
    let geometry = good(tool("diodcat").args(["-s", &host, "-a", "/", "sdC0/geometry"]));
    assert!(geometry.starts_with("sectors 16384\n"));
    assert_eq!(server.end(Signal::TERM), Some(0));
}
