//! The driver on QEMU's virtio disks.

mod support;

use outboard_block::{
    BlockDriver, BlockError, Durability, FailedReason, Management, Operation, RefusedReason,
    Request, Room, Tag, UnitId, UnitState,
};
use outboard_hw::HwError;
use outboard_hw::dma::{DmaSpace, SgList};
use outboard_hw::interrupt::{InterruptKind, VectorRange, Vectors};
use outboard_lab::{
    DiskConfig, Fault, Lab, LabConfig, LabDevice, LabError, LabRegisters, Machine, VirtioConfig,
    VirtioVersion,
};
use outboard_linux::now;
use outboard_pci::{ConfigSpace, Device, Identity};
use outboard_virtio::spec::features::Features;
use outboard_virtio::transport::{MmioTransport, PciTransport, Transport};
use outboard_virtio::{BlkConfig, VirtioError};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use support::{Bench, noise};
use tempfile::NamedTempFile;

fn image(content: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

fn disk(path: &Path) -> DiskConfig {
    DiskConfig::image(path).over(VirtioConfig::default())
}

/// Writes and reads all over a disk, many requests at a time and of all sizes, some in several
/// pieces; what the image has to hold afterwards.
fn exercise<T: Transport>(bench: &mut Bench<T>, mut content: Vec<u8>) -> Vec<u8> {
    let sector = bench.sector_bytes();
    let sectors = (content.len() / sector) as u64;
    let depth = usize::from(bench.driver.unit(UnitId(0)).unwrap().geometry.queue_depth);
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut below = |end: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end
    };
    for round in 0..12u64 {
        let mut expected = Vec::new();
        let mut taken: Vec<std::ops::Range<u64>> = Vec::new();
        for tag in 0..40u64 {
            let count = 1 + below(if tag % 8 == 0 { 300 } else { 16 });
            let lba = below(sectors - count);
            // Requests under way at the same time are about different sectors.
            let full = expected.len() >= depth;
            if full || taken.iter().any(|one| one.start < lba + count && lba < one.end) {
                continue;
            }
            taken.push(lba..lba + count);
            let (start, bytes) = (lba as usize * sector, count as usize * sector);
            let mut data = SgList::EMPTY;
            let writes = below(2) == 0;
            let fresh = noise(round << 32 | tag, bytes);
            let pieces = 1 + below(5.min(count)) as usize;
            for piece in 0..pieces {
                let range = bytes / pieces / sector * sector * piece..if piece + 1 == pieces {
                    bytes
                } else {
                    bytes / pieces / sector * sector * (piece + 1)
                };
                let mut buffer = bench.buffer(range.len() + 4096);
                if writes {
                    buffer.write_bytes(512, &fresh[range.clone()]);
                }
                data.push(buffer, 512..512 + range.len());
            }
            let durability = if tag % 5 == 0 { Durability::Durable } else { Durability::Cached };
            let request = match writes {
                true => Request::write(lba, count, data, durability),
                false => Request::read(lba, count, data),
            };
            if writes {
                content[start..start + bytes].copy_from_slice(&fresh);
            }
            expected.push((tag, start, bytes));
            bench.submit(tag, request);
            if tag % 7 == 0 {
                bench.driver.kick(now());
            }
        }
        for completion in bench.finish(expected.len()) {
            completion.result.unwrap();
            let place = expected.iter().position(|(tag, ..)| Tag(*tag) == completion.tag);
            let (_, start, bytes) = expected.swap_remove(place.expect("each ends once"));
            let mut seen = vec![0; bytes];
            completion.data.read_bytes(&mut seen);
            assert!(seen == content[start..start + bytes], "round {round}, {start}+{bytes}");
        }
        bench.one(Request::flush()).unwrap();
    }
    content
}

