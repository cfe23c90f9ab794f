#!/usr/bin/env python3
"""Compares the ids of this library with Hugging Face `tokenizers` on a great many texts.

    compare_tokenizer.py LIBQIUSUO.so VOCAB.gguf [--texts 100000] [--seed 1] [--files FILE...]

Texts: every code point in a row of contexts, random strings of several kinds, and files by the line.
Checks ids, and that decoding gives the text back. With llama-cpp-python installed, counts how often
that third implementation agrees. Exit status 1 when an id differs.
"""
import argparse
import ctypes
import sys

from golden_tok import texts
from reference import code_points, load_reference, read_gguf


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("offset", ctypes.c_int64), ("text", ctypes.c_char * 640)]


class Ours:
    """The library's tokenizer, through its public C API."""

    def __init__(self, library, path):
        self.lib, self.err, self.handle = ctypes.CDLL(library), Error(), ctypes.c_void_p()
        self.check(self.lib.qs_tokenizer_open(ctypes.byref(self.handle), path.encode(),
                                              ctypes.byref(self.err)))

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.err.text.decode())

    def encode(self, text, flags=2):
        data, n = text.encode(), ctypes.c_size_t()
        ids = (ctypes.c_int32 * (3 * len(data) + 1))()
        self.check(self.lib.qs_tokenizer_encode(
            self.handle, data, ctypes.c_size_t(len(data)), flags, ids,
            ctypes.c_size_t(3 * len(data) + 1), ctypes.byref(n), ctypes.byref(self.err)))
        return ids[:n.value]

    def decode(self, ids):
        cap, n = 256 + 128 * len(ids), ctypes.c_size_t()
        out = ctypes.create_string_buffer(cap)
        self.check(self.lib.qs_tokenizer_decode(
            self.handle, (ctypes.c_int32 * len(ids))(*ids), ctypes.c_size_t(len(ids)), 1, out,
            ctypes.c_size_t(cap), ctypes.byref(n), ctypes.byref(self.err)))
        return out.raw[:n.value].decode()


def in_context():
    """Every code point in a row of contexts, a few code points a text."""
    for c in code_points():
        x = chr(c)
        yield f"{x}a {x}{x} .{x}1{x}中{x} {x}\n {x}  {x}é\u3000{x}ü{x}"


def lines(paths):
    for path in paths:
        with open(path, encoding="utf-8", newline="") as f:
            yield from f


def third_opinion(path):
    try:
        import llama_cpp
    except ImportError:
        return None
    return llama_cpp.Llama(model_path=path, vocab_only=True, verbose=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("vocab")
    parser.add_argument("--texts", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", nargs="*", default=[])
    a = parser.parse_args()
    ours, reference = Ours(a.library, a.vocab), load_reference(read_gguf(a.vocab))
    third = third_opinion(a.vocab)
    n = differ = third_agrees = third_asked = 0
    for source in (in_context(), texts(a.seed, a.texts), lines(a.files)):
        for text in source:
            n += 1
            want, got = reference.encode(text, add_special_tokens=False).ids, ours.encode(text)
            if want != got or ours.decode(got) != text:
                differ += 1
                if differ <= 20:
                    print("DIFFERS", ascii(text), "reference", want, "ours", got)
            if third is not None and n % 97 == 0:
                third_asked += 1
                third_agrees += third.tokenize(text.encode(), add_bos=False, special=True) == got
    print(f"{n} texts, {differ} differ; llama.cpp agrees on {third_agrees} of {third_asked}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
