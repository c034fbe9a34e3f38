//! The command line of the verbs that look after this machine's PCI functions, and of serving
//! virtual machines.

use clap::Args;
use outboard_pci::Address;

/// What a virtual machine needs.
pub(super) const VHOST_HELP: &str = "\
Let virtual machines use disks and network cards, by vhost-user: each is a Unix socket in DIR, such \
as DIR/sdC0.sock or DIR/net0.sock, which is for its owner only

A virtual machine that uses one has its memory shared with this process. With QEMU:

  -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem -m 1G
  -chardev socket,id=disk,path=DIR/sdC0.sock,reconnect=1 -device vhost-user-blk-pci,chardev=disk
  -chardev socket,id=net,path=DIR/net0.sock,reconnect=1 -netdev vhost-user,id=n,chardev=net \
-device virtio-net-pci,netdev=n

One at a time uses a disk or a card; another one waits until the first has gone. If this process \
ends, however it does, and is started again, a virtual machine that connects again (reconnect=1) goes \
on, and what was in flight at a disk is done. Its memory has to be a memfd, or a file in tmpfs or \
hugetlbfs.

A card lets everything through, since the virtual machine has an address of its own, and does to \
frames what it can: checksums and segments, as far as the virtual machine wants that.

DIR has to exist. Disks that are plugged in later get a socket, too, and those of disks that go are \
removed. Nothing is served over 9P then, unless --9p says where: whoever writes to a disk that a \
virtual machine has mounted destroys what is on it.";

/// What becomes of the memory of virtual machines whose data is not copied.
pub(super) const ZERO_COPY_HELP: &str = "\
Let the controllers given with --pci transfer straight to and from the memory of the virtual machines \
that use their disks, by --vhost-user, rather than copy the data

Of such memory up to MIB MiB are reached at a time, and pinned: what a virtual machine has ever used for \
transfers stays in this machine's memory until it disconnects. Whatever lies beyond that, or where \
controllers cannot transfer, is copied; the log says so once. `stats` counts what was not copied \
(file-bytes-lent). If a virtual machine uses several disks, its memory counts for each of them. Unless \
this is run as root, the limit of locked memory (ulimit -l) has to be MIB MiB above --memory.

Not for virtual machines whose memory is given back while they run, by a balloon, by free page \
reporting or virtio-mem: a controller would go on using pages that are no longer theirs.";

/// What a disk of memory is good for.
pub(super) const RAM_HELP: &str = "\
Serve a disk of so many bytes of this process's memory, such as 256M. May be given several times, and \
together with --lab, --sim and --pci

It begins with zeros, and what is on it is gone when the server ends: it is for scratch space, and for \
measuring everything that stands above a disk. Memory is taken when it is first written.";

pub(super) const BIND_LONG: &str = "\
Take PCI functions away from the kernel's drivers, for drivers of ours

What the function offered the system, such as its disks, goes away until `outboard unbind` or the \
next start; nothing on it is changed. The function is then with vfio-pci, the driver of the kernel's \
that hands functions to processes.

Refused, with what to do about it, is what the system uses: a disk that is mounted, swapped to, part \
of LVM, RAID, encryption and the like, or open in a process; a network interface with the default \
route, or with addresses. Nothing is done to functions that are not named.

Functions that the IOMMU cannot keep apart form a group, and processes can have only whole groups. \
If others of a function's group have drivers of the kernel's, binding is refused, and says which; \
--group moves them too.

If a step fails, all that was done before is undone.";

pub(super) const BIND_EXAMPLES: &str = "\
Examples:
  outboard status                     which functions there are, and who uses them
  outboard bind --dry-run 00:1f.2     see what would be done
  sudo outboard bind 00:1f.2          take it, until the next start
  sudo outboard bind --persist 00:1f.2
  sudo outboard unbind 00:1f.2        give it back

Exit code 8 says that something is in use, or that the group is shared.";

#[derive(Debug, Args)]
#[command(after_help = BIND_EXAMPLES)]
pub(crate) struct BindArgs {
    /// The functions, such as 00:1f.2 or 0000:00:1f.2
    #[arg(value_name = "ADDR", required = true)]
    pub(crate) addresses: Vec<Address>,

    /// Move all functions of their IOMMU groups, bridges excepted
    #[arg(long)]
    pub(crate) group: bool,

    /// Bind them whenever the machine starts, too
    ///
    /// This is written to /etc/driverctl.d, where driverctl reads it; it has to be installed.
    #[arg(long)]
    pub(crate) persist: bool,

    /// Print what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UnbindArgs {
    /// The functions, such as 00:1f.2 or 0000:00:1f.2
    #[arg(value_name = "ADDR", required = true)]
    pub(crate) addresses: Vec<Address>,

    /// Do not bind them when the machine starts any more, either
    #[arg(long)]
    pub(crate) persist: bool,

    /// Print what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only these functions [default: those that Outboard has drivers for]
    #[arg(value_name = "ADDR")]
    pub(crate) addresses: Vec<Address>,

    /// All functions of the machine
    #[arg(short, long, conflicts_with = "addresses")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Look at this function, too
    #[arg(value_name = "ADDR")]
    pub(crate) address: Option<Address>,
}
