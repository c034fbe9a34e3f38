//! The command line. Completions and manual pages are made from the same definitions.

mod disk;
mod machine;
mod sources;

pub(crate) use disk::{
    CapacityArgs, DiskArg, DiskArgs, DiskVerb, EraseArgs, ForceArg, LinkLevel, PasswordArg,
    SecurityVerb, SelftestArgs, SetPasswordArgs, SwitchArgs, Test, TrimArgs,
};
pub(crate) use machine::{BindArgs, DoctorArgs, StatusArgs, UnbindArgs};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use outboard_host::Reaping;
use outboard_lab::{CardConfig, DiskConfig, LabConfig};
use outboard_ninep::Address;
use outboard_pci::Address as PciAddress;
use outboard_sim::live::LiveDisk;
use outboard_vfio::Confinement;
use outboard_vhost_front::{VhostCard, VhostDisk};
use sources::{LAB_HELP, LAB_NET_HELP, PCI_HELP, SIM_HELP, VHOST_USER_HELP, VHOST_USER_NET_HELP};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// What a lab can have.
const MAX_MEMORY_MIB: i64 = (LabConfig::MAX_DMA_BYTES >> 20) as i64;

const ABOUT: &str = "Device drivers outside the kernel: serve disks as files";

const LONG_ABOUT: &str = "\
Device drivers outside the kernel: serve disks as files.

`outboard serve` runs a disk controller's driver in this process and serves the disks \
behind it as a tree of files, over 9P. The other verbs look at that tree, so nobody needs a kernel \
that can mount it.

The controller may be this machine's own (--pci), once it was taken away from the kernel, or another process (--attach-vhost-user). \
Without hardware, and without root, the lab (--lab) provides a controller: the device models of \
QEMU, with image files as disks. A simulation (--sim) needs no QEMU, and can fail as bad disks do.";

const REAP_HELP: &str = "\
How to learn that transfers have ended

By itself the program looks for what has ended while that comes within some 100 microseconds, which
is sooner than the system could wake it, and sleeps otherwise: an idle disk, or a slow one, costs no
processor time. Looking all the time gives the shortest latencies, and takes a processor.";

const EXAMPLES: &str = "\
Examples:
  outboard serve --lab disk.img               serve a disk image (end it with Ctrl-C)
  outboard serve --sim disk.img,faults=1      see how a bad disk is got over
  outboard serve --lab disk.img --vhost-user DIR   let a virtual machine use it
  outboard status                             which controllers there are, and who uses them
  sudo outboard bind 00:1f.2                  take one from the kernel, until outboard unbind
  sudo outboard serve --pci 00:1f.2           serve the disks of a real controller
  outboard serve --attach-vhost-user disk.sock  serve the disk of a vhost-user back end
  outboard ls                                 in another terminal: what is served
  outboard ls sdC0/part                       its partitions
  outboard cat sdC0/ctl                       what the disk says it is
  outboard cp :sdC0/part/1 part1.img          copy a partition out
  outboard disk smart sdC0                    what it knows of its own health
  outboard read --offset 512 --count 92 sdC0/data | od -tx1z

Exit codes:
  0  done
  1  something failed; standard error says what
  2  the command line was not understood
  3  no server answers
  4  the server refused, or a disk failed
  5  the devices are gone: QEMU ended, or hardware was pulled out
  6  the server ended without flushing a disk
  7  a disk expects to fail, or failed its self-test (disk smart, disk selftest)
  8  a device is in use, or shares its IOMMU group; nothing was done (bind, unbind)

Settings:
  OUTBOARD_AT    where the server is, unless --at says so
  OUTBOARD_QEMU  the QEMU that the lab runs
  OUTBOARD_LOG   what to print about, such as debug or outboard_host=trace";

