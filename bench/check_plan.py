#!/usr/bin/env python3
"""Holds `qiusuo plan` to what `qiusuo bench` then measures.

    bench/check_plan.py build/qiusuo FILE... [--within 0.2]
    bench/check_plan.py build/qiusuo --make FOLDER      models of several shapes and types, MoE among
                                                        them, made by init and deleted afterwards

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
import subprocess
import sys

MADE = [("deepseek-llm-7b", "Q4_0", 8), ("deepseek-llm-7b", "Q8_0", 8), ("deepseek-llm-7b", "Q4_K", 8),
        ("deepseek-llm-7b", "BF16", 5), ("deepseek-moe-16b", "Q4_0", 8), ("deepseek-moe-16b", "Q4_K", 8),
        ("deepseek-v2-lite", "Q4_K", 8), ("deepseek-moe-2b", "Q8_0", None)]
COLUMNS = ["model", "test", "plan_tok_s", "bench_tok_s", "ratio", "plan_gb_s", "bench_gb_s",
           "plan_s", "same_rate"]


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
        rates = [p["machine"]["read_gb_s"] for p in plans] + [r["read_gb_s"]]
        same = max(rates) <= 1.1 * min(rates)
        rows.append({"model": os.path.basename(path).removesuffix(".gguf"), "test": r["test"],
                     "plan_tok_s": f"{plan:.2f}", "bench_tok_s": f"{r['tok_s']:.2f}",
                     "ratio": f"{plan / r['tok_s']:.3f}", "plan_gb_s": f"{sum(rates[:2]) / 2:.1f}",
                     "bench_gb_s": f"{r['read_gb_s']:.1f}", "plan_s": f"{max(seconds):.1f}",
                     "same_rate": "yes" if same or r["test"] == "prefill" else "no"})
        print("  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    return rows


def check_calm(program, path, tries):
    for _ in range(tries):
        rows = check(program, path)
        if all(r["same_rate"] == "yes" for r in rows):
            break
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("program")
    p.add_argument("files", nargs="*")
    p.add_argument("--make", metavar="FOLDER")
    p.add_argument("--tries", type=int, default=4)
    p.add_argument("--within", type=float, default=0.2)
    a = p.parse_args()
    rows = []
    for path in a.files:
        rows += check_calm(a.program, path, a.tries)
    for preset, type_, layers in MADE if a.make else []:
        path = os.path.join(a.make, f"{preset}-{type_}.gguf")
        try:
            call(a.program, "init", "--preset", preset, "--type", type_, "-o", path,
                 *(["--layers", str(layers)] if layers else []))
            rows += check_calm(a.program, path, a.tries)
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
    wrong = [r for r in rows if abs(float(r["ratio"]) - 1) > a.within or r["same_rate"] != "yes"]
    for r in wrong:
        print(f"off: {r['model']} {r['test']}", file=sys.stderr)
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
