//! A PCI function of the lab's machine, as its driver and its event loop see it.

use crate::doorbell::{DOORBELL_OFFSET, Doorbell};
use crate::qtest::Qtest;
use crate::registers::{LabConfigSpace, LabRegisters};
use outboard_hw::HwError;
use outboard_hw::dma::{Arena, DmaSpace};
use outboard_hw::interrupt::{InterruptKind, VectorRange, Vectors};
use outboard_linux::InterruptSource;
use outboard_pci::bar::{Bar, BarKind};
use outboard_pci::config::ConfigSpace;
use outboard_pci::header::Command;
use outboard_pci::msi::{Message, Msi};
use outboard_pci::msix::MsiX;
use outboard_pci::{Address, Device, Function, Identity};
use std::collections::BTreeSet;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// What all devices of one lab share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) qtest: Arc<Qtest>,
    pub(crate) doorbell: Doorbell,
    /// Bus address of the doorbell register.
    pub(crate) doorbell_base: u64,
    pub(crate) arena: Arena,
    pub(crate) interrupts: Option<InterruptKind>,
    /// Functions that somebody has opened.
    pub(crate) open: Mutex<BTreeSet<Address>>,
}

/// What a device and its interrupt source share.
#[derive(Debug)]
enum Wiring {
    Off,
    /// Messages, to these vectors of the doorbell.
    Messages(Range<u16>),
    Pin,
}

/// A PCI function of the lab's machine. Dropping it makes the function free for others again.
#[derive(Debug)]
pub struct LabDevice {
    shared: Arc<Shared>,
    function: Function,
    bars: Vec<Bar>,
    config: LabConfigSpace,
    wiring: Arc<Mutex<Wiring>>,
}

impl LabDevice {
    pub(crate) fn new(
        shared: Arc<Shared>,
        function: Function,
        bars: Vec<Bar>,
        config: LabConfigSpace,
    ) -> (Self, LabInterrupts) {
        let wiring = Arc::new(Mutex::new(Wiring::Off));
        let interrupts = LabInterrupts { shared: shared.clone(), wiring: wiring.clone() };
        (Self { shared, function, bars, config, wiring }, interrupts)
    }

    fn wire(&mut self, wiring: Wiring) {
        let mut wired = self.wiring.lock().unwrap_or_else(PoisonError::into_inner);
        if let Wiring::Messages(range) = std::mem::replace(&mut *wired, wiring) {
            self.shared.doorbell.give(range);
        }
    }

    fn message(&self, first: u16) -> Message {
        Message { address: self.shared.doorbell_base + DOORBELL_OFFSET, data: first.into() }
    }

    fn enable_msix(&mut self, wanted: VectorRange) -> Result<Option<u16>, HwError> {
        let Some(msix) = MsiX::find(&mut self.config) else { return Ok(None) };
        let mut count = wanted.max.min(msix.vectors);
        let range = loop {
            if count < wanted.min.max(1) {
                return Ok(None);
            }
            // The doorbell aligns to powers of two; several small ranges would do as well.
            match self.shared.doorbell.take(count.next_power_of_two()) {
                Some(range) => break range,
                None => count /= 2,
            }
        };
        let first = range.start;
        self.wire(Wiring::Messages(range));
        let mut table = msix.table(self.map_bar(msix.bar)?)?;
        table.mask_all();
        for vector in 0..count {
            table.set(vector, self.message(first + vector));
        }
        msix.enable(&mut self.config);
        Ok(Some(count))
    }

    fn enable_msi(&mut self, wanted: VectorRange) -> Option<u16> {
        let msi = Msi::find(&mut self.config)?;
        let most = wanted.max.min(msi.vectors()).checked_ilog2().map(|log2| 1 << log2)?;
        if most < wanted.min {
            return None;
        }
        let range = self.shared.doorbell.take(most)?;
        let message = self.message(range.start);
        self.wire(Wiring::Messages(range));
        msi.enable(&mut self.config, message, most)
    }

    fn enable_pin(&mut self, wanted: VectorRange) -> Option<u16> {
        if self.function.interrupt_pin == 0 || wanted.min > 1 {
            return None;
        }
        self.shared.qtest.watch_lines()?;
        self.wire(Wiring::Pin);
        Command::change(&mut self.config, Command::empty(), Command::INTERRUPT_DISABLE);
        Some(1)
    }
}

impl Device for LabDevice {
    type Registers = LabRegisters;

    fn identity(&self) -> Identity {
        self.function.identity
    }

    fn config(&mut self) -> &mut dyn ConfigSpace {
        &mut self.config
    }

