//! The HBA: plausible by itself, and whatever the fuzzer makes of it.
//!
//! It checks what the driver hands to it: each address, with its length, must lie in allocated
//! memory at the moment of the doorbell, and nothing may be handed over while the HBA must not
//! access memory.

use super::disk::Disk;
use crate::space::is_allocated;
use outboard_ahci::spec::ata::command;
use outboard_ahci::spec::fis::{
    RECEIVED_BYTES, RECEIVED_REGISTER, RECEIVED_SET_DEVICE_BITS, RegisterH2d, kind,
};
use outboard_ahci::spec::log::NCQ_ERROR;
use outboard_ahci::spec::registers::*;
use outboard_ahci::spec::structures::{
    COMMAND_LIST_ALIGNMENT, COMMAND_LIST_BYTES, COMMAND_TABLE_ALIGNMENT, CommandHeader, PrdtEntry,
    RECEIVED_ALIGNMENT,
};
use outboard_hw::dma::DeviceView;
use zerocopy::{FromBytes, IntoBytes};

pub(super) const PORTS: usize = 2;
pub(super) const REGISTER_BYTES: usize = PORTS_BASE + PORTS * PORT_BYTES;
pub(super) const REGISTERS: usize = REGISTER_BYTES / 4;
/// Register accesses in one call of the driver: a generous bound for two ports, each of which may
/// go through several states and issue 32 commands that are not queued.
const MAX_ACCESSES: u32 = 300;
/// Reads that are answered with something else.
const MAX_LIES: usize = 8;

/// A read that is answered with something else.
#[derive(Clone, Copy)]
pub(super) struct Lie {
    pub(super) register: usize,
    pub(super) value: u32,
    /// How many reads later.
    pub(super) after: u8,
}

/// How a command ends.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Good,
    Error {
        status: u8,
        error: u8,
    },
    /// Well, but with this many bytes less.
    Short(u32),
}

/// Faults that last: what no longer ends, changes or lets go when it is told to.
pub(super) mod stuck {
    pub(in super::super) const ENGINE: u8 = 1 << 0;
    pub(in super::super) const RECEIVE: u8 = 1 << 1;
    pub(in super::super) const RESET: u8 = 1 << 2;
    pub(in super::super) const SLOTS: u8 = 1 << 3;
    pub(in super::super) const MODE: u8 = 1 << 4;
    pub(in super::super) const BIOS: u8 = 1 << 5;
    pub(in super::super) const OVERRIDE: u8 = 1 << 6;
}

pub(super) struct Model {
    view: DeviceView,
    words: [u32; REGISTERS],
    pub(super) disks: [Disk; PORTS],
    /// Command list and received FIS area, as the driver has set them.
    lists: [u64; PORTS],
    received: [u64; PORTS],
    /// A command has failed, and the engine was not started again since.
    halted: [bool; PORTS],
    lies: [Option<Lie>; MAX_LIES],
    lying: bool,
    /// All that was read or written so far is what an HBA might do.
    pub(super) honest: bool,
    pub(super) stuck: u8,
    pub(super) bus_master: bool,
    /// Everything reads as all ones.
    pub(super) removed: bool,
    /// It is the HBA whose faults the driver knows.
    pub(super) qemu: bool,
    /// Register accesses since the driver was last called.
    pub(super) accesses: u32,
}

/// The numbers of the bits that are set.
pub(super) fn bits(mut mask: u32) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let lowest = (mask != 0).then(|| mask.trailing_zeros() as u8);
        mask &= mask.wrapping_sub(1);
        lowest
    })
}

const fn word<V, A>(register: outboard_hw::registers::Register<V, A>) -> usize {
    register.offset() / 4
}

const COMMAND: usize = word(PX_CMD);
const STATUS: usize = word(PX_SSTS);
const TASK_FILE: usize = word(PX_TFD);
const ISSUED: usize = word(PX_CI);
const ACTIVE: usize = word(PX_SACT);
const INTERRUPTS: usize = word(PX_IS);
const ERRORS: usize = word(PX_SERR);

impl Model {
    pub(super) fn new(view: DeviceView) -> Self {
        Self {
            view,
            words: [0; REGISTERS],
            disks: [Disk::NONE; PORTS],
            lists: [0; PORTS],
            received: [0; PORTS],
            halted: [false; PORTS],
            lies: [None; MAX_LIES],
            lying: false,
            honest: true,
            stuck: 0,
            bus_master: false,
            removed: false,
            qemu: false,
            accesses: 0,
        }
    }

