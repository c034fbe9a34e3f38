//! The machine: its command line, its memory map, its functions.

mod mmio;

use crate::config::{
    Bus, DiskConfig, DiskKind, FaultAt, LabConfig, Machine, Media, VirtioConfig, VirtioVersion,
};
use crate::device::{LabDevice, LabInterrupts, Shared};
use crate::doorbell::{Doorbell, VECTORS};
use crate::process::Process;
use crate::qtest::{Death, PATIENCE, Qtest};
use crate::registers::{ECAM_BASE, LabConfigSpace, LabPorts, LabRegisters};
use crate::{CardConfig, LabError, image, version};
use outboard_hw::dma::{Arena, DmaSpace};
use outboard_linux::{MappedRange, SharedMemory};
use outboard_pci::assign::Assigned;
use outboard_pci::config::{ConfigAccess, Ecam, FunctionConfig, PortConfig};
use outboard_pci::header::Command as PciCommand;
use outboard_pci::{Address, Function, Numbering, Windows, assign, scan};
use serde_json::{Value, json};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

/// Controllers that fit on the root bus beside everything else.
const MAX_CONTROLLERS: usize = 16;
/// DMA memory starts above the first MiB, whose upper part is no memory on a PC.
const DMA_START: usize = 1 << 20;
/// Register of the host bridge that places the ECAM region (Intel Q35 datasheet, §5.1.16).
const PCIEXBAR: u16 = 0x60;
/// Where the processor starts, 16 bytes below the end of the ROM: `cli; hlt; jmp` to the `hlt`.
const RESET_VECTOR: usize = ROM_BYTES - 16;
const SLEEP: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];
const ROM_BYTES: usize = 64 << 10;

/// What the root bus of the machine decodes.
fn windows() -> Windows {
    Windows {
        io: 0x1000..0x1_0000,
        memory: 0xc000_0000..0xfec0_0000,
        prefetchable: 0x80_0000_0000..0x100_0000_0000,
    }
}

/// A running lab. Dropping it ends QEMU, after QEMU has closed the images.
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
    process: Process,
    functions: Vec<Function>,
    assigned: Assigned,
}

impl Lab {
    /// Starts QEMU, finds its devices and gives them addresses.
    pub fn start(config: &LabConfig) -> Result<Self, LabError> {
        let program = version::find(config.program.as_deref())?;
        config.disks.iter().try_for_each(image::check)?;
        let disks = LabConfig::controllers(&config.disks).count();
        let controllers = disks + config.cards.len();
        let fixed = |disk: &DiskConfig| matches!(disk.bus, Bus::VirtioMmio(_));
        if config.machine == Machine::Pc && config.disks.iter().any(fixed) {
            return Err(LabError::NotOverMmio);
        }
        if controllers > MAX_CONTROLLERS {
            let (wanted, most) = (controllers, MAX_CONTROLLERS);
            return Err(LabError::TooManyControllers { wanted, most });
        }
        let (wanted, most) = (config.dma_bytes, LabConfig::MAX_DMA_BYTES);
        if wanted > most {
            return Err(LabError::TooMuchMemory { wanted, most });
        }
        let memory_failed = LabError::system("making the lab's memory");
        let ram = DMA_START + config.dma_bytes.next_multiple_of(1 << 20);
        let memory = Arc::new(SharedMemory::new("lab-ram", ram).map_err(&memory_failed)?);
        let rom = rom().map_err(&memory_failed)?;
        let pair =
            || UnixStream::pair().map_err(|error| LabError::System { what: "socketpair", error });
        let ((qtest, qtest_there), (doorbell, doorbell_there)) = (pair()?, pair()?);
        let doorbell = Doorbell::serve(doorbell)?;

        let mut command = Command::new(program);
        let inherited = [memory.as_fd(), rom.as_fd(), qtest_there.as_fd(), doorbell_there.as_fd()];
        let inherited = inherited.map(|fd| fd.as_raw_fd());
        command.args(machine_arguments(config.machine, ram, inherited));
        match config.machine {
            Machine::Pc => {
                for (number, disks) in LabConfig::controllers(&config.disks).enumerate() {
                    add_controller(&mut command, number, disks);
                }
            }
            Machine::MicroV1 | Machine::MicroV2 => mmio::add_disks(&mut command, config)?,
        }
        for (number, card) in config.cards.iter().enumerate() {
            card.add(&mut command, number, 1 + disks + number);
        }
        command.args(&config.arguments);
        let wires = config.cards.iter().filter_map(CardConfig::descriptor);
        let process = Process::start(command, inherited.into_iter().chain(wires).collect())?;
        drop((qtest_there, doorbell_there));

        // SAFETY is the platform crate's: see `map_memory`.
        let arena = Arena::new(map_memory(memory, DMA_START..ram));
        Self::set_up(process, Qtest::new(qtest)?, doorbell, arena, config)
    }

