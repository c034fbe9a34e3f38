//! How a disk comes to transfer in a client's memory.

use outboard_block::disk::{DiskId, Disks};
use outboard_hw::dma::{Constraints, DmaSpace, Unreachable};
use outboard_linux::ForeignMemory;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

/// How often, in a turn, the controller is made to reach memory that it did not: each time it takes a
/// moment to pin, in which nobody else is served. Beyond that it is copied, and tried the next time.
pub(crate) const EXTENSIONS: u32 = 8;

/// What a disk needs to transfer in a client's memory, and why it cannot.
#[derive(Default)]
pub(crate) struct Reach {
    /// The disk's driver copies by the processor, so it takes any memory.
    takes_any: bool,
    /// Where its controller finds memory, and what it asks of that.
    space: Option<(Arc<dyn DmaSpace>, Constraints)>,
    /// Why some of the memory cannot be reached: the first reason, until it was told.
    refusal: RefCell<Option<Unreachable>>,
    is_told: Cell<bool>,
    /// How often the controller may still be made to reach more in this turn.
    extensions: Cell<u32>,
}

impl Reach {
    /// For clients of a disk.
    pub(crate) fn of(disk: DiskId, disks: &Disks) -> Self {
        let takes_any = disks.takes_any_memory(disk);
        let space = if takes_any { None } else { disks.space(disk) };
        Self { takes_any, space, ..Self::default() }
    }

    /// Lets the controller reach a client's memory, if it can; whether the disk may be able to
    /// transfer there.
    pub(crate) fn extend_to(&self, memory: &mut ForeignMemory) -> bool {
        if let Some((space, constraints)) = &self.space
            && let Err(refusal) = memory.let_reach(&**space, constraints)
        {
            self.refuse(refusal);
        }
        self.takes_any || memory.is_reached()
    }

    /// Another turn begins.
    pub(crate) fn begin_turn(&self) {
        self.extensions.set(EXTENSIONS);
    }

    /// Whether the controller may be made to reach more.
    pub(crate) fn may_extend(&self) -> bool {
        let left = self.extensions.get();
        self.extensions.set(left.saturating_sub(1));
        left > 0
    }

    /// Takes note of why something is copied. That a controller reaches no such memory, since it
    /// cannot or nobody asked for it, need not be told.
    pub(crate) fn refuse(&self, refusal: Unreachable) {
        let is_plain = matches!(refusal, Unreachable::Unsupported);
        if !is_plain && !self.is_told.replace(true) {
            *self.refusal.borrow_mut() = Some(refusal);
        }
    }

    /// Why some data is copied that need not be; told once for each client.
    pub(crate) fn take_refusal(&self) -> Option<Unreachable> {
        // It is asked for in each turn.
        if self.is_told.get() { self.refusal.take() } else { None }
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach")
            .field("takes_any", &self.takes_any)
            .field("refusal", &self.refusal)
            .finish_non_exhaustive()
    }
}
