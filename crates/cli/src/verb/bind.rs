//! Takes functions from the kernel's drivers, and gives them back.

use crate::args::{BindArgs, UnbindArgs};
use crate::{drivers, print};
use anyhow::{Result, bail};
use outboard_pci::Address;
use outboard_sysfs::{
    BindOptions, Function, Linux, Machine, Move, Plan, UnbindOptions, VFIO_DRIVER,
};
use serde::Serialize;

/// A step of a dry run.
#[derive(Serialize)]
struct Step {
    command: String,
}

/// A function as it is afterwards.
#[derive(Serialize)]
struct Moved<'a> {
    address: String,
    /// The kernel's driver that has it now.
    kernel_driver: Option<String>,
    /// The one that had it before.
    previous: Option<&'a str>,
    group: Option<u32>,
    /// What the system lost with it.
    disks: &'a [String],
    interfaces: &'a [String],
    /// The driver that it gets whenever the machine starts.
    persisted: Option<String>,
}

pub(crate) fn bind(arguments: &BindArgs, json: bool) -> Result<()> {
    let BindArgs { addresses, group, persist, dry_run } = arguments;
    let machine = Machine::here();
    check_drivers(&machine, addresses)?;
    let options = BindOptions { whole_group: *group, persist: *persist };
    let plan = machine.plan_bind(addresses, options, &Linux)?;
    for one in plan.moves() {
        note_group(&machine, one, &plan)?;
    }
    if *persist && !machine.has_driverctl() {
        print::note(
            "driverctl is not installed, so nobody will bind at the next start. Install it \
             (apt-get install driverctl, or dnf install driverctl)",
        );
    }
    if *dry_run {
        return show(&plan, json);
    }
    carry_out(&machine, &plan)?;
    for one in plan.moves() {
        report(&machine, one, json, |_| {
            let Move { function, users, .. } = one;
            let lost = [&users.disks[..], &users.interfaces[..]].concat().join(", ");
            match function.driver.as_deref() {
                Some(VFIO_DRIVER) => "is with vfio-pci already".to_owned(),
                _ if lost.is_empty() => "is with vfio-pci now".to_owned(),
                _ => format!(
                    "is with vfio-pci now; {lost} went away until: outboard unbind {}",
                    function.address
                ),
            }
        })?;
    }
    Ok(())
}

pub(crate) fn unbind(arguments: &UnbindArgs, json: bool) -> Result<()> {
    let UnbindArgs { addresses, persist, dry_run } = arguments;
    let machine = Machine::here();
    let plan = machine.plan_unbind(addresses, UnbindOptions { persist: *persist })?;
    if *dry_run {
        return show(&plan, json);
    }
    carry_out(&machine, &plan)?;
    for one in plan.moves() {
        report(&machine, one, json, |now| match now.driver.as_deref() {
            Some(driver) if one.function.driver == now.driver => {
                format!("is with {driver} already")
            }
            Some(driver) => format!("is with {driver} again"),
            None => {
                let modalias = now.modalias.as_deref().unwrap_or("MODULE");
                format!("is free, and no driver of the kernel's took it; try: modprobe {modalias}")
            }
        })?;
        let address = one.function.address;
        let stays = machine.persisted(address);
        if let Some(driver) = stays.filter(|driver| driver == VFIO_DRIVER || *persist) {
            let next = match driver.as_str() {
                VFIO_DRIVER => format!("to end that, too: outboard unbind --persist {address}"),
                _ => format!(
                    "somebody else wrote that; to end it: driverctl unset-override {address}"
                ),
            };
            print::note(&format!("{address} gets {driver} whenever the machine starts; {next}"));
        }
    }
    Ok(())
}

/// Refuses functions that we could do nothing with, unless they share the group of one that we can.
fn check_drivers(machine: &Machine, addresses: &[Address]) -> Result<()> {
    let functions = addresses.iter().map(|address| machine.function(*address));
    let functions = functions.collect::<Result<Vec<Function>, _>>()?;
    let is_ours = |one: &Function| drivers::fitting(&one.identity).is_some();
    for function in functions.iter().filter(|one| !one.is_pci_bridge() && !is_ours(one)) {
        let group = function.group.filter(|group| {
            functions.iter().any(|other| other.group == Some(*group) && is_ours(other))
        });
        if group.is_none() {
            let (address, class) = (function.address, function.identity.class);
            bail!(
                "Outboard has no driver for {address} (class {class}), so it stays with the kernel. \
                 `outboard status` lists what it has drivers for. If {address} only shares the \
                 group of such a function, name that one: outboard bind --group ADDR"
            );
        }
    }
    Ok(())
}

/// Says who else is in a function's IOMMU group, and what becomes of each.
fn note_group(machine: &Machine, one: &Move, plan: &Plan) -> Result<()> {
    let Some(group) = one.function.group else { return Ok(()) };
    let members = machine.group_members(group)?;
    // Once for each group.
    let first = plan.moves().iter().find(|other| other.function.group == Some(group));
    if members.len() < 2 || first.is_some_and(|first| first.function != one.function) {
        return Ok(());
    }
    print::note(&format!("IOMMU group {group}:"));
    for member in members {
        let moves = plan.moves().iter().any(|one| one.function.address == member.address);
        let what = match (&member.driver, moves) {
            (Some(driver), true) if driver == VFIO_DRIVER => "is with vfio-pci already",
            (_, true) => "moves",
            (Some(driver), _) => &format!("stays with {driver}"),
            (None, _) => "stays, without a driver",
        };
        print::note(&format!("  {} (class {}) {what}", member.address, member.identity.class));
    }
    Ok(())
}

fn show(plan: &Plan, json: bool) -> Result<()> {
    for step in plan.steps() {
        let command = step.to_string();
        if json {
            print::json("step", &Step { command })?;
        } else {
            print::line_out(&command)?;
        }
    }
    if plan.steps().is_empty() {
        print::note("Nothing is to be done.");
    }
    Ok(())
}

fn carry_out(machine: &Machine, plan: &Plan) -> Result<()> {
    Ok(plan.carry_out(machine, &mut Linux, &mut |step| tracing::debug!("{step}"))?)
}

/// Prints what became of a function, in words of `words`.
fn report(
    machine: &Machine,
    one: &Move,
    json: bool,
    words: impl FnOnce(&Function) -> String,
) -> Result<()> {
    let address = one.function.address;
    let now = machine.function(address)?;
    if !json {
        return Ok(print::line_out(&format!("{address} {}", words(&now)))?);
    }
    let moved = Moved {
        address: address.to_string(),
        kernel_driver: now.driver,
        previous: one.function.driver.as_deref(),
        group: now.group,
        disks: &one.users.disks,
        interfaces: &one.users.interfaces,
        persisted: machine.persisted(address),
    };
    Ok(print::json("moved", &moved)?)
}
