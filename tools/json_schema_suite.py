#!/usr/bin/env python3
"""Runs the official JSON Schema test suite against the grammars of src/infer/grammar_schema.c.

usage: json_schema_suite.py CHECKER SUITE [--draft draft2020-12]... [--table] [-v]

CHECKER is build/tests/tools/grammar_check, SUITE the folder `json` of the suite. It lies in the source
package of PyPI's jsonschema:

    pip download --no-binary :all: --no-deps jsonschema && tar xzf jsonschema-*.tar.gz

A schema is compiled or refused. For a compiled one every instance is written in its canonical spelling
(no white space, whole numbers without a point) with its members in every order that may be the
declared one, up to a bound. An invalid instance must be rejected in all of them, a valid one accepted
in one of them. Exits 1 when one of the two does not hold. Skipped: format.json (formats are asserted
here, where the suite holds them for annotations), and instances that UTF-8 cannot write.
"""
import argparse
import itertools
import json
import math
import os
import subprocess
import sys
from decimal import Decimal

MAX_ORDERS = 150
SKIPPED = {"format.json"}
MAX_DIGITS = 19  # of a number, in front of its point; docs/structured-output.md


class Checker:
    def __init__(self, path):
        self.proc = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, kind, text):
        data = text.encode("utf-8")
        self.proc.stdin.write(b"%s %d\n%s" % (kind.encode(), len(data), data))
        self.proc.stdin.flush()
        answer = self.proc.stdout.readline().decode("utf-8", "replace").strip()
        if not answer:
            raise SystemExit(f"the checker ended at: {kind} {text[:300]}")
        return answer


def declared_names(schema, out):
    """Names in the order in which the schema mentions them."""
    if isinstance(schema, dict):
        for key in ("properties", "required"):
            for name in schema.get(key) or [] if isinstance(schema.get(key), (dict, list)) else []:
                if isinstance(name, str):
                    out.setdefault(name, len(out))
        for v in schema.values():
            declared_names(v, out)
    elif isinstance(schema, list):
        for v in schema:
            declared_names(v, out)
    return out


def number(x):
    if isinstance(x, float):
        if math.isfinite(x) and x == int(x):
            return str(int(x))
        return format(Decimal(repr(x)), "f")
    return str(x)


def spellings(value, order):
    """The value's canonical texts, one per order of members; the declared order first."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda k: order.get(k, len(order)))
        for perm in itertools.permutations(keys):
            parts = [list(itertools.islice(spellings(value[k], order), 24)) for k in perm]
            for combo in itertools.product(*parts):
                yield "{" + ",".join(json.dumps(k, ensure_ascii=False) + ":" + v for k, v in zip(perm, combo)) + "}"
    elif isinstance(value, list):
        parts = [list(itertools.islice(spellings(v, order), 24)) for v in value]
        for combo in itertools.product(*parts):
            yield "[" + ",".join(combo) + "]"
    elif isinstance(value, bool) or value is None:
        yield json.dumps(value)
    elif isinstance(value, (int, float)):
        yield number(value)
    else:
        yield json.dumps(value, ensure_ascii=False)


def has_long_number(value):
    if isinstance(value, dict):
        return any(has_long_number(v) for v in value.values())
    if isinstance(value, list):
        return any(has_long_number(v) for v in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) >= 10 ** MAX_DIGITS


def writable(text):
    try:
        text.encode("utf-8")
        return True
    except UnicodeEncodeError:
        return False


class Counts:
    def __init__(self):
        self.schemas = self.compiled = self.valid = self.invalid = self.skipped = 0
        self.refused_for = {}
        self.wrong = []


def run_group(checker, group, counts, verbose, where):
    counts.schemas += 1
    if where.startswith("draft7/") and isinstance(group["schema"], dict):
        group["schema"].setdefault("$schema", "http://json-schema.org/draft-07/schema#")
    schema = json.dumps(group["schema"], ensure_ascii=False)
    if not writable(schema):
        counts.skipped += 1
        return
    answer = checker.ask("schema", schema)
    nothing = answer.startswith("refused -4")  # no answer is possible: every instance is rejected
    if answer.startswith("refused") and not nothing:
        code, _, why = answer[8:].partition(": ")
        keyword = why.split('"')[1] if why.startswith('"') else why[:40]
        counts.refused_for[keyword] = counts.refused_for.get(keyword, 0) + 1
        if verbose:
            print(f"refused: {where} / {group['description']}: {why}")
        if code not in ("-6", "-9"):
            counts.wrong.append(f"{where} / {group['description']}: {answer}")
        return
    counts.compiled += 1
    order = declared_names(group["schema"], {})
    for test in group["tests"]:
        texts = [t for t in itertools.islice(spellings(test["data"], order), MAX_ORDERS) if writable(t)]
        if not texts or (test["valid"] and has_long_number(test["data"])):
            counts.skipped += 1
            continue
        accepted = False
        for text in texts:
            said = "reject" if nothing else checker.ask("text", text)
            accepted = accepted or said == "accept"
            if said not in ("accept", "reject"):
                counts.wrong.append(f"{where} / {group['description']} / {test['description']}: {said}")
            if accepted:
                break
        if accepted != test["valid"]:
            counts.wrong.append(f"{where} / {group['description']} / {test['description']}: "
                                f"{'accepts' if accepted else 'rejects'} {texts[0][:200]}")
        elif test["valid"]:
            counts.valid += 1
        else:
            counts.invalid += 1


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checker")
    ap.add_argument("suite")
    ap.add_argument("--draft", action="append")
    ap.add_argument("--table", action="store_true", help="Markdown")
    ap.add_argument("-v", action="store_true", help="name what is refused")
    args = ap.parse_args()
    checker = Checker(args.checker)
    bad = 0
    for draft in args.draft or ["draft2020-12", "draft7"]:
        folder = os.path.join(args.suite, "tests", draft)
        total = Counts()
        row = "| {} | {} of {} | {} | {} | {} |" if args.table else "{:28} compiled {}/{} valid {} invalid {} {}"
        print(f"\n{draft}\n")
        if args.table:
            print("| keyword | schemas compiled | valid accepted | invalid rejected | refused for |\n|---|---|---|---|---|")
        for name in sorted(os.listdir(folder)):
            if not name.endswith(".json") or name in SKIPPED:
                continue
            counts = Counts()
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                for group in json.load(f):
                    run_group(checker, group, counts, args.v, f"{draft}/{name}")
            refused = ", ".join(f"{k} {n}" for k, n in sorted(counts.refused_for.items()))
            print(row.format(name[:-5], counts.compiled, counts.schemas, counts.valid, counts.invalid, refused))
            for line in counts.wrong:
                print("WRONG:", line)
            bad += len(counts.wrong)
            for k in ("schemas", "compiled", "valid", "invalid", "skipped"):
                setattr(total, k, getattr(total, k) + getattr(counts, k))
        print(row.format("all", total.compiled, total.schemas, total.valid, total.invalid,
                         f"({total.skipped} skipped)"))
    print(f"\n{bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
