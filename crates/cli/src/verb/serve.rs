//! Runs drivers, and serves their disks.

use crate::args::{self, Interrupts, ServeArgs};
use crate::hosting::{self, Devices};
use crate::{drivers, endpoint, exit, print};
use anyhow::{Context, Result, bail};
use outboard_host::{Ended, Hosted, HostedCard, Server};
use outboard_hw::interrupt::InterruptKind;
use outboard_ninep::Address;
use outboard_ninep::server::Owner;
use outboard_pci::Device;
use outboard_sim::live::LiveDisk;
use outboard_vfio::{OpenFunction, VfioConfig};
use rustix::process::{getgid, getuid};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;

#[derive(Serialize)]
struct Ready {
    address: String,
}

#[derive(Serialize)]
struct Export {
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    card: Option<String>,
    socket: String,
}

#[derive(Serialize)]
struct Card {
    name: String,
    address: String,
    mtu: u16,
    queues: u16,
    link: String,
}

#[derive(Serialize)]
struct Disk {
    name: String,
    bytes: u64,
    sector_bytes: u32,
    model: String,
    serial: String,
    read_only: bool,
    /// It is a software model, and no hardware or hardware's model of somebody else.
    simulated: bool,
    /// The seed of the faults that strike it.
    faults: Option<u64>,
    table: Option<String>,
    partitions: usize,
    warnings: Vec<String>,
}

/// All drivers that are to be hosted.
#[derive(Default)]
struct Fleet {
    devices: Devices,
    disks: Vec<Hosted>,
    cards: Vec<HostedCard>,
}

impl Fleet {
    /// Opens everything that the arguments name, with so much memory for the devices. Lowers that to
    /// what functions of PCI can have.
    fn gather(arguments: &ServeArgs, dma_bytes: &mut usize) -> Result<Self> {
        let interrupts = arguments.interrupts.map(|kind| match kind {
            Interrupts::Msi => InterruptKind::Msi,
            Interrupts::Pin => InterruptKind::Pin,
        });
        let mut fleet = Self::default();
        let Self { devices, disks, cards } = &mut fleet;
        let ServeArgs { lab, lab_net, sim, pci, .. } = arguments;
        if !lab.is_empty() || !lab_net.is_empty() {
            let running = hosting::start_lab(lab, lab_net, *dma_bytes, interrupts)?;
            *disks = hosting::host_lab(&running, lab)?;
            *cards = hosting::host_lab_cards(&running, 0)?;
            (devices.lab, devices.lab_drivers) = (Some(running), disks.len());
        }
        if !sim.is_empty() {
            let running = hosting::start_sim(sim, *dma_bytes, interrupts)?;
            disks.extend(hosting::host_sim(&running, sim)?);
            devices.sim = Some(running);
        }
        let attached = &arguments.attach_vhost_user;
        let (attached, back_ends) = hosting::host_back_ends(attached, *dma_bytes)?;
        disks.extend(attached);
        disks.extend(hosting::host_ram(&arguments.ram, *dma_bytes)?);
        (devices.back_ends, devices.other_drivers) = (back_ends, disks.len());
        let attached = &arguments.attach_vhost_user_net;
        let (attached, back_ends) =
            hosting::host_card_back_ends(attached, *dma_bytes, cards.len())?;
        cards.extend(attached);
        devices.back_ends.extend(back_ends);
        devices.other_cards = cards.len();
        if !pci.is_empty() {
            let confinement = args::confinement(arguments.let_devices_reach_all_memory);
            let (vfio, functions) = hosting::open_functions(&VfioConfig {
                functions: pci.clone(),
                dma_bytes: *dma_bytes,
                foreign_bytes: arguments.zero_copy.map_or(0, |mib| u64::from(mib) << 20),
                interrupts,
                confinement,
            })?;
            *dma_bytes = (*dma_bytes).min(vfio.dma_bytes());
            let is_card = |one: &OpenFunction| drivers::is_card(&one.0.identity());
            devices.are_cards = functions.iter().map(is_card).collect();
            if arguments.vhost_user.is_none() && devices.are_cards.contains(&true) {
                bail!(
                    "network cards are of use to virtual machines: say with --vhost-user DIR \
                     where their sockets are to be"
                );
            }
            let (of_disks, of_cards) = hosting::host_functions(functions, cards.len())?;
            disks.extend(of_disks);
            cards.extend(of_cards);
            devices.functions = Some(vfio);
        }
        Ok(fleet)
    }
}

pub(crate) fn run(mut arguments: ServeArgs, json: bool) -> Result<ExitCode> {
    hosting::check_shared(&arguments.lab, &arguments.sim)?;
    if arguments.ninep.is_empty() && arguments.vhost_user.is_none() {
        endpoint::make_folder()?;
        arguments.ninep.push(endpoint::default_address());
    }
    let mut dma_bytes = (arguments.memory as usize) << 20;
    let Fleet { devices, disks, cards } = Fleet::gather(&arguments, &mut dma_bytes)?;
    let (other_drivers, wanted_cards) = (devices.other_drivers, cards.len());
    // The rest is for command lists and the like.
    let mut server = Server::new(devices, disks, dma_bytes / 4 * 3, owner())?;
    server.set_reaping(arguments.reap.into());
    for card in cards {
        server.add_card(card)?;
    }
    if server.settle()? {
        check_all_came_up(&mut server, &arguments, other_drivers, wanted_cards)?;
        describe_cards(&server, json)?;
        describe_disks(&mut server, arguments.lab.len(), &arguments.sim, json)?;
        open_to_clients(&mut server, &arguments, json)?;
    }
    Ok(match server.run()? {
        Ended::InOrder => ExitCode::SUCCESS,
        Ended::Unflushed | Ended::AtOnce => {
            print::error("a disk was not flushed before the end", exit::UNFLUSHED, json);
            ExitCode::from(exit::UNFLUSHED)
        }
    })
}

