//! What a disk offers, whatever drives it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod disk;
mod driver;
pub mod manage;
pub mod partition;
mod unit;

pub use driver::{
    BlockDriver, BlockError, Completion, Durability, Operation, Refused, RefusedReason, Request,
    Room, Tag,
};
pub use manage::{Features, Health, Management};
pub use unit::{FailedReason, Geometry, Identity, Medium, Unit, UnitId, UnitState};
