//! The driver on QEMU's virtio disks.

mod support;

use outboard_block::{BlockDriver, Durability, UnitId, UnitState};
use outboard_lab::{DiskConfig, VirtioConfig};
use support::{Bench, noise};

#[test]
fn a_disk_is_found_read_and_written() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let content = noise(1, 4 << 20);
    std::fs::write(file.path(), &content).unwrap();
    let mut bench = Bench::new(DiskConfig::image(file.path()).over(VirtioConfig::default()));
    assert_eq!(bench.state(), UnitState::Ready, "{:?}", bench.events);
    let unit = bench.driver.unit(UnitId(0)).unwrap().clone();
    assert_eq!(unit.identity.serial, "LAB-disk0.0");
    assert_eq!((unit.geometry.sector_bytes, unit.geometry.sectors), (512, 8192));
    assert!(unit.geometry.write_cache && !unit.geometry.read_only);
    assert!(bench.read(0, 2048).unwrap() == content[..1 << 20]);
    bench.write(100, &noise(2, 5120), Durability::Durable).unwrap();
    assert!(bench.read(100, 10).unwrap() == noise(2, 5120));
}
