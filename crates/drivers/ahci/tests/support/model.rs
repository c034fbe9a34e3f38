//! A small model of an AHCI controller with disks, for trouble that QEMU's does not make.
//!
//! It shares the driver's register and structure definitions. Commands are executed when the test
//! says so, and time is the test's.

mod device;
pub mod firmware;
mod plug;

use firmware::{Answer, Firmware};
use outboard_ahci::spec::ata::command;
use outboard_ahci::spec::fis::{
    RECEIVED_REGISTER, RECEIVED_SET_DEVICE_BITS, RegisterD2h, RegisterH2d, SetDeviceBits, kind,
};
use outboard_ahci::spec::log::NcqError;
use outboard_ahci::spec::registers::*;
use outboard_ahci::spec::structures::{CommandHeader, PrdtEntry};
use outboard_hw::dma::Arena;
use outboard_linux::SharedMemory;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zerocopy::{FromBytes, IntoBytes};

/// What happens to a command that touches a certain sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It ends with this ERROR, and the address of the sector.
    Error(u8),
    /// It never ends.
    Hang,
    /// It ends well after too few bytes.
    Short,
    /// The interface fails, and the HBA stops.
    Fatal,
}

/// A disk.
#[derive(Debug, Clone)]
pub struct Disk {
    pub content: Vec<u8>,
    /// What is left of the content after a loss of power.
    durable: Vec<u8>,
    pub serial: &'static str,
    /// Whether it queues, and reports errors of queued commands in log 10h.
    pub queuing: bool,
    pub logs: bool,
    /// Faults by sector, with how often they strike.
    pub faults: BTreeMap<u64, (Fault, u32)>,
    /// A command that never ends keeps those behind it from being carried out.
    pub one_at_a_time: bool,
    stuck: bool,
    /// READ LOG EXT is aborted.
    pub log_fails: bool,
    /// The next commands that end with a damaged transfer.
    pub crc_errors: u32,
    /// How often IDENTIFY DEVICE is answered with nonsense, and no checksum.
    pub nonsense: u32,
    /// Highest generation of its link, and above which one all transfers are damaged.
    pub speed: u8,
    pub damaged_above: u8,
    /// It takes requests to save power of the link, and can be put to sleep.
    pub saves_power: bool,
    pub sleeps: bool,
    /// It has to be told to spin up.
    pub in_standby: bool,
    /// SET FEATURES is aborted.
    pub refuses_features: bool,
    /// What it was told by SET FEATURES: FEATURES and COUNT.
    pub told: Vec<(u8, u8)>,
    log: NcqError,
    pub firmware: Firmware,
}

impl Disk {
    pub fn new(sectors: u64) -> Self {
        let content = super::pattern(0, sectors);
        Self {
            durable: content.clone(),
            content,
            one_at_a_time: false,
            stuck: false,
            log_fails: false,
            serial: "MODEL1",
            queuing: true,
            logs: true,
            faults: BTreeMap::new(),
            crc_errors: 0,
            nonsense: 0,
            speed: 1,
            damaged_above: 3,
            saves_power: false,
            sleeps: false,
            in_standby: false,
            refuses_features: false,
            told: Vec::new(),
            log: NcqError::read_from_bytes(&[0; 512]).unwrap(),
            firmware: Firmware::new(),
        }
    }

    fn identify(&self) -> [u8; 512] {
        let mut words = [0u16; 256];
        let native = (self.content.len() / 512) as u64;
        let sectors = self.firmware.visible.unwrap_or(native);
        for (index, pair) in self.serial.as_bytes().chunks(2).enumerate() {
            words[10 + index] = u16::from(pair[0]) << 8 | u16::from(*pair.get(1).unwrap_or(&32));
        }
        words[49] = 3 << 8;
        words[75] = 31;
        words[76] = u16::from(self.queuing) << 8 | u16::from(self.saves_power) << 9 | 2;
        words[78] = u16::from(self.sleeps) << 8;
        words[2] = if self.in_standby { 0x37c8 } else { 0xc837 };
        words[86] = 1 << 6;
        words[83] = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10 | 1 << 6;
        words[84] = 1 << 14 | u16::from(self.logs) << 5;
        self.firmware.identify(&mut words);
        words[87] = 1 << 14;
        for index in 0..4 {
            words[100 + index] = (sectors >> (16 * index)) as u16;
        }
        let mut bytes = [0; 512];
        bytes.as_chunks_mut::<2>().0.iter_mut().zip(words).for_each(|(b, w)| *b = w.to_le_bytes());
        bytes[510] = 0xa5;
        bytes[511] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        bytes
    }
}

