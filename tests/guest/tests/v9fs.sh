# The guest kernel's own 9P client on a disk of ours.
#
# $SOURCE says what to serve, such as `--sim disk.img` or `--pci 0000:00:04.0`.
set -eu

# Whoever waits for something that does not come is told what was last.
step() { echo "--- $*" >&2; }
trap 'cp /tmp/serve.log $RESULTS/serve.log' EXIT

step serve
mkfifo /tmp/ready
outboard serve $SOURCE --9p unix:/run/9p --9p tcp:127.0.0.1:5640 >/tmp/ready 2>/tmp/serve.log &
server=$!
{ read -r _ && read -r _; } </tmp/ready || { cat /tmp/serve.log >&2; exit 1; }

# The tree under /mnt: mount_tree TRANSPORT VERSION
mount_tree() {
  case $1 in
    unix) mount -t 9p -o "trans=unix,version=$2,msize=262144,access=any" /run/9p /mnt ;;
    tcp) mount -t 9p -o "trans=tcp,port=5640,version=$2,msize=262144,access=any" 127.0.0.1 /mnt ;;
  esac
}

dd if=/dev/urandom of=/tmp/noise bs=64k count=16 2>/dev/null
number=0
for transport in unix tcp; do
  for version in 9p2000.L 9p2000.u 9p2000; do
    step "$transport $version"
    number=$((number + 1))
    mount_tree $transport $version
    ls -l /mnt /mnt/sdC0 /mnt/sdC0/part
    cat /mnt/sdC0/ctl
    # Aligned, and not: a partial sector must keep its other bytes.
    dd if=/tmp/noise of=/mnt/sdC0/data bs=64k seek=$((number * 100)) conv=notrunc,fsync 2>/dev/null
    dd if=/mnt/sdC0/data bs=64k skip=$((number * 100)) count=16 2>/dev/null | cmp - /tmp/noise
    printf 'x%s' $number | dd of=/mnt/sdC0/data bs=1 seek=$((number * 6553600 + 777)) conv=notrunc 2>/dev/null
    dd if=/mnt/sdC0/data bs=1 skip=$((number * 6553600 + 777)) count=2 2>/dev/null | grep -qx "x$number"
    dd if=/mnt/sdC0/data bs=777 skip=$((number * 6553600)) count=1 iflag=skip_bytes 2>/dev/null | cmp -n 777 - /tmp/noise
    echo flush >/mnt/sdC0/ctl
    # What cannot be is refused, and the mount lives on.
    ! echo nonsense 2>/dev/null >/mnt/sdC0/ctl
    ! cat /mnt/sdC0/part/9 2>/dev/null
    test "$(stat -c %s /mnt/sdC0/data)" = "$BYTES"
    umount /mnt
  done
done

step partitions
mount_tree unix 9p2000.L
sgdisk --clear --new 1:2048:+40M --new 2:0:0 /mnt/sdC0/data
echo rescan >/mnt/sdC0/ctl
ls -l /mnt/sdC0/part
test "$(stat -c %s /mnt/sdC0/part/1)" = $((40 << 20))
sgdisk --verify /mnt/sdC0/data

step a file system on a partition, through a loop device
mkdir /fs
modprobe loop
losetup /dev/loop0 /mnt/sdC0/part/1
mkfs.ext4 -q /dev/loop0
mount -t ext4 /dev/loop0 /fs
tar -c -C / usr bin >/tmp/some.tar
tar -x -C /fs -f /tmp/some.tar
umount /fs
e2fsck -fn /dev/loop0
losetup -d /dev/loop0
umount /mnt

step the same file system over the other transport and version
mount_tree tcp 9p2000
losetup -r /dev/loop0 /mnt/sdC0/part/1
mount -t ext4 -o ro /dev/loop0 /fs
for folder in usr bin; do diff -r /$folder /fs/$folder; done
umount /fs
losetup -d /dev/loop0
umount /mnt

step the same bytes without the kernel
outboard cp --at unix:/run/9p :sdC0/part/1 /tmp/part1.img
e2fsck -fn /tmp/part1.img

step the end
kill -TERM $server
wait $server
echo done
