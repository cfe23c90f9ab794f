#!/usr/bin/env python3
"""What the server gives, measured: bench/serve.py build/qiusuo build/bench/load FILE... [options]

For each model the server is started on a free port of 127.0.0.1, and bench/load/load.c asks it:

    single     one stream, in pairs with `qiusuo bench` of the same file: the two ratios' median
    streams    --streams at once (default 16), each with a prompt of --prompt tokens (default 256):
               tokens a second against one stream, time to the first token, time between tokens
    shared     prompts of 4,000 tokens that begin alike, one after another: what of them was cached
    turn       a prompt, then the same with 64 more tokens: how many were computed
    growth     --growth short requests (default 2,000): memory of the process before and after
    many       1,000 idle connections and 200 streams: none refused

Ratios are of one run on one machine; medians of --rounds (default 5). Written: bench/serve.csv with the
machine's rate of memory beside each row. --only REGEX: of these tests.
"""
import argparse
import csv
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time

COLUMNS = ["model", "test", "streams", "prompt", "tok_s", "against", "ratio", "first_p50", "first_p99",
           "between_p50", "between_p99", "cached", "failed", "rss_mb", "read_gb_s", "note"]


class Server:
    def __init__(self, program, path, more):
        self.p = subprocess.Popen([program, "serve", "-m", path, "--port", "0", "--access-log", "off",
                                   *more],
                                  stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.port = None
        for line in self.p.stderr:
            m = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if m:
                self.port = int(m.group(1))
                break
        if self.port is None:
            raise SystemExit(f"the server did not start on {path}")

    def rss(self):
        with open(f"/proc/{self.p.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1000

    def stop(self):
        self.p.send_signal(signal.SIGTERM)
        self.p.stderr.read()
        self.p.wait()


def bench(program, path, *args):
    out = subprocess.run([program, "bench", "-m", path, "--json", "--no-train", "-r", "1", *args],
                         capture_output=True, text=True, check=True).stdout
    return json.loads(out)


def vocab_of(program, path):
    out = subprocess.run([program, "info", path, "--json"], capture_output=True, text=True, check=True)
    return json.loads(out.stdout).get("n_vocab", 256)


class Bench:
    def __init__(self, o, path):
        self.o, self.path = o, path
        self.name = os.path.basename(path).removesuffix(".gguf")
        self.vocab = 1000
        self.seed = 1
        self.rows = []

    def load(self, server, **kw):
        self.seed += 1
        args = {"port": server.port, "vocab": self.vocab, "seed": self.seed, **kw}
        cmd = [self.o.load, "--json"]
        for k, v in args.items():
            cmd += [f"--{k}", str(v)]
        p = subprocess.run(cmd, capture_output=True, text=True)
        if not p.stdout:
            raise SystemExit(p.stderr)
        return json.loads(p.stdout)

    def row(self, test, r, rate, **kw):
        row = {"model": self.name, "test": test, "streams": r.get("streams", 1),
               "prompt": r.get("prompt", ""), "tok_s": f"{r['tok_s']:.4g}", "cached": r.get("cached", ""),
               "failed": r.get("failed", ""), "read_gb_s": f"{rate:.1f}" if rate else ""}
        for k in ("first", "between"):
            for q in ("p50", "p99"):
                row[f"{k}_{q}"] = f"{r[k + '_s'][q]:.4g}"
        row.update({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in kw.items()})
        self.rows.append(row)
        print("  ".join(f"{k} {v}" for k, v in row.items() if v != ""), flush=True)

    def decode_rate(self, r):
        """Tokens a second of a stream once it has begun."""
        return 1 / r["between_s"]["p50"] if r["between_s"]["p50"] > 0 else 0

    def single(self):
        ratios, last = [], None
        for _ in range(self.o.rounds):
            b = bench(self.o.program, self.path, "--prompt", "0", "--gen", str(self.o.tokens))
            ours = next(x for x in b["runs"] if x["test"] == "decode")["tok_s"]
            server = Server(self.o.program, self.path, self.o.server)
            last = self.load(server, prompt=16, tokens=self.o.tokens)
            server.stop()
            ratios.append(self.decode_rate(last) / ours)
        self.row("single", last, b["machine"]["read_gb_s"], against=ours,
                 ratio=statistics.median(ratios), note="of qiusuo bench's decode")

    def streams(self):
        server = Server(self.o.program, self.path, self.o.server)
        ratios, last = [], None
        for _ in range(self.o.rounds):
            one = self.load(server, prompt=self.o.prompt, tokens=self.o.tokens)
            last = self.load(server, prompt=self.o.prompt, tokens=self.o.tokens, streams=self.o.streams)
            together = self.o.streams / last["between_s"]["p50"]
            ratios.append(together / self.decode_rate(one))
        server.stop()
        self.row("streams", last, None, against=self.decode_rate(one), ratio=statistics.median(ratios),
                 note="tokens a second while all decode, of one stream's")

    def shared(self):
        server = Server(self.o.program, self.path, self.o.server)
        first = self.load(server, prompt=4032, shared=4000, tokens=4)
        self.seed -= 1
        again = self.load(server, prompt=4032, shared=4000, tokens=4, requests=4)
        server.stop()
        self.row("shared", again, None, against=first["first_s"]["p50"],
                 ratio=again["first_s"]["p50"] / first["first_s"]["p50"],
                 note="time to the first token, of the first prompt's")

    def growth(self):
        server = Server(self.o.program, self.path, self.o.server)
        self.load(server, prompt=16, tokens=2, streams=16, requests=500)
        before = server.rss()
        r = self.load(server, prompt=16, tokens=2, streams=16, requests=self.o.growth)
        after = server.rss()
        server.stop()
        self.row("growth", r, None, against=before, ratio=after / before, rss_mb=after,
                 note=f"memory after {self.o.growth} requests, of that before")

    def many(self):
        server = Server(self.o.program, self.path, [*self.o.server, "--max-connections", "1300"])
        r = self.load(server, prompt=16, tokens=4, streams=200, idle=1000)
        server.stop()
        self.row("many", r, None, note="1,000 idle connections beside them")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("program")
    p.add_argument("load")
    p.add_argument("files", nargs="+")
    p.add_argument("--streams", type=int, default=16)
    p.add_argument("--prompt", type=int, default=256)
    p.add_argument("--tokens", type=int, default=32)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--growth", type=int, default=2000)
    p.add_argument("--only", default=".")
    p.add_argument("--server", nargs=argparse.REMAINDER, default=[], help="options of the server")
    p.add_argument("--csv", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "serve.csv"))
    o = p.parse_args()
    rows = []
    for path in o.files:
        b = Bench(o, path)
        for test in ("single", "streams", "shared", "growth", "many"):
            if re.search(o.only, test):
                t = time.monotonic()
                getattr(b, test)()
                print(f"({test}: {time.monotonic() - t:.0f} s)", file=sys.stderr)
        rows += b.rows
    with open(o.csv, "w", newline="") as f:
        w = csv.DictWriter(f, COLUMNS, restval="")
        w.writeheader()
        w.writerows(rows)


if __name__ == "__main__":
    main()
