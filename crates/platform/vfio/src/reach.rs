//! Memory of other processes that functions reach through the IOMMU.
//!
//! A region of such memory has its addresses from the beginning, in one piece, and is mapped piece
//! by piece, as transfers use it: that pins its pages, which takes time and memory, and of a whole
//! virtual machine's it would take much of both. What is mapped stays so until the region is given
//! back, with the last transfer that uses it.
#![allow(unsafe_code)]

use crate::VfioError;
use crate::limit;
use crate::ranges::Addresses;
use crate::space::Mapper;
use outboard_hw::dma::{
    Arena, Constraints, DmaBuffer, DmaError, DmaSpace, DmaStatistics, ForeignRegion, Reach,
    Unreachable,
};
use rustix::io::Errno;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much is mapped at once: what an IOMMU maps with one entry, if the pages lie so. It is short
/// enough for nobody to notice that the loop pins it.
const PIECE_BYTES: usize = 2 << 20;

/// Where functions find memory: an arena, and foreign memory beside it, if that is allowed.
#[derive(Debug, Clone)]
pub(crate) struct VfioSpace {
    arena: Arena,
    foreign: Option<Arc<Foreign>>,
}

impl VfioSpace {
    /// A space with just an arena.
    pub(crate) const fn new(arena: Arena) -> Self {
        Self { arena, foreign: None }
    }

    /// A space with an arena, and with whatever is mapped beside it by `foreign`.
    pub(crate) const fn with_foreign(arena: Arena, foreign: Arc<Foreign>) -> Self {
        Self { arena, foreign: Some(foreign) }
    }
}

impl DmaSpace for VfioSpace {
    fn allocate(&self, len: usize, constraints: &Constraints) -> Result<DmaBuffer, DmaError> {
        self.arena.allocate(len, constraints)
    }

    fn statistics(&self) -> DmaStatistics {
        self.arena.statistics()
    }

    fn reach(
        &self,
        memory: Arc<dyn ForeignRegion>,
        constraints: &Constraints,
    ) -> Result<Box<dyn Reach>, Unreachable> {
        let foreign = self.foreign.as_ref().ok_or(Unreachable::Unsupported)?;
        let reach = Foreign::reach(foreign, memory, constraints.highest_address);
        Ok(Box::new(reach.map_err(refused)?))
    }
}

fn refused(error: VfioError) -> Unreachable {
    Unreachable::Refused(Box::new(error))
}

/// What a space maps beside its arena.
#[derive(Debug)]
pub(crate) struct Foreign {
    mapper: Arc<dyn Mapper>,
    addresses: Mutex<Addresses>,
    /// Bytes that may be mapped at once.
    limit: u64,
    /// Bytes that are.
    mapped: Mutex<u64>,
}

impl Foreign {
    /// Up to `limit` bytes at a time, mapped by `mapper` at free ones of these addresses.
    pub(crate) const fn new(mapper: Arc<dyn Mapper>, addresses: Addresses, limit: u64) -> Self {
        Self { mapper, addresses: Mutex::new(addresses), limit, mapped: Mutex::new(0) }
    }

    /// Addresses for a region, of which nothing is mapped yet.
    fn reach(
        this: &Arc<Self>,
        memory: Arc<dyn ForeignRegion>,
        highest: u64,
    ) -> Result<IommuReach, VfioError> {
        let (bytes, limit) = (memory.size_bytes() as u64, this.limit);
        if bytes > limit {
            return Err(VfioError::ForeignTooLarge { bytes, limit });
        }
        let device = locked(&this.addresses).take_for_foreign(bytes, highest);
        let device = device.ok_or(VfioError::NoForeignAddresses { bytes })?;
        let pieces = (0..memory.size_bytes().div_ceil(PIECE_BYTES)).map(|_| AtomicBool::new(false));
        let (pieces, foreign) = (pieces.collect(), this.clone());
        Ok(IommuReach { foreign, memory, device, pieces, is_refused: Mutex::new(false) })
    }

