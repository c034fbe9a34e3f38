//! What a back end is told before it serves queues.

use outboard_linux::EventFd;
use outboard_virtio::queue::Areas;
use outboard_virtio::spec::vhost_user::request::*;
use outboard_virtio::spec::vhost_user::{MemoryRegion, REGIONS_AT, VringAddress, VringState};
use std::os::fd::{AsFd, BorrowedFd};
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
    /// Of each queue: where it is, and by what the ends wake each other.
    pub(crate) areas: &'a [Areas],
    pub(crate) kicks: &'a [EventFd],
    pub(crate) calls: &'a [EventFd],
    pub(crate) error: &'a EventFd,
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

    pub(crate) fn queues(&self) -> impl Iterator<Item = QueueSetup<'a>> {
        let events = self.kicks.iter().zip(self.calls);
        let error = self.error;
        (0..).zip(self.areas.iter().zip(events)).map(move |(number, (areas, (kick, call)))| {
            QueueSetup { number, areas: *areas, kick, call, error }
        })
    }
}

/// What concerns one queue.
#[derive(Debug)]
pub(crate) struct QueueSetup<'a> {
    number: u32,
    areas: Areas,
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
            state(SET_VRING_BASE, 0),
            (SET_VRING_ADDR, address.as_bytes().to_vec(), None),
            event(SET_VRING_ERR, self.error),
            event(SET_VRING_CALL, self.call),
            event(SET_VRING_KICK, self.kick),
            state(SET_VRING_ENABLE, 1),
        ]
    }
}