#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a behaviour by itself")]
pub struct Port {
    list: u64,
    received: u64,
    interrupts: u32,
    enabled: u32,
    command: PortCommand,
    task_file: u32,
    signature: u32,
    control: u32,
    errors: u32,
    active: u32,
    issued: u32,
    /// Slots to be executed, in order.
    queue: VecDeque<u8>,
    pub disk: Option<Disk>,
    /// CR stays on after ST is cleared, until the HBA is reset.
    pub stuck: bool,
    /// No link comes up after the next COMRESET.
    pub deaf: bool,
    /// The device never becomes ready.
    pub busy: bool,
    /// A command is shown as active that was never issued.
    pub stray: bool,
    /// Takes the disk's place at the next COMRESET.
    pub replacement: Option<Disk>,
    /// PxCMD reads as all ones.
    pub mute: bool,
    /// COMRESETs received.
    pub resets: u32,
    /// What is between the device and its power.
    pub place: plug::Place,
    /// Generation that the link came up at.
    speed: u8,
    /// It reports no device that comes, until the next COMRESET.
    numb: bool,
    /// The device announces itself whenever it was identified.
    pub restless: bool,
    announces: bool,
    /// CR clears only so many reads of PxCMD after ST was cleared.
    pub slow_engine: u32,
    stopping: std::cell::Cell<u32>,
    sleep: DeviceSleep,
}

impl Port {
    /// Not after an error, and not before the driver has noticed that the device is a new one: till
    /// then it looks busy.
    fn executes(&self) -> bool {
        let announced = self.errors & serial_error::EXCHANGED != 0;
        let stuck = self.disk.as_ref().is_some_and(|disk| disk.stuck || disk.firmware.asleep);
        let runs = self.command.list_running() && self.task_file & 1 == 0;
        runs && !announced && !stuck && self.has_power() && self.place.is_closed()
    }

    fn interrupts(&self) -> u32 {
        let seen = |mark, bit: PortInterrupts| if self.errors & mark != 0 { bit.bits() } else { 0 };
        self.interrupts
            | seen(serial_error::EXCHANGED, PortInterrupts::CONNECT)
            | seen(serial_error::PHY_READY, PortInterrupts::PHY_READY)
            | seen(serial_error::UNKNOWN_FIS, PortInterrupts::UNKNOWN_FIS)
    }
}

pub struct Model {
    memory: Arc<SharedMemory>,
    pub capabilities: Capabilities,
    pub capabilities2: Capabilities2,
    pub enclosure: plug::EnclosureModel,
    pub hand_off: Option<HandOff>,
    control: GlobalControl,
    pending: u32,
    pub ports: Vec<Port>,
    /// An HBA reset does not end.
    pub reset_stuck: bool,
    /// Everything reads as all ones.
    pub removed: bool,
    /// HBA resets received.
    pub resets: u32,
    /// The device may access memory.
    pub bus_master: bool,
}

/// A handle to the model: the device for the driver, and a view for the test.
#[derive(Clone)]
pub struct ModelDevice {
    model: Arc<Mutex<Model>>,
    arena: Arena,
}

