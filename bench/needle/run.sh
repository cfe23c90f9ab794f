#!/bin/sh
# Trains the needle model from nothing and asks it: bench/needle/run.sh PROGRAM FOLDER (docs/long-context.md).
# Stopped, it goes on when it is started again. About 6 million tokens and two thousand questions.
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
texts begin.jsonl chats --shortest 7400 --longest 7850 --tokens 4e5 --seed 33 --early 0.6
texts needles.jsonl needles --longest 8100 --count 100
texts needles-51.jsonl needles --longest 8100 --count 100 --seed 51
for stage in 1-copies 2-answers 3-texts 4-yarn 5-long 6-longer 7-begin; do
    "$program" train "$here/$stage.conf"
done
for set in needles needles-51; do
    python3 "$here/../needles.py" "$program" 7-begin/model.gguf --texts $set.jsonl --csv $set.csv \
        --at-least 95
done
