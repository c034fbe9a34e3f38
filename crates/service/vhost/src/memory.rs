//! The client's memory.
//!
//! It is the client's: everything in it may change at any moment, and what is read from it is read
//! once and then checked. It is copied from and to, never referred to.

use crate::cut;
use crate::error::Violation;
use outboard_hw::dma::{DmaBuffer, SgList};
use outboard_linux::ForeignMemory;
use outboard_virtio::spec::vhost_user::MemoryRegion;
use std::cell::RefCell;
use std::ops::Range;
use std::os::fd::AsFd;
use std::rc::Rc;
use zerocopy::{FromBytes, IntoBytes};

/// The most regions: front ends that add them one by one seldom have more, and each takes one of
/// the process's mappings.
pub(crate) const MAX_REGIONS: usize = 32;

/// A region of the client's memory, mapped.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) guest: u64,
    pub(crate) user: u64,
    pub(crate) bytes: u64,
    memory: RefCell<ForeignMemory>,
}

impl Region {
    pub(crate) fn map(file: impl AsFd, what: &MemoryRegion) -> Result<Self, Violation> {
        let (guest, user) = (what.guest_address.get(), what.user_address.get());
        let bytes = what.bytes.get();
        // No address is beyond the last, and the sum of two lengths is one.
        if guest.checked_add(bytes).is_none() || user.checked_add(bytes).is_none() {
            return Err(Violation::Regions);
        }
        let memory = ForeignMemory::map(file, what.file_offset.get(), bytes)?;
        Ok(Self { guest, user, bytes, memory: RefCell::new(memory) })
    }

    fn overlaps(&self, other: &Self) -> bool {
        let apart = |a: u64, b: u64| a + self.bytes <= b || b + other.bytes <= a;
        !apart(self.guest, other.guest) || !apart(self.user, other.user)
    }
}

/// All memory that a client has shared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    regions: Vec<Rc<Region>>,
}

impl Memory {
    pub(crate) fn add(&mut self, region: Region) -> Result<(), Violation> {
        let overlaps = self.regions.iter().any(|other| region.overlaps(other));
        if overlaps || self.regions.len() >= MAX_REGIONS {
            return Err(Violation::Regions);
        }
        self.regions.push(Rc::new(region));
        Ok(())
    }

    /// Takes a region out; whether there was one.
    pub(crate) fn remove(&mut self, what: &MemoryRegion) -> bool {
        let count = self.regions.len();
        self.regions.retain(|region| {
            let MemoryRegion { guest_address, user_address, bytes, .. } = what;
            (region.guest, region.user, region.bytes)
                != (guest_address.get(), user_address.get(), bytes.get())
        });
        self.regions.len() < count
    }

    /// Whether a file has turned out to be shorter than it was.
    pub(crate) fn is_gone(&self) -> bool {
        self.regions.iter().any(|region| region.memory.borrow().is_gone())
    }

    /// The part of the memory at an address of the client's process, in one region.
    pub(crate) fn area(&self, user: u64, bytes: usize, alignment: u64) -> Option<Area> {
        let region = self.regions.iter().find(|region| {
            let offset = user.checked_sub(region.user);
            offset.is_some_and(|offset| offset < region.bytes)
        })?;
        let start = user - region.user;
        let aligned = user.is_multiple_of(alignment) && start.is_multiple_of(alignment);
        let fits = region.bytes - start >= bytes as u64;
        (aligned && fits).then(|| Area::new(region.clone(), start as usize, bytes))
    }

    /// The region that has a guest address, and where in it that is.
    #[inline]
    fn find(&self, guest: u64) -> Option<(&Region, u64)> {
        self.regions.iter().find_map(|region| {
            let start = guest.checked_sub(region.guest).filter(|start| *start < region.bytes)?;
            Some((&**region, start))
        })
    }

    /// Calls `part` for each part of a range of guest addresses that lies in one region; an error if
    /// some of it lies in none.
    #[inline]
    fn parts(
        &self,
        guest: u64,
        bytes: u32,
        mut part: impl FnMut(&RefCell<ForeignMemory>, Range<usize>),
    ) -> Result<(), Violation> {
        if let Some((region, start)) = self.find(guest)
            && region.bytes - start >= bytes.into()
        {
            // Nearly everything lies in one region.
            part(&region.memory, start as usize..start as usize + bytes as usize);
            return Ok(());
        }
        let outside = Violation::Outside(guest, bytes);
        let (mut at, mut left) = (guest, u64::from(bytes));
        while left > 0 {
            let (region, start) = self.find(at).ok_or(outside)?;
            let len = left.min(region.bytes - start);
            part(&region.memory, start as usize..(start + len) as usize);
            left -= len;
            at = at.wrapping_add(len);
        }
        Ok(())
    }

