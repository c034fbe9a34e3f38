//! A ring as the front end sets it up, and its descriptors to wait for and to tell with.

use crate::call::{Call, signal};
use crate::error::Violation;
use crate::inflight::Inflight;
use crate::memory::Memory;
use crate::ring::{Areas, Ring, Shape, Start};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::VringAddress;
use outboard_virtio::spec::vhost_user::request::{SET_VRING_ADDR, SET_VRING_KICK, SET_VRING_NUM};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The most rings of a device: as many as a machine has processors that are worth one each.
pub(crate) const MAX_QUEUES: usize = 16;

/// A ring, whether it runs or not.
#[derive(Debug, Default)]
pub(crate) struct Vring {
    pub(crate) entries: u16,
    pub(crate) address: Option<VringAddress>,
    pub(crate) base: u32,
    pub(crate) kick: Option<OwnedFd>,
    pub(crate) call: Option<Arc<Call>>,
    pub(crate) error: Option<Arc<Call>>,
    pub(crate) enabled: bool,
    /// While it runs.
    pub(crate) ring: Option<Ring>,
    /// Requests that were taken out of it and have not ended.
    pub(crate) under_way: u32,
    /// The driver is to be told whether it wants to or not: a predecessor may have died before it
    /// could.
    pub(crate) owed_call: bool,
}

impl Vring {
    /// Where its parts are; an error if they are not in the memory.
    fn areas(
        &self,
        number: usize,
        memory: &Memory,
        features: Features,
    ) -> Result<Areas, Violation> {
        let address = self.address.ok_or(Violation::Order(SET_VRING_ADDR))?;
        let shape = Shape::of(self.entries, features);
        let area = |at: u64, (bytes, alignment): (usize, u64)| {
            memory.area(at, bytes, alignment).ok_or(Violation::RingAddress(number))
        };
        Ok(Areas {
            descriptors: area(address.descriptors.get(), shape.descriptors)?,
            driver: area(address.available.get(), shape.driver)?,
            device: area(address.used.get(), shape.device)?,
        })
    }

    /// Lets it run.
    pub(crate) fn start(
        &mut self,
        number: usize,
        memory: &Memory,
        features: Features,
        inflight: Option<&Inflight>,
    ) -> Result<(), Violation> {
        let entries = self.entries;
        if entries == 0 {
            return Err(Violation::Order(SET_VRING_KICK));
        }
        if !entries.is_power_of_two() && !features.contains(Features::PACKED) {
            return Err(Violation::Value(SET_VRING_NUM));
        }
        let areas = self.areas(number, memory, features)?;
        let remembered =
            inflight.map(|inflight| inflight.part(number, entries, features)).transpose()?;
        let start = Start { entries, features, base: self.base, areas, remembered };
        self.ring = Some(Ring::new(start)?);
        self.owed_call = true;
        Ok(())
    }

    /// The memory is another one now.
    pub(crate) fn relocate(
        &mut self,
        number: usize,
        memory: &Memory,
        features: Features,
    ) -> Result<(), Violation> {
        let areas =
            self.ring.is_some().then(|| self.areas(number, memory, features)).transpose()?;
        if let (Some(ring), Some(areas)) = (&mut self.ring, areas) {
            ring.set_areas(areas);
        }
        Ok(())
    }

    /// Shows the driver what has ended, and tells it if it wants to be told.
    pub(crate) fn publish(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        let wanted = ring.publish();
        if std::mem::take(&mut self.owed_call) || wanted {
            signal(self.call.as_ref());
        }
    }
}
