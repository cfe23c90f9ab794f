#!/usr/bin/env python3
"""What the levels of the CPU below the best are worth: bench/levels.py build/qiusuo [--layers N]
[--levels A,B] [--types A,B] makes models of the 7B shape (in BENCH_DIR, default the system's temporary
folder; 2 layers: 1.3 GB at most, one at a time) and prints a Markdown table: prefill of 512 and decode
of 32 at each level, and their ratio to the last one. Limits of the machine differ with the level too
(int8 multiply-adds are an instruction of VNNI), so speeds are compared, not shares of a limit."""
import argparse
import json
import os
import subprocess
import sys
import tempfile


def call(*args):
    p = subprocess.run(args, capture_output=True, text=True, check=False)
    if p.returncode != 0:
        raise SystemExit((p.stderr.strip().splitlines() or [f"exit {p.returncode}"])[-1])
    return p.stdout


def speeds(program, path, level):
    o = json.loads(call(program, "bench", "-m", path, "-p", "512", "-n", "32", "-r", "3", "--isa", level,
                        "--no-train", "--json"))
    return [r["tok_s"] for r in o["runs"]], o["runs"][1]["read_gb_s"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("program")
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--levels", default="avx2,avx512,vnni")
    p.add_argument("--types", default="Q4_K,Q8_0")
    a = p.parse_args()
    program = os.path.abspath(a.program)
    folder = os.environ.get("BENCH_DIR") or tempfile.gettempdir()
    path = os.path.join(folder, f"levels-{os.getpid()}.gguf")
    levels = a.levels.split(",")
    print("| type | level | prefill, tokens/s | of the last | decode, tokens/s | of the last | memory |")
    print("|---|---|---|---|---|---|---|")
    for type_ in a.types.split(","):
        try:
            call(program, "init", "--preset", "deepseek-llm-7b", "--layers", str(a.layers), "--type",
                 type_, "-o", path)
            rows = [(level, *speeds(program, path, level)) for level in levels]
        finally:
            if os.path.exists(path):
                os.unlink(path)
        best = rows[-1][1]
        for level, (pre, dec), rate in rows:
            print(f"| {type_} | {level} | {pre:.0f} | {pre / best[0]:.2f} | {dec:.1f} | "
                  f"{dec / best[1]:.2f} | {rate:.0f} GB/s |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
