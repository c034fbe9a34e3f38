# Two controllers with a disk each: first.img is on the first, and is to be copied to the second.
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
outboard cp --yes first.img :sdC2/data
stop
masters "$first" && fail "the controller is still on the bus"

echo "with the pin"
start --pci "$second" --interrupts pin
grep -q vfio-intx /proc/interrupts || fail "no pin"
outboard cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was written differs"
stop

echo "in use"
start --pci "$first"
refuses "in use by another process: $server (outboard)" outboard serve --pci "$first" --9p unix:/tmp/other
outboard cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was read differs"

echo "killed while it transfers"
outboard cp --yes first.img :sdC0/data 2>/dev/null &
await eval '[ "$(outboard cat sdC0/stats | wc -l)" -gt 0 ]'
kill -9 "$server"
wait "$server"
wait
masters "$first" && fail "a killed server's controller is still on the bus"
start --pci "$first" "$second"
outboard cp --yes first.img :sdC0/data
outboard cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was written after a crash differs"
stop

echo "measured"
for how in interrupts polling adaptive; do
  outboard --json bench --pci "$first" --pattern randread --seconds 1 --reap $how || fail "no measurement"
done

echo "asked for by the kernel"
start --pci "$first" "$second"
echo 1 >"/sys/bus/pci/devices/$first/remove"
[ ! -e "/sys/bus/pci/devices/$first" ] || fail "the function is still there"
outboard ls | grep -q sdC0 && fail "its disk is still there"
outboard cp :sdC1/data /tmp/read
cmp /tmp/read first.img || fail "the other disk is not served on"
echo "$second" >"/sys/bus/pci/devices/$second/driver/unbind"
ended 5
grep -q "the kernel wanted $first, $second back" /tmp/log || fail "it does not say why it ended"

echo "with the kernel's own driver again"
echo 1 >/sys/bus/pci/rescan
echo >"/sys/bus/pci/devices/$second/driver_override"
echo "$second" >/sys/bus/pci/drivers_probe
await eval '[ "$(ls -d /sys/block/sd? | wc -l)" = 2 ]'
for disk in /dev/sd?; do cmp "$disk" first.img || fail "$disk differs"; done
echo done
