//! Pieces of the recovery that can be left out, to see whether a test notices.
//!
//! Only with the feature `sabotage`. Without it nothing can be left out, and the compiler takes all
//! of this away.

#![cfg_attr(not(feature = "sabotage"), expect(unreachable_pub, reason = "it is then not exported"))]

/// A piece of the recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sabotage {
    /// Commands that are overdue are noticed.
    Deadlines,
    /// A port with commands in flight is looked at without an interrupt.
    CheckUps,
    /// A command that failed is tried again.
    Retries,
    /// If nobody knows the culprit, suspects run alone.
    Isolation,
    /// A log is believed only if it makes sense.
    LogChecks,
    /// After a loss of power the next flush says that writes may be lost.
    CacheDoubt,
    /// Durable writes begin again after a loss of power.
    DurableWrites,
    /// A durable write is followed by a flush where the disk cannot do it by itself.
    FlushAfterWrite,
    /// What only a reset of the port takes from the device is taken from it.
    PortResets,
    /// What only a reset of the HBA stops is stopped.
    HbaResets,
    /// The engine is waited for before anything else is done.
    EngineStops,
    /// Memory is kept until the device has let go of it.
    Ownership,
    /// Another disk is not taken for the one that was there.
    Identity,
    /// Requests of a disk that is gone are completed.
    Removal,
    /// A loss of power during recovery is noticed.
    CutOffs,
}

#[cfg(feature = "sabotage")]
impl Sabotage {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Deadlines,
        Self::CheckUps,
        Self::Retries,
        Self::Isolation,
        Self::LogChecks,
        Self::CacheDoubt,
        Self::DurableWrites,
        Self::FlushAfterWrite,
        Self::PortResets,
        Self::HbaResets,
        Self::EngineStops,
        Self::Ownership,
        Self::Identity,
        Self::Removal,
        Self::CutOffs,
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
