//! Why an HBA cannot be driven.

use outboard_hw::HwError;
use thiserror::Error;

/// Why an HBA cannot be driven at all. Trouble with one port is that port's state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AhciError {
    /// The function is no AHCI controller.
    #[error("class {class} is not an AHCI controller (010601)")]
    NotAhci {
        /// What it is.
        class: outboard_pci::Class,
    },
    /// The configuration asks for what the HBA cannot have.
    #[error("a command table cannot have {0} PRDT entries; it has from 1 to 65535")]
    BadConfig(u16),
    /// The platform failed.
    #[error(transparent)]
    Hw(#[from] HwError),
}
