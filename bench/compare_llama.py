#!/usr/bin/env python3
"""Runs this program and llama.cpp (llama-cpp-python) on the same GGUF files in alternation.

    QIUSUO_REF_PYTHON=PYTHON bench/compare_llama.py build/qiusuo FILE... [options]

QIUSUO_REF_PYTHON names a Python that has llama-cpp-python; without it the running one is tried. Each
pair is one measurement of ours and one of llama.cpp's, each in a process of its own, with the same
number of threads, ours first in even pairs and second in odd ones. A test runs once unmeasured before
it counts. Both take an F16 cache, 512 rows a step and random ids; both ask for the logits of the last
position only. Flash attention of llama.cpp is on where it chooses so itself.

Printed, and written to --csv: the medians of both, the median of the ratios of the pairs, and the
interval that holds the middle of the ratios (smallest and largest when there are fewer than seven).
"""
import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time

COLUMNS = ["model", "bytes", "test", "n", "depth", "threads", "pairs", "ours_tok_s", "llama_tok_s",
           "ratio", "ratio_low", "ratio_high", "read_gb_s", "llama_version"]
TESTS = "prefill:256,prefill:512,decode:32,prefill:256@4096,decode:16@4096"
DEFAULT_PAIRS = 7


# ---- llama.cpp, inside the other Python -----------------------------------------------------------

class Llama:
    def __init__(self, path, threads, n_ctx):
        import ctypes  # noqa: the worker's own imports
        import llama_cpp
        self.c, self.l = ctypes, llama_cpp
        self.quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        mp = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), mp)
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {path}")
        cp = llama_cpp.llama_context_default_params()
        cp.n_ctx, cp.n_batch, cp.n_ubatch = n_ctx, 512, 512
        cp.n_threads = cp.n_threads_batch = threads
        self.ctx = llama_cpp.llama_init_from_model(self.model, cp)
        if not self.ctx:
            raise SystemExit(f"llama.cpp makes no context for {path}")
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)
        self.memory = llama_cpp.llama_get_memory(self.ctx)
        self.seed = 1

    def feed(self, start, n):
        """n positions from start on, logits of the last."""
        for at in range(0, n, 512):
            rows = min(512, n - at)
            b = self.batch
            b.n_tokens = rows
            for i in range(rows):
                self.seed = self.seed * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
                b.token[i] = (self.seed >> 33) % self.vocab
                b.pos[i] = start + at + i
                b.n_seq_id[i] = 1
                b.seq_id[i][0] = 0
                b.logits[i] = at + i == n - 1
            if self.l.llama_decode(self.ctx, b) != 0:
                raise SystemExit("llama.cpp fails to decode")
        self.l.llama_synchronize(self.ctx)

    def cut(self, n):
        self.l.llama_memory_seq_rm(self.memory, 0, n, -1)

    def prefill(self, n, depth):
        self.feed(depth, n)
        self.cut(depth)
        t = time.perf_counter()
        self.feed(depth, n)
        t = time.perf_counter() - t
        self.cut(depth)
        return n / t

    def decode(self, n, depth):
        for i in range(4):
            self.feed(depth + i, 1)
        self.cut(depth)
        t = time.perf_counter()
        for i in range(n):
            self.feed(depth + i, 1)
        t = time.perf_counter() - t
        self.cut(depth)
        return n / t


