# A virtual machine's kernel on a disk of ours, over vhost-user.
#
# $SERIAL is the disk's serial number, $SIZE its bytes, $QUEUES how many queues it is to have.
set -eu

# Whoever waits for something that does not come is told what was last.
step() { echo "--- $*" >&2; }

name=$(ls /sys/bus/pci/devices/$VHOST_USER_BLK/virtio*/block)
disk=/dev/$name
sys=/sys/block/$name

step what the disk says it is
test "$(cat $sys/serial)" = "$SERIAL"
test "$(cat $sys/size)" = $((SIZE / 512))
test "$(ls $sys/mq | wc -l)" = "$QUEUES"
test "$(cat $sys/cache_type)" = "write back"

step a file system, with writes of zeros
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 $disk
mkdir -p /fs
mount -t ext4 $disk /fs
tar -c -C / bin | tar -x -C /fs
umount /fs
e2fsck -fn $disk
mount -t ext4 $disk /fs
cmp /bin/busybox /fs/bin/busybox
umount /fs

step the cache, off, on and off
for state in "write through" "write back" "write through"; do
  echo "$state" >$sys/cache_type
  test "$(cat $sys/cache_type)" = "$state"
done

step a discard
blkdiscard -o $((40 << 20)) -l $((1 << 20)) $disk

step verify
# The server may die from here on, as a disk whose power is cut: what is not in its cache stays.
fio --name=verify --filename=$disk --direct=1 --ioengine=libaio --iodepth=32 --rw=randwrite \
  --bsrange=512-128k --size=24m --offset=8m --verify=crc32c --verify_fatal=1 --do_verify=1 \
  --minimal >$RESULTS/fio
echo done
