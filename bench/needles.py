#!/usr/bin/env python3
"""How many needles a model finds, by depth: bench/needles.py build/qiusuo MODEL --texts needles.jsonl

The texts are those of `tools/needle_data.py needles`. Each is one conversation with `qiusuo chat`: the
text with a question, then question after question, one fact from each tenth of the text, in random
order, answered greedily. An answer counts when it is the key with its value and nothing else. Prints a
table; --csv FILE also writes text, depth, key, value and answer of every question.
"""
import argparse
import csv
import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor


def converse(a, text, order):
    lines = [text["asks"][d]["key"] for d in order]
    lines[0] = f"{text['text']} ? {lines[0]}"
    options = ["-c", str(a.ctx), "--temp", "0", "-n", "8", "-t", "1"]
    if a.rope_scaling:
        options += ["--rope-scaling", a.rope_scaling]
    p = subprocess.run([a.program, "chat", a.model, *options], input="\n".join(lines) + "\n",
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if p.returncode != 0:
        sys.exit(f"{a.program} chat ended with {p.returncode}: {p.stderr.strip()}")
    answers = [s.strip() for s in p.stdout.splitlines() if s.strip()]
    return answers + [""] * (len(lines) - len(answers))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("program")
    p.add_argument("model")
    p.add_argument("--texts", required=True)
    p.add_argument("--ctx", type=int, default=8192)
    p.add_argument("--count", type=int, default=0, help="texts to read (default: all)")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--rope-scaling")
    p.add_argument("--at-least", type=int, default=0, help="exit code 1 when a depth has fewer")
    p.add_argument("--csv")
    a = p.parse_args()
    with open(a.texts, encoding="utf-8") as f:
        texts = [json.loads(line) for line in f][:a.count or None]
    rng = random.Random(1)
    orders = [rng.sample(range(10), 10) for _ in texts]
    with ThreadPoolExecutor(a.jobs) as pool:
        answers = list(pool.map(lambda i: converse(a, texts[i], orders[i]), range(len(texts))))
    found, rows = [0] * 10, []
    for i, (text, order, said) in enumerate(zip(texts, orders, answers)):
        for d, answer in zip(order, said):
            ask = text["asks"][d]
            found[d] += answer == f"{ask['key']} {ask['value']}"
            rows.append((i, d, ask["key"], ask["value"], answer))
    print("depth  " + "".join(f"{10 * d:>3}-{10 * d + 10}%" for d in range(10)))
    print(f"of {len(texts):<4}" + "".join(f"{n:>7}" for n in found))
    if a.csv:
        with open(a.csv, "w", encoding="utf-8", newline="") as f:
            w = csv.writer(f)
            w.writerow(("text", "depth", "key", "value", "answer"))
            w.writerows(rows)
    sys.exit(min(found) < a.at_least)


if __name__ == "__main__":
    main()