/// Exercises disks, many in a machine, with every combination of features and so many queues.
fn carry(queues: u16) {
    let combinations = VirtioConfig { queues, ..VirtioConfig::default() }.combinations();
    assert_eq!(combinations.len(), 28);
    for configs in combinations.chunks(14) {
        // Without tables a request takes many of a queue's entries.
        let entries = |one: &VirtioConfig| if one.indirect { 16 } else { 128 };
        let configs =
            configs.iter().map(|one| VirtioConfig { queue_entries: entries(one), ..one.clone() });
        let configs: Vec<_> = configs.collect();
        let contents = (0..).map(|seed| noise(seed, 2 << 20));
        let disks: Vec<_> = contents.take(configs.len()).map(|one| (image(&one), one)).collect();
        let lab =
            disks.iter().zip(&configs).map(|((file, _), one)| disk(file.path()).over(one.clone()));
        let mut lab = Lab::start(&LabConfig::new(lab.collect())).unwrap();
        for (number, (virtio, (file, content))) in configs.iter().zip(disks).enumerate() {
            let mut bench = Bench::nth(lab, number, BlkConfig::default());
            assert_eq!(bench.state(), UnitState::Ready, "{virtio:?}: {:?}", bench.events);
            let content = exercise(&mut bench, content);
            assert_eq!(bench.counter("device-resets"), 0, "{virtio:?}: {:?}", bench.events);
            lab = bench.end();
            assert!(std::fs::read(file.path()).unwrap() == content, "{virtio:?}");
        }
    }
}

#[test]
fn every_combination_of_features_carries_data_by_one_queue() {
    carry(1);
}

#[test]
fn every_combination_of_features_carries_data_by_four_queues() {
    carry(4);
}

#[test]
fn devices_at_fixed_addresses_carry_data() {
    let (old, new) = (VirtioVersion::Legacy, VirtioVersion::Modern);
    let cases = [
        (old, false, 1, true),
        (old, false, 4, false),
        (new, false, 1, true),
        (new, false, 4, false),
        (new, true, 1, false),
        (new, true, 4, true),
    ];
    for (version, packed, queues, indirect) in cases {
        let virtio = VirtioConfig { version, packed, queues, indirect, ..VirtioConfig::default() };
        let content = noise(3, 2 << 20);
        let file = image(&content);
        let disk = disk(file.path()).over_mmio(virtio);
        let lab = Lab::start(&LabConfig::new(vec![disk])).unwrap();
        let mut bench = Bench::on_mmio(lab, BlkConfig::default());
        assert_eq!(bench.state(), UnitState::Ready, "{version:?}: {:?}", bench.events);
        let content = exercise(&mut bench, content);
        for on in [false, true] {
            bench.one(Request::manage(Management::SetWriteCache(on))).unwrap();
        }
        assert_eq!(bench.counter("device-resets"), 0, "{version:?}: {:?}", bench.events);
        drop(bench);
        assert!(std::fs::read(file.path()).unwrap() == content, "{version:?}");
    }
}

/// A function with an IOMMU before it, as far as its driver is told.
struct Confined(LabDevice);

impl Device for Confined {
    type Registers = LabRegisters;

    fn identity(&self) -> Identity {
        self.0.identity()
    }

    fn config(&mut self) -> &mut dyn ConfigSpace {
        self.0.config()
    }

    fn map_bar(&mut self, bar: u8) -> Result<LabRegisters, HwError> {
        self.0.map_bar(bar)
    }

    fn open_ports(&mut self, bar: u8) -> Result<LabRegisters, HwError> {
        self.0.open_ports(bar)
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.0.dma()
    }

    fn translates_addresses(&self) -> bool {
        true
    }

    fn enable_interrupts(&mut self, wanted: VectorRange) -> Result<Vectors, HwError> {
        self.0.enable_interrupts(wanted)
    }

    fn disable_interrupts(&mut self) {
        self.0.disable_interrupts();
    }

    fn reset(&mut self) -> Result<(), HwError> {
        self.0.reset()
    }
}

#[test]
fn a_device_that_would_bypass_an_iommu_is_left_alone() {
    let (new, old) = (VirtioVersion::Modern, VirtioVersion::Legacy);
    let cases = [(new, true), (new, false), (VirtioVersion::Transitional, false), (old, false)];
    let disks = cases.map(|(version, access_platform)| {
        let virtio = VirtioConfig { version, access_platform, ..VirtioConfig::default() };
        DiskConfig::null(1 << 20).over(virtio)
    });
    let lab = Lab::start(&LabConfig::new(disks.into())).unwrap();
    let functions = lab.functions().iter().filter(|f| outboard_virtio::is_disk(&f.identity));
    for (function, (version, confined)) in functions.zip(cases) {
        let (device, _) = lab.open(function.address).unwrap();
        match PciTransport::new(Confined(device)) {
            Ok(_) => assert!(confined, "{version:?}"),
            Err(error) => {
                assert_eq!((error, confined), (VirtioError::BypassesIommu, false), "{version:?}");
            }
        }
    }
}

