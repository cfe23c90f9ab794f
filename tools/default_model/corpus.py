"""Reading the two sources: poems and sentence pairs.

Owns the normal forms everything else stands on: what a verse line is, which form a poem has, what a
title looks like when a person types it, which entries are held out, and which are too damaged or too
rare to learn from. Standard library only; every function is pure, so the same files give the same
result on any machine.
"""
import collections
import gzip
import hashlib
import json
import re

HOLD_OUT = 50          # one in fifty: 2 %
MIN_CHAR_COUNT = 40    # a poem with a rarer character (in the whole collection) is not trained on
MAX_CHARS = 160        # longer poems are left out, a document stays far below 512 tokens

VERSE_END = re.compile("[，。？！；]")
NOT_HAN = re.compile("[^\u3400-\u9fff\U00020000-\U0003ffff〇]")
GOOD_LINE = re.compile("^[\u3400-\u9fff\U00020000-\U0003ffff〇，。？！；、：]+$")
NUMERALS = "一二三四五六七八九十百○〇"
WIDE = {",": "，", ".": "。", "?": "？", "!": "！", ";": "；", ":": "："}

# (number of verse lines, characters in each) -> the form's short name
FORMS = {(4, 5): "五绝", (4, 7): "七绝", (8, 5): "五律", (8, 7): "七律", (4, 6): "六绝"}
CI_KINDS = ("宋词", "清词")
SHI_KINDS = ("唐诗", "宋诗", "汉诗")

# A handful of characters that the sentence pairs still have in traditional or foreign writing.
STRAY = {"絶": "绝", "剎": "刹", "衕": "同", "纔": "才", "幚": "帮", "遅": "迟", "覚": "觉", "逹": "达",
         "兿": "艺", "昰": "是"}

Poem = collections.namedtuple("Poem", "kind form title tune author lines first")


