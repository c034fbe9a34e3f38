//! Memory of a port with a multiplier: the one command list, the areas for received frames, and a
//! command table for the multiplier's own commands. All other command tables belong to the devices.

use crate::spec::ata::DEVICE_LBA;
use crate::spec::fis::{
    RECEIVED_BYTES, RECEIVED_BYTES_SWITCHED, RECEIVED_REGISTER, RegisterD2h, RegisterH2d,
};
use crate::spec::registers::MAX_SLOTS;
use crate::spec::structures::{COMMAND_LIST_BYTES, CommandHeader};
use outboard_hw::dma::{Constraints, DeviceAddress, DmaBuffer, DmaError, DmaSpace};

const COMMAND_LIST: usize = 0;
const TABLE: usize = COMMAND_LIST_BYTES;
/// A table without a command in it, for slots that must do no harm.
const BLANK: usize = TABLE + 256;
const RECEIVED: usize = 4096;
const BYTES: usize = RECEIVED + RECEIVED_BYTES_SWITCHED;

const _: () = assert!(RECEIVED.is_multiple_of(RECEIVED_BYTES_SWITCHED));
const _: () = assert!(DEVICE_LBA != 0 && BLANK + 256 <= RECEIVED);

/// See the module.
#[derive(Debug)]
pub(super) struct LinkMemory(DmaBuffer);

impl LinkMemory {
    pub(super) fn allocate(
        dma: &dyn DmaSpace,
        constraints: &Constraints,
    ) -> Result<Self, DmaError> {
        let whole = Constraints { boundary: 0, ..constraints.aligned(4096) };
        let mut memory = Self(dma.allocate(BYTES, &whole)?);
        memory.forget();
        Ok(memory)
    }

    /// Empties everything.
    pub(super) fn forget(&mut self) {
        self.0.fill(0..BYTES, 0);
        (0..MAX_SLOTS as u8).for_each(|slot| self.blank(slot));
        self.0.sync_for_device(0..BYTES);
    }

    pub(super) fn command_list(&self) -> DeviceAddress {
        self.0.address_of(COMMAND_LIST)
    }

    pub(super) fn received(&self) -> DeviceAddress {
        self.0.address_of(RECEIVED)
    }

    const fn header_at(slot: u8) -> usize {
        COMMAND_LIST + CommandHeader::offset(slot as usize)
    }

    /// Puts a header into a slot.
    pub(super) fn put(&mut self, slot: u8, header: &CommandHeader) {
        let at = Self::header_at(slot);
        self.0.write(at, header);
        self.0.sync_for_device(at..at + size_of::<CommandHeader>());
    }

    /// Leaves nothing in a slot that leads to anybody's memory.
    pub(super) fn blank(&mut self, slot: u8) {
        let header = CommandHeader::new(RegisterH2d::DWORDS.into(), 0, self.0.address_of(BLANK));
        self.put(slot, &header);
    }

    /// Prepares a command of the multiplier's own, or device control, in a slot. `flags`: bits of
    /// the header besides length and port.
    pub(super) fn prepare_own(&mut self, slot: u8, fis: &RegisterH2d, flags: u16) {
        self.0.write(TABLE, fis);
        self.0.sync_for_device(TABLE..TABLE + size_of::<RegisterH2d>());
        let flags = u16::from(RegisterH2d::DWORDS) | flags;
        let flags = CommandHeader::behind(flags, fis.multiplier_port());
        self.put(slot, &CommandHeader::new(flags, 0, self.0.address_of(TABLE)));
    }

    /// Bytes that the HBA says the command in a slot has transferred.
    pub(super) fn transferred(&self, slot: u8) -> u32 {
        let at = Self::header_at(slot) + CommandHeader::TRANSFERRED_OFFSET;
        self.0.sync_for_cpu(at..at + 4);
        self.0.load_u32(at)
    }

    fn area(port: u8) -> core::ops::Range<usize> {
        let start = RECEIVED + usize::from(port) * RECEIVED_BYTES;
        start..start + RECEIVED_BYTES
    }

    /// What was received in an area.
    pub(super) fn received_by(&self, area: u8) -> [u8; RECEIVED_BYTES] {
        self.0.sync_for_cpu(Self::area(area));
        self.0.read(Self::area(area).start)
    }

    /// The last register FIS in an area.
    pub(super) fn received_register(&self, area: u8) -> RegisterD2h {
        let start = Self::area(area).start + RECEIVED_REGISTER;
        self.0.sync_for_cpu(start..start + size_of::<RegisterD2h>());
        self.0.read(start)
    }

    /// Forgets what was received in an area.
    pub(super) fn forget_received(&mut self, area: u8) {
        self.0.fill(Self::area(area), 0);
        self.0.sync_for_device(Self::area(area));
    }
}