#[test]
fn places_without_a_device_are_told_from_those_with_one() {
    let fixed = DiskConfig::null(1 << 20).over_mmio(VirtioConfig::default());
    let lab = Lab::start(&LabConfig::new(vec![fixed])).unwrap();
    let (registers, _) = lab.open_mmio(1).unwrap();
    let nothing = MmioTransport::new(registers, lab.dma()).unwrap_err();
    assert_eq!(nothing, VirtioError::NoDevice);
    assert!(matches!(lab.open_mmio(8), Err(LabError::NoPlace(8))));
}

#[test]
fn what_does_not_fit_into_a_machine_without_pci_is_refused() {
    let fixed = || DiskConfig::null(1 << 20).over_mmio(VirtioConfig::default());
    let version = VirtioVersion::Legacy;
    let old = fixed().over_mmio(VirtioConfig { version, ..VirtioConfig::default() });
    for disks in [vec![fixed(), DiskConfig::null(1 << 20)], vec![fixed(), old], vec![fixed(); 9]] {
        let refused = Lab::start(&LabConfig::new(disks));
        assert!(matches!(refused, Err(LabError::NotOverMmio)), "{refused:?}");
    }
    let other = LabConfig { machine: Machine::Pc, ..LabConfig::new(vec![fixed()]) };
    assert!(matches!(Lab::start(&other), Err(LabError::NotOverMmio)));
    let interrupts = Some(InterruptKind::Msi);
    let messages = LabConfig { interrupts, ..LabConfig::new(vec![fixed()]) };
    assert!(matches!(Lab::start(&messages), Err(LabError::NoMessages)));
}

#[test]
fn the_pin_does_as_well_as_messages() {
    let (modern, legacy) = (VirtioVersion::Modern, VirtioVersion::Legacy);
    for (version, packed) in [(modern, false), (modern, true), (legacy, false)] {
        let content = noise(5, 2 << 20);
        let file = image(&content);
        let virtio = VirtioConfig { version, packed, ..VirtioConfig::default() };
        let mut lab = LabConfig::new(vec![disk(file.path()).over(virtio)]);
        lab.interrupts = Some(InterruptKind::Pin);
        let mut bench = Bench::with(lab, BlkConfig::default());
        let content = exercise(&mut bench, content);
        drop(bench);
        assert!(std::fs::read(file.path()).unwrap() == content);
    }
}

#[test]
fn what_was_done_is_found_by_looking_while_interrupts_are_masked() {
    for event_index in [false, true] {
        let content = noise(6, 2 << 20);
        let file = image(&content);
        let virtio = VirtioConfig { event_index, ..VirtioConfig::default() };
        let mut bench = Bench::new(disk(file.path()).over(virtio));
        bench.deaf = true;
        bench.driver.mask(true);
        for round in 0..100 {
            let mut buffer = bench.buffer(512);
            buffer.write_bytes(0, &noise(round, 512));
            let data = SgList::single(buffer, 0..512);
            bench.submit(round, Request::write(round, 1, data, Durability::Cached));
            bench.driver.kick(now());
            while bench.done.is_empty() {
                bench.turn();
            }
            bench.done.clear();
        }
        bench.deaf = false;
        bench.driver.mask(false);
        assert!(bench.read(99, 1).unwrap() == noise(99, 512));
        bench.driver.mask(true);
        bench.driver.mask(false);
        assert!(bench.read(0, 1).unwrap() == noise(0, 512));
    }
}

#[test]
fn features_can_be_left_alone() {
    let content = noise(7, 2 << 20);
    let file = image(&content);
    let virtio = VirtioConfig { packed: true, ..VirtioConfig::default() };
    let without = Features::PACKED | Features::INDIRECT | Features::EVENT_INDEX;
    let lab = LabConfig::new(vec![disk(file.path()).over(virtio)]);
    let mut bench = Bench::with(lab, BlkConfig { without, ..BlkConfig::default() });
    exercise(&mut bench, content);
}

#[test]
fn a_disk_is_what_its_configuration_says() {
    let file = image(&noise(1, 4 << 20));
    let bench = Bench::new(disk(file.path()));
    let unit = bench.driver.unit(UnitId(0)).unwrap().clone();
    drop(bench);
    assert_eq!(unit.identity.serial, "LAB-disk0.0");
    assert_eq!((unit.geometry.sector_bytes, unit.geometry.sectors), (512, 8192));
    assert!(unit.geometry.write_cache && !unit.geometry.read_only);
    assert_eq!(unit.geometry.queue_depth, 256);
    assert!(unit.geometry.max_discard_sectors > 0);

    let large = DiskConfig { sector_bytes: 4096, ..disk(file.path()) };
    let bench = Bench::new(large.read_only());
    let geometry = bench.driver.unit(UnitId(0)).unwrap().geometry;
    assert_eq!((geometry.sector_bytes, geometry.physical_sector_bytes), (4096, 4096));
    assert_eq!(geometry.sectors, 1024);
    assert!(geometry.read_only);
}

