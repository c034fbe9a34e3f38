//! A controller in real time: the model, and the thread that lets its time pass.

use super::plan::Plan;
use crate::device::{Pace, SimDevice};
use crate::disk::Disk;
use crate::fault::Fault;
use crate::hba::HbaModel;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use outboard_hw::Instant;
use outboard_hw::time::earlier;
use outboard_linux::{EventFd, InterruptSource, now};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, PoisonError};
use std::thread::JoinHandle;

/// Whether there is something to tell; all controllers have the same.
#[derive(Debug)]
pub(super) struct News {
    pub(super) event: EventFd,
    /// Spares those who look often a call of the system.
    any: AtomicBool,
}

impl News {
    pub(super) fn new() -> rustix::io::Result<Self> {
        Ok(Self { event: EventFd::new()?, any: AtomicBool::new(false) })
    }

    fn announce(&self) {
        // In this order, whoever sees that there is something finds the event to take.
        self.event.signal();
        self.any.store(true, Ordering::Release);
    }

    /// Whether something was announced since the last call.
    pub(super) fn take(&self) -> bool {
        let any = self.any.load(Ordering::Relaxed) && self.any.swap(false, Ordering::Acquire);
        if any {
            self.event.take();
        }
        any
    }
}

/// What the driver, its event loop and the controller's thread share. What is atomic here changes
/// only while the model is locked.
#[derive(Debug)]
pub(super) struct Clock {
    /// Readable when interrupts have come.
    interrupts: EventFd,
    /// Whether the pin was asserted when it was last looked at.
    asserted: AtomicBool,
    pin: bool,
    /// Of faults that have struck, and of a thread that has ended.
    news: Arc<News>,
    /// Wakes the thread, which waits with the model's lock.
    bell: Condvar,
    /// Until when the thread sleeps, in nanoseconds.
    sleeps_until: AtomicU64,
    stop: AtomicBool,
    /// The thread has ended by itself.
    died: AtomicBool,
}

impl Clock {
    fn tell(&self, hba: &mut HbaModel) {
        let fired = hba.take_interrupt();
        let asserted = self.asserted.swap(fired && self.pin, Ordering::Relaxed);
        if fired && !asserted {
            self.interrupts.signal();
        }
        if hba.has_struck() {
            self.news.announce();
        }
    }
}

impl Pace for Clock {
    fn before(&self, hba: &mut HbaModel) {
        hba.advance(now());
    }

    fn after(&self, hba: &mut HbaModel) {
        self.tell(hba);
        let until = self.sleeps_until.load(Ordering::Relaxed);
        if hba.next_event().is_some_and(|at| at.as_nanos() < until) {
            // Until it runs there is no need to wake it again.
            self.sleeps_until.store(0, Ordering::Relaxed);
            self.bell.notify_one();
        }
    }
}

/// A controller whose time passes.
#[derive(Debug)]
pub(super) struct Controller {
    pub(super) device: SimDevice,
    clock: Arc<Clock>,
    ports: u8,
    thread: Option<JoinHandle<()>>,
    /// Violations that were told.
    told: usize,
}

impl Controller {
    /// Starts the thread. `plans` are the faults of ports.
    pub(super) fn start(
        hba: HbaModel,
        arena: outboard_hw::dma::Arena,
        plans: Vec<(u8, Plan)>,
        news: Arc<News>,
    ) -> std::io::Result<Self> {
        let clock = Arc::new(Clock {
            interrupts: EventFd::new()?,
            asserted: AtomicBool::new(false),
            pin: hba.config().pin,
            news,
            bell: Condvar::new(),
            sleeps_until: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            died: AtomicBool::new(false),
        });
        let ports = hba.config().capabilities.ports_minus_one() + 1;
        let device = SimDevice::new(hba, arena).at_pace(clock.clone());
        let run = Run { device: device.clone(), clock: clock.clone(), plans };
        let thread = std::thread::Builder::new().name("simulated HBA".into());
        let thread = Some(thread.spawn(move || run.run())?);
        Ok(Self { device, clock, ports, thread, told: 0 })
    }

    pub(super) fn interrupts(&self) -> LiveInterrupts {
        LiveInterrupts { device: self.device.clone(), clock: self.clock.clone() }
    }