/// Device drivers outside the kernel.
#[derive(Debug, Parser)]
#[command(name = "outboard", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
#[command(arg_required_else_help = true, infer_subcommands = true)]
pub(crate) struct Arguments {
    /// Print results as JSON, an object a line, each with its "schema" and its "kind"
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print more about what happens; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Print errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run drivers, and serve their disks as files until Ctrl-C
    ///
    /// Ctrl-C (SIGINT), SIGTERM and the end of the terminal (SIGHUP, unless it is ignored as after
    /// nohup) end it in order: what is under way is finished, and the disks are flushed. Ctrl-C or
    /// SIGTERM once more ends it at once.
    Serve(ServeArgs),
    /// List PCI functions, and which of our drivers fits each
    List(ListArgs),
    /// Take PCI functions away from the kernel's drivers, for drivers of ours
    #[command(long_about = machine::BIND_LONG)]
    Bind(BindArgs),
    /// Give PCI functions back to the kernel's drivers
    ///
    /// Refused while a process has the function: end that first.
    Unbind(UnbindArgs),
    /// Show PCI functions of this machine: which driver has each, and who uses it
    ///
    /// DRIVER is the driver of ours that fits, IS WITH the driver of the kernel's that has the
    /// function, GROUP the IOMMU group. Who else uses a disk is seen only by the superuser.
    Status(StatusArgs),
    /// Say what stands between this machine and drivers outside its kernel, and what to do
    ///
    /// Looks at IOMMU, modules, permissions and limits, as this user has them. Each line is good,
    /// a note, or trouble; what to do next stands below. Ends with exit code 1 if there is trouble.
    Doctor(DoctorArgs),
    /// List what a server serves
    Ls(LsArgs),
    /// Print files of a server
    Cat(CatArgs),
    /// Print part of a file of a server
    Read(ReadArgs),
    /// Write standard input, or a text, to a file of a server
    Write(WriteArgs),
    /// Copy from, to, or between files of a server
    ///
    /// Zeros become holes in files of this machine. A source without a length, such as a pipe or
    /// /dev/zero, is copied to its end; if the target is full before that, this is an error, but
    /// what fits has been written. `outboard cp /dev/zero :sdC0/part/1` thus fills a partition.
    Cp(CpArgs),
    /// See to a disk: health, self-tests, power, caches, passwords, media
    Disk(DiskArgs),
    /// Measure drivers and server: in the lab, with a simulated disk, on hardware, or with another
    /// process's disk
    Bench(BenchArgs),
    /// Try drivers against a simulator that lies
    ///
    /// Each seed stands for a trial: a controller and disks in software, requests, and faults that
    /// strike at certain moments of virtual time. An oracle watches that no write which was
    /// acknowledged and flushed is lost, that every request ends once and in time, that errors name
    /// the right sectors and have a reason, and that the driver does nothing that the specification
    /// forbids. The same seed always gives the same trial.
    ///
    /// The exit code is 1 if anything was violated.
    Sim(SimArgs),
    /// Print a script that completes command lines in a shell
    Completions(CompletionsArgs),
    /// Write manual pages
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[arg(long, value_name = "ADDR", num_args = 1.., long_help = PCI_HELP)]
    #[arg(
        help = "Serve the disks of a PCI function of this machine, or its network card, such as 0000:00:1f.2"
    )]
    pub(crate) pci: Vec<PciAddress>,

    /// Use functions that no IOMMU confines: they, and mistakes of their drivers, reach all memory
    ///
    /// For machines without an IOMMU, whose kernel was told vfio.enable_unsafe_noiommu_mode=1. Takes
    /// root, and huge pages that are set aside. Functions that have an IOMMU are refused then.
    #[arg(long, requires = "pci")]
    pub(crate) let_devices_reach_all_memory: bool,

    #[arg(long, value_name = "SOCKET[,OPTION]…", long_help = VHOST_USER_HELP)]
    #[arg(help = "Serve the disk of a vhost-user-blk back end that listens at SOCKET")]
    pub(crate) attach_vhost_user: Vec<VhostDisk>,

    #[arg(long, value_name = "SOCKET[,OPTION]…", long_help = VHOST_USER_NET_HELP)]
    #[arg(help = "Use the network card of a vhost-user-net back end that listens at SOCKET")]
    #[arg(requires = "vhost_user")]
    pub(crate) attach_vhost_user_net: Vec<VhostCard>,

    #[arg(long, value_name = "NETWORK[,OPTION]…", long_help = LAB_NET_HELP)]
    #[arg(help = "Use a network card that is a real card's model, connected to NETWORK")]
    #[arg(requires = "vhost_user")]
    pub(crate) lab_net: Vec<CardConfig>,

    #[arg(long, value_name = "IMAGE[,OPTION]…")]
    #[arg(required_unless_present_any =
        ["sim", "ram", "pci", "attach_vhost_user", "attach_vhost_user_net", "lab_net"])]
    #[arg(help = "Serve IMAGE as a disk behind a real controller model", long_help = LAB_HELP)]
    pub(crate) lab: Vec<DiskConfig>,

    #[arg(long, value_name = "IMAGE[,OPTION]…", long_help = SIM_HELP)]
    #[arg(help = "Serve IMAGE as a simulated disk, which can fail as bad disks do; without QEMU")]
    pub(crate) sim: Vec<LiveDisk>,

    #[arg(long, value_name = "BYTES", value_parser = size, long_help = machine::RAM_HELP)]
    #[arg(help = "Serve a disk of so many bytes of memory, which is gone at the end")]
    pub(crate) ram: Vec<u64>,

    /// Listen for 9P here: unix:PATH or tcp:HOST:PORT. May be given several times
    ///
    /// Unless it or --vhost-user is given, a Unix socket in the user's own folder is used, where the
    /// other verbs look for it. A Unix socket is for its owner only. A TCP port is for whoever reaches it:
    /// there is no authentication, so keep to 127.0.0.1 unless you trust the network.
    #[arg(long = "9p", value_name = "ADDRESS")]
    pub(crate) ninep: Vec<Address>,

    #[arg(long, value_name = "DIR", long_help = machine::VHOST_HELP)]
    #[arg(help = "Let virtual machines use disks and network cards: each is a socket in DIR")]
    pub(crate) vhost_user: Option<PathBuf>,

    #[arg(long, value_name = "MIB", requires = "pci", requires = "vhost_user")]
    #[arg(conflicts_with = "let_devices_reach_all_memory", long_help = machine::ZERO_COPY_HELP)]
    #[arg(
        help = "Let controllers reach up to so much of virtual machines' memory, without copies"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) zero_copy: Option<u32>,

    /// Memory for transfers, in MiB: for the functions given with --pci together, and as much for
    /// the lab, the simulation and each back end
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=MAX_MEMORY_MIB))]
    pub(crate) memory: u32,

    /// How the controllers are to signal interrupts, rather than in the best way that they have
    #[arg(long, value_name = "KIND")]
    pub(crate) interrupts: Option<Interrupts>,

    #[arg(long, value_name = "HOW", default_value = "adaptive", long_help = REAP_HELP)]
    #[arg(help = "How to learn that transfers have ended")]
    pub(crate) reap: Reap,
}

