//! Functions of a PCI bus (§4.1).

mod legacy;
mod modern;

use super::{Cause, Transport};
use crate::VirtioError;
use crate::queue::Areas;
use crate::spec::features::Features;
use crate::spec::pci::{ISR_CONFIG, NO_VECTOR};
use crate::spec::status::Status;
use alloc::sync::Arc;
use legacy::Legacy;
use modern::Modern;
use outboard_hw::Registers;
use outboard_hw::dma::DmaSpace;
use outboard_hw::interrupt::{InterruptKind, InterruptKinds, VectorRange, Vectors};
use outboard_hw::registers::Window;
use outboard_pci::{Claimed, Device};

/// A virtio device that is a PCI function.
#[derive(Debug)]
pub struct PciTransport<D: Device> {
    /// Before anything that the device may write.
    claimed: Claimed<D>,
    face: Face<D::Registers>,
    vectors: Option<Vectors>,
}

/// How the device shows its registers.
#[derive(Debug)]
enum Face<R> {
    Modern(Modern<R>),
    Legacy(Legacy<R>),
}

/// Calls a function of whichever face it is.
macro_rules! either {
    ($face:expr, $name:ident($($argument:expr),*)) => {
        match $face {
            Face::Modern(face) => face.$name($($argument),*),
            Face::Legacy(face) => face.$name($($argument),*),
        }
    };
}

impl<D: Device> PciTransport<D> {
    /// Takes a function over, and finds its registers: those of the specification if it has them,
    /// else those that devices had before.
    pub fn new(device: D) -> Result<Self, VirtioError> {
        let mut claimed = Claimed::new(device);
        let mut face = match Modern::find(&mut claimed) {
            Ok(modern) => Face::Modern(modern),
            Err(error) => match Legacy::find(&mut claimed) {
                Ok(legacy) => Face::Legacy(legacy),
                Err(_) => return Err(error),
            },
        };
        // Addresses of the IOMMU's are physical ones to a device that does not know of it (§6.1):
        // it would write where they happen to lead.
        let offered = Features::from_bits_retain(either!(&mut face, offered_features()));
        if claimed.translates_addresses() && !offered.contains(Features::ACCESS_PLATFORM) {
            return Err(VirtioError::BypassesIommu);
        }
        Ok(Self { claimed, face, vectors: None })
    }

    /// The vector of a queue, or of the configuration.
    fn vector(&self, queue: Option<u16>) -> u16 {
        match (self.vectors, queue) {
            (Some(Vectors { kind: InterruptKind::MsiX, count }), Some(queue)) if count > 1 => {
                1 + queue % (count - 1)
            }
            (Some(Vectors { kind: InterruptKind::MsiX, .. }), _) => 0,
            _ => NO_VECTOR,
        }
    }

    const fn config(&self) -> Option<&Window<D::Registers>> {
        match &self.face {
            Face::Modern(face) => face.config(),
            Face::Legacy(face) => Some(face.config()),
        }
    }
}

impl<D: Device> Transport for PciTransport<D> {
    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.claimed.dma()
    }

    fn is_legacy(&self) -> bool {
        matches!(self.face, Face::Legacy(_))
    }

    fn offered_features(&mut self) -> u64 {
        either!(&mut self.face, offered_features())
    }

    fn accept_features(&mut self, features: u64) {
        either!(&mut self.face, accept_features(features));
    }

    fn status(&self) -> Status {
        Status::from_bits_retain(either!(&self.face, status()))
    }

    fn set_status(&mut self, status: Status) {
        either!(&mut self.face, set_status(status.bits()));
    }

    fn queue_limit(&mut self, queue: u16) -> u16 {
        match &mut self.face {
            Face::Modern(face) => face.queue_limit(queue),
            Face::Legacy(face) => face.queue_entries(queue),
        }
    }

    fn enable_interrupts(&mut self, queues: u16) -> Result<(), VirtioError> {
        let there = match &mut self.face {
            Face::Modern(face) => face.queues(),
            Face::Legacy(face) => {
                (0..queues).take_while(|q| face.queue_entries(*q) > 0).count() as u16
            }
        };
        let max = queues.min(there).saturating_add(1);
        let wanted = VectorRange { min: 1, max, kinds: InterruptKinds::Any };
        let vectors = self.claimed.device().enable_interrupts(wanted)?;
        self.vectors = Some(vectors);
        match &mut self.face {
            Face::Modern(_) => Ok(()),
            Face::Legacy(face) => face.set_vectors(vectors.kind == InterruptKind::MsiX),
        }
    }

    fn start(&mut self) -> Result<(), VirtioError> {
        self.claimed.start_bus_master();
        let vector = self.vector(None);
        either!(&mut self.face, start(vector))
    }

    fn cut_off(&mut self) {
        self.claimed.stop_bus_master();
    }

    fn enable_queue(&mut self, queue: u16, areas: Areas) -> Result<(), VirtioError> {
        let vector = self.vector(Some(queue));
        either!(&mut self.face, enable_queue(queue, areas, vector))
    }

    #[inline]
    fn notify(&mut self, queue: u16, next: u16) {
        match &mut self.face {
            Face::Modern(face) => face.notify(queue, next),
            Face::Legacy(face) => face.notify(queue),
        }
    }

    fn reset_queue(&mut self, queue: u16) {
        if let Face::Modern(face) = &mut self.face {
            face.reset_queue(queue);
        }
    }

    fn is_queue_reset(&mut self, queue: u16) -> bool {
        match &mut self.face {
            Face::Modern(face) => face.is_queue_reset(queue),
            Face::Legacy(_) => false,
        }
    }

    fn cause(&mut self, vector: u16) -> Cause {
        match self.vectors {
            Some(Vectors { kind: InterruptKind::MsiX, count }) => {
                let shared = count == 1;
                Cause { queues: shared || vector > 0, config: shared || vector == 0 }
            }
            Some(_) => {
                // Reading is what takes the line back.
                let isr = either!(&mut self.face, isr());
                Cause { queues: isr != 0, config: isr & ISR_CONFIG != 0 }
            }
            None => Cause::NONE,
        }
    }

    fn config_generation(&self) -> u32 {
        match &self.face {
            Face::Modern(face) => face.config_generation().into(),
            Face::Legacy(_) => 0,
        }
    }

    fn config_u8(&self, offset: usize) -> u8 {
        self.config().map_or(u8::MAX, |config| config.read_u8(offset))
    }

    fn config_u16(&self, offset: usize) -> u16 {
        self.config().map_or(u16::MAX, |config| config.read_u16(offset))
    }

    fn config_u32(&self, offset: usize) -> u32 {
        self.config().map_or(u32::MAX, |config| config.read_u32(offset))
    }

    fn set_config_u8(&mut self, offset: usize, value: u8) {
        let config = match &mut self.face {
            Face::Modern(face) => face.config_mut(),
            Face::Legacy(face) => Some(face.config_mut()),
        };
        if let Some(config) = config {
            config.write_u8(offset, value);
        }
    }
}
