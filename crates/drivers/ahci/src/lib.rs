//! AHCI: Serial ATA host bus adapters, and the disks and disc drives at their ports.
//!
//! # Theory
//!
//! A host bus adapter (HBA) has up to 32 *ports* with a disk at each. A port has a *command list*
//! of up to 32 *slots* in memory. A slot's header points to a *command table*: the frame (FIS) to
//! send to the disk, and a table of physical regions (PRDT) to transfer to or from. Setting a
//! slot's bit in PxCI hands the slot to the HBA, which clears the bit when it is done with it.
//! Queued commands (NCQ) also have a bit in PxSACT, cleared when the *disk* is done, in any order;
//! their tag is the number of their slot. What the disk sends is posted to the *received FIS* area.
//!
//! **Ownership.** A request's memory moves into its slot and out with its completion. While the
//! HBA may still transfer, the slot keeps it: after a timeout until the port or the HBA was reset.
//! A port's own structures live as long as the HBA is claimed. Dropping the driver resets the HBA,
//! then takes it off the bus, then frees the memory.
//!
//! **Order.** Requests wait in one queue for each port. Queued commands run together; a command
//! that cannot be queued (flush, TRIM) runs alone, after those before it and before those behind.
//!
//! **Cost.** A batch of queued commands is issued with two register writes, and reaped with two
//! writes and one read, however many they are. Nothing is allocated.
//!
//! **Time.** While commands are in flight the port is looked at ten times a second, interrupt or
//! not. A command that is overdue is trouble.
//!
//! **Trouble.** An error, a fatal interrupt, a lost link, an overdue command or a register that
//! makes no sense stops the port's command engine. Then, until something helps: start it again,
//! and ask the disk (log 10h) which queued command failed; reset the port (COMRESET); reset the
//! HBA; give the disk up. Innocent commands are issued again. If the culprit cannot be found, all
//! that were in flight run alone, one after the other, and the guilty one fails by itself. Each
//! command is tried a bounded number of times. One port's trouble does not stop the others, but
//! for the reset of the HBA.
//!
//! **Packets.** A CD or DVD drive (ATAPI) is a read-only disk that takes one packet at a time. What
//! it refuses it is asked about (REQUEST SENSE) once the command engine runs again. Its medium is
//! looked at when it is found, after each reset, and when the drive says or hints that something
//! happened; an idle drive is asked for that every two seconds unless it tells by itself. After a
//! reset, which is all that a drive may tell of, the medium has to prove by its first sectors that
//! it is the same. Requests for a medium that is no longer there fail; another medium is another
//! generation.
//!
//! **Distrust.** Nothing that HBA or disk write is used before it was checked: status and tags
//! against what was issued, identification by its checksum and its plausibility, addresses of
//! failures against the request's. A register of all ones is a device that is gone.
//!
//! **Management.** What a disk is asked and told beside its data is a program of orders, each an
//! ATA command that runs alone in the request's slot, with nothing between them. Passwords and
//! answers go through one block of the port's own memory; a password is wiped from it once its
//! command has ended or the HBA has let go of it. What destroys or counts attempts is never issued
//! twice. Settings that a reset undoes are applied again after it. A sleeping disk is woken by
//! COMRESET for the next request; a locked one serves management alone.
//!
//! **Plugging.** A port without a disk is watched, by interrupts and once a second without. A disk
//! that comes is brought up; when one goes, its requests fail and its unit's generation grows, and
//! so it does when another one answers in its place. What comes and goes without end is made to
//! pause, ever longer, and given up in the end.
//!
//! **Links.** After repeated errors a link is made slower. It saves power if asked to, while its
//! disk is in use; before a reset it is woken.
//!
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod controller;
mod counters;
mod error;
mod event;
mod multiplier;
mod port;
pub mod quirks;
mod sabotage;
pub mod spec;

pub use config::{AhciConfig, Reaping, Timeouts};
pub use controller::{Hba, matches};
pub use error::AhciError;
#[cfg(feature = "sabotage")]
pub use sabotage::Sabotage;