    /// Counts bytes that are to be mapped, unless they would be too many.
    fn count(&self, bytes: u64) -> Result<(), VfioError> {
        let mut mapped = locked(&self.mapped);
        let more = mapped.checked_add(bytes).filter(|more| *more <= self.limit);
        *mapped = more.ok_or(VfioError::ForeignUsedUp { limit: self.limit })?;
        Ok(())
    }

    fn uncount(&self, bytes: u64) {
        *locked(&self.mapped) -= bytes;
    }
}

/// A region of another process's memory, as functions find it.
struct IommuReach {
    foreign: Arc<Foreign>,
    memory: Arc<dyn ForeignRegion>,
    device: u64,
    /// Of each piece, whether it is mapped.
    pieces: Box<[AtomicBool]>,
    /// Whether a piece could not be mapped. Held by whoever maps.
    is_refused: Mutex<bool>,
}

impl IommuReach {
    /// The bytes of a piece.
    fn range(&self, piece: usize) -> Range<usize> {
        let start = piece * PIECE_BYTES;
        start..(start + PIECE_BYTES).min(self.memory.size_bytes())
    }

    /// The pieces that are mapped.
    fn mapped(&self) -> impl Iterator<Item = Range<usize>> {
        let pieces = self.pieces.iter().enumerate();
        let mapped = pieces.filter(|(_, is_mapped)| is_mapped.load(Ordering::Acquire));
        mapped.map(|(piece, _)| self.range(piece))
    }

    /// Maps those of some pieces that are not mapped.
    #[cold]
    fn map(&self, pieces: RangeInclusive<usize>) -> Result<(), Unreachable> {
        let mut is_refused = locked(&self.is_refused);
        for piece in pieces {
            if self.pieces[piece].load(Ordering::Acquire) {
                continue;
            }
            if *is_refused {
                // The reason was told.
                return Err(Unreachable::Unsupported);
            }
            if let Err(error) = self.map_piece(self.range(piece)) {
                *is_refused = true;
                return Err(refused(error));
            }
            self.pieces[piece].store(true, Ordering::Release);
        }
        Ok(())
    }

    fn map_piece(&self, range: Range<usize>) -> Result<(), VfioError> {
        let Foreign { mapper, .. } = &*self.foreign;
        let bytes = range.len() as u64;
        self.foreign.count(bytes)?;
        let cpu = self.memory.cpu().as_ptr().expose_provenance() + range.start;
        // SAFETY: the region is kept until the piece is unmapped, when this value is dropped; it is
        // another process's memory, which nobody here refers to (S1, S2, S3).
        let mapped = unsafe { mapper.map(cpu, self.device + range.start as u64, bytes) };
        mapped.map_err(|error| {
            self.foreign.uncount(bytes);
            match error {
                Errno::NOMEM => {
                    let missing = (self.memory.size_bytes() - self.mapped_bytes()) as u64;
                    limit::explain_foreign(missing, mapper.locked())
                }
                Errno::NOSPC => VfioError::ForeignMappings,
                error => VfioError::system("mapping memory of a virtual machine")(error),
            }
        })
    }

    fn mapped_bytes(&self) -> usize {
        self.mapped().map(|range| range.len()).sum()
    }
}

// SAFETY: pieces are marked once the IOMMU leads from their addresses on to these very bytes, and
// are unmapped when the value is dropped. The kernel pins the pages, so what their owner does to
// its file meanwhile leaves them in place (S4).
unsafe impl Reach for IommuReach {
    fn device(&self) -> u64 {
        self.device
    }

    #[inline]
    fn has(&self, range: Range<usize>) -> bool {
        let pieces = range.start / PIECE_BYTES..range.end.div_ceil(PIECE_BYTES);
        let pieces = self.pieces.get(pieces);
        pieces
            .is_some_and(|pieces| pieces.iter().all(|is_mapped| is_mapped.load(Ordering::Acquire)))
    }

    #[inline]
    fn extend(&self, range: Range<usize>) -> Result<(), Unreachable> {
        if range.is_empty() || range.end > self.memory.size_bytes() {
            return Err(Unreachable::Outside);
        }
        if self.has(range.clone()) {
            return Ok(());
        }
        let pieces = range.start / PIECE_BYTES..=(range.end - 1) / PIECE_BYTES;
        self.map(pieces)
    }
}

