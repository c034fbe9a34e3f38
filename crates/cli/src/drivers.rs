//! Which drivers there are.

use outboard_pci::Identity;

/// The driver of ours that fits a function.
pub(crate) fn fitting(identity: &Identity) -> Option<&'static str> {
    outboard_ahci::matches(identity).then_some("ahci")
}
