# Virtio functions of several kinds: a disk with four packed rings, onto which first.img is copied, disks
# and a card that go round the IOMMU, and two cards on a hub with one that the kernel has.
modprobe -a vfio-pci vfio_iommu_type1
set -- $VIRTIO_BLK
disk=$1
shift
others=$*
set -- $VIRTIO_NET
kernel=$1 packed=$2 split=$3 old=$4
interface=$(ls /sys/bus/pci/devices/$kernel/virtio*/net)
for function in $disk $others $packed $split $old; do take $function; done

echo "four packed rings"
start --pci $disk
[ "$(grep -c vfio-msix /proc/interrupts)" = 5 ] || fail "not a vector for each queue"
outboard cp --yes first.img :sdC0/data
kill -9 "$server"
wait "$server"
masters $disk && fail "a killed server's device is still on the bus"
start --pci $disk
outboard cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was written differs"
stop

echo "round the IOMMU"
for function in $others; do
  refuses "would bypass the IOMMU" outboard serve --9p $OUTBOARD_AT --pci $function
  masters $function && fail "a device that was refused is on the bus"
done
refuses "would bypass the IOMMU" ./ping $old 10.9.0.3 10.9.0.1

echo "frames"
ip address add 10.9.0.1/24 dev $interface
ip link set $interface up
for function in $packed $split; do
  ./ping $function 10.9.0.2 10.9.0.1 >/tmp/out 2>/tmp/log || fail "no answers: $(cat /tmp/log)"
  grep -q "^64 echoes" /tmp/out || fail "$(cat /tmp/out)"
  masters $function && fail "a card that was stopped is on the bus"
  # Another address, at a card that the kernel has not heard of yet.
  ip neighbour flush dev $interface
done

give $disk
await test -b /dev/vda
cmp /dev/vda first.img || fail "the kernel reads something else"
echo done
