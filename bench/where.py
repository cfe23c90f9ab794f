#!/usr/bin/env python3
"""Where the time of a step goes: shares of the processor's time by kind of work.

    bench/where.py build/qiusuo FILE [--csv FILE] [-- options of bench]

Runs `qiusuo bench` on the model under `perf record -e cpu-clock` (samples by the clock: it needs no
hardware counters, Debian's linux-perf is enough), once for a prefill of 512 and once for decode, and
adds the samples of functions up by what they do. Functions of the probes and of loading are left out.
All threads together; waiting is what a worker does in a barrier while another one still works.
"""
import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile

COLUMNS = ["model", "test", "work", "share", "samples"]
LEFT_OUT = re.compile(r"^(read_all|read_windows|probe|peak_.*|pack_.*|panel_.*|file_word|put_words|"
                      r"do_lookup_x|_dl_.*|strcmp|parse.*|check_.*|qsi_gguf.*|qsi_vocab.*|build.*|"
                      r"qsi_read_probe.*|.*xxh.*|XXH.*)$")
KINDS = [  # the first that matches
    ("products, one row", r"^(run_[A-Z].*|row_panel.*|row_.*|small_.*)$"),
    ("products, many rows: multiplying", r"^(tile_.*|run_tiles.*|mm_.*)$"),
    ("products, many rows: unpacking", r"^(unpack_.*|scales_.*|widen.*)$"),
    ("attention", r"^(attn_.*|qsi_attend.*|attend_.*|qsi_kv_.*|span_.*|qsi_mla.*|rotate.*|naive_.*|"
                  r"absorbed_.*|load_span|make_span|qsi_rope.*|merge.*)$"),
    ("activations to bytes", r"^(f32_to_act.*|qsi_act_.*|act_.*|f32_to_bf16.*)$"),
    ("norms, SwiGLU, adding", r"^(rms.*|sum_sq.*|swiglu.*|axpy|add|scale|dot|softmax.*|vexp.*|"
                              r"qsi_norm.*)$"),
    ("router and grouping", r"^(qsi_route.*|route_.*|group_rows|top_ids)$"),
    ("waiting", r"^(qsi_cpu_relax|meet|wait_turn|qsi_futex.*|syscall|futex.*)$"),
]


def kind_of(symbol):
    symbol = re.sub(r"\.(constprop|part|isra|cold).*$", "", symbol)
    if LEFT_OUT.match(symbol):
        return None
    return next((k for k, p in KINDS if re.match(p, symbol)), "other")


def sample(program, model, test, extra):
    n = ["-p", "512", "-n", "0"] if test == "prefill" else ["-p", "0", "-n", "64"]
    with tempfile.TemporaryDirectory(prefix="qiusuo-where-") as d:
        data = os.path.join(d, "perf.data")
        p = subprocess.run(["perf", "record", "-q", "-e", "cpu-clock:u", "-F", "997", "-o", data,
                            program, "bench", "-m", model, *n, "--no-train", "-r", "9", *extra],
                           capture_output=True, text=True, check=False)
        if p.returncode != 0:
            raise SystemExit((p.stderr.strip().splitlines() or ["perf record failed"])[-1])
        p = subprocess.run(["perf", "report", "-i", data, "--stdio", "--no-children", "-s", "symbol",
                            "-n", "-t", ";"], capture_output=True, text=True, check=False)
    sums, others = {}, {}
    for line in p.stdout.splitlines():
        m = re.match(r"\s*[\d.]+%\s*;\s*(\d+)\s*;\s*\[.\]\s*(\S+)", line)
        if not m or kind_of(m[2]) is None:
            continue
        k = kind_of(m[2])
        sums[k] = sums.get(k, 0) + int(m[1])
        if k == "other":
            others[m[2]] = int(m[1])
    return sums, others


def main():
    a = argparse.ArgumentParser(usage="bench/where.py PROGRAM MODEL [--csv FILE] [-- options]")
    a.add_argument("program")
    a.add_argument("model")
    a.add_argument("--csv", help="rows of other models stay in it")
    a.add_argument("extra", nargs="*")
    o = a.parse_args()
    rows = []
    for test in ("prefill", "decode"):
        sums, others = sample(os.path.abspath(o.program), o.model, test, o.extra)
        total = sum(sums.values())
        if not total:
            raise SystemExit("no samples of the model's own functions: is the program stripped?")
        print(f"{os.path.basename(o.model)}, {test}: {total} samples")
        for k, n in sorted(sums.items(), key=lambda x: -x[1]):
            print(f"  {n / total * 100:5.1f} %  {k}")
            rows.append([os.path.basename(o.model), test, k, f"{n / total:.4f}", n])
        top = sorted(others.items(), key=lambda x: -x[1])[:5]
        if sums.get("other", 0) > 0.02 * total:
            print("          other: " + ", ".join(f"{s} {n / total * 100:.1f} %" for s, n in top))
    if o.csv:
        kept = []
        if os.path.exists(o.csv):
            with open(o.csv, newline="", encoding="utf-8") as f:
                kept = [r for r in csv.reader(f)][1:]
        with open(o.csv, "w", newline="", encoding="utf-8") as f:
            w = csv.writer(f, lineterminator="\n")
            w.writerow(COLUMNS)
            w.writerows([r for r in kept if r[0] != rows[0][0]] + rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
