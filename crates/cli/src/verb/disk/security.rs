//! Passwords of disks, and erasing.

use super::confirm::confirm;
use super::control::{Description, Disk};
use super::password::{command, password};
use crate::args::{DiskArg, EraseArgs, PasswordArg, SecurityVerb, ServerArgs, SetPasswordArgs};
use crate::print;
use anyhow::{Result, bail};
use serde::Serialize;

/// How a disk's passwords stand.
#[derive(Serialize)]
struct Status<'a> {
    disk: &'a str,
    supported: bool,
    enabled: bool,
    locked: bool,
    frozen: bool,
    /// Too many wrong passwords were tried.
    expired: bool,
    /// The master password can only erase.
    maximum: bool,
    erase_minutes: Option<u64>,
    enhanced_erase_minutes: Option<u64>,
}

impl<'a> Status<'a> {
    fn of(description: &'a Description) -> Self {
        let words = description.get("security");
        let has = |word| words.split(' ').any(|found| found == word);
        let minutes = |key| description.get(key).parse().ok();
        Self {
            disk: description.get("device"),
            supported: !words.is_empty() && words != "none",
            enabled: has("enabled"),
            locked: has("locked"),
            frozen: has("frozen"),
            expired: has("expired"),
            maximum: has("maximum"),
            erase_minutes: minutes("erase-minutes"),
            enhanced_erase_minutes: minutes("enhanced-erase-minutes"),
        }
    }
}

pub(super) fn run(verb: &SecurityVerb, server: &ServerArgs, json: bool) -> Result<()> {
    match verb {
        SecurityVerb::Status(disk) => status(&mut super::find(server, disk)?, json),
        SecurityVerb::Unlock(arguments) => {
            told(server, &arguments.disk, "unlock", &arguments.password, json)
        }
        SecurityVerb::DisablePassword(arguments) => {
            told(server, &arguments.disk, "security disable", &arguments.password, json)
        }
        SecurityVerb::SetPassword(arguments) => set(server, arguments, json),
        SecurityVerb::Erase(arguments) => erase(server, arguments, json),
        SecurityVerb::Freeze(disk) => super::order(server, disk, "security freeze", json),
    }
}

fn status(disk: &mut Disk, json: bool) -> Result<()> {
    let description = disk.description()?;
    let status = Status::of(&description);
    if json {
        return Ok(print::json("security", &status)?);
    }
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let minutes = |minutes: Option<u64>| match minutes {
        None => "not possible".to_owned(),
        Some(0) => "the disk does not say how long".to_owned(),
        Some(minutes) => format!("about {minutes} minutes"),
    };
    let mut lines = vec![("passwords", yes(status.supported).to_owned())];
    if status.supported {
        lines.extend([
            ("user's is set", yes(status.enabled).to_owned()),
            ("locked", yes(status.locked).to_owned()),
            ("frozen", yes(status.frozen).to_owned()),
            ("attempts used up", yes(status.expired).to_owned()),
            ("master only erases", yes(status.maximum).to_owned()),
            ("erasing", minutes(status.erase_minutes)),
            ("enhanced erasing", minutes(status.enhanced_erase_minutes)),
        ]);
    }
    for (name, value) in lines {
        print::line_out(&format!("{name:<20} {value}"))?;
    }
    Ok(())
}

/// Whose password it is, as `ctl` has it.
fn of(password: &PasswordArg) -> &'static str {
    if password.master { " master" } else { "" }
}

/// Tells a disk something that needs nothing but a password.
fn told(
    server: &ServerArgs,
    disk: &DiskArg,
    verb: &str,
    source: &PasswordArg,
    json: bool,
) -> Result<()> {
    let disk = &mut super::find(server, disk)?;
    supported(&disk.description()?)?;
    let secret = password(source, false)?;
    disk.order(&command(&format!("{verb}{}", of(source)), &secret, "").0)?;
    super::done(disk, verb, json)
}

/// No password is asked for in vain.
fn supported(disk: &Description) -> Result<()> {
    if !Status::of(disk).supported {
        bail!("{}: the disk does not support passwords", disk.get("device"));
    }
    Ok(())
}

fn set(server: &ServerArgs, arguments: &SetPasswordArgs, json: bool) -> Result<()> {
    let disk = &mut super::find(server, &arguments.disk)?;
    let description = disk.description()?;
    supported(&description)?;
    let whose = if arguments.password.master { "the master" } else { "the user's" };
    let what = format!(
        "set {whose} password of {}, without which nobody may get at its data any more",
        disk.name
    );
    let serial = confirm(&description, &what, &arguments.force)?;
    let secret = password(&arguments.password, true)?;
    let maximum = if arguments.maximum { " maximum" } else { "" };
    let verb = format!("security set{maximum}{}", of(&arguments.password));
    disk.order(&command(&verb, &secret, &serial).0)?;
    super::done(disk, "security set", json)
}

fn erase(server: &ServerArgs, arguments: &EraseArgs, json: bool) -> Result<()> {
    let disk = &mut super::find(server, &arguments.disk)?;
    let description = disk.description()?;
    supported(&description)?;
    let status = Status::of(&description);
    if arguments.enhanced && status.enhanced_erase_minutes.is_none() {
        bail!("{}: the disk has no enhanced erasing; leave --enhanced away", disk.name);
    }
    if !status.enabled {
        bail!(
            "{}: a disk erases itself only if it has a user's password; set one first: outboard \
             disk security set-password {}",
            disk.name,
            disk.name
        );
    }
    let what = format!("erase everything on {} for good", disk.name);
    let serial = confirm(&description, &what, &arguments.force)?;
    let secret = password(&arguments.password, false)?;
    let minutes =
        if arguments.enhanced { status.enhanced_erase_minutes } else { status.erase_minutes };
    if let Some(minutes) = minutes.filter(|minutes| *minutes > 0) {
        print::note(&format!("{} needs about {minutes} minutes", disk.name));
    }
    let enhanced = if arguments.enhanced { " enhanced" } else { "" };
    let verb = format!("security erase{enhanced}{}", of(&arguments.password));
    disk.order(&command(&verb, &secret, &serial).0)?;
    super::done(disk, "security erase", json)
}
