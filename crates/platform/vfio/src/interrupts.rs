//! Interrupts as `eventfd`s.
//!
//! The kernel's handler signals them. A pin is level-triggered, so the kernel masks it when it has
//! fired, and unmasks it when another `eventfd` is signalled: that is what re-arming does.

use crate::ioctl;
use outboard_linux::{EventFd, InterruptSource};
use rustix::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use vfio_bindings::bindings::vfio::*;

/// Vectors of one function, at most: what drivers here have a use for.
const MAX_VECTORS: usize = 32;

/// What is switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    /// So many messages.
    Messages(usize),
    /// The pin; and whether it has fired since it was last re-armed.
    Pin {
        fired: bool,
    },
}

/// What a device and its interrupt source share.
#[derive(Debug)]
pub(crate) struct Wiring {
    device: Arc<OwnedFd>,
    /// Made when they are first needed, and kept: an event loop may know them.
    events: [OnceLock<EventFd>; MAX_VECTORS],
    unmask: OnceLock<EventFd>,
    state: Mutex<State>,
}

impl Wiring {
    pub(crate) fn new(device: Arc<OwnedFd>) -> Self {
        let (events, unmask) = ([const { OnceLock::new() }; MAX_VECTORS], OnceLock::new());
        Self { device, events, unmask, state: Mutex::new(State::Off) }
    }

    /// Switches vectors of `index` on, `max` if there are as many; how many there are now. `None`
    /// if there are not even `min`.
    pub(crate) fn enable(&self, index: u32, min: u16, max: u16) -> io::Result<Option<u16>> {
        let info = match ioctl::irq_info(&*self.device, index) {
            Ok(info) => info,
            // The function does not have such interrupts.
            Err(io::Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error),
        };
        let count = (info.count as usize).min(max.into()).min(MAX_VECTORS);
        if count < usize::from(min.max(1)) || info.flags & VFIO_IRQ_INFO_EVENTFD == 0 {
            return Ok(None);
        }
        let (pin, msi) = (index == VFIO_PCI_INTX_IRQ_INDEX, index == VFIO_PCI_MSI_IRQ_INDEX);
        // MSI has powers of two (PCI §6.8.1.3).
        let count = if msi { 1 << count.ilog2() } else { count };
        if count < usize::from(min) {
            return Ok(None);
        }
        let events: io::Result<Vec<_>> = self.events[..count].iter().map(event).collect();
        let events = events?;
        // What an earlier driver's device has signalled is forgotten.
        for event in &events {
            event.take();
        }
        let events: Vec<_> = events.iter().map(|event| event.as_fd()).collect();
        let trigger = VFIO_IRQ_SET_ACTION_TRIGGER;
        ioctl::set_irq_events(&*self.device, index, trigger, &events)?;
        if pin && let Err(error) = self.let_unmask(index) {
            let _ = ioctl::disable_irqs(&*self.device, index);
            return Err(error);
        }
        *self.state() = if pin { State::Pin { fired: false } } else { State::Messages(count) };
        Ok(Some(count as u16))
    }

    /// Lets an event of ours unmask the pin.
    fn let_unmask(&self, index: u32) -> io::Result<()> {
        let unmask = [event(&self.unmask)?.as_fd()];
        ioctl::set_irq_events(&*self.device, index, VFIO_IRQ_SET_ACTION_UNMASK, &unmask)
    }

    /// Switches everything off.
    pub(crate) fn disable(&self) {
        let state = std::mem::replace(&mut *self.state(), State::Off);
        let indices: &[u32] = match state {
            State::Off => &[],
            State::Messages(_) => &[VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX],
            State::Pin { .. } => &[VFIO_PCI_INTX_IRQ_INDEX],
        };
        for index in indices {
            // The kernel refuses for the kind that is not on, and for a function that is gone.
            let _ = ioctl::disable_irqs(&*self.device, *index);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active(&self) -> impl Iterator<Item = &EventFd> {
        let count = match *self.state() {
            State::Off => 0,
            State::Messages(count) => count,
            State::Pin { .. } => 1,
        };
        self.events[..count].iter().filter_map(OnceLock::get)
    }
}

/// The event of a place, made if there is none.
fn event(place: &OnceLock<EventFd>) -> io::Result<&EventFd> {
    if place.get().is_none() {
        let _ = place.set(EventFd::new()?);
    }
    place.get().ok_or(io::Errno::NOMEM)
}

/// The interrupts of a function, for the event loop that runs its driver.
#[derive(Debug)]
pub struct VfioInterrupts(pub(crate) Arc<Wiring>);

impl InterruptSource for VfioInterrupts {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.0.active().map(AsFd::as_fd).collect()
    }

    fn take(&mut self, fired: &mut dyn FnMut(u16)) {
        for (vector, event) in (0u16..).zip(self.0.active()) {
            if event.take() {
                fired(vector);
                if let State::Pin { fired } = &mut *self.0.state() {
                    *fired = true;
                }
            }
        }
    }

    fn rearm(&mut self) {
        if let State::Pin { fired: fired @ true } = &mut *self.0.state()
            && let Some(unmask) = self.0.unmask.get()
        {
            *fired = false;
            unmask.signal();
        }
    }
}
