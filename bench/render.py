#!/usr/bin/env python3
"""Puts the tables of docs/speed.md between their markers, from bench/table.csv, where.csv, llama.csv.

    bench/render.py            rewrites docs/speed.md
    bench/render.py --check    exits 1 when it is not what the CSV files say
"""
import csv
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
PAGE = os.path.join(ROOT, "docs", "speed.md")


def read(name):
    path = os.path.join(ROOT, "bench", name)
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def percent(text):
    return f"{float(text) * 100:.0f} %" if text else ""


def table(head, rows):
    if not rows:
        return "Not measured yet.\n"
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows]) + "\n"


def what(r):
    depth = f", depth {r['depth']}" if r["depth"] not in ("", "0") else ""
    batch = f", {r['batch']} sequences" if r["batch"] not in ("", "1") else ""
    kv = f", {r['kv']} cache" if r["kv"] not in ("", "f16") else ""
    return f"{r['test']} of {r['n']}{depth}{batch}{kv}"


def goal(r):
    if not r["must"]:
        return ""
    scale = percent if r["unit"] == "tok/s" else lambda x: f"{float(x):g}" if x else ""
    return scale(r["must"]) + (f" / {scale(r['aim'])}" if r["aim"] else "")


def models(rows):
    out = []
    for r in rows:
        if r["test"] not in ("prefill", "decode") or "memory" in r["key"]:
            continue
        if not r["value"]:
            out.append([r["model"], r["type"], what(r), "", "", "", goal(r), "", "", r["note"]])
            continue
        mach = (f"{float(r['read_gb_s']):.0f} GB/s" if r["test"] == "decode" else
                " / ".join(r[k] for k in ("int8_gop_s", "bf16_gflop_s", "fp32_gflop_s") if r[k]))
        layers = f" ({r['layers']} layers)" if r["layers"] else ""
        out.append([r["model"] + layers, r["type"], what(r), r["value"], r["limit"],
                    percent(r["share"]), goal(r), r["ok"], mach, percent(r["drift"])])
    return table(["model", "type", "test", "tokens/s", "limit", "share", "must / aim", "reached",
                  "machine", "drift, note"], out)


def others(rows):
    out = []
    for r in rows:
        if r["test"] in ("prefill", "decode") and "memory" not in r["key"]:
            continue
        if r["key"].startswith("limits"):
            out.append([r["key"], f"{r['value']} against {r['limit']}", r["share"], r["ok"],
                        r["note"]])
        else:
            out.append([r["key"], f"{r['value']} {r['unit']}".strip(), goal(r), r["ok"], r["note"]])
    return table(["row", "measured", "must / aim", "reached", "note"], out)


def llama(rows):
    out = [[r["model"], f"{r['test']} of {r['n']}" + (f", depth {r['depth']}"
                                                      if r["depth"] != "0" else ""),
            r["ours_tok_s"], r["llama_tok_s"], r["ratio"], f"{r['ratio_low']} to {r['ratio_high']}",
            r["pairs"], f"{r['read_gb_s']} GB/s"] for r in rows]
    return table(["model", "test", "ours, tokens/s", "llama.cpp", "ratio", "interval", "pairs",
                  "memory"], out)


def where(rows):
    tests, kinds = [], []
    for r in rows:
        t = (r["model"], r["test"])
        tests += [t] if t not in tests else []
        kinds += [r["work"]] if r["work"] not in kinds else []
    share = {(r["model"], r["test"], r["work"]): f"{float(r['share']) * 100:.1f} %" for r in rows}
    return table(["work"] + [f"{m.removesuffix('.gguf')}, {t}" for m, t in tests],
                 [[k] + [share.get((*t, k), "") for t in tests] for k in kinds])


def main():
    parts = {"models": models(read("table.csv")), "others": others(read("table.csv")),
             "where": where(read("where.csv")), "llama": llama(read("llama.csv"))}
    with open(PAGE, encoding="utf-8") as f:
        old = f.read()
    new = old
    for name, text in parts.items():
        pattern = rf"(?s)(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        if not re.search(pattern, new):
            raise SystemExit(f"docs/speed.md has no place for {name}")
        new = re.sub(pattern, lambda m: m.group(1) + text + m.group(2), new)
    if "--check" in sys.argv:
        raise SystemExit(0 if new == old else "docs/speed.md is not what bench/*.csv say: run bench/render.py")
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write(new)


if __name__ == "__main__":
    main()
