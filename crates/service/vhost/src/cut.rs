//! A death at any instruction, for tests: after so many writes to shared memory, none is made.

/// Whether writes to shared memory are still made.
#[cfg(not(test))]
#[inline]
pub(crate) const fn writes() -> bool {
    true
}

#[cfg(test)]
pub(crate) use tests::{after, restore, writes};

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// As above; counts.
    pub(crate) fn writes() -> bool {
        LEFT.with(|left| match left.get() {
            None => true,
            Some(0) => false,
            Some(count) => {
                left.set(Some(count - 1));
                true
            }
        })
    }

    /// From now on, this thread makes so many writes and no more.
    pub(crate) fn after(count: u64) {
        LEFT.with(|left| left.set(Some(count)));
    }

    /// Writes are made again; whether any were held back, or none was left.
    pub(crate) fn restore() -> bool {
        LEFT.with(|left| left.take() == Some(0))
    }
}