    fn set_up(
        mut process: Process,
        qtest: Qtest,
        doorbell: Doorbell,
        arena: Arena,
        config: &LabConfig,
    ) -> Result<Self, LabError> {
        let qtest = Arc::new(qtest);
        if qtest.greet().is_none() {
            return Err(explain(&mut process, &qtest, &config.disks));
        }
        let (interrupts, open) = (config.interrupts, Mutex::default());
        if config.machine != Machine::Pc {
            let shared = Shared { qtest, doorbell, doorbell_base: 0, arena, interrupts, open };
            let (functions, assigned) = Default::default();
            return Ok(Self { shared: Arc::new(shared), process, functions, assigned });
        }
        let mut ports = PortConfig::new(LabPorts(qtest.clone()));
        let host_bridge = Address::new(0, 0, 0, 0);
        ports.write_u32(host_bridge, PCIEXBAR, ECAM_BASE as u32 | 1);
        let mut ecam = ecam(&qtest);
        let functions = scan(&mut ecam, 0, 0, Numbering::AssignMissing);
        let assigned = assign(&mut ecam, &functions, &windows());
        for (address, bar) in &assigned.unplaced {
            log::warn!("{address}: no address for BAR {} of {:#x} bytes", bar.index, bar.bytes);
        }
        let doorbell_base = open_doorbell(&mut ecam, &functions, &assigned);
        let Some(doorbell_base) = doorbell_base.filter(|_| qtest.death().is_none()) else {
            return Err(explain(&mut process, &qtest, &config.disks));
        };
        let shared = Shared { qtest, doorbell, doorbell_base, arena, interrupts, open };
        Ok(Self { shared: Arc::new(shared), process, functions, assigned })
    }

    /// The functions of the machine, in the order of their addresses on each bus.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The base address registers of the machine's functions.
    pub const fn resources(&self) -> &Assigned {
        &self.assigned
    }

    /// Configuration space by the ports 0xCF8 and 0xCFC. Not to be used while another user of the
    /// ports is between two steps.
    pub fn port_config(&self) -> impl ConfigAccess + use<> {
        PortConfig::new(LabPorts(self.shared.qtest.clone()))
    }

    /// Configuration space by ECAM.
    pub fn ecam_config(&self) -> impl ConfigAccess + use<> {
        ecam(&self.shared.qtest)
    }

    /// The DMA memory of the lab.
    pub fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::new(self.shared.arena.clone())
    }

    /// Takes a function for a driver. It can be taken again once the device was dropped.
    pub fn open(&self, address: Address) -> Result<(LabDevice, LabInterrupts), LabError> {
        let function = self.functions.iter().find(|function| function.address == address);
        let unplaced = self.assigned.unplaced.iter().any(|(at, _)| *at == address);
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(function) = function.filter(|_| !unplaced && open.insert(address)) else {
            return Err(LabError::NoFunction(address));
        };
        let bars = self.assigned.of(address).copied().collect();
        let config = LabConfigSpace::new(ecam(&self.shared.qtest), address);
        Ok(LabDevice::new(self.shared.clone(), function.clone(), bars, config))
    }

    /// Takes the virtio device at a fixed address, of a machine without PCI, for a driver: the disks
    /// come first, in their order. Whoever takes one twice has two drivers in each other's way.
    pub fn open_mmio(&self, place: usize) -> Result<(LabRegisters, LabInterrupts), LabError> {
        mmio::open(&self.shared, place).ok_or(LabError::NoPlace(place))
    }

    /// Readable once QEMU has ended.
    pub fn ended_descriptor(&self) -> BorrowedFd<'_> {
        self.process.pidfd()
    }

    /// Process ID of QEMU.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Whether the lab still works; the error says why not.
    pub fn check(&mut self) -> Result<(), LabError> {
        if let Some(error) = self.process.ended() {
            return Err(error);
        }
        match self.shared.qtest.death() {
            Some(_) => Err(explain(&mut self.process, &self.shared.qtest, &[])),
            None => Ok(()),
        }
    }
}

