//! Pieces of the recovery that can be left out, to see whether a test notices.
//!
//! Only with the feature `sabotage`. Without it nothing can be left out, and the compiler takes all
//! of this away.

#![cfg_attr(not(feature = "sabotage"), expect(unreachable_pub, reason = "it is then not exported"))]

/// A piece of the recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sabotage {
    /// Requests that are overdue are noticed.
    Deadlines,
    /// A device with something to do is looked at without an interrupt.
    CheckUps,
    /// A device that asks for a reset is reset.
    Wishes,
    /// A device that has lost its state is noticed, and its cache doubted.
    Losses,
    /// After a loss the next flush says that writes may be lost.
    CacheDoubt,
    /// Durable writes begin again after a loss.
    DurableWrites,
    /// A durable write is followed by a flush.
    FlushAfterWrite,
    /// Memory is kept until the device has let go of it.
    Ownership,
    /// A request that is done without a status is not believed to be done.
    MissingStatus,
    /// Another disk is not taken for the one that was there.
    Identity,
    /// Requests of a disk that is gone are completed.
    Removal,
    /// What was agreed upon first is agreed upon again.
    Agreement,
    /// A device that cannot be set up is reset for another try.
    SetUps,
    /// Flushes of a device that cannot flush are answered by the driver.
    NoFlushes,
    /// A changed configuration is read again.
    Changes,
    /// A request has a last attempt.
    Attempts,
}

#[cfg(feature = "sabotage")]
impl Sabotage {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Deadlines,
        Self::CheckUps,
        Self::Wishes,
        Self::Losses,
        Self::CacheDoubt,
        Self::DurableWrites,
        Self::FlushAfterWrite,
        Self::Ownership,
        Self::MissingStatus,
        Self::Identity,
        Self::Removal,
        Self::Agreement,
        Self::SetUps,
        Self::NoFlushes,
        Self::Changes,
        Self::Attempts,
    ];
}

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LeftOut {
    #[cfg(feature = "sabotage")]
    pub(crate) piece: Option<Sabotage>,
}

impl LeftOut {
    /// Whether a piece is left out.
    #[cfg(feature = "sabotage")]
    pub(crate) fn has(self, piece: Sabotage) -> bool {
        self.piece == Some(piece)
    }

    /// Nothing is.
    #[cfg(not(feature = "sabotage"))]
    pub(crate) const fn has(self, _piece: Sabotage) -> bool {
        false
    }
}