#[test]
fn large_sectors_carry_data() {
    let content = noise(8, 8 << 20);
    let file = image(&content);
    let large = DiskConfig { sector_bytes: 4096, ..disk(file.path()) };
    let mut bench = Bench::new(large);
    let content = exercise(&mut bench, content);
    drop(bench);
    assert!(std::fs::read(file.path()).unwrap() == content);
}

#[test]
fn what_cannot_be_is_refused() {
    let file = image(&noise(9, 1 << 20));
    let mut bench = Bench::new(disk(file.path()).read_only());
    let mut refused = |request| {
        let refused = bench.driver.submit(UnitId(0), Tag(1), request).unwrap_err();
        refused.reason
    };
    let nothing = || SgList::EMPTY;
    assert_eq!(
        refused(Request::write(0, 1, nothing(), Durability::Cached)),
        RefusedReason::WriteProtected
    );
    assert_eq!(refused(Request::discard(0, 1)), RefusedReason::WriteProtected);
    assert_eq!(refused(Request::read(0, 0, nothing())), RefusedReason::TooLong);
    assert_eq!(refused(Request::read(0, 1, nothing())), RefusedReason::BadMemory);
    let end = RefusedReason::OutOfRange { sectors: 2048 };
    assert_eq!(refused(Request::read(2048, 1, nothing())), end);
    assert_eq!(refused(Request::read(u64::MAX, 1, nothing())), end);
    assert_eq!(refused(Request::manage(Management::ReadHealth)), RefusedReason::Unsupported);
}

#[test]
fn the_write_cache_can_be_switched() {
    let file = image(&noise(10, 1 << 20));
    let mut bench = Bench::new(disk(file.path()));
    for on in [false, true] {
        bench.one(Request::manage(Management::SetWriteCache(on))).unwrap();
        assert_eq!(bench.driver.unit(UnitId(0)).unwrap().geometry.write_cache, on);
        bench.write(5, &noise(11, 512), Durability::Durable).unwrap();
    }
    // Flushed only while there was a cache.
    assert!(bench.read(5, 1).unwrap() == noise(11, 512));
}

#[test]
fn what_is_discarded_is_given_back() {
    use std::os::unix::fs::MetadataExt;
    let file = image(&noise(12, 8 << 20));
    let mut bench = Bench::new(disk(file.path()));
    bench.one(Request::flush()).unwrap();
    let before = file.path().metadata().unwrap().blocks();
    bench.one(Request::discard(2048, 8192)).unwrap();
    bench.one(Request::flush()).unwrap();
    let after = file.path().metadata().unwrap().blocks();
    assert!(after + 8192 <= before, "{before} blocks before, {after} after");
}

#[test]
fn zeros_are_written_without_data_and_with_or_without_giving_room_back() {
    use std::os::unix::fs::MetadataExt;
    let mut content = noise(12, 8 << 20);
    let file = image(&content);
    let mut bench = Bench::new(disk(file.path()));
    let blocks = || file.path().metadata().unwrap().blocks();
    let before = blocks();
    for (room, lba, sectors) in [(Room::Keep, 1024, 1024), (Room::GiveBack, 4096, 8192)] {
        bench.one(Request::clear(Operation::WriteZeroes(room), lba, sectors)).unwrap();
        content[lba as usize * 512..][..sectors as usize * 512].fill(0);
    }
    bench.one(Request::flush()).unwrap();
    assert_eq!(bench.counter("zeros"), 2);
    let after = blocks();
    // What was to be given back is, but for what the file system needs itself.
    assert!(after + 8000 <= before, "{before} blocks before, {after} after");
    assert!(after + 8600 > before, "what was to keep its room did: {before}, {after}");
    drop(bench);
    assert!(std::fs::read(file.path()).unwrap() == content);
}

