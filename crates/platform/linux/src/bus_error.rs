//! Surviving the loss of a device whose registers are mapped, or of memory that is somebody else's.
//!
//! The kernel answers an access to registers that are no longer there, or are switched off, with
//! SIGBUS. A handler puts a page of ones where the page of registers was, and notes that the
//! device is gone; the access is then repeated, and finds what a bus has where nobody is. The same
//! goes for memory behind a file that its owner has made shorter.
//!
//! The handler is put in place once, for the whole process and for good. Bus errors at other
//! addresses are passed on to whoever handled them before, or end the process as ever.
#![allow(unsafe_code)]

use rustix::io;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr::null;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Mappings of a process that are watched at once: a function has six regions at most, and each
/// seldom more than two parts that are mapped; a client of vhost-user seldom has more than eight
/// regions of memory.
const SLOTS: usize = 1024;

/// What the signal handler looks at: nothing but atomics, and they live for good (S10).
static WATCHED: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];
/// Taken by whoever changes which slots are in use.
static CHANGES: Mutex<()> = Mutex::new(());
/// What was done about bus errors before.
static FORMER: OnceLock<libc::sigaction> = OnceLock::new();

/// A range of addresses. It is free while `end` is zero, and `start` only changes meanwhile.
#[derive(Debug)]
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    /// Bytes of its pages.
    page_bytes: AtomicUsize,
    gone: AtomicBool,
}

impl Slot {
    const fn new() -> Self {
        let [start, end, page_bytes] = [const { AtomicUsize::new(0) }; 3];
        Self { start, end, page_bytes, gone: AtomicBool::new(false) }
    }

    fn holds(&self, address: usize) -> bool {
        let end = self.end.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Acquire);
        // Whoever frees the slot and takes it again changes the end twice.
        start <= address && address < end && self.end.load(Ordering::Acquire) == end
    }
}

/// A range of addresses that is watched for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Watch(&'static Slot);

impl Watch {
    /// Watches `len` bytes, which are whole pages of `page_bytes`, from `start` on.
    pub(crate) fn new(start: usize, len: usize, page_bytes: usize) -> io::Result<Self> {
        install()?;
        let _changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        let free = WATCHED.iter().find(|slot| slot.end.load(Ordering::Relaxed) == 0);
        let slot = free.ok_or(io::Errno::MFILE)?;
        slot.gone.store(false, Ordering::Relaxed);
        slot.page_bytes.store(page_bytes, Ordering::Relaxed);
        slot.start.store(start, Ordering::Relaxed);
        slot.end.store(start + len, Ordering::Release);
        Ok(Self(slot))
    }

    /// Whether an access has found nobody. It stays so.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.end.store(0, Ordering::Release);
    }
}

/// Puts the handler in place, unless it is there.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let install = || {
        let former = replace(None).map_err(io::Errno::raw_os_error)?;
        let _ = FORMER.set(former);
        replace(Some(&our_action())).map(drop).map_err(io::Errno::raw_os_error)
    };
    INSTALLED.get_or_init(install).map_err(io::Errno::from_raw_os_error)
}

fn our_action() -> libc::sigaction {
    // SAFETY: all zeros are a valid value of this structure: integers, and no function (S9).
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    action
}

/// Changes what is done about bus errors; returns what was done before.
fn replace(action: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut former = MaybeUninit::zeroed();
    let action = action.map_or(null(), std::ptr::from_ref);
    // SAFETY: both point to such a structure or nowhere, and our handler keeps to what a handler
    // may do (S9, S10).
    let failed = unsafe { libc::sigaction(libc::SIGBUS, action, former.as_mut_ptr()) } != 0;
    if failed {
        return Err(io::Errno::INVAL);
    }
    // SAFETY: the call has written it, and all zeros would have been valid, too (S9).
    Ok(unsafe { former.assume_init() })
}

/// The handler. It makes system calls and touches atomics, and nothing else (S10).
extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid structure, which lives until the handler returns (S10).
    let cause = unsafe { &*info };
    // SAFETY: for SIGBUS there is an address in it (S10).
    let address = unsafe { cause.si_addr() }.addr();
    // A signal that a process has sent is no fault.
    let by_fault = cause.si_code > 0;
    let found = WATCHED.iter().find(|slot| by_fault && slot.holds(address));
    match found {
        Some(slot) if cover(address, slot.page_bytes.load(Ordering::Relaxed)) => {
            slot.gone.store(true, Ordering::Relaxed)
        }
        _ => pass_on(signal, info, context),
    }
}

/// Puts a page of ones at the page of `address`; whether that worked.
fn cover(address: usize, bytes: usize) -> bool {
    let page = std::ptr::with_exposed_provenance_mut(address / bytes * bytes);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the page is part of a mapping that is watched, so nothing else is lost, and there are
    // no references into it (S3, S8).
    let mapped = unsafe { libc::mmap(page, bytes, access, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: the page was just mapped, writable, and only this thread knows of it (S2).
    unsafe { mapped.cast::<u8>().write_bytes(0xff, bytes) };
    true
}

/// Leaves a signal to whoever handled it before.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let former = FORMER.get();
    let handler = former.map_or(libc::SIG_DFL, |former| former.sa_sigaction);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // A fault that is ignored ends the process just the same (signal(7)).
        // SAFETY: both are safe to call in a handler (S10).
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // SAFETY: likewise; the signal arrives once the handler has returned (S10).
        unsafe { libc::raise(signal) };
    } else if former.is_some_and(|former| former.sa_flags & libc::SA_SIGINFO != 0) {
        type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: with that flag, what was installed is such a function (S10).
        let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: without the flag, what was installed takes the number alone (S10).
        let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
        handler(signal);
    }
}
