//! Requests under way: each completes once, and gives its memory back.

use outboard_block::{BlockDriver, Completion, Request, Tag, UnitId};

/// Requests that are made at most.
const MAX_REQUESTS: usize = 128;

/// A request that was accepted, and has not completed.
#[derive(Clone, Copy)]
struct Pending {
    unit: UnitId,
    bytes: usize,
}

/// All requests, by tag.
pub(crate) struct Ledger {
    pending: [Option<Pending>; MAX_REQUESTS],
    made: usize,
}

impl Ledger {
    pub(crate) const fn new() -> Self {
        Self { pending: [None; MAX_REQUESTS], made: 0 }
    }

    pub(crate) fn complete(&mut self, completion: Completion) {
        let pending = self.pending.get_mut(completion.tag.0 as usize).and_then(Option::take);
        let pending = pending.expect("a request that is under way completes, and once");
        assert_eq!(completion.unit, pending.unit);
        assert_eq!(completion.data.bytes(), pending.bytes);
    }

    pub(crate) fn assert_all_completed(&self) {
        assert!(self.pending.iter().all(Option::is_none), "a request did not complete");
    }

    pub(crate) fn submit(&mut self, driver: &mut dyn BlockDriver, unit: UnitId, request: Request) {
        if self.made == MAX_REQUESTS {
            return;
        }
        let (tag, bytes) = (self.made, request.data.bytes());
        match driver.submit(unit, Tag(tag as u64), request) {
            Ok(()) => {
                self.pending[tag] = Some(Pending { unit, bytes });
                self.made += 1;
            }
            Err(refused) => assert_eq!(refused.request.data.bytes(), bytes),
        }
    }
}
