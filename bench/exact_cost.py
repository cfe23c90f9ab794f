#!/usr/bin/env python3
"""What 8-bit activations cost against float ones (--exact): the table in docs/kernels.md.

    ninja -C build bench/exact_cost && bench/exact_cost.py build [--folder DIR] [--rounds N]

The default model, its matrices encoded anew in each type, on dialogues of its own (questions from
here, answers sampled with seeds): perplexity, KL divergence, log-probabilities. Then random models of
published shapes, two layers each, on random ids: log-probabilities only say something there. They are
made in --folder (1 GB at a time) and deleted. Prints the rows, and writes bench/exact.csv.
"""
import argparse
import os
import random
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT = os.path.join(HERE, "..", "models", "default", "qiusuo-default.gguf")
TYPES = ["F32", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
RANDOM = [("deepseek-llm-7b", "Q4_0"), ("deepseek-llm-7b", "Q4_K"), ("deepseek-moe-16b", "Q4_K"),
          ("deepseek-v2-lite", "Q4_K")]
TITLES = ["春夜", "秋思", "送友人", "山中", "江上", "望月", "早行", "雨后", "登楼", "寒食"]
FORMS = ["五言绝句", "七言绝句", "五言律诗", "七言律诗"]
SENTENCES = ["I like to read books in the evening.", "Where is the station?", "他昨天去了北京。",
             "She has two brothers.", "今天天气很好。", "We will meet again tomorrow.", "你喜欢喝茶吗？",
             "The dog is under the table."]


def call(*args, stdin=""):
    p = subprocess.run(args, input=stdin.encode(), capture_output=True, check=False)
    if p.returncode != 0:
        sys.exit(p.stderr.decode().strip())
    return p.stdout.decode()


def dialogues(program, rounds):
    """Ids of conversations of four turns, a line each."""
    asked = [f"写一首{f}：{t}" for t in TITLES for f in FORMS]
    asked += [f"Translate into {'English' if ord(s[0]) > 127 else 'Chinese'}: {s}" for s in SENTENCES]
    for seed in range(rounds):
        turns = []
        for question in asked:
            answer = call(program, "run", "-m", DEFAULT, "--exact", "--seed", str(seed), "-n", "100",
                          stdin=question).strip()
            turns.append(f"User: {question}\n\nAssistant: {answer}<｜end▁of▁sentence｜>")
        for i in range(0, len(turns), 4):
            yield call(program, "tokenize", "-m", DEFAULT, stdin="".join(turns[i:i + 4]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("build")
    p.add_argument("--folder", default="/tmp", help="where the random models go")
    p.add_argument("--rounds", type=int, default=4, help="answers to each question (4)")
    a = p.parse_args()
    program, cost = os.path.join(a.build, "qiusuo"), os.path.join(a.build, "bench", "exact_cost")
    rows = []

    def run(name, path, types, ids):
        out = call(cost, path, types, stdin=ids).splitlines()
        if not rows:
            rows.append("model," + out[0])
            print(rows[0])
        for line in out[1:]:
            rows.append(f"{name},{line}")
            print(rows[-1], flush=True)

    run("default", DEFAULT, ",".join(TYPES), "".join(dialogues(program, a.rounds)))
    ids = "\n".join(" ".join(str(random.Random(s).randrange(100000)) for s in range(i, i + 256))
                    for i in (0, 1000))
    for preset, type_ in RANDOM:
        path = os.path.join(a.folder, f"exact-{preset}-{type_}.gguf")
        try:
            call(program, "init", "--preset", preset, "--type", type_, "--layers", "2", "-o", path)
            run(f"{preset} {type_}", path, "as-is", ids)
        finally:
            if os.path.exists(path):
                os.unlink(path)
    with open(os.path.join(HERE, "exact.csv"), "w", encoding="utf-8") as f:
        f.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
