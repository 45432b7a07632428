# Run by the far end of --deploy. It comes line by line through `read` and `echo` of whatever `sh` is there, so no line is empty and
# none has a backslash. Before it stand `hash`, `bytes` and `opening`: what the program is known by, how long it is, and how long the
# SESSION_OPEN is that follows.
say() {
    echo
    echo "fastcp-deploy 1 $*"
}
fail() {
    say "$@"
    exit 1
}
# Where a directory is that is there or can be made, whatever links lead to it.
place_of() {
    case $1 in ("${cache:-none}"/*) echo "$1" && return ;; esac
    above=$(cd "${1%/*}/" 2>/dev/null && pwd -P) && echo "${above%/}/${1##*/}"
}
# Whether nobody else can put another thing in place of this directory, or of any above it.
is_safe_above() {
    case $1 in ("${cache:-none}"/*) return 0 ;; esac
    above=$1
    while [ "$above" ]; do
        above=${above%/*}
        set -- $(ls -ldn "$above/")
        [ "$3" = 0 ] || [ "$3" = "$uid" ] || return 1
        case $1 in (d????????[tT]*|d????-??-*) ;; (*) return 1 ;; esac
    done
}
# Whether this is a directory of this user's, no link, that nobody else can write to.
is_own() {
    [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && is_safe_above "$1" || return 1
    case $(ls -ld "$1") in (d????-??-*) ;; (*) return 1 ;; esac
}
# Whether this is a program that can be the far end.
runs() {
    "$1" --session --version </dev/null 2>&1
}
# Finds the program where it was put before.
find_program() {
    for dir do
        [ "$dir" ] && dir=$(place_of "$dir") && is_own "$dir" || continue
        [ -f "$dir/$name" ] && [ ! -L "$dir/$name" ] && [ -O "$dir/$name" ] || continue
        runs "$dir/$name" >/dev/null && return
    done
    return 1
}
# Finds a directory in which programs can be run, and begins a file there.
find_place() {
    for dir do
        [ "$dir" ] && dir=$(place_of "$dir") && is_safe_above "$dir" && mkdir -p "$dir" && is_own "$dir" || continue
        part=$(mktemp "$dir/part.XXXXXX") || continue
        echo "#!/bin/sh" >"$part" && chmod 700 "$part" && "$part" </dev/null && return
        rm -f "$part"
    done 2>/dev/null
    return 1
}
receive() {
    head -c "$bytes" >"$part" || fail unwritten
    [ "$(wc -c <"$part")" -eq "$bytes" ] || fail damaged
    if sum=$(sha256sum <"$part" 2>/dev/null); then
        case $sum in ("$hash "*) ;; (*) fail damaged ;; esac
    fi
    sync "$part" 2>/dev/null || sync
    said=$(runs "$part") || fail broken "$? $said"
    mv -f "$part" "$dir/$name" || fail unwritten
    # What nobody has used for long, and what was broken off.
    find "$dir" -type f -name "fastcp-*" -atime +30 -exec rm -f {} + 2>/dev/null
    find "$dir" -type f -name "part.*" -mtime +1 -exec rm -f {} + 2>/dev/null
}
deploy() {
    mask=$(umask)
    umask 077
    uid=$(id -u)
    name=fastcp-$hash
    case ${XDG_CACHE_HOME-} in (/*) cache=$XDG_CACHE_HOME ;; (*) cache=${HOME:+$HOME/.cache} ;; esac
    set -- "${cache:+$cache/fastcp}" "/var/tmp/fastcp-$uid" "${TMPDIR:-/tmp}/fastcp-$uid" "${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/fastcp}"
    if find_program "$@"; then
        say have
    else
        # The client sends its SESSION_OPEN again, behind the program.
        dd bs=1 count="$opening" >/dev/null 2>&1
        trap 'rm -f "$part"' EXIT
        trap 'exit 1' HUP INT PIPE TERM
        find_place "$@" || fail none "$*"
        say need "$(uname -m)"
        receive
        say done
    fi
    umask "$mask"
    exec "$dir/$name" --session
}
deploy