    /// Another HBA, with these capabilities. Its disks are set by the caller.
    pub(super) fn reset(&mut self, capabilities: Capabilities, more: Capabilities2, ports: u32) {
        self.words = [0; REGISTERS];
        (self.words[word(CAP)], self.words[word(CAP2)]) = (capabilities.into(), more.into());
        self.words[word(PI)] = ports;
        self.words[word(VS)] = 0x0001_0301;
        self.words[word(BOHC)] = HandOff::new().with_bios_owned(more.hand_off()).into();
        self.lies = [None; MAX_LIES];
        (self.lying, self.honest) = (false, true);
        (self.stuck, self.bus_master, self.removed, self.accesses) = (0, false, false, 0);
        self.forget();
    }

    /// What a reset of the HBA leaves (AHCI §10.4.3).
    fn forget(&mut self) {
        let ahci_only = Capabilities::from(self.words[word(CAP)]).ahci_only();
        self.words[word(GHC)] = GlobalControl::new().with_ahci(ahci_only).into();
        self.words[word(IS)] = 0;
        for port in 0..PORTS {
            let base = port_base(port) / 4;
            self.words[base..base + PORT_BYTES / 4].fill(0);
            (self.lists[port], self.received[port], self.halted[port]) = (0, 0, false);
            self.connect(port);
        }
    }

    pub(super) fn port(&mut self, port: usize, register: usize) -> &mut u32 {
        &mut self.words[port_base(port) / 4 + register]
    }

    fn value(&self, port: usize, register: usize) -> u32 {
        self.words[port_base(port) / 4 + register]
    }

    pub(super) fn register(&mut self, index: usize) -> &mut u32 {
        &mut self.words[index % REGISTERS]
    }

    /// Where memory of a port is: its command list, received FISes, and what lies behind.
    pub(super) fn list(&self, port: usize) -> u64 {
        self.lists[port]
    }

    pub(super) fn received(&self, port: usize) -> u64 {
        self.received[port]
    }

    /// Adds a read that is answered with something else.
    pub(super) fn lie(&mut self, lie: Lie) {
        if let Some(free) = self.lies.iter_mut().find(|lie| lie.is_none()) {
            *free = Some(lie);
            (self.lying, self.honest) = (true, false);
        }
    }

    /// Stops lying, and mends whatever is stuck or gone.
    pub(super) fn heal(&mut self) {
        self.lies = [None; MAX_LIES];
        (self.lying, self.stuck, self.removed) = (false, 0, false);
        for disk in &mut self.disks {
            (disk.busy, disk.silent, disk.prompt) = (false, false, true);
        }
        for port in 0..PORTS {
            self.execute_all(port);
        }
    }

    fn count(&mut self) {
        self.accesses += 1;
        assert!(self.accesses <= MAX_ACCESSES, "the driver does not come back from one call");
    }

    pub(super) fn read(&mut self, offset: usize) -> u32 {
        self.count();
        let index = offset / 4;
        if self.removed || index >= REGISTERS {
            return ALL_ONES;
        }
        if self.lying {
            for lie in &mut self.lies {
                match lie {
                    Some(Lie { register, after, .. }) if *register == index && *after > 0 => {
                        *after -= 1;
                    }
                    Some(Lie { register, value, .. }) if *register == index => {
                        let value = *value;
                        *lie = None;
                        return value;
                    }
                    _ => {}
                }
            }
        }
        let value = self.words[index];
        if index >= PORTS_BASE / 4 && index % (PORT_BYTES / 4) == INTERRUPTS {
            // These two are other bits' shadows (AHCI §3.3.5).
            let errors = self.words[index - INTERRUPTS + ERRORS];
            let connect = (errors & serial_error::EXCHANGED != 0) as u32 * (1 << 6);
            let ready = (errors & serial_error::PHY_READY != 0) as u32 * (1 << 22);
            return value | connect | ready;
        }
        value
    }

