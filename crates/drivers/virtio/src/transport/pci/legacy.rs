//! Registers of devices that follow drafts of the specification (§4.1.4.10).

use crate::VirtioError;
use crate::queue::Areas;
use crate::spec::pci::NO_VECTOR;
use crate::spec::pci::legacy::{
    CONFIG, CONFIG_VECTOR, CONFIG_WITH_MSIX, DEVICE_FEATURES, DEVICE_STATUS, DRIVER_FEATURES, ISR,
    QUEUE_NOTIFY, QUEUE_PAGE, QUEUE_SELECT, QUEUE_SIZE, QUEUE_VECTOR,
};
use outboard_hw::Registers;
use outboard_hw::registers::{ReadWrite, Register, RegistersExt, Window};
use outboard_pci::{Claimed, Device};

/// The base address register of all that there is.
const BAR: u8 = 0;
/// Bytes of the registers that every device has.
const LEAST_BYTES: usize = CONFIG_WITH_MSIX;
/// What the page number counts.
const PAGE_BYTES: u64 = 4096;

/// The one block of ports.
#[derive(Debug)]
pub(super) struct Legacy<R> {
    ports: R,
    /// The device's own configuration, which moves when MSI-X is switched on.
    config: Window<R>,
    has_vectors: bool,
}

impl<R: Registers + Clone> Legacy<R> {
    pub(super) fn find<D: Device<Registers = R>>(
        claimed: &mut Claimed<D>,
    ) -> Result<Self, VirtioError> {
        let ports = claimed.open_ports(BAR)?;
        if ports.size_bytes() < LEAST_BYTES {
            return Err(VirtioError::MissingStructure("registers"));
        }
        let config = config_of(&ports, CONFIG)?;
        Ok(Self { ports, config, has_vectors: false })
    }

    /// Takes note that MSI-X is on, or is not.
    pub(super) fn set_vectors(&mut self, has_vectors: bool) -> Result<(), VirtioError> {
        let at = if has_vectors { CONFIG_WITH_MSIX } else { CONFIG };
        (self.config, self.has_vectors) = (config_of(&self.ports, at)?, has_vectors);
        Ok(())
    }

    fn set_vector(
        &mut self,
        register: Register<u16, ReadWrite>,
        vector: u16,
    ) -> Result<(), VirtioError> {
        if !self.has_vectors || vector == NO_VECTOR {
            return Ok(());
        }
        self.ports.set(register, vector);
        match self.ports.get(register) == vector {
            true => Ok(()),
            false => Err(VirtioError::NoVector),
        }
    }

    pub(super) fn offered_features(&mut self) -> u64 {
        self.ports.get(DEVICE_FEATURES).into()
    }

    pub(super) fn accept_features(&mut self, features: u64) {
        self.ports.set(DRIVER_FEATURES, features as u32);
    }

    pub(super) fn status(&self) -> u8 {
        self.ports.get(DEVICE_STATUS)
    }

    pub(super) fn set_status(&mut self, status: u8) {
        self.ports.set(DEVICE_STATUS, status);
    }

    pub(super) fn queue_entries(&mut self, queue: u16) -> u16 {
        self.ports.set(QUEUE_SELECT, queue);
        self.ports.get(QUEUE_SIZE)
    }

    pub(super) fn start(&mut self, vector: u16) -> Result<(), VirtioError> {
        self.set_vector(CONFIG_VECTOR, vector)
    }

    pub(super) fn enable_queue(
        &mut self,
        queue: u16,
        areas: Areas,
        vector: u16,
    ) -> Result<(), VirtioError> {
        let page = u32::try_from(areas.descriptors.bits() / PAGE_BYTES);
        let page = page.map_err(|_| VirtioError::NoQueue(queue))?;
        self.ports.set(QUEUE_SELECT, queue);
        self.set_vector(QUEUE_VECTOR, vector)?;
        self.ports.set(QUEUE_PAGE, page);
        Ok(())
    }

    #[inline]
    pub(super) fn notify(&mut self, queue: u16) {
        self.ports.set(QUEUE_NOTIFY, queue);
    }

    pub(super) fn isr(&mut self) -> u8 {
        self.ports.get(ISR)
    }

    pub(super) const fn config(&self) -> &Window<R> {
        &self.config
    }

    pub(super) const fn config_mut(&mut self) -> &mut Window<R> {
        &mut self.config
    }
}

fn config_of<R: Registers + Clone>(ports: &R, at: usize) -> Result<Window<R>, VirtioError> {
    Ok(Window::new(ports.clone(), at, ports.size_bytes() - at)?)
}
