#!/usr/bin/env python3
"""Holds `qiusuo plan` to what `qiusuo bench` then measures.

    bench/check_plan.py build/qiusuo FILE... [--within 0.2]
    bench/check_plan.py build/qiusuo --make FOLDER      models of several shapes and types, MoE among
                                                        them, made by init and deleted afterwards

plan runs before bench and again after it, and the middle of the two counts. On a machine whose memory changes its rate
from minute to minute the decode figures are also shown at one rate: each by what memory gave while it
was measured. Exits 1 when a forecast is off by more than --within at that rate. Writes bench/plan.csv.
"""
import argparse
import csv
import json
import os
import subprocess
import sys

MADE = [("deepseek-llm-7b", "Q4_0", 8), ("deepseek-llm-7b", "Q8_0", 8), ("deepseek-llm-7b", "Q4_K", 8),
        ("deepseek-llm-7b", "BF16", 5), ("deepseek-moe-16b", "Q4_0", 8), ("deepseek-moe-16b", "Q4_K", 8),
        ("deepseek-v2-lite", "Q4_K", 8), ("deepseek-moe-2b", "Q8_0", None)]
COLUMNS = ["model", "test", "plan_tok_s", "bench_tok_s", "ratio", "plan_gb_s", "bench_gb_s",
           "ratio_same_rate", "plan_s"]


def call(*args):
    p = subprocess.run(args, capture_output=True, text=True, check=False)
    if p.returncode != 0:
        raise RuntimeError((p.stderr.strip().splitlines() or [f"exit {p.returncode}"])[-1])
    return p.stdout


def check(program, path):
    import time
    plans, seconds = [], []
    bench = None
    for step in ("plan", "bench", "plan"):
        if step == "bench":
            bench = json.loads(call(program, "bench", "-m", path, "-p", "512", "-n", "32", "-r", "3",
                                    "--no-train", "--json"))
            continue
        t = time.monotonic()
        plans.append(json.loads(call(program, "plan", path, "--json")))
        seconds.append(time.monotonic() - t)
    rows = []
    for r in bench["runs"]:
        key = r["test"] + "_tok_s"
        plan = sum(p["speed"][key] for p in plans) / 2
        # by memory's rate: what decode is bound by
        rate = [p["speed"][key] / p["machine"]["read_gb_s"] for p in plans]
        same = sum(rate) / 2 / (r["tok_s"] / r["read_gb_s"])
        if r["test"] == "prefill":
            same = plan / r["tok_s"]
        rows.append({"model": os.path.basename(path).removesuffix(".gguf"), "test": r["test"],
                     "plan_tok_s": f"{plan:.2f}", "bench_tok_s": f"{r['tok_s']:.2f}",
                     "ratio": f"{plan / r['tok_s']:.3f}",
                     "plan_gb_s": f"{sum(p['machine']['read_gb_s'] for p in plans) / 2:.1f}",
                     "bench_gb_s": f"{r['read_gb_s']:.1f}", "ratio_same_rate": f"{same:.3f}",
                     "plan_s": f"{max(seconds):.1f}"})
        print("  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("program")
    p.add_argument("files", nargs="*")
    p.add_argument("--make", metavar="FOLDER")
    p.add_argument("--within", type=float, default=0.2)
    a = p.parse_args()
    rows = []
    for path in a.files:
        rows += check(a.program, path)
    for preset, type_, layers in MADE if a.make else []:
        path = os.path.join(a.make, f"{preset}-{type_}.gguf")
        try:
            call(a.program, "init", "--preset", preset, "--type", type_, "-o", path,
                 *(["--layers", str(layers)] if layers else []))
            rows += check(a.program, path)
        except RuntimeError as e:
            print(f"{preset} {type_}: {e}", file=sys.stderr)
        finally:
            if os.path.exists(path):
                os.unlink(path)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "plan.csv"), "w", newline="",
              encoding="utf-8") as f:
        w = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        w.writeheader()
        w.writerows(rows)
    wrong = [r for r in rows if abs(float(r["ratio_same_rate"]) - 1) > a.within]
    for r in wrong:
        print(f"off: {r['model']} {r['test']}", file=sys.stderr)
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
