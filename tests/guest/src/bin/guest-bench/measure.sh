# Measures one disk through the kernel's driver and through ours, in turn.
#
# $CASES has lines of: name, fio's pattern, our pattern, bytes, depth. $ROUNDS, $SECONDS_EACH.
# $SIMULATED, unless it is empty, is what to measure instead of the disk, through our driver.
# Each measurement leaves ROUND.CASE.WAY.json and .stat (/proc/stat before and after).
set -eu
modprobe -a vfio-pci vfio_iommu_type1
device=/sys/bus/pci/devices/$AHCI

# Hands the controller to a driver, and takes it from the one that has it: give DRIVER
give() {
  if [ -e $device/driver ]; then echo $AHCI >$device/driver/unbind; fi
  echo $1 >$device/driver_override
  echo $AHCI >/sys/bus/pci/drivers_probe
  test "$(basename "$(readlink $device/driver)")" = $1
}
# measure ROUND CASE WAY COMMAND…, which prints JSON
measure() {
  to=$RESULTS/$1.$2.$3
  shift 3
  head -n 1 /proc/stat >$to.stat
  "$@" >$to.json
  head -n 1 /proc/stat >>$to.stat
}
each_case() { echo "$CASES" | while read -r name theirs ours bytes depth; do "$@"; done; }

kernel() {
  measure $round $name kernel fio --name=$name --filename=$disk --direct=1 --ioengine=io_uring \
    --rw=$theirs --bs=$bytes --iodepth=$depth \
    --iodepth_batch_submit=$depth --iodepth_batch_complete_max=$depth --registerfiles \
    --fixedbufs --clat_percentiles=0 --lat_percentiles=1 \
    --time_based --runtime=$SECONDS_EACH --output-format=json
}
ours() {
  for way in interrupts adaptive polling; do
    measure $round $name $way outboard --json bench ${SIMULATED:---pci $AHCI} --pattern $ours \
      --size $bytes --depth $depth --seconds $SECONDS_EACH --reap $way
  done
}

uname -r >$RESULTS/kernel
round=0
while [ $round -lt $ROUNDS ]; do
  give ahci
  # Disks are found by a thread of the kernel's, which an event ends.
  tries=0
  until disk=$(ls -d $device/ata*/host*/target*/*/block/* 2>/dev/null); do
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then echo "the kernel finds no disk" >&2; exit 1; fi
    usleep 100000
  done
  # As fast as the kernel can: no scheduler, no statistics. All that may go to the disk goes with one
  # system call, as with our driver: with one call each, which is fio's habit, it is half as fast.
  echo none >$disk/queue/scheduler
  echo 0 >$disk/queue/iostats
  echo 0 >$disk/queue/add_random
  disk=/dev/${disk##*/}
  each_case kernel
  if [ -z "$SIMULATED" ]; then give vfio-pci; fi
  each_case ours
  round=$((round + 1))
  echo "round $round of $ROUNDS"
done
