//! Where hardware departs from the specification.

use outboard_pci::Identity;

/// What to do differently for an HBA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Quirks {
    /// QEMU's disks go on with the other queued commands when one has failed, and its HBA goes on
    /// transferring for them after the command engine was stopped, though it says that it has let
    /// go of them. Only a port reset makes it stop. (It has no log of errors that this would lose.)
    pub(crate) reset_after_queued_failure: bool,
    /// QEMU up to 8.0 (7.2.7 of its stable series) does not report the failure of a queued command
    /// as an error: PxIS.TFES stays 0, and the set-device-bits FIS that carries the error is soon
    /// overwritten by that of another command. What stays is the bit of the command's tag in
    /// PxSERR, so any bit there while queued commands are out is taken for a failure.
    pub(crate) queued_failure_in_serr: bool,
}

/// Subsystem vendor and device that QEMU gives to its PCI devices.
const QEMU_SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);

impl Quirks {
    /// What is known about a controller.
    pub(crate) fn of(identity: &Identity) -> Self {
        let qemu = identity.subsystem == Some(QEMU_SUBSYSTEM);
        Self { reset_after_queued_failure: qemu, queued_failure_in_serr: qemu }
    }
}
