//! Sources of random bytes (§5.4).

use crate::VirtioError;
use crate::device::{Device, DeviceConfig, DeviceState};
use crate::queue::Piece;
use crate::recovery::ResetCause;
use crate::transport::Transport;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use outboard_hw::Instant;
use outboard_hw::dma::{DmaBuffer, DmaSpace, Segment};
use thiserror::Error;

/// The queue of buffers to fill.
const REQUESTS: u16 = 0;
/// The most bytes that are asked for at once: a source may give less anyway.
const MAX_BYTES: usize = 64 << 10;
/// How often a request is issued in all.
const MOST_TRIES: u8 = 3;

/// A buffer that came back.
#[derive(Debug)]
pub struct Filled {
    /// The buffer.
    pub buffer: DmaBuffer,
    /// How many of its first bytes are random; a source may fill less than it was given. The device
    /// says that they are random, and nobody can check that.
    pub result: Result<usize, RngError>,
}

/// Why a buffer was not filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RngError {
    /// The source did not answer in time, again and again.
    #[error("the source of random bytes does not answer")]
    Timeout,
    /// The source is gone, was given up or stopped.
    #[error("the source of random bytes is gone")]
    Gone,
}

#[derive(Debug)]
struct Request {
    buffer: DmaBuffer,
    /// When it was issued, if the device has it.
    since: Option<Instant>,
    tries: u8,
}

/// The driver of a source of random bytes.
#[derive(Debug)]
pub struct Rng<T: Transport> {
    device: Device<T>,
    /// By token.
    requests: Vec<Option<Request>>,
    /// Those that the device does not have yet.
    waiting: VecDeque<u16>,
}

impl<T: Transport> Rng<T> {
    /// Takes a device over. It is brought up by [`poll`](Self::poll).
    pub fn new(transport: T, config: DeviceConfig) -> Result<Self, VirtioError> {
        let device = Device::new(transport, 1, config)?;
        let most = usize::from(config.queue_entries);
        let requests = (0..most).map(|_| None).collect();
        Ok(Self { device, requests, waiting: VecDeque::with_capacity(most) })
    }

    /// How the device is.
    pub const fn state(&self) -> DeviceState {
        self.device.state()
    }

    /// Memory that the device can reach.
    pub fn dma(&self) -> Arc<dyn DmaSpace> {
        self.device.transport.dma()
    }

    /// Queues a buffer to be filled, with at most 64 KiB; gives it back if too many wait, or the
    /// device cannot be used.
    pub fn submit(&mut self, buffer: DmaBuffer) -> Result<(), DmaBuffer> {
        let usable = !self.device.has_ended() && !self.device.is_stopping();
        let free = self.requests.iter().position(Option::is_none).filter(|_| usable);
        let Some(place) = free else { return Err(buffer) };
        buffer.sync_for_device(0..buffer.len());
        self.requests[place] = Some(Request { buffer, since: None, tries: 0 });
        self.waiting.push_back(place as u16);
        Ok(())
    }

    /// Passes what was queued to the device, as far as it takes it.
    pub fn kick(&mut self, now: Instant) {
        if !self.device.is_up() {
            return;
        }
        let queue = &mut self.device.queues[usize::from(REQUESTS)];
        while let Some(token) = self.waiting.front().copied() {
            let Some(request) = &mut self.requests[usize::from(token)] else { break };
            let bytes = request.buffer.len().min(MAX_BYTES) as u64;
            let segment = Segment { address: request.buffer.address(), bytes };
            let piece = Piece { segment, writable: true };
            if queue.add(token, 1, core::iter::once(piece)).is_err() {
                break;
            }
            request.since = Some(now);
            self.waiting.pop_front();
        }
        self.device.publish(REQUESTS);
        self.device.watch(now);
    }

    /// Notes that a vector has fired.
    pub fn interrupt(&mut self, vector: u16) {
        self.device.interrupt(vector);
    }

    /// Does whatever is due, and calls `done` for each buffer that comes back.
    pub fn poll(&mut self, now: Instant, done: &mut dyn FnMut(Filled)) {
        if self.device.advance(now) {
            self.take_back(done);
            self.device.set_up(now, 0, |_, _| Ok(1));
        }
        self.reap(now, done);
        self.check_time(now);
        self.kick(now);
        if self.requests.iter().all(Option::is_none) {
            self.device.close(now);
        }
        if self.device.has_ended() {
            self.waiting.clear();
            for request in self.requests.iter_mut().filter_map(Option::take) {
                done(Filled { buffer: request.buffer, result: Err(RngError::Gone) });
            }
        }
    }

    fn reap(&mut self, now: Instant, done: &mut dyn FnMut(Filled)) {
        // More than there are can only be done by a device that answers as fast as it is asked.
        let mut left = self.requests.len() + 1;
        while left > 0 && self.device.is_up() {
            left -= 1;
            let queue = &mut self.device.queues[usize::from(REQUESTS)];
            match queue.take() {
                // One byte at least is promised (§5.4.6.1).
                Some(Ok(used)) if used.bytes == 0 => {
                    let cause = ResetCause::Nonsense("fills buffers with nothing");
                    return self.device.reset(now, cause);
                }
                Some(Ok(used)) => {
                    let request = self.requests[usize::from(used.token)].take();
                    let Some(Request { buffer, .. }) = request else { continue };
                    buffer.sync_for_cpu(0..buffer.len());
                    self.device.went_well();
                    done(Filled { buffer, result: Ok(used.bytes as usize) });
                }
                Some(Err(why)) => return self.device.reset(now, ResetCause::Broken(why)),
                None if !queue.listen() => return,
                None => {}
            }
        }
        self.device.look_again = self.device.is_up();
    }

    fn check_time(&mut self, now: Instant) {
        let oldest = self.oldest();
        if self.device.is_up() && oldest.is_some_and(|since| now.reached(since)) {
            self.device.reset(now, ResetCause::Overdue);
        }
    }

    /// Until when the oldest request may take.
    fn oldest(&self) -> Option<Instant> {
        let since = self.requests.iter().flatten().filter_map(|request| request.since);
        since.min().map(|since| since + self.device.config.request_time)
    }

    /// Takes back what a device had that was reset. What was tried too often ends.
    fn take_back(&mut self, done: &mut dyn FnMut(Filled)) {
        for (token, place) in (0..).zip(&mut self.requests) {
            let Some(request) = place else { continue };
            if request.since.take().is_none() {
                continue;
            }
            request.tries += 1;
            if request.tries < MOST_TRIES {
                self.waiting.push_back(token);
            } else if let Some(Request { buffer, .. }) = place.take() {
                done(Filled { buffer, result: Err(RngError::Timeout) });
            }
        }
    }

    /// When to poll again if there is no interrupt before.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.device.has_ended() && self.requests.iter().any(Option::is_some) {
            true => Some(Instant::ORIGIN),
            false => self.device.next_deadline(self.oldest()),
        }
    }

    /// Begins to shut down: what waits is filled, then the device is brought to rest.
    pub fn stop(&mut self) {
        self.device.stop();
    }

    /// Whether the device is at rest after [`stop`](Self::stop), or was lost.
    pub fn is_stopped(&self) -> bool {
        self.device.has_ended() && self.requests.iter().all(Option::is_none)
    }

    /// Calls `event` with each event that was recorded since the last call, oldest first.
    pub fn drain_events(&mut self, event: &mut dyn FnMut(Instant, &dyn fmt::Display)) {
        self.device.drain_events(event);
    }
}
