#!/bin/sh
# Fuzzes every target for a number of seconds. usage: tools/fuzz.sh NINJA SECONDS
# Crashing inputs land in build-fuzz/crashes; once fixed they belong in fuzz/corpus/<target>/.
set -eu
ninja=$1 seconds=$2
cd "$(dirname "$0")/.."
if [ ! -f build-fuzz/build.ninja ]; then
    CC=clang meson setup build-fuzz -Dfuzz=true -Dqs_debug=true -Doptimization=1 \
        -Db_sanitize=address,undefined -Db_lundef=false >/dev/null
fi
targets=$("$ninja" -C build-fuzz -t targets all | sed -n 's/^\(fuzz\/fuzz_[a-z0-9_]*\): .*/\1/p')
[ -n "$targets" ] || { echo "no fuzz targets"; exit 1; }
"$ninja" -C build-fuzz --quiet $targets
mkdir -p build-fuzz/crashes
failed=0
for t in $targets; do
    name=${t#fuzz/fuzz_}
    mkdir -p "build-fuzz/found/$name"
    echo "fuzz $name: $seconds s"
    "build-fuzz/$t" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="build-fuzz/crashes/$name-" "build-fuzz/found/$name" "fuzz/corpus/$name" \
        >"build-fuzz/$name.log" 2>&1 || { failed=1; tail -n 40 "build-fuzz/$name.log"; }
    sed -n 's/^stat::number_of_executed_units: */  executions: /p' "build-fuzz/$name.log"
done
exit $failed
