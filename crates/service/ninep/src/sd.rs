//! The tree of disks, as sd(3) of Plan 9 has it; mounted by convention at `/dev/sd`.
//!
//! ```text
//! ctl                 all disks: reads as a list, takes flush and rescan
//! stats               what was done to them, in numbers
//! sdC0/ctl            one disk: reads as lines, takes commands
//! sdC0/raw            the whole disk
//! sdC0/data           the whole disk, by sd(3)'s name
//! sdC0/geometry       sectors, and what is left of cylinders and heads
//! sdC0/smart          what the disk knows of its own health: asked when it is read
//! sdC0/stats          what was done to it, and how long that took
//! sdC0/part/0         the whole disk, once more
//! sdC0/part/1 …       its partitions
//! sdC1/…
//! ```
//!
//! A disk that is pulled out is no longer listed, and comes back under its name. When another disk
//! or medium takes the place, or the disk was away, files that were opened before are of no use
//! until they are opened again, and the version in the files' qids grows.
//!
//! Reading past the end of a disk or partition is end of file. Writing past it is an error, and
//! writes nothing.

mod command;
mod control;
mod error;
mod kept;
mod node;
mod text;
mod tree;

pub use node::Node;
pub use tree::{Excerpt, SdDone, SdFile, SdPending, SdTree};
