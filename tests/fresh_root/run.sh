#!/bin/sh
# run.sh [--user] [--twice] [--first VERB] VERB [ARGUMENT ...]: `./run VERB` on a clean clone of HEAD in a
# fresh Debian 12. --user: as an ordinary user, after root installed what `./run` said; --twice: again,
# when all is set up; --first: another verb before it.
# Tells how long it took, and exits as it did. The root is made once and kept below the user's cache.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=tests/fresh_root/settings.sh
. "$here/settings.sh"
user=root
home=/root
twice=no
before=''
while :; do
    case ${1-} in
    --user) user=newcomer home=/home/newcomer ;;
    --twice) twice=yes ;;
    --first) shift; before=${1-} ;;
    *) break ;;
    esac
    shift
done
[ $# -ge 1 ] || { echo "usage: run.sh [--user] [--twice] [--first VERB] VERB [ARGUMENT ...]" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "run.sh: needs root" >&2; exit 2; }

enter() { sh "$here/enter.sh" "$root" "$@" </dev/null; }

# The arguments of `./run`, as the user, in the clone.
in_clone() {
    # shellcheck disable=SC2016 # expanded inside
    enter setpriv --reuid "$user" --regid "$user" --init-groups env HOME="$home" \
        sh -c 'cd "$HOME/handiwork" && exec ./run "$@"' sh "$@"
}

timed() {
    name=$1
    shift
    began=$(date +%s)
    status=0
    in_clone "$@" || status=$?
    echo "fresh root: $name ./run $*: exit $status after $(($(date +%s) - began)) s" >&2
    return $status
}

# An ordinary user is told in one line what root must install; do exactly that.
install_as_told() {
    status=0
    told=$(in_clone "$@" 2>&1) || status=$?
    command=$(printf '%s\n' "$told" | sed -n 's/^run: missing; as root: //p')
    if [ "$status" -ne 2 ] || [ -z "$command" ]; then
        echo "fresh root: exit $status and not one line that says what to install:" "$told" >&2
        exit 1
    fi
    echo "fresh root: as root: $command" >&2
    enter sh -c "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && $command -qq -y" >/dev/null
}

cache=${XDG_CACHE_HOME:-$HOME/.cache}/handiwork
tarball=$cache/fresh-root-$(sha256sum <"$here/make.sh" | cut -c 1-12).tar
[ -e "$tarball" ] || sh "$here/make.sh" "$tarball"
work=$(mktemp -d "${TMPDIR:-/tmp}/handiwork-fresh-root.XXXXXX")
root=$work/root
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$root"
tar -C "$root" --numeric-owner -xpf "$tarball"
take_over_settings "$root"
enter unshare --user true || { echo "fresh root: no user namespaces inside" >&2; exit 1; }
[ "$user" = root ] || enter useradd --create-home "$user"
git clone --quiet --no-hardlinks "$here/../.." "$root$home/handiwork"
enter chown -R "$user:" "$home"
[ "$user" = root ] || install_as_told "$@"
[ -z "$before" ] || timed first "$before"
timed first "$@"
[ "$twice" = no ] || timed again "$@"