fn ecam(qtest: &Arc<Qtest>) -> Ecam<LabRegisters> {
    Ecam::new(LabRegisters::ecam(qtest.clone()), 0, 0).expect("the region covers 256 buses")
}

/// The lab's RAM from `range.start` on, for an arena. It lies in guest memory at the same offset.
#[allow(unsafe_code)]
fn map_memory(memory: Arc<SharedMemory>, range: std::ops::Range<usize>) -> MappedRange {
    let device = range.start as u64;
    // SAFETY: the memory was made for this lab; nothing else here uses it, QEMU maps it as guest
    // RAM from address 0 on, and on this machine up to 2 GiB of RAM, of which `start` asks for no
    // more, are contiguous (S2, S3, S4).
    unsafe { MappedRange::new(memory, range, device) }
}

/// The machine's ROM: all `hlt`, and at the reset vector a program that sleeps.
fn rom() -> rustix::io::Result<SharedMemory> {
    let rom = SharedMemory::new("lab-rom", ROM_BYTES)?;
    let mut bytes = vec![SLEEP[1]; ROM_BYTES];
    bytes[RESET_VECTOR..][..SLEEP.len()].copy_from_slice(&SLEEP);
    rustix::io::pwrite(&rom, &bytes, 0)?;
    Ok(rom)
}

fn machine_arguments(machine: Machine, ram: usize, inherited: [i32; 4]) -> Vec<String> {
    let [memory, rom, qtest, doorbell] = inherited;
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
    // -sandbox: QEMU needs to start no other program.
    add(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
    );
    add("-display", "none".into());
    let kind = match machine {
        Machine::Pc => "q35,sata=off,usb=off,vmport=off,smm=off,hpet=off",
        Machine::MicroV1 | Machine::MicroV2 => mmio::MACHINE,
    };
    add("-machine", format!("{kind},accel=tcg,memory-backend=ram"));
    add("-m", format!("{}k", ram >> 10));
    let ram =
        format!("memory-backend-file,id=ram,size={ram},mem-path=/proc/self/fd/{memory},share=on");
    add("-object", ram);
    add("-bios", format!("/proc/self/fd/{rom}"));
    add("-chardev", format!("socket,id=qtest,fd={qtest}"));
    add("-qtest", "chardev:qtest".into());
    add("-qtest-log", "none".into());
    if machine == Machine::Pc {
        add("-chardev", format!("socket,id=doorbell,fd={doorbell}"));
        add("-device", format!("ivshmem-doorbell,chardev=doorbell,vectors={VECTORS},addr=0x1e"));
    } else {
        let legacy = if machine == Machine::MicroV1 { "on" } else { "off" };
        add("-global", format!("virtio-mmio.force-legacy={legacy}"));
    }
    ["-nodefaults", "-no-user-config"].map(str::to_owned).into_iter().chain(arguments).collect()
}

/// Adds a controller and its disks.
fn add_controller(command: &mut Command, number: usize, disks: &[DiskConfig]) {
    let address = format!("{:#x}", number + 1);
    if disks.iter().all(|disk| disk.bus == Bus::Ahci) {
        command.arg("-device").arg(format!("ich9-ahci,id=ahci{number},addr={address}"));
    }
    for (port, disk) in disks.iter().enumerate() {
        let node = format!("disk{number}.{port}");
        let bus = format!("ahci{number}.{port}");
        match (&disk.bus, disk.kind) {
            (Bus::Virtio(virtio), _) => add_virtio(command, &node, &address, disk, virtio),
            (Bus::Ahci, DiskKind::Cd) => add_cd(command, &node, &bus, disk),
            (Bus::Ahci, DiskKind::Disk) => add_disk(command, &node, &bus, disk),
            (Bus::VirtioMmio(_), _) => {}
        }
    }
}

