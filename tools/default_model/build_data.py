#!/usr/bin/env python3
"""Builds the default model's training text from the two source files.

    build_data.py --poems poems.jsonl.gz --pairs sentences-en-zh.tsv.gz --out DIR
                  [--tokens N] [--files N] [--seed N] [--mix "couplet=0.1,to_zh=0.3"]
                  [--first-lines N]

Writes into DIR
    train-01.jsonl ...     chat turns for `qiusuo train`; every file is a fair sample of the whole mix,
                           so a short run reads the first ones only
    valid.jsonl            the same mix, made from held-out poems and pairs
    tokenizer.txt          what `qiusuo tokenizer train` learns the vocabulary from
    heldout-poems.jsonl    the held-out poems;  heldout-titles.txt  200 of their titles
    heldout-first.tsv      form and first line; heldout-couplets.tsv  first half and second half
    heldout-pairs.tsv      held-out sentence pairs
    train-pairs.tsv        the training side of the pairs (the evaluation's baselines need it)
    report.json            counts and shares

The same files and options give the same bytes. --mix changes shares of MIX below; together they are
scaled to 1, so that a later stage of training can weigh what is still weak. Standard library only.
"""
import argparse
import collections
import json
import os
import random
import re
import sys

import corpus
import prompts
import rhyme
from prompts import pick, shuffle

# Share of the estimated tokens. Short forms lead: they teach form and rhyme fastest and are what
# people ask for; pairs need several passes before a small model translates at all.
MIX = [("七绝", 0.22), ("五绝", 0.13), ("七律", 0.10), ("五律", 0.09), ("词", 0.07), ("五古", 0.01),
       ("七古", 0.01), ("六绝", 0.01), ("couplet", 0.06), ("to_zh", 0.15), ("to_en", 0.15)]
VALID_TOKENS = 40000
MAX_TOKENS = 480     # of a conversation, so that it fits a context of 512
N_TITLES = 200
FIRST_LINES = 13      # weight of requests with a first line; all kinds of request weigh 100 together
CHAR_FLOOR = 60      # how often a character of verse stands in the vocabulary's text at least
N_REQUESTS = 3000    # how many requests of each kind stand there


def estimate(text):
    """Tokens of a text under the default vocabulary, roughly: one a Chinese character or mark, 1.3 an
    English word."""
    han = len(re.findall("[\u3000-\U0003ffff]", text))
    words = len(re.findall("[A-Za-z']+", text))
    marks = len(re.findall("[^\\w\\s]", text, re.ASCII)) - han
    return han + int(1.3 * words) + max(0, marks)


def document(user, answer):
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]}


def cost(doc):
    return sum(5 + estimate(m["content"]) for m in doc["messages"])


class Maker:
    """Turns a poem or pair into one training document, with a request drawn at random."""

    def __init__(self, rng, authors, first_lines):
        self.rng = rng
        self.first_lines = first_lines
        self.authors = authors      # authors with enough poems to have a manner

    def poem(self, p):
        rng = self.rng
        chinese = rng.random() < 0.65
        if p.form == "词":
            return self._ci(p, chinese)
        title = p.title if 1 < len(p.title) <= 14 or p.title in prompts.THEMES else ""
        author = p.author if p.author in self.authors else ""
        answer = "\n".join(p.lines)
        themes = [c for c in title if c in prompts.THEMES]
        if themes and rng.random() < 0.07:
            return document(prompts.theme_prompt(rng, p.form, chinese, pick(rng, themes)), answer)
        # what is asked for: the form alone, a title, an author, a first line, or two of them
        wish = prompts.weighted(rng, [(10, ""), (52, "T"), (8, "A"), (self.first_lines, "L"), (10, "TA"), (4, "TL"), (3, "AL")])
        line = corpus.verses(p.lines)[0]
        if "L" in wish and rng.random() < 0.15:
            line = p.lines[0]
        return document(prompts.form_prompt(
            rng, p.form, chinese, title if "T" in wish else "", author if "A" in wish else "",
            line if "L" in wish else ""), answer)

    def _ci(self, p, chinese):
        rng = self.rng
        wish = prompts.weighted(rng, [(60, ""), (20, "A"), (20, "L")])
        author = p.author if "A" in wish and p.author in self.authors else ""
        line = re.split("[，。？！；、]", p.lines[0])[0] if wish == "L" else ""
        return document(prompts.ci_prompt(rng, pick(rng, p.tune), chinese, author, line), "\n".join(p.lines))

    def couplet(self, p):
        """The middle couplets of 律诗 are parallel, as 对联 are; any other couplet serves as well."""
        rng = self.rng
        line = pick(rng, p.lines[1:3] if p.form[1] == "律" and rng.random() < 0.7 else p.lines)
        first, second = corpus.verses([line])[:2]
        return document(prompts.couplet_prompt(rng, first, rng.random() < 0.7), second + line[-1])

    def to_zh(self, pair):
        return document(prompts.translate_prompt(self.rng, pair[0], True), pair[1])

    def to_en(self, pair):
        return document(prompts.translate_prompt(self.rng, pair[1], False), pair[0])


