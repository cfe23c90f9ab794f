#!/usr/bin/env python3
"""A model of a published shape from nothing to text: init -> quantize -> eval -> run.

    bench/end_to_end.py build/qiusuo [--preset deepseek-moe-16b] [--original BF16] [--type Q4_K_M]
                        [--vocab FILE] [--text FILE] [--bytes N] [--folder DIR] [--memory 24G]
                        [--wrap COMMAND] [--keep]

Each step is a program of its own, held to --memory by a control group where the system lets one be
made (page cache included), with its time and the most that its own memory has been. The original
does not fit the memory of most machines, so `eval` reads it from disk with half of --memory; the
difference between its perplexity and that of the quantised one is the sanity of the whole chain. Prints
a table in Markdown; exits 1 when a step fails, needs more than --memory, or its result makes no sense.
Needs the disk for both files (MoE 16B: 43 GB; 28 GB with --original Q8_0); --keep leaves them, and steps
whose file is in --folder already are not done again."""
import argparse
import json
import math
import os
import shlex
import shutil
import sys
import tempfile
import time

from group import Group

HERE = os.path.dirname(os.path.abspath(__file__))
GB, GIB = 1e9, 1 << 30
NEAR = 0.05  # nats a token: perplexities of one model in BF16 and in 4 bits and more


def size(text):
    unit = {"M": 1 << 20, "G": GIB}
    return int(float(text[:-1]) * unit[text[-1]]) if text[-1] in unit else int(text)


class Chain:
    def __init__(self, program, memory, wrap):
        self.program, self.memory, self.wrap = os.path.abspath(program), memory, shlex.split(wrap)

    def step(self, name, *args, result=None):
        """Runs the program and prints a row; what `result` makes of its output."""
        t = time.monotonic()
        with Group(self.memory) as group:
            rc, out, err, peak = group.run([*self.wrap, self.program, *args])
        seconds = time.monotonic() - t
        if rc != 0:
            raise SystemExit(f"{name}: {(err.strip().splitlines() or [f'exit {rc}'])[-1]}")
        if peak > self.memory:
            raise SystemExit(f"{name}: {peak / GIB:.1f} GiB of memory were in use")
        value, said = result(out) if result else (None, "")
        print(f"| {name} | {seconds:.0f} | {peak / GIB:.2f} | {said} |", flush=True)
        return value


def perplexity(out):
    """The log-likelihood of a token, in nats, and what to print."""
    o = json.loads(out)
    if not math.isfinite(o["perplexity"]["value"]) or o["tokens"] < 100:
        raise SystemExit(f"eval: {out.strip()}")
    return o["nll"]["value"], f"perplexity {o['perplexity']['value']:.0f} of {o['tokens']} tokens"


def text(out):
    if not out.strip():
        raise SystemExit("run: no text came out")
    return out, f"{len(out)} characters"


def cut(path, n, to):
    """The first n bytes or so of a text, whole lines."""
    with open(path, "rb") as f:
        data = f.read(n)
    with open(to, "wb") as f:
        f.write(data[:data.rfind(b"\n") + 1])


def go(a, folder):
    chain = Chain(a.program, a.memory, a.wrap)
    original = os.path.join(folder, f"{a.preset}-{a.original}.gguf")
    small = os.path.join(folder, f"{a.preset}-{a.type}.gguf")
    sample = os.path.join(folder, f"sample-{os.getpid()}.txt")
    shape = ["--preset", a.preset, *(["--layers", str(a.layers)] if a.layers else [])]
    vocab = ["--vocab", a.vocab] if a.vocab else []
    cut(a.text, a.bytes, sample)
    print("| step | seconds | peak, GiB | result |\n|---|---|---|---|")
    try:
        if not os.path.exists(original):
            chain.step(f"init, {a.original}", "init", *shape, "--type", a.original, *vocab, "-o",
                       original, result=lambda _: (0, f"{os.path.getsize(original) / GB:.1f} GB"))
        if not os.path.exists(small):
            chain.step(f"quantize, {a.type}", "quantize", original, small, "--type", a.type,
                       result=lambda _: (0, f"{os.path.getsize(small) / GB:.1f} GB"))
        half = ["--memory", str(a.memory // 2)]
        before = chain.step(f"eval of the original, --memory {a.memory / 2 / GIB:g}G", "eval", "-m",
                            original, sample, "--json", *half, result=perplexity)
        if not a.keep:
            os.unlink(original)
        after = chain.step(f"eval, {a.type}", "eval", "-m", small, sample, "--json", result=perplexity)
        chain.step("run -n 16", "run", small, "--raw", "-p", "1", "-n", "16", "--temp", "0",
                   "--ignore-eos", result=text)
    finally:
        os.unlink(sample)
        for path in [] if a.keep else [original, small]:
            if os.path.exists(path):
                os.unlink(path)
    if abs(after - before) > NEAR:
        raise SystemExit(f"the quantised model is {after - before:+.3f} nats a token off the original")
    return 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("program")
    p.add_argument("--preset", default="deepseek-moe-16b")
    p.add_argument("--original", default="BF16", help="type that init writes")
    p.add_argument("--type", default="Q4_K_M", help="type that quantize makes of it")
    p.add_argument("--layers", type=int, help="fewer than the preset's, to try this out")
    p.add_argument("--vocab", help="of init: a GGUF or tokenizer.json; without one, init's own")
    p.add_argument("--text", default=os.path.join(HERE, "..", "README.zh.md"))
    p.add_argument("--bytes", type=int, default=1500, help="of the text, about")
    p.add_argument("--folder", help="where the two files are made")
    p.add_argument("--memory", type=size, default=24 * GIB)
    p.add_argument("--wrap", default="", help="run each step under this command")
    p.add_argument("--keep", action="store_true")
    a = p.parse_args()
    folder = a.folder or tempfile.mkdtemp(prefix="qiusuo-end-to-end-")
    try:
        return go(a, folder)
    finally:
        if not a.folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