impl ModelDevice {
    pub fn new(disks: Vec<Option<Disk>>) -> Self {
        let (memory, arena) = SharedMemory::for_model("model", 64 << 20).unwrap();
        let capabilities = Capabilities::new()
            .with_ports_minus_one(disks.len() as u8 - 1)
            .with_slots_minus_one(31)
            .with_ncq(true)
            .with_wide(true)
            .with_ahci_only(true);
        let ports = disks.into_iter().map(|disk| Port { disk, ..Port::default() }).collect();
        let model = Model {
            memory,
            capabilities,
            capabilities2: Capabilities2::new(),
            enclosure: plug::EnclosureModel::default(),
            hand_off: None,
            control: GlobalControl::new(),
            pending: 0,
            ports,
            reset_stuck: false,
            removed: false,
            resets: 0,
            bus_master: false,
        };
        Self { model: Arc::new(Mutex::new(model)), arena }
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Model {
    fn read_memory<T: FromBytes + IntoBytes>(&self, address: u64) -> T {
        let mut value = T::new_zeroed();
        rustix::io::pread(&*self.memory, value.as_mut_bytes(), address).unwrap();
        value
    }

    fn write_memory(&self, address: u64, bytes: &[u8]) {
        assert!(self.bus_master, "the device was off the bus");
        rustix::io::pwrite(&*self.memory, bytes, address).unwrap();
    }

    /// Executes what was issued; whether an interrupt is raised.
    pub fn run(&mut self) -> bool {
        self.enclosure.run();
        for index in 0..self.ports.len() {
            if self.ports[index].enabled != 0 && std::mem::take(&mut self.ports[index].announces) {
                self.device_reset(index);
            }
            while self.ports[index].executes() {
                let Some(slot) = self.ports[index].queue.pop_front() else { break };
                self.execute(index, slot);
            }
            let port = &self.ports[index];
            if port.interrupts() & port.enabled != 0 {
                self.pending |= 1 << index;
            }
        }
        self.pending != 0 && self.control.interrupts()
    }

    fn execute(&mut self, index: usize, slot: u8) {
        let header_at = self.ports[index].list + CommandHeader::offset(slot.into()) as u64;
        let header: CommandHeader = self.read_memory(header_at);
        let table = u64::from(header.table_low) | u64::from(header.table_high) << 32;
        let fis: RegisterH2d = self.read_memory(table);
        assert_eq!(fis.kind, kind::REGISTER_H2D, "a command that was prepared");
        let entries: Vec<PrdtEntry> = (0..header.prdt_entries.get().into())
            .map(|entry| self.read_memory(table + PrdtEntry::offset(entry) as u64))
            .collect();
        let Some(mut disk) = self.ports[index].disk.take() else { return };
        let queued =
            matches!(fis.command, command::READ_FPDMA_QUEUED | command::WRITE_FPDMA_QUEUED);
        let count = if queued {
            u16::from_le_bytes([fis.features_low, fis.features_high])
        } else {
            u16::from_le_bytes(fis.count)
        };
        let lba = fis.address48();
        let sectors = if count == 0 { 65536 } else { u64::from(count) };
        let transfers = matches!(fis.command, 0x25 | 0x35 | 0x3d | 0x60 | 0x61);
        let mut outcome = None;
        if transfers {
            if self.ports[index].speed > disk.damaged_above {
                outcome = Some((Fault::Error(0x84), lba));
            }
            if disk.crc_errors > 0 {
                disk.crc_errors -= 1;
                outcome = Some((Fault::Error(0x84), lba));
            }
            for (sector, (fault, times)) in disk.faults.range_mut(lba..lba + sectors) {
                if *times > 0 && outcome.is_none() {
                    *times -= 1;
                    outcome = Some((*fault, *sector));
                }
            }
        }
        let write = matches!(fis.command, 0x35 | 0x3d | 0x61);
        if transfers && disk.firmware.locked {
            outcome = Some((Fault::Error(4), lba));
        }
        let mut answer = Answer::Unknown;
        if !transfers {
            let mut data = vec![0; if Firmware::takes_data(fis.command) { 512 } else { 0 }];
            self.transfer(&entries, &mut data, true);
            let native = (disk.content.len() / 512) as u64;
            answer = disk.firmware.carry_out(&fis, &data, native);
        }
        match outcome {
            _ if answer != Answer::Unknown => match answer {
                Answer::Good(mut data, lba, count) => {
                    self.transfer(&entries, &mut data, false);
                    self.succeed(index, slot, false);
                    self.register_fis_with(index, 0x50, 0, lba, count);
                }
                Answer::Aborted => self.fail(index, slot, false, 4, 0, &mut disk),
                Answer::Never | Answer::Unknown => {}
            },
            Some((Fault::Hang, _)) => disk.stuck = disk.one_at_a_time,
            Some((Fault::Fatal, _)) => {
                self.ports[index].interrupts |= PortInterrupts::INTERFACE_FATAL.bits();
            }
            None if fis.command == command::READ_LOG_EXT && disk.log_fails => {
                self.fail(index, slot, false, 4, 0, &mut disk);
            }
            None if fis.command == command::SET_FEATURES && disk.refuses_features => {
                self.fail(index, slot, false, 4, 0, &mut disk);
            }
            Some((Fault::Error(error), sector)) => {
                self.fail(index, slot, queued, error, sector, &mut disk);
            }
            Some((Fault::Short, _)) => {
                self.write_memory(header_at + 4, &2u32.to_le_bytes());
                self.succeed(index, slot, queued);
            }
            None => {
                if fis.command == command::SET_FEATURES {
                    disk.told.push((fis.features_low, fis.count[0]));
                    disk.in_standby &= fis.features_low != 7;
                }
                self.ports[index].announces |=
                    self.ports[index].restless && fis.command == command::IDENTIFY_DEVICE;
                let nonsense = fis.command == command::IDENTIFY_DEVICE && disk.nonsense > 0;
                let mut data = match fis.command {
                    _ if nonsense => plug::nonsense(&mut disk),
                    command::IDENTIFY_DEVICE => disk.identify().to_vec(),
                    command::READ_LOG_EXT if fis.lba_low[0] == 0x30 => plug::sleep_timing_page(),
                    command::READ_LOG_EXT => {
                        assert_eq!(fis.lba_low[0], 0x10);
                        disk.log.as_bytes().to_vec()
                    }
                    _ if transfers => {
                        let (start, len) = (lba as usize * 512, sectors as usize * 512);
                        disk.content[start..start + len].to_vec()
                    }
                    _ => Vec::new(),
                };
                if matches!(fis.command, command::FLUSH_CACHE | command::FLUSH_CACHE_EXT) {
                    disk.durable.clone_from(&disk.content);
                }
                self.transfer(&entries, &mut data, write);
                if write {
                    disk.content[lba as usize * 512..][..data.len()].copy_from_slice(&data);
                }
                if !queued {
                    self.write_memory(header_at + 4, &(data.len() as u32).to_le_bytes());
                }
                self.succeed(index, slot, queued);
            }
        }
        self.ports[index].disk = Some(disk);
    }

    fn transfer(&self, entries: &[PrdtEntry], data: &mut [u8], write: bool) {
        let mut rest = data;
        for entry in entries {
            if rest.is_empty() {
                break;
            }
            let len = (entry.count.get() as usize & 0x3f_ffff) + 1;
            let address = u64::from(entry.base_low) | u64::from(entry.base_high) << 32;
            let (piece, after) = std::mem::take(&mut rest).split_at_mut(len);
            if write {
                rustix::io::pread(&*self.memory, piece, address).unwrap();
            } else {
                self.write_memory(address, piece);
            }
            rest = after;
        }
        assert!(rest.is_empty(), "the PRDT covers the transfer");
    }

    fn succeed(&mut self, index: usize, slot: u8, queued: bool) {
        self.ports[index].issued &= !(1 << slot);
        self.ports[index].task_file = 0x50;
        if queued {
            self.ports[index].active &= !(1 << slot);
            self.set_device_bits(index, 0x50, 0, 1 << slot);
        } else {
            self.register_fis(index, 0x50, 0, 0);
        }
    }

    fn fail(&mut self, index: usize, slot: u8, queued: bool, error: u8, lba: u64, disk: &mut Disk) {
        self.ports[index].task_file = u32::from(error) << 8 | 0x51;
        self.ports[index].interrupts |= PortInterrupts::TASK_FILE_ERROR.bits();
        if queued {
            // The device took the command, then failed it: PxCI is clear, PxSACT is not.
            self.ports[index].issued &= !(1 << slot);
            let bytes = lba.to_le_bytes();
            disk.log.tag = slot;
            (disk.log.status, disk.log.error) = (0x51, error);
            disk.log.lba_low.copy_from_slice(&bytes[..3]);
            disk.log.lba_high.copy_from_slice(&bytes[3..6]);
            disk.log.checksum = 0;
            let sum = disk.log.as_bytes().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            disk.log.checksum = sum.wrapping_neg();
            self.set_device_bits(index, 0x51, error, 0);
        } else {
            self.register_fis(index, 0x51, error, lba);
        }
    }

    fn register_fis(&mut self, index: usize, status: u8, error: u8, lba: u64) {
        self.register_fis_with(index, status, error, lba, 1);
    }

    fn register_fis_with(&mut self, index: usize, status: u8, error: u8, lba: u64, count: u8) {
        let [a, b, c, d, e, f, ..] = lba.to_le_bytes();
        let fis = RegisterD2h {
            kind: kind::REGISTER_D2H,
            flags: 1 << 6,
            status,
            error,
            lba_low: [a, b, c],
            device: 0x40,
            lba_high: [d, e, f],
            reserved: 0,
            count: [count, 0],
            reserved_end: [0; 6],
        };
        self.write_memory(self.ports[index].received + RECEIVED_REGISTER as u64, fis.as_bytes());
        self.ports[index].interrupts |= PortInterrupts::REGISTER_FIS.bits();
    }

    fn set_device_bits(&mut self, index: usize, status: u8, error: u8, finished: u32) {
        let kind = kind::SET_DEVICE_BITS;
        let (status, finished) = (status & 0x77, finished.to_le_bytes());
        let fis = SetDeviceBits { kind, flags: 1 << 6, status, error, finished };
        let at = self.ports[index].received + RECEIVED_SET_DEVICE_BITS as u64;
        self.write_memory(at, fis.as_bytes());
        self.ports[index].interrupts |= PortInterrupts::SET_DEVICE_BITS_FIS.bits();
    }

    fn reset(&mut self) {
        self.resets += 1;
        self.pending = 0;
        self.control = GlobalControl::new().with_ahci(true).with_reset(self.reset_stuck);
        for port in &mut self.ports {
            let Port { disk, deaf, busy, replacement, resets, place, restless, sleep, .. } =
                std::mem::take(port);
            let sleep = DeviceSleep::new().with_present(sleep.present());
            let kept =
                Port { disk, deaf, busy, replacement, resets, place, restless, ..Port::default() };
            *port = Port { sleep, ..kept };
            port.task_file = 0x7f;
            port.signature = u32::MAX;
        }
    }

    fn read(&self, offset: usize) -> u32 {
        if self.removed {
            return u32::MAX;
        }
        if offset < PORTS_BASE {
            return match offset {
                _ if offset == CAP.offset() => self.capabilities.into(),
                _ if offset == GHC.offset() => self.control.into(),
                _ if offset == IS.offset() => self.pending,
                _ if offset == PI.offset() => (1 << self.ports.len()) - 1,
                _ if offset == CAP2.offset() => {
                    self.capabilities2.with_hand_off(self.hand_off.is_some()).into()
                }
                _ if offset == EM_LOC.offset() => self.enclosure.location().into(),
                _ if offset == EM_CTL.offset() => self.enclosure.control().into(),
                _ if offset == BOHC.offset() => self.hand_off.unwrap_or_default().into(),
                _ => 0,
            };
        }
        let (index, offset) = ((offset - PORTS_BASE) / PORT_BYTES, offset % PORT_BYTES);
        let Some(port) = self.ports.get(index) else { return 0 };
        match offset {
            _ if offset == PX_IS.offset() => port.interrupts(),
            _ if offset == PX_IE.offset() => port.enabled,
            _ if offset == PX_CMD.offset() && port.mute => u32::MAX,
            _ if offset == PX_CMD.offset() => {
                let left = port.stopping.get();
                port.stopping.set(left.saturating_sub(1));
                let command = port.place.show(port.command);
                command.with_list_running(command.list_running() || left > 0).into()
            }
            _ if offset == PX_DEVSLP.offset() => port.sleep.into(),
            _ if offset == PX_TFD.offset() => port.task_file,
            _ if offset == PX_SIG.offset() => port.signature,
            _ if offset == PX_SSTS.offset() => port.status().into(),
            _ if offset == PX_SCTL.offset() => port.control,
            _ if offset == PX_SERR.offset() => port.errors,
            _ if offset == PX_SACT.offset() && port.stray && port.command.start() => {
                port.active | 1 << 31
            }
            _ if offset == PX_SACT.offset() => port.active,
            _ if offset == PX_CI.offset() => port.issued,
            _ => 0,
        }
    }

    fn write(&mut self, offset: usize, value: u32) {
        if offset < PORTS_BASE {
            match offset {
                _ if offset == GHC.offset() => {
                    let control = GlobalControl::from(value);
                    if control.reset() { self.reset() } else { self.control = control }
                }
                _ if offset == IS.offset() => self.pending &= !value,
                _ if offset == EM_CTL.offset() => self.enclosure.write_control(value.into()),
                _ if offset == BOHC.offset() => {
                    // The BIOS lets go as soon as it is asked.
                    self.hand_off = Some(HandOff::from(value).with_bios_owned(false));
                }
                _ => {}
            }
            return;
        }
        let (index, offset) = ((offset - PORTS_BASE) / PORT_BYTES, offset % PORT_BYTES);
        if let Some(index) = (index * PORT_BYTES + PORTS_BASE + offset).checked_sub(plug::EM_BUFFER)
        {
            return self.enclosure.buffer[index / 4] = value;
        }
        let Some(port) = self.ports.get_mut(index) else { return };
        match offset {
            _ if offset == PX_CLB.offset() => port.list = value.into(),
            _ if offset == PX_FB.offset() => port.received = value.into(),
            _ if offset == PX_IS.offset() => port.interrupts &= !value,
            _ if offset == PX_IE.offset() => port.enabled = value,
            _ if offset == PX_SERR.offset() => port.errors &= !value,
            _ if offset == PX_SACT.offset() => port.active |= value,
            _ if offset == PX_CI.offset() => {
                port.issued |= value;
                port.queue.extend((0..32).filter(|slot| value >> slot & 1 == 1));
            }
            _ if offset == PX_SCTL.offset() => self.control_link(index, value),
            _ if offset == PX_CMD.offset() => self.command(index, value.into()),
            _ if offset == PX_DEVSLP.offset() => port.set_sleep(value.into()),
            _ => {}
        }
    }

    fn command(&mut self, index: usize, command: PortCommand) {
        let port = &mut self.ports[index];
        let (started, powered) = (port.command.start(), port.command.spin_up());
        let running = command.start() || port.stuck && port.command.list_running();
        port.command = command.with_list_running(running).with_fis_running(command.fis_receive());
        if started && !command.start() {
            port.stopping.set(port.slow_engine);
            (port.active, port.issued) = (0, 0);
            port.queue.clear();
        }
        if !started && command.start() && port.task_file & 0x88 == 0 {
            // The next command makes the device forget its error.
            port.task_file = 0x50;
        }
        if powered && !command.spin_up() {
            // Listening (AHCI §10.10).
            self.ports[index].numb = false;
        }
        if !powered && command.spin_up() {
            self.device_reset(index);
        }
        self.save_power(index);
    }

    fn control_link(&mut self, index: usize, value: u32) {
        let before = std::mem::replace(&mut self.ports[index].control, value);
        if before & 0xf == 1 && value & 0xf == 0 {
            let port = &mut self.ports[index];
            assert!(!port.command.link_power(), "the link was woken before it is reset");
            port.resets += 1;
            port.numb = false;
            if let Some(replacement) = port.replacement.take() {
                port.disk = Some(replacement);
            }
            self.device_reset(index);
        }
    }

    /// The disk's link, lost by `deaf`, is there again.
    pub fn come_back(&mut self, index: usize) {
        self.ports[index].deaf = false;
        self.device_reset(index);
    }

    /// How often memory that the driver shares with the HBA holds `secret`.
    pub fn count(&self, secret: &[u8]) -> usize {
        let bytes = rustix::fs::fstat(&*self.memory).unwrap().st_size as usize;
        let mut all = vec![0; bytes];
        rustix::io::pread(&*self.memory, &mut all, 0).unwrap();
        // What is as short as a secret does not cross pages, and most of them are blank.
        let pages = all.chunks(4096).filter(|page| **page != [0; 4096]);
        pages.flat_map(|page| page.windows(secret.len())).filter(|bytes| *bytes == secret).count()
    }

    /// Whether it holds it at all.
    pub fn knows(&self, secret: &[u8]) -> bool {
        self.count(secret) > 0
    }

    /// How many pieces of memory the HBA would give a disk that names the tag of `slot`.
    pub fn reachable(&self, index: usize, slot: u8) -> u16 {
        let header_at = self.ports[index].list + CommandHeader::offset(slot.into()) as u64;
        self.read_memory::<CommandHeader>(header_at).prdt_entries.get()
    }

    /// The disk is without power for a moment.
    pub fn brown_out(&mut self, index: usize) {
        let port = &mut self.ports[index];
        port.queue.clear();
        if let Some(disk) = &mut port.disk {
            disk.content.clone_from(&disk.durable);
            disk.firmware.power_up();
        }
        port.errors |= serial_error::PHY_READY;
        self.device_reset(index);
    }

    fn device_reset(&mut self, index: usize) {
        let port = &mut self.ports[index];
        port.task_file = 0x7f;
        if let Some(disk) = &mut port.disk {
            disk.stuck = false;
            disk.firmware.reset();
        }
        port.settle_speed();
        if port.disk.is_some() && !port.deaf && !port.numb && port.has_power() {
            port.errors |= serial_error::EXCHANGED;
            let status = if port.busy { 0x80 } else { 0x50 };
            (port.task_file, port.signature) = (0x100 | status, signature::ATA);
            if port.command.fis_receive() && port.received != 0 {
                self.register_fis(index, 0x50, 1, 0);
            }
        }
    }
}
