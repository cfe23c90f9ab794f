#!/usr/bin/env python3
"""The whole table of speeds in one run: `make bench`, or bench/table.py build/qiusuo.

Models are made by `qiusuo init` in BENCH_DIR (default: a folder in the system's temporary one), one at
a time, and deleted after use. What does not fit memory or disk is left out, and the row says so. Each
row is one `qiusuo bench`; the machine's limits stand in its own columns, and a row whose limits moved
by more than 5 % is measured again, up to three times; the calmest counts. Written: bench/table.csv,
and where perf is installed bench/where.csv (where.py); docs/speed.md is made of them by render.py.

    BENCH_DIR=FOLDER    where models go (a fast disk: the out-of-core rows measure it too)
    BENCH_ONLY=REGEX    only the rows whose key matches, other rows of the CSV stay
    BENCH_QUICK=1       fewer layers and repeats: minutes instead of hours, shares hardly differ
    BENCH_KEEP=1        models in BENCH_DIR are used if they are there, and stay
"""
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from group import Group

HERE = os.path.dirname(os.path.abspath(__file__))
COLUMNS = ["key", "model", "type", "layers", "test", "n", "depth", "batch", "kv", "value", "unit",
           "limit", "share", "must", "aim", "ok", "threads", "isa", "read_gb_s", "int8_gop_s",
           "bf16_gflop_s", "fp32_gflop_s", "drift", "note"]
DRIFT_MAX, TRIES = 0.05, 3
GB = 1e9

# Weights, and layers of the whole model.
PRESETS = {"deepseek-llm-7b": (6.9e9, 30), "deepseek-moe-16b": (16.4e9, 28),
           "deepseek-v2-lite": (15.7e9, 27), "deepseek-llm-67b": (67.4e9, 95)}
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "Q8_0": 1.0625, "Q6_K": 0.82, "Q5_K": 0.69, "Q4_K": 0.5625,
         "Q3_K": 0.4297, "Q2_K": 0.3281, "Q5_1": 0.75, "Q5_0": 0.6875, "Q4_1": 0.625, "Q4_0": 0.5625,
         "IQ4_NL": 0.5625, "IQ4_XS": 0.53125}
SHORT = {"deepseek-llm-7b": "7b", "deepseek-moe-16b": "moe16b", "deepseek-v2-lite": "v2lite",
         "deepseek-llm-67b": "67b"}


def rows_of(preset, type_, tests, layers=None):
    return {"preset": preset, "type": type_, "layers": layers, "tests": tests}


def prefill(must, aim, depth=0):
    return {"test": "prefill", "n": 512, "depth": depth, "must": must, "aim": aim}


def decode(must, aim, depth=0, kv="f16", n=32, batch=1):
    return {"test": "decode", "n": n, "depth": depth, "kv": kv, "batch": batch, "must": must,
            "aim": aim}