/// What has to confine functions, by the flag that gives it up.
pub(crate) const fn confinement(let_devices_reach_all_memory: bool) -> Confinement {
    match let_devices_reach_all_memory {
        true => Confinement::DevicesReachAllMemory,
        false => Confinement::Iommu,
    }
}

/// How to learn that transfers have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reap {
    /// Look while they end in quick succession, sleep until an interrupt otherwise
    Adaptive,
    /// Sleep until an interrupt
    Interrupts,
    /// Look for as long as a transfer is under way
    Polling,
}

impl From<Reap> for Reaping {
    fn from(reap: Reap) -> Self {
        match reap {
            Reap::Adaptive => Self::Adaptive,
            Reap::Interrupts => Self::Interrupts,
            Reap::Polling => Self::Polling,
        }
    }
}

/// A kind of interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Interrupts {
    /// Messages
    Msi,
    /// The shared pin
    Pin,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// List the functions of a lab with these disks, rather than those of this machine
    #[arg(long, value_name = "IMAGE", num_args = 0..)]
    pub(crate) lab: Option<Vec<DiskConfig>>,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Where the server is: unix:PATH or tcp:HOST:PORT [default: this user's running server]
    #[arg(long, value_name = "ADDRESS", env = "OUTBOARD_AT", hide_env = true, global = true)]
    pub(crate) at: Option<Address>,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// What to list, such as sdC0/part [default: everything at the top]
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<String>,

    /// List what is in the folders below, too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    /// What to print, such as sdC0/ctl
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<String>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// What to read, such as sdC0/data
    #[arg(value_name = "PATH")]
    pub(crate) path: String,

    /// First byte; with k, M, G or T for KiB, MiB, GiB or TiB, or s for 512-byte sectors
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = size)]
    pub(crate) offset: u64,

    /// How many bytes, likewise [default: to the end]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(crate) count: Option<u64>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WriteArgs {
    /// Where to write, such as sdC0/ctl or sdC0/part/1
    #[arg(value_name = "PATH")]
    pub(crate) path: String,

    /// What to write [default: standard input]
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<String>,

    /// First byte; with k, M, G or T for KiB, MiB, GiB or TiB, or s for 512-byte sectors
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = size)]
    pub(crate) offset: u64,

    /// Do not wait until what was written would survive a loss of power
    #[arg(long)]
    pub(crate) no_sync: bool,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// What to copy: a file of this machine, or after a colon one of the server (:sdC0/part/1)
    #[arg(value_name = "FROM")]
    pub(crate) from: String,

    /// Where to, likewise
    #[arg(value_name = "TO")]
    pub(crate) to: String,

    /// Overwrite a disk or partition without asking
    #[arg(long)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Use the first disk of a PCI function of this machine
    #[arg(long, value_name = "ADDR")]
    #[arg(conflicts_with_all = ["lab", "sim", "null", "attach_vhost_user"])]
    pub(crate) pci: Option<PciAddress>,

    /// Use functions that no IOMMU confines: they, and mistakes of their drivers, reach all memory
    ///
    /// For machines without an IOMMU, whose kernel was told vfio.enable_unsafe_noiommu_mode=1. Takes
    /// root, and huge pages that are set aside. Functions that have an IOMMU are refused then.
    #[arg(long, requires = "pci")]
    pub(crate) let_devices_reach_all_memory: bool,

    /// Use the disk of a vhost-user-blk back end that listens at SOCKET
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["lab", "sim", "null"])]
    pub(crate) attach_vhost_user: Option<VhostDisk>,

    /// The image to use [default: a scratch image of 256 MiB in a temporary folder]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) lab: Option<DiskConfig>,

    /// Use a simulated disk with this image, rather than one of the lab
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["lab", "null"])]
    pub(crate) sim: Option<LiveDisk>,

    /// Use a disk that reads as zeros and forgets writes, so that storage is not the limit
    #[arg(long, conflicts_with = "lab")]
    pub(crate) null: bool,

    /// What to do: one kind of transfer rather than the usual set
    #[arg(long, value_name = "PATTERN")]
    pub(crate) pattern: Option<Pattern>,

    /// Bytes of each transfer (with k or M)
    #[arg(long, value_name = "BYTES", default_value = "4k", value_parser = size)]
    pub(crate) size: u64,

    /// Transfers under way at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) depth: u16,

    /// How to get at the disk
    #[arg(long, value_name = "PATH", default_value = "driver")]
    pub(crate) through: Through,

    #[arg(long, value_name = "HOW", default_value = "adaptive", long_help = REAP_HELP)]
    #[arg(help = "How to learn that transfers have ended")]
    pub(crate) reap: Reap,

    /// How long each measurement takes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,

    /// Write to the image or the disk that was given without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

