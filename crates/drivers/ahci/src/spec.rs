//! What the specifications say: registers, structures, frames and commands, written down once.
//!
//! The driver uses them from one side, a software model of the device from the other.
//!
//! "AHCI" is the Serial ATA Advanced Host Controller Interface 1.3.1, "SATA" the Serial ATA
//! Specification 3.2, "ACS" the ATA Command Set 4 (ACS-4).

pub mod ata;
pub mod atapi;
pub mod fis;
pub mod identify;
pub mod log;
pub mod multiplier;
pub mod registers;
pub mod security;
pub mod smart;
pub mod structures;
