# Two controllers with a disk each: first.img is on the first, and is to be copied to the second.
# The first has another disk, which is so large that no transfer of all of it ends. And a disk over
# virtio, which it is to be copied to as well.
modprobe -a vfio-pci vfio_iommu_type1
set -- $AHCI
first=$1 second=$2
take "$first"
take "$second"

echo "both, with messages, beside a simulated disk"
truncate -s 1M /tmp/sim.img
start --sim /tmp/sim.img --pci "$first" "$second" --interrupts msi
[ "$(grep -c vfio-msi /proc/interrupts)" = 2 ] || fail "no messages"
masters "$first" || fail "the controller is off the bus"
outboard cp :sdC1/data /tmp/read
cmp /tmp/read first.img || fail "what was read differs"
outboard cp --yes first.img :sdC3/data
stop
masters "$first" && fail "the controller is still on the bus"

echo "with the pin"
start --pci "$second" --interrupts pin
grep -q vfio-intx /proc/interrupts || fail "no pin"
outboard cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was written differs"
stop

echo "over virtio"
take "$VIRTIO_BLK"
for interrupts in msi pin; do
  start --pci "$VIRTIO_BLK" --interrupts $interrupts
  masters "$VIRTIO_BLK" || fail "the device is off the bus"
  outboard cp --yes first.img :sdC0/data
  kill -9 "$server"
  wait "$server"
  masters "$VIRTIO_BLK" && fail "a killed server's device is still on the bus"
  start --pci "$VIRTIO_BLK" --interrupts $interrupts
  outboard cp :sdC0/data /tmp/read
  cmp /tmp/read first.img || fail "what was written differs"
  stop
  masters "$VIRTIO_BLK" && fail "the device is still on the bus"
done
give "$VIRTIO_BLK"
cmp /dev/vda first.img || fail "the kernel reads something else"

echo "in use"
start --pci "$first"
refuses "in use by another process: $server (outboard)" outboard serve --pci "$first" --9p unix:/tmp/other
outboard cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was read differs"
stop

# COUNTER COMMAND…: a server is killed below a client that transfers without an end.
killed_below() {
  counter=$1
  shift
  start --pci "$first"
  "$@" 2>/tmp/client &
  client=$!
  await eval '[ "$(outboard cat sdC1/stats | sed -n "s/^$counter //p")" -gt 20000 ]'
  masters "$first" || fail "a controller that transfers is off the bus"
  kill -9 "$server"
  wait "$server"
  masters "$first" && fail "a killed server's controller is still on the bus"
  # Not 3, nobody there, but 1: the connection has ended below the client.
  code=0
  wait $client || code=$?
  cat /tmp/client
  [ $code = 1 ] || fail "the client ended with $code"
  grep -q "the connection failed: the server has ended" /tmp/client || fail "the client does not say why it ended"
}
echo "killed while it writes, and started again"
killed_below sectors-written outboard cp --yes /dev/zero :sdC1/data
start --pci "$first" "$second"
outboard cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "a crash has changed another disk"
outboard cp --yes first.img :sdC0/data
outboard cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was written after a crash differs"
stop

echo "killed while it reads, and given back"
killed_below sectors-read outboard cp :sdC1/data /dev/null
outboard unbind "$first" || fail "it is not given back"
blocks() { ls -d /sys/bus/pci/devices/$first/ata*/host*/target*/*/block/sd?; }
await eval '[ "$(blocks | wc -l)" = 2 ]'
await eval 'cmp "/dev/$(basename "$(blocks | head -n 1)")" first.img'
outboard bind "$first" || fail "it is not taken again"

echo "measured"
for how in interrupts polling adaptive; do
  outboard --json bench --pci "$first" --pattern randread --seconds 1 --reap $how || fail "no measurement"
done

echo "asked for by the kernel"
start --pci "$first" "$second"
echo 1 >"/sys/bus/pci/devices/$first/remove"
[ ! -e "/sys/bus/pci/devices/$first" ] || fail "the function is still there"
outboard ls | grep -q sdC0 && fail "its disk is still there"
outboard cp :sdC2/data /tmp/read
cmp /tmp/read first.img || fail "the other disk is not served on"
echo "$second" >"/sys/bus/pci/devices/$second/driver/unbind"
ended 5
grep -q "the kernel wanted $first, $second back" /tmp/log || fail "it does not say why it ended"

echo "with the kernel's own driver again"
echo 1 >/sys/bus/pci/rescan
echo >"/sys/bus/pci/devices/$second/driver_override"
echo "$second" >/sys/bus/pci/drivers_probe
await eval '[ "$(ls -d /sys/block/sd? | wc -l)" = 3 ]'
for block in /sys/block/sd?; do
  [ "$(cat "$block/size")" = 16384 ] || continue
  cmp "/dev/${block##*/}" first.img || fail "${block##*/} differs"
done
echo done
