# To be sourced: `need PROGRAM…` sees to it that the programs are there.
#
# On Debian and its kin it installs the packages that they are in, and says so; elsewhere it names
# the packages and gives up.

# Where administrators' tools are; users' shells often do not look there.
PATH=$PATH:/usr/sbin:/sbin

# Which package of Debian, of Fedora and of Arch each program is in.
packages='
cc                 gcc             gcc                   gcc
g++                g++             gcc-c++               gcc
qemu-system-x86_64 qemu-system-x86 qemu-system-x86-core  qemu-system-x86
qemu-img           qemu-utils      qemu-img              qemu-img
qemu-storage-daemon qemu-system-common qemu-img          qemu-common
sgdisk             gdisk           gdisk                 gptfdisk
sfdisk             fdisk           util-linux            util-linux
mkfs.ext4          e2fsprogs       e2fsprogs             e2fsprogs
xorriso            xorriso         xorriso               libisoburn
mkfs.vfat          dosfstools      dosfstools            dosfstools
mcopy              mtools          mtools                mtools
cmp                diffutils       diffutils             diffutils
diodls             diod            diod                  diod
busybox            busybox-static  busybox               busybox
fio                fio             fio                   fio
setpriv            util-linux      util-linux            util-linux
unshare            util-linux      util-linux            util-linux
ip                 iproute2        iproute               iproute2
xz                 xz-utils        xz                    xz
zstd               zstd            zstd                  zstd
dpkg-deb           dpkg            dpkg                  dpkg
valgrind           valgrind        valgrind              valgrind
dpdk-testpmd       dpdk-dev        dpdk                  dpdk
python3            python3         python3               python
ensurepip          python3-venv    python3               python
'

bold='' plain=''
if [ -t 2 ]; then bold=$'\033[1m' plain=$'\033[0m'; fi

say() { printf '%s==>%s %s\n' "$bold" "$plain" "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

has() {
  case $1 in
    # A module of Python, without which there are no virtual environments.
    ensurepip) python3 -c 'import ensurepip' 2>/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# The package that a program is in: package PROGRAM COLUMN
package() { awk -v program="$1" -v column="$2" '$1 == program { print $column }' <<<"$packages"; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif has sudo; then
    sudo "$@"
  else
    fail "as root, run: $*"
  fi
}

need() {
  local missing=() program
  for program in "$@"; do
    has "$program" || missing+=("$program")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    return
  fi
  if ! has apt-get; then
    printf 'These programs are missing: %s\nInstall their packages, and try again:\n' \
      "${missing[*]}" >&2
    local column=3 family
    for family in Fedora Arch; do
      printf '  %-7s' "$family" >&2
      for program in "${missing[@]}"; do printf ' %s' "$(package "$program" $column)" >&2; done
      printf '\n' >&2
      column=$((column + 1))
    done
    exit 1
  fi
  local wanted=()
  for program in "${missing[@]}"; do wanted+=("$(package "$program" 2)"); done
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends)
  say "installing ${wanted[*]}, for ${missing[*]}"
  # A fresh machine may have no list of packages yet, and an old one an old list.
  as_root "${install[@]}" "${wanted[@]}" >&2 || {
    as_root apt-get update -q >&2
    as_root "${install[@]}" "${wanted[@]}" >&2
  }
  for program in "${missing[@]}"; do
    has "$program" || fail "$program is still missing; install $(package "$program" 2) yourself"
  done
}

need_cargo() {
  # Where rustup puts it, if the shell that was open then does not look there yet.
  has cargo || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  has cargo || fail "cargo is missing; install Rust 1.91 or newer, for instance with rustup"
}