/// A kind of transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// Reads, anywhere
    Randread,
    /// Reads, one after the other
    Read,
    /// Writes, anywhere
    Randwrite,
    /// Writes, one after the other
    Write,
}

/// A way to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Through {
    /// Straight through the driver, in this process
    Driver,
    /// Through a server, over 9P
    #[value(name = "9p")]
    Ninep,
}

/// What `sim` tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tried {
    /// A Serial ATA host bus adapter with disks
    Ahci,
    /// A virtio disk
    Virtio,
}

#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// Which device and driver to try
    #[arg(long, value_enum, default_value_t = Tried::Ahci)]
    pub(crate) device: Tried,

    /// How many trials to run [default: 1000, or as many as fit into --seconds]
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,

    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) from: u64,

    /// For how long to begin new trials
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<u64>,

    /// Run the trial of this seed only, and print all that happens in it
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from", "seconds"])]
    pub(crate) seed: Option<u64>,

    /// Let only these faults strike (see --list)
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    /// How many trials to run at once [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,

    /// Name all faults, and what each may cost
    #[arg(long, conflicts_with_all = ["seed", "seeds", "seconds", "only"])]
    pub(crate) list: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where to write them; each verb has a page
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

/// Reads a number of bytes, with a unit or without.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (digits, unit) = text.split_at(digits.len());
    let factor = match unit {
        "" | "b" | "B" => 1,
        "s" => 512,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        "t" | "T" | "TiB" => 1u64 << 40,
        _ => return Err(format!("{unit:?} is no unit; use k, M, G, T or s")),
    };
    let number = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse::<u64>().ok(),
    };
    number.and_then(|n| n.checked_mul(factor)).ok_or_else(|| "not a number of bytes".to_owned())
}

/// Reads a number of sectors: a plain one, or hexadecimal after 0x.
pub(crate) fn sectors(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    number.ok_or_else(|| "not a number of sectors".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("0", 0), ("512", 512), ("3s", 1536), ("4k", 4096), ("0x10", 16)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(size("2T"), Ok(2 << 40));
        for text in ["", "k", "-1", "1.5k", "99999999999T", "1x"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
