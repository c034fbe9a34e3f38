//! Taking back what the device has done.

use super::flow::SENT_STEP;
use super::receive::Reaped;
use super::{Net, Phase};
use crate::recovery::ResetCause;
use crate::transport::{Cause, Transport};
use outboard_hw::Instant;
use outboard_net::Completions;

impl<T: Transport> Net<T> {
    /// Does whatever is due.
    pub(super) fn look(&mut self, now: Instant, done: &mut Completions) {
        self.advance(now, done);
        self.look_again = false;
        let cause = core::mem::replace(&mut self.cause, Cause::NONE);
        if self.is_up() && cause.config {
            self.look_at_device(now);
        }
        if self.is_up() {
            self.reap(now, done);
        }
        if self.is_up() {
            self.command(now);
        }
        if self.is_up() {
            self.check_time(now);
        }
        if self.stopping {
            self.begin_close(now, done);
        }
        if self.phase == Phase::Ended && self.holds_memory() {
            self.give_all_back(done);
        }
    }

    /// Takes all that is done, and asks to be told of what comes.
    fn reap(&mut self, now: Instant, done: &mut Completions) {
        let mut in_flight = false;
        for number in 0..self.pairs.len() {
            if let Err(why) = self.reap_sent(number, now, done) {
                return self.reset(now, why);
            }
            if let Err(why) = self.reap_received(number, done) {
                return self.reset(now, why);
            }
            in_flight |= self.pairs[number].transmit.held() > 0;
        }
        match self.sent_at {
            _ if !in_flight => self.sent_at = None,
            Some(at) if !now.reached(at) => {}
            _ => self.sent_at = Some(now + SENT_STEP),
        }
    }

    fn reap_received(&mut self, number: usize, done: &mut Completions) -> Result<(), ResetCause> {
        let receive = &mut self.pairs[number].receive;
        // A device that is faster than whoever takes the frames has to let others have their turn.
        let most = usize::from(receive.depth());
        let mut reaped = Reaped::default();
        let result = loop {
            let result = receive.reap(most, done, &mut reaped);
            if reaped.buffers >= most {
                self.look_again = true;
                break result;
            }
            if result.is_err() || self.masked || !receive.queue.listen() {
                break result;
            }
        };
        if reaped.frames > 0 {
            self.resets = 0;
        }
        self.counters.frames_received += reaped.frames;
        self.counters.bytes_received += reaped.bytes;
        self.counters.malformed += reaped.malformed;
        result
    }

    #[inline]
    fn reap_sent(
        &mut self,
        number: usize,
        now: Instant,
        done: &mut Completions,
    ) -> Result<(), ResetCause> {
        let transmit = &mut self.pairs[number].transmit;
        let frames = transmit.reap(done).map_err(ResetCause::Broken)?;
        if frames > 0 {
            transmit.since = (transmit.held() > 0).then_some(now);
            transmit.ignore_if_roomy();
            self.counters.frames_sent += frames as u64;
            self.resets = 0;
        }
        Ok(())
    }
}
