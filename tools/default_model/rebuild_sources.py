#!/usr/bin/env python3
"""Rebuilds the two source files from their public origins.

    rebuild_sources.py poems --checkout chinese-poetry --out poems.jsonl.gz
        git clone https://github.com/chinese-poetry/chinese-poetry        (MIT)
    rebuild_sources.py pairs --english eng_sentences_detailed.tsv --chinese cmn_sentences_detailed.tsv
                             --links eng-cmn_links.tsv --out sentences-en-zh.tsv.gz
        https://tatoeba.org/downloads, one language each, and the links between them   (CC-BY 2.0 FR)

Traditional script becomes simplified with OpenCC (t2s): the Python package `opencc`, else the program
`opencc`. --script as-is leaves it. Both origins grow, so a new checkout gives more poems and sentences
than the files that the committed model was trained on; order and layout are the same: JSON lines with
kind, title, author, lines; and English, Chinese, attribution separated by tabs.

Left out: entries without text, entries with a gap (□) or a replacement character, and repetitions
(same kind and same characters, punctuation aside).
"""
import argparse
import gzip
import json
import os
import re
import shutil
import subprocess
import sys

import corpus

# file name in the checkout -> kind; folders differ between the origin's versions, names do not
SOURCES = [
    (r"yuanqu\.json", "元曲", ""), (r"poet\.song\.\d+\.json", "宋诗", ""), (r"poet\.tang\.\d+\.json", "唐诗", ""),
    (r"ci\.song\.[\dy]+\.json", "宋词", ""), (r"caocao\.json", "汉诗", "曹操"), (r"chuci\.json", "楚辞", ""),
    (r"纳兰性德诗集\.json", "清词", "纳兰性德"), (r"shijing\.json", "诗经", "佚名"),
]
BATCH = 2000


def converter(how):
    """-> function from a list of texts to a list of texts"""
    if how == "as-is":
        return lambda texts: texts
    try:
        import opencc
        t2s = opencc.OpenCC("t2s")
        return lambda texts: [t2s.convert(t) for t in texts]
    except ImportError:
        pass
    if not shutil.which("opencc"):
        sys.exit("no OpenCC: pip install opencc, or install the package 'opencc', or say --script as-is")

    def by_program(texts):
        joined = "\n".join(t.replace("\n", " ") for t in texts)
        done = subprocess.run(["opencc", "-c", "t2s.json"], input=joined.encode("utf-8"), stdout=subprocess.PIPE,
                              check=True)
        out = done.stdout.decode("utf-8").split("\n")
        if len(out) < len(texts):
            sys.exit("opencc returned fewer lines than it was given")
        return out[:len(texts)]
    return by_program


def source_files(checkout):
    """-> [(kind, default author, path)]: by kind, then by the number in the name"""
    found = []
    for folder, dirs, names in os.walk(checkout):
        dirs[:] = sorted(d for d in dirs if not d.startswith(".") and d != "error")
        for name in names:
            for order, (pattern, kind, author) in enumerate(SOURCES):
                if re.fullmatch(pattern, name):
                    number = re.search(r"\d+", name)
                    found.append((order, int(number.group()) if number else 0, name, folder, kind, author))
    return [(kind, author, os.path.join(folder, name)) for _, _, name, folder, kind, author in sorted(found)]


def entries(kind, author, path):
    with open(path, encoding="utf-8") as f:
        data = json.load(f)
    for e in data:
        lines = e.get("paragraphs") or e.get("content") or e.get("para") or []
        lines = [line.strip() for line in ([lines] if isinstance(lines, str) else lines) if line and line.strip()]
        title = e.get("rhythmic") or e.get("title") or ""
        yield {"kind": kind, "title": title.strip(), "author": (e.get("author") or author).strip(), "lines": lines}


def damaged(poem):
    text = "".join(poem["lines"])
    return not corpus.han(text) or "□" in text or "\ufffd" in text


def rebuild_poems(checkout, out, convert):
    """-> (written, left out)"""
    files = source_files(checkout)
    if not files:
        sys.exit(f"'{checkout}' holds none of the expected files (poet.tang.0.json and so on): is it a checkout "
                 "of chinese-poetry?")
    seen, written, left, batch = set(), 0, 0, []
    with gzip.GzipFile(out, "wb", mtime=0) as f:
        def flush():
            nonlocal written, left
            texts = convert(["\t".join([p["title"], p["author"]] + p["lines"]) for p in batch])
            for p, text in zip(batch, texts):
                title, author, *lines = text.split("\t")
                key = (p["kind"], corpus.han("".join(lines)))
                if key in seen:
                    left += 1
                    continue
                seen.add(key)
                row = {"kind": p["kind"], "title": title, "author": author, "lines": lines}
                f.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8"))
                written += 1
            batch.clear()
        for kind, author, path in files:
            for poem in entries(kind, author, path):
                if damaged(poem):
                    left += 1
                    continue
                batch.append({k: v if k == "lines" else v.replace("\t", " ") for k, v in poem.items()})
                if len(batch) == BATCH:
                    flush()
        flush()
    return written, left


def read_sentences(path, languages):
    """-> {id: (text, user)}; columns id, language, text, user name, dates"""
    out = {}
    with open(path, encoding="utf-8", newline="\n") as f:
        for line in f:
            cells = line.rstrip("\r\n").split("\t")
            if len(cells) >= 3 and cells[1] in languages and cells[0].isdigit():
                user = cells[3] if len(cells) > 3 and cells[3] != "\\N" else "unknown"
                out[int(cells[0])] = (cells[2].strip(), user)
    return out


def rebuild_pairs(english, chinese, links, out, convert):
    """-> pairs written: shortest English first, as the published sets have it"""
    en, zh = read_sentences(english, ("eng",)), read_sentences(chinese, ("cmn",))
    rows = []
    with open(links, encoding="utf-8") as f:
        for line in f:
            a, b = (int(x) for x in line.split("\t")[:2])
            if a in zh and b in en:
                a, b = b, a
            if a in en and b in zh:
                rows.append((len(en[a][0]), en[a][0], a, b))
    rows = sorted(set(rows))
    texts = []
    for i in range(0, len(rows), BATCH):
        texts += convert([zh[r[3]][0] for r in rows[i:i + BATCH]])
    with gzip.GzipFile(out, "wb", mtime=0) as f:
        for (_, text, a, b), han in zip(rows, texts):
            credit = f"CC-BY 2.0 (France) Attribution: tatoeba.org #{a} ({en[a][1]}) & #{b} ({zh[b][1]})"
            f.write(f"{text}\t{han}\t{credit}\n".encode("utf-8"))
    return len(rows)


def main(argv):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest="what", required=True)
    p = sub.add_parser("poems")
    p.add_argument("--checkout", required=True)
    q = sub.add_parser("pairs")
    for name in ("--english", "--chinese", "--links"):
        q.add_argument(name, required=True)
    for s in (p, q):
        s.add_argument("--out", required=True)
        s.add_argument("--script", choices=("t2s", "as-is"), default="t2s")
    a = ap.parse_args(argv)
    convert = converter(a.script)
    if a.what == "poems":
        written, left = rebuild_poems(a.checkout, a.out, convert)
        print(f"{written} poems, {left} left out")
    else:
        print(f"{rebuild_pairs(a.english, a.chinese, a.links, a.out, convert)} pairs")


if __name__ == "__main__":
    main(sys.argv[1:])
