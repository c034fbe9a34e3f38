//! How much of its life a disk has behind it (§5.2.6, `VIRTIO_BLK_T_GET_LIFETIME`).

use crate::spec::blk::{
    LIFETIME_EXCEEDED, Lifetime, PRE_EOL_NORMAL, PRE_EOL_URGENT, PRE_EOL_WARNING,
};
use outboard_block::manage::{Attribute, Health, Verdict};

/// What is said of disks' health in the terms of that: attributes of which less is worse.
pub(super) fn health(said: &Lifetime) -> Health {
    let end = said.pre_eol_info.get();
    let used = [said.typ_a.get(), said.typ_b.get()];
    let mut health = Health {
        verdict: match end {
            _ if used.contains(&LIFETIME_EXCEEDED) => Verdict::Failing,
            PRE_EOL_NORMAL | PRE_EOL_WARNING => Verdict::Passed,
            PRE_EOL_URGENT => Verdict::Failing,
            _ => Verdict::Unknown,
        },
        ..Health::default()
    };
    // Percent of the blocks in reserve that are left at least, and none where nobody knows.
    let reserve = match end {
        PRE_EOL_NORMAL => Some(20),
        PRE_EOL_WARNING => Some(10),
        PRE_EOL_URGENT => Some(0),
        _ => None,
    };
    let reserve = reserve.map(|left| (1, "reserve-left", left, 1, end));
    // In steps of ten percent, of which the first is 1.
    let known = |used: &u16| (1..=LIFETIME_EXCEEDED).contains(used);
    let left = |used: u16| (LIFETIME_EXCEEDED - used) as u8 * 10;
    let names = [(2, "life-left-a"), (3, "life-left-b")];
    let lives = names.into_iter().zip(used).filter(|(_, used)| known(used));
    let lives = lives.map(|((id, name), used)| (id, name, left(used), 1, used));
    for (id, name, value, threshold, raw) in reserve.into_iter().chain(lives) {
        let raw = raw.into();
        let attribute =
            Attribute { id, name, value, worst: value, threshold, prefailure: true, raw };
        // There is room for many more.
        let _ = health.attributes.push(attribute);
    }
    health
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn of(end: u16, a: u16, b: u16) -> (Verdict, Vec<(u8, bool)>) {
        let said = Lifetime { pre_eol_info: end.into(), typ_a: a.into(), typ_b: b.into() };
        let health = health(&said);
        let each = health.attributes.iter().map(|one| (one.value, one.has_failed()));
        (health.verdict, each.collect())
    }

    #[test]
    fn what_a_disk_says_of_its_life_is_put_into_the_words_of_others() {
        assert_eq!(of(0, 0, 0), (Verdict::Unknown, vec![]));
        let good = vec![(20, false), (100, false), (50, false)];
        assert_eq!(of(PRE_EOL_NORMAL, 1, 6), (Verdict::Passed, good));
        let old = vec![(10, false), (10, false)];
        assert_eq!(of(PRE_EOL_WARNING, 10, 0), (Verdict::Passed, old));
        assert_eq!(of(PRE_EOL_URGENT, 0, 0), (Verdict::Failing, vec![(0, true)]));
        assert_eq!(of(0, LIFETIME_EXCEEDED, 0), (Verdict::Failing, vec![(0, true)]));
        assert_eq!(of(4, 12, u16::MAX), (Verdict::Unknown, vec![]), "nothing that is known");
    }
}
