#!/bin/sh
# Trains the dense model on which quantisers are judged beside the default one, and judges them:
# bench/dense/run.sh PROGRAM FOLDER POEMS PAIRS PLAYS (docs/quantisation.md; the sources: texts.py).
# Stopped, it goes on when it is started again. The judging needs llama-cpp-python ($PYTHON).
set -e
program=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
poems=$(realpath "$3") pairs=$(realpath "$4") plays=$(realpath "$5")
python=${PYTHON:-python3}
mkdir -p "$2"
cd "$2"
[ -f data/chats.jsonl ] ||
    "$python" "$here/texts.py" --poems "$poems" --pairs "$pairs" --plays "$plays" --out data
"$program" train "$here/dense.conf"
judge() { # CSV ARGUMENTS: an exit code of 1 says that some type is worse
    csv=$1
    shift
    "$python" "$@" --folder . --csv "$csv" || [ $? = 1 ]
}
quality=$here/../quant_quality.py
text="--stride 480 --text data/poems.txt --text data/pairs.txt"
judge dense.csv "$quality" "$program" --model dense/model.gguf $text --text data/plays.txt
judge default.csv "$quality" "$program" $text
judge answers.csv "$here/../quant_answers.py" "$program" --chats data/chats.jsonl