    pub(super) fn write(&mut self, offset: usize, value: u32) {
        self.count();
        if (PORTS_BASE..REGISTER_BYTES).contains(&offset) {
            let port = (offset - PORTS_BASE) / PORT_BYTES;
            return self.write_port(port, offset % PORT_BYTES / 4, value);
        }
        let at = offset / 4;
        if at == word(GHC) {
            let mut control = GlobalControl::from(value);
            if control.reset() && self.stuck & stuck::RESET == 0 {
                return self.forget();
            }
            control.set_ahci(control.ahci() && self.stuck & stuck::MODE == 0);
            self.words[at] = control.into();
        } else if at == word(IS) {
            self.words[at] &= !value;
        } else if at == word(BOHC) {
            let bios = self.stuck & stuck::BIOS != 0;
            self.words[at] = HandOff::from(value).with_bios_owned(bios).into();
        } else if at == word(EM_CTL) {
            // Whatever was asked for is done at once.
            self.words[at] = value & !(1 << 8 | 1 << 9);
        }
    }

    fn write_port(&mut self, port: usize, register: usize, value: u32) {
        let wide = u64::from(value);
        if register == INTERRUPTS || register == ERRORS || register == word(PX_SNTF) {
            *self.port(port, register) &= !value;
        } else if register == word(PX_CLB) {
            self.lists[port] = self.lists[port] & !0xffff_ffff | wide;
        } else if register == word(PX_CLBU) {
            self.lists[port] = self.lists[port] & 0xffff_ffff | wide << 32;
        } else if register == word(PX_FB) {
            self.received[port] = self.received[port] & !0xffff_ffff | wide;
        } else if register == word(PX_FBU) {
            self.received[port] = self.received[port] & 0xffff_ffff | wide << 32;
        } else if register == COMMAND {
            self.write_command(port, PortCommand::from(value));
        } else if register == word(PX_SCTL) {
            self.write_link_control(port, SataControl::from(value));
        } else if register == ACTIVE {
            *self.port(port, ACTIVE) |= value;
        } else if register == ISSUED {
            self.issue(port, value);
        } else if !matches!(register, TASK_FILE | STATUS) && register != word(PX_SIG) {
            *self.port(port, register) = value;
        }
    }

    /// ST, FRE, CLO and what follows from them (AHCI §3.3.7).
    fn write_command(&mut self, port: usize, mut command: PortCommand) {
        let before = PortCommand::from(self.value(port, COMMAND));
        if self.honest && command.start() {
            self.check_mapped(self.lists[port], COMMAND_LIST_BYTES as u64);
            assert!(self.lists[port].is_multiple_of(COMMAND_LIST_ALIGNMENT));
        }
        if self.honest && command.fis_receive() {
            self.check_mapped(self.received[port], RECEIVED_BYTES as u64);
            assert!(self.received[port].is_multiple_of(RECEIVED_ALIGNMENT));
        }
        command.set_list_running(command.start() || self.stuck & stuck::ENGINE != 0);
        command.set_fis_running(command.fis_receive() || self.stuck & stuck::RECEIVE != 0);
        if command.command_list_override() && self.stuck & stuck::OVERRIDE == 0 {
            *self.port(port, TASK_FILE) &= !0x88;
            command.set_command_list_override(false);
        }
        command.set_interface_state(0);
        if !command.list_running() && self.stuck & stuck::SLOTS == 0 {
            (*self.port(port, ISSUED), *self.port(port, ACTIVE)) = (0, 0);
        }
        if command.start() && !before.start() {
            self.halted[port] = false;
        }
        *self.port(port, COMMAND) = command.into();
    }

    fn write_link_control(&mut self, port: usize, control: SataControl) {
        let before = SataControl::from(self.value(port, word(PX_SCTL))).detection();
        *self.port(port, word(PX_SCTL)) = control.into();
        match (before, control.detection()) {
            (SataControl::COMRESET, SataControl::COMRESET) => {}
            (_, SataControl::COMRESET | SataControl::OFFLINE) => *self.port(port, STATUS) = 0,
            (SataControl::COMRESET | SataControl::OFFLINE, _) => self.connect(port),
            _ => {}
        }
    }

    /// The link comes up, and the device says what it is; or nothing is there.
    pub(super) fn connect(&mut self, port: usize) {
        let Disk { present, signature, busy, .. } = self.disks[port];
        *self.port(port, STATUS) = if present { 0x133 } else { 0 };
        *self.port(port, TASK_FILE) = if !present || busy { 0x80 } else { 0x50 };
        *self.port(port, word(PX_SIG)) = if present { signature } else { u32::MAX };
        if present {
            *self.port(port, ERRORS) |= serial_error::EXCHANGED | serial_error::PHY_READY;
        }
    }

