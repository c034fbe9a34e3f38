//! What this process may do, and what else is good to know.

use super::Finding;
use crate::Machine;
use crate::machine::attribute;
use rustix::process::{Resource, geteuid, getrlimit};

/// What a server takes for transfers unless it is told otherwise.
const SERVER_BYTES: u64 = 256 << 20;
/// What to allow: two servers, or one with more memory.
const ADVISED_BYTES: u64 = 512 << 20;

/// Who looks at the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The name of the user, for the commands that are printed.
    pub user: String,
    /// Whether it is the superuser, for whom limits and permissions do not count.
    pub is_superuser: bool,
    /// How much memory the process may lock, in bytes; `None` is without a limit.
    pub memlock_bytes: Option<u64>,
}

impl Viewer {
    /// This process.
    pub fn this_process() -> Self {
        let user = std::env::var("USER").ok().filter(|user| !user.is_empty());
        Self {
            user: user.unwrap_or_else(|| geteuid().as_raw().to_string()),
            is_superuser: geteuid().is_root(),
            memlock_bytes: getrlimit(Resource::Memlock).current,
        }
    }
}

pub(super) fn check(machine: &Machine, viewer: &Viewer, findings: &mut Vec<Finding>) {
    findings.push(superuser(viewer));
    findings.push(memlock(viewer));
    findings.extend(lockdown(machine));
    findings.push(huge_pages(machine));
}

fn superuser(viewer: &Viewer) -> Finding {
    if viewer.is_superuser {
        return Finding::good("superuser", "you may bind and unbind");
    }
    let text = format!(
        "{} may use what is bound, given permission; only the superuser may bind and unbind",
        viewer.user
    );
    Finding::note("superuser", text).next("sudo outboard bind ADDR")
}

/// Memory that devices reach counts as locked.
fn memlock(viewer: &Viewer) -> Finding {
    const TOPIC: &str = "locked memory";
    let limit = match viewer.memlock_bytes {
        _ if viewer.is_superuser => return Finding::good(TOPIC, "no limit for the superuser"),
        None => return Finding::good(TOPIC, "no limit"),
        Some(limit) => limit,
    };
    let (has, needs) = (limit >> 10, SERVER_BYTES >> 10);
    if limit >= SERVER_BYTES {
        return Finding::good(TOPIC, format!("up to {has} KiB; a server takes {needs} KiB"));
    }
    let (user, kib, mib) = (&viewer.user, ADVISED_BYTES >> 10, ADVISED_BYTES >> 20);
    let text =
        format!("you may lock {has} KiB, and a server takes {needs} KiB unless told otherwise");
    Finding::trouble(TOPIC, text)
        .next(format!("in this shell: sudo prlimit --pid $$ --memlock={ADVISED_BYTES}"))
        .next(format!(
            "for good, then log in again: echo '{user} - memlock {kib}' | sudo tee \
             /etc/security/limits.d/outboard.conf"
        ))
        .next(format!("in a service of systemd: LimitMEMLOCK={mib}M"))
        .next(format!("or take less: outboard serve --memory {}", (limit >> 20).max(16)))
}

/// The kernel's lockdown, with the chosen level in brackets.
fn lockdown(machine: &Machine) -> Option<Finding> {
    let levels = attribute(&machine.path("/sys/kernel/security"), "lockdown")?;
    let level =
        levels.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?;
    let text = format!(
        "the kernel is locked down ({level}): VFIO works, modules must be signed, and the no-IOMMU \
         mode is refused"
    );
    (level != "none").then(|| Finding::note("lockdown", text))
}

fn huge_pages(machine: &Machine) -> Finding {
    let folder = machine.path("/sys/kernel/mm/hugepages/hugepages-2048kB");
    let number = |name| attribute(&folder, name).and_then(|text| text.parse().ok()).unwrap_or(0u64);
    let (free, all) = (number("free_hugepages"), number("nr_hugepages"));
    let text = match all {
        0 => "none reserved; they are not needed".to_owned(),
        _ => format!("{free} of {all} are free (2 MiB each)"),
    };
    Finding::note("huge pages", text)
}
