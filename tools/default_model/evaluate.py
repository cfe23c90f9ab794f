#!/usr/bin/env python3
"""Judges a default model: first answers at the chat's own settings, against people and baselines.

    evaluate.py --qiusuo ./qiusuo --model model.gguf --data DIR --poems poems.jsonl.gz --out REPORTDIR
                [--jobs 2] [--titles 200] [--pairs 200] [--seed 1000]

DIR is what build_data.py wrote. Every question is asked in a new chat (piped, one turn), so each
answer is a first answer; question i uses --seed + i. Nothing constrains the form of an answer.

    form       五绝 and 七绝 on held-out titles: four verse lines of five or seven Chinese characters
               and nothing else; and whether it stands one couplet a line
    rhyme      even lines in one class of modern finals (rhyme.py), with pypinyin where it is
               installed, else by the table; beside it held-out human poems of that form
    known      verse lines that stand in a poem that was not held out; beside it held-out human poems
    tasks      五律, 七律, first lines, couplets, 词: whether the answer has the form asked for
    chrF       translation both ways (chrf.py), beside the commonest training sentence and the
               translation of the nearest training sentence
    bits       bits per character of held-out answers, from `qiusuo score`

Writes evaluation.json, evaluation.md, evaluation.svg and answers.tsv into REPORTDIR.
"""
import argparse
import collections
import concurrent.futures
import json
import math
import os
import subprocess
import sys
import time

import chrf
import corpus
import rhyme

TITLE_REQUESTS = {
    "五绝": ["请以《{}》为题写一首五言绝句。", "写一首五绝，题为“{}”", "五言绝句《{}》", 'Write a five-character quatrain titled "{}".'],
    "七绝": ["请以《{}》为题写一首七言绝句。", "写一首七绝，题为“{}”", "七言绝句《{}》", 'Write a seven-character quatrain titled "{}".'],
    "五律": ["请以《{}》为题写一首五言律诗。", "写一首五律：{}", 'Write a five-character regulated verse titled "{}".'],
    "七律": ["请以《{}》为题写一首七言律诗。", "写一首七律：{}", 'Write a seven-character regulated verse titled "{}".'],
}
FIRST_REQUESTS = ["以“{}”为首句写一首{}。", "写一首{1}，第一句是“{0}”"]
COUPLET_REQUESTS = ["请对下句：{}", "上联：{}", "Complete the couplet: {}"]
TUNES = ["浣溪沙", "菩萨蛮", "如梦令", "卜算子", "蝶恋花", "鹧鸪天", "西江月", "清平乐", "浪淘沙", "虞美人"]
TO_ZH = ["翻译成中文：{}", "Translate into Chinese: {}"]
TO_EN = ["翻译成英文：{}", "Translate into English: {}"]
SIZE = {"五绝": (4, 5), "七绝": (4, 7), "五律": (8, 5), "七律": (8, 7)}


# ---------------------------------------------------------------- asking

class Chat:
    """A fresh chat for every question; `jobs` of them at a time."""

    def __init__(self, program, model, jobs, seed, extra=()):
        self.command = [program, "chat", "-m", model, "--threads", "1", *extra]
        self.jobs, self.seed = jobs, seed
        self.asked = 0

    def one(self, numbered):
        i, question = numbered
        done = subprocess.run(self.command + ["--seed", str(self.seed + i)], input=(question + "\n").encode("utf-8"),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(self.command)}: exit {done.returncode}: {done.stderr.decode()[-400:]}")
        return done.stdout.decode("utf-8", "replace").strip("\n")

    def ask(self, questions):
        """-> answers in the order of the questions"""
        start = self.asked
        self.asked += len(questions)
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(self.one, enumerate(questions, start)))


# ---------------------------------------------------------------- judging poems

def exact_form(answer, form):
    """Verse lines of the right number and length, all Chinese characters, each ended by one mark."""
    n, width = SIZE[form]
    text = answer.replace("\n", "")
    vs = corpus.VERSE_END.split(text)
    if vs and vs[-1] == "":
        vs.pop()
    return len(vs) == n and all(len(v) == width and corpus.han(v) == v for v in vs)


def couplet_lines(answer, form):
    """One couplet a line."""
    lines = answer.split("\n")
    return len(lines) == SIZE[form][0] // 2 and all(len(corpus.verses([line])) == 2 for line in lines)


