//! What is told of a PCI function wherever one is listed.

use crate::drivers;
use crate::pci_ids::PciIds;
use outboard_pci::{Address, Identity};
use serde::Serialize;

/// A function, with the names of what it is.
#[derive(Serialize)]
pub(crate) struct Described {
    pub(crate) address: String,
    pub(crate) class: String,
    pub(crate) class_name: Option<String>,
    pub(crate) vendor: String,
    pub(crate) device: String,
    pub(crate) name: String,
    /// The kernel's driver that has it now.
    pub(crate) kernel_driver: Option<String>,
    /// The driver of ours that fits it.
    pub(crate) driver: Option<&'static str>,
}

impl Described {
    pub(crate) fn new(
        address: Address,
        identity: &Identity,
        kernel_driver: Option<String>,
        ids: &PciIds,
    ) -> Self {
        let class = identity.class;
        Self {
            address: address.to_string(),
            class: class.to_string(),
            class_name: ids.class(class.base, class.sub).map(str::to_owned),
            vendor: format!("{:04x}", identity.vendor),
            device: format!("{:04x}", identity.device),
            name: ids.device(identity.vendor, identity.device),
            kernel_driver,
            driver: drivers::fitting(identity),
        }
    }

    /// Its class in words, or else as its number.
    pub(crate) fn class_name(&self) -> &str {
        self.class_name.as_deref().unwrap_or(&self.class)
    }
}