DEEP = [decode(0.65, 0.75, d, kv, 16) for kv in ("f16", "q8_0") for d in (4096, 8192)]
BOTH = [prefill(None, None), decode(0.90, 0.95)]
# Fewer layers where the whole model does not fit ordinary memory, or would only take longer: shares
# hardly differ (the head counts more).
MODELS = [
    rows_of("deepseek-llm-7b", "Q4_K", [prefill(0.50, 0.65), decode(0.90, 0.95),
                                        decode(None, None, 256, n=16),
                                        decode(None, None, 256, n=16, batch=16)]),
    rows_of("deepseek-llm-7b", "Q4_K", DEEP, 8),
    rows_of("deepseek-llm-7b", "Q4_0", [prefill(0.50, 0.65), decode(0.90, 0.95)]),
    rows_of("deepseek-llm-7b", "Q8_0", [prefill(0.50, 0.65), decode(0.90, 0.95)]),
    rows_of("deepseek-llm-7b", "Q5_K", [prefill(0.45, 0.55), decode(0.90, 0.95)], 12),
    rows_of("deepseek-llm-7b", "Q6_K", [prefill(0.45, 0.55), decode(0.90, 0.95)], 12),
    *(rows_of("deepseek-llm-7b", t, BOTH, 12)
      for t in ("Q2_K", "Q3_K", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS")),
    rows_of("deepseek-llm-7b", "BF16", [prefill(0.50, 0.60), decode(0.90, 0.95)], 12),
    rows_of("deepseek-llm-7b", "F16", [prefill(0.60, 0.75), decode(0.90, 0.95)], 12),
    rows_of("deepseek-llm-7b", "F32", [prefill(0.60, 0.75), decode(0.90, 0.95)], 8),
    rows_of("deepseek-moe-16b", "Q4_K", [
        prefill(0.35, 0.45), decode(0.75, 0.85), *DEEP, prefill(None, None, 8192),
        decode(0.80, None, 256, n=16, batch=16)]),
    rows_of("deepseek-v2-lite", "Q4_K", [prefill(None, None), decode(0.75, 0.85),
                                         prefill(None, None, 8192)]),
    rows_of("deepseek-v2-lite", "Q4_K", DEEP, 8),
]
LARGE = rows_of("deepseek-llm-67b", "Q4_0", [], 25)  # of 10 GB, for the first token
OUT_OF_CORE = [("deepseek-llm-67b", "Q4_0", 2), ("deepseek-moe-16b", "BF16", 16)]  # and steps
MEMORY, BESIDE = 12 << 30, 256 << 20  # --memory; what the control group leaves for the page cache


# ---- the machine -----------------------------------------------------------------------------------

def meminfo(key):
    with open("/proc/meminfo", encoding="ascii") as f:
        return int(re.search(rf"{key}:\s+(\d+) kB", f.read()).group(1)) * 1024


def say(text):
    print(text, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, program):
        self.program = os.path.abspath(program)
        self.dir = os.environ.get("BENCH_DIR") or tempfile.mkdtemp(prefix="qiusuo-bench-")
        self.own_dir = "BENCH_DIR" not in os.environ
        os.makedirs(self.dir, exist_ok=True)
        self.only = re.compile(os.environ.get("BENCH_ONLY", ""))
        self.quick = os.environ.get("BENCH_QUICK", "") not in ("", "0")
        self.keep = os.environ.get("BENCH_KEEP", "") not in ("", "0")
        self.csv = os.path.join(HERE, "table.csv")
        self.rows = []

    # -- models --

    def size(self, m):
        n, layers = PRESETS[m["preset"]]
        share = (m["layers"] or layers) / layers
        return n * share * BYTES[m["type"]] + 1e9 * (m["type"] == "F32")

    def room(self, m, memory):
        """Why the model cannot be measured here; None when it can."""
        disk, need = shutil.disk_usage(self.dir).free, self.size(m)
        if need * 1.05 > disk:
            return f"needs {need / GB:.0f} GB of disk, {disk / GB:.0f} are free"
        if memory and need * 1.1 + 2e9 > meminfo("MemAvailable"):
            return (f"needs {need * 1.1 / GB + 2:.0f} GB of memory, "
                    f"{meminfo('MemAvailable') / GB:.0f} are available")
        return None

    def path(self, m):
        layers = f"-{m['layers']}" if self.keep and m["layers"] else ""
        return os.path.join(self.dir, f"{m['preset']}-{m['type']}{layers}.gguf")

    def make(self, m):
        path = self.path(m)
        cmd = [self.program, "init", "--preset", m["preset"], "--type", m["type"], "-o", path]
        if m["layers"]:
            cmd += ["--layers", str(m["layers"])]
        if "skew" in m:
            cmd += ["--router-skew", str(m["skew"])]
        if self.keep and os.path.exists(path):
            return path
        say(f"making {os.path.basename(path)}")
        p = subprocess.run(cmd, capture_output=True, text=True, check=False)
        if p.returncode != 0:
            raise RuntimeError(p.stderr.strip().splitlines()[-1])
        return path

    def drop(self, path):
        if path and not self.keep and os.path.exists(path):
            os.unlink(path)

    # -- one row --

    def measure(self, path, t, extra=()):
        n = {"prefill": 0, "decode": 0}
        n[t["test"]] = t["n"]
        cmd = [self.program, "bench", "-m", path, "-p", str(n["prefill"]), "-n", str(n["decode"]),
               "-d", str(t["depth"]), "-b", str(t.get("batch", 1)), "--kv", t.get("kv", "f16"),
               "--no-train", "--json", "-r", "3" if self.quick or t["depth"] else "5", *extra]
        best = None
        for _ in range(TRIES):
            p = subprocess.run(cmd, capture_output=True, text=True, check=False)
            if p.returncode != 0:
                lines = p.stderr.strip().splitlines() or [f"exit {p.returncode}"]
                raise RuntimeError(lines[-1])
            o = json.loads(p.stdout)
            drift = max([o["machine"]["drift"]] + [r.get("drift", 0) for r in o["runs"]])
            if best is None or drift < best[0]:
                best = (drift, o)
            if drift <= DRIFT_MAX:
                break
        return best

    def put(self, **row):
        out = {k: row.get(k, "") for k in COLUMNS}
        self.rows.append(out)
        say(f"  {out['key']:40} {out['value']} {out['unit']}  share {out['share']}  "
            f"{out['ok']}  {out['note']}")
        self.save()

    def run_test(self, m, path, t):
        base = {"key": self.key(m, t), "model": m["preset"], "type": m["type"],
                "layers": m["layers"] or PRESETS[m["preset"]][1], "test": t["test"], "n": t["n"],
                "depth": t["depth"], "batch": t.get("batch", 1), "kv": t.get("kv", "f16"),
                "must": t["must"] or "", "aim": t["aim"] or ""}
        try:
            drift, o = self.measure(path, t)
        except RuntimeError as e:
            self.put(**base, note=str(e))
            return None
        r, mach = o["runs"][0], o["machine"]
        note = f"{r['experts']:.0f} experts a step" if r.get("experts") else ""
        self.put(**base, value=f"{r['tok_s']:.2f}", unit="tok/s", limit=f"{r['limit_tok_s']:.2f}",
                 share=f"{r['share']:.3f}", ok=self.verdict(r["share"], t), drift=f"{drift:.3f}",
                 read_gb_s=f"{r.get('read_gb_s') or mach['read_gb_s']:.1f}", note=note,
                 **{k: f"{mach[k]:.0f}" for k in ("int8_gop_s", "bf16_gflop_s", "fp32_gflop_s")},
                 threads=mach["threads"], isa=mach["isa"])
        return r

    @staticmethod
    def verdict(share, t):
        if not t["must"]:
            return ""
        return "aim" if t["aim"] and share >= t["aim"] else "must" if share >= t["must"] else "below"

    @staticmethod
    def key(m, t):
        k = f"{SHORT[m['preset']]}-{m['type']}-{t['test']}{t['n']}-d{t['depth']}"
        k += f"-b{t['batch']}" if t.get("batch", 1) > 1 else ""
        return k + (f"-{t['kv']}" if t.get("kv", "f16") != "f16" else "")

    def ratio(self, key, value, must, aim, note):
        self.put(key=key, value=f"{value:.3f}", unit="times", must=must or "", aim=aim or "",
                 ok=self.verdict(value, {"must": must, "aim": aim}), note=note)

    # -- groups --

    def run_model(self, m):
        tests = [t for t in m["tests"] if self.only.search(self.key(m, t))]
        if not tests:
            return
        if self.quick:
            m = {**m, "layers": min(m["layers"] or 99, 6)}
        why = self.room(m, True)
        path = None
        try:
            path = None if why else self.make(m)
        except RuntimeError as e:
            why = str(e)
        if path is None:
            for t in tests:
                self.put(key=self.key(m, t), model=m["preset"], type=m["type"], test=t["test"],
                         n=t["n"], depth=t["depth"], must=t["must"] or "", aim=t["aim"] or "",
                         note="left out: " + why)
            return
        got = {}
        try:
            start = time.monotonic()
            deep_only = all(t["depth"] for t in tests)
            if not deep_only:
                self.put_first_token(m, path)
            for t in tests:
                got[self.key(m, t)] = self.run_test(m, path, t)
            if m["type"] == "Q4_K" and not deep_only and shutil.which("perf"):
                subprocess.run([sys.executable, os.path.join(HERE, "where.py"), self.program, path,
                                "--csv", os.path.join(HERE, "where.csv")],
                               stdout=subprocess.DEVNULL, check=False)
            say(f"  {time.monotonic() - start:.0f} s")
        finally:
            self.drop(path)
        self.relate(m, got)

    def relate(self, m, got):
        """Rows that compare two measurements."""
        s = SHORT[m["preset"]] + "-" + m["type"]
        one, many = got.get(f"{s}-decode16-d256"), got.get(f"{s}-decode16-d256-b16")
        if one and many and m["preset"] == "deepseek-llm-7b":
            self.ratio(f"{s}-batch16", many["tok_s"] / one["tok_s"], 3.5, None,
                       "16 sequences to one, depth 256")
        near, far = got.get(f"{s}-prefill512-d0"), got.get(f"{s}-prefill512-d8192")
        if near and far:
            self.ratio(f"{s}-prefill-depth", far["tok_s"] / near["tok_s"], 0.40, None,
                       "prefill at 8192 to prefill at 0")

    def put_first_token(self, m, path):
        """With the weights repacked, and from a repacked copy (docs/loading.md)."""
        key = f"{SHORT[m['preset']]}-{m['type']}-first-token"
        base = {"model": m["preset"], "type": m["type"], "unit": "s"}
        size = os.path.getsize(path)
        try:
            first = self.first_token(path)
            self.put(key=key, value=f"{first:.2f}",
                     note=f"{size / GB:.1f} GB in the page cache, repacked", **base)
            self.put_from_copy(key + "-copy", path, base)
        except RuntimeError as e:
            self.put(key=key, note=str(e), **base)

    def put_from_copy(self, key, path, base):
        folder = os.path.join(self.dir, "repacked")
        option = "--repack-cache=" + folder
        free = shutil.disk_usage(self.dir).free
        try:
            if os.path.getsize(path) * 1.1 + 1e9 > free:
                self.put(key=key, note=f"left out: {free / GB:.0f} GB of disk are free", must=2, **base)
                return
            self.first_token(path, option, tries=1)
            with open(path, "rb") as f:  # room in the page cache for the copy
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            copies = [os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(".qspacked")]
            if len(copies) != 1:
                raise RuntimeError("no repacked copy was written")
            first = self.first_token(path, option)
            self.put(key=key, value=f"{first:.2f}", must=2, ok="must" if first <= 2 else "below",
                     note=f"a repacked copy of {os.path.getsize(copies[0]) / GB:.1f} GB, mapped", **base)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def first_token(self, path, *options, tries=3):
        """Seconds from the program's start to its end with one token; the best, so that the file is in
        the page cache."""
        best = 1e9
        for _ in range(tries):
            t = time.monotonic()
            p = subprocess.run([self.program, "run", path, "--raw", "-p", "1", "-n", "1", "--temp", "0",
                                *options], capture_output=True, text=True, check=False)
            best = min(best, time.monotonic() - t)
            if p.returncode != 0:
                raise RuntimeError((p.stderr.strip().splitlines() or ["failed"])[-1])
        return best

    def large_first_token(self):
        m = LARGE
        key = f"{SHORT[m['preset']]}-{m['type']}-first-token"
        if not self.only.search(key):
            return
        why = self.room(m, True) or ("not in a quick run" if self.quick else None)
        path = None
        try:
            if not why:
                path = self.make(m)
                self.put_first_token(m, path)
        except RuntimeError as e:
            why = str(e)
        finally:
            self.drop(path)
        if why:
            self.put(key=key + "-copy", model=m["preset"], type=m["type"], must=2,
                     note="left out: " + why)

    def out_of_core(self):
        for preset, type_, steps in OUT_OF_CORE:
            m = rows_of(preset, type_, [])
            if "moe" in preset:
                m["skew"] = 0  # experts are used evenly: the worst case for a cache of them
            key = f"{SHORT[preset]}-{type_}-memory12G"
            if not self.only.search(key):
                continue
            there = self.keep and os.path.exists(self.path(m))
            why = None if there else self.room(m, False)
            if why or self.quick:
                self.put(key=key, model=preset, type=type_,
                         note="left out: " + (why or "not in a quick run"))
                continue
            path = None
            try:
                path = self.make(m)
                self.put_out_of_core(key, m, path, steps)
            except RuntimeError as e:
                self.put(key=key, model=preset, type=type_, note=str(e))
            finally:
                self.drop(path)

    def put_out_of_core(self, key, m, path, steps):
        """The disk moves by more than shares do from run to run: of three the middle one counts."""
        runs = []
        cmd = [self.program, "bench", "-m", path, "--memory", str(MEMORY), "-p", "0", "-n", str(steps),
               "--no-train", "--json"]
        for _ in range(3):
            with Group(MEMORY + BESIDE) as group:
                rc, out, err, peak = group.run(cmd)
            if rc != 0:
                raise RuntimeError((err.strip().splitlines() or [f"exit {rc}"])[-1])
            runs.append({**json.loads(out)["runs"][0], "peak": peak})
        runs.sort(key=lambda r: r.get("disk_share", 0))
        r = runs[1]
        if not r.get("disk_gb_s"):
            raise RuntimeError("left out: with 12 GiB all of it is in memory")
        shares = ", ".join(f"{x['disk_share'] * 100:.0f}" for x in runs)
        self.put(key=key, model=m["preset"], type=m["type"], test="decode", n=steps,
                 value=f"{r['tok_s']:.3f}", unit="tok/s", share=f"{r['disk_share']:.3f}", must=0.70,
                 ok=self.verdict(r["disk_share"], {"must": 0.7, "aim": None}),
                 note=f"{self.disk_note(r)}; three runs: {shares} %; peak {r['peak'] / GB:.1f} GB"
                      f"{'' if group.path else ', no control group'}")

    @staticmethod
    def disk_note(r):
        note = (f"{r['disk_read_gb_s']:.2f} of {r['disk_gb_s']:.2f} GB/s; "
                f"{r['disk_token_bytes'] / GB:.2f} GB a token, "
                f"{r['disk_away_bytes'] / GB:.2f} GB do not fit")
        if r.get("experts_cached"):
            note += (f"; {r['experts_cached'] * 100:.0f} % of the experts in the cache, "
                     f"{r['expert_hit_rate'] * 100:.0f} % found there")
        return note

    def default_model(self):
        if not self.only.search("default-decode"):
            return
        p = subprocess.run([self.program, "bench", "-p", "512", "-n", "256", "--no-train", "--json"],
                           capture_output=True, text=True, check=False)
        if p.returncode != 0:
            self.put(key="default-decode", note=p.stderr.strip())
            return
        o = json.loads(p.stdout)
        mach = o["machine"]
        for r in o["runs"]:
            fast = r["test"] == "decode" and (r["tok_s"] >= 1500 or r["share"] >= 0.6)
            self.put(key=f"default-{r['test']}", model=o["model"]["name"], test=r["test"], n=r["n"],
                     depth=0, batch=1, value=f"{r['tok_s']:.0f}", unit="tok/s",
                     limit=f"{r['limit_tok_s']:.0f}", share=f"{r['share']:.3f}",
                     ok="aim" if fast else "", threads=mach["threads"], isa=mach["isa"],
                     read_gb_s=f"{r.get('read_gb_s') or mach['read_gb_s']:.1f}",
                     drift=f"{mach['drift']:.3f}")

    def limits(self):
        """The machine's limits against OpenBLAS and a plain loop; a wrong one ends the run."""
        exe = os.path.join(os.path.dirname(self.program), "bench", "check_limits")
        if not os.path.exists(exe) or not self.only.search("limits"):
            say("limits are not checked against OpenBLAS (ninja bench/check_limits builds the check)")
            return
        p = subprocess.run([exe], capture_output=True, text=True, check=False)
        for r in csv.DictReader(p.stdout.splitlines()):
            self.put(key="limits-" + r["limit"], value=r["ours"], limit=r["other"], share=r["ratio"],
                     must=1, ok="must" if p.returncode == 0 else "below",
                     note="ours to " + ("a plain read loop" if "read" in r["limit"] else
                                        "OpenBLAS sgemm"))
        if p.returncode != 0:
            raise SystemExit(p.stderr.strip())

    # -- all --

    def save(self):
        kept = []
        if os.environ.get("BENCH_ONLY") and os.path.exists(self.csv):
            new = {r["key"] for r in self.rows}
            with open(self.csv, newline="", encoding="utf-8") as f:
                kept = [r for r in csv.DictReader(f) if r["key"] not in new]
        with open(self.csv, "w", newline="", encoding="utf-8") as f:
            w = csv.DictWriter(f, COLUMNS, lineterminator="\n")
            w.writeheader()
            w.writerows(kept + self.rows)

    def run(self):
        try:
            self.limits()
            self.default_model()
            for m in MODELS:
                self.run_model(m)
            self.large_first_token()
            self.out_of_core()
        finally:
            if self.own_dir:
                shutil.rmtree(self.dir, ignore_errors=True)
        below = [r["key"] for r in self.rows if r["ok"] == "below"]
        say(f"written: {os.path.relpath(self.csv)}" + (f"; below: {', '.join(below)}" if below else ""))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    Bench(sys.argv[1]).run()
