# What the scripts of vfio.rs have in common.
export OUTBOARD_AT=unix:/tmp/9p
fail() {
  echo "FAILED: $*"
  cat /tmp/log
  dmesg | tail -n 40
  exit 1
}
# ADDRESS: takes a function from whatever driver has it to vfio-pci.
take() {
  echo vfio-pci >"/sys/bus/pci/devices/$1/driver_override"
  if [ -e "/sys/bus/pci/devices/$1/driver" ]; then echo "$1" >"/sys/bus/pci/devices/$1/driver/unbind"; fi
  echo "$1" >/sys/bus/pci/drivers_probe
}
# ADDRESS: gives it back to the kernel's own.
give() {
  echo >"/sys/bus/pci/devices/$1/driver_override"
  echo "$1" >"/sys/bus/pci/devices/$1/driver/unbind"
  echo "$1" >/sys/bus/pci/drivers_probe
}
# CONDITION…: waits until a command succeeds.
await() {
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    if [ $tries -ge 600 ]; then fail "waited in vain for: $*"; fi
    usleep 100000
  done
}
is_ready() {
  kill -0 "$server" 2>/dev/null || fail "the server ended"
  grep -q ^ready /tmp/out
}
# OPTION…: starts a server, and waits until it is ready.
start() {
  : >/tmp/out
  outboard --verbose serve --9p $OUTBOARD_AT "$@" >/tmp/out 2>/tmp/log &
  server=$!
  await is_ready
}
# CODE: waits until the server has ended with that.
ended() {
  code=0
  wait "$server" || code=$?
  [ $code = "$1" ] || fail "the server ended with $code"
}
stop() {
  kill -TERM "$server"
  ended 0
}
# ADDRESS: whether it may access memory by itself: bit 2 of the command register.
masters() {
  command=$(od -An -tu1 -j4 -N1 "/sys/bus/pci/devices/$1/config")
  [ $((command & 4)) != 0 ]
}
# TEXT COMMAND…: the command has to fail, and to say so.
refuses() {
  text=$1
  shift
  if "$@" >/tmp/out 2>/tmp/log; then fail "went well: $*"; fi
  grep -q -- "$text" /tmp/log || fail "does not say \"$text\": $*"
}
