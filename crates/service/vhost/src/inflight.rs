//! The memory that remembers what is in flight, for all rings.

use crate::error::Violation;
use crate::memory::Area;
use crate::queue::MAX_QUEUES;
use crate::ring::{MAX_ENTRIES, remembered_bytes};
use outboard_linux::{ForeignError, ForeignMemory};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::InflightRegion;
use outboard_virtio::spec::vhost_user::request::{GET_INFLIGHT_FD, SET_INFLIGHT_FD};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::os::fd::OwnedFd;

/// The memory, as the front end has handed it over.
#[derive(Debug)]
pub(crate) struct Inflight {
    area: Area,
    queues: u16,
    entries: u16,
}

/// Whether the rings are as many and as large as any may be.
const fn is_possible(queues: u16, entries: u16) -> bool {
    0 < queues && queues as usize <= MAX_QUEUES && 0 < entries && entries <= MAX_ENTRIES
}

/// Makes such memory for the front end to keep. It is as large as either layout of rings needs it,
/// since the front end may not have said yet which it will be.
pub(crate) fn make(wanted: &InflightRegion) -> Result<(InflightRegion, OwnedFd), Violation> {
    let (queues, entries) = (wanted.queues.get(), wanted.entries.get());
    if !is_possible(queues, entries) {
        return Err(Violation::Value(GET_INFLIGHT_FD));
    }
    let bytes = (remembered_bytes(entries, Features::PACKED) * usize::from(queues)) as u64;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let system = ForeignError::System;
    let file = memfd_create("outboard-inflight", flags).map_err(system)?;
    ftruncate(&file, bytes).map_err(system)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(system)?;
    let made = InflightRegion { bytes: bytes.into(), file_offset: 0.into(), ..*wanted };
    Ok((made, file))
}

impl Inflight {
    /// Takes the memory from the front end.
    pub(crate) fn adopt(what: &InflightRegion, file: OwnedFd) -> Result<Self, Violation> {
        let (queues, entries) = (what.queues.get(), what.entries.get());
        if !is_possible(queues, entries) {
            return Err(Violation::Value(SET_INFLIGHT_FD));
        }
        let memory = ForeignMemory::map(file, what.file_offset.get(), what.bytes.get())?;
        Ok(Self { area: Area::of(memory), queues, entries })
    }

    /// The part for a ring with so many entries.
    pub(crate) fn part(
        &self,
        queue: usize,
        entries: u16,
        features: Features,
    ) -> Result<Area, Violation> {
        let bytes = remembered_bytes(self.entries, features);
        let known = queue < usize::from(self.queues) && entries <= self.entries;
        let part = known.then(|| self.area.part(bytes * queue, bytes)).flatten();
        part.ok_or(Violation::InFlight)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.area.is_gone()
    }
}