    /// The link goes down.
    pub(super) fn disconnect(&mut self, port: usize) {
        *self.port(port, STATUS) = 0;
        *self.port(port, ERRORS) |= serial_error::PHY_READY;
    }

    /// The doorbell.
    fn issue(&mut self, port: usize, slots: u32) {
        let fresh = slots & !self.value(port, ISSUED);
        for slot in bits(fresh) {
            self.check_slot(port, slot);
        }
        let running = PortCommand::from(self.value(port, COMMAND)).start();
        assert!(running || !self.honest, "a command was issued to an engine at rest");
        *self.port(port, ISSUED) |= slots;
        for slot in bits(fresh) {
            if self.disks[port].prompt || self.is_internal(port, slot) {
                self.execute(port, slot, Outcome::Good);
            }
        }
    }

    /// Whether the command in `slot` is one that the driver has issued for itself, and the disk
    /// answers those.
    fn is_internal(&self, port: usize, slot: u8) -> bool {
        let Some((_, fis, _)) = self.decode(port, slot) else { return false };
        const CLIENTS: [u8; 12] =
            [0x25, 0x35, 0x3d, 0x60, 0x61, 0xc8, 0xca, 0xe7, 0xea, 0x06, 0xa0, 0xb0];
        !self.disks[port].silent && !CLIENTS.contains(&fis.command)
    }

    /// Everything that the driver hands over with a slot lies in memory that is allocated.
    fn check_slot(&self, port: usize, slot: u8) {
        assert!(self.bus_master, "a command was issued to an HBA that is off the bus");
        self.check_mapped(self.lists[port], COMMAND_LIST_BYTES as u64);
        self.check_mapped(self.received[port], RECEIVED_BYTES as u64);
        let (header, fis, table) = self.decode(port, slot).expect("a table that is allocated");
        let entries = header.prdt_entries.get().into();
        assert!(table.is_multiple_of(COMMAND_TABLE_ALIGNMENT as u64), "table at {table:#x}");
        assert_eq!(header.flags.get() & 0x1f, u16::from(RegisterH2d::DWORDS));
        assert_eq!(fis.kind, kind::REGISTER_H2D);
        self.check_mapped(table, PrdtEntry::offset(entries) as u64);
        for (address, bytes) in self.segments(table, entries) {
            assert!(address % 2 == 0 && bytes % 2 == 0, "{bytes} bytes at {address:#x}");
            self.check_mapped(address, bytes);
        }
    }

    fn check_mapped(&self, address: u64, bytes: u64) {
        assert!(self.bus_master, "memory was handed over to an HBA that is off the bus");
        let allocated = is_allocated(&self.view, address, bytes);
        assert!(allocated, "{bytes} bytes at {address:#x} are not allocated");
    }

    fn load<T: FromBytes + IntoBytes>(&self, address: u64) -> Option<T> {
        let mut value = T::new_zeroed();
        self.view.read(address, value.as_mut_bytes()).ok().map(|()| value)
    }

    fn decode(&self, port: usize, slot: u8) -> Option<(CommandHeader, RegisterH2d, u64)> {
        let at = self.lists[port] + CommandHeader::offset(slot.into()) as u64;
        let header: CommandHeader = self.load(at)?;
        let table = u64::from(header.table_low) | u64::from(header.table_high) << 32;
        Some((header, self.load(table)?, table))
    }

    fn segments(&self, table: u64, entries: usize) -> impl Iterator<Item = (u64, u64)> {
        (0..entries).map_while(move |index| {
            let entry: PrdtEntry =
                self.load(table.checked_add(PrdtEntry::offset(index) as u64)?)?;
            let address = u64::from(entry.base_low) | u64::from(entry.base_high) << 32;
            Some((address, u64::from(entry.count.get() & 0x3f_ffff) + 1))
        })
    }

    /// Slots that the HBA works on.
    pub(super) fn outstanding(&self, port: usize) -> u32 {
        self.value(port, ISSUED) | self.value(port, ACTIVE)
    }

    /// All commands of a port end well.
    pub(super) fn execute_all(&mut self, port: usize) {
        let outstanding = self.outstanding(port);
        for slot in bits(outstanding) {
            self.execute(port, slot, Outcome::Good);
        }
    }

