# Clients of vhost-user whose memory controllers reach: a disk behind AHCI with first.img, one over
# virtio, which it is to be copied to, and one that is so large that no transfer of all of it ends.
modprobe -a vfio-pci vfio_iommu_type1
take "$AHCI"
take "$VIRTIO_BLK"
mkdir /tmp/vhost
mib=1048576

# NAME: a counter of a disk's.
counter() { outboard cat "$1/stats" | sed -n "s/^$2 //p"; }
# DISK: whether something was transferred in clients' memory.
lent() { [ "$(counter "$1" file-bytes-lent)" -gt "${2:-0}" ]; }
# OPTION…: serves to clients.
serve() { start --pci "$AHCI" "$VIRTIO_BLK" --vhost-user /tmp/vhost "$@"; }
# DISK [OPTION…]: another process serves that disk over 9P, as a client of vhost-user.
attach() {
  socket=/tmp/vhost/$1.sock
  shift
  : >/tmp/client.out
  outboard serve --attach-vhost-user "$socket" --9p unix:/tmp/client "$@" >/tmp/client.out 2>/tmp/client.log &
  client=$!
  await grep -q ^ready /tmp/client.out
}
detach() {
  kill -TERM "$client"
  wait "$client" || fail "the client ended with $?: $(cat /tmp/client.log)"
}
# COMMAND…: at that other process.
client() { OUTBOARD_AT=unix:/tmp/client outboard "$@"; }

echo "reads and writes without a copy"
serve --zero-copy 1024
attach sdC0
client cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was read differs"
# By now all of the client's memory that it transfers in is reached.
before=$(counter sdC0 file-bytes-lent)
client cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was read once more differs"
[ $(($(counter sdC0 file-bytes-lent) - before)) = $((8 * mib)) ] || fail "it was copied"
detach
attach sdC2
client cp --yes first.img :sdC0/data
before=$(counter sdC2 file-bytes-lent)
client cp --yes first.img :sdC0/data
client cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was written differs"
[ $(($(counter sdC2 file-bytes-lent) - before)) -ge $((16 * mib)) ] || fail "it was copied"
detach
# By the server's own memory, which the controller has always reached.
outboard cp :sdC2/data /tmp/read
cmp /tmp/read first.img || fail "what was written is not on the disk"

# DIRECTION FROM TO: a client is killed while it transfers without an end.
killed() {
  echo "a client is killed while it $1"
  attach sdC1
  before=$(counter sdC1 file-bytes-lent)
  client cp --yes "$2" "$3" 2>/dev/null &
  copy=$!
  await lent sdC1 $((before + 32 * mib))
  kill -9 "$client"
  wait "$copy" "$client"
  await grep -q "sdC1: the virtual machine has gone" /tmp/log
  : >/tmp/log
}
killed reads :sdC0/data /dev/null
killed writes /dev/zero :sdC0/data
attach sdC0
client cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "a client's death has changed another disk"
detach

echo "the server is killed, and the client goes on"
attach sdC1
client cp --yes /dev/zero :sdC0/data 2>/dev/null &
copy=$!
await lent sdC1 $((32 * mib))
kill -9 "$server"
wait "$server"
masters "$AHCI" && fail "a killed server's controller is still on the bus"
serve --zero-copy 1024
await lent sdC1 $((32 * mib))
kill "$copy" && wait "$copy"
detach
grep -q "data of the virtual machine is copied" /tmp/log && fail "something was copied"
stop
masters "$AHCI" && fail "the controller is still on the bus"

echo "what cannot be reached is copied"
serve --zero-copy 64
attach sdC0
client cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was copied differs"
grep -q "sdC0: data of the virtual machine is copied: .* --zero-copy 256" /tmp/log || fail "the remedy is not told"
[ "$(counter sdC0 file-bytes-lent)" = 0 ] || fail "it was not copied"
detach
attach sdC2 --memory 16
client cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was read differs"
lent sdC2 || fail "a smaller one is copied, too"
detach
stop
group() { basename "$(readlink "/sys/bus/pci/devices/$1/iommu_group")"; }
chown -R 99 "/dev/vfio/$(group "$AHCI")" "/dev/vfio/$(group "$VIRTIO_BLK")" /tmp/vhost
: >/tmp/out
ulimit -l 67584
/usr/bin/setpriv --reuid=99 --regid=99 --clear-groups outboard serve --pci "$AHCI" "$VIRTIO_BLK" \
  --vhost-user /tmp/vhost --9p $OUTBOARD_AT --memory 64 --zero-copy 512 >/tmp/out 2>/tmp/log &
server=$!
await is_ready
attach sdC0 --memory 32
client cp :sdC0/data /tmp/read
cmp /tmp/read first.img || fail "what was read with little locked memory differs"
grep -q "may lock 67584 KiB, of which 67584 KiB are taken.*ulimit -l 98304" /tmp/log || fail "the limit is not named"
lent sdC0 || fail "not even as much as is allowed was reached"
detach
stop
ulimit -l unlimited

echo "measured: copied, and not"
for round in 1 2; do
  for options in "" "--zero-copy 1024"; do
    serve $options
    outboard --json bench --attach-vhost-user /tmp/vhost/sdC1.sock --pattern randread --size 128k --depth 4 \
      --seconds 2 || fail "no measurement"
    stop
  done
done

give "$VIRTIO_BLK"
await test -b /dev/vda
cmp /dev/vda first.img || fail "the kernel reads something else"
echo done
