#!/usr/bin/env python3
"""How good each type's encoder is: `qiusuo quantize` beside llama.cpp's quantiser, both from one F16 file.

    bench/quant_quality.py build/qiusuo --text TEXT [--text TEXT] [--model FILE] [--types A,B]
                           [--no-kl] [--stride N] [--orders N] [--folder DIR] [--wrap COMMAND]
                           [--csv FILE]

For every type two files, all matrices in that type (the other program's `pure`), are evaluated on the
texts: perplexity, and the Kullback-Leibler divergence from F16. The last columns are the difference of
the mean negative log-likelihoods, ours less theirs, on every text and on all together, with standard
errors (token by token): 0 or below is no worse. Needs llama-cpp-python; without it exits 77. --no-kl
leaves the divergences out, two thirds of the work. --wrap runs every evaluation under COMMAND. Prints a
Markdown table; the exit code is 1 when a type is worse by more than two standard errors.

--orders N asks how much of a difference is the chance of rounding: the channels of the residual stream
are put into N orders drawn at random. That is the same model, but other weights share a block, so every
order is rounded anew, by both. Prints mean and standard deviation over the orders, without divergences;
the exit code is then 1 when a type's mean is worse by more than two standard errors of the mean. For
models with plain attention (llama, deepseek). Needs numpy and gguf.
"""
import argparse
import contextlib
import csv
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT = os.path.join(HERE, "..", "models", "default", "qiusuo-default.gguf")
# the other program's number of the file type, and of the type
TYPES = {"Q8_0": (7, 8), "Q6_K": (18, 14), "Q5_K": (16, 13), "Q5_1": (9, 7), "Q5_0": (8, 6), "Q4_K": (14, 12),
         "IQ4_NL": (25, 20), "IQ4_XS": (30, 23), "Q4_1": (3, 3), "Q4_0": (2, 2), "Q3_K": (11, 11),
         "Q2_K": (10, 10), "MXFP4": (38, 39)}
# matrices whose rows are channels of the residual stream, and tensors whose columns are
WRITES = re.compile(r"attn_output\.|ffn_down(_exps|_shexp)?\.")
READS = re.compile(r"token_embd\.|output\.|(output|attn|ffn)_norm\.|attn_[qkv]\."
                   r"|ffn_(gate|up)(_inp|_exps|_shexp)?\.")
OTHER = """
import ctypes, sys, llama_cpp
src, dst, file_type, kind = sys.argv[1:]
p = llama_cpp.llama_model_quantize_default_params()
p.ftype, p.nthread, p.pure = int(file_type), 2, True
p.token_embedding_type = p.output_tensor_type = int(kind)
sys.exit(llama_cpp.llama_model_quantize(src.encode(), dst.encode(), ctypes.byref(p)))
"""


def run(*args):
    p = subprocess.run(args, capture_output=True, check=False)
    if p.returncode != 0:
        raise RuntimeError(p.stderr.decode()[-400:].strip() or f"exit {p.returncode}")
    return p.stdout.decode()


def tensor_types(path):
    from gguf import GGUFReader
    return {t.name: t.tensor_type.name for t in GGUFReader(path).tensors}


def reorder(path, seed):
    """Puts the channels of an F16 file's residual stream into the seed's order, in place."""
    import numpy as np
    from gguf import GGUFReader
    tensors = GGUFReader(path, "r+").tensors
    width = next(t for t in tensors if t.name == "token_embd.weight").data.shape[-1]
    order = np.random.default_rng(seed).permutation(width)
    for t in tensors:
        name = t.name.split(".", 2)[2] if t.name.startswith("blk.") else t.name
        if WRITES.match(name):
            t.data[:] = t.data[..., order, :]
        elif READS.match(name):
            t.data[:] = t.data[..., order]
        else:
            raise RuntimeError(f"{t.name}: unknown whether it has to follow the channels' order")


def pooled(parts, key):
    """Mean and standard error over several texts: [(tokens, {key: {"value", "se"}})]."""
    total = sum(n for n, _ in parts)
    mean = sum(n * r[key]["value"] for n, r in parts) / total
    return mean, math.sqrt(sum((n * r[key]["se"]) ** 2 for n, r in parts)) / total


def pair(number):
    return "%+.4f ± %.4f" % number


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    a.add_argument("program")
    a.add_argument("--text", required=True, action="append")
    a.add_argument("--model", default=DEFAULT)
    a.add_argument("--types", default=",".join(TYPES))
    a.add_argument("--no-kl", action="store_true")
    a.add_argument("--stride", default="0")
    a.add_argument("--orders", type=int, default=0)
    a.add_argument("--folder", default="/tmp")
    a.add_argument("--wrap", default="")
    a.add_argument("--csv")
    return a.parse_args()


class Judge:
    """Evaluates files on the texts; every report is [(tokens, report)], one a text."""
    def __init__(self, o):
        self.texts, self.options = o.text, ["--stride", o.stride, "--json"]
        self.command = [*shlex.split(o.wrap), o.program, "eval"]

    def report(self, path, against=None):
        other = ["--against", against] if against else []
        reports = [json.loads(run(*self.command, "-m", path, *other, t, *self.options))
                   for t in self.texts]
        return [(r["tokens"], {**r, **r.get("against", {})} if against else r) for r in reports]

    def perplexity(self, report):
        return math.exp(pooled(report, "nll")[0])


