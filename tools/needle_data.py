#!/usr/bin/env python3
"""Texts of keys and values for the needle model: tools/needle_data.py --tokens 2048 --count 20000 > texts.jsonl

A text is a row of sentences: filler, facts ("The code of bako is mopi.") and questions about facts that
came earlier ("What is the code of bako? mopi."). Every key has one value in a text. Words are made of
syllables, so that each becomes one token of a small learned vocabulary; keys and values are drawn anew
for each text, so that answers can only be read from the text itself. Lengths are given in words and
marks, which is what the tokens of that vocabulary are.

--needles asks instead for texts to test with: jsonl of {"text", "asks": [{"depth", "key", "value"}]}: one
fact at each tenth of the depth, each with a key of its own, among filler and other facts.
"""
import argparse
import json
import random

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
FILLER = [
    "The rain fell on the old roof all night long.",
    "A small boat crossed the wide river at dawn.",
    "Nobody in the village knew who had lit the lamp.",
    "The wind turned and carried the smoke to the sea.",
    "He counted the stones twice and walked home.",
    "They sold bread, salt and apples on the square.",
    "In winter the mill stood still under the snow.",
    "She wrote a long letter and sent it with the post.",
    "The clock in the tower was late again.",
    "A dog slept in the shade beside the well.",
    "The children drew a map of the hills.",
    "At noon the market was empty and hot.",
]


def words():
    """All words of two syllables in a fixed order; the first half are keys, the rest values."""
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    out = [a + b for a in syllables for b in syllables if a != b]
    random.Random(7).shuffle(out)
    return out[:500], out[500:900]


KEYS, VALUES = words()


def length(sentence):
    return sum(sentence.count(m) for m in ".,?") + len(sentence.split())


def fact(key, value):
    return f"The code of {key} is {value}."


def question(key, value):
    return f"What is the code of {key}? {value}."


def text(rng, tokens):
    keys = rng.sample(KEYS, len(KEYS))
    facts, out, n = [], [], 0
    density = rng.choice((0.1, 0.25, 0.5))
    while True:
        u = rng.random()
        if u < density * 0.5 and len(facts) < len(keys):
            facts.append((keys[len(facts)], rng.choice(VALUES)))
            s = fact(*facts[-1])
        elif u < density and facts:
            s = question(*rng.choice(facts))
        else:
            s = rng.choice(FILLER)
        if n + length(s) > tokens:
            return " ".join(out)
        n += length(s)
        out.append(s)


def needle_text(rng, tokens, others):
    """A fact in the middle of each tenth of the text, `others` more facts anywhere."""
    keys = rng.sample(KEYS, 10 + others)
    asks = [{"depth": d, "key": keys[d], "value": rng.choice(VALUES)} for d in range(10)]
    rest = [fact(k, rng.choice(VALUES)) for k in keys[10:]]
    room = tokens - 30
    total, sentences = sum(length(fact(a["key"], a["value"])) for a in asks), []
    for s in rest:
        sentences.append(s)
        total += length(s)
    while True:
        s = rng.choice(FILLER)
        if total + length(s) > room:
            break
        sentences.append(s)
        total += length(s)
    rng.shuffle(sentences)
    out, n, todo = [], 0, list(asks)
    for s in sentences:
        if todo and n >= (todo[0]["depth"] + 0.5) / 10 * room:
            a = todo.pop(0)
            out.append(fact(a["key"], a["value"]))
            n += length(out[-1])
        out.append(s)
        n += length(s)
    out += [fact(a["key"], a["value"]) for a in todo]
    return {"text": " ".join(out), "asks": asks}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--tokens", type=int, default=2048, help="longest text")
    p.add_argument("--shortest", type=int, default=128)
    p.add_argument("--count", type=int, default=1000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--needles", action="store_true")
    p.add_argument("--others", type=int, default=60, help="with --needles: facts nobody asks for")
    a = p.parse_args()
    rng = random.Random(a.seed)
    for _ in range(a.count):
        if a.needles:
            print(json.dumps(needle_text(rng, a.tokens, a.others)))
        else:
            n = int(a.shortest * (a.tokens / a.shortest) ** rng.random() ** 0.7)
            print(json.dumps({"text": text(rng, n)}))


if __name__ == "__main__":
    main()
