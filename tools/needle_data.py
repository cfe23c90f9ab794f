#!/usr/bin/env python3
"""Texts of keys and values for the needle model (docs/long-context.md).

    tools/needle_data.py copies --shortest 24 --longest 64 --tokens 3000000 > copies.jsonl
    tools/needle_data.py chats --shortest 256 --longest 2048 --tokens 4000000 > chats.jsonl
    tools/needle_data.py chats --shortest 7400 --longest 7850 --tokens 400000 --early 0.6 > early.jsonl
    tools/needle_data.py needles --longest 8192 --count 100 > needles.jsonl

Every text draws its keys and values anew, so that an answer can only be read from the text itself.
Words are made of two syllables, so that each becomes one token of a small learned vocabulary; keys,
values and the words of the filler are three sets without a common word.

copies   {"messages"}: words in random order, none twice, and as the answer the same words. Whoever
         learns this has learned to look for an earlier copy of a word and to say what came next.
chats    {"messages"}: a text of sentences with facts ("bako mopi.") among them, and then question
         after question: "bako", answered "bako mopi". Only answers are learned from.
needles  {"text", "asks": [{"depth", "key", "value"}]}: to test with: one fact in the middle of every
         tenth of the text, each with a key of its own, among filler and other facts.

Lengths are in tokens of that vocabulary: words and full stops, and COST for the words around a turn.
"""
import argparse
import json
import random

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
COST = 10  # tokens of a question with its answer
ROOM = 24  # tokens of the turn around the text


def words():
    """Keys, values and filler words: all words of two syllables in a fixed order, the first ones."""
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    out = [a + b for a in syllables for b in syllables if a != b]
    random.Random(7).shuffle(out)
    return out[:256], out[256:384], out[384:512]


KEYS, VALUES, FILLER = words()


def fact(key, value):
    return f"{key} {value}."


def length(sentence):
    return len(sentence.split()) + 1


def filler(rng):
    return " ".join(rng.choices(FILLER, k=rng.randint(4, 12))) + "."


def some_facts(rng, n):
    return {k: rng.choice(VALUES) for k in rng.sample(KEYS, n)}


def copy(rng, tokens):
    text = " ".join(rng.sample(KEYS + VALUES + FILLER, max(4, (tokens - COST) // 2)))
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}


def scatter(rng, facts, room):
    """The facts in random order, filler between them, room tokens in all."""
    out = [fact(k, v) for k, v in facts.items()]
    n = sum(map(length, out))
    while True:
        s = filler(rng)
        if n + length(s) > room:
            break
        out.append(s)
        n += length(s)
    rng.shuffle(out)
    return out


def ask(key, value):
    return [{"role": "user", "content": key}, {"role": "assistant", "content": f"{key} {value}"}]


def first_tenth(sentences, facts):
    """Keys of the facts that stand in the first tenth of the text."""
    by_text, out, n = {fact(k, v): k for k, v in facts.items()}, [], 0
    total = sum(map(length, sentences))
    for s in sentences:
        if n > total / 10:
            break
        if s in by_text:
            out.append(by_text[s])
        n += length(s)
    return out


def chat(rng, tokens, early):
    n_asks = min(32, max(2, (tokens - ROOM) // COST // 2))
    room = tokens - ROOM - n_asks * COST
    most = min(len(KEYS), 120, room // 4)
    facts = some_facts(rng, max(2, int(most * rng.random())))
    keys = rng.sample(list(facts), len(facts))
    sentences = scatter(rng, facts, room)
    begin = first_tenth(sentences, facts) if early > 0 else []
    asked = [rng.choice(begin) if begin and rng.random() < early else keys[i % len(keys)]
             for i in range(n_asks)]
    text = " ".join(sentences)
    turns = [turn for k in asked for turn in ask(k, facts[k])]
    turns[0]["content"] = f"{text} ? {turns[0]['content']}"
    return {"messages": turns}


def needle_text(rng, tokens, others):
    """A fact in the middle of each tenth of the text, `others` more facts anywhere."""
    facts = some_facts(rng, 10 + others)
    keys = list(facts)
    asks = [{"depth": d, "key": keys[d], "value": facts[keys[d]]} for d in range(10)]
    room = tokens - ROOM - 10 * COST
    rest = scatter(rng, {k: facts[k] for k in keys[10:]}, room - 30)
    total = sum(map(length, rest))
    out, n, todo = [], 0, list(asks)
    for s in rest:
        n += length(s)
        if todo and n > (todo[0]["depth"] + 0.5) / 10 * total:
            a = todo.pop(0)
            out.append(fact(a["key"], a["value"]))
        out.append(s)
    return {"text": " ".join(out), "asks": asks}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("kind", choices=("copies", "chats", "needles"))
    p.add_argument("--shortest", type=int, default=64)
    p.add_argument("--longest", type=int, default=2048)
    p.add_argument("--tokens", type=float, default=1e6, help="of all texts (copies, chats)")
    p.add_argument("--count", type=int, default=100, help="of texts (needles)")
    p.add_argument("--others", type=int, default=60, help="facts nobody asks for (needles)")
    p.add_argument("--early", type=float, default=0,
                   help="share of questions for the first tenth (chats)")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    rng = random.Random(f"{a.kind} {a.seed}")
    if a.kind == "needles":
        for _ in range(a.count):
            print(json.dumps(needle_text(rng, a.longest, a.others)))
        return
    n = 0
    while n < a.tokens:
        tokens = int(a.shortest * (a.longest / a.shortest) ** rng.random())
        print(json.dumps(copy(rng, tokens) if a.kind == "copies" else chat(rng, tokens, a.early)))
        n += tokens


if __name__ == "__main__":
    main()