def compare(o, judge, base, ours, theirs, t):
    """One type: a row of the table, and of the CSV file."""
    run(o.program, "quantize", base, ours, "--type", t)
    run(sys.executable, "-c", OTHER, base, theirs, *map(str, TYPES[t]))
    x, y = tensor_types(ours), tensor_types(theirs)
    differ = sorted(n for n in x if x[n] != y.get(n))
    if differ:
        print(f"note: {t}: types differ, {differ[0]} {x[differ[0]]} and {y.get(differ[0])}",
              file=sys.stderr)
    d = judge.report(ours, theirs)
    row = {"type": t, "ppl_theirs": judge.perplexity(d)}
    nll, (delta, se) = [], pooled(d, "nll_difference")
    row["ppl_ours"] = row["ppl_theirs"] * math.exp(delta)
    if not o.no_kl:
        row["kl_ours"] = pooled(judge.report(ours, base), "kl")[0]
        row["kl_theirs"] = pooled(judge.report(theirs, base), "kl")[0]
    for text, (_, r) in zip(o.text, d):
        n = r["nll_difference"]
        nll.append((n["value"], n["se"]))
        row["difference_" + name_of(text)], row["se_" + name_of(text)] = nll[-1]
    row["difference"], row["se"] = delta, se
    return row


def name_of(text):
    return os.path.splitext(os.path.basename(text))[0]


def cells(o, r):
    out = [r["type"], "%.2f" % r["ppl_ours"], "%.2f" % r["ppl_theirs"]]
    if not o.no_kl:
        out += ["%.5f" % r["kl_ours"], "%.5f" % r["kl_theirs"]]
    if len(o.text) > 1:
        out += [pair((r["difference_" + name_of(t)], r["se_" + name_of(t)])) for t in o.text]
    return out + [pair((r["difference"], r["se"]))]


def print_row(fields):
    print("| " + " | ".join(fields) + " |", flush=True)


def print_head(fields):
    print_row(fields)
    print("|" + "---|" * len(fields), flush=True)


def one_by_one(o, judge, files):
    """Prints the table of all types; their rows."""
    head = ["type", "perplexity, ours", "theirs"]
    head += [] if o.no_kl else ["KL from F16, ours", "theirs"]
    head += ["nats, " + name_of(t) for t in o.text] * (len(o.text) > 1) + ["nats, ours less theirs"]
    print_head(head)
    rows = []
    for t in o.types.split(","):
        rows.append(compare(o, judge, *files, t))
        print_row(cells(o, rows[-1]))
    return rows


def over_orders(o, judge, plain, files):
    """Prints every type's losses over --orders; (rows, is a type's mean worse). plain: nats of F16."""
    rows = []
    for seed in range(1, o.orders + 1):
        run(o.program, "quantize", o.model, files[0], "--type", "F16")
        reorder(files[0], seed)
        for t in o.types.split(","):
            rows.append({"order": seed, **compare(o, judge, *files, t)})
            print(f"order {seed}, {t}: {rows[-1]['difference']:+.4f}", file=sys.stderr, flush=True)
    print_head(["type", "nats above F16, ours", "theirs", "ours less theirs, each order",
                "mean", "deviation"])
    worse = False
    for t in o.types.split(","):
        of_type = [r for r in rows if r["type"] == t]
        ours, theirs = ([math.log(r[k]) - plain for r in of_type] for k in ("ppl_ours", "ppl_theirs"))
        delta = [r["difference"] for r in of_type]
        spread = statistics.stdev(delta) if len(delta) > 1 else 0.0
        mean = statistics.mean(delta), spread / math.sqrt(len(delta))
        worse = worse or mean[0] > 2 * mean[1]
        print_row([t, spread_of(ours), spread_of(theirs), " ".join("%+.4f" % d for d in delta),
                   pair(mean), "%.4f" % spread])
    return rows, worse


def spread_of(numbers):
    """Mean and standard deviation, in words."""
    return "%+.4f, deviation %.4f" % (statistics.mean(numbers),
                                      statistics.stdev(numbers) if len(numbers) > 1 else 0.0)


@contextlib.contextmanager
def three_files(folder, name):
    """Paths of a F16 file, ours and theirs, which are removed at the end."""
    paths = [os.path.join(folder, f"{name}-{n}.gguf") for n in ("f16", "ours", "theirs")]
    try:
        yield paths
    finally:
        for path in paths:
            if os.path.exists(path):
                os.unlink(path)


def main():
    o = arguments()
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        print("skipped: llama-cpp-python is not installed")
        return 77
    judge = Judge(o)
    with three_files(o.folder, "quality") as (base, ours, theirs):
        run(o.program, "quantize", o.model, base, "--type", "F16")
        plain = judge.report(base)
        each = ", ".join(f"{name_of(t)} {math.exp(r['nll']['value']):.2f} of {n}"
                         for t, (n, r) in zip(o.text, plain))
        print(f"F16: perplexity {judge.perplexity(plain):.2f} (of so many tokens: {each})\n")
        if o.orders:
            o.no_kl = True
            rows, worse = over_orders(o, judge, pooled(plain, "nll")[0], (base, ours, theirs))
        else:
            rows = one_by_one(o, judge, (base, ours, theirs))
            worse = any(r["difference"] > 2 * r["se"] for r in rows)
    if o.csv:
        with open(o.csv, "w", encoding="utf-8", newline="") as f:
            w = csv.DictWriter(f, rows[0])
            w.writeheader()
            w.writerows(rows)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