fn add_disk(command: &mut Command, node: &str, bus: &str, disk: &DiskConfig) {
    if disk.read_only && matches!(disk.media, Media::Image { .. }) {
        // QEMU's disks refuse read-only images, so writes go to a temporary file, and are refused
        // before they get there. Only -drive has that.
        let mut drive = format!("if=none,id={node},snapshot=on,driver={}", format_name(disk));
        add_dotted(&mut drive, "file", &storage(disk));
        command.arg("-drive").arg(drive);
    } else {
        let (format, file) = (format_name(disk), storage(disk));
        let node = json!({"driver": format, "node-name": node, "file": file, "discard": "unmap"});
        command.arg("-blockdev").arg(node.to_string());
    }
    let device = json!({
        "driver": "ide-hd",
        "drive": node,
        "bus": bus,
        "physical_block_size": disk.sector_bytes,
        "rerror": "report",
        "werror": "report",
    });
    command.arg("-device").arg(device.to_string());
}

/// Adds a virtio device. Such disks take read-only images, and have sectors of any size.
fn add_virtio(
    command: &mut Command,
    node: &str,
    address: &str,
    disk: &DiskConfig,
    virtio: &VirtioConfig,
) {
    let on = |value| if value { "on" } else { "off" };
    let mut device = virtio_disk(command, node, disk, virtio);
    device["driver"] = "virtio-blk-pci".into();
    device["addr"] = address.into();
    device["disable-legacy"] = on(virtio.version == VirtioVersion::Modern).into();
    device["disable-modern"] = (virtio.version == VirtioVersion::Legacy).into();
    command.arg("-device").arg(device.to_string());
}

/// Adds what is behind a virtio disk; the device, without what depends on how it is attached.
fn virtio_disk(
    command: &mut Command,
    node: &str,
    disk: &DiskConfig,
    virtio: &VirtioConfig,
) -> Value {
    let (format, file) = (format_name(disk), storage(disk));
    let node_of_image = json!({
        "driver": format,
        "node-name": node,
        "file": file,
        "discard": "unmap",
        "read-only": disk.read_only,
    });
    command.arg("-blockdev").arg(node_of_image.to_string());
    json!({
        "drive": node,
        "serial": format!("LAB-{node}"),
        "packed": virtio.packed,
        "num-queues": virtio.queues,
        "queue-size": virtio.queue_entries,
        "indirect_desc": virtio.indirect,
        "event_idx": virtio.event_index,
        "iommu_platform": virtio.access_platform,
        "logical_block_size": disk.sector_bytes,
        "physical_block_size": disk.sector_bytes,
        "share-rw": false,
        "rerror": "report",
        "werror": "report",
    })
}

/// Adds a CD drive with a disc in it. Such drives take read-only images.
fn add_cd(command: &mut Command, node: &str, bus: &str, disk: &DiskConfig) {
    let (format, file) = (format_name(disk), storage(disk));
    let disc = json!({"driver": format, "node-name": node, "file": file, "read-only": true});
    command.arg("-blockdev").arg(disc.to_string());
    let device = json!({"driver": "ide-cd", "drive": node, "bus": bus, "rerror": "report"});
    command.arg("-device").arg(device.to_string());
}

/// What a disk's bytes come from, below their format. The driver is named, so that no name of an
/// image is taken for a protocol's.
fn storage(disk: &DiskConfig) -> Value {
    let storage = match &disk.media {
        Media::Null { bytes } => json!({"driver": "null-co", "size": bytes, "read-zeroes": true}),
        Media::Image { path, .. } => {
            let device = path.metadata().is_ok_and(|metadata| !metadata.is_file());
            let driver = if device { "host_device" } else { "file" };
            json!({"driver": driver, "filename": path.to_string_lossy(), "aio": aio()})
        }
    };
    if disk.faults.is_empty() {
        return storage;
    }
    json!({"driver": "blkdebug", "image": storage, "inject-error": faults(disk)})
}

