//! What can go wrong with the lab, and what to do about it.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why the lab did not start, or stopped. The messages tell the user what to do next.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LabError {
    /// There is no QEMU.
    #[error(
        "{program} was not found. Install QEMU (Debian, Ubuntu: apt-get install qemu-system-x86; \
         Fedora: dnf install qemu-system-x86-core; Arch: pacman -S qemu-system-x86), or set \
         OUTBOARD_QEMU to where it is"
    )]
    NoQemu {
        /// What was looked for.
        program: String,
    },
    /// There is a QEMU, but it cannot be used.
    #[error(
        "{program} is version {found}, and the lab needs {needed} or newer. Update QEMU, or set \
         OUTBOARD_QEMU to a newer one"
    )]
    OldQemu {
        /// The program that was asked.
        program: String,
        /// What it said.
        found: String,
        /// What would do.
        needed: &'static str,
    },
    /// QEMU could not be started at all.
    #[error("{program} could not be started: {error}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// QEMU ended, at once or later.
    #[error("QEMU ended ({status}). {}", .stderr.as_deref().map_or_else(
        || "It printed nothing; see whether something killed it (dmesg: out of memory?)".into(),
        |text| format!("It said: {text}")))]
    Ended {
        /// How it ended.
        status: String,
        /// The first of what it printed.
        stderr: Option<String>,
    },
    /// QEMU is alive and silent.
    #[error(
        "QEMU has not answered for {seconds} s, and was ended. Is the machine overloaded, or its \
         storage stuck?"
    )]
    Silent {
        /// How long the lab waited.
        seconds: u64,
    },
    /// QEMU answered what the protocol does not have.
    #[error("QEMU answered {answer:?} to {command:?}, which the lab does not understand")]
    Protocol {
        /// What was asked.
        command: String,
        /// What came back.
        answer: String,
    },
    /// An image is missing.
    #[error(
        "{} does not exist. To make an empty disk of 1 GiB: truncate -s 1G {}", .0.display(),
        .0.display()
    )]
    ImageMissing(PathBuf),
    /// An image cannot be read, or not be written.
    #[error("{} cannot be opened for {access}: {error}. {remedy}", .path.display())]
    ImageAccess {
        /// The image.
        path: PathBuf,
        /// "reading" or "reading and writing".
        access: &'static str,
        /// Why.
        error: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// An image is a directory, a socket, or the like.
    #[error("{} is neither a file nor a block device", .0.display())]
    ImageKind(PathBuf),
    /// An image is empty.
    #[error(
        "{} is empty, and a disk has at least one sector. To make it 1 GiB: truncate -s 1G {}",
        .0.display(), .0.display()
    )]
    ImageEmpty(PathBuf),
    /// An image ends within a sector.
    #[error(
        "{} has {bytes} bytes, which is not a whole number of {sector}-byte sectors. To pad it with \
         zeros: truncate -s {} {}; if it is not a raw image, say which format (…,format=qcow2)",
        .path.display(), .bytes.next_multiple_of(*.sector), .path.display()
    )]
    ImageSize {
        /// The image.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The sector size that it is to have.
        sector: u64,
    },
    /// Another process uses the image.
    #[error(
        "{} is in use by another process (another lab, or a virtual machine). Stop that one first: \
         two writers would destroy what is on it", .0.display()
    )]
    ImageBusy(PathBuf),
    /// A disk was described in a way that the lab does not understand.
    #[error(
        "{text:?} does not describe a disk: {reason}. Write IMAGE[,ro][,sector=4096][,format=qcow2][,bad=SECTOR][,bus=virtio]"
    )]
    DiskSyntax {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A network card was described in a way that the lab does not understand.
    #[error(
        "{text:?} does not describe a network card: {reason}. Write user[,packed] or \
         tap=NAME[,packed][,queues=N]"
    )]
    CardSyntax {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More controllers than the machine has room for.
    #[error(
        "the disks take {wanted} controllers, and one lab holds {most} (six disks share one, those \
         over virtio have their own); start a second server"
    )]
    TooManyControllers {
        /// How many were asked for.
        wanted: usize,
        /// How many fit.
        most: usize,
    },
    /// Disks at fixed addresses beside others, or too many of them.
    #[error(
        "disks with bus=virtio-mmio are in a machine without PCI: it holds up to {} of them, all of \
         the same version, and nothing else. Serve the others with a second server",
        crate::Machine::MMIO_DEVICES
    )]
    NotOverMmio,
    /// Messages are wanted of devices at fixed addresses.
    #[error(
        "disks with bus=virtio-mmio have an interrupt line each, and no messages; leave the kind of \
         interrupts out, or ask for the pin"
    )]
    NoMessages,
    /// There is no device at a fixed address of this number.
    #[error("the lab has no place {0} for devices at fixed addresses")]
    NoPlace(usize),
    /// More DMA memory than the machine has in one piece.
    #[error(
        "{wanted} bytes of DMA memory are more than the {most} that one lab holds; ask for less"
    )]
    TooMuchMemory {
        /// How many bytes were asked for.
        wanted: usize,
        /// How many there can be.
        most: usize,
    },
    /// The machine has no such function, or it is in use.
    #[error("the lab has no free PCI function at {0}")]
    NoFunction(outboard_pci::Address),
    /// The kernel refused something that the lab needs.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

impl LabError {
    pub(crate) fn system(what: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |error| Self::System { what, error: error.into() }
    }
}
