#!/usr/bin/env python3
"""Writes finals.txt: characters grouped by the class of their modern final, from pypinyin.

    make_finals.py --poems poems.jsonl.gz > finals.txt

Characters that end a verse line at least 30 times in the collection, each under its first reading
alone. Needed once; the table lies in the repository so that build_data.py needs no package.
"""
import argparse
import collections
import sys

import pypinyin

import corpus
import rhyme


def main(argv):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--poems", required=True)
    a = ap.parse_args(argv)
    count = collections.Counter(v[-1] for p in corpus.read_json_lines(a.poems) for v in corpus.verses(p["lines"]))
    groups = collections.defaultdict(list)
    for c, n in sorted(count.items()):
        if n < 30 or not corpus.han(c):
            continue
        final = pypinyin.pinyin(c, style=pypinyin.Style.FINALS, strict=True)[0][0]
        if final in rhyme.CLASS_OF:
            groups[rhyme.CLASS_OF[final]].append(c)
    print(f"# Rhyme class by modern final, first reading; pypinyin {pypinyin.__version__} (MIT); see rhyme.py")
    for name in sorted(groups):
        print(name + "\t" + "".join(groups[name]))


if __name__ == "__main__":
    main(sys.argv[1:])
