# What goes astray is stopped by the IOMMU, and the driver goes on: see the program's description.
modprobe -a vfio-pci vfio_iommu_type1
take "$AHCI"
./stray "$AHCI" switch-off | grep "^switched off and on" || fail "registers that are switched off"
# The kernel tells of so many faults, and then of none for seconds: what causes many comes last.
for how in transfer received list; do
  echo "$how"
  dmesg -c >/dev/null
  log=$RESULTS/$how.log
  masters "$AHCI" && fail "the controller is on the bus before its driver is"
  ./stray "$AHCI" $how >"$log" || fail "$how: $(cat "$log")"
  grep -q "^recovered" "$log" || fail "$how: $(cat "$log")"
  masters "$AHCI" && fail "the controller is still on the bus"
  sed -n 's/.* astray: //p' "$log" >"$RESULTS/$how.address"
  await eval 'dmesg | grep -q "fault addr $(cat "$RESULTS/$how.address") "'
  dmesg >"$RESULTS/$how.dmesg"
done
# The kernel's own driver finds it in order.
give "$AHCI"
await test -b /dev/sda
cmp /dev/sda before.img || fail "the disk differs"
echo done
