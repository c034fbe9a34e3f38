//! A PCI function as its driver sees it.

use crate::config::VfioConfigSpace;
use crate::interrupts::{VfioInterrupts, Wiring};
use crate::reach::VfioSpace;
use crate::region::{Place, VfioRegisters};
use crate::{Confinement, VfioError, ioctl};
use outboard_hw::HwError;
use outboard_hw::dma::DmaSpace;
use outboard_hw::interrupt::{InterruptKind, VectorRange, Vectors};
use outboard_pci::bar::{Bar, BarKind};
use outboard_pci::header::Command;
use outboard_pci::{Address, ConfigSpace, Device, Identity};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vfio_bindings::bindings::vfio::*;

/// What is open of a function.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) address: Address,
    pub(crate) device: Arc<OwnedFd>,
    /// Its group, where there are groups: closed after the function.
    pub(crate) _group: Option<Arc<OwnedFd>>,
}

/// A real PCI function. Dropping it closes it: the kernel switches its bus mastering off, and
/// resets it if it can.
#[derive(Debug)]
pub struct VfioDevice {
    identity: Identity,
    config: VfioConfigSpace,
    wiring: Arc<Wiring>,
    dma: VfioSpace,
    confinement: Confinement,
    only: Option<InterruptKind>,
    has_reset: bool,
    opened: Opened,
}

impl VfioDevice {
    pub(crate) fn new(
        opened: Opened,
        dma: VfioSpace,
        confinement: Confinement,
        only: Option<InterruptKind>,
    ) -> Result<(Self, VfioInterrupts), VfioError> {
        let unusable = |what| VfioError::Unusable { address: opened.address, what };
        let device = &opened.device;
        let info = ioctl::device_info(&**device).map_err(VfioError::system("asking a device"))?;
        if info.flags & VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(unusable("it is no PCI function"));
        }
        let place = Place::of(device, VFIO_PCI_CONFIG_REGION_INDEX);
        let place = place.map_err(VfioError::system("looking for configuration space"))?;
        let mut config = VfioConfigSpace::new(device.clone(), place);
        let Some(identity) = Identity::read(&mut config) else {
            return Err(unusable("its configuration space reads as all ones"));
        };
        let wiring = Arc::new(Wiring::new(device.clone()));
        let interrupts = VfioInterrupts(wiring.clone());
        let has_reset = info.flags & VFIO_DEVICE_FLAGS_RESET != 0;
        let made = Self { identity, config, wiring, dma, confinement, only, has_reset, opened };
        Ok((made, interrupts))
    }

    /// Where the function is.
    pub const fn address(&self) -> Address {
        self.opened.address
    }

    fn enable(&mut self, kind: InterruptKind, wanted: VectorRange) -> Result<Option<u16>, HwError> {
        let (index, max) = match kind {
            InterruptKind::MsiX => (VFIO_PCI_MSIX_IRQ_INDEX, wanted.max),
            InterruptKind::Msi => (VFIO_PCI_MSI_IRQ_INDEX, wanted.max),
            InterruptKind::Pin => (VFIO_PCI_INTX_IRQ_INDEX, 1),
        };
        let count = self.wiring.enable(index, wanted.min, max);
        let count = count.map_err(|_| HwError::Platform("the kernel refused the interrupts"))?;
        if kind == InterruptKind::Pin && count.is_some() {
            Command::change(&mut self.config, Command::empty(), Command::INTERRUPT_DISABLE);
        }
        Ok(count)
    }

    /// A region of memory or of ports, which the kernel maps or accesses for us.
    fn open_bar(&mut self, bar: u8, ports: bool) -> Result<VfioRegisters, HwError> {
        let expected = if ports { "a region of ports" } else { "a memory region" };
        let missing = HwError::NoSuchRegion { bar, expected };
        let fits = |(kind, _)| (kind == BarKind::Io) == ports;
        if bar >= 6 || !Bar::read(&mut self.config, bar).is_some_and(fits) {
            return Err(missing);
        }
        let registers = VfioRegisters::map(self.opened.device.clone(), bar.into());
        let registers = registers.map_err(|error| match error {
            rustix::io::Errno::NODEV => HwError::Gone,
            _ => HwError::Platform("the kernel refused to map the registers"),
        })?;
        let is_empty = outboard_hw::Registers::size_bytes(&registers) == 0;
        if is_empty { Err(missing) } else { Ok(registers) }
    }
}

impl Device for VfioDevice {
    type Registers = VfioRegisters;

    fn identity(&self) -> Identity {
        self.identity
    }

    fn config(&mut self) -> &mut dyn ConfigSpace {
        &mut self.config
    }

    fn map_bar(&mut self, bar: u8) -> Result<VfioRegisters, HwError> {
        self.open_bar(bar, false)
    }

    fn open_ports(&mut self, bar: u8) -> Result<VfioRegisters, HwError> {
        self.open_bar(bar, true)
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::new(self.dma.clone())
    }

    fn translates_addresses(&self) -> bool {
        self.confinement == Confinement::Iommu
    }

    fn enable_interrupts(&mut self, wanted: VectorRange) -> Result<Vectors, HwError> {
        self.disable_interrupts();
        let allowed =
            |kind| wanted.kinds.allow(kind) && self.only.is_none_or(|only| kind.is_like(only));
        let kinds = [InterruptKind::MsiX, InterruptKind::Msi, InterruptKind::Pin];
        for kind in kinds.map(|kind| allowed(kind).then_some(kind)).into_iter().flatten() {
            if let Some(count) = self.enable(kind, wanted)? {
                return Ok(Vectors { kind, count });
            }
        }
        Err(HwError::NoInterrupt("the kernel offers no MSI-X, MSI or pin with enough vectors"))
    }

    fn disable_interrupts(&mut self) {
        self.wiring.disable();
    }

    fn reset(&mut self) -> Result<(), HwError> {
        if !self.has_reset {
            return Err(HwError::NoReset(
                "it has neither a function-level reset nor another that leaves its neighbours \
                 alone, as the kernel says (see reset_method below /sys/bus/pci/devices)",
            ));
        }
        ioctl::reset(&*self.opened.device).map_err(|error| match error {
            rustix::io::Errno::NODEV => HwError::Gone,
            _ => HwError::Platform("the kernel's reset of the function failed"),
        })
    }
}
