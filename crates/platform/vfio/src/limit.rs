//! Locked memory: how much a process may have.

use crate::VfioError;
use rustix::process::{Resource, getrlimit};

/// The least memory for transfers that is of use.
pub(crate) const LEAST_BYTES: u64 = 16 << 20;

/// The error behind memory that could not be pinned.
pub(crate) fn explain(wanted: u64) -> VfioError {
    let limit = getrlimit(Resource::Memlock).current;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    judge(wanted, limit, locked(&status))
}

fn judge(wanted: u64, limit: Option<u64>, locked: u64) -> VfioError {
    let needed = locked.saturating_add(wanted).next_multiple_of(1 << 20);
    match limit {
        Some(limit) if limit < needed => {
            let room = limit.saturating_sub(locked);
            let instead = (room >= LEAST_BYTES).then_some(room >> 20);
            VfioError::LockedMemory { wanted, limit, needed, instead }
        }
        _ => VfioError::NoMemory { wanted },
    }
}

/// Bytes that a process has locked, by its `/proc/self/status`.
fn locked(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_told_in_numbers() {
        let error = judge(256 << 20, Some(8 << 20), 4 << 10).to_string();
        assert!(error.contains("ulimit -l 263168"), "{error}");
        assert!(error.contains("LimitMEMLOCK=257M"), "{error}");
        assert!(error.contains("8192 KiB"), "{error}");
        assert!(!error.contains("--memory"), "16 MiB would not fit either: {error}");
        let error = judge(256 << 20, Some(64 << 20), 0).to_string();
        assert!(error.contains("--memory 64"), "{error}");
    }

    #[test]
    fn a_limit_that_is_not_the_reason_is_not_blamed() {
        for limit in [None, Some(1 << 40)] {
            assert!(matches!(judge(256 << 20, limit, 0), VfioError::NoMemory { .. }));
        }
    }

    #[test]
    fn what_is_locked_already_is_read() {
        assert_eq!(locked("VmPeak:\t 1 kB\nVmLck:\t     128 kB\nVmPin:\t 7 kB\n"), 128 << 10);
        assert_eq!(locked("nothing of the kind"), 0);
    }
}
