#!/bin/sh
# make.sh FILE.tar: a Debian 12 root as a newcomer has it: apt and the certificates, nothing of ours.
# Packages come from where this machine's apt gets them, under the same settings.
set -eu

[ $# -eq 1 ] || { echo "usage: make.sh FILE.tar" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "make.sh: needs root" >&2; exit 2; }
tarball=$1
suite=bookworm
settings=$(mktemp)
trap 'rm -f "$settings" "$tarball.part"' EXIT
apt-config dump | grep '^Acquire::' >"$settings" || true

# The files of sources that offer this release; none: the tool's own default.
set --
for sources in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    if [ -e "$sources" ] && grep -q "^[^#]*$suite" "$sources"; then set -- "$@" "$sources"; fi
done

mkdir -p "$(dirname "$tarball")"
mmdebstrap --quiet --mode=root --format=tar --variant=minbase --include=ca-certificates \
    --aptopt="$settings" "$suite" "$tarball.part" "$@"
mv "$tarball.part" "$tarball"
