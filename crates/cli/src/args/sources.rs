//! What is told of the disks that can be served.

/// Where a disk's image is, and how it is to be used.
pub(super) const LAB_HELP: &str = "\
Serve IMAGE as a disk behind a real controller model, QEMU's. May be given several times

  ,ro           never write to the image
  ,cd           it is a disc, in a CD drive: read-only, with 2048-byte sectors
  ,sector=4096  it is the image of a disk with 4096-byte sectors
  ,format=F     its format: raw (unless said otherwise), qcow2, vmdk, vdi or vhdx
  ,bad=N        pretend that 512-byte sector N can neither be read nor written
  ,bus=virtio   attach it as a virtio device rather than to an AHCI controller
  ,bus=virtio-legacy  as one that is older than virtio 1.0; virtio-transitional is both
  ,bus=virtio-mmio    as one at a fixed address, of a machine without PCI, in which there are up to
                8 of these and nothing else; virtio-mmio-legacy has registers of version 1
  ,packed       with rings in the packed layout (bus=virtio)
  ,queues=N     with so many queues (bus=virtio)";

/// What a simulated disk is, and what its faults do and do not.
pub(super) const SIM_HELP: &str = "\
Serve IMAGE as a simulated disk: a software model of a controller and its disks, in this process \
and without QEMU. May be given several times, and together with --lab

  ,ro           never write to the image
  ,sector=4096  it is the image of a disk with 4096-byte sectors
  ,serial=TEXT  its serial number
  ,faults=SEED  let it fail as bad disks do, to see what becomes of a program that uses it

Such a disk is never chosen unless it is asked for, and its model number says SIMULATED. The image \
is its medium: as with --lab, what is written to the disk and flushed is in the image. What was \
written and not flushed is in the disk's volatile cache, and goes with it if the server is killed.

With ,faults=SEED something strikes each such disk every two to six seconds, and is printed: mostly \
what the driver gets over (commands that are aborted, damaged transfers, lost interrupts, links that \
go and come back), at times delays of seconds, bad sectors, cuts of power, and seldom a disk that is \
pulled out and plugged in again. The same seed gives the same faults at the same times; most wait \
for an occasion, and are dropped if none comes until the next are due. `outboard sim --list` says \
what there is.

Faults do no harm to the image. Bad sectors are bad until the server ends, most of them until they \
are written; the image keeps what they held. Cut power and pulled disks lose what was not flushed, \
as with a real disk. To keep an image as it is whatever is written, serve a copy of it.";

/// Whose disk it is, and what becomes of it.
pub(super) const VHOST_USER_HELP: &str = "\
Serve the disk of a vhost-user-blk back end, such as qemu-storage-daemon's or SPDK's, that listens at \
the Unix socket SOCKET. May be given several times, and together with --lab, --sim and --pci

  ,ro           never write to the disk
  ,queues=N     use at most N queues, rather than up to 8

The back end is lent the memory for transfers, and nothing else. If it ends, requests are kept until \
it listens again, for up to a minute: start it again with the same disk. Nobody notices but by the \
time that it takes. A disk with another size or serial number is not taken for the same one.";

/// Whose network card it is, and what becomes of it.
pub(super) const VHOST_USER_NET_HELP: &str = "\
Use the network card of a vhost-user-net back end, such as DPDK's net_vhost or Open vSwitch's, that \
listens at the Unix socket SOCKET. May be given several times; goes with --vhost-user

  ,queues=N     use at most N pairs of queues, rather than one

The back end is lent the memory for frames, and nothing else. If it ends, the card has no cable until \
it listens again, for up to a minute.";

/// What a card of the lab is connected to.
pub(super) const LAB_NET_HELP: &str = "\
Use a network card that is QEMU's model of one, connected to NETWORK. May be given several times, and \
together with --lab; goes with --vhost-user

  user          QEMU's own network, which gives addresses by DHCP and needs no permissions
  tap=NAME      an interface of the kernel's, made when the server starts; takes root
  ,packed       with rings in the packed layout
  ,queues=N     with so many pairs of queues (tap)";

/// What it takes to drive hardware.
pub(super) const PCI_HELP: &str = "\
Serve the disks of a PCI function of this machine, or its network card: a real one. Several may be \
given, and together with --lab and --sim. Network cards go with --vhost-user

The function has to be bound to the kernel's driver vfio-pci (`outboard bind ADDR` does that), \
and behind an IOMMU, which lets it reach the memory for transfers and nothing else. `outboard list` \
shows the functions of this machine, and which of them there is a driver for; `outboard doctor` says \
what is missing.

When the server ends, in whatever way, the function no longer reaches memory. A function that is \
being unplugged or unbound is given back in order: its disks are flushed, and the others are served \
on.";