const fn format_name(disk: &DiskConfig) -> &'static str {
    match disk.media {
        Media::Image { format, .. } => format.name(),
        Media::Null { .. } => "raw",
    }
}

/// Adds a value to an option that takes no JSON: dots lead to values inside, commas are doubled.
fn add_dotted(option: &mut String, key: &str, value: &Value) {
    let text = match value {
        Value::Object(inner) => {
            return inner.iter().for_each(|(k, v)| add_dotted(option, &format!("{key}.{k}"), v));
        }
        Value::Array(inner) => {
            let inner = inner.iter().enumerate();
            return inner.for_each(|(i, v)| add_dotted(option, &format!("{key}.{i}"), v));
        }
        Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
        Value::String(text) => text.replace(',', ",,"),
        Value::Number(_) | Value::Null => value.to_string(),
    };
    *option += &format!(",{key}={text}");
}

fn faults(disk: &DiskConfig) -> Vec<Value> {
    let rules = disk.faults.iter().map(|fault| {
        let event = match fault.at {
            FaultAt::Read => "read_aio",
            FaultAt::Write => "write_aio",
            FaultAt::Flush => "flush_to_disk",
        };
        let mut rule = json!({"event": event, "errno": 5, "once": fault.once});
        if let Some(sector) = fault.sector {
            rule["sector"] = sector.into();
        }
        rule
    });
    rules.collect()
}

/// How QEMU is to do its I/O: by io_uring where this kernel lets it, else by threads.
fn aio() -> &'static str {
    // Containers often forbid io_uring, and QEMU then refuses to start with it.
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    match disabled.as_deref().map(str::trim) {
        Ok("0") => "io_uring",
        _ => "threads",
    }
}

/// Switches the doorbell's registers on; returns where they are.
fn open_doorbell(
    ecam: &mut Ecam<LabRegisters>,
    functions: &[Function],
    assigned: &Assigned,
) -> Option<u64> {
    const IVSHMEM: (u16, u16) = (0x1af4, 0x1110);
    let found = functions.iter().find(|f| (f.identity.vendor, f.identity.device) == IVSHMEM)?;
    let mut config = FunctionConfig::new(ecam, found.address);
    PciCommand::change(&mut config, PciCommand::MEMORY, PciCommand::empty());
    assigned.of(found.address).find(|bar| bar.index == 0).map(|bar| bar.base)
}

/// The error behind a lab that does not answer.
fn explain(process: &mut Process, qtest: &Qtest, disks: &[DiskConfig]) -> LabError {
    match qtest.death() {
        Some(Death::Protocol { command, answer }) => {
            LabError::Protocol { command: command.clone(), answer: answer.clone() }
        }
        Some(Death::Silent) => {
            process.kill();
            LabError::Silent { seconds: PATIENCE.as_secs() }
        }
        // The connection ends a moment before the process does.
        Some(Death::Ended) | None => {
            process.wait_for_end(2);
            let error = process.ended().unwrap_or(LabError::Silent { seconds: 2 });
            name_busy_image(error, disks)
        }
    }
}

/// QEMU says "Failed to get "write" lock" and the like, but not of which image.
fn name_busy_image(error: LabError, disks: &[DiskConfig]) -> LabError {
    let LabError::Ended { stderr: Some(text), .. } = &error else { return error };
    if !text.contains(" lock") {
        return error;
    }
    let mut images = disks.iter().filter_map(|disk| match &disk.media {
        Media::Image { path, .. } => Some(path),
        Media::Null { .. } => None,
    });
    let named = images.rfind(|path| text.contains(&*path.to_string_lossy()));
    match (named, disks) {
        (Some(path), _) => LabError::ImageBusy(path.clone()),
        (None, [DiskConfig { media: Media::Image { path, .. }, .. }]) => {
            LabError::ImageBusy(path.clone())
        }
        _ => error,
    }
}
