# A virtual machine's kernel on a network card of ours, over vhost-user.
#
# $PORT is where the machine that runs QEMU listens, and sends back what it gets; $BYTES is how much that
# is to be.
set -eu

# Whoever waits for something that does not come is told what was last.
step() { echo "--- $*" >&2; }

name=$(ls /sys/bus/pci/devices/$VHOST_USER_NET/virtio*/net)

step an address
cat >configure <<'END'
#!/bin/sh
[ "$1" != bound ] || ip address add $ip/24 dev $interface
END
chmod +x configure
ip link set $name up
udhcpc -i $name -n -q -t 20 -T 1 -s ./configure
ip address show $name

step a connection, in both directions
dd if=/dev/urandom of=given bs=$BYTES count=1 2>/dev/null
nc -w 60 10.0.2.2 $PORT <given >got
cmp given got
echo done
