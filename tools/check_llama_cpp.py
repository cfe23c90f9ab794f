#!/usr/bin/env python3
"""Holds models that `qiusuo init` writes to another implementation: llama-cpp-python must load them
and give the same log-probabilities as `qiusuo score`.

    tools/check_llama_cpp.py build/qiusuo [--vocab FILE]... [--presets A,B] [--types T,U] [--layers N]
                                          [--keep FOLDER]

Needs llama-cpp-python; without it exits 77 (skipped). Prints one line a model; exits 1 when one does
not load, or differs by more than its type allows.

Tolerance: mean absolute difference over the ten likeliest ids at 32 positions, both caches in F32,
weights of a deviation that gives logits of deviation 1. Where the numbers come from: an F32 model
differs by the order of sums only (measured 1e-6). ggml rounds activations to the weights' type before
a product, which this program does not for F16 and BF16: 2^-11 / sqrt(3) = 3e-4 and 2^-8 / sqrt(3) =
2e-3 of a product's deviation, times about 2 for the products one after another. With quantised
weights both round activations to 8 bits: ggml with one scale for 32 values (step 2.1 / 127 deviations,
error step / sqrt(12) = 5e-3), we with one for up to 256 (6e-3); together 8e-3 a product, 1.6e-2
through the layers. Allowed is about half as much again.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

TOLERANCE = {"F32": 1e-5, "F16": 1e-3, "BF16": 6e-3, "Q8_0": 2.4e-2, "Q4_0": 2.4e-2}


def ours(program, path, ids):
    out = subprocess.run([program, "score", "-m", path, "--ids", " ".join(map(str, ids)), "--top",
                          "10", "--kv", "f32"], check=True, stdout=subprocess.PIPE).stdout
    return [json.loads(line)["top"] for line in out.splitlines()]


def compare(program, path, llama_cpp):
    """Mean absolute difference of log-probabilities; raises when the model does not load."""
    m = llama_cpp.Llama(model_path=path, n_ctx=64, n_batch=64, logits_all=True, verbose=False,
                        n_threads=2, type_k=0, type_v=0)  # 0: F32
    n_vocab = m.n_vocab()
    ids = [(7 + 37 * i) % n_vocab for i in range(32)]
    top = ours(program, path, ids)
    m.eval(ids)
    total, n = 0.0, 0
    for pos, likeliest in enumerate(top):
        row = m.scores[pos].astype("float64")
        peak = row.max()
        log_sum = peak + math.log(sum(math.exp(x - peak) for x in row))
        for token, logprob in likeliest:
            total += abs(float(row[token]) - log_sum - logprob)
            n += 1
    m.close()
    return total / n


def main():
    a = argparse.ArgumentParser()
    a.add_argument("program")
    a.add_argument("--vocab", action="append", default=[])
    a.add_argument("--presets", default="dense-tiny,moe-tiny")
    a.add_argument("--types", default=",".join(TOLERANCE))
    a.add_argument("--layers", default="2")
    a.add_argument("--std", default="0.06")
    a.add_argument("--keep")
    o = a.parse_args()
    try:
        import llama_cpp
    except ImportError:
        print("skipped: llama-cpp-python is not installed")
        return 77
    failed = 0
    with tempfile.TemporaryDirectory() as temp:
        folder = o.keep or temp
        for preset in o.presets.split(","):
            for t in o.types.split(","):
                for vocab in [None] + o.vocab:
                    path = os.path.join(folder, "model.gguf")
                    cmd = [o.program, "init", "--preset", preset, "--type", t, "--layers", o.layers,
                           "--std", o.std, "-o", path]
                    subprocess.run(cmd + (["--vocab", vocab] if vocab else []), check=True)
                    name = os.path.basename(vocab) if vocab else "no vocabulary"
                    try:
                        d = compare(o.program, path, llama_cpp)
                        good = d <= TOLERANCE[t]
                        text = f"mean difference {d:.2e}, allowed {TOLERANCE[t]:.1e}"
                    except Exception as e:  # whatever the other program throws is a failure to load
                        good, text = False, f"does not load: {e}"
                    print(f"{'ok  ' if good else 'FAIL'} {preset} {t} ({name}): {text}", flush=True)
                    failed += not good
                    os.remove(path)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
