//! The client's memory.
//!
//! It is the client's: everything in it may change at any moment, and what is read from it is read
//! once and then checked. It is copied from and to, never referred to.

use crate::cut;
use crate::error::Violation;
use crate::reach::Reach;
use outboard_hw::dma::{DmaBuffer, SgList};
use outboard_linux::ForeignMemory;
use outboard_virtio::spec::vhost_user::MemoryRegion;
use std::cell::{Cell, RefCell};
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
    /// Whether the disk may be able to transfer in it.
    is_lendable: bool,
    reach: Rc<Reach>,
}

impl Region {
    pub(crate) fn map(
        file: impl AsFd,
        what: &MemoryRegion,
        reach: &Rc<Reach>,
    ) -> Result<Self, Violation> {
        let (guest, user) = (what.guest_address.get(), what.user_address.get());
        let bytes = what.bytes.get();
        // No address is beyond the last, and the sum of two lengths is one.
        if guest.checked_add(bytes).is_none() || user.checked_add(bytes).is_none() {
            return Err(Violation::Regions);
        }
        let mut memory = ForeignMemory::map(file, what.file_offset.get(), bytes)?;
        let is_lendable = reach.extend_to(&mut memory);
        let (memory, reach) = (RefCell::new(memory), reach.clone());
        Ok(Self { guest, user, bytes, memory, is_lendable, reach })
    }

    /// A part of it for a transfer: one that the disk's controller reaches, or, if that cannot be
    /// had, one for transfers by the processor alone.
    #[inline]
    fn lend(&self, range: Range<usize>) -> DmaBuffer {
        let memory = self.memory.borrow();
        if memory.is_reached() && (memory.reaches(range.clone()) || self.reach.may_extend()) {
            match memory.reached_part(range.clone()) {
                Ok(part) => return part,
                Err(refusal) => self.reach.refuse(refusal),
            }
        }
        memory.part(range)
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
    /// The number of the region in which something was found last: the next is likely there.
    last: Cell<u32>,
    is_lendable: bool,
}

impl Memory {
    pub(crate) fn add(&mut self, region: Region) -> Result<(), Violation> {
        let overlaps = self.regions.iter().any(|other| region.overlaps(other));
        if overlaps || self.regions.len() >= MAX_REGIONS {
            return Err(Violation::Regions);
        }
        self.is_lendable |= region.is_lendable;
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

    /// Whether the disk may be able to transfer in some of it.
    #[inline]
    pub(crate) const fn is_lendable(&self) -> bool {
        self.is_lendable
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

    /// The span that a range of guest addresses is, if it lies in one region, as nearly everything
    /// does.
    #[inline(always)]
    pub(crate) fn span(&self, guest: u64, bytes: u32) -> Option<Span> {
        let region = self.last.get();
        let found = self.regions.get(region as usize)?;
        // Neither wraps, so what lies before a region is far behind it.
        let start = guest.wrapping_sub(found.guest);
        let fits = start < found.bytes && found.bytes - start >= bytes.into();
        if fits { Some(Span { region, start, bytes }) } else { self.search(guest, bytes) }
    }

    /// Likewise, in another region than was found last.
    #[cold]
    fn search(&self, guest: u64, bytes: u32) -> Option<Span> {
        let (region, start) = self.region_of(guest)?;
        self.last.set(region);
        let fits = self.regions[region as usize].bytes - start >= bytes.into();
        fits.then_some(Span { region, start, bytes })
    }

    /// The region that has a guest address, by its number, and where in it that is.
    fn region_of(&self, guest: u64) -> Option<(u32, u64)> {
        (0..).zip(&self.regions).find_map(|(number, region)| {
            let start = guest.checked_sub(region.guest).filter(|start| *start < region.bytes)?;
            Some((number, start))
        })
    }

    /// Calls `found` for each span of a range of guest addresses, in however many regions; an error if
    /// some of it lies in none.
    #[cold]
    pub(crate) fn spans(
        &self,
        guest: u64,
        bytes: u32,
        found: &mut dyn FnMut(Span),
    ) -> Result<(), Violation> {
        let (mut at, mut left) = (guest, u64::from(bytes));
        while left > 0 {
            let (region, start) = self.region_of(at).ok_or(Violation::Outside(guest, bytes))?;
            let len = left.min(self.regions[region as usize].bytes - start);
            found(Span { region, start, bytes: len as u32 });
            left -= len;
            at = at.wrapping_add(len);
        }
        Ok(())
    }

    #[inline]
    fn region(&self, span: Span) -> &RefCell<ForeignMemory> {
        &self.regions[span.region as usize].memory
    }

    /// Adds a buffer for a span to a transfer's memory.
    pub(crate) fn lend(&self, span: Span, to: &mut SgList) {
        to.push(self.regions[span.region as usize].lend(span.range()), 0..span.bytes as usize);
    }

    /// Has the processor fetch the beginning of a span.
    #[inline(always)]
    pub(crate) fn prefetch(&self, span: Span) {
        let memory = self.region(span).borrow();
        memory.memory().prefetch(span.start as usize, span.bytes as usize);
    }

    /// A buffer for a span, for a transfer of nothing else.
    #[inline]
    pub(crate) fn lend_one(&self, span: Span) -> SgList {
        SgList::single(
            self.regions[span.region as usize].lend(span.range()),
            0..span.bytes as usize,
        )
    }

    /// Copies a plain value out of the beginning of a span; panics if that is longer.
    #[inline]
    pub(crate) fn value<T: FromBytes + IntoBytes>(&self, span: Span) -> T {
        let start = span.first(size_of::<T>()).start;
        self.region(span).borrow().memory().read(start)
    }

    /// Copies the beginning of a span out to ordinary memory; panics if that is longer.
    #[inline(always)]
    pub(crate) fn read(&self, span: Span, into: &mut [u8]) {
        let start = span.first(into.len()).start;
        self.region(span).borrow().memory().read_bytes(start, into);
    }

    /// Copies ordinary memory in to the beginning of a span; panics if it is longer.
    #[inline]
    pub(crate) fn write(&self, span: Span, from: &[u8]) {
        if cut::writes() {
            let start = span.first(from.len()).start;
            self.region(span).borrow_mut().memory_mut().write_bytes(start, from);
        }
    }

    /// Copies a span out to a device's memory.
    #[inline(always)]
    pub(crate) fn copy_out(&self, span: Span, into: &mut DmaBuffer, at: usize) {
        into.copy_from(at, self.region(span).borrow().memory(), span.range());
    }

    /// Copies a span in from a device's memory.
    #[inline(always)]
    pub(crate) fn copy_in(&self, span: Span, from: &DmaBuffer, at: usize) {
        if cut::writes() {
            let range = at..at + span.bytes as usize;
            self.region(span).borrow_mut().memory_mut().copy_from(span.start as usize, from, range);
        }
    }
}

/// A piece of the memory that lies in one region, and is known to. It is the piece of the
/// [`Memory`] that has found it, and means nothing to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    region: u32,
    /// Where in the region.
    start: u64,
    pub(crate) bytes: u32,
}

impl Span {
    /// The bytes `from..to` of it. Panics if it does not have them.
    #[inline]
    pub(crate) fn part(self, from: u32, to: u32) -> Self {
        assert!(from <= to && to <= self.bytes, "{from}..{to} of {} bytes", self.bytes);
        Self { start: self.start + u64::from(from), bytes: to - from, ..self }
    }