def worker(path, threads, tests):
    """One process: every test of one depth after another; prints {"test": tokens a second}."""
    most = max(t["depth"] + t["n"] for t in tests) + 8
    m = Llama(path, threads, (most + 255) // 256 * 256)
    out, filled = {}, 0
    for t in sorted(tests, key=lambda t: t["depth"]):
        if t["depth"] > filled:
            m.feed(filled, t["depth"] - filled)
            filled = t["depth"]
        out[t["name"]] = getattr(m, t["kind"])(t["n"], t["depth"])
    out["version"] = sys.modules["llama_cpp"].__version__
    print(json.dumps(out))


# ---- both ------------------------------------------------------------------------------------------

def parse_tests(text):
    tests = []
    for name in text.split(","):
        kind, _, rest = name.partition(":")
        n, _, depth = rest.partition("@")
        if kind not in ("prefill", "decode") or not n.isdigit():
            raise SystemExit(f"a test is prefill:N, decode:N, prefill:N@DEPTH or decode:N@DEPTH, not {name}")
        tests.append({"name": name, "kind": kind, "n": int(n), "depth": int(depth or 0)})
    return tests


def run_llama(python, path, threads, tests):
    p = subprocess.run([python, os.path.abspath(__file__), "--worker", path, str(threads),
                        json.dumps(tests)], capture_output=True, text=True, check=False)
    if p.returncode != 0:
        raise SystemExit(f"llama.cpp on {path}: {p.stderr.strip()[-400:]}")
    return json.loads(p.stdout)


def ours_groups(tests):
    """Tests that one call of bench can run together: at most one prefill and decode, one depth."""
    groups = []
    for t in tests:
        for g in groups:
            if g["depth"] == t["depth"] and t["kind"] not in g:
                g[t["kind"]] = t
                break
        else:
            groups.append({"depth": t["depth"], t["kind"]: t})
    return groups


def run_ours(program, path, threads, tests):
    out = {}
    for g in ours_groups(tests):
        n = {k: g[k]["n"] if k in g else 0 for k in ("prefill", "decode")}
        p = subprocess.run([program, "bench", "-m", path, "-p", str(n["prefill"]), "-n",
                            str(n["decode"]), "-d", str(g["depth"]), "-t", str(threads), "-r", "1",
                            "--no-train", "--json"], capture_output=True, text=True, check=False)
        if p.returncode != 0:
            raise SystemExit(f"{program} on {path}: {p.stderr.strip()[-400:]}")
        o = json.loads(p.stdout)
        for r in o["runs"]:
            out[g[r["test"]]["name"]] = r["tok_s"]
            out.setdefault("read", []).append(r["read_gb_s"])
    return out


def interval(ratios):
    x = sorted(ratios)
    return (x[1], x[-2]) if len(x) >= 7 else (x[0], x[-1])


def compare(a, path):
    tests = parse_tests(a.tests)
    ours, theirs, read, version = [], [], [], ""
    for i in range(a.pairs):
        order = ("ours", "llama") if i % 2 == 0 else ("llama", "ours")
        for who in order:
            if who == "ours":
                r = run_ours(a.program, path, a.threads, tests)
                read += r.pop("read")
                ours.append(r)
            else:
                r = run_llama(a.python, path, a.threads, tests)
                version = r.pop("version")
                theirs.append(r)
        print(f"  pair {i + 1}: " + "  ".join(
            f"{t['name']} {ours[-1][t['name']]:.1f}/{theirs[-1][t['name']]:.1f}" for t in tests),
            file=sys.stderr, flush=True)
    rows = []
    for t in tests:
        x, y = [o[t["name"]] for o in ours], [o[t["name"]] for o in theirs]
        ratios = [p / q for p, q in zip(x, y)]
        low, high = interval(ratios)
        rows.append({"model": os.path.basename(path).removesuffix(".gguf"),
                     "bytes": os.path.getsize(path), "test": t["kind"], "n": t["n"],
                     "depth": t["depth"], "threads": a.threads, "pairs": a.pairs,
                     "ours_tok_s": f"{statistics.median(x):.2f}",
                     "llama_tok_s": f"{statistics.median(y):.2f}",
                     "ratio": f"{statistics.median(ratios):.3f}", "ratio_low": f"{low:.3f}",
                     "ratio_high": f"{high:.3f}", "read_gb_s": f"{statistics.median(read):.1f}",
                     "llama_version": version})
    return rows


def cores():
    """Physical cores, as `qiusuo` counts them."""
    p = subprocess.run([sys.argv[1], "bench", "-p", "0", "-n", "0", "--no-train", "--json"],
                       capture_output=True, text=True, check=True)
    return json.loads(p.stdout)["machine"]["threads"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("program")
    p.add_argument("files", nargs="+")
    p.add_argument("--pairs", type=int, default=DEFAULT_PAIRS)
    p.add_argument("--tests", default=TESTS, help=f"(default {TESTS})")
    p.add_argument("--threads", type=int, default=0, help="of both (default: the physical cores)")
    p.add_argument("--csv", default=os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                 "llama.csv"))
    p.add_argument("--append", action="store_true", help="keep the CSV's rows of other models")
    a = p.parse_args()
    a.python = os.environ.get("QIUSUO_REF_PYTHON", sys.executable)
    if subprocess.run([a.python, "-c", "import llama_cpp"], capture_output=True,
                      check=False).returncode != 0:
        raise SystemExit(f"{a.python} has no llama-cpp-python: name one by QIUSUO_REF_PYTHON")
    a.threads = a.threads or cores()
    rows = []
    for path in a.files:
        print(os.path.basename(path), file=sys.stderr)
        rows += compare(a, path)
    for r in rows:
        print(f"{r['model']:32} {r['test']:8} n {r['n']:<5} depth {r['depth']:<5} "
              f"ours {float(r['ours_tok_s']):9.1f}  llama.cpp {float(r['llama_tok_s']):9.1f}  "
              f"ratio {float(r['ratio']):5.2f} ({float(r['ratio_low']):.2f} to "
              f"{float(r['ratio_high']):.2f})")
    if a.append and os.path.exists(a.csv):
        new = {(r["model"], r["test"], str(r["n"]), str(r["depth"])) for r in rows}
        with open(a.csv, newline="", encoding="utf-8") as f:
            old = [r for r in csv.DictReader(f)
                   if (r["model"], r["test"], r["n"], r["depth"]) not in new]
        rows = old + rows
    with open(a.csv, "w", newline="", encoding="utf-8") as f:
        w = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        w.writeheader()
        w.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] == "--worker":
        worker(sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))
    else:
        main()
