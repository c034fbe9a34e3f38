//! What the parts about frames have in common.

use crate::Part;

/// Frames under way at once.
pub(crate) const BATCH: usize = 32;

/// Which way frames go, as who has the driver sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Out, with the header right before each.
    Out,
    /// Out; the header has a descriptor of its own.
    OutApart,
    /// In, into buffers that are used again.
    In,
}

/// A case: name, whether rings are packed, which way, and the most instructions that each frame may
/// take.
pub(crate) type Case = (&'static str, bool, Way, u64);

/// The parts that send or receive [`BATCH`] frames in a round, of what `new` makes.
pub(crate) fn parts<B: 'static>(
    cases: [Case; 6],
    new: fn(bool, Way) -> B,
    round: fn(&mut B),
) -> impl Iterator<Item = Part> {
    cases.into_iter().map(move |(name, packed, way, limit)| {
        let make = Box::new(move || {
            let mut bench = new(packed, way);
            Box::new(move || round(&mut bench)) as Box<dyn FnMut()>
        });
        Part { name, limit, times: BATCH as u64, is_marked: true, make }
    })
}