    /// Where its first bytes are in the region. Panics if it has less.
    #[inline]
    fn first(self, bytes: usize) -> Range<usize> {
        assert!(bytes <= self.bytes as usize, "{bytes} of {} bytes", self.bytes);
        self.start as usize..self.start as usize + bytes
    }

    #[inline]
    const fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.bytes as usize
    }
}

/// A part of the memory that is known to be there: of a ring, or what is remembered of one.
///
/// Offsets are from its start, and are the back end's own, never the client's.
#[derive(Debug)]
pub(crate) struct Area {
    region: Rc<Region>,
    start: usize,
    memory: DmaBuffer,
}

impl Area {
    fn new(region: Rc<Region>, start: usize, bytes: usize) -> Self {
        let memory = region.memory.borrow().part(start..start + bytes);
        Self { region, start, memory }
    }

    /// A part of memory that is nothing else.
    pub(crate) fn of(memory: ForeignMemory) -> Self {
        let bytes = memory.memory().len();
        let region = Region {
            guest: 0,
            user: 0,
            bytes: bytes as u64,
            memory: RefCell::new(memory),
            is_lendable: false,
            reach: Rc::default(),
        };
        Self::new(Rc::new(region), 0, bytes)
    }

    /// A part of this part.
    pub(crate) fn part(&self, start: usize, bytes: usize) -> Option<Self> {
        let fits = start.checked_add(bytes)? <= self.memory.len();
        fits.then(|| Self::new(self.region.clone(), self.start + start, bytes))
    }

    /// Whether its file has turned out to be shorter than it was.
    pub(crate) fn is_gone(&self) -> bool {
        self.region.memory.borrow().is_gone()
    }

    #[inline]
    fn change(&mut self, act: impl FnOnce(&mut DmaBuffer)) {
        if cut::writes() {
            act(&mut self.memory);
        }
    }

    /// Copies a plain value out.
    #[inline]
    pub(crate) fn read<T: FromBytes + IntoBytes>(&self, at: usize) -> T {
        self.memory.read(at)
    }

    /// Copies bytes in.
    #[inline]
    pub(crate) fn write(&mut self, at: usize, from: &[u8]) {
        self.change(|memory| memory.write_bytes(at, from));
    }

    /// Reads a word; what was written before it is visible afterwards.
    #[inline]
    pub(crate) fn load_u16(&self, at: usize) -> u16 {
        self.memory.load_u16(at)
    }

    /// Writes a word after everything that was written before.
    #[inline]
    pub(crate) fn store_u16(&mut self, at: usize, value: u16) {
        self.change(|memory| memory.store_u16(at, value));
    }

    /// Reads a double word in one access.
    #[inline]
    pub(crate) fn load_u64(&self, at: usize) -> u64 {
        self.memory.load_u64(at)
    }

    /// Writes a double word, in one access, after everything that was written before.
    #[inline]
    pub(crate) fn store_u64(&mut self, at: usize, value: u64) {
        self.change(|memory| memory.store_u64(at, value));
    }
}
