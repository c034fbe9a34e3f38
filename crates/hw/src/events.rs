//! A ring of a driver's last events.
//!
//! A driver does not print in a loop. It records what happened, as plain values, and whoever runs
//! it (or looks at its remains) reads the last of them.

use crate::Instant;

/// The last `N` events, each with the time and a running number.
#[derive(Debug, Clone)]
pub struct EventRing<E, const N: usize> {
    events: [Option<Event<E>>; N],
    recorded: u64,
}

/// One recorded event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<E> {
    /// Counts up from 0 without gaps, so that a reader sees what the ring has dropped.
    pub number: u64,
    /// When it happened.
    pub at: Instant,
    /// What happened.
    pub what: E,
}

impl<E: Copy, const N: usize> EventRing<E, N> {
    /// An empty ring.
    pub const fn new() -> Self {
        const { assert!(N > 0) };
        Self { events: [None; N], recorded: 0 }
    }

    /// Records an event, dropping the oldest if the ring is full.
    pub fn record(&mut self, at: Instant, what: E) {
        let event = Event { number: self.recorded, at, what };
        self.events[(self.recorded % N as u64) as usize] = Some(event);
        self.recorded += 1;
    }

    /// How many events were recorded, including those that were dropped.
    pub const fn recorded(&self) -> u64 {
        self.recorded
    }

    /// The events still in the ring, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Event<E>> {
        let split = (self.recorded % N as u64) as usize;
        self.events[split..].iter().chain(&self.events[..split]).flatten().copied()
    }
}

impl<E: Copy, const N: usize> Default for EventRing<E, N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_ring_keeps_the_last_events_in_order() {
        let mut ring = EventRing::<u32, 3>::new();
        assert_eq!(ring.iter().count(), 0);
        for what in 0..5 {
            ring.record(Instant::from_nanos(u64::from(what)), what);
        }
        let kept: Vec<_> = ring.iter().map(|event| (event.number, event.what)).collect();
        assert_eq!(kept, [(2, 2), (3, 3), (4, 4)]);
        assert_eq!(ring.recorded(), 5);
    }
}
