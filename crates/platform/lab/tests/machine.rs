//! The lab against a real QEMU: what it finds, and what it says when things go wrong.

use outboard_hw::interrupt::{InterruptKind, VectorRange};
use outboard_hw::registers::Registers;
use outboard_lab::{DiskConfig, Fault, Lab, LabConfig, LabError};
use outboard_linux::InterruptSource;
use outboard_pci::config::ConfigAccess;
use outboard_pci::{Claimed, Device};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

fn lab(disks: Vec<DiskConfig>) -> Lab {
    Lab::start(&LabConfig::new(disks)).unwrap()
}

fn ahci(lab: &Lab) -> outboard_pci::Address {
    let found = lab.functions().iter().find(|function| function.identity.class.base == 0x01);
    found.unwrap().address
}

/// Waits until one of the interrupts' descriptors is readable; which vectors fired.
fn wait(interrupts: &mut impl InterruptSource) -> Vec<u16> {
    interrupts.wait(Duration::from_secs(10)).unwrap();
    let mut fired = Vec::new();
    interrupts.take(&mut |vector| fired.push(vector));
    fired
}

#[test]
fn both_ways_into_configuration_space_show_the_same() {
    let lab = lab(vec![DiskConfig::null(1 << 20)]);
    let (mut ports, mut ecam) = (lab.port_config(), lab.ecam_config());
    for function in lab.functions() {
        for offset in (0..256).step_by(4) {
            let by_ports = ports.read_u32(function.address, offset);
            let by_memory = ecam.read_u32(function.address, offset);
            assert_eq!(by_ports, by_memory, "{} at {offset:#x}", function.address);
        }
    }
    let classes: Vec<_> = lab.functions().iter().map(|f| f.identity.class.to_string()).collect();
    assert!(classes.contains(&"010601".to_owned()), "{classes:?}");
}

/// QEMU's own view of the machine, by its monitor.
fn query_pci(listener: UnixListener) -> serde_json::Value {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    for command in ["qmp_capabilities", "query-pci"] {
        writeln!(&stream, "{{\"execute\": \"{command}\"}}").unwrap();
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    serde_json::from_str::<serde_json::Value>(&line).unwrap()["return"].clone()
}

/// Every region that QEMU itself says is mapped, as (bus, slot, function, bar, address, size).
fn regions(bus: &serde_json::Value, found: &mut Vec<(u64, u64, u64, u64, u64, u64)>) {
    for device in bus["devices"].as_array().unwrap() {
        let number = |value: &serde_json::Value| value.as_u64().unwrap();
        for region in device["regions"].as_array().unwrap() {
            let address = region["address"].as_i64().unwrap();
            let (bus, slot) = (number(&device["bus"]), number(&device["slot"]));
            let (function, bar) = (number(&device["function"]), number(&region["bar"]));
            // Expansion ROMs (6) stay off, and unmapped regions are at -1.
            if bar < 6 && address > 0 {
                let size = number(&region["size"]);
                found.push((bus, slot, function, bar, address as u64, size));
            }
        }
        if let Some(bridge) = device.get("pci_bridge").filter(|b| b.get("devices").is_some()) {
            regions(bridge, found);
        }
    }
}

#[test]
fn qemu_agrees_on_addresses_and_buses_behind_bridges() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("qmp");
    let listener = UnixListener::bind(&socket).unwrap();
    let config = LabConfig::new(vec![DiskConfig::null(1 << 20)]).with_arguments([
        "-qmp",
        &format!("unix:{}", socket.display()),
        "-device",
        "pcie-root-port,id=port1,chassis=1,addr=0x10.0,multifunction=on",
        "-device",
        "pcie-root-port,id=port2,chassis=2,addr=0x10.1",
        "-device",
        "x3130-upstream,id=up,bus=port1",
        "-device",
        "xio3130-downstream,id=down1,bus=up,chassis=3",
        "-device",
        "xio3130-downstream,id=down2,bus=up,chassis=4",
        "-device",
        "nvme-subsys,id=subsys0",
        "-device",
        "nvme,serial=one,bus=down1",
        "-device",
        "e1000e,bus=down2",
        "-device",
        "pcie-pci-bridge,id=conventional,bus=port2",
        "-device",
        "ich9-ahci,bus=conventional,addr=3",
        "-device",
        "virtio-rng-pci,bus=conventional,addr=4",
        "-device",
        "ivshmem-plain,memdev=big,bus=conventional,addr=5",
        "-object",
        "memory-backend-ram,id=big,size=64M",
    ]);
    let lab = Lab::start(&config).unwrap();
    assert_eq!(lab.resources().unplaced, []);
    // QEMU reports a region only where it decodes, so switch everything on.
    let mut config_space = lab.ecam_config();
    for function in lab.functions() {
        config_space.write_u16(function.address, 0x04, 0x3);
    }
    let view = query_pci(listener);
    let mut theirs = Vec::new();
    view.as_array().unwrap().iter().for_each(|bus| regions(bus, &mut theirs));
    let mut ours: Vec<_> = lab
        .resources()
        .bars
        .iter()
        .map(|(at, bar)| {
            let place = (at.bus.into(), at.device().into(), at.function().into());
            (place.0, place.1, place.2, u64::from(bar.index), bar.base, bar.bytes)
        })
        .collect();
    ours.sort_unstable();
    theirs.sort_unstable();
    assert_eq!(ours, theirs);
    assert!(theirs.iter().any(|region| region.0 >= 4), "something lies several bridges deep");
}