def bucket(key):
    """A number in [0, HOLD_OUT) that depends on the text alone; 0 means held out."""
    digest = hashlib.sha256(key.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % HOLD_OUT


def verses(lines):
    """Verse lines of a poem: its lines cut at ，。？！； without empty ones."""
    return [v.strip() for line in lines for v in VERSE_END.split(line) if v.strip()]


def han(text):
    return NOT_HAN.sub("", text)


def first_key(lines):
    """What decides whether a poem is held out: its first verse line, characters only."""
    for v in verses(lines):
        k = han(v)
        if k:
            return k
    return ""


def form_of(kind, lines):
    """五绝 七绝 五律 七律 六绝 by counting; 五古 七古 for longer poems of even length; 词 by kind."""
    if kind in CI_KINDS:
        return "词"
    vs = verses(lines)
    widths = {len(v) for v in vs}
    if len(widths) != 1 or any("、" in v or "：" in v for v in vs):
        return None
    width = widths.pop()
    if (len(vs), width) in FORMS:
        return FORMS[(len(vs), width)]
    if kind in SHI_KINDS and width in (5, 7) and len(vs) % 2 == 0 and len(vs) > 8:
        return "五古" if width == 5 else "七古"
    return None


def couplets(lines):
    """The poem with one couplet a line, whatever the source's division was."""
    marks = VERSE_END.findall("".join(lines))
    vs = verses(lines)
    if all(len(verses([line])) == 2 and line[-1] in "。？！；" for line in lines):
        return list(lines)
    out = []
    for i in range(0, len(vs) - 1, 2):
        end = marks[i + 1] if i + 1 < len(marks) and marks[i + 1] in "。？！" else "。"
        out.append(vs[i] + "，" + vs[i + 1] + end)
    return out


def clean_title(title):
    """A title as a person types it: no number in a series, no preface note, no series length."""
    t = re.sub(r"\s+", " ", title).strip()
    t = re.sub(r"[（(〔［\[].*?[)）〕］\]]", "", t).strip()
    t = re.sub(rf" 其?[{NUMERALS}\d]+$", "", t)
    t = re.sub(r"[ ，]?[并幷]?(序|引|叙)$", "", t) if re.search(r"[并幷](序|引|叙)$", t) else t
    t = re.sub(rf"[ ，]?[{NUMERALS}]+[首章绝]$", "", t)
    if " " in t:
        t = t.split(" ")[-1]
        t = re.sub(rf"[{NUMERALS}]+[首章绝]$", "", t)
    t = t.strip("。，、・· ")
    return t if GOOD_LINE.match(t or " ") and not re.search("[。，？！；：]", t) else ""


def tune_of(title):
    """词: the names of the tune (some titles give two), the poem's own title left out."""
    head = re.split("[·（( ]", title)[0]
    names = [n.strip() for n in head.split("・")]
    return [n for n in names if n and GOOD_LINE.match(n) and len(n) <= 6 and n != "失调名"]


def clean_author(author):
    a = re.sub(r"\d+$", "", author).strip()
    if not a or a in ("无名氏", "佚名", "不详") or "《" in a or "歌辞" in a or len(a) > 4:
        return ""
    return a


def clean_lines(lines):
    """Lines in full-width punctuation, or None when an entry is damaged."""
    out = []
    for line in lines:
        s = re.sub(r"\s+", "", "".join(WIDE.get(c, c) for c in line))
        if not s:
            continue
        if not GOOD_LINE.match(s):
            return None
        out.append(s if VERSE_END.match(s[-1]) else s + "。")
    return out or None


def read_json_lines(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as f:
        for line in f:
            if line.strip():
                yield json.loads(line)


def unwanted(title):
    """Zen verses, fragments and lost poems: hardly ever poems a person asks for."""
    return bool(re.search("^(句|断句|失题|存目|残句|偈|颂|赞)|偈|颂古|佛赞|语录", title))


def read_poems(path):
    """-> (poems to use, counts of what was left out).

    Held out means bucket(first_key) == 0. A poem half of whose verse lines stand in a held-out poem
    is a variant of it under another first line: it is not trained on (its lines still count as known
    ones, see training_verses(), so that their share is never flattered).
    """
    raw = list(read_json_lines(path))
    freq = collections.Counter()
    for p in raw:
        for line in p["lines"]:
            freq.update(line)
    held_verses = set()
    for p in raw:
        if bucket(first_key(p["lines"])) == 0:
            held_verses.update(v for v in verses(p["lines"]) if len(v) >= 5)
    poems, left = [], collections.Counter()
    for p in raw:
        first = first_key(p["lines"])
        vs = verses(p["lines"])
        held = bucket(first) == 0
        if not held:
            long_ones = [v for v in vs if len(v) >= 5]
            if long_ones and 2 * sum(v in held_verses for v in long_ones) >= len(long_ones):
                left["variant of a held-out poem"] += 1
                continue
        poem, why = _usable(p, first, freq)
        if poem is None:
            left[why] += 1
        else:
            poems.append(poem)
    return poems, left


def _usable(p, first, freq):
    lines = clean_lines(p["lines"])
    if not first or lines is None:
        return None, "damaged"
    form = form_of(p["kind"], lines)
    if form is None:
        return None, "other form"
    if sum(map(len, lines)) > MAX_CHARS:
        return None, "too long"
    if any(freq[c] < MIN_CHAR_COUNT for line in lines for c in line):
        return None, "rare character"
    if unwanted(p["title"]):
        return None, "verse of a temple, fragment"
    tune = tune_of(p["title"]) if form == "词" else []
    if form == "词" and not tune:
        return None, "no tune"
    title = "" if form == "词" else clean_title(p["title"])
    lines = lines if form == "词" else couplets(lines)
    return Poem(p["kind"], form, title, tune, clean_author(p["author"]), lines, first), None


def norm_side(text):
    """A side of a sentence pair without case, punctuation and spaces."""
    return re.sub(r"[\W_]+", "", text.casefold())


def read_pairs(path):
    """-> [(english, chinese, held out)]; pairs that share a side share their fate."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", newline="\n") as f:
        rows = [line.rstrip("\n").split("\t") for line in f]
    pairs, seen = [], set()
    for row in rows:
        if len(row) < 2:
            continue
        en, zh = clean_english(row[0]), clean_chinese(row[1])
        if en and zh and (en, zh) not in seen:
            seen.add((en, zh))
            pairs.append((en, zh))
    return hold_out_pairs(pairs)


def clean_english(s):
    s = s.replace("\u200b", "").replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    return re.sub(r"\s+", " ", s).strip()


def clean_chinese(s):
    s = "".join(STRAY.get(c, c) for c in s.replace("\u200b", "").replace("\u3000", " "))
    s = s.replace("「", "“").replace("」", "”")
    s = re.sub(r"\s+", " ", s).strip()
    for half, wide in WIDE.items():       # half-width marks after a Chinese character
        s = re.sub(f"(?<=[\u4e00-\u9fff”]){re.escape(half)} ?", wide, s)
    return s


def hold_out_pairs(pairs):
    """Connected components over both normalised sides; a component's smallest key is hashed."""
    parent = {}

    def find(x):
        root = x
        while parent[root] != root:
            root = parent[root]
        while parent[x] != root:
            parent[x], x = root, parent[x]
        return root

    for en, zh in pairs:
        a, b = "e" + norm_side(en), "z" + norm_side(zh)
        parent.setdefault(a, a)
        parent.setdefault(b, b)
        ra, rb = find(a), find(b)
        if ra != rb:
            parent[max(ra, rb)] = min(ra, rb)
    return [(en, zh, bucket(find("e" + norm_side(en))) == 0) for en, zh in pairs]


def training_verses(path):
    """All verse lines of poems that are not held out."""
    out = set()
    for p in read_json_lines(path):
        if bucket(first_key(p["lines"])) != 0:
            out.update(verses(p["lines"]))
    return out