    /// Whether all bytes are there.
    pub(crate) fn check(&self, guest: u64, bytes: u32) -> Result<(), Violation> {
        self.parts(guest, bytes, |_, _| {})
    }

    /// Adds buffers for these bytes to a transfer's memory.
    pub(crate) fn lend(&self, guest: u64, bytes: u32, to: &mut SgList) -> Result<(), Violation> {
        self.parts(guest, bytes, |memory, range| {
            let len = range.len();
            to.push(memory.borrow().part(range), 0..len);
        })
    }

    /// Copies out to ordinary memory.
    pub(crate) fn read(&self, guest: u64, into: &mut [u8]) -> Result<(), Violation> {
        let mut done = 0;
        self.parts(guest, into.len() as u32, |memory, range| {
            let len = range.len();
            memory.borrow().memory().read_bytes(range.start, &mut into[done..done + len]);
            done += len;
        })
    }

    /// Copies in from ordinary memory.
    pub(crate) fn write(&self, guest: u64, from: &[u8]) -> Result<(), Violation> {
        let mut done = 0;
        self.parts(guest, from.len() as u32, |memory, range| {
            let len = range.len();
            if cut::writes() {
                let memory = &mut *memory.borrow_mut();
                memory.memory_mut().write_bytes(range.start, &from[done..done + len]);
            }
            done += len;
        })
    }

    /// Copies out to a device's memory.
    pub(crate) fn copy_out(
        &self,
        guest: u64,
        bytes: u32,
        into: &mut DmaBuffer,
        at: usize,
    ) -> Result<(), Violation> {
        let mut done = at;
        self.parts(guest, bytes, |memory, range| {
            let len = range.len();
            into.copy_from(done, memory.borrow().memory(), range);
            done += len;
        })
    }

    /// Copies in from a device's memory.
    pub(crate) fn copy_in(
        &self,
        guest: u64,
        bytes: u32,
        from: &DmaBuffer,
        at: usize,
    ) -> Result<(), Violation> {
        let mut done = at;
        self.parts(guest, bytes, |memory, range| {
            let len = range.len();
            if cut::writes() {
                let memory = &mut *memory.borrow_mut();
                memory.memory_mut().copy_from(range.start, from, done..done + len);
            }
            done += len;
        })
    }
}

/// A part of the memory that is known to be there: of a ring, or what is remembered of one.
///
/// Offsets are from its start, and are the back end's own, never the client's.
#[derive(Debug)]
pub(crate) struct Area {
    region: Rc<Region>,
    start: usize,
    memory: RefCell<DmaBuffer>,
}

impl Area {
    fn new(region: Rc<Region>, start: usize, bytes: usize) -> Self {
        let memory = region.memory.borrow().part(start..start + bytes);
        Self { region, start, memory: RefCell::new(memory) }
    }

    /// A part of memory that is nothing else.
    pub(crate) fn of(memory: ForeignMemory) -> Self {
        let bytes = memory.memory().len();
        let (guest, user) = (0, 0);
        let memory = RefCell::new(memory);
        Self::new(Rc::new(Region { guest, user, bytes: bytes as u64, memory }), 0, bytes)
    }

    /// A part of this part.
    pub(crate) fn part(&self, start: usize, bytes: usize) -> Option<Self> {
        let fits = start.checked_add(bytes)? <= self.memory.borrow().len();
        fits.then(|| Self::new(self.region.clone(), self.start + start, bytes))
    }

    /// Whether its file has turned out to be shorter than it was.
    pub(crate) fn is_gone(&self) -> bool {
        self.region.memory.borrow().is_gone()
    }

    #[inline]
    fn change(&self, act: impl FnOnce(&mut DmaBuffer)) {
        if cut::writes() {
            act(&mut self.memory.borrow_mut());
        }
    }

    /// Copies a plain value out.
    #[inline]
    pub(crate) fn read<T: FromBytes + IntoBytes>(&self, at: usize) -> T {
        self.memory.borrow().read(at)
    }

    /// Copies bytes in.
    #[inline]
    pub(crate) fn write(&self, at: usize, from: &[u8]) {
        self.change(|memory| memory.write_bytes(at, from));
    }

    /// Reads a word; what was written before it is visible afterwards.
    #[inline]
    pub(crate) fn load_u16(&self, at: usize) -> u16 {
        self.memory.borrow().load_u16(at)
    }

    /// Writes a word after everything that was written before.
    #[inline]
    pub(crate) fn store_u16(&self, at: usize, value: u16) {
        self.change(|memory| memory.store_u16(at, value));
    }

    /// Reads a double word in one access.
    #[inline]
    pub(crate) fn load_u64(&self, at: usize) -> u64 {
        self.memory.borrow().load_u64(at)
    }

    /// Writes a double word, in one access, after everything that was written before.
    #[inline]
    pub(crate) fn store_u64(&self, at: usize, value: u64) {
        self.change(|memory| memory.store_u64(at, value));
    }
}