def finals():
    """-> (name of the source, character -> set of classes)"""
    try:
        import pypinyin
    except ImportError:
        table = rhyme.load_table()
        return "finals.txt", lambda c: {table[c]} if c in table else {c}

    def classes(c):
        readings = pypinyin.pinyin(c, style=pypinyin.Style.FINALS, strict=True)
        return {rhyme.CLASS_OF.get(f, f) for f in readings[0][:1]} if readings else {c}
    return "pypinyin " + pypinyin.__version__, classes


def judge_poems(answers, form, classes, known):
    """-> shares over the answers; lines are counted over the answers of exact form"""
    exact = [a for a in answers if exact_form(a, form)]
    lines = [v for a in exact for v in corpus.verses(a.split("\n"))]
    return {
        "answers": len(answers), "exact form": share(len(exact), len(answers)),
        "one couplet a line": share(sum(couplet_lines(a, form) for a in exact), len(answers)),
        "rhyme": share(sum(rhyme.rhymes(corpus.verses(a.split("\n")), classes) for a in exact), len(exact)),
        "known lines": share(sum(v in known for v in lines), len(lines)),
        "different answers": len(set(answers)),
    }


def share(n, of):
    return round(n / of, 4) if of else None


def judge_people(poems, form, classes, known):
    chosen = [corpus.verses(p["lines"]) for p in poems if p["form"] == form]
    lines = [v for vs in chosen for v in vs]
    return {"poems": len(chosen), "rhyme": share(sum(rhyme.rhymes(vs, classes) for vs in chosen), len(chosen)),
            "known lines": share(sum(v in known for v in lines), len(lines))}


# ---------------------------------------------------------------- the parts of the report

def part_titles(chat, data, poems, known, n):
    source, classes = finals()
    titles = read_lines(os.path.join(data, "heldout-titles.txt"))[:n]
    out, asked = {"finals": source}, []
    for form in ("五绝", "七绝"):
        q = [TITLE_REQUESTS[form][i % 4].format(t) for i, t in enumerate(titles)]
        answers = chat.ask(q)
        asked += zip(q, answers)
        out[form] = judge_poems(answers, form, classes, known)
        out[form]["people"] = judge_people(poems, form, classes, known)
    both = [out["五绝"], out["七绝"]]
    out["mean"] = {k: round(sum(b[k] or 0 for b in both) / 2, 4)
                   for k in ("exact form", "one couplet a line", "rhyme", "known lines")}
    out["mean"]["people: rhyme"] = round(sum(b["people"]["rhyme"] for b in both) / 2, 4)
    out["mean"]["people: known lines"] = round(sum(b["people"]["known lines"] for b in both) / 2, 4)
    return out, asked


