#!/bin/sh
# Builds the guest agent. Nothing but a C compiler and a static libc is needed.
#   build.sh              the agent, static, into ../src/handiwork/guest_agent (or --output FILE)
#   build.sh --sanitize   the agent and `decode` with ASan and UBSan, dynamic, into build/ (or --output DIR)
#   build.sh --fuzz       the libFuzzer target and its seeds, into build/ (or --output DIR); needs clang
set -eu
cd "$(dirname "$0")"
cc=${CC:-cc}
output=
mode=agent
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

agent="agent bridge caps census channel claim clocks connect dns door egress erofs events exec fatal files forward freeze hold init \
jail kvm launch link listeners main mux netlink netns netstack notify options orders outer paths probe proc processes \
relay resolve rootfs seccomp serve spawn terminal transfer tree users walk watchman weigh"
warnings="-Wall -Wextra -Wformat=2 -Wconversion -Wshadow -Wstrict-prototypes -Wvla -Werror"
sources() { for name in "$@"; do printf '%s.c ' "$name"; done; }

# A library for guests in an old gVisor (serve.c), which the agent carries; it binds to their libc, not ours.
carried=$(mktemp -d)
trap 'rm -rf "$carried"' EXIT
build_preload() {
    # shellcheck disable=SC2086
    $cc -std=gnu11 -O2 -shared -fPIC -nostdlib $warnings -Wl,-z,relro,-z,now,-z,noexecstack -s \
        -o "$carried/preload.so" preload.c
}

case $mode in
agent)
    build_preload
    output=${output:-../src/handiwork/guest_agent}
    # shellcheck disable=SC2046,SC2086
    $cc -std=gnu11 -O2 -static-pie -fPIE -fstack-protector-strong -D_FORTIFY_SOURCE=2 $warnings \
        -Wl,-z,relro,-z,now,-z,noexecstack -Wa,-I"$carried" -s -o "$output.new" $(sources $agent)
    output=${output:-../src/handiwork/guest_agent}
    chmod 0755 "$output.new"
    mv "$output.new" "$output"
    ;;
sanitize)
    output=${output:-build}
    mkdir -p "$output"
    build_preload
    flags="-std=gnu11 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
    # shellcheck disable=SC2046,SC2086
    $cc $flags $warnings -Wa,-I"$carried" -o "$output/guest_agent_sanitized" $(sources $agent)
    output=${output:-../src/handiwork/guest_agent}
    # shellcheck disable=SC2086
    $cc $flags $warnings -o "$output/decode" channel.c decode.c
    # shellcheck disable=SC2086
    $cc $flags $warnings -o "$output/decode_mux" mux.c decode_mux.c
    ;;
fuzz)
    output=${output:-build}
    mkdir -p "$output/seeds" "$output/seeds_mux"
    $cc -std=gnu11 -O1 -g -fsanitize=fuzzer,address,undefined -o "$output/fuzz_channel" channel.c fuzz_channel.c
    $cc -std=gnu11 -O1 -g -fsanitize=fuzzer,address,undefined -o "$output/fuzz_mux" mux.c fuzz_mux.c
    # The first byte says who reads: odd for the agent.
    for hex in corpus/*.hex; do
        name=$(basename "$hex" .hex)
        case $(cat "corpus/$name.json") in *'"to": "agent"'*) reader='\001' ;; *) reader='\002' ;; esac
        { printf '%b' "$reader"; tr -d '\n ' <"$hex" | xxd -r -p; } >"$output/seeds/$name"
    done
    for hex in corpus/mux/*.hex; do
        tr -d '\n ' <"$hex" | xxd -r -p >"$output/seeds_mux/$(basename "$hex" .hex)"
    done
    ;;
esac
