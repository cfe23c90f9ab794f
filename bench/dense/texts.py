#!/usr/bin/env python3
r"""Texts for the dense model on which quantisers are judged (docs/quantisation.md).

    bench/dense/texts.py --poems poems.jsonl.gz --pairs sentences-en-zh.tsv.gz \
                         --plays shakespeare.txt --out DIR

Writes into DIR
    train.jsonl     documents of about CHARS characters: poems, sentence pairs, or a piece of a play
    poems.txt, pairs.txt, plays.txt
                    what training never saw: poems and pairs that the default model's split holds
                    out, and the end of the plays
    chats.jsonl     held-out poems and pairs as requests and answers, what the default model is made
                    for (bench/quant_answers.py)

The same files give the same bytes. Sources: models/default/README.md; the plays are Shakespeare's, in
one file with an empty line between speeches (.gz too). Standard library only.
"""
import argparse
import gzip
import json
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools", "default_model"))
import corpus  # noqa: E402

CHARS = 1200            # of a document, so that most fit a context of 512
POEM_CHARS = 1_500_000  # of the poems, to train on
HELD_POEMS = 14_000     # characters of each text to test with
HELD_OTHER = 40_000
PLAYS_TRAIN = 0.95      # of the plays
N_CHATS = 549


def poem_text(p):
    head = " ".join(part for part in (p.title or (p.tune[0] if p.tune else ""), p.author) if part)
    return (head + "\n" if head else "") + "\n".join(p.lines)


def joined(pieces, chars):
    """The pieces, an empty line between, as texts of about `chars` characters."""
    out, held, n = [], [], 0
    for s in pieces:
        held.append(s)
        n += len(s)
        if n >= chars:
            out.append("\n\n".join(held))
            held, n = [], 0
    return out + (["\n\n".join(held)] if held else [])


def first_chars(pieces, chars):
    return joined(pieces, chars)[0]


def speeches(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as f:
        return f.read().strip().split("\n\n")


def conversation(user, answer):
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]}


def ask_poem(p):
    return conversation(f"以《{p.title}》为题写一首{p.form}。", "\n".join(p.lines))


def ask_pair(pair, into_chinese):
    en, zh = pair
    if into_chinese:
        return conversation("Translate into Chinese: " + en, zh)
    return conversation("翻译成英文：" + zh, en)


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("poems", "pairs", "plays", "out"):
        a.add_argument("--" + name, required=True)
    o = a.parse_args()
    os.makedirs(o.out, exist_ok=True)
    rng = random.Random(1)
    poems = corpus.read_poems(o.poems)[0]
    pairs = corpus.read_pairs(o.pairs)
    rng.shuffle(poems)
    rng.shuffle(pairs)
    plays = speeches(o.plays)
    cut = int(PLAYS_TRAIN * len(plays))
    is_held = [corpus.bucket(p.first) == 0 for p in poems]
    some = first_chars([poem_text(p) for p, held in zip(poems, is_held) if not held], POEM_CHARS)
    docs = joined(some.split("\n\n"), CHARS // 2)  # in tokens a Chinese character is two of English
    docs += joined([f"{en}\n{zh}" for en, zh, held in pairs if not held], CHARS)
    docs += joined(plays[:cut], CHARS)
    rng.shuffle(docs)
    held_poems = [p for p, held in zip(poems, is_held) if held]
    held_pairs = [(en, zh) for en, zh, held in pairs if held]
    titled = [p for p in held_poems if p.title and p.form in ("五绝", "七绝")]
    chats = [ask_poem(p) for p in titled[:150]]
    chats += [ask_pair(p, i % 2 == 0) for i, p in enumerate(held_pairs)]
    rng.shuffle(chats)
    texts = {"poems": first_chars([poem_text(p) for p in held_poems], HELD_POEMS),
             "pairs": first_chars([f"{en}\n{zh}" for en, zh in held_pairs], HELD_OTHER),
             "plays": first_chars(plays[cut:], HELD_OTHER)}
    for name, lines in (("train", [{"text": d} for d in docs]), ("chats", chats[:N_CHATS])):
        with open(os.path.join(o.out, name + ".jsonl"), "w", encoding="utf-8") as f:
            f.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    for name, text in texts.items():
        with open(os.path.join(o.out, name + ".txt"), "w", encoding="utf-8") as f:
            f.write(text + "\n")


if __name__ == "__main__":
    main()