    /// Executes what is in a slot, if the HBA may.
    pub(super) fn execute(&mut self, port: usize, slot: u8, outcome: Outcome) {
        let running = PortCommand::from(self.value(port, COMMAND)).list_running();
        let linked = self.value(port, STATUS) & 0xf == 3;
        let issued = self.outstanding(port) >> slot & 1 == 1;
        let able = running && linked && !self.halted[port] && self.bus_master && !self.removed;
        if !issued || !able {
            return;
        }
        let Some((header, fis, table)) = self.decode(port, slot) else {
            assert!(!self.honest, "the table of a command in flight was freed");
            return;
        };
        if fis.kind != kind::REGISTER_H2D {
            // The driver has blanked it; there is nothing to send.
            return;
        }
        let mask = 1 << slot;
        let queued =
            matches!(fis.command, command::READ_FPDMA_QUEUED | command::WRITE_FPDMA_QUEUED);
        let (status, error, lost) = match outcome {
            Outcome::Good => (0x50, 0, 0),
            Outcome::Error { status, error } => (status | 0x01, error, 0),
            Outcome::Short(bytes) => (0x50, 0, bytes),
        };
        let failed = matches!(outcome, Outcome::Error { .. });
        let to_device = header.flags.get() & CommandHeader::WRITE != 0;
        if !failed {
            let moved = self.transfer(port, &fis, table, header.prdt_entries.get(), to_device);
            let at = self.lists[port] + CommandHeader::offset(slot.into()) as u64;
            let count = moved.wrapping_sub(lost);
            self.store(at + CommandHeader::TRANSFERRED_OFFSET as u64, &count.to_le_bytes());
        }
        let received = self.received[port];
        if queued {
            *self.port(port, ISSUED) &= !mask;
            let finished = if failed { 0 } else { mask };
            *self.port(port, ACTIVE) &= !finished;
            let bits = [kind::SET_DEVICE_BITS, 0x40, status & 0x77, error];
            self.store(received + RECEIVED_SET_DEVICE_BITS as u64, &bits);
            *self.port(port, INTERRUPTS) |= PortInterrupts::SET_DEVICE_BITS_FIS.bits();
            self.disks[port].blame(slot, status, error);
        } else {
            let kept = if failed { mask } else { 0 };
            *self.port(port, ISSUED) &= !(mask & !kept);
            let [a, b, c, d, e, f, ..] = fis.address48().to_le_bytes();
            let frame = [kind::REGISTER_D2H, 0x40, status, error, a, b, c, fis.device, d, e, f];
            self.store(received + RECEIVED_REGISTER as u64, &frame);
            *self.port(port, INTERRUPTS) |= PortInterrupts::REGISTER_FIS.bits();
        }
        *self.port(port, TASK_FILE) = u32::from(status) | u32::from(error) << 8;
        if failed {
            self.halted[port] = true;
            *self.port(port, INTERRUPTS) |= PortInterrupts::TASK_FILE_ERROR.bits();
        }
        self.raise(port);
    }

    /// Moves a command's data; how many bytes there are.
    fn transfer(
        &mut self,
        port: usize,
        fis: &RegisterH2d,
        table: u64,
        entries: u16,
        to_device: bool,
    ) -> u32 {
        let disk = &self.disks[port];
        let block = match fis.command {
            command::IDENTIFY_DEVICE | command::IDENTIFY_PACKET_DEVICE => &disk.identify,
            command::READ_LOG_EXT if fis.lba_low[0] == NCQ_ERROR => &disk.log,
            _ => &disk.reply,
        };
        let mut moved = 0u32;
        for (address, bytes) in self.segments(table, usize::from(entries).min(8)) {
            // Some of it will do.
            let part = &block[..block.len().min(bytes as usize)];
            let result = match to_device {
                true => self.view.read(address, &mut [0; 2]),
                false => self.view.write(address, part),
            };
            assert!(result.is_ok() || !self.honest, "{result:?}, of a command in flight");
            moved = moved.wrapping_add(bytes as u32);
        }
        moved
    }

    /// Writes memory, as far as it is allocated and the HBA is on the bus.
    pub(super) fn store(&mut self, address: u64, bytes: &[u8]) {
        if self.bus_master {
            let stored = self.view.write(address, bytes);
            assert!(stored.is_ok() || !self.honest, "{stored:?}, of a port that is in use");
        }
    }

    /// Shows an interrupt of a port in IS.
    pub(super) fn raise(&mut self, port: usize) {
        self.words[word(IS)] |= 1 << port;
    }
}
