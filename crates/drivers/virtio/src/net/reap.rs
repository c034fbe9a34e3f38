//! Taking back what the device has done.

use super::flow::SENT_STEP;
use super::receive::Outcome;
use super::{Net, Phase};
use crate::recovery::ResetCause;
use crate::transport::{Cause, Transport};
use outboard_hw::Instant;
use outboard_net::Completion;

impl<T: Transport> Net<T> {
    /// Does whatever is due.
    pub(super) fn look(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
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
    fn reap(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
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

    #[inline]
    fn reap_received(
        &mut self,
        number: usize,
        done: &mut dyn FnMut(Completion),
    ) -> Result<(), ResetCause> {
        let receive = &mut self.pairs[number].receive;
        // A device that is faster than whoever takes the frames has to let others have their turn.
        let mut left = receive.depth();
        loop {
            if left == 0 {
                self.look_again = true;
                return Ok(());
            }
            match receive.queue.take() {
                Some(Ok(used)) => {
                    left -= 1;
                    if let Some(bytes) = receive.arrived_plainly(used.token, used.bytes, done) {
                        self.counters.frames_received += 1;
                        self.counters.bytes_received += u64::from(bytes);
                        self.resets = 0;
                        continue;
                    }
                    match receive.arrived(used.token, used.bytes, done) {
                        Ok(Outcome::Frame(bytes)) => {
                            self.counters.frames_received += 1;
                            self.counters.bytes_received += u64::from(bytes);
                            self.resets = 0;
                        }
                        Ok(Outcome::Incomplete) => {}
                        Ok(Outcome::Malformed) => self.counters.malformed += 1,
                        Err(why) => return Err(ResetCause::Nonsense(why)),
                    }
                }
                Some(Err(why)) => return Err(ResetCause::Broken(why)),
                None if self.masked || !receive.queue.listen() => return Ok(()),
                None => {}
            }
        }
    }

    #[inline]
    fn reap_sent(
        &mut self,
        number: usize,
        now: Instant,
        done: &mut dyn FnMut(Completion),
    ) -> Result<(), ResetCause> {
        let transmit = &mut self.pairs[number].transmit;
        let (frames, bytes) = transmit.reap(transmit.held(), done).map_err(ResetCause::Broken)?;
        if frames > 0 {
            transmit.since = (transmit.held() > 0).then_some(now);
            transmit.ignore_if_roomy();
            self.counters.frames_sent += frames as u64;
            self.counters.bytes_sent += bytes as u64;
            self.resets = 0;
        }
        Ok(())
    }
}
