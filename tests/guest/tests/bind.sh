# Takes functions from the kernel and gives them back, on a kernel that means it.
#
# $AHCI are two controllers with a disk each: the first disk gets mounted, the second is free. The
# machine has another controller of its own, at 00:1f.2, which shares its IOMMU group.
set -eu

step() { echo "--- $*" >&2; }
# Runs a command, which must end with a code; its output is in /tmp/said: ends CODE COMMAND…
ends() {
  wanted=$1
  shift
  code=0
  "$@" >/tmp/said 2>&1 || code=$?
  cat /tmp/said >&2
  [ $code -eq $wanted ] || { echo "$*: code $code rather than $wanted" >&2; exit 1; }
}
says() { grep -qF -- "$1" /tmp/said || { echo "nothing says: $1" >&2; exit 1; }; }
# The driver that has a function.
driver() {
  [ -e /sys/bus/pci/devices/$1/driver ] || { echo none; return; }
  basename "$(readlink /sys/bus/pci/devices/$1/driver)"
}
is_with() { [ "$(driver $1)" = $2 ] || { echo "$1 is with $(driver $1), not $2" >&2; exit 1; }; }
group() { basename "$(readlink /sys/bus/pci/devices/$1/iommu_group)"; }
# The kernel looks for disks beside whoever asked it to: waits for one.
comes() {
  tries=0
  until [ -b /dev/$1 ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { echo "$1 does not come back" >&2; exit 1; }
    sleep 0.1
  done
}
# The disk behind a function, once it is there.
disk() { ls -d /sys/bus/pci/devices/$1/ata*/host*/target*/*/block/* | sed 's,.*/,,'; }

set -- $AHCI
busy=$1 free=$2
busy_disk=$(disk $busy) free_disk=$(disk $free)

step what there is
ends 0 outboard status
says "$busy  ahci    ahci"
says "behind it: $free_disk"
ends 0 outboard status --json $free
says '"kind":"status"'
says "\"disks\":[\"$free_disk\"]"
says "\"group\":$(group $free)"
ends 0 outboard doctor $free
says "good     IOMMU: in use"
says "good     interrupt remapping: in use"
says "note     module vfio-pci: not loaded yet"
says "note     module vfio_iommu_type1: not loaded yet"
says "it can be bound; $free_disk would go away"
ends 0 outboard status --all
says "$E1000  -       e1000"

step what cannot be
ends 1 outboard bind 00:1e.7
says "no PCI function at 0000:00:1e.7"
ends 1 outboard bind $E1000
says "Outboard has no driver for $E1000"
echo 'nobody:x:65534:65534::/:/bin/sh' >/etc/passwd
ends 1 su -s /bin/sh -c "outboard bind $free" nobody
says "Run it as the superuser"
ends 1 su -s /bin/sh -c "ulimit -l 64; outboard doctor" nobody
says "you may lock 64 KiB, and a server takes 262144 KiB"
mv /lib/modules/*/modules.dep /tmp
ends 1 outboard bind $free
says "\`modprobe vfio-pci\` failed"
says "Everything was put back"
is_with $free ahci
mv /tmp/modules.dep /lib/modules/*/

step a dry run does nothing
ends 0 outboard bind --dry-run --persist $free
says "modprobe vfio-pci"
says "modprobe vfio_iommu_type1"
says "echo vfio-pci > /sys/bus/pci/devices/$free/driver_override"
says "echo $free > /sys/bus/pci/drivers/ahci/unbind"
says "echo vfio-pci > /etc/driverctl.d/pci-$free"
is_with $free ahci
[ ! -e /sys/bus/pci/drivers/vfio-pci ] && [ ! -e /etc/driverctl.d ]

step what is mounted is refused
mkfs.ext4 -q /dev/$busy_disk
modprobe -a ext4 loop
mount -t ext4 /dev/$busy_disk /mnt
ends 8 outboard bind $busy $free
says "$busy: $busy_disk is mounted at /mnt; to end that: umount /mnt"
is_with $busy ahci
is_with $free ahci

step what another namespace has mounted is refused
umount /mnt
mkfifo /tmp/mounted
unshare -m sh -c "mount --make-rprivate / 2>/dev/null; mount -t ext4 /dev/$busy_disk /mnt; echo >/tmp/mounted; exec sleep 1000" &
hidden=$!
read -r _ </tmp/mounted
ends 8 outboard bind $busy
says "$busy_disk is in use by the kernel"
kill $hidden
wait $hidden || true

step swap is refused
mkswap /dev/$busy_disk >/dev/null
swapon /dev/$busy_disk
ends 8 outboard bind $busy
says "$busy_disk is in use as swap; to end that: swapoff /dev/$busy_disk"
swapoff /dev/$busy_disk

step what is under a loop device, or open, is refused
losetup /dev/loop0 /dev/$busy_disk
ends 8 outboard bind $busy
says "$busy_disk is part of the loop device loop0"
losetup -d /dev/loop0
sleep 1000 </dev/$busy_disk &
reader=$!
until [ "$(readlink /proc/$reader/fd/0)" = /dev/$busy_disk ]; do :; done
ends 8 outboard bind $busy
says "$busy_disk is open in process $reader (sleep)"
kill $reader
wait $reader || true

step what is free goes, and comes back
before=$(md5sum </dev/$free_disk)
ends 0 outboard bind ${free#0000:}
says "$free is with vfio-pci now; $free_disk went away until: outboard unbind $free"
is_with $free vfio-pci
is_with $busy ahci
[ ! -e /sys/block/$free_disk ]
[ -c /dev/vfio/$(group $free) ]
[ -d /sys/module/vfio_iommu_type1 ]
ends 0 outboard bind $free
says "is with vfio-pci already"
ends 0 outboard doctor $free
says "you may open /dev/vfio/$(group $free)"
says "good     module vfio_iommu_type1: loaded"
sleep 1000 <>/dev/vfio/$(group $free) &
holder=$!
until [ "$(readlink /proc/$holder/fd/0)" = /dev/vfio/$(group $free) ]; do :; done
ends 0 outboard status $free
says "process $holder (sleep) has it"
ends 8 outboard unbind $free
says "$free is with process $holder (sleep)"
is_with $free vfio-pci
kill $holder
wait $holder || true
ends 0 outboard unbind --dry-run $free
says "echo $free > /sys/bus/pci/drivers/vfio-pci/unbind"
is_with $free vfio-pci
ends 0 outboard unbind $free
says "$free is with ahci again"
is_with $free ahci
[ "$(cat /sys/bus/pci/devices/$free/driver_override)" = "(null)" ]
comes $free_disk
[ "$(md5sum </dev/$free_disk)" = "$before" ]

step a group moves as a whole
hba=0000:00:1f.2 smbus=0000:00:1f.3
is_with $smbus i801_smbus
isa=$(driver 0000:00:1f.0)
ends 8 outboard bind $hba
says "$smbus (driver i801_smbus)"
says "outboard bind --group $hba"
ends 0 outboard bind --group $hba
is_with $hba vfio-pci
is_with $smbus vfio-pci
case $isa in none) is_with 0000:00:1f.0 none ;; *) is_with 0000:00:1f.0 vfio-pci ;; esac
ends 0 outboard unbind $hba $smbus 0000:00:1f.0
is_with $hba ahci
is_with $smbus i801_smbus
is_with 0000:00:1f.0 $isa

step what is persisted is what driverctl reads and writes
ends 0 outboard bind --persist $free
says "driverctl is not installed"
cp /etc/driverctl.d/pci-$free /tmp/ours
ends 0 outboard unbind $free
says "$free gets vfio-pci whenever the machine starts"
ends 1 outboard doctor $free
says "driverctl is not there"
is_with $free ahci
comes $free_disk
# What its service does when the machine starts.
bash ./driverctl load-override $free
is_with $free vfio-pci
bash ./driverctl list-overrides | grep -qx "$free vfio-pci"
ends 0 outboard status $free
says "gets vfio-pci whenever the machine starts"
ends 0 outboard unbind --persist $free
[ ! -e /etc/driverctl.d/pci-$free ]
is_with $free ahci
bash ./driverctl set-override $free vfio-pci
cmp /etc/driverctl.d/pci-$free /tmp/ours
ends 0 outboard unbind --persist $free
[ ! -e /etc/driverctl.d/pci-$free ]
is_with $free ahci
echo done