impl Drop for IommuReach {
    fn drop(&mut self) {
        let mut all = true;
        for range in self.mapped() {
            let bytes = range.len() as u64;
            all &= self.foreign.mapper.unmap(self.device + range.start as u64, bytes).is_ok();
            self.foreign.uncount(bytes);
        }
        // If the space's last function has left it, the kernel has unmapped everything already, and
        // nobody needs the addresses; if something stays mapped, nothing else may be put there.
        if all {
            locked(&self.foreign.addresses).give(self.device);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Locked;
    use outboard_linux::{ForeignMemory, SharedMemory};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::io;

    const PIECE: u64 = PIECE_BYTES as u64;
    const FOUR_GIB: u64 = 1 << 32;

    /// Remembers what is mapped, and maps nothing.
    #[derive(Debug, Default)]
    struct Ledger {
        mapped: Mutex<Vec<(u64, u64)>>,
        /// How the next mapping fails.
        fails: Mutex<Option<Errno>>,
        attempts: Mutex<usize>,
    }

    impl Mapper for Ledger {
        unsafe fn map(&self, _: usize, iova: u64, len: u64) -> io::Result<()> {
            *locked(&self.attempts) += 1;
            if let Some(error) = *locked(&self.fails) {
                return Err(error);
            }
            let mut mapped = locked(&self.mapped);
            assert!(mapped.iter().all(|(at, bytes)| iova + len <= *at || at + bytes <= iova));
            mapped.push((iova, len));
            mapped.sort_unstable();
            Ok(())
        }

        fn unmap(&self, iova: u64, len: u64) -> io::Result<()> {
            let mut mapped = locked(&self.mapped);
            let place = mapped.iter().position(|one| *one == (iova, len)).ok_or(Errno::NOENT)?;
            mapped.remove(place);
            Ok(())
        }

        fn locked(&self) -> Locked {
            Locked::ByProcess(0)
        }
    }

    impl Ledger {
        fn mapped(&self) -> Vec<(u64, u64)> {
            locked(&self.mapped).clone()
        }
    }

    fn space(limit: u64) -> (Arc<Ledger>, VfioSpace) {
        let ledger = Arc::new(Ledger::default());
        let addresses = Addresses::new(vec![0..=(1 << 39) - 1]);
        let foreign = Arc::new(Foreign::new(ledger.clone(), addresses, limit));
        let (_, arena) = SharedMemory::for_model("test", 4096).unwrap();
        (ledger, VfioSpace::with_foreign(arena, foreign))
    }

    fn memory(bytes: u64) -> ForeignMemory {
        let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, bytes).unwrap();
        ForeignMemory::map(file, 0, bytes).unwrap()
    }

    fn reached(space: &VfioSpace, bytes: u64) -> Result<ForeignMemory, Unreachable> {
        let mut memory = memory(bytes);
        memory.let_reach(space, &Constraints::NONE).map(|()| memory)
    }

    #[test]
    fn pieces_are_mapped_when_they_are_used_and_unmapped_with_the_last_part() {
        let (ledger, space) = space(64 << 20);
        let memory = reached(&space, 3 * PIECE + 4096).unwrap();
        assert_eq!(ledger.mapped(), [], "nothing was used");
        assert!(!memory.reaches(0..1));
        let across = memory.reached_part(PIECE_BYTES - 1..PIECE_BYTES + 1).unwrap();
        assert_eq!(across.address().bits(), FOUR_GIB + PIECE - 1);
        assert_eq!(ledger.mapped(), [(FOUR_GIB, PIECE), (FOUR_GIB + PIECE, PIECE)]);
        assert!(memory.reaches(0..2 * PIECE_BYTES) && !memory.reaches(0..2 * PIECE_BYTES + 1));
        let last = memory.reached_part(3 * PIECE_BYTES..3 * PIECE_BYTES + 4096).unwrap();
        let again = memory.reached_part(0..2 * PIECE_BYTES).unwrap();
        assert_eq!(ledger.mapped()[2..], [(FOUR_GIB + 3 * PIECE, 4096)], "and the rest once");
        drop((memory, across, again));
        assert_eq!(ledger.mapped().len(), 3, "a transfer is left");
        let other = reached(&space, 4096).unwrap();
        let part = other.reached_part(0..1).unwrap();
        assert_eq!(part.address().bits(), FOUR_GIB + 3 * PIECE + 4096, "its place is still taken");
        drop((part, other, last));
        assert_eq!(ledger.mapped(), []);
        let next = reached(&space, PIECE).unwrap().reached_part(5..6).unwrap();
        assert_eq!(next.address().bits(), FOUR_GIB + 5, "its place is free");
    }

    #[test]
    fn no_more_is_mapped_than_may_be_and_the_remedy_is_told() {
        let (ledger, space) = space(2 * PIECE);
        let error = reached(&space, 2 * PIECE + 1).unwrap_err().to_string();
        assert!(error.contains("--zero-copy 5"), "{error}");
        let [first, second] = [(); 2].map(|()| reached(&space, 2 * PIECE).unwrap());
        let parts = [0..1, PIECE_BYTES..PIECE_BYTES + 1].map(|range| first.reached_part(range));
        assert!(parts.iter().all(Result::is_ok));
        let error = second.reached_part(0..1).unwrap_err().to_string();
        assert!(error.contains("--zero-copy") && error.contains("4 MiB"), "{error}");
        drop((parts, first));
        assert!(
            matches!(second.reached_part(0..1), Err(Unreachable::Unsupported)),
            "it is not tried again"
        );
        assert!(reached(&space, PIECE).unwrap().reached_part(0..1).is_ok());
        drop(second);
        assert_eq!(ledger.mapped(), []);
    }

    #[test]
    fn what_the_kernel_refuses_is_asked_for_once_and_explained() {
        let (ledger, space) = space(64 << 20);
        let reasons = [
            (Errno::NOSPC, "dma_entry_limit"),
            (Errno::FAULT, "mapping memory of a virtual machine"),
            (Errno::NOMEM, "too little"),
        ];
        for (number, (errno, said)) in (1..).zip(reasons) {
            let memory = reached(&space, 2 * PIECE).unwrap();
            let good = memory.reached_part(0..1).unwrap();
            *locked(&ledger.fails) = Some(errno);
            let across = 0..PIECE_BYTES + 1;
            let error = memory.reached_part(across.clone()).unwrap_err();
            if errno != Errno::NOMEM {
                assert!(error.to_string().contains(said), "{error}");
            }
            assert!(matches!(memory.reached_part(across), Err(Unreachable::Unsupported)));
            assert_eq!(*locked(&ledger.attempts), 2 * number);
            assert!(memory.reached_part(7..100).is_ok(), "what is mapped stays so");
            *locked(&ledger.fails) = None;
            drop((memory, good));
            assert_eq!(ledger.mapped(), []);
        }
    }

    #[test]
    fn what_stays_mapped_keeps_its_addresses() {
        let (ledger, space) = space(64 << 20);
        let memory = reached(&space, 4096).unwrap();
        drop(memory.reached_part(0..1));
        // The kernel does not know of it any more, or says so.
        locked(&ledger.mapped).clear();
        drop(memory);
        let other = reached(&space, 4096).unwrap().reached_part(0..1).unwrap();
        assert_eq!(other.address().bits(), FOUR_GIB + 4096);
    }

    #[test]
    fn memory_above_what_a_device_reaches_is_refused() {
        let (_, space) = space(64 << 20);
        let below = Constraints { highest_address: FOUR_GIB - 1, ..Constraints::NONE };
        let mut low = memory(4096);
        low.let_reach(&space, &below).unwrap();
        assert!(low.reached_part(0..4096).unwrap().address().bits() < FOUR_GIB);
        let lower = Constraints { highest_address: 1 << 20, ..Constraints::NONE };
        let error = memory(4096).let_reach(&space, &lower).unwrap_err().to_string();
        assert!(error.contains("no room"), "{error}");
    }
}