    /// Whether the thread has ended by itself.
    pub(super) fn died(&self) -> bool {
        self.clock.died.load(Ordering::Relaxed)
    }

    /// What has happened since the last call: at which port, and what.
    pub(super) fn drain(&mut self, tell: &mut dyn FnMut(u8, &dyn core::fmt::Display)) {
        let (struck, violations) = {
            let mut hba = self.device.hba();
            (hba.take_struck(), hba.violations().get(self.told..).unwrap_or_default().to_vec())
        };
        for struck in struck {
            let (fault, meaning) = (struck.fault, struck.fault.meaning());
            let sector = struck.lba.map(|lba| format!(" at sector {lba}")).unwrap_or_default();
            tell(struck.port, &format_args!("simulated fault {fault}{sector}: {meaning}"));
        }
        self.told += violations.len();
        for violation in violations {
            tell(0, &format_args!("the driver did what the specification forbids: {violation}"));
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        {
            let _hba = self.device.hba();
            self.clock.stop.store(true, Ordering::Relaxed);
            self.clock.bell.notify_one();
        }
        if let Some(thread) = self.thread.take() {
            // If it has panicked, that was told.
            let _ = thread.join();
        }
        let mut hba = self.device.hba();
        for port in 0..self.ports {
            if let Some(device) = hba.device(port)
                && let Some(disk) = device.as_any().downcast_mut::<Disk>()
            {
                // Whoever flushed before knows of sectors that cannot be written.
                let _ = disk.settle();
            }
        }
    }
}

/// What the thread has.
struct Run {
    device: SimDevice,
    clock: Arc<Clock>,
    plans: Vec<(u8, Plan)>,
}

/// Says so if the thread ends by itself.
struct Watch(SimDevice, Arc<Clock>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What the driver finds is a controller that was pulled out.
            self.0.hba().inject(0, Fault::Removed);
            self.1.died.store(true, Ordering::Relaxed);
            self.1.news.announce();
            self.1.interrupts.signal();
        }
    }
}

impl Run {
    fn run(mut self) {
        // Times of a disk are far below the 50 µs by which timers may be late otherwise.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let _watch = Watch(self.device.clone(), self.clock.clone());
        let (device, clock) = (self.device.clone(), self.clock.clone());
        let mut hba = device.hba();
        while !clock.stop.load(Ordering::Relaxed) {
            let at = now();
            hba.advance(at);
            self.strike(&mut hba, at);
            clock.tell(&mut hba);
            let plan = self.plans.iter().map(|(_, plan)| plan.next_at()).min();
            let next = earlier(hba.next_event(), plan);
            let Some(next) = next else {
                clock.sleeps_until.store(u64::MAX, Ordering::Relaxed);
                hba = clock.bell.wait(hba).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let time = next.since(now());
            if !time.is_zero() {
                clock.sleeps_until.store(next.as_nanos(), Ordering::Relaxed);
                let woken = clock.bell.wait_timeout(hba, time);
                hba = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
            clock.sleeps_until.store(0, Ordering::Relaxed);
        }
    }

    /// Lets the faults strike that are due.
    fn strike(&mut self, hba: &mut HbaModel, at: Instant) {
        for (port, plan) in &mut self.plans {
            while at.reached(plan.next_at()) {
                // What has found no occasion by now would come in one heap when there is work.
                hba.disarm(*port);
                plan.draw().iter().for_each(|fault| hba.inject(*port, *fault));
            }
        }
    }
}

/// The interrupts of a simulated controller, for the event loop that runs its driver.
#[derive(Debug)]
pub struct LiveInterrupts {
    device: SimDevice,
    clock: Arc<Clock>,
}

impl InterruptSource for LiveInterrupts {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.clock.interrupts.as_fd()]
    }

    fn take(&mut self, fired: &mut dyn FnMut(u16)) {
        if self.clock.interrupts.take() {
            fired(0);
        }
    }

    fn rearm(&mut self) {
        if self.clock.pin {
            let mut hba = self.device.hba();
            self.clock.asserted.store(false, Ordering::Relaxed);
            self.clock.tell(&mut hba);
        }
    }
}