def part_tasks(chat, data, n):
    out, asked = {}, []
    titles = read_lines(os.path.join(data, "heldout-titles.txt"))[:n]
    for form in ("五律", "七律"):
        q = [TITLE_REQUESTS[form][i % 3].format(t) for i, t in enumerate(titles)]
        a = chat.ask(q)
        asked += zip(q, a)
        out[form + ": exact form"] = share(sum(exact_form(x, form) for x in a), len(a))
    rows = [line.split("\t") for line in read_lines(os.path.join(data, "heldout-first.tsv"))][:n]
    q = [FIRST_REQUESTS[i % 2].format(first, form) for i, (form, first) in enumerate(rows)]
    a = chat.ask(q)
    asked += zip(q, a)
    out["first line: kept"] = share(sum(x.startswith(r[1]) for x, r in zip(a, rows)), len(a))
    out["first line: exact form"] = share(sum(exact_form(x, r[0]) for x, r in zip(a, rows)), len(a))
    rows = [line.split("\t") for line in read_lines(os.path.join(data, "heldout-couplets.tsv"))][:n]
    q = [COUPLET_REQUESTS[i % 3].format(r[0]) for i, r in enumerate(rows)]
    a = chat.ask(q)
    asked += zip(q, a)
    out["couplet: one line of equal length"] = share(
        sum(len(vs) == 1 and len(vs[0]) == len(r[0]) and corpus.han(vs[0]) == vs[0]
            for vs, r in ((corpus.verses([x]), r) for x, r in zip(a, rows))), len(a))
    q = [f"填一首《{t}》" for t in TUNES for _ in range(max(1, n // 20))]
    a = chat.ask(q)
    asked += zip(q, a)
    out["词: Chinese verse only"] = share(
        sum(bool(x) and all(corpus.GOOD_LINE.match(line) for line in x.split("\n")) for x in a), len(a))
    return out, asked


def part_translation(chat, data, n):
    train = [line.split("\t") for line in read_lines(os.path.join(data, "train-pairs.tsv"))]
    held = [line.split("\t") for line in read_lines(os.path.join(data, "heldout-pairs.tsv"))]
    out, asked = {}, []
    for name, src, dst, requests in (("en-zh", 0, 1, TO_ZH), ("zh-en", 1, 0, TO_EN)):
        refs = collections.defaultdict(list)
        for row in held:
            refs[row[src]].append(row[dst])
        step = max(1, len(refs) // n)
        sources = sorted(refs)[::step][:n]
        q = [requests[i % 2].format(s) for i, s in enumerate(sources)]
        answers = chat.ask(q)
        asked += zip(q, answers)
        want = [refs[s] for s in sources]
        common = collections.Counter(row[dst] for row in train).most_common(1)[0][0]
        nearest = chrf.Nearest([row[src] for row in train], src == 1)
        near = [train[nearest.find(s)][dst] for s in sources]
        out[name] = {"sentences": len(sources), "model": round(100 * chrf.corpus(answers, want), 2),
                     "commonest": round(100 * chrf.corpus([common] * len(sources), want), 2),
                     "commonest sentence": common, "nearest": round(100 * chrf.corpus(near, want), 2)}
    return out, asked


def part_bits(program, model, data, n):
    """Bits per character of held-out answers, the end of the answer not counted."""
    bits, chars = collections.Counter(), collections.Counter()
    used = 0
    for doc in corpus.read_json_lines(os.path.join(data, "valid.jsonl")):
        if len(doc["messages"]) != 2 or used >= n:
            continue
        used += 1
        head = f"User: {doc['messages'][0]['content']}\n\nAssistant:"
        answer = doc["messages"][1]["content"]
        n_head = len(output([program, "tokenize", "-m", model], head).split())
        rows = [json.loads(line) for line in output([program, "score", "-m", model], head + " " + answer).splitlines()]
        kind = "verse" if corpus.GOOD_LINE.match(answer.replace("\n", "")) and "\n" in answer else \
            "Chinese" if corpus.han(answer) else "English"
        bits[kind] -= sum(r["logprob"] for r in rows[n_head:]) / math.log(2)
        chars[kind] += len(answer)
    return {"documents": used, **{k: round(bits[k] / chars[k], 3) for k in sorted(chars)},
            "all": round(sum(bits.values()) / max(1, sum(chars.values())), 3)}


def output(command, text):
    done = subprocess.run(command, input=text.encode("utf-8"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          check=False, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.decode()[-400:]}")
    return done.stdout.decode("utf-8")


def read_lines(path):
    with open(path, encoding="utf-8") as f:
        return [line.rstrip("\n") for line in f if line.strip()]


# ---------------------------------------------------------------- the report

def verdicts(r):
    """-> [(what, figure, limit, kind, met)]"""
    m, t = r["titles"]["mean"], r["translation"]
    rows = [
        ("exact form, 五绝 and 七绝", m["exact form"], "at least 0.90", "must", m["exact form"] >= 0.90),
        ("exact form, 五绝 and 七绝", m["exact form"], "at least 0.95", "aim", m["exact form"] >= 0.95),
        ("even lines rhyme", m["rhyme"], f"at least 0.60 (people {m['people: rhyme']})", "aim", m["rhyme"] >= 0.60),
        ("known lines", m["known lines"], f"at most {2 * m['people: known lines']:.4f}, twice people's", "must",
         m["known lines"] <= 2 * m["people: known lines"]),
    ]
    for way in ("en-zh", "zh-en"):
        w = t[way]
        rows.append((f"chrF {way}", w["model"], f"above the commonest sentence, {w['commonest']}", "must",
                     w["model"] > w["commonest"]))
        rows.append((f"chrF {way}", w["model"], f"above the nearest sentence, {w['nearest']}", "aim",
                     w["model"] > w["nearest"]))
    return rows


def markdown(r):
    out = ["# Evaluation of the default model", "", "First answers at the chat's default settings; see tools/default_model/evaluate.py.",
           "", "| what | figure | limit | | met |", "|---|---:|---|---|---|"]
    out += [f"| {a} | {b} | {c} | {d} | {'yes' if e else 'no'} |" for a, b, c, d, e in verdicts(r)]
    out += ["", f"## Poems on held-out titles (finals: {r['titles']['finals']})", "",
            "| form | answers | exact form | one couplet a line | rhyme | people's rhyme | known lines | people's known lines |",
            "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for form in ("五绝", "七绝"):
        f = r["titles"][form]
        out.append(f"| {form} | {f['answers']} | {f['exact form']} | {f['one couplet a line']} | {f['rhyme']} | "
                   f"{f['people']['rhyme']} | {f['known lines']} | {f['people']['known lines']} |")
    if "tasks" in r:
        out += ["", "## Other tasks", "", "| what | share |", "|---|---:|"]
        out += [f"| {k} | {v} |" for k, v in r["tasks"].items()]
    out += ["", "## Translation, chrF", "", "| way | sentences | model | commonest sentence | nearest sentence |", "|---|---:|---:|---:|---:|"]
    for way, w in r["translation"].items():
        out.append(f"| {way} | {w['sentences']} | {w['model']} | {w['commonest']} ({w['commonest sentence']}) | {w['nearest']} |")
    if "bits" in r:
        out += ["", "## Bits per character of held-out answers", "", "| " + " | ".join(r["bits"]) + " |",
                "|" + "---:|" * len(r["bits"]), "| " + " | ".join(str(v) for v in r["bits"].values()) + " |"]
    return "\n".join(out) + "\n"


def svg(r):
    """Bars: the model's figure, and a line at the limit."""
    m, t = r["titles"]["mean"], r["translation"]
    bars = [("exact form", m["exact form"], 0.90, "must 0.90"), ("rhyme", m["rhyme"], 0.60, "aim 0.60"),
            ("known lines ×10", 10 * m["known lines"], 20 * m["people: known lines"], "must: below twice people's")]
    for way in ("en-zh", "zh-en"):
        bars.append((f"chrF {way}", t[way]["model"] / 100, t[way]["nearest"] / 100, "aim: nearest sentence"))
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="720" height="%d" font-family="sans-serif" font-size="13">'
           % (30 + 40 * len(bars)), '<rect width="100%" height="100%" fill="white"/>']
    for i, (name, value, limit, note) in enumerate(bars):
        y = 20 + 40 * i
        x = 150 + 360 * min(1, limit)
        out += [f'<text x="140" y="{y + 15}" text-anchor="end">{name}</text>',
                f'<rect x="150" y="{y}" width="{360 * min(1, value):.1f}" height="20" fill="#4a7ebb"/>',
                f'<line x1="{x:.1f}" y1="{y - 4}" x2="{x:.1f}" y2="{y + 24}" stroke="#c0392b" stroke-width="2"/>',
                f'<text x="520" y="{y + 15}">{value:.3f}  ({note})</text>']
    return "\n".join(out) + "\n</svg>\n"


def main(argv):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--qiusuo", "--model", "--data", "--poems", "--out"):
        ap.add_argument(name, required=True)
    ap.add_argument("--jobs", type=int, default=2)
    ap.add_argument("--titles", type=int, default=200)
    ap.add_argument("--pairs", type=int, default=200)
    ap.add_argument("--tasks", type=int, default=100, help="questions of each other task; 0 leaves them out")
    ap.add_argument("--bits", type=int, default=200, help="documents for bits per character; 0 leaves them out")
    ap.add_argument("--seed", type=int, default=1000)
    ap.add_argument("--chat-options", default="", help="more options for chat, e.g. '--temp 0.5'")
    a = ap.parse_args(argv)
    os.makedirs(a.out, exist_ok=True)
    start = time.time()
    chat = Chat(a.qiusuo, a.model, a.jobs, a.seed, a.chat_options.split())
    poems = list(corpus.read_json_lines(os.path.join(a.data, "heldout-poems.jsonl")))
    known = corpus.training_verses(a.poems)
    report, asked = {"seed": a.seed, "chat options": a.chat_options}, []
    report["titles"], q = part_titles(chat, a.data, poems, known, a.titles)
    asked += q
    report["translation"], q = part_translation(chat, a.data, a.pairs)
    asked += q
    if a.tasks:
        report["tasks"], q = part_tasks(chat, a.data, a.tasks)
        asked += q
    if a.bits:
        report["bits"] = part_bits(a.qiusuo, a.model, a.data, a.bits)
    write(os.path.join(a.out, "evaluation.json"), json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    write(os.path.join(a.out, "evaluation.md"), markdown(report))
    write(os.path.join(a.out, "evaluation.svg"), svg(report))
    write(os.path.join(a.out, "answers.tsv"), "".join(q + "\t" + x.replace("\n", " / ") + "\n" for q, x in asked))
    print(markdown(report))
    print(f"{len(asked)} questions, {time.time() - start:.0f} s")


def write(path, text):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
