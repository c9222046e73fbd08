# Sourced: what a fresh root takes over from this machine, so that its apt, pip and npm reach what
# this machine's reach. Paths and variables are copied as they are found; nothing is named here.
# shellcheck shell=sh

# The variables that package clients and TLS libraries read.
client_variables() {
    env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' |
        grep -E '^(PIP|UV|npm_config|NPM_CONFIG)_|(_proxy|_PROXY)$|CERT|CA_BUNDLE|CAINFO' || true
}

# The local files and folders that the clients' settings name, one a line. Of a package index the
# folder above is meant, for its pages point beside themselves.
named_paths() {
    {
        cat /etc/pip.conf "$HOME/.pip/pip.conf" "$HOME/.config/pip/pip.conf" 2>/dev/null || true
        for variable in $(client_variables); do eval "printf '%s\n' \"\$$variable\""; done
    } | tr -s ' ,=' '\n' | sed -n 's|^file://||; s|/simple/*$||; /^\/./p' | sort -u |
        while read -r path; do
            [ ! -e "$path" ] || printf '%s\n' "$path"
        done
}

# Folders are mounted when the root is entered; these belong to the system and are there already.
named_folders() {
    named_paths | while read -r path; do
        case $path in
        /etc/* | /usr/*) ;;
        *) [ ! -d "$path" ] || printf '%s\n' "$path" ;;
        esac
    done
}

# take PATH ROOT [AS]: copy a file or folder to the same path below ROOT, or to AS.
take() {
    [ -e "$1" ] || return 0
    target=$2${3:-$1}
    mkdir -p "$(dirname "$target")"
    rm -rf "$target"
    cp -RLp "$1" "$target"
}

take_over_settings() {
    for path in /etc/apt/auth.conf.d /etc/apt/keyrings /etc/apt/trusted.gpg.d /usr/share/keyrings \
        /usr/local/share/ca-certificates /etc/pip.conf /etc/npmrc /usr/etc/npmrc \
        /etc/resolv.conf /etc/hosts; do
        take "$path" "$1"
    done
    for path in .npmrc .pip .config/pip; do
        take "$HOME/$path" "$1" "/root/$path"
    done
    chroot "$1" update-ca-certificates >/dev/null 2>&1
    named_paths | while read -r path; do
        [ ! -f "$path" ] || take "$path" "$1"
    done
}
