//! Counting register accesses.

use super::Registers;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

/// How often registers were accessed, shared by all the regions that count into it.
#[derive(Debug, Default)]
pub struct AccessCounts {
    reads: AtomicU64,
    writes: AtomicU64,
}

impl AccessCounts {
    /// Register reads so far. Each one stalls the processor for a round trip to the device.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Register writes so far. On PCI they are posted: the processor does not wait.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }
}

/// A region that counts the accesses made through it, one per method call.
///
/// Register accesses are what a command costs on every platform alike, so the figure carries over
/// from the lab to hardware.
#[derive(Debug, Clone)]
pub struct Counted<R> {
    region: R,
    counts: Arc<AccessCounts>,
}

impl<R> Counted<R> {
    /// Wraps `region`, counting into `counts`.
    pub const fn new(region: R, counts: Arc<AccessCounts>) -> Self {
        Self { region, counts }
    }
}

macro_rules! counted_access {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&self, offset: usize) -> $int {
            self.counts.reads.fetch_add(1, Ordering::Relaxed);
            self.region.$read(offset)
        }
        fn $write(&mut self, offset: usize, value: $int) {
            self.counts.writes.fetch_add(1, Ordering::Relaxed);
            self.region.$write(offset, value);
        }
    )*};
}

impl<R: Registers> Registers for Counted<R> {
    fn size_bytes(&self) -> usize {
        self.region.size_bytes()
    }

    counted_access! {
        u8: read_u8, write_u8;
        u16: read_u16, write_u16;
        u32: read_u32, write_u32;
        u64: read_u64, write_u64;
    }
}
