//! Which writes may run together.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A range of sectors that a write touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) job: u32,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Nobody else may write there: it merges.
    pub(super) exclusive: bool,
}

impl Claim {
    const fn conflicts(&self, other: &Self) -> bool {
        let apart = self.last < other.first || other.last < self.first;
        !apart && (self.exclusive || other.exclusive)
    }
}

/// The claims of all writes under way to one disk: few, so they are simply searched.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: Vec<Claim>,
    /// In the order in which they came. One that waits is waited for by those after it, so that
    /// none waits for ever.
    waiting: VecDeque<Claim>,
    /// How many of them all nobody else may write in: without any, there are no conflicts.
    exclusive: usize,
}

impl Claims {
    /// Takes a claim, or lets it wait. Whether it was taken.
    pub(super) fn take(&mut self, claim: Claim) -> bool {
        let free = self.take_at_once(claim);
        if !free {
            self.exclusive += usize::from(claim.exclusive);
            self.waiting.push_back(claim);
        }
        free
    }

    /// Takes a claim unless it would have to wait. Whether it was taken.
    #[inline]
    pub(super) fn take_at_once(&mut self, claim: Claim) -> bool {
        let free = !claim.exclusive && self.exclusive == 0 || {
            let mut others = self.held.iter().chain(&self.waiting);
            !others.any(|other| other.conflicts(&claim))
        };
        if free {
            self.exclusive += usize::from(claim.exclusive);
            self.held.push(claim);
        }
        free
    }

    /// Gives a job's claim up, whether it was taken or waits; calls `taken` for each job whose
    /// claim is taken now.
    pub(super) fn give_up(&mut self, job: u32, mut taken: impl FnMut(u32)) {
        if let Some(index) = self.held.iter().position(|claim| claim.job == job) {
            self.exclusive -= usize::from(self.held.swap_remove(index).exclusive);
        }
        if self.waiting.is_empty() {
            return;
        }
        let exclusive = &mut self.exclusive;
        self.waiting.retain(|claim| {
            *exclusive -= usize::from(claim.job == job && claim.exclusive);
            claim.job != job
        });
        let mut index = 0;
        while let Some(claim) = self.waiting.get(index).copied() {
            let before = self.waiting.iter().take(index);
            if self.held.iter().chain(before).any(|other| other.conflicts(&claim)) {
                index += 1;
                continue;
            }
            self.waiting.remove(index);
            self.held.push(claim);
            taken(claim.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn claim(job: u32, first: u64, last: u64, exclusive: bool) -> Claim {
        Claim { job, first, last, exclusive }
    }

    fn give_up(claims: &mut Claims, job: u32) -> Vec<u32> {
        let mut taken = Vec::new();
        claims.give_up(job, |job| taken.push(job));
        taken
    }

    #[test]
    fn whole_sectors_are_written_together_and_merges_alone() {
        let mut claims = Claims::default();
        assert!(claims.take(claim(1, 0, 9, false)));
        assert!(claims.take(claim(2, 5, 15, false)));
        assert!(!claims.take(claim(3, 9, 9, true)));
        assert!(claims.take(claim(4, 16, 16, true)));
        assert_eq!(give_up(&mut claims, 1), []);
        assert_eq!(give_up(&mut claims, 2), [3]);
    }

    #[test]
    fn who_waits_is_not_overtaken() {
        let mut claims = Claims::default();
        assert!(claims.take(claim(1, 0, 9, false)));
        assert!(!claims.take(claim(2, 5, 5, true)));
        assert!(!claims.take(claim(3, 0, 9, false)), "it would hold up the merge before it");
        assert!(claims.take(claim(4, 6, 9, false)), "but this does not touch it");
        assert_eq!(give_up(&mut claims, 1), [2]);
        assert_eq!(give_up(&mut claims, 2), [3]);
        assert_eq!(give_up(&mut claims, 3), []);
    }

    #[test]
    fn who_gives_up_waiting_lets_others_through() {
        let mut claims = Claims::default();
        assert!(claims.take(claim(1, 0, 9, false)));
        assert!(!claims.take(claim(2, 5, 5, true)));
        assert!(!claims.take(claim(3, 5, 5, false)));
        assert_eq!(give_up(&mut claims, 2), [3]);
    }
}
