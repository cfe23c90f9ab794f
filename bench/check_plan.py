#!/usr/bin/env python3
"""Holds `qiusuo plan` to what `qiusuo bench` then measures.

    bench/check_plan.py build/qiusuo FILE... [--within 0.2] [--kv f16,q8_0] [--depth 4096]
    bench/check_plan.py build/qiusuo FILE --memory 12G  from disk: 16 tokens (see --gen)
    bench/check_plan.py build/qiusuo --make FOLDER      models of several shapes and types, MoE among
                                                        them, made by init and deleted afterwards
                                                        (--only REGEX: of these)

Compared are prefill of 512, decode at the beginning, and decode after --depth tokens, for each type of
cache. From disk it is decode at the beginning, and the two rates of the disk are printed: a forecast is
worth what the rate is that it was made for.

plan runs before bench and again after it, and the middle of the two counts. A forecast is made for the
rate of memory that plan prints, and on some machines that rate doubles from minute to minute; a share of
the limit at one rate says little of another. So the three are run again, up to --tries times, until
their rates agree within a tenth, and the last column says whether they did. Exits 1 when a forecast is
off by more than --within, and for decode when rates never agreed. Writes bench/plan.csv.
"""
import argparse
import csv
import json
import os
import re
import subprocess
import sys
import time

MADE = [(p, t, 6) for p in ("deepseek-llm-7b", "deepseek-moe-16b", "deepseek-v2-lite")
        for t in ("Q4_K", "Q8_0")]
MADE += [("deepseek-llm-7b", "Q4_0", 8), ("deepseek-llm-7b", "BF16", 5),
         ("deepseek-moe-2b", "Q8_0", None)]
COLUMNS = ["model", "test", "depth", "kv", "plan_tok_s", "bench_tok_s", "ratio", "plan_gb_s",
           "bench_gb_s", "plan_s", "same_rate"]


def call(*args):
    p = subprocess.run(args, capture_output=True, text=True, check=False)
    if p.returncode != 0:
        raise RuntimeError((p.stderr.strip().splitlines() or [f"exit {p.returncode}"])[-1])
    return p.stdout


def bench(program, path, *args):
    return json.loads(call(program, "bench", "-m", path, "-r", "3", "--no-train", "--json",
                           *args))["runs"]


def timed_plan(program, path, *args):
    t = time.monotonic()
    o = json.loads(call(program, "plan", path, "--json", *args))
    return {**o, "seconds": time.monotonic() - t}


def row(path, r, kv, plans, key, rates):
    """rates: plan's, twice, and bench's."""
    plan = sum(p["speed"][key] for p in plans) / 2
    same = r["test"] == "prefill" or max(rates) <= 1.1 * min(rates)
    out = {"model": os.path.basename(path).removesuffix(".gguf"), "test": r["test"], "depth": r["depth"],
           "kv": kv, "plan_tok_s": f"{plan:.3g}", "bench_tok_s": f"{r['tok_s']:.3g}",
           "ratio": f"{plan / r['tok_s']:.3f}", "plan_gb_s": f"{sum(rates[:2]) / 2:.1f}",
           "bench_gb_s": f"{rates[2]:.1f}", "plan_s": f"{max(p['seconds'] for p in plans):.1f}",
           "same_rate": "yes" if same else "no"}
    print("  ".join(f"{k} {v}" for k, v in out.items()), flush=True)
    return out


def check(program, path, kv, depth):
    options = ("-c", str(depth), "--cache-type", kv)
    plans = [timed_plan(program, path, *options)]
    runs = bench(program, path, "-p", "512", "-n", "32", "--cache-type", kv)
    if depth:
        runs += bench(program, path, "-p", "0", "-n", "16", "-d", str(depth), "--cache-type", kv)
    plans.append(timed_plan(program, path, *options))
    key = {("prefill", False): "prefill_tok_s", ("decode", False): "decode_tok_s",
           ("decode", True): "deep_tok_s"}
    return [row(path, r, kv, plans, key[r["test"], r["depth"] > 0],
                [p["machine"]["read_gb_s"] for p in plans] + [r["read_gb_s"]]) for r in runs]


def check_disk(program, path, memory, gen):
    options = ("--memory", memory, "-c", "64")  # the cache that bench takes, about
    plans = [timed_plan(program, path, *options)]
    r = bench(program, path, "-p", "0", "-n", str(gen), "--memory", memory)[0]
    plans.append(timed_plan(program, path, *options))
    return [row(path, r, "f16", plans, "decode_tok_s",
                [p["disk"]["read_gb_s"] for p in plans] + [r["disk_gb_s"]])]


def check_calm(run, tries):
    for _ in range(tries):
        rows = run()
        if all(r["same_rate"] == "yes" for r in rows):
            break
    return rows


def check_file(a, path):
    if a.memory:
        return check_calm(lambda: check_disk(a.program, path, a.memory, a.gen), a.tries)
    return [r for kv in a.kv.split(",")
            for r in check_calm(lambda: check(a.program, path, kv, a.depth), a.tries)]


def check_made(a):
    rows = []
    for preset, type_, layers in MADE:
        name = f"{preset}-{type_}"
        if not re.search(a.only, name):
            continue
        path = os.path.join(a.make, name + ".gguf")
        try:
            call(a.program, "init", "--preset", preset, "--type", type_, "-o", path,
                 *(["--layers", str(layers)] if layers else []))
            rows += check_file(a, path)
        except RuntimeError as e:
            print(f"{preset} {type_}: {e}", file=sys.stderr)
        finally:
            if os.path.exists(path):
                os.unlink(path)
    return rows


def save(rows):
    """Rows of models and tests that were not run now stay."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "plan.csv")
    same = ("model", "test", "depth", "kv")
    new = {tuple(str(r[k]) for k in same) for r in rows}
    kept = []
    if os.path.exists(path):
        with open(path, newline="", encoding="utf-8") as f:
            kept = [r for r in csv.DictReader(f) if tuple(r[k] for k in same) not in new]
    with open(path, "w", newline="", encoding="utf-8") as f:
        w = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        w.writeheader()
        w.writerows(kept + rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("program")
    p.add_argument("files", nargs="*")
    p.add_argument("--make", metavar="FOLDER")
    p.add_argument("--only", default="", metavar="REGEX")
    p.add_argument("--kv", default="f16,q8_0")
    p.add_argument("--depth", type=int, default=4096)
    p.add_argument("--memory")
    p.add_argument("--gen", type=int, default=16)
    p.add_argument("--tries", type=int, default=4)
    p.add_argument("--within", type=float, default=0.2)
    a = p.parse_args()
    rows = [r for path in a.files for r in check_file(a, path)]
    if a.make:
        rows += check_made(a)
    save(rows)
    wrong = [r for r in rows if abs(float(r["ratio"]) - 1) > a.within or r["same_rate"] != "yes"]
    for r in wrong:
        print(f"off: {r['model']} {r['test']} {r['depth']} {r['kv']}", file=sys.stderr)
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
