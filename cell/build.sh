#!/bin/sh
# Builds the program of isolate cells. Needs a C compiler, a static libc, and QuickJS-ng's sources: those in the directory
# QUICKJS, or get_quickjs.sh gets them.
#   build.sh              the program, static, into ../src/handiwork/isolate_cell (or --output FILE); and with _python after it
#                         its zygote and its cage as a library, for engines that are programs of others
#   build.sh --sanitize   the program with ASan and UBSan and without its cage, dynamic, into build/ (or --output DIR)
#   build.sh --fuzz       the libFuzzer targets, into build/ (or --output DIR); needs clang, and not QuickJS-ng
set -eu
cd "$(dirname "$0")"
cc=${CC:-cc}
quickjs=${QUICKJS:-../.quickjs}
output=
mode=cell
while [ $# -gt 0 ]; do
    case $1 in
    --sanitize) mode=sanitize ;;
    --fuzz) mode=fuzz cc=${CC:-clang} ;;
    --output) output=$2 && shift ;;
    *) echo "build.sh: unknown option $1" >&2 && exit 2 ;;
    esac
    shift
done
if ! command -v "${cc%% *}" >/dev/null 2>&1; then
    echo "build.sh: no C compiler ($cc): install gcc and libc6-dev, or set CC" >&2
    exit 1
fi
[ -n "${QUICKJS-}" ] || [ "$mode" = fuzz ] || ./get_quickjs.sh

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
warnings="-Wall -Wextra -Wformat=2 -Wconversion -Wshadow -Wstrict-prototypes -Wvla -Werror"

# One function of the natives: its parts share their names, and guest code sees none of them.
{
    printf '(host => {\n"use strict";\nconst globals = globalThis;\n'
    for part in calls text timers console events clone crypto url streams fetch names run; do cat "prelude/$part.js"; done
    printf '})\n'
} >"$made/prelude.js"

# compile FLAGS CAGE
compile() {
    for part in quickjs libregexp libunicode dtoa; do
        # shellcheck disable=SC2086
        $cc -std=gnu11 $1 -w -D_GNU_SOURCE -I"$quickjs" -c -o "$made/$part.o" "$quickjs/$part.c" &
    done
    for part in "$2" fatal frames javascript main modules natives zygote; do
        # shellcheck disable=SC2086
        $cc -std=gnu11 $1 $warnings -isystem "$quickjs" -Wa,-I"$made" -c -o "$made/$part.o" "$part.c"
    done
    wait
}

case $mode in
cell)
    output=${output:-../src/handiwork/isolate_cell}
    compile "-O2 -fPIE -fstack-protector-strong -D_FORTIFY_SOURCE=2" cage
    $cc -static-pie -Wl,-z,relro,-z,now,-z,noexecstack -s -o "$output.new" "$made"/*.o -lm
    chmod 0755 "$output.new"
    # shellcheck disable=SC2086
    $cc -std=gnu11 -O2 -shared -fPIC -fstack-protector-strong -D_FORTIFY_SOURCE=2 $warnings \
        -Wl,-z,relro,-z,now,-z,noexecstack -s -o "${output}_python" cage.c fatal.c library.c zygote.c
    sed '/\*\//q' "$quickjs/quickjs.c" >"$output.LICENSE"
    mv "$output.new" "$output"
    ;;
sanitize)
    output=${output:-build}
    mkdir -p "$output"
    compile "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all" uncaged
    $cc -fsanitize=address,undefined -o "$output/isolate_cell_sanitized" "$made"/*.o -lm
    ;;
fuzz)
    output=${output:-build}
    mkdir -p "$output"
    for target in frames zygote; do
        # shellcheck disable=SC2086
        $cc -std=gnu11 -O1 -g $warnings -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
            -o "$output/fuzz_$target" "fuzz_$target.c"
    done
    ;;
esac