/// Fails if a disk or card is missing that was asked for and cannot be plugged in later.
fn check_all_came_up(
    server: &mut Server<Devices>,
    arguments: &ServeArgs,
    other_drivers: usize,
    wanted_cards: usize,
) -> Result<()> {
    let disks = server.disks();
    let others = disks.ids().filter(|disk| disks.driver_of(*disk) < Some(other_drivers));
    let ServeArgs { lab, sim, ram, attach_vhost_user, .. } = arguments;
    let wanted = lab.len() + sim.len() + ram.len() + attach_vhost_user.len();
    let found = others.count();
    if found != wanted {
        bail!("only {found} of {wanted} disks came up. outboard -v serve says why");
    }
    let known = server.cards().count();
    if known != wanted_cards {
        bail!("only {known} of {wanted_cards} network cards came up. outboard -v serve says why");
    }
    Ok(())
}

/// Listens, and says where.
fn open_to_clients(server: &mut Server<Devices>, arguments: &ServeArgs, json: bool) -> Result<()> {
    let addresses = &arguments.ninep;
    let mut at = None;
    for address in addresses {
        let (bound, local) = server.listen(address)?;
        announce(&bound, local, json)?;
        at.get_or_insert(bound);
    }
    if let Some(folder) = &arguments.vhost_user {
        export(server, folder, json)?;
    }
    if !json && !addresses.is_empty() {
        let at = at.filter(|_| !addresses.contains(&endpoint::default_address()));
        let at = at.map(|address| format!(" --at {address}")).unwrap_or_default();
        print::note(&format!("Look at it with: outboard ls{at}    End it with Ctrl-C"));
    }
    Ok(())
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

/// Exports each disk and network card at a socket in `folder`, and prints the lines that scripts wait for.
fn export(server: &mut Server<Devices>, folder: &Path, json: bool) -> Result<()> {
    let about = folder.metadata().with_context(|| {
        format!("cannot use {}. Make the folder first (mkdir -p)", folder.display())
    })?;
    if !about.is_dir() {
        bail!("{} is not a folder. Choose another one with --vhost-user", folder.display());
    }
    for (disk, socket) in server.export_all(folder)? {
        let socket = socket.display().to_string();
        exported(&Export { disk: Some(disk), card: None, socket }, json)?;
    }
    let cards: Vec<_> = server.cards().map(|(card, name, _)| (card, name.to_owned())).collect();
    for (card, name) in cards {
        let socket = folder.join(format!("{name}.sock"));
        server.export_card(card, &socket)?;
        let socket = socket.display().to_string();
        exported(&Export { disk: None, card: Some(name), socket }, json)?;
    }
    Ok(())
}

fn exported(export: &Export, json: bool) -> Result<()> {
    match json {
        true => print::json("export", export)?,
        false => print::line_out(&format!("ready vhost-user:{}", export.socket))?,
    }
    Ok(())
}

/// Says what network cards there are.
fn describe_cards(server: &Server<Devices>, json: bool) -> Result<()> {
    for (_, name, interface) in server.cards() {
        let card = Card {
            name: name.to_owned(),
            address: interface.permanent_mac.to_string(),
            mtu: interface.shape.mtu,
            queues: interface.shape.queues,
            link: interface.link.to_string(),
        };
        if json {
            print::json("card", &card)?;
            continue;
        }
        let Card { name, address, mtu, queues, link } = card;
        let pairs = if queues == 1 { "pair" } else { "pairs" };
        print::note(&format!(
            "{name}: {address}, link {link}, MTU {mtu}, {queues} {pairs} of queues"
        ));
    }
    Ok(())
}

/// Says what disks there are: those of the lab come first, then the simulated ones, then those of
/// other processes and of hardware.
fn describe_disks(
    server: &mut Server<Devices>,
    lab_disks: usize,
    sim_disks: &[LiveDisk],
    json: bool,
) -> Result<()> {
    let disks = server.disks();
    for (number, id) in disks.ids().enumerate() {
        let Some(info) = disks.info(id) else { continue };
        let sim = number.checked_sub(lab_disks).and_then(|number| sim_disks.get(number));
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
            simulated: sim.is_some(),
            faults: sim.and_then(|disk| disk.faults),
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
        let model = match (disk.simulated, disk.faults) {
            (true, Some(seed)) => format!("{} (simulated, faults={seed})", disk.model),
            (true, None) => format!("{} (simulated)", disk.model),
            (false, _) => disk.model,
        };
        print::note(&format!("{}: {size}, {model}{access}, {table}", disk.name));
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
