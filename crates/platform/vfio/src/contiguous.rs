//! Which of many huge pages lie in one piece.

/// What devices with 32-bit addresses reach.
const FOUR_GIB: u64 = 1 << 32;

/// Which pages of `page_bytes` make the best piece, given the physical address of each: their
/// numbers, in the order of their addresses.
///
/// A piece below 4 GiB is the best one, so that devices with 32-bit addresses reach all of it, unless
/// it has fewer than `least` pages. Among those the longest is taken, up to `wanted` pages of it,
/// and of equal ones the lowest.
///
/// # Errors
///
/// The pages that the longest piece has, if those are fewer than `least`.
pub(crate) fn choose(
    addresses: &[u64],
    page_bytes: u64,
    wanted: usize,
    least: usize,
) -> Result<Vec<usize>, usize> {
    let mut pages: Vec<(u64, usize)> =
        addresses.iter().enumerate().map(|(number, address)| (*address, number)).collect();
    pages.sort_unstable();
    let low = pages.partition_point(|(address, _)| *address < FOUR_GIB);
    let longest = |pages: &[(u64, usize)]| -> Vec<usize> {
        let runs = pages.chunk_by(|one, next| one.0.checked_add(page_bytes) == Some(next.0));
        // Of equal ones, the last that is looked at is taken.
        let longest = runs.rev().max_by_key(|run| run.len().min(wanted)).unwrap_or_default();
        longest.iter().take(wanted).map(|(_, number)| *number).collect()
    };
    let found = Some(longest(&pages[..low])).filter(|run| run.len() >= least);
    let found = found.unwrap_or_else(|| longest(&pages));
    if found.len() < least { Err(found.len()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 2 << 20;

    fn chosen(pages: &[u64], wanted: usize, least: usize) -> Result<Vec<usize>, usize> {
        let addresses: Vec<u64> = pages.iter().map(|page| page * PAGE).collect();
        choose(&addresses, PAGE, wanted, least)
    }

    #[test]
    fn the_longest_piece_is_taken_in_the_order_of_addresses() {
        assert_eq!(chosen(&[9, 3, 8, 20, 2, 7], 8, 1), Ok(vec![5, 2, 0]));
        assert_eq!(chosen(&[9, 3, 8, 20, 2, 7], 2, 1), Ok(vec![4, 1]), "the lowest that suffices");
        assert_eq!(chosen(&[12, 11, 10], 2, 1), Ok(vec![2, 1]), "no more than is wanted");
    }

    #[test]
    fn a_piece_below_four_gib_is_preferred_unless_it_is_too_small() {
        let limit = FOUR_GIB / PAGE;
        let pages = [limit + 5, limit + 6, limit + 7, 100, 101];
        assert_eq!(chosen(&pages, 8, 2), Ok(vec![3, 4]));
        assert_eq!(chosen(&pages, 8, 3), Ok(vec![0, 1, 2]));
        let across = [limit - 2, limit - 1, limit, limit + 1];
        assert_eq!(chosen(&across, 4, 2), Ok(vec![0, 1]), "what is above is left out");
        assert_eq!(chosen(&across, 4, 3), Ok(vec![0, 1, 2, 3]));
    }

    #[test]
    fn pieces_that_are_too_small_are_refused_with_the_size_of_the_largest() {
        assert_eq!(chosen(&[1, 3, 5, 6, 8], 8, 3), Err(2));
        assert_eq!(chosen(&[], 8, 1), Err(0));
        assert_eq!(choose(&[u64::MAX, 0], PAGE, 2, 2), Err(1), "addresses do not wrap around");
    }
}