def fill_share(maker, kind, items, budget, rng):
    """Documents of one kind until their estimated tokens reach the budget: whole passes in fresh
    order, a new request for the same item every time."""
    make = maker.poem if kind in ("五绝", "七绝", "五律", "七律", "六绝", "五古", "七古", "词") else getattr(maker, kind)
    docs, spent = [], 0
    while items and spent < budget:
        order = list(items)
        shuffle(rng, order)
        for item in order:
            doc = make(item)
            docs.append(doc)
            spent += cost(doc)
            if spent >= budget:
                break
    return docs, spent


def make_mix(poems, pairs, authors, tokens, seed, mix, first_lines=FIRST_LINES):
    """-> (documents in random order, report per kind)"""
    by_form = collections.defaultdict(list)
    for p in poems:
        by_form[p.form].append(p)
    docs, report = [], {}
    for kind, share in mix:
        rng = random.Random(f"{seed} {kind}")
        maker = Maker(rng, authors, first_lines)
        if kind == "couplet":
            items = [p for p in poems if p.form in corpus.FORMS.values()]
        elif kind in ("to_zh", "to_en"):
            items = pairs
        else:
            items = by_form[kind]
        made, spent = fill_share(maker, kind, items, share * tokens, rng)
        docs += made
        report[kind] = {"items": len(items), "documents": len(made), "tokens (estimate)": spent,
                        "passes": round(len(made) / max(1, len(items)), 2)}
    shuffle(random.Random(f"{seed} order"), docs)
    return conversations(docs, random.Random(f"{seed} conversations")), report


def parse_mix(text):
    """--mix over MIX, scaled to 1."""
    shares = dict(MIX)
    for part in filter(None, text.split(",")):
        kind, _, share = part.partition("=")
        if kind.strip() not in shares:
            sys.exit(f"--mix: no kind '{kind.strip()}'; the kinds are {' '.join(shares)}")
        shares[kind.strip()] = float(share)
    total = sum(shares.values())
    return [(kind, share / total) for kind, share in shares.items() if share > 0]


def conversations(docs, rng):
    """Joins neighbours: half of the documents stay single turns, the others become conversations of
    two turns and more, because a chat goes on. Every position up to MAX_TOKENS is met that way."""
    out, i = [], 0
    while i < len(docs):
        turns = prompts.weighted(rng, [(80, 1), (9, 2), (5, 3), (3, 5), (3, 20)])
        joined, spent = [], 0
        while i < len(docs) and turns > 0 and spent + cost(docs[i]) <= MAX_TOKENS:
            joined += docs[i]["messages"]
            spent += cost(docs[i])
            turns -= 1
            i += 1
        out.append({"messages": joined})
    return out


def write_jsonl(path, docs):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        for d in docs:
            f.write(json.dumps(d, ensure_ascii=False) + "\n")


def write_text(path, lines):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.writelines(line + "\n" for line in lines)


def spaced(text):
    """Chinese characters with spaces between: a vocabulary learned from it keeps each a token of its
    own, so that a line of five has five tokens and a rhyme is one token."""
    return re.sub("(?<=[\u3400-\u9fff\U00020000-\U0003ffff〇])(?=[\u3400-\u9fff\U00020000-\U0003ffff〇])", " ", text)


