//! Telling clients, by `eventfd`s that they can do anything with.
//!
//! An `eventfd` whose count is as high as it gets makes whoever writes to it wait, unless it is
//! non-blocking; and whoever holds it can make it block again. Linux has no write to one that does
//! not wait whatever others do. So a thread looks now and then for a write that does not come back,
//! takes the count away, which lets the writer go on, and the client is disconnected. A read can be
//! told not to wait (`RWF_NOWAIT`, for `eventfd`s since Linux 5.8).

use crate::error::Violation;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, readlink};
use rustix::io::{self, IoSliceMut, ReadWriteFlags, preadv2};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// How often it is looked for writes that do not come back: a client can hold up others for twice
/// as long, once.
const TICK: Duration = Duration::from_millis(50);
/// How often the count of one is taken away in a tick, should somebody raise it again at once.
const ATTEMPTS: usize = 1000;

/// An `eventfd` that is written, whose writes are watched.
#[derive(Debug)]
pub(crate) struct Call {
    event: OwnedFd,
    /// Goes up when a write begins and when it has come back: odd while one is under way.
    writes: AtomicU32,
    blocks: AtomicBool,
}

impl Call {
    /// Takes an `eventfd` of a client's.
    pub(crate) fn new(event: OwnedFd, ring: usize) -> Result<Arc<Self>, Violation> {
        let set = || fcntl_setfl(&event, fcntl_getfl(&event)? | OFlags::NONBLOCK);
        if !is_event(&event) || set().is_err() {
            return Err(Violation::NotAnEvent(ring as u64));
        }
        let (writes, blocks) = (AtomicU32::new(0), AtomicBool::new(false));
        let call = Arc::new(Self { event, writes, blocks });
        watch(&call).map(|()| call)
    }

    /// Adds one to the count.
    pub(crate) fn signal(&self) {
        // Nobody else writes it, so it need not be one access.
        let writes = self.writes.load(Ordering::Relaxed);
        self.writes.store(writes.wrapping_add(1), Ordering::Release);
        // It fails only if the count is as high as it gets, and then it is readable anyway.
        let _ = io::write(&self.event, &1u64.to_ne_bytes());
        self.writes.store(writes.wrapping_add(2), Ordering::Release);
    }

    /// Whether a write has had to be freed.
    pub(crate) fn blocks(&self) -> bool {
        self.blocks.load(Ordering::Acquire)
    }

    /// Whether a write would wait: the count is as high as it gets.
    fn is_full(&self) -> bool {
        let mut one = [PollFd::new(&self.event, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut one, Some(&now)).is_ok() && !one[0].revents().contains(PollFlags::OUT)
    }

    /// Frees the write that was under way when this number was seen, if it still is, and waits.
    fn free(&self, seen: u32) {
        for _ in 0..ATTEMPTS {
            if self.writes.load(Ordering::Acquire) != seen || !self.is_full() {
                return;
            }
            self.blocks.store(true, Ordering::Release);
            let mut count = [0; 8];
            // Of what has no place in it, it is read from where it is.
            const HERE: u64 = u64::MAX;
            let into = &mut [IoSliceMut::new(&mut count)];
            let _ = preadv2(self.event.as_fd(), into, HERE, ReadWriteFlags::NOWAIT);
            thread::yield_now();
        }
    }
}

/// Whether a descriptor is an `eventfd`.
pub(crate) fn is_event(descriptor: &OwnedFd) -> bool {
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let target = readlink(path, Vec::new());
    target.is_ok_and(|target| target.as_bytes() == b"anon_inode:[eventfd]")
}

/// Tells by an `eventfd`, if there is one.
pub(crate) fn signal(call: Option<&Arc<Call>>) {
    if let Some(call) = call {
        call.signal();
    }
}

/// What is watched, each with the number of its writes when it was last looked at.
static WATCHED: Mutex<Vec<(Weak<Call>, u32)>> = Mutex::new(Vec::new());
/// There is something to watch.
static MORE: Condvar = Condvar::new();

/// Has a thread look after a call for as long as it lives.
fn watch(call: &Arc<Call>) -> Result<(), Violation> {
    static THREAD: OnceLock<bool> = OnceLock::new();
    let start = || thread::Builder::new().name("vhost-calls".into()).spawn(look).is_ok();
    if !*THREAD.get_or_init(start) {
        return Err(Violation::Unwatched);
    }
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner).push((Arc::downgrade(call), 0));
    MORE.notify_one();
    Ok(())
}

/// Looks for writes that do not come back, for ever; sleeps while there is nothing to watch.
fn look() {
    loop {
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stuck = Vec::new();
        watched.retain_mut(|(call, seen)| {
            let Some(call) = call.upgrade() else { return false };
            let writes = call.writes.load(Ordering::Acquire);
            if writes % 2 == 1 && writes == *seen {
                stuck.push((call, writes));
            }
            *seen = writes;
            true
        });
        let idle = watched.is_empty();
        if idle {
            drop(MORE.wait(watched));
            continue;
        }
        drop(watched);
        stuck.iter().for_each(|(call, seen)| call.free(*seen));
        drop(stuck);
        thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::fcntl_dupfd_cloexec;

    /// As high as it gets.
    const FULL: u64 = u64::MAX - 1;

    fn event() -> (OwnedFd, Arc<Call>) {
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let other = fcntl_dupfd_cloexec(&event, 0).unwrap();
        (event, Call::new(other, 0).unwrap())
    }

    fn count(event: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        io::read(event, &mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    #[test]
    fn calls_are_counted_and_do_not_wait_for_a_count_that_is_full() {
        let (event, call) = event();
        call.signal();
        call.signal();
        assert_eq!(count(&event), 2);
        io::write(&event, &FULL.to_ne_bytes()).unwrap();
        call.signal();
        assert!(!call.blocks());
        assert_eq!(count(&event), FULL);
    }

    #[test]
    fn a_call_that_is_made_to_wait_is_freed() {
        let (event, call) = event();
        let (other_event, other) = self::event();
        io::write(&event, &FULL.to_ne_bytes()).unwrap();
        fcntl_setfl(&event, fcntl_getfl(&event).unwrap() - OFlags::NONBLOCK).unwrap();
        call.signal();
        assert!(call.blocks());
        other.signal();
        assert!(!other.blocks());
        assert_eq!(count(&other_event), 1);
    }

    #[test]
    fn what_is_no_eventfd_is_refused() {
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        assert_eq!(Call::new(pipe, 3).unwrap_err(), Violation::NotAnEvent(3));
    }
}
