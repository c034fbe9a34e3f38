#!/bin/busybox sh
# The guest's first process: it loads drivers, runs the script, and hands over what came of it.
export PATH=/usr/bin:/bin HOME=/root RESULTS=/out/files
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm "$RESULTS"
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
ip link set lo up
hostname guest

echo "loading drivers" >/dev/console
# Disks are there once their controller's module is loaded, if sd_mod came before.
modprobe -a virtio_pci virtio_console sd_mod
for bus in pci virtio; do
  cat /sys/bus/$bus/devices/*/modalias | sort -u | while read -r alias; do
    modprobe -q "$alias" 2>/dev/null
  done
done

# The port of the host that has a name: port NAME
port() {
  for one in /sys/class/virtio-ports/*; do
    if [ "$(cat "$one/name")" = "$1" ]; then echo "/dev/${one##*/}"; fi
  done
}

cd /job
set -a
. ./environment
set +a
echo "the script begins" >/dev/console
echo >"$(port begin)"
sh ./script </dev/null >"$(port stdout)" 2>"$(port stderr)"
echo $? >/out/code
dmesg >/out/kernel.log
tar -c -C /out . >"$(port results)"
echo "the script has ended" >/dev/console
# QEMU ends when its machine reboots.
reboot -f
