#!/bin/sh
# enter.sh ROOT COMMAND [ARGUMENT ...]: run a command in a root folder by pivot_root, in mount and pid
# namespaces of its own (the kernel refuses user namespaces in a chroot), on this machine's network.
# When it ends, every process and mount that it made is gone.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=tests/fresh_root/settings.sh
. "$here/settings.sh"

mount_into() {
    mount --make-rprivate /
    mount --bind "$1" "$1"
    mount -t proc -o nosuid,nodev,noexec proc "$1/proc"
    mount --rbind /sys "$1/sys"
    mount --rbind /dev "$1/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
    mount -t tmpfs -o mode=755 tmpfs "$1/run"
    named_folders | while read -r folder; do
        mkdir -p "$1$folder"
        mount --bind -o ro "$folder" "$1$folder"
    done
}

# As pid 1 of the new pid namespace. The shell stays, to collect what is left behind.
inside() {
    root=$1
    shift
    mount_into "$root"
    for variable in $(client_variables); do
        eval "set -- \"$variable=\$$variable\" \"\$@\""
    done
    cd "$root"
    pivot_root . .
    umount -l .
    cd /
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        TERM="${TERM:-dumb}" "$@"
}

if [ "${1-}" = --inside ]; then
    shift
    inside "$@"
else
    [ $# -ge 2 ] || { echo "usage: enter.sh ROOT COMMAND [ARGUMENT ...]" >&2; exit 2; }
    [ "$(id -u)" -eq 0 ] || { echo "enter.sh: needs root" >&2; exit 2; }
    exec unshare --mount --pid --fork --kill-child=KILL sh "$0" --inside "$@"
fi
