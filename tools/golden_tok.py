#!/usr/bin/env python3
"""Goldens of the tokenizers, from Hugging Face `tokenizers`.

    golden_tok.py tests/golden/tok

Reads text.txt there (written for this purpose) and writes
    pieces.tsv       pre-tokenizer, text (UTF-8 in hex), lengths of its pieces in bytes
    merges.txt       the merges that the reference's trainer learns from the text's ASCII lines
    tokenizer.json   a small vocabulary from the reference's trainer, with the peculiarities of the
                     published ones: 13 bytes without a symbol, added tokens of one character
    ids.tsv          text, ids without BOS; control tokens in the text match
    nfc.tsv          text, the same in NFC
    llama-bpe/       the same three for the vocabularies of R1's distilled models: pieces.tsv,
    deepseek-r1-qwen/  tokenizer.json (with the tokens DeepSeek added) and ids.tsv
"""
import json
import os
import random
import sys

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from reference import PRETOKENIZERS, STEPS, WHOLE, code_points, load_reference

POOL = list(" \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u2029\u3000\u200b\ufeffaZmÀøüñıſßΩω你好中文日本語かなカナ한국어"
            "एक१२३٣٤0123456789⅐Ⅷ①㊀.,!?;:'\"()[]{}<>|/\\@#$%^&*-_=+~`！？，。、；：“”‘’—…～￥€₿×÷√∞≠→"
            "\u0301\u0308\u20e3\ufe0f\u200d😀😁👨👩👧🇨🇳𐐀𝐀𠀀\U000e0001\u0e33ก\u0e48\u05d0\u0627\u064b")
WORDS = [" ", "  ", "\n", "\r\n", "\t", "hello", "World", "don't", "12345", "3.14", "你好", "。", "中",
         "\u3000", "naïve", "!!", "...", " (", ")", "©", "x", "\xa0"]
BOS, EOS, FIM = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜fim▁hole｜>"
DISTILL_MARKS = ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]
MARKS = [BOS, EOS, FIM, "<｜fim▁", "<|", "[PAD3]", "ÿ", "ü"]


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


def marked_texts(seed, n):
    """Parts of texts with added tokens between them."""
    r = random.Random(seed)
    for text in texts(seed + 1, n):
        k = r.randrange(len(text))
        yield text[:k] + r.choice(MARKS) + text[k:]


CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'\u017f", "\u2019s", "'", "''", "'x", "'l", "'v"]


def contracted_texts(seed, n):
    """Words, contractions in any case, numbers and line ends, with blanks between some."""
    r = random.Random(seed)
    for _ in range(n):
        out = ""
        for _ in range(r.randint(1, 12)):
            part = r.choice(CONTRACTIONS if r.random() < 0.5 else WORDS)
            out += "".join(c.upper() if r.random() < 0.3 else c for c in part)
            out += r.choice(["", "", " "])
        yield out


def unnormal_texts(seed, n):
    """Characters that NFC takes apart, changes, joins or sorts, Hangul by its letters among them."""
    r = random.Random(seed)
    nfd = normalizers.NFD()
    whole = [c for c in code_points() if nfd.normalize_str(chr(c)) != chr(c)]
    marks = sorted({c for w in whole for c in nfd.normalize_str(chr(w))[1:]})
    letters = [chr(c) for c in (*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A7, 0x11C3))]
    for _ in range(n):
        out = ""
        for _ in range(r.randint(1, 10)):
            kind = r.random()
            w = chr(r.choice(whole))
            out += (w if kind < 0.3 else nfd.normalize_str(w) if kind < 0.5 else
                    "".join(r.choice(marks) for _ in range(r.choice([1, 2, 40]))) if kind < 0.7 else
                    r.choice(letters) + r.choice(letters) if kind < 0.8 else r.choice(POOL))
        yield out