/// Says one thing to QEMU's monitor, and waits for the answer.
fn tell(monitor: &Path, what: &str) {
    let stream = UnixStream::connect(monitor).unwrap();
    let mut answers = BufReader::new(&stream).lines();
    for command in [r#"{"execute": "qmp_capabilities"}"#, what] {
        (&stream).write_all(command.as_bytes()).unwrap();
        let answer = answers.find(|line| line.as_ref().is_ok_and(|line| !line.contains("QMP")));
        assert!(answer.unwrap().unwrap().contains("return"), "{command}");
    }
}

#[test]
fn another_size_is_another_generation() {
    let folder = tempfile::tempdir().unwrap();
    let monitor = folder.path().join("monitor");
    for packed in [false, true] {
        let file = image(&noise(14, 2 << 20));
        let virtio = VirtioConfig { packed, ..VirtioConfig::default() };
        let socket = format!("socket,id=qmp,path={},server=on,wait=off", monitor.display());
        let lab = LabConfig::new(vec![disk(file.path()).over(virtio)]);
        let lab = lab.with_arguments(["-chardev", &socket, "-mon", "chardev=qmp,mode=control"]);
        let mut bench = Bench::with(lab, BlkConfig::default());
        let was = bench.driver.unit(UnitId(0)).unwrap().generation;
        for (bytes, generation) in [(4 << 20, was + 1), (1 << 20, was + 2)] {
            let size = format!(r#"{{"node-name": "disk0.0", "size": {bytes}}}"#);
            tell(&monitor, &format!(r#"{{"execute": "block_resize", "arguments": {size}}}"#));
            bench.run_until(|bench| {
                let unit = bench.driver.unit(UnitId(0)).unwrap();
                (unit.geometry.bytes(), unit.generation) == (bytes, generation)
            });
            let last = bytes / 512 - 1;
            bench.write(last, &noise(15, 512), Durability::Durable).unwrap();
            assert!(bench.read(last, 1).unwrap() == noise(15, 512));
            let buffer = bench.buffer(512);
            let behind = Request::read(last + 1, 1, SgList::single(buffer, 0..512));
            let refused = bench.driver.submit(UnitId(0), Tag(1), behind).unwrap_err();
            assert_eq!(refused.reason, RefusedReason::OutOfRange { sectors: last + 1 });
        }
        assert_eq!(bench.counter("device-resets"), 0);
    }
}

#[test]
fn a_bad_sector_is_an_error_of_its_request_alone() {
    let content = noise(13, 1 << 20);
    let file = image(&content);
    let [read, write] = Fault::bad_sector(100);
    let mut bench = Bench::new(disk(file.path()).with_fault(read).with_fault(write));
    assert_eq!(bench.read(100, 1), Err(BlockError::Media { lba: Some(100) }));
    assert_eq!(bench.read(96, 8), Err(BlockError::Media { lba: None }));
    assert!(bench.read(101, 8).unwrap() == content[101 * 512..109 * 512]);
    assert_eq!(bench.counter("device-errors"), 2);
    assert_eq!(bench.counter("device-resets"), 0);
}

#[test]
fn the_death_of_the_device_ends_what_it_had() {
    let mut bench = Bench::new(DiskConfig::null(1 << 20).over(VirtioConfig::default()));
    let pid = Pid::from_raw(bench.lab.process_id() as i32).unwrap();
    let buffer = bench.buffer(512);
    bench.submit(1, Request::read(0, 1, SgList::single(buffer, 0..512)));
    kill_process(pid, Signal::KILL).unwrap();
    // Its registers read as ones, which is found by looking, as no interrupt comes.
    bench.driver.kick(now());
    bench.run_until(|bench| !bench.done.is_empty());
    assert_eq!(bench.done[0].result, Err(BlockError::Gone));
    assert_eq!(bench.state(), UnitState::Failed(FailedReason::Removed));
    assert!(bench.driver.is_stopped());
}

#[test]
fn a_driver_that_is_stopped_leaves_the_device_at_rest_for_the_next() {
    let content = noise(14, 1 << 20);
    let file = image(&content);
    let mut bench = Bench::new(disk(file.path()));
    let buffer = bench.buffer(4096);
    bench.submit(1, Request::read(8, 8, SgList::single(buffer, 0..4096)));
    bench.driver.stop();
    bench.driver.kick(now());
    bench.run_until(|bench| bench.driver.is_stopped());
    assert_eq!(bench.done.len(), 1);
    assert_eq!(bench.done[0].result, Ok(()));
    let mut bench = Bench::on(bench.end(), BlkConfig::default());
    assert!(bench.read(8, 8).unwrap() == content[8 * 512..16 * 512]);
}