/// Makes an AHCI controller raise an interrupt without a driver: the initial FIS of a disk arrives
/// once its port may receive.
fn raise_interrupt(device: &mut Claimed<outboard_lab::LabDevice>) {
    let received = device.device().dma();
    let received = received.allocate(4096, &outboard_hw::dma::Constraints::NONE).unwrap();
    let mut bar = device.device().map_bar(5).unwrap();
    bar.write_u32(0x04, 1 << 31 | 1 << 1); // GHC: AE, IE
    bar.write_u32(0x108, received.address().low());
    bar.write_u32(0x114, 1); // PxIE: D2H register FIS
    bar.write_u32(0x118, bar.read_u32(0x118) | 1 << 4); // PxCMD: FRE
}

#[test]
fn messages_and_pins_arrive_as_eventfds() {
    for kind in [InterruptKind::Msi, InterruptKind::Pin] {
        let mut config = LabConfig::new(vec![DiskConfig::null(1 << 20)]);
        config.interrupts = Some(kind);
        let lab = Lab::start(&config).unwrap();
        let (device, mut interrupts) = lab.open(ahci(&lab)).unwrap();
        let mut device = Claimed::new(device);
        let vectors = device.device().enable_interrupts(VectorRange::ONE).unwrap();
        assert_eq!((vectors.kind, vectors.count), (kind, 1));
        device.start_bus_master();
        raise_interrupt(&mut device);
        assert_eq!(wait(&mut interrupts), [0], "{kind:?}");
        interrupts.rearm();
        let again = kind == InterruptKind::Pin;
        let mut fired = 0;
        interrupts.take(&mut |_| fired += 1);
        assert_eq!(fired == 1, again, "a pin that is still asserted fires again, a message not");
    }
}

#[test]
fn a_function_has_one_owner_at_a_time() {
    let lab = lab(vec![DiskConfig::null(1 << 20)]);
    let address = ahci(&lab);
    let held = lab.open(address).unwrap();
    assert!(matches!(lab.open(address), Err(LabError::NoFunction(_))));
    drop(held);
    assert!(lab.open(address).is_ok());
    let nowhere = outboard_pci::Address::new(0, 9, 9, 0);
    assert!(matches!(lab.open(nowhere), Err(LabError::NoFunction(_))));
}

#[test]
fn a_claim_ends_bus_mastering() {
    let lab = lab(vec![DiskConfig::null(1 << 20)]);
    let address = ahci(&lab);
    let mut config = lab.ecam_config();
    let mut claimed = Claimed::new(lab.open(address).unwrap().0);
    assert_eq!(config.read_u16(address, 0x04) & 0x4, 0);
    claimed.start_bus_master();
    assert_eq!(config.read_u16(address, 0x04) & 0x4, 0x4);
    drop(claimed);
    assert_eq!(config.read_u16(address, 0x04) & 0x4, 0);
}

#[test]
fn the_death_of_qemu_reads_as_all_ones_and_has_an_explanation() {
    let mut lab = lab(vec![DiskConfig::null(1 << 20)]);
    let (mut device, _) = lab.open(ahci(&lab)).unwrap();
    let bar = device.map_bar(5).unwrap();
    assert_ne!(bar.read_u32(0), u32::MAX);
    assert!(lab.check().is_ok());
    kill_process(Pid::from_raw(lab.process_id() as i32).unwrap(), Signal::KILL).unwrap();
    let mut fds = [PollFd::from_borrowed_fd(lab.ended_descriptor(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap();
    assert_eq!(bar.read_u32(0), u32::MAX);
    let error = lab.check().unwrap_err().to_string();
    assert!(error.contains("signal: 9"), "{error}");
}

#[test]
fn qemu_ends_with_its_lab() {
    let lab = lab(vec![DiskConfig::null(1 << 20)]);
    let pid = Pid::from_raw(lab.process_id() as i32).unwrap();
    assert!(test_kill_process(pid).is_ok());
    let began = Instant::now();
    drop(lab);
    assert!(test_kill_process(pid).is_err());
    assert!(began.elapsed().as_secs() < 5);
}

#[test]
fn images_that_cannot_be_used_are_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("empty"), b"").unwrap();
    std::fs::write(path("odd"), vec![0; 1000]).unwrap();
    std::fs::write(path("small"), vec![0; 512 * 9]).unwrap();
    let start = |disk: DiskConfig| Lab::start(&LabConfig::new(vec![disk])).map(drop);
    let refused = |disk: DiskConfig, advice: &str| {
        let error = start(disk).unwrap_err().to_string();
        assert!(error.contains(advice), "{error}");
    };
    refused(DiskConfig::image(path("missing")), "truncate -s 1G");
    refused(DiskConfig::image(path("empty")), "is empty");
    refused(DiskConfig::image(path("odd")), "truncate -s 1024");
    refused(DiskConfig::image(folder.path()), "neither a file nor a block device");
    let wide = DiskConfig { sector_bytes: 4096, ..DiskConfig::image(path("small")) };
    refused(wide, "truncate -s 8192");
    let image = DiskConfig::image(path("small"));
    let held = lab(vec![image.clone()]);
    refused(image.clone(), "in use by another process");
    refused(image.clone().read_only(), "in use by another process");
    drop(held);
    start(image).unwrap();
}

#[test]
fn a_read_only_image_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a,b.img");
    std::fs::write(&path, vec![7; 8192]).unwrap();
    let before = path.metadata().unwrap().modified().unwrap();
    let disk = DiskConfig::image(&path).read_only();
    let (first, second) = (lab(vec![disk.clone()]), lab(vec![disk]));
    drop((first, second));
    assert_eq!(path.metadata().unwrap().modified().unwrap(), before);
}

