#!/usr/bin/env python3
"""How far training with bf16 products parts from float32: bench/bf16_curve.py build/qiusuo

Preset tiny, 200 steps of 512 tokens on the text of tests/e2e/test_train_bf16.py, at the maximum rates 1e-3
and 3e-3 and three seeds each; beside it two float32 runs that only add in another order (CPU levels
avx512 and avx2). A curve is the mean over ten steps; printed is its largest relative difference.
Needs a CPU with bf16. A minute or two.
"""
import csv
import os
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def text_of_the_test(path):
    sys.argv = ["bf16_curve", sys.argv[1], ""]
    sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
    from test_train_bf16 import write_text  # the one place that makes it
    write_text(path)


def curve(program, folder, text, rate, seed, precision, isa):
    out = os.path.join(folder, f"{rate}-{seed}-{precision}-{isa}")
    settings = [f"train.precision={precision}", "train.batch_tokens=512", f"train.lr={rate}",
                "model.context=64", "checkpoint.every_steps=1000", f"run.seed={seed}"]
    cmd = [program, "train", text, "--out", out, "--steps", "200", "--isa", isa]
    for s in settings:
        cmd += ["--set", s]
    subprocess.run(cmd, check=True, stderr=subprocess.DEVNULL)
    with open(os.path.join(out, "log.csv"), newline="", encoding="utf-8") as f:
        x = [float(r["loss"]) for r in csv.DictReader(f)]
    return [sum(x[i:i + 10]) / 10 for i in range(len(x) - 9)]


def parts(a, b):
    return 100 * max(abs(y / x - 1) for x, y in zip(a, b))


def main():
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="qiusuo-bf16-") as folder:
        text = os.path.join(folder, "words.txt")
        text_of_the_test(text)
        for rate in ("1e-3", "3e-3"):
            for seed in (1, 3, 5):
                exact = curve(program, folder, text, rate, seed, "f32", "avx512")
                bf16 = curve(program, folder, text, rate, seed, "bf16", "auto")
                order = curve(program, folder, text, rate, seed, "f32", "avx2")
                print(f"lr {rate}, seed {seed}: bf16 {parts(exact, bf16):.3f} %, float32 in another "
                      f"order {parts(exact, order):.3f} %", flush=True)


if __name__ == "__main__":
    main()
