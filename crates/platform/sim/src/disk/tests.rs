//! What the disk does, through its boundary.

mod data;
mod harness;
