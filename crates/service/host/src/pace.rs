//! Whether to sleep until an interrupt comes, or to look for what has ended.

use core::time::Duration;
use outboard_hw::Instant;

/// How whoever runs a driver learns that requests have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reaping {
    /// By looking while requests end in quick succession, by interrupts otherwise.
    #[default]
    Adaptive,
    /// By interrupts alone.
    Interrupts,
    /// By looking for as long as requests are under way.
    Polling,
}

/// The longest time that is looked before sleeping: a disk in solid state takes up to about 150 µs,
/// and to be woken costs another 50 to 100 µs on a busy or a virtual machine. With 100 µs, a disk of
/// 120 µs was never looked for.
const LONGEST: Duration = Duration::from_micros(250);
/// The shortest one; shrinking below it, looking stops.
const SHORTEST: Duration = Duration::from_micros(10);
/// The longest time that is looked for requests while none are under way, where these end at once: to
/// sleep, to be told by the client, and to be woken costs the two as much of a processor's time. Where
/// requests take longer than that, it is as long as they do: rests are worth no more than they are.
const LONGEST_REST: Duration = Duration::from_micros(4);
/// The shortest one; shrinking below it, looking stops.
const SHORTEST_REST: Duration = Duration::from_micros(1);

/// Decides whether to look or to sleep, from how long requests have taken of late.
///
/// It looks for a certain time after the last request ended, or the first one began. That was in
/// vain if nothing ended and requests are still under way: the time is halved, down to none.
/// Somebody who was woken after less than the longest time would better have looked: twice that
/// time is looked from then on. So a disk in solid state is looked at while it is busy; one with
/// platters is left to interrupts, and an idle one too.
///
/// While no requests are under way it looks whether there are new ones, for another time that is
/// found in the same way, and is no longer than requests take: a client that asks again at once is
/// looked at, and one that thinks, or has to be woken first for what was done in no time, is waited for.
#[derive(Debug)]
pub struct Pace {
    reaping: Reaping,
    window: Duration,
    /// The same while none are under way.
    rest: Duration,
    /// The most that it may be.
    longest_rest: Duration,
    looking: bool,
    /// Whether requests were under way when it was last asked.
    busy: bool,
    /// When the last request ended, or the first one after a rest began.
    since: Instant,
}

impl Pace {
    /// The pace of somebody with nothing to do yet.
    pub const fn new(reaping: Reaping) -> Self {
        Self {
            reaping,
            window: LONGEST,
            rest: LONGEST_REST,
            longest_rest: LONGEST_REST,
            looking: false,
            busy: false,
            since: Instant::ORIGIN,
        }
    }

    /// Whether to look now, rather than to sleep. To be asked in each turn of a loop, after what has
    /// ended was taken and what is new was submitted: `busy` is whether requests are under way,
    /// `ended` whether some have ended since it was last asked.
    pub fn looks(&mut self, now: Instant, busy: bool, ended: bool) -> bool {
        self.looking = match self.reaping {
            Reaping::Interrupts => false,
            Reaping::Polling => busy,
            Reaping::Adaptive => self.adapt(now, busy, ended),
        };
        self.busy = busy;
        self.looking
    }

    fn adapt(&mut self, now: Instant, busy: bool, ended: bool) -> bool {
        let waited = now.since(self.since);
        if !self.busy && (busy || ended) {
            // The first after a rest.
            let limits = (SHORTEST_REST, self.longest_rest);
            self.rest = found(self.rest, self.looking, waited, limits);
        }
        if busy && !self.busy && !ended {
            // What nobody had asked for could not end.
            self.since = now;
            return !self.window.is_zero();
        }
        if ended {
            if self.busy {
                self.window = found(self.window, self.looking, waited, (SHORTEST, LONGEST));
            }
            let taken = if self.busy { waited } else { Duration::ZERO };
            self.longest_rest = taken.clamp(LONGEST_REST, LONGEST);
            self.rest = self.rest.min(self.longest_rest);
            self.since = now;
            // Those of a disk that is left to interrupts are far between.
            return !self.window.is_zero() && (busy || !self.rest.is_zero());
        }
        if !self.looking {
            return false;
        }
        let (time, shortest) =
            if busy { (&mut self.window, SHORTEST) } else { (&mut self.rest, SHORTEST_REST) };
        let goes_on = waited < *time;
        if !goes_on {
            let half = *time / 2;
            *time = if half < shortest { Duration::ZERO } else { half };
        }
        goes_on
    }
}