def train(text, n_vocab, pre="deepseek-llm"):
    """Tokens and merges of the reference's trainer; the alphabet comes first."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        STEPS[pre] + [pre_tokenizers.ByteLevel(add_prefix_space=False,
                                                          use_regex=False)])
    tok.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=n_vocab, min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    merges = json.loads(tok.to_str())["model"]["merges"]
    vocab = tok.get_vocab()
    return sorted(vocab, key=vocab.get), [" ".join(m) for m in merges]


def small_vocab(text):
    """Like the published vocabularies: bytes that UTF-8 never has are added tokens instead."""
    tokens, merges = train(text, 1000)
    absent = [chr(b) for b in (0xC0, 0xC1, *range(0xF5, 0x100))]
    ordinary = [t for t in tokens if t not in absent]
    added = [(BOS, 3), (EOS, 3), (FIM, 4)] + [(c, 4) for c in absent]
    return {"tokens": ordinary + [t for t, _ in added],
            "types": [1] * len(ordinary) + [kind for _, kind in added],
            "merges": merges, "pre": "deepseek-llm"}


def distill_vocab(text, pre):
    """Like those of the distilled models. Where whole tokens come first, a seventh of the merges is
    left out, so that some tokens are found in no other way."""
    tokens, merges = train(text, 700, pre)
    if pre in WHOLE:
        merges = [m for i, m in enumerate(merges) if i % 7 != 3]
    added = [(BOS, 3), (EOS, 3)] + [(t, 4) for t in DISTILL_MARKS]
    return {"tokens": tokens + [t for t, _ in added], "merges": merges, "pre": pre,
            "types": [1] * len(tokens) + [kind for _, kind in added]}


def pieces(pre, source):
    reference = PRETOKENIZERS[pre]
    return ("\t".join([pre, t.encode().hex(),
                       ",".join(str(len(p.encode())) for p, _ in reference.pre_tokenize_str(t))])
            for t in source)


def ids(reference, *sources):
    return (t.encode().hex() + "\t" + " ".join(map(str, reference.encode(t).ids))
            for source in sources for t in source)


def write_distill(folder, text, pre):
    os.makedirs(folder, exist_ok=True)
    write(os.path.join(folder, "pieces.tsv"),
          list(pieces(pre, texts(5, 300))) + list(pieces(pre, contracted_texts(6, 200))))
    reference = load_reference(distill_vocab(text, pre))
    reference.save(os.path.join(folder, "tokenizer.json"), pretty=False)
    write(os.path.join(folder, "ids.tsv"),
          ids(reference, text.splitlines(True), texts(7, 150), contracted_texts(8, 100),
              marked_texts(9, 50)))


def write(path, lines):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.writelines(line + "\n" for line in lines)


def main():
    folder = sys.argv[1]
    with open(os.path.join(folder, "text.txt"), encoding="utf-8") as f:
        text = f.read()
    write(os.path.join(folder, "pieces.tsv"), (
        line for pre in ("deepseek-llm", "deepseek-coder", "deepseek-v3")
        for line in pieces(pre, texts(1, 500))))
    english = "".join(line for line in text.splitlines(True) if line.isascii())
    write(os.path.join(folder, "merges.txt"), train(english, 700)[1])
    reference = load_reference(small_vocab(text))
    reference.save(os.path.join(folder, "tokenizer.json"), pretty=False)
    write(os.path.join(folder, "ids.tsv"),
          ids(reference, text.splitlines(True), texts(2, 300), marked_texts(3, 100)))
    nfc = normalizers.NFC()
    write(os.path.join(folder, "nfc.tsv"), (
        t.encode().hex() + "\t" + nfc.normalize_str(t).encode().hex()
        for source in (texts(10, 150), unnormal_texts(11, 350)) for t in source))
    for pre in ("llama-bpe", "deepseek-r1-qwen"):
        write_distill(os.path.join(folder, pre), text, pre)


if __name__ == "__main__":
    main()
