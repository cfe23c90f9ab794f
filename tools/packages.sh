#!/bin/sh
# Installs the Debian packages that a task needs and that are missing.
# usage: tools/packages.sh build|test|bench|fuzz|arm
#
# Nothing is missing: no output, no apt, milliseconds. Something is missing: says what, then installs
# it as root or with password-less sudo, without asking; otherwise prints the command to run. Optional
# packages only widen what is built: a failure to install those is no error. On a system without
# dpkg nothing is installed; the build itself then says what it lacks.
set -eu

task=${1:-build}
cd "$(dirname "$0")/.."
need='' want=''
case $task in
build)
    # The compiler of $CC is the caller's business.
    [ -n "${CC:-}" ] || need='gcc libc6-dev'
    need="$need meson ninja-build pkgconf libjansson-dev libxxhash-dev"
    want='libedit-dev libhwloc-dev libcurl4-openssl-dev libssl-dev libmicrohttpd-dev
          libjs-katex fonts-katex libjs-highlight.js'
    ;;
test)
    need='libcmocka-dev python3'
    want='mandoc curl openssl chromium chromium-driver python3-selenium fonts-noto-cjk'
    ;;
bench)
    need='python3'
    want='libopenblas-dev linux-perf'
    ;;
fuzz)
    need='clang libclang-rt-14-dev'
    ;;
arm)
    need='meson ninja-build gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user'
    ;;
*)
    echo "packages.sh: unknown task '$task'" >&2
    exit 2
    ;;
esac

command -v dpkg-query >/dev/null 2>&1 || exit 0

missing() {
    for p in "$@"; do
        case $(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null || true) in
        installed) ;;
        *) printf '%s ' "$p" ;;
        esac
    done
}

lack=$(missing $need)
lack_optional=$(missing $want)
[ -n "$lack$lack_optional" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    root=''
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    root='sudo -n'
else
    [ -n "$lack" ] || exit 0
    echo "The $task needs packages that are missing. Install them with:" >&2
    echo "  sudo apt-get install --no-install-recommends $lack$lack_optional" >&2
    exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Without lists, or with lists that name versions no longer there, an update comes first.
install() {
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
        </dev/null >"$log" 2>&1
}
update() {
    [ -z "${updated:-}" ] || return 1
    updated=yes
    $root env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null >>"$log" 2>&1
}

# A build folder that exists looks again for what it could not find before.
look_again() {
    if [ -f build/build.ninja ]; then touch meson.build; fi
}

if [ -n "$lack" ]; then
    echo "Installing what the $task needs: $lack"
    install $lack || { update && install $lack; } || {
        tail -n 20 "$log" >&2
        echo "apt-get could not install: $lack" >&2
        exit 1
    }
    look_again
fi
if [ -n "$lack_optional" ]; then
    # Remembered: an optional package that cannot be had is not tried every time.
    note=build/.optional-$task
    if [ "$(cat "$note" 2>/dev/null || true)" != "$lack_optional" ]; then
        echo "Installing what makes the $task complete: $lack_optional"
        if install $lack_optional || { update && install $lack_optional; }; then
            look_again
        else
            echo "Not available, going on without: $lack_optional"
            mkdir -p build
            printf '%s' "$lack_optional" >"$note"
        fi
    fi
fi
