//! Having the user say which disk is meant.

use super::control::Description;
use crate::args::ForceArg;
use crate::print;
use anyhow::{Result, bail};
use std::io::{self, IsTerminal, Write};

/// Has the user type the disk's serial number before `what` happens to it, unless `--force` has it
/// already; the serial number.
pub(super) fn confirm(disk: &Description, what: &str, force: &ForceArg) -> Result<String> {
    let (name, serial) = (disk.get("device"), disk.serial());
    if let Some(forced) = &force.force {
        if *forced != serial {
            bail!("{name} is {serial:?}, not {forced:?}; nothing was done");
        }
        return Ok(serial);
    }
    if !io::stdin().is_terminal() {
        bail!(
            "this would {what}; to do it without being asked, add --force=SERIAL with the serial \
             number of {name}, which outboard disk info {name} prints"
        );
    }
    print::note(&format!("This will {what} ({}, serial {serial}).", disk.get("model")));
    let mut out = io::stderr().lock();
    write!(out, "To go on, type the disk's serial number ({serial}): ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if answer.trim() != serial {
        bail!("that was not {serial}; nothing was done");
    }
    Ok(serial)
}
