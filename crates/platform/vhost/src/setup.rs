//! What a back end is told before it serves queues.

use outboard_linux::EventFd;
use outboard_virtio::queue::Areas;
use outboard_virtio::spec::vhost_user::request::*;
use outboard_virtio::spec::vhost_user::{
    InflightRegion, MemoryRegion, REGIONS_AT, VringAddress, VringState,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use zerocopy::IntoBytes;

/// The first address that is used, here and behind the descriptor of the memory. Addresses of
/// this process are told to nobody.
const FIRST: u64 = 4096;

/// All of it.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    /// The features of the device that are used.
    pub(crate) features: u64,
    pub(crate) memory: BorrowedFd<'a>,
    pub(crate) memory_bytes: u64,
    /// Of each queue: where it is, from which entry on it is used, and by what the ends wake each
    /// other.
    pub(crate) queues: &'a [(Areas, u32)],
    pub(crate) kicks: &'a [EventFd],
    pub(crate) calls: &'a [EventFd],
    pub(crate) error: &'a EventFd,
}

/// Where a back end keeps what is in flight. It is not looked at here, but kept for a back end that
/// takes the place.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) descriptor: OwnedFd,
    pub(crate) what: InflightRegion,
}

impl Region {
    /// A message's payload about such a region, with the padding that peers written in C want.
    pub(crate) fn payload(what: &InflightRegion) -> Vec<u8> {
        let mut payload = what.as_bytes().to_vec();
        payload.resize(payload.len().next_multiple_of(8), 0);
        payload
    }
}

/// A message: what it is about, its payload, its descriptor.
type Tell<'a> = (u32, Vec<u8>, Option<BorrowedFd<'a>>);

impl<'a> Setup<'a> {
    pub(crate) fn memory_table(&self) -> Vec<u8> {
        let count: [u8; REGIONS_AT] = 1u64.to_le_bytes();
        let region = MemoryRegion {
            guest_address: FIRST.into(),
            bytes: (self.memory_bytes - FIRST).into(),
            user_address: FIRST.into(),
            file_offset: FIRST.into(),
        };
        [&count, region.as_bytes()].concat()
    }

    /// What a region for what is in flight is to hold.
    pub(crate) fn region_wanted(&self) -> InflightRegion {
        let entries = self.queues.iter().map(|(areas, _)| areas.entries).max();
        InflightRegion {
            bytes: 0.into(),
            file_offset: 0.into(),
            queues: (self.queues.len() as u16).into(),
            entries: entries.unwrap_or(0).into(),
        }
    }

    pub(crate) fn queues(&self) -> impl Iterator<Item = QueueSetup<'a>> {
        let events = self.kicks.iter().zip(self.calls);
        let error = self.error;
        (0..).zip(self.queues.iter().zip(events)).map(
            move |(number, ((areas, base), (kick, call)))| QueueSetup {
                number,
                areas: *areas,
                base: *base,
                kick,
                call,
                error,
            },
        )
    }
}

/// What concerns one queue.
#[derive(Debug)]
pub(crate) struct QueueSetup<'a> {
    number: u32,
    areas: Areas,
    base: u32,
    kick: &'a EventFd,
    call: &'a EventFd,
    error: &'a EventFd,
}

impl<'a> QueueSetup<'a> {
    /// The messages, in the order in which they have to come: a queue may be served once its
    /// notifications are known.
    pub(crate) fn messages(&self) -> [Tell<'a>; 7] {
        let state = |request, number: u32| {
            let state = VringState { index: self.number.into(), number: number.into() };
            (request, state.as_bytes().to_vec(), None)
        };
        let event = |request, event: &'a EventFd| {
            let queue = u64::from(self.number).to_le_bytes();
            (request, queue.to_vec(), Some(event.as_fd()))
        };
        let address = VringAddress {
            index: self.number.into(),
            flags: 0.into(),
            descriptors: self.areas.descriptors.bits().into(),
            used: self.areas.device.bits().into(),
            available: self.areas.driver.bits().into(),
            log: 0.into(),
        };
        [
            state(SET_VRING_NUM, self.areas.entries.into()),
            state(SET_VRING_BASE, self.base),
            (SET_VRING_ADDR, address.as_bytes().to_vec(), None),
            event(SET_VRING_ERR, self.error),
            event(SET_VRING_CALL, self.call),
            event(SET_VRING_KICK, self.kick),
            state(SET_VRING_ENABLE, 1),
        ]
    }
}