#[test]
fn an_images_name_is_not_taken_for_a_protocol() {
    // Only without a folder could it be.
    let image = tempfile::Builder::new().prefix("a,b:").tempfile_in(".").unwrap();
    image.as_file().set_len(8192).unwrap();
    let disk = DiskConfig::image(image.path().file_name().unwrap());
    drop(lab(vec![disk.clone()]));
    drop(lab(vec![disk.read_only()]));
}

/// Reads a sector of the first disk without a driver: the task file afterwards, and what came.
fn read_sector(lab: &Lab, lba: u8) -> (u32, [u8; 512]) {
    let (device, mut interrupts) = lab.open(ahci(lab)).unwrap();
    let mut device = Claimed::new(device);
    device.device().enable_interrupts(VectorRange::ONE).unwrap();
    device.start_bus_master();
    let memory = device.device().dma();
    let mut memory = memory.allocate(8192, &outboard_hw::dma::Constraints::NONE).unwrap();
    let (list, table, data) = (0, 2048, 4096);
    let low = |offset| memory.address_of(offset).low();
    let (received, table_address, data_address) = (low(1024), low(table), low(data));
    memory.write(list, &[1u32 << 16 | 5, 0, table_address]); // one range, five words of FIS
    let read_dma_ext = [0x27, 0x80, 0x25, 0, lba, 0, 0, 0x40, 0, 0, 0, 0, 1];
    memory.write_bytes(table, &read_dma_ext);
    memory.write(table + 0x80, &[data_address, 0, 0, 511u32]);
    let mut bar = device.device().map_bar(5).unwrap();
    bar.write_u32(0x04, 1 << 31 | 1 << 1); // GHC: AE, IE
    bar.write_u32(0x100, memory.address().low());
    bar.write_u32(0x108, received);
    bar.write_u32(0x118, bar.read_u32(0x118) | 1 << 4 | 1); // PxCMD: FRE, ST
    bar.write_u32(0x110, u32::MAX); // PxIS, IS: the initial FIS
    bar.write_u32(0x08, u32::MAX);
    bar.write_u32(0x114, 1 | 1 << 30); // PxIE: D2H register FIS, task file error
    bar.write_u32(0x138, 1); // PxCI
    assert_eq!(wait(&mut interrupts), [0]);
    let task_file = bar.read_u32(0x120);
    bar.write_u32(0x04, 1); // GHC: HBA reset, which takes QEMU no time
    drop(device);
    (task_file, memory.read(data))
}

#[test]
fn a_bad_sector_fails_on_a_read_only_disk_too() {
    let image = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&image, [7; 8192]).unwrap();
    for read_only in [false, true] {
        let mut disk = DiskConfig { read_only, ..DiskConfig::image(image.path()) };
        disk.faults.extend(Fault::bad_sector(3));
        let lab = lab(vec![disk]);
        let (task_file, data) = read_sector(&lab, 2);
        assert_eq!((task_file & 1, data), (0, [7; 512]));
        let (task_file, _) = read_sector(&lab, 3);
        assert_eq!(task_file & 1, 1, "ERR is set: {task_file:#x}, read_only: {read_only}");
    }
}

#[test]
fn more_memory_than_the_machine_has_in_one_piece_is_refused() {
    let mut config = LabConfig::new(vec![]);
    for dma_bytes in [LabConfig::MAX_DMA_BYTES + 1, usize::MAX] {
        config.dma_bytes = dma_bytes;
        let error = Lab::start(&config).unwrap_err().to_string();
        assert!(error.contains("ask for less"), "{error}");
    }
    config.dma_bytes = LabConfig::MAX_DMA_BYTES;
    assert_eq!(Lab::start(&config).unwrap().dma().statistics().total_bytes, config.dma_bytes);
}

#[test]
fn arguments_that_qemu_refuses_are_quoted_in_the_error() {
    let config = LabConfig::new(vec![]).with_arguments(["-device", "no-such-device"]);
    let error = Lab::start(&config).unwrap_err().to_string();
    assert!(error.contains("no-such-device"), "{error}");
}
