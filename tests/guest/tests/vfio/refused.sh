# What is missing is named, with what to do next.
set -- $AHCI
first=$1
serve="outboard serve --9p $OUTBOARD_AT --pci"
refuses "modprobe vfio-pci" $serve "$first"
modprobe vfio-pci
refuses "has no PCI function at 0000:00:1e.7" $serve 0000:00:1e.7
refuses "no driver here for $E1000, which is of class 020000" $serve "$E1000"
refuses "used by the kernel's driver ahci.*outboard bind $first" $serve "$first"
take "$first"
refuses "modprobe vfio_iommu_type1" $serve "$first"
modprobe vfio_iommu_type1
refuses "$first is given twice" $serve "$first" "$first"
refuses "no reason to give up" $serve "$first" --let-devices-reach-all-memory

other="/usr/bin/setpriv --reuid=99 --regid=99 --clear-groups"
group=$(basename "$(readlink "/sys/bus/pci/devices/$first/iommu_group")")
node=/dev/vfio/$group
mv "$node" /tmp/node
refuses "$node does not exist.*pass it in" $serve "$first"
mv /tmp/node "$node"
mv /dev/vfio /tmp/vfio
refuses "offers no VFIO: /dev/vfio/vfio does not exist.*modprobe vfio-pci" $serve "$first"
mv /tmp/vfio /dev/vfio
refuses "chown 99 /dev/vfio/$group" $other $serve "$first"
chown 99 "/dev/vfio/$group"
ulimit -l 65536
refuses "ulimit -l 262144.*LimitMEMLOCK=256M.*--memory 64" $other $serve "$first"
# What it advises helps.
: >/tmp/out
$other $serve "$first" --memory 64 >/tmp/out 2>/tmp/log &
server=$!
await is_ready
stop
ulimit -l unlimited

# The machine's own functions in slot 1f share a group, and the kernel uses the others.
take 0000:00:1f.2
refuses "shares IOMMU group .* 0000:00:1f.3 (i801_smbus).*outboard bind .*0000:00:1f.3" $serve 0000:00:1f.2
echo done
