//! What is going to happen, in order of time.

use outboard_hw::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue of events. Those of the same instant come out in the order in which they went in.
#[derive(Debug)]
pub(crate) struct Schedule<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    added: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> Schedule<E> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), added: 0 }
    }

    pub(crate) fn add(&mut self, at: Instant, event: E) {
        self.heap.push(Reverse(Entry { at, number: self.added, event }));
        self.added += 1;
    }

    /// When the next event is due.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// The next event that is due at `now`, and when it was.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Instant, E)> {
        self.next_at().filter(|at| now.reached(*at))?;
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_of_arrival() {
        let mut schedule = Schedule::new();
        let at = Instant::from_nanos;
        [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b'), (9, 'e')]
            .into_iter()
            .for_each(|(time, event)| schedule.add(at(time), event));
        let due: String =
            std::iter::from_fn(|| schedule.pop_due(at(8))).map(|(_, event)| event).collect();
        assert_eq!(due, "abcd");
        assert_eq!(schedule.next_at(), Some(at(9)));
    }
}
