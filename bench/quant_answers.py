#!/usr/bin/env python3
"""quant_quality.py for answers: likelihood of the answers of conversations alone, what the default
model is made for and was trained on (its requests were never learned).

    bench/quant_answers.py build/qiusuo --chats chats.jsonl [--model FILE] [--types A,B]
                           [--folder DIR] [--library FILE] [--csv FILE]

chats.jsonl: conversations of one request and one answer (bench/dense/texts.py makes some), written with
the template deepseek-llm. Standard errors take conversations as independent. Needs llama-cpp-python;
without it exits 77. The exit code is 1 when a type is worse by more than two standard errors.
"""
import argparse
import csv
import ctypes as C
import json
import math
import os
import sys

from quant_quality import DEFAULT, OTHER, TYPES, pair, print_row, run, three_files


class Err(C.Structure):
    _fields_ = [("code", C.c_int), ("offset", C.c_int64), ("text", C.c_char * 640)]


class ScorePos(C.Structure):
    _fields_ = [("pos", C.c_int64), ("id", C.c_int32), ("n_top", C.c_int32), ("logprob", C.c_double),
                ("top", C.c_void_p)]


SCORE_FN = C.CFUNCTYPE(C.c_int, C.c_void_p, C.POINTER(ScorePos))


class Model:
    """A model file, opened through the shared library."""
    def __init__(self, library, path):
        self.q = C.CDLL(os.path.abspath(library))
        self.q.qs_model_tokenizer.restype = C.c_void_p
        self.q.qs_model_close.restype = self.q.qs_session_free.restype = None
        self.model, self.session, self.err = C.c_void_p(), C.c_void_p(), Err()
        self.check(self.q.qs_model_open(C.byref(self.model), path.encode(), None, C.byref(self.err)))
        self.check(self.q.qs_session_create(C.byref(self.session), self.model, None, C.byref(self.err)))
        self.tokenizer = C.c_void_p(self.q.qs_model_tokenizer(self.model))

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.err.text.decode())

    def encode(self, text):
        data = text.encode()
        ids, n = (C.c_int32 * (3 * len(data) + 1))(), C.c_size_t()
        self.check(self.q.qs_tokenizer_encode(self.tokenizer, data, C.c_size_t(len(data)), 3, ids,
                                              C.c_size_t(len(ids)), C.byref(n), C.byref(self.err)))
        return ids[:n.value]

    def logprobs(self, ids):
        out = []
        take = SCORE_FN(lambda user, p: out.append(p[0].logprob) or 0)
        self.check(self.q.qs_score(self.session, (C.c_int32 * len(ids))(*ids), C.c_size_t(len(ids)), 0,
                                   take, None, C.byref(self.err)))
        return out

    def answer(self, user, text):
        """-> negative log-likelihood of an answer with its end, and its tokens."""
        before = self.encode(f"User: {user}\n\nAssistant:")
        ids = self.encode(f"User: {user}\n\nAssistant: {text}<｜end▁of▁sentence｜>")
        assert ids[:len(before)] == before
        return -sum(self.logprobs(ids)[len(before):]), len(ids) - len(before)

    def close(self):
        self.q.qs_session_free(self.session)
        self.q.qs_model_close(C.byref(self.model))


def answers(o, path):
    """[(negative log-likelihood, tokens)] of every conversation."""
    m = Model(o.library, path)
    try:
        return [m.answer(*(turn["content"] for turn in c["messages"])) for c in o.conversations]
    finally:
        m.close()


def perplexity(scored):
    return math.exp(sum(v for v, _ in scored) / sum(n for _, n in scored))


def difference(ours, theirs):
    """Nats a token, ours less theirs, and its standard error over conversations (a ratio of sums)."""
    total = sum(n for _, n in ours)
    mean = sum(v - w for (v, _), (w, _) in zip(ours, theirs)) / total
    square = sum((v - w - mean * n) ** 2 for (v, n), (w, _) in zip(ours, theirs))
    return mean, math.sqrt(square) / total


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    a.add_argument("program")
    a.add_argument("--chats", required=True)
    a.add_argument("--model", default=DEFAULT)
    a.add_argument("--types", default=",".join(TYPES))
    a.add_argument("--folder", default="/tmp")
    a.add_argument("--library")
    a.add_argument("--csv")
    o = a.parse_args()
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        print("skipped: llama-cpp-python is not installed")
        return 77
    o.library = o.library or os.path.join(os.path.dirname(os.path.abspath(o.program)), "libqiusuo.so")
    with open(o.chats, encoding="utf-8") as f:
        o.conversations = [json.loads(line) for line in f]
    rows = []
    with three_files(o.folder, "answers") as (base, ours, theirs):
        run(o.program, "quantize", o.model, base, "--type", "F16")
        plain = answers(o, base)
        print("F16: perplexity %.3f of %d tokens in %d answers\n" % (
            perplexity(plain), sum(n for _, n in plain), len(plain)))
        print_row(["type", "perplexity, ours", "theirs", "nats above F16, ours", "theirs",
                   "ours less theirs"])
        print("|" + "---|" * 6, flush=True)
        for t in o.types.split(","):
            run(o.program, "quantize", base, ours, "--type", t)
            run(sys.executable, "-c", OTHER, base, theirs, *map(str, TYPES[t]))
            x, y = answers(o, ours), answers(o, theirs)
            d = [difference(*two) for two in ((x, plain), (y, plain), (x, y))]
            rows.append([t, perplexity(x), perplexity(y), *(v for two in d for v in two)])
            print_row([t, "%.3f" % perplexity(x), "%.3f" % perplexity(y), *map(pair, d)])
    if o.csv:
        with open(o.csv, "w", encoding="utf-8", newline="") as f:
            w = csv.writer(f)
            w.writerow("type,ppl_ours,ppl_theirs,ours,ours_se,theirs,theirs_se,difference,se".split(","))
            w.writerows(rows)
    return 1 if any(r[7] > 2 * r[8] for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
