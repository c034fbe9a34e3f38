//! The tree of disks, as sd(3) of Plan 9 has it; mounted by convention at `/dev/sd`.
//!
//! ```text
//! ctl                 all disks: reads as a list, takes flush and rescan
//! stats               what was done to them, in numbers
//! sdC0/ctl            one disk: reads as lines, takes commands
//! sdC0/raw            the whole disk
//! sdC0/data           the whole disk, by sd(3)'s name
//! sdC0/geometry       sectors, and what is left of cylinders and heads
//! sdC0/part/0         the whole disk, once more
//! sdC0/part/1 …       its partitions
//! sdC1/…
//! ```
//!
//! Reading past the end of a disk or partition is end of file. Writing past it is an error, and
//! writes nothing.

mod control;
mod kept;
mod node;
mod text;
mod tree;

pub use node::Node;
pub use tree::{SdDone, SdFile, SdPending, SdTree};
