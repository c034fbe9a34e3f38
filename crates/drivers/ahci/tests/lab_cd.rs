//! The driver against QEMU's CD drive.

mod support;

use outboard_block::{
    BlockDriver, BlockError, Durability, Management, RefusedReason, Request, Tag, UnitId, UnitState,
};
use outboard_hw::dma::SgList;
use outboard_lab::{DiskConfig, Fault, FaultAt};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Bench, image, pattern};

/// An ISO 9660 image with two files in it, made by `xorriso`.
fn iso(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("readme.txt"), "what is on the disc\n").unwrap();
    std::fs::write(tree.join("data.bin"), pattern(0, 3000)).unwrap();
    let path = folder.join("disc.iso");
    let made = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-V", "OUTBOARD", "-J", "-r", "-o"])
        .args([&path, &tree])
        .output()
        .expect("xorriso makes the image; install the package of that name");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

#[test]
fn an_iso_image_is_read_as_it_is_beside_a_disk_at_the_same_controller() {
    let folder = tempfile::tempdir().unwrap();
    let iso = iso(folder.path());
    let content = std::fs::read(&iso).unwrap();
    let disk = image(folder.path(), "disk", 4096);
    let mut bench = Bench::new(vec![DiskConfig::image(disk), DiskConfig::cd(&iso)]);
    let unit = bench.driver.unit(UnitId(1)).unwrap();
    assert_eq!((unit.state, unit.generation), (UnitState::Ready, 1), "{:#?}", bench.events);
    assert_eq!(unit.identity.model, "QEMU DVD-ROM");
    assert!(unit.geometry.read_only && unit.features.removable);
    assert_eq!(unit.geometry.sector_bytes, 2048);
    assert_eq!(unit.geometry.bytes(), content.len() as u64);
    let (sectors, most) = (unit.geometry.sectors, u64::from(unit.geometry.max_transfer_sectors));
    // The primary volume descriptor (ECMA-119 §8.4).
    assert_eq!(&bench.read(1, 16, 1).unwrap()[..6], b"\x01CD001");
    let mut lba = 0;
    while lba < sectors {
        let count = most.min(sectors - lba);
        let at = lba as usize * 2048;
        assert_eq!(bench.read(1, lba, count).unwrap(), content[at..][..count as usize * 2048]);
        assert_eq!(bench.read(0, lba, 3).unwrap(), pattern(lba, 3));
        lba += count;
    }
    assert_eq!(bench.counter(1, "device-errors"), 0, "{:#?}", bench.events);
    bench.one(1, Request::flush()).unwrap();
}

#[test]
fn as_many_reads_as_there_are_slots_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let disc = image(folder.path(), "disc", 4096);
    let mut bench = Bench::new(vec![DiskConfig::cd(disc)]);
    for slot in 0..32 {
        let data = SgList::single(bench.buffer(2048), 0..2048);
        bench.submit(0, slot, Request::read(slot * 3, 1, data));
    }
    for completion in bench.finish(32) {
        completion.result.unwrap();
        let mut content = [0; 2048];
        completion.data.into_buffers().next().unwrap().read_bytes(0, &mut content);
        assert_eq!(content[..], pattern(completion.tag.0 * 12, 4));
    }
}

#[test]
fn a_disc_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let disc = image(folder.path(), "disc", 64);
    let mut bench = Bench::new(vec![DiskConfig::cd(disc)]);
    let data = SgList::single(bench.buffer(2048), 0..2048);
    let write = Request::write(0, 1, data, Durability::Cached);
    let refused = bench.driver.submit(UnitId(0), Tag(1), write).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::WriteProtected);
    let discard = bench.driver.submit(UnitId(0), Tag(1), Request::discard(0, 1)).unwrap_err();
    assert_eq!(discard.reason, RefusedReason::Unsupported);
}

#[test]
fn a_sector_that_cannot_be_read_fails_its_read_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let disc = image(folder.path(), "disc", 4096);
    let fault = Fault { at: FaultAt::Read, sector: Some(400), once: false };
    let mut bench = Bench::new(vec![DiskConfig::cd(disc).with_fault(fault)]);
    assert_eq!(bench.read(0, 99, 1).unwrap(), pattern(396, 4));
    assert!(bench.read(0, 100, 1).is_err(), "{:#?}", bench.events);
    assert!(bench.happened("the drive refused"), "{:#?}", bench.events);
    assert_eq!(bench.read(0, 101, 1).unwrap(), pattern(404, 4));
}

#[test]
fn a_locked_tray_stays_closed_and_an_open_one_has_no_medium() {
    let folder = tempfile::tempdir().unwrap();
    let disc = image(folder.path(), "disc", 4096);
    let mut bench = Bench::new(vec![DiskConfig::cd(disc)]);
    bench.one(0, Request::manage(Management::LockMedium(true))).unwrap();
    let locked = bench.one(0, Request::manage(Management::Eject)).unwrap_err();
    assert_eq!(locked, BlockError::Locked, "{:#?}", bench.events);
    bench.one(0, Request::manage(Management::LockMedium(false))).unwrap();
    bench.one(0, Request::manage(Management::Eject)).unwrap();
    bench.run_until(|bench| bench.driver.unit(UnitId(0)).unwrap().state == UnitState::Empty);
    let data = SgList::single(bench.buffer(2048), 0..2048);
    let refused = bench.driver.submit(UnitId(0), Tag(1), Request::read(0, 1, data)).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::NotReady(UnitState::Empty));
    bench.one(0, Request::manage(Management::Load)).unwrap();
    bench.run_until(|bench| bench.driver.unit(UnitId(0)).unwrap().state == UnitState::Ready);
    assert!(bench.driver.unit(UnitId(0)).unwrap().generation > 1);
    assert_eq!(bench.read(0, 7, 1).unwrap(), pattern(28, 4));
}
