#!/usr/bin/env python3
"""What the bounded cache of experts finds, beside the best fixed choice: bench/expert_cache.py
build/qiusuo [MODEL-SHAPE...] prints a table in Markdown. BENCH_SKEWS=0.5,1 narrows the exponents.

For each exponent S of `init --router-skew S` a model is made (in BENCH_DIR, default the system's
temporary folder; 3 to 6 GB, one at a time, deleted afterwards) and decoded by `qiusuo bench --memory`
with several sizes of the cache. Columns: what the cache found; what the best fixed choice of as many
experts would have found, chosen with hindsight, for this very run; and what the law says of a fixed
choice for all times: the shares of the most popular experts (src/files/skew.h). Random ids have no
habits from one token to the next: a text has, so this is the cache's worst case."""
import json
import os
import subprocess
import sys
import tempfile

# preset, layers (the first is dense), experts, chosen, bytes of an expert in Q4_0, shares in the cache
SHAPES = {
    "deepseek-moe-16b": (9, 64, 6, 3 * 2048 * 1408 * 18 // 32, (0.14, 0.25, 0.50)),
    "deepseek-v2": (3, 160, 6, 3 * 5120 * 1536 * 18 // 32, (0.52, 0.75)),
}
EXPONENTS = (0, 0.5, 1.0, 1.5)
MOST = 0.4  # of the tokens: the largest share of an expert
STEPS = 64


def run(program, *args):
    p = subprocess.run([program, *args], capture_output=True, text=True, check=False)
    if p.returncode != 0:
        sys.exit(p.stderr.strip())
    return p.stdout


def law(s, n, k, cached):
    """Share of uses that the cached * n most popular of n experts serve."""
    lo, hi = 0.0, k * n ** s
    for _ in range(200):
        c = (lo + hi) / 2
        share = [min(MOST, c * (r + 1) ** -s) for r in range(n)]
        lo, hi = (c, hi) if sum(share) < k else (lo, c)
    whole = int(cached * n)
    return (sum(share[:whole]) + (cached * n - whole) * share[whole]) / k


def decode(program, path, memory):
    o = json.loads(run(program, "bench", "-m", path, "--memory", str(memory), "-p", "0", "-n",
                       str(STEPS), "--no-train", "--json"))
    return o["runs"][0]


def main():
    program = os.path.abspath(sys.argv[1])
    folder = os.environ.get("BENCH_DIR") or tempfile.gettempdir()
    narrowed = os.environ.get("BENCH_SKEWS", "")
    exponents = [float(s) for s in narrowed.split(",")] if narrowed else EXPONENTS
    path = os.path.join(folder, f"expert-cache-{os.getpid()}.gguf")
    print("| shape | S | experts in the cache | found there | best fixed choice, this run | by the law |")
    print("|---|---|---|---|---|---|")
    for preset in sys.argv[2:] or ["deepseek-moe-16b"]:
        layers, n, k, expert, shares = SHAPES[preset]
        for s in exponents:
            try:
                run(program, "init", "--preset", preset, "--layers", str(layers), "--type", "Q4_0",
                    "--router-skew", str(s), "-o", path)
                all_bytes = (layers - 1) * n * expert
                memory = os.path.getsize(path) - all_bytes + int(shares[0] * all_bytes) + (700 << 20)
                for want in shares:
                    r = decode(program, path, memory)
                    while abs(r["experts_cached"] - want) > 0.01:
                        memory += int((want - r["experts_cached"]) * all_bytes)
                        r = decode(program, path, memory)
                    print(f"| {preset} | {s:g} | {r['experts_cached'] * 100:.0f} % | "
                          f"{r['expert_hit_rate'] * 100:.0f} % | "
                          f"{r['best_fixed_hit_rate'] * 100:.0f} % | "
                          f"{law(s, n, k, r['experts_cached']) * 100:.0f} % |", flush=True)
            finally:
                if os.path.exists(path):
                    os.unlink(path)


if __name__ == "__main__":
    main()
