#!/bin/sh
# Trains the needle model from nothing and asks it: bench/needle/run.sh PROGRAM FOLDER (docs/long-context.md).
# Stopped, it goes on when it is started again. About 5 million tokens and a thousand questions.
set -e
program=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
data="python3 $here/../../tools/needle_data.py"
mkdir -p "$2"
cd "$2"
texts() { # NAME ARGUMENTS: made once, and whole
    [ -f "$1" ] || { name=$1; shift; $data "$@" >"$name.tmp"; mv "$name.tmp" "$name"; }
}
texts copies.jsonl copies --shortest 24 --longest 64 --tokens 3e6
texts answers.jsonl chats --shortest 50 --longest 128 --tokens 2e6
texts texts.jsonl chats --shortest 64 --longest 2048 --tokens 2e6 --seed 3
texts long.jsonl chats --shortest 4096 --longest 7850 --tokens 7e5 --seed 4
texts longest.jsonl chats --shortest 7000 --longest 7850 --tokens 1.3e5 --seed 9
texts longer.jsonl chats --shortest 7000 --longest 7850 --tokens 3.3e5 --seed 21
texts needles.jsonl needles --longest 8100 --count 100
for stage in 1-copies 2-answers 3-texts 4-yarn 5-long 6-longer; do
    "$program" train "$here/$stage.conf"
done
python3 "$here/../needles.py" "$program" 6-longer/model.gguf --texts needles.jsonl --csv needles.csv \
    --at-least 95
