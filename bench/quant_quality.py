#!/usr/bin/env python3
"""How good each type's encoder is: `qiusuo quantize` beside llama.cpp's quantiser, both from one F16 file.

    bench/quant_quality.py build/qiusuo --text TEXT [--model FILE] [--types A,B]
                           [--folder DIR] [--wrap COMMAND] [--csv FILE]

For every type two files, all matrices in that type (the other program's `pure`), are evaluated on TEXT:
perplexity, and the Kullback-Leibler divergence from F16. The last column is the difference of the two
files' mean log-likelihoods, ours less theirs, with its standard error (token by token): 0 or below is no
worse. Needs llama-cpp-python; without it exits 77. --wrap runs every evaluation under COMMAND. Prints a
Markdown table; the exit code is 1 when a type is worse by more than two standard errors.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT = os.path.join(HERE, "..", "models", "default", "qiusuo-default.gguf")
# the other program's number of the file type, and of the type
TYPES = {"Q8_0": (7, 8), "Q6_K": (18, 14), "Q5_K": (16, 13), "Q5_1": (9, 7), "Q5_0": (8, 6), "Q4_K": (14, 12),
         "IQ4_NL": (25, 20), "IQ4_XS": (30, 23), "Q4_1": (3, 3), "Q4_0": (2, 2), "Q3_K": (11, 11),
         "Q2_K": (10, 10), "MXFP4": (38, 39)}
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


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    a.add_argument("program")
    a.add_argument("--text", required=True)
    a.add_argument("--model", default=DEFAULT)
    a.add_argument("--types", default=",".join(TYPES))
    a.add_argument("--folder", default="/tmp")
    a.add_argument("--wrap", default="")
    a.add_argument("--csv")
    o = a.parse_args()
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        print("skipped: llama-cpp-python is not installed")
        return 77
    wrap = shlex.split(o.wrap)
    base, ours, theirs = (os.path.join(o.folder, f"quality-{n}.gguf") for n in ("f16", "ours", "theirs"))

    def evaluate(path, against):
        return json.loads(run(*wrap, o.program, "eval", "-m", path, "--against", against, o.text, "--json"))

    rows, worse = [], 0
    try:
        run(o.program, "quantize", o.model, base, "--type", "F16")
        plain = json.loads(run(*wrap, o.program, "eval", "-m", base, o.text, "--json"))
        print(f"F16: perplexity {plain['perplexity']['value']:.2f} on {plain['tokens']} tokens\n")
        print("| type | perplexity, ours | theirs | KL from F16, ours | theirs | ln-likelihood, ours less theirs |")
        print("|---|---|---|---|---|---|", flush=True)
        for t in o.types.split(","):
            run(o.program, "quantize", base, ours, "--type", t)
            run(sys.executable, "-c", OTHER, base, theirs, *map(str, TYPES[t]))
            x, y = tensor_types(ours), tensor_types(theirs)
            differ = sorted(n for n in x if x[n] != y.get(n))
            if differ:
                print(f"note: {t}: types differ, {differ[0]} {x[differ[0]]} and {y.get(differ[0])}",
                      file=sys.stderr)
            p, q, d = evaluate(ours, base), evaluate(theirs, base), evaluate(ours, theirs)
            delta = d["against"]["nll_difference"]
            rows.append([t, p["perplexity"]["value"], q["perplexity"]["value"], p["against"]["kl"]["value"],
                         q["against"]["kl"]["value"], delta["value"], delta["se"]])
            worse += delta["value"] > 2 * delta["se"]
            print("| %s | %.2f | %.2f | %.5f | %.5f | %+.4f ± %.4f |" % tuple(rows[-1]), flush=True)
    finally:
        for path in (base, ours, theirs):
            if os.path.exists(path):
                os.unlink(path)
    if o.csv:
        with open(o.csv, "w", encoding="utf-8") as f:
            f.write("type,ppl_ours,ppl_theirs,kl_ours,kl_theirs,nll_difference,se\n")
            f.writelines(",".join(str(v) for v in r) + "\n" for r in rows)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