def vocabulary_text(poems, pairs, seed):
    """One verse line in five and the sentences, Chinese spaced; every character of verse at least
    CHAR_FLOOR times; and requests as they are written, without what is asked about."""
    rng = random.Random(f"{seed} vocabulary")
    lines, count = [], collections.Counter()
    for p in poems:
        for line in p.lines:
            count.update(line)
            if rng.random() < 0.2:
                lines.append(spaced(line))
    for c in sorted(c for c in count if count[c] < 5 * CHAR_FLOOR):
        lines.append(" ".join(c * max(0, CHAR_FLOOR - count[c] // 5)))
    for en, zh, _ in pairs:
        lines += [en, spaced(zh)]
    for _ in range(N_REQUESTS):
        form, chinese = pick(rng, list(prompts.FORM_ZH)), rng.random() < 0.65
        for request in (prompts.form_prompt(rng, form, chinese, "《》"), prompts.form_prompt(rng, form, chinese),
                        prompts.couplet_prompt(rng, "", chinese), prompts.translate_prompt(rng, "", chinese)):
            lines += ["User: " + request, "", "Assistant: "]
    return [line for line in lines if line]


def heldout_sets(poems, train_titles, seed):
    rng = random.Random(f"{seed} heldout")
    shi = [p for p in poems if p.form in ("五绝", "七绝", "五律", "七律")]
    shuffle(rng, shi)
    titles = []
    for p in shi:
        if 2 <= len(p.title) <= 10 and p.title not in train_titles and p.title not in titles:
            titles.append(p.title)
    firsts = [p.form + "\t" + corpus.verses(p.lines)[0] for p in shi[:N_TITLES]]
    halves = []
    for p in shi[N_TITLES:2 * N_TITLES]:
        a, b = corpus.verses([pick(rng, p.lines)])[:2]
        halves.append(a + "\t" + b)
    return titles[:N_TITLES], firsts, halves


def sounds_well(p, classes, left):
    """Regulated forms whose rhyme a modern ear no longer hears teach the model not to rhyme: quatrains
    must rhyme, three of the four even lines of a 律诗 must."""
    if p.form not in ("五绝", "七绝", "五律", "七律"):
        return True
    share = rhyme.rhyming_share(corpus.verses(p.lines), lambda c: {classes[c]} if c in classes else {c})
    if share >= (1.0 if p.form[1] == "绝" else 0.75):
        return True
    left["no modern rhyme"] += 1
    return False


def main(argv):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--poems", required=True)
    ap.add_argument("--pairs", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--tokens", type=int, default=24_000_000, help="size of the whole mix (estimate)")
    ap.add_argument("--files", type=int, default=6)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--mix", default="", help="shares that differ from the usual ones")
    ap.add_argument("--first-lines", type=float, default=FIRST_LINES, help="weight of requests with a first line")
    a = ap.parse_args(argv)
    mix = parse_mix(a.mix)
    os.makedirs(a.out, exist_ok=True)
    out = lambda name: os.path.join(a.out, name)

    all_poems, left = corpus.read_poems(a.poems)
    all_pairs = corpus.read_pairs(a.pairs)
    classes = rhyme.load_table()
    train = [p for p in all_poems if corpus.bucket(p.first) != 0 and sounds_well(p, classes, left)]
    held = [p for p in all_poems if corpus.bucket(p.first) == 0]
    train_pairs = [p for p in all_pairs if not p[2]]
    held_pairs = [p for p in all_pairs if p[2]]
    count = collections.Counter(p.author for p in train if p.author)
    authors = {name for name, n in count.items() if n >= 20}

    docs, report = make_mix(train, train_pairs, authors, a.tokens, a.seed, mix, a.first_lines)
    per = -(-len(docs) // a.files)
    for i in range(a.files):
        write_jsonl(out(f"train-{i + 1:02d}.jsonl"), docs[i * per:(i + 1) * per])
    valid, valid_report = make_mix(held, held_pairs, authors, VALID_TOKENS, a.seed, parse_mix(""))
    write_jsonl(out("valid.jsonl"), valid)

    titles, firsts, halves = heldout_sets(held, {p.title for p in train}, a.seed)
    write_text(out("heldout-titles.txt"), titles)
    write_text(out("heldout-first.tsv"), firsts)
    write_text(out("heldout-couplets.tsv"), halves)
    write_jsonl(out("heldout-poems.jsonl"), [p._asdict() for p in held])
    write_text(out("heldout-pairs.tsv"), [f"{en}\t{zh}" for en, zh, _ in held_pairs])
    write_text(out("train-pairs.tsv"), [f"{en}\t{zh}" for en, zh, _ in train_pairs])
    write_text(out("tokenizer.txt"), vocabulary_text(train, train_pairs, a.seed))
    summary = {"seed": a.seed, "documents": len(docs),
               "turns": sum(len(d["messages"]) for d in docs) // 2, "tokens (estimate)": sum(map(cost, docs)), "train": report,
               "valid documents": len(valid), "poems": {"train": len(train), "held out": len(held)},
               "pairs": {"train": len(train_pairs), "held out": len(held_pairs)}, "left out": dict(left),
               "valid": valid_report}
    with open(out("report.json"), "w", encoding="utf-8") as f:
        json.dump(summary, f, ensure_ascii=False, indent=1)
        f.write("\n")
    json.dump(summary, sys.stdout, ensure_ascii=False, indent=1)
    print()


if __name__ == "__main__":
    main(sys.argv[1:])
