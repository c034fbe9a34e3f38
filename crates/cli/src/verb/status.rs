//! Shows this machine's functions: who has them, and who uses them.

use crate::args::StatusArgs;
use crate::function::Described;
use crate::pci_ids::PciIds;
use crate::{drivers, print};
use anyhow::Result;
use outboard_sysfs::{Function, Linux, Machine, Survey};
use serde::Serialize;

#[derive(Serialize)]
struct Use {
    text: String,
    remedy: String,
}

#[derive(Serialize)]
struct Process {
    id: u32,
    name: String,
}

#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    function: Described,
    driver_override: Option<String>,
    /// Whether it can be handed to a process.
    bound: bool,
    /// The driver that it gets whenever the machine starts.
    persisted: Option<String>,
    group: Option<u32>,
    /// The others of its group.
    group_members: Vec<String>,
    disks: Vec<String>,
    interfaces: Vec<String>,
    /// What is in the way of binding it.
    uses: Vec<Use>,
    /// The processes that have it through VFIO.
    processes: Vec<Process>,
    reset_methods: Vec<String>,
    numa_node: Option<u32>,
    power_state: Option<String>,
}

pub(crate) fn run(arguments: &StatusArgs, json: bool) -> Result<()> {
    let machine = Machine::here();
    let functions = match &arguments.addresses[..] {
        [] => {
            let mut functions = machine.functions()?;
            functions.retain(|one| arguments.all || drivers::fitting(&one.identity).is_some());
            functions
        }
        named => named.iter().map(|at| machine.function(*at)).collect::<Result<_, _>>()?,
    };
    let survey = Survey::take(&machine)?;
    let ids = PciIds::load();
    let describe = |function: Function| describe(&machine, &survey, function, &ids);
    let found = functions.into_iter().map(describe).collect::<Result<Vec<_>>>()?;
    if json {
        return Ok(found.iter().try_for_each(|one| print::json("status", one))?);
    }
    if found.is_empty() {
        let all = match arguments.all {
            true => "This machine has no PCI functions.",
            false => {
                "Outboard has drivers for none of this machine's functions (--all lists them)."
            }
        };
        print::note(all);
        return Ok(());
    }
    for line in table(&found) {
        print::line_out(&line)?;
    }
    Ok(())
}

fn describe(
    machine: &Machine,
    survey: &Survey,
    function: Function,
    ids: &PciIds,
) -> Result<Status> {
    let users = survey.users(&function, &Linux);
    let bound = function.is_on_vfio();
    let processes = if bound { survey.vfio_users(&function) } else { Vec::new() };
    let group = function.group.map(|group| machine.group_members(group)).transpose()?;
    let others = group.into_iter().flatten().map(|one| one.address);
    let others = others.filter(|address| *address != function.address);
    Ok(Status {
        function: Described::new(function.address, &function.identity, function.driver, ids),
        bound,
        persisted: machine.persisted(function.address),
        group: function.group,
        group_members: others.map(|address| address.to_string()).collect(),
        disks: users.disks,
        interfaces: users.interfaces,
        uses: users
            .uses
            .iter()
            .map(|one| Use { text: one.to_string(), remedy: one.remedy() })
            .collect(),
        processes: processes
            .into_iter()
            .map(|process| Process { id: process.id, name: process.name })
            .collect(),
        driver_override: function.driver_override,
        reset_methods: function.reset_methods,
        numa_node: function.numa_node,
        power_state: function.power_state,
    })
}

/// A table, with what there is to say of a function below its row.
fn table(found: &[Status]) -> Vec<String> {
    let heading = ["ADDRESS", "DRIVER", "IS WITH", "GROUP"].map(str::to_owned);
    let none = || "-".to_owned();
    let row = |one: &Status| {
        [
            one.function.address.clone(),
            one.function.driver.map_or_else(none, str::to_owned),
            one.function.kernel_driver.clone().unwrap_or_else(none),
            one.group.map_or_else(none, |group| group.to_string()),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    let mut widths = heading.each_ref().map(String::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let line = |cells: &[String; 4], name: &str| {
        let cells = cells.iter().zip(widths);
        let cells: Vec<_> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}  {name}", cells.join("  "))
    };
    let mut lines = vec![line(&heading, "WHAT")];
    for (one, row) in found.iter().zip(&rows) {
        let function = &one.function;
        lines.push(line(row, &format!("{}: {}", function.class_name(), function.name)));
        lines.extend(details(one).into_iter().map(|detail| format!("  {detail}")));
    }
    lines
}

fn details(one: &Status) -> Vec<String> {
    let mut details = Vec::new();
    let behind = [&one.disks[..], &one.interfaces[..]].concat();
    if !behind.is_empty() {
        details.push(format!("behind it: {}", behind.join(", ")));
    }
    details.extend(one.uses.iter().map(|one| one.text.clone()));
    if one.function.driver.is_some() && !one.group_members.is_empty() {
        details.push(format!("shares its group with {}", one.group_members.join(", ")));
    }
    for Process { id, name } in &one.processes {
        details.push(format!("process {id} ({name}) has it"));
    }
    if let Some(driver) = &one.persisted {
        details.push(format!("gets {driver} whenever the machine starts"));
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_a_row_with_what_there_is_to_say_of_it_below() {
        let status = Status {
            function: Described {
                address: "0000:00:1f.2".into(),
                class: "010601".into(),
                class_name: None,
                vendor: "8086".into(),
                device: "2922".into(),
                name: "a controller".into(),
                kernel_driver: Some("vfio-pci".into()),
                driver: Some("ahci"),
            },
            driver_override: None,
            bound: true,
            persisted: Some("vfio-pci".into()),
            group: Some(7),
            group_members: vec!["0000:00:1f.0".into()],
            disks: vec!["sda".into()],
            interfaces: Vec::new(),
            uses: vec![Use { text: "sda is mounted at /".into(), remedy: String::new() }],
            processes: vec![Process { id: 9, name: "outboard".into() }],
            reset_methods: Vec::new(),
            numa_node: None,
            power_state: None,
        };
        assert_eq!(
            table(&[status]),
            [
                "ADDRESS       DRIVER  IS WITH   GROUP  WHAT",
                "0000:00:1f.2  ahci    vfio-pci  7      010601: a controller",
                "  behind it: sda",
                "  sda is mounted at /",
                "  shares its group with 0000:00:1f.0",
                "  process 9 (outboard) has it",
                "  gets vfio-pci whenever the machine starts",
            ]
        );
    }
}
