//! What the disk does, through its boundary.

mod content;
mod data;
mod harness;
mod power;
mod security;
mod smart;
