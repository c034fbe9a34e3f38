//! Locked memory: how much a process may have.

use crate::VfioError;
use rustix::process::{Resource, getrlimit, getuid};
use std::fmt;

/// The least memory for transfers that is of use.
pub(crate) const LEAST_BYTES: u64 = 16 << 20;

/// Memory that is locked already and counts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// By this process.
    ByProcess(u64),
    /// By all processes of this user.
    ByUser(u64),
}

impl Locked {
    pub(crate) const fn bytes(self) -> u64 {
        match self {
            Self::ByProcess(bytes) | Self::ByUser(bytes) => bytes,
        }
    }
}

/// What is added to how much a process may lock.
impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ByProcess(0) | Self::ByUser(0) => Ok(()),
            Self::ByProcess(bytes) => write!(f, ", of which {} KiB are taken", bytes >> 10),
            Self::ByUser(bytes) => {
                write!(f, ", less the {} KiB that this user's processes have locked", bytes >> 10)
            }
        }
    }
}

/// What this process has locked, to which a container's memory is added.
pub(crate) fn of_process() -> Locked {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    Locked::ByProcess(kib(&status, "VmLck:").unwrap_or(0) << 10)
}

/// What this user's processes have pinned, to which the memory of an `iommufd` is added. The kernel
/// tells no sum, and memory that was pinned with `CAP_IPC_LOCK` is among what it tells: it is an
/// estimate.
pub(crate) fn of_user() -> Locked {
    let user = getuid().as_raw();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let statuses = processes
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()))
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok());
    Locked::ByUser(statuses.map(|status| pinned_by(user, &status)).sum())
}

/// Bytes that a process has pinned, by its status, if it is this user's.
fn pinned_by(user: u32, status: &str) -> u64 {
    let is_users = number(status, "Uid:").is_some_and(|(id, _)| id == u64::from(user));
    kib(status, "VmPin:").filter(|_| is_users).unwrap_or(0) << 10
}

/// A value of a process's status that is in KiB.
fn kib(status: &str, name: &str) -> Option<u64> {
    number(status, name).and_then(|(kib, rest)| (rest == "kB").then_some(kib))
}

/// The first number of a line, and what is behind it.
fn number<'a>(status: &'a str, name: &str) -> Option<(u64, &'a str)> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?.trim();
    let (number, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some((number.parse().ok()?, rest.trim()))
}

/// The error behind memory that could not be pinned.
pub(crate) fn explain(wanted: u64, locked: Locked) -> VfioError {
    judge(wanted, getrlimit(Resource::Memlock).current, locked)
}

/// The error behind memory of another process that could not be pinned, of which `missing` bytes are
/// not.
pub(crate) fn explain_foreign(missing: u64, locked: Locked) -> VfioError {
    judge_foreign(missing, getrlimit(Resource::Memlock).current, locked)
}

fn judge_foreign(missing: u64, limit: Option<u64>, locked: Locked) -> VfioError {
    let needed = locked.bytes().saturating_add(missing).next_multiple_of(1 << 20);
    match limit {
        Some(limit) if limit < needed => VfioError::ForeignLocked { limit, locked, needed },
        _ => VfioError::NoForeignMemory,
    }
}

fn judge(wanted: u64, limit: Option<u64>, locked: Locked) -> VfioError {
    let needed = locked.bytes().saturating_add(wanted).next_multiple_of(1 << 20);
    match limit {
        Some(limit) if limit < needed => {
            let room = limit.saturating_sub(locked.bytes());
            let instead = (room >= LEAST_BYTES).then_some(room >> 20);
            VfioError::LockedMemory { wanted, limit, locked, needed, instead }
        }
        _ => VfioError::NoMemory { wanted },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_told_in_numbers() {
        let error = judge(256 << 20, Some(8 << 20), Locked::ByProcess(4 << 10)).to_string();
        assert!(error.contains("ulimit -l 263168"), "{error}");
        assert!(error.contains("LimitMEMLOCK=257M"), "{error}");
        assert!(error.contains("8192 KiB"), "{error}");
        assert!(!error.contains("--memory"), "16 MiB would not fit either: {error}");
        let error = judge(256 << 20, Some(64 << 20), Locked::ByProcess(0)).to_string();
        assert!(error.contains("--memory 64"), "{error}");
    }

    #[test]
    fn a_limit_that_is_not_the_reason_is_not_blamed() {
        for limit in [None, Some(1 << 40)] {
            assert!(matches!(
                judge(256 << 20, limit, Locked::ByUser(0)),
                VfioError::NoMemory { .. }
            ));
        }
    }

    #[test]
    fn memory_that_is_taken_already_is_told_by_whom() {
        let error = judge(64 << 20, Some(64 << 20), Locked::ByProcess(4 << 20)).to_string();
        assert!(
            error.contains("may lock 65536 KiB, of which 4096 KiB are taken. Raise"),
            "{error}"
        );
        let error = judge(64 << 20, Some(96 << 20), Locked::ByUser(64 << 20)).to_string();
        let already =
            "may lock 98304 KiB, less the 65536 KiB that this user's processes have locked";
        assert!(error.contains(already), "{error}");
        assert!(error.contains("ulimit -l 131072") && error.contains("--memory 32"), "{error}");
    }

    #[test]
    fn other_processes_memory_has_a_remedy_of_its_own() {
        let locked = Locked::ByProcess(256 << 20);
        let error = judge_foreign(1 << 30, Some(300 << 20), locked).to_string();
        assert!(error.contains("may lock 307200 KiB, of which 262144 KiB are taken"), "{error}");
        assert!(error.contains("ulimit -l 1310720") && !error.contains("--memory"), "{error}");
        let error = judge_foreign(1 << 30, None, locked);
        assert!(matches!(error, VfioError::NoForeignMemory), "{error}");
    }

    #[test]
    fn what_is_locked_already_is_read() {
        let status = "Uid:\t99\t0\t0\t0\nVmPeak:\t 1 kB\nVmLck:\t     128 kB\nVmPin:\t 7 kB\n";
        assert_eq!(kib(status, "VmLck:"), Some(128));
        assert_eq!(kib("nothing of the kind", "VmLck:"), None);
        assert_eq!(kib("VmLck:\t128\n", "VmLck:"), None);
        assert_eq!(pinned_by(99, status), 7 << 10);
        assert_eq!(pinned_by(0, status), 0);
        assert_eq!(pinned_by(99, "Uid:\t99\t99\t99\t99\n"), 0, "the kernel's threads");
    }
}
