//! Runs drivers, and serves their disks.

use crate::args::{Interrupts, ServeArgs};
use crate::hosting::{self, LabPlatform};
use crate::{endpoint, exit, print};
use anyhow::{Result, bail};
use outboard_host::{Ended, Server};
use outboard_hw::interrupt::InterruptKind;
use outboard_ninep::Address;
use outboard_ninep::server::Owner;
use rustix::process::{getgid, getuid};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Serialize)]
struct Ready {
    address: String,
}

#[derive(Serialize)]
struct Disk {
    name: String,
    bytes: u64,
    sector_bytes: u32,
    model: String,
    serial: String,
    read_only: bool,
    table: Option<String>,
    partitions: usize,
    warnings: Vec<String>,
}

pub(crate) fn run(arguments: ServeArgs, json: bool) -> Result<ExitCode> {
    let ServeArgs { lab: disks, ninep: mut addresses, memory, interrupts } = arguments;
    if addresses.is_empty() {
        endpoint::make_folder()?;
        addresses.push(endpoint::default_address());
    }
    let dma_bytes = (memory as usize) << 20;
    let interrupts = interrupts.map(|kind| match kind {
        Interrupts::Msi => InterruptKind::Msi,
        Interrupts::Pin => InterruptKind::Pin,
    });
    let lab = hosting::start_lab(&disks, dma_bytes, interrupts)?;
    let hosted = hosting::host_lab(&lab, &disks)?;
    // The rest is for command lists and the like.
    let mut server = Server::new(LabPlatform(lab), hosted, dma_bytes / 4 * 3, owner())?;
    if server.settle()? {
        let found = server.disks().len();
        if found != disks.len() {
            bail!("only {found} of {} disks came up", disks.len());
        }
        describe_disks(&mut server, json)?;
        let mut at = None;
        for address in &addresses {
            let (bound, local) = server.listen(address)?;
            announce(&bound, local, json)?;
            at.get_or_insert(bound);
        }
        if !json {
            let at = at.filter(|_| !addresses.contains(&endpoint::default_address()));
            let at = at.map(|address| format!(" --at {address}")).unwrap_or_default();
            print::note(&format!("Look at it with: outboard ls{at}    End it with Ctrl-C"));
        }
    }
    Ok(match server.run()? {
        Ended::InOrder => ExitCode::SUCCESS,
        Ended::Unflushed | Ended::AtOnce => {
            print::error("a disk was not flushed before the end", exit::UNFLUSHED, json);
            ExitCode::from(exit::UNFLUSHED)
        }
    })
}

/// Prints the line that scripts wait for.
fn announce(address: &Address, local: bool, json: bool) -> Result<()> {
    if !local {
        tracing::warn!(
            "{address} is open to the network, and 9P has no passwords here: whoever reaches it \
             can read and write these disks"
        );
    }
    let address = address.to_string();
    if json {
        print::json("ready", &Ready { address })?
    } else {
        print::line_out(&format!("ready {address}"))?
    }
    Ok(())
}

fn describe_disks(server: &mut Server<LabPlatform>, json: bool) -> Result<()> {
    let disks = server.disks();
    for id in disks.ids() {
        let Some(info) = disks.info(id) else { continue };
        let table = disks.table(id);
        let warnings: Vec<_> =
            table.iter().flat_map(|table| &table.warnings).map(ToString::to_string).collect();
        let scheme = table.and_then(|table| table.scheme).map(|scheme| scheme.to_string());
        let disk = Disk {
            name: info.name,
            bytes: info.geometry.bytes(),
            sector_bytes: info.geometry.sector_bytes,
            model: info.identity.model.to_string(),
            serial: info.identity.serial.to_string(),
            read_only: info.geometry.read_only,
            table: scheme,
            partitions: disks.volumes(id).len(),
            warnings,
        };
        if json {
            print::json("disk", &disk)?;
            continue;
        }
        let table = match &disk.table {
            Some(table) => {
                format!("{} table with {} partitions", table.to_uppercase(), disk.partitions)
            }
            None => "no partition table".to_owned(),
        };
        let access = if disk.read_only { ", read-only" } else { "" };
        let size = print::bytes(disk.bytes);
        print::note(&format!("{}: {size}, {}{access}, {table}", disk.name, disk.model));
        for warning in &disk.warnings {
            tracing::warn!("{}: {warning}", disk.name);
        }
    }
    Ok(())
}

/// Who the files belong to: whoever runs the server.
fn owner() -> Owner {
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let name = std::env::var("USER").ok().filter(|name| !name.is_empty());
    Owner { name: name.unwrap_or_else(|| user.to_string()), user, group }
}
