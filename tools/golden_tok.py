#!/usr/bin/env python3
"""Goldens of the tokenizers, from Hugging Face `tokenizers`.

    golden_tok.py pieces > tests/golden/tok/pieces.tsv
    golden_tok.py ids VOCAB.gguf > tests/golden/tok/ids.tsv

pieces: one line per text: pre-tokenizer, the text's UTF-8 in hex, the pieces' lengths in bytes.
ids: the text in hex, its ids (no BOS) with the vocabulary of the GGUF file.
"""
import random
import sys

from reference import PRETOKENIZERS, code_points, load_reference, read_gguf

POOL = list(" \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u2029\u3000\u200b\ufeffaZmÀøüñıſßΩω你好中文日本語かなカナ한국어"
            "एक१२३٣٤0123456789⅐Ⅷ①㊀.,!?;:'\"()[]{}<>|/\\@#$%^&*-_=+~`！？，。、；：“”‘’—…～￥€₿×÷√∞≠→"
            "\u0301\u0308\u20e3\ufe0f\u200d😀😁👨👩👧🇨🇳𐐀𝐀𠀀\U000e0001\u0e33ก\u0e48\u05d0\u0627\u064b")
WORDS = [" ", "  ", "\n", "\r\n", "\t", "hello", "World", "don't", "12345", "3.14", "你好", "。", "中",
         "\u3000", "naïve", "!!", "...", " (", ")", "©", "x", "\xa0"]


def texts(seed, n):
    """Random strings of several kinds: a mixed pool, any code point, words and spaces."""
    r = random.Random(seed)
    every = code_points()
    for _ in range(n):
        kind = r.random()
        k = r.randint(1, 24)
        if kind < 0.6:
            yield "".join(r.choice(POOL) for _ in range(k))
        elif kind < 0.8:
            yield "".join(r.choice(POOL) if r.random() < 0.6 else chr(r.choice(every))
                          for _ in range(k))
        else:
            yield "".join(r.choice(WORDS) for _ in range(k))


def pieces():
    for pre, reference in PRETOKENIZERS.items():
        for text in texts(1, 500):
            lengths = [len(p.encode()) for p, _ in reference.pre_tokenize_str(text)]
            print(pre, text.encode().hex(), ",".join(map(str, lengths)), sep="\t")


def ids(path):
    reference = load_reference(read_gguf(path))
    for text in texts(2, 500):
        print(text.encode().hex(), " ".join(map(str, reference.encode(text).ids)), sep="\t")


if __name__ == "__main__":
    pieces() if sys.argv[1] == "pieces" else ids(sys.argv[2])