/// For how long to look from now on, if what is looked for came after so long.
fn found(
    time: Duration,
    looking: bool,
    waited: Duration,
    (shortest, longest): (Duration, Duration),
) -> Duration {
    if looking || waited > longest { time } else { time.max(waited * 2).clamp(shortest, longest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1000)
    }

    /// Requests one after another that take as long as this; whether the last was looked for all
    /// the time until it ended.
    fn run(pace: &mut Pace, start: u64, micros: u64, count: u64) -> bool {
        let mut looked = false;
        for number in 0..count {
            let begin = start + number * micros;
            looked = true;
            for step in 0..micros {
                looked = pace.looks(at(begin + step), true, number > 0 && step == 0);
            }
        }
        looked
    }

    #[test]
    fn quick_requests_are_looked_for() {
        let mut pace = Pace::new(Reaping::Adaptive);
        assert!(run(&mut pace, 0, 30, 10));
    }

    #[test]
    fn so_are_those_of_a_disk_that_takes_longer_after_one_that_took_too_long() {
        let mut pace = Pace::new(Reaping::Adaptive);
        assert!(run(&mut pace, 0, 120, 10));
        assert!(!run(&mut pace, 1200, 8000, 10));
        // Each takes 120 µs, and 80 µs to be woken after.
        assert!(!pace.looks(at(90_000), true, true));
        assert!(pace.looks(at(90_200), true, true));
        assert!(run(&mut pace, 90_200, 120, 10));
    }

    #[test]
    fn slow_requests_are_slept_for_and_quick_ones_looked_for_again() {
        let mut pace = Pace::new(Reaping::Adaptive);
        assert!(!run(&mut pace, 0, 8000, 10));
        assert!(pace.window.is_zero());
        assert!(run(&mut pace, 100_000, 30, 10));
    }

    #[test]
    fn when_idle_it_sleeps_soon_and_does_not_forget() {
        let mut pace = Pace::new(Reaping::Adaptive);
        run(&mut pace, 0, 30, 10);
        assert!(pace.looks(at(300), false, true));
        assert!(pace.looks(at(303), false, false));
        assert!(!pace.looks(at(350), false, false));
        // A second later there is a request again.
        assert!(pace.looks(at(1_000_400), true, false));
        assert!(pace.looks(at(1_000_480), true, false));
    }

    #[test]
    fn the_time_in_which_nothing_is_asked_for_does_not_count() {
        let mut pace = Pace::new(Reaping::Adaptive);
        // A client that thinks for longer than the disk takes, the loop looking all the while.
        for round in 0..100 {
            let begin = round * 600;
            for step in 0..60 {
                assert!(pace.looks(at(begin + step), true, false), "round {round}, {step} µs");
            }
            (60..600).for_each(|step| {
                pace.looks(at(begin + step), false, step == 60);
            });
        }
    }

    #[test]
    fn quick_requests_far_from_each_other_are_looked_for_again_too() {
        let mut pace = Pace::new(Reaping::Adaptive);
        run(&mut pace, 0, 8000, 10);
        assert!(!pace.looks(at(80_000), false, true));
        assert!(!pace.looks(at(1_000_000), true, false));
        // It took 60 µs to be woken, and would have taken less to look.
        pace.looks(at(1_000_060), false, true);
        pace.looks(at(1_000_500), false, false);
        assert!(pace.looks(at(2_000_000), true, false));
        assert!(pace.looks(at(2_000_060), true, false));
    }

    /// Requests that end at once, so many microseconds apart; how long it was looked for them in all.
    fn run_at_once(pace: &mut Pace, start: u64, apart: u64, count: u64) -> u64 {
        let mut looked = 0;
        for number in 0..count {
            let begin = start + number * apart;
            looked += u64::from(pace.looks(at(begin), false, true));
            looked += (1..apart).map(|at| begin + at).fold(0, |looked, micros| {
                looked + u64::from(pace.looking && pace.looks(at(micros), false, false))
            });
        }
        looked
    }

    #[test]
    fn clients_that_ask_again_at_once_are_looked_at_and_others_waited_for() {
        let mut pace = Pace::new(Reaping::Adaptive);
        assert_eq!(run_at_once(&mut pace, 0, 4, 100), 400);
        assert!(run_at_once(&mut pace, 1000, 100, 100) < 100);
        // One that is told of what it asked for, and comes back in time, is looked at again.
        assert!(run_at_once(&mut pace, 20_000, 3, 100) > 270);
    }

    #[test]
    fn where_requests_take_longer_so_may_rests() {
        let mut pace = Pace::new(Reaping::Adaptive);
        let (mut looked, mut now) = (0, 0);
        for _ in 0..20 {
            // A disk that takes 80 µs, and a client that needs 50 to ask again.
            (0..80).for_each(|step| assert!(pace.looks(at(now + step), true, false)));
            let ended = now + 80;
            looked = u64::from(pace.looks(at(ended), false, true));
            looked +=
                (1..50).filter(|step| pace.looks(at(ended + step), false, false)).count() as u64;
            now = ended + 50;
        }
        assert_eq!(looked, 50);
    }

    #[test]
    fn it_can_be_forced_either_way() {
        let mut pace = Pace::new(Reaping::Interrupts);
        assert!(!run(&mut pace, 0, 30, 10));
        let mut pace = Pace::new(Reaping::Polling);
        assert!(run(&mut pace, 0, 8000, 3));
        assert!(!pace.looks(at(24_000), false, true));
    }
}
