//! Message-signalled interrupts with a table (PCI §6.8.2).

use crate::ConfigSpace;
use crate::capability::{self, id};
use crate::msi::Message;
use outboard_hw::registers::{ReadWrite, Register, RegistersExt, Window};
use outboard_hw::{HwError, Registers};

const CONTROL: u16 = 2;
const TABLE: u16 = 4;

const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;

const ENTRY_BYTES: usize = 16;

/// The MSI-X capability of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiX {
    offset: u16,
    /// Entries in the table, 1–2048.
    pub vectors: u16,
    /// Base address register that the table is in. Devices may name one that does not exist.
    pub bar: u8,
    /// Offset of the table in that region.
    pub table_offset: u32,
}

impl MsiX {
    /// Finds the capability.
    pub fn find(config: &mut (impl ConfigSpace + ?Sized)) -> Option<Self> {
        let offset = capability::find(config, id::MSI_X)?;
        let vectors = (config.read_u16(offset + CONTROL) & 0x7ff) + 1;
        let table = config.read_u32(offset + TABLE);
        Some(Self { offset, vectors, bar: (table & 0x7) as u8, table_offset: table & !0x7 })
    }

    /// The table, in the region that [`bar`](Self::bar) names.
    pub fn table<R: Registers>(&self, region: R) -> Result<Table<R>, HwError> {
        let len = usize::from(self.vectors) * ENTRY_BYTES;
        let window = Window::new(region, self.table_offset as usize, len)?;
        Ok(Table { window, vectors: self.vectors })
    }

    /// Switches the interrupts on; entries that are masked stay silent.
    pub fn enable(&self, config: &mut (impl ConfigSpace + ?Sized)) {
        let control = config.read_u16(self.offset + CONTROL) & !FUNCTION_MASK;
        config.write_u16(self.offset + CONTROL, control | ENABLE);
    }

    /// Switches the interrupts off.
    pub fn disable(&self, config: &mut (impl ConfigSpace + ?Sized)) {
        let control = config.read_u16(self.offset + CONTROL) & !ENABLE;
        config.write_u16(self.offset + CONTROL, control);
    }
}

/// The table of messages, mapped.
#[derive(Debug)]
pub struct Table<R> {
    window: Window<R>,
    vectors: u16,
}

impl<R: Registers> Table<R> {
    const fn entry(vector: u16, word: usize) -> Register<u32, ReadWrite> {
        Register::at(vector as usize * ENTRY_BYTES + word * 4)
    }

    /// Sets and unmasks a vector. One that the table does not have is ignored.
    pub fn set(&mut self, vector: u16, message: Message) {
        self.mask(vector);
        self.window.set(Self::entry(vector, 0), message.address as u32);
        self.window.set(Self::entry(vector, 1), (message.address >> 32) as u32);
        self.window.set(Self::entry(vector, 2), message.data);
        self.window.set(Self::entry(vector, 3), 0);
    }

    /// Masks a vector.
    pub fn mask(&mut self, vector: u16) {
        self.window.set(Self::entry(vector, 3), 1);
    }

    /// Masks every vector.
    pub fn mask_all(&mut self) {
        (0..self.vectors).for_each(|vector| self.mask(vector));
    }
}
