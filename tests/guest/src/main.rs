//! Runs a script in a guest.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use outboard_guest::{Device, Disk, Guest, Release, Report, Virtio};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The size of disks of zeros.
const NULL_BYTES: u64 = 1 << 30;

const EXAMPLES: &str = "\
The script runs as root, under busybox's shell, with `outboard`, dd, cmp, tar, sgdisk, mkfs.ext4, \
e2fsck and busybox at hand. Addresses of devices are in $AHCI, $NVME, $VIRTIO_BLK, $VIRTIO_NET, \
$E1000 and $E1000E; what is left in the folder $RESULTS comes back. Its exit code is this command's.

Examples:
  outboard-guest --ahci 2 --command 'lsmod; outboard list; echo $AHCI'
  outboard-guest --ahci disk.img --ahci 1 --script try.sh --results /tmp/out
  outboard-guest --nvme null --kernel backports --tool fio --processors 2 --script bench.sh

The console's log is in target/guest/logs.";

/// Run a script in a virtual machine with the distribution's kernel and an IOMMU.
#[derive(Debug, Parser)]
#[command(name = "outboard-guest", after_help = EXAMPLES, arg_required_else_help = true)]
struct Arguments {
    /// The script to run
    #[arg(long, value_name = "FILE", required_unless_present_any = ["command", "prepare"])]
    script: Option<PathBuf>,

    /// The script to run, itself
    #[arg(long, value_name = "TEXT", conflicts_with = "script")]
    command: Option<String>,

    /// Only fetch and build what guests need
    #[arg(long, conflicts_with_all = ["script", "command"])]
    prepare: bool,

    /// Add an AHCI controller, with so many disks of zeros, or these (as in a.img,null,b.img)
    #[arg(long, value_name = "N|DISK,…")]
    ahci: Vec<String>,

    /// Add an NVMe controller with an image file, or `null`
    #[arg(long, value_name = "DISK")]
    nvme: Vec<String>,

    /// Add a disk over virtio, with an image file, or `null`
    #[arg(long, value_name = "DISK")]
    virtio_blk: Vec<String>,

    /// Add so many network interfaces over virtio
    #[arg(long, value_name = "N", default_value_t = 0)]
    virtio_net: usize,

    /// Add so many Intel 82540EM network interfaces
    #[arg(long, value_name = "N", default_value_t = 0)]
    e1000: usize,

    /// Add so many Intel 82574L network interfaces
    #[arg(long, value_name = "N", default_value_t = 0)]
    e1000e: usize,

    /// Put a file into the script's folder
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,

    /// Give the guest another program of this machine, with its libraries
    #[arg(long, value_name = "NAME")]
    tool: Vec<String>,

    /// Use this `outboard`, statically linked, rather than building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,

    /// The kernel to boot
    #[arg(long, value_name = "RELEASE", default_value = "stable")]
    kernel: Kernel,

    /// Add to the kernel's command line
    #[arg(long, value_name = "PARAMETER")]
    parameter: Vec<String>,

    /// How many processors the guest has
    #[arg(long, value_name = "N", default_value_t = 1)]
    processors: u32,

    /// How much memory it has, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,

    /// Leave the IOMMU out
    #[arg(long)]
    no_iommu: bool,

    /// How long it may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,

    /// Copy what the script left in $RESULTS into this folder
    #[arg(long, value_name = "FOLDER")]
    results: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kernel {
    /// The one that the distribution's release came with
    Stable,
    /// The newest that was made for the release
    Backports,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<i32> {
    let script = match (&arguments.script, &arguments.command) {
        (Some(path), _) => {
            std::fs::read_to_string(path).with_context(|| path.display().to_string())?
        }
        (None, command) => command.clone().unwrap_or_default(),
    };
    let guest = guest(&arguments)?;
    if arguments.prepare {
        guest.prepare()?;
        return Ok(0);
    }
    let report = guest.run(&script)?;
    std::io::stdout().write_all(report.stdout.as_bytes())?;
    std::io::stderr().write_all(report.stderr.as_bytes())?;
    if let Some(folder) = &arguments.results {
        copy(&report, folder)?;
    }
    Ok(report.code)
}

fn guest(arguments: &Arguments) -> Result<Guest> {
    let mut guest = Guest::new("command")
        .processors(arguments.processors)
        .memory_mib(arguments.memory)
        .limit(Duration::from_secs(arguments.limit))
        .kernel(match arguments.kernel {
            Kernel::Stable => Release::Stable,
            Kernel::Backports => Release::Backports,
        });
    let mut devices = Vec::new();
    for text in &arguments.ahci {
        devices.push(Device::Ahci(match text.parse::<usize>() {
            Ok(count) => vec![Disk::Null(NULL_BYTES); count],
            Err(_) => text.split(',').map(disk).collect::<Result<_>>()?,
        }));
    }
    for text in &arguments.nvme {
        devices.push(Device::Nvme(disk(text)?));
    }
    for text in &arguments.virtio_blk {
        devices.push(Device::VirtioBlk(disk(text)?, Virtio::CONFINED));
    }
    devices.extend((0..arguments.virtio_net).map(|_| Device::VirtioNet(Virtio::CONFINED)));
    devices.extend((0..arguments.e1000).map(|_| Device::E1000));
    devices.extend((0..arguments.e1000e).map(|_| Device::E1000e));
    guest = devices.into_iter().fold(guest, Guest::device);
    guest = arguments.tool.iter().fold(guest, |guest, name| guest.tool(name));
    guest = arguments.parameter.iter().fold(guest, |guest, text| guest.parameter(text));
    for path in &arguments.file {
        let name = path.file_name().with_context(|| format!("{} has no name", path.display()))?;
        guest = guest.file(&name.to_string_lossy(), path);
    }
    if let Some(path) = &arguments.program {
        guest = guest.program(path);
    }
    Ok(if arguments.no_iommu { guest.without_iommu() } else { guest })
}

fn disk(text: &str) -> Result<Disk> {
    if text == "null" {
        return Ok(Disk::Null(NULL_BYTES));
    }
    let path = std::fs::canonicalize(text).with_context(|| text.to_owned())?;
    Ok(Disk::Image(path))
}

fn copy(report: &Report, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let files = report.file(".");
    let status = std::process::Command::new("cp").arg("-r").arg(files).arg(folder).status()?;
    if !status.success() {
        bail!("cannot copy the results to {}", folder.display());
    }
    Ok(())
}