    fn map_bar(&mut self, index: u8) -> Result<LabRegisters, HwError> {
        let bar = self.bars.iter().find(|bar| bar.index == index && bar.base != 0);
        match bar {
            Some(bar) if bar.kind != BarKind::Io => {
                let len = usize::try_from(bar.bytes).unwrap_or(usize::MAX);
                Ok(LabRegisters::new(self.shared.qtest.clone(), bar.base, len))
            }
            _ => Err(HwError::NoSuchRegion { bar: index, expected: "a memory region" }),
        }
    }

    fn open_ports(&mut self, index: u8) -> Result<LabRegisters, HwError> {
        let bar = self.bars.iter().find(|bar| bar.index == index && bar.base != 0);
        match bar.filter(|bar| bar.kind == BarKind::Io) {
            Some(bar) => {
                let len = usize::try_from(bar.bytes).unwrap_or(usize::MAX);
                Ok(LabRegisters::ports(self.shared.qtest.clone(), bar.base, len))
            }
            None => Err(HwError::NoSuchRegion { bar: index, expected: "a region of ports" }),
        }
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::new(self.shared.arena.clone())
    }

    fn enable_interrupts(&mut self, wanted: VectorRange) -> Result<Vectors, HwError> {
        self.disable_interrupts();
        let allowed = |kind| {
            wanted.kinds.allow(kind) && self.shared.interrupts.is_none_or(|only| kind.is_like(only))
        };
        let kinds = [InterruptKind::MsiX, InterruptKind::Msi, InterruptKind::Pin];
        for kind in kinds.map(|kind| allowed(kind).then_some(kind)).into_iter().flatten() {
            let count = match kind {
                InterruptKind::MsiX => self.enable_msix(wanted)?,
                InterruptKind::Msi => self.enable_msi(wanted),
                InterruptKind::Pin => self.enable_pin(wanted),
            };
            if let Some(count) = count {
                return Ok(Vectors { kind, count });
            }
        }
        Err(HwError::NoInterrupt("the lab found no MSI-X, MSI or pin with enough vectors"))
    }

    fn disable_interrupts(&mut self) {
        if let Some(msix) = MsiX::find(&mut self.config) {
            msix.disable(&mut self.config);
        }
        if let Some(msi) = Msi::find(&mut self.config) {
            msi.disable(&mut self.config);
        }
        Command::change(&mut self.config, Command::INTERRUPT_DISABLE, Command::empty());
        self.wire(Wiring::Off);
    }

    fn reset(&mut self) -> Result<(), HwError> {
        Err(HwError::NoReset("the lab has no such request"))
    }
}

impl Drop for LabDevice {
    fn drop(&mut self) {
        self.wire(Wiring::Off);
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.function.address);
    }
}

/// The interrupts of a [`LabDevice`], for the event loop that runs its driver.
#[derive(Debug)]
pub struct LabInterrupts {
    shared: Arc<Shared>,
    wiring: Arc<Mutex<Wiring>>,
}

impl LabInterrupts {
    /// Those of a device at a fixed address, whose line is watched already.
    pub(crate) fn pin(shared: Arc<Shared>) -> Self {
        Self { shared, wiring: Arc::new(Mutex::new(Wiring::Pin)) }
    }

    /// The doorbell's vectors; `None` if a pin is used, or nothing is.
    fn messages(&self) -> Option<Range<u16>> {
        match &*self.wiring.lock().unwrap_or_else(PoisonError::into_inner) {
            Wiring::Messages(range) => Some(range.clone()),
            Wiring::Off | Wiring::Pin => None,
        }
    }

    fn uses_pin(&self) -> bool {
        matches!(&*self.wiring.lock().unwrap_or_else(PoisonError::into_inner), Wiring::Pin)
    }
}

impl InterruptSource for LabInterrupts {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let vectors = self.messages().into_iter().flatten();
        let messages = vectors.map(|vector| self.shared.doorbell.event(vector).as_fd());
        let pin = self.uses_pin().then(|| self.shared.qtest.pin_descriptors());
        messages.chain(pin.into_iter().flatten()).collect()
    }

    fn take(&mut self, fired: &mut dyn FnMut(u16)) {
        for (vector, event) in self.messages().into_iter().flatten().enumerate() {
            if self.shared.doorbell.event(event).take() {
                fired(vector as u16);
            }
        }
        if self.uses_pin() && self.shared.qtest.take_pin() {
            fired(0);
        }
    }

    fn rearm(&mut self) {
        if self.uses_pin() {
            self.shared.qtest.rearm_pin();
        }
    }
}
