//! Sees to disks of a server: health, power, caches, passwords, media.

mod confirm;
mod control;
mod info;
mod password;
mod security;
mod smart;

use crate::args::{
    CapacityArgs, DiskArg, DiskArgs, DiskVerb, LinkLevel, ServerArgs, SwitchArgs, TrimArgs,
};
use crate::{print, remote};
use anyhow::{Result, bail};
use confirm::confirm;
use control::Disk;
use serde::Serialize;
use std::process::ExitCode;

#[derive(Serialize)]
struct Done<'a> {
    disk: &'a str,
    command: &'a str,
}

#[derive(Serialize)]
struct Capacity<'a> {
    disk: &'a str,
    sectors: u64,
    /// What the medium has, if the disk says so.
    native_sectors: Option<u64>,
}

pub(crate) fn run(arguments: &DiskArgs, json: bool) -> Result<ExitCode> {
    let DiskArgs { verb, server } = arguments;
    match verb {
        DiskVerb::Info(disk) => info::print(&mut find(server, disk)?, json)?,
        DiskVerb::Smart(smart) => match smart.enable {
            Some(state) => order(server, &smart.disk, &format!("smart {}", state.word()), json)?,
            None => return smart::print(&mut find(server, &smart.disk)?, json),
        },
        DiskVerb::Selftest(test) => {
            return smart::test(&mut find(server, &test.disk)?, test, json);
        }
        DiskVerb::Trim(trim) => self::trim(server, trim, json)?,
        DiskVerb::Flush(disk) => order(server, disk, "flush", json)?,
        DiskVerb::Standby(standby) => {
            let command = match standby.after {
                Some(seconds) => format!("standby-timer {seconds}"),
                None => "standby".to_owned(),
            };
            order(server, &standby.disk, &command, json)?;
        }
        DiskVerb::Idle(disk) => order(server, disk, "idle", json)?,
        DiskVerb::Wake(disk) => order(server, disk, "wake", json)?,
        DiskVerb::Sleep(disk) => order(server, disk, "sleep", json)?,
        DiskVerb::Eject(disk) => order(server, disk, "eject", json)?,
        DiskVerb::Load(disk) => order(server, disk, "load", json)?,
        DiskVerb::LockMedium(switch) => self::switch(server, "lock-medium", switch, json)?,
        DiskVerb::Cache(switch) => self::switch(server, "cache", switch, json)?,
        DiskVerb::Lookahead(switch) => self::switch(server, "lookahead", switch, json)?,
        DiskVerb::Locate(switch) => self::switch(server, "locate", switch, json)?,
        DiskVerb::Fault(switch) => self::switch(server, "fault", switch, json)?,
        DiskVerb::Apm(apm) => order(server, &apm.disk, &format!("apm {}", apm.level), json)?,
        DiskVerb::LinkPower(link) => {
            let level = match link.level {
                LinkLevel::Full => "full",
                LinkLevel::Partial => "partial",
                LinkLevel::Slumber => "slumber",
                LinkLevel::Devsleep => "devsleep",
            };
            order(server, &link.disk, &format!("link-power {level}"), json)?;
        }
        DiskVerb::Capacity(capacity) => self::capacity(server, capacity, json)?,
        DiskVerb::Security(verb) => security::run(verb, server, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn find(server: &ServerArgs, disk: &DiskArg) -> Result<Disk> {
    Disk::find(remote::connect(server)?, &disk.disk)
}

/// Says that a disk is done with a command, which must be without a password.
fn done(disk: &Disk, command: &str, json: bool) -> Result<()> {
    if json {
        print::json("done", &Done { disk: &disk.name, command })?;
    }
    Ok(())
}

/// Tells a disk something that destroys nothing.
fn order(server: &ServerArgs, disk: &DiskArg, command: &str, json: bool) -> Result<()> {
    let disk = &mut find(server, disk)?;
    disk.order(command.as_bytes())?;
    done(disk, command, json)
}

fn switch(server: &ServerArgs, verb: &str, arguments: &SwitchArgs, json: bool) -> Result<()> {
    order(server, &arguments.disk, &format!("{verb} {}", arguments.state.word()), json)
}

/// Tells a disk that part of it is no longer needed.
fn trim(server: &ServerArgs, arguments: &TrimArgs, json: bool) -> Result<()> {
    let TrimArgs { target, start, count, force } = arguments;
    let (disk, part) = match remote::names(target)[..] {
        [disk] | [disk, "data" | "raw"] => (disk, "0"),
        [disk, "part", part] => (disk, part),
        _ => bail!("{target} is neither a disk nor a partition, such as sdC0 or sdC0/part/1"),
    };
    let disk = &mut Disk::find(remote::connect(server)?, disk)?;
    let description = disk.description()?;
    let parts = description.lines().filter(|(key, _)| *key == "part");
    let range = parts.map(|(_, value)| value).find_map(|value| {
        let mut words = value.split(' ');
        let named = words.next() == Some(part);
        let mut number = || words.next()?.parse::<u64>().ok();
        named.then(|| number().zip(number())).flatten()
    });
    let Some((first, end)) = range else { bail!("there is no partition {part} on {}", disk.name) };
    let left = end.saturating_sub(first).saturating_sub(*start);
    let count = count.unwrap_or(left);
    if count == 0 || count > left {
        bail!("{target} has {} sectors; nothing was done", end.saturating_sub(first));
    }
    let sectors = if count == 1 { "sector" } else { "sectors" };
    confirm(&description, &format!("lose {count} {sectors} of {target}"), force)?;
    let command = format!("trim {} {count}", first + start);
    disk.order(command.as_bytes())?;
    done(disk, &command, json)
}

/// Prints how many sectors a disk pretends to have, or sets it.
fn capacity(server: &ServerArgs, arguments: &CapacityArgs, json: bool) -> Result<()> {
    let disk = &mut find(server, &arguments.disk)?;
    let Some(sectors) = arguments.sectors else {
        // A disk that cannot pretend does not say how many it has.
        let _ = disk.order(b"native-capacity");
        let description = disk.description()?;
        let first = description.get("geometry").split(' ').next().unwrap_or_default();
        let sectors = first.parse().unwrap_or_default();
        let native_sectors = description.get("native").parse().ok();
        let capacity = Capacity { disk: &disk.name, sectors, native_sectors };
        if json {
            return Ok(print::json("capacity", &capacity)?);
        }
        let native = match native_sectors {
            Some(native) => format!(" of {native} that the medium has"),
            None => String::new(),
        };
        print::line_out(&format!("{}: {sectors} sectors{native}", disk.name))?;
        return Ok(());
    };
    let description = disk.description()?;
    let what = format!("let {} have {sectors} sectors for good, and hide the rest", disk.name);
    let serial = confirm(&description, &what, &arguments.force)?;
    disk.order(format!("capacity {sectors} {serial}").as_bytes())?;
    done(disk, &format!("capacity {sectors}"), json)
}
