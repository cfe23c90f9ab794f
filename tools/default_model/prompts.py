"""How people ask: the user's side of every training turn.

A pattern is plain text with choices in square brackets, [a|b|], nested at will, and slots in braces.
expand() picks among the choices; the slots are filled afterwards, so what stands in a poem or a
sentence is never read as a pattern. The slots: {F} the form's name, {T} a title as it is, {QT} a
title in some kind of marks, {A} an author, {L} and {QL} a first line, {C} and {QC} a tune, {X} and
{QX} the sentence or verse to work on.

Random choices use random() only, whose sequence Python promises for a seed.
"""
import re

# ---------------------------------------------------------------- choosing


def pick(rng, seq):
    return seq[int(rng.random() * len(seq))]


def weighted(rng, table):
    """table: [(weight, value)]"""
    x = rng.random() * sum(w for w, _ in table)
    for w, v in table:
        x -= w
        if x < 0:
            return v
    return table[-1][1]


def shuffle(rng, seq):
    for i in range(len(seq) - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        seq[i], seq[j] = seq[j], seq[i]


def parse(pattern):
    """Pattern -> list of str and lists of alternatives."""
    pos = 0

    def sequence(closers):
        nonlocal pos
        out, text = [], ""
        while pos < len(pattern) and pattern[pos] not in closers:
            c = pattern[pos]
            pos += 1
            if c != "[":
                text += c
                continue
            if text:
                out.append(text)
                text = ""
            choices = []
            while True:
                choices.append(sequence("|]"))
                if pos >= len(pattern):
                    raise ValueError("no ] in " + pattern)
                pos += 1
                if pattern[pos - 1] == "]":
                    break
            out.append(choices)
        if text:
            out.append(text)
        return out

    tree = sequence("")
    return tree


_parsed = {}


def expand(rng, pattern):
    if pattern not in _parsed:
        _parsed[pattern] = parse(pattern)

    def walk(seq):
        return "".join(p if isinstance(p, str) else walk(pick(rng, p)) for p in seq)

    return walk(_parsed[pattern])


_HALF = {"，": ",", "。": ".", "？": "?", "！": "!", "：": ":", "；": ";", "“": '"', "”": '"',
         "（": "(", "）": ")"}


def fill(rng, pattern, slots, chinese):
    """Expands, sometimes types the marks in half width, then fills the slots."""
    s = expand(rng, pattern)
    if chinese and rng.random() < 0.2:
        s = "".join(_HALF.get(c, c) for c in s)
    if not chinese:
        r = rng.random()
        if r < 0.12:
            s = s[0].lower() + s[1:]
        elif r < 0.18:
            s = s.replace(",", "，").replace(":", "：")
    s = re.sub(r"\{(\w+)\}", lambda m: slots[m.group(1)], s)
    s = re.sub(r"\b([Aa]) (?=eight|old-style)", r"\1n ", s)
    return re.sub(r"\s+", " ", s).strip() if "\n" not in s else s.strip()


def quoted(rng, text, chinese):
    if chinese:
        marks = weighted(rng, [(55, "《》"), (15, "“”"), (10, '""'), (6, "「」"), (3, "''"), (4, "〈〉"),
                               (7, "")])
    else:
        marks = weighted(rng, [(40, '""'), (25, "《》"), (18, "“”"), (7, "''"), (10, "")])
    return marks[0] + text + marks[1] if marks else text


def quoted_line(rng, text, chinese):
    """A verse in quotation marks, or bare; with its comma now and then."""
    if rng.random() < 0.2:
        text += pick(rng, ["，", ",", "。"])
    marks = weighted(rng, [(40, "“”"), (25, '""'), (8, "「」"), (7, "《》"), (3, "''"), (17, "")])
    return marks[0] + text + marks[1] if marks else text


# ---------------------------------------------------------------- names

FORM_ZH = {
    "五绝": [(34, "五绝"), (46, "五言绝句"), (3, "5言绝句"), (3, "五绝诗"), (3, "五言绝句诗"), (3, "五言四句诗"),
           (3, "五言绝句（五绝）"), (3, "五绝（五言绝句）"), (2, "四句五言诗")],
    "七绝": [(34, "七绝"), (46, "七言绝句"), (3, "7言绝句"), (3, "七绝诗"), (3, "七言绝句诗"), (3, "七言四句诗"),
           (3, "七言绝句（七绝）"), (3, "七绝（七言绝句）"), (2, "四句七言诗")],
    "五律": [(34, "五律"), (46, "五言律诗"), (3, "5言律诗"), (3, "五律诗"), (3, "五言八句诗"),
           (3, "五言律诗（五律）"), (3, "五律（五言律诗）")],
    "七律": [(34, "七律"), (46, "七言律诗"), (3, "7言律诗"), (3, "七律诗"), (3, "七言八句诗"),
           (3, "七言律诗（七律）"), (3, "七律（七言律诗）")],
    "六绝": [(50, "六言绝句"), (30, "六言诗"), (20, "六绝")],
    "五古": [(40, "五言古诗"), (35, "五古"), (10, "五言长诗"), (10, "五言古体诗"), (5, "古诗")],
    "七古": [(40, "七言古诗"), (35, "七古"), (10, "七言长诗"), (10, "七言古体诗"), (5, "古诗")],
}
_N = {"五": ("five", "wu", "penta"), "七": ("seven", "qi", "hepta")}


def _english_forms():
    table = {"六绝": [(1, "six-character quatrain")], "五古": [], "七古": []}
    for z, (n, p, g) in _N.items():
        table[z + "绝"] = [
            (24, f"{n}-character quatrain"), (18, f"{n}-character quatrain ({p}jue)"), (10, p + "jue"),
            (10, f"{n}-character jueju"), (8, z + "绝"), (8, z + "言绝句"), (4, f"{n}-syllable quatrain"),
            (4, f"{p}jue ({n}-character quatrain)"), (4, f"{z}绝 ({n}-character quatrain)"),
            (3, f"{n}-character-line quatrain"), (3, f"{p}yan jueju"), (2, f"{g}syllabic quatrain"),
            (2, f"quatrain with {n} characters a line"),
            (2, f"four-line poem with {n} characters per line")]
        table[z + "律"] = [
            (22, f"{n}-character regulated verse"), (16, f"{n}-character regulated verse ({p}lü)"),
            (6, p + "lü"), (6, p + "lu"), (8, f"{n}-character lüshi"), (4, f"{n}-character lushi"),
            (8, z + "律"), (8, z + "言律诗"), (4, f"{n}-syllable regulated verse"),
            (4, f"{n}-character octave"), (4, f"{z}律 ({n}-character regulated verse)"),
            (3, f"{p}yan lüshi"), (3, f"{n}-character regulated poem"),
            (2, f"eight-line poem with {n} characters per line")]
        table[z + "古"] = [(30, f"{n}-character old-style poem"), (20, f"{n}-character gushi"),
                          (20, z + "言古诗"), (10, z + "古"), (10, f"long poem in {n}-character lines")]
    return table


FORM_EN = _english_forms()
LOOSE_ZH = {"绝": ["绝句", "绝句诗", "四句诗"], "律": ["律诗", "八句律诗"], "古": ["古诗", "古体诗", "古风"]}
LOOSE_EN = {"绝": ["quatrain", "jueju", "classical quatrain", "绝句"],
            "律": ["regulated verse", "lüshi", "律诗"], "古": ["old-style poem", "古诗"]}
ANY_ZH = ["诗", "古诗", "诗歌", "小诗", "唐诗", "古典诗"]
ANY_EN = ["poem", "classical Chinese poem", "Chinese poem", "short poem", "classical poem"]


def form_name(rng, form, chinese):
    """The form's name; now and then a looser one that the form also fits."""
    r = rng.random()
    if r < 0.05 and form in ("五绝", "七绝", "五律", "七律"):
        return pick(rng, ANY_ZH if chinese else ANY_EN)
    if r < 0.12 and form[1] in LOOSE_ZH and form[0] != "六":
        return pick(rng, (LOOSE_ZH if chinese else LOOSE_EN)[form[1]])
    return weighted(rng, (FORM_ZH if chinese else FORM_EN)[form])


AUTHOR_EN = {
    "李白": "Li Bai|Li Po", "杜甫": "Du Fu|Tu Fu", "王维": "Wang Wei", "白居易": "Bai Juyi|Po Chü-i",
    "苏轼": "Su Shi|Su Dongpo", "陆游": "Lu You", "李商隐": "Li Shangyin", "杜牧": "Du Mu",
    "孟浩然": "Meng Haoran", "王昌龄": "Wang Changling", "王安石": "Wang Anshi", "杨万里": "Yang Wanli",
    "范成大": "Fan Chengda", "黄庭坚": "Huang Tingjian", "欧阳修": "Ouyang Xiu", "柳宗元": "Liu Zongyuan",
    "韩愈": "Han Yu", "刘禹锡": "Liu Yuxi", "李贺": "Li He", "岑参": "Cen Shen", "韦应物": "Wei Yingwu",
    "贾岛": "Jia Dao", "孟郊": "Meng Jiao", "元稹": "Yuan Zhen", "温庭筠": "Wen Tingyun",
    "辛弃疾": "Xin Qiji", "李清照": "Li Qingzhao", "柳永": "Liu Yong", "秦观": "Qin Guan",
    "晏殊": "Yan Shu", "晏几道": "Yan Jidao", "周邦彦": "Zhou Bangyan", "姜夔": "Jiang Kui",
    "吴文英": "Wu Wenying", "纳兰性德": "Nalan Xingde", "朱熹": "Zhu Xi", "文天祥": "Wen Tianxiang",
    "寒山": "Hanshan|Han Shan", "梅尧臣": "Mei Yaochen", "刘克庄": "Liu Kezhuang", "曹操": "Cao Cao",
    "高适": "Gao Shi", "贺知章": "He Zhizhang", "王之涣": "Wang Zhihuan", "刘长卿": "Liu Changqing",
}
AUTHOR_ZH = {"苏轼": ["苏轼", "苏东坡", "东坡"], "李白": ["李白", "李白", "李太白", "太白"],
             "杜甫": ["杜甫", "杜甫", "杜子美", "少陵"], "白居易": ["白居易", "白乐天"],
             "辛弃疾": ["辛弃疾", "辛稼轩", "稼轩"], "陆游": ["陆游", "陆放翁"], "李清照": ["李清照", "易安"],
             "杨万里": ["杨万里", "杨诚斋"], "王维": ["王维", "王维", "王摩诘"],
             "黄庭坚": ["黄庭坚", "黄山谷"], "欧阳修": ["欧阳修", "欧阳永叔", "六一居士"],
             "李商隐": ["李商隐", "李义山"], "王安石": ["王安石", "王荆公"]}
TUNE_EN = {
    "浣溪沙": "Huanxisha", "水调歌头": "Shuidiao Getou", "鹧鸪天": "Zhegu Tian", "菩萨蛮": "Pusa Man",
    "满江红": "Man Jiang Hong", "西江月": "Xijiang Yue", "临江仙": "Linjiang Xian",
    "念奴娇": "Niannu Jiao", "蝶恋花": "Die Lian Hua", "沁园春": "Qinyuan Chun", "清平乐": "Qingping Yue",
    "虞美人": "Yu Meiren", "卜算子": "Busuanzi", "浪淘沙": "Lang Tao Sha", "如梦令": "Ru Meng Ling",
    "青玉案": "Qingyu An", "江城子": "Jiangchengzi", "渔家傲": "Yujia Ao", "点绛唇": "Dian Jiang Chun",
    "鹊桥仙": "Queqiao Xian", "忆秦娥": "Yi Qin E", "采桑子": "Cai Sangzi", "望江南": "Wang Jiangnan",
    "忆江南": "Yi Jiangnan", "长相思": "Chang Xiang Si", "踏莎行": "Tasuo Xing", "生查子": "Sheng Zhazi",
}


def author_name(rng, author, chinese):
    if chinese:
        return pick(rng, AUTHOR_ZH.get(author, [author]))
    if author in AUTHOR_EN and rng.random() < 0.6:
        name = pick(rng, AUTHOR_EN[author].split("|"))
        return name if rng.random() < 0.7 else f"{name} ({author})"
    return author


def tune_name(rng, tune, chinese):
    if not chinese and tune in TUNE_EN and rng.random() < 0.5:
        name = TUNE_EN[tune]
        return name if rng.random() < 0.5 else f"{name} ({tune})"
    return tune


# ---------------------------------------------------------------- what is asked

_ZQ = "[请|请|请你|帮我|请帮我|麻烦你|给我|为我|||||]"          # a polite word or none
_ZE = "[。|。|！|吧|吧。|，谢谢|||||]"
_ZW = "[写|写|写|作|创作|来|赋]"
_N1 = "[一首|一首|首|]"
_EQ = "[Please |Please |Could you |Can you |I'd like you to |||||]"
_EW = "[write|write|write|compose|give me]"
_EE = "[.|.|.|!|, please.||]"

POEM_ZH = {
    "F": [f"{_ZQ}{_ZW}{_N1}{{F}}{_ZE}", f"{_ZQ}写[一首|首]{{F}}{_ZE}", "[来|写|作]首{F}[吧|。|]", "{F}[一首|]",
          "我想[要|看|读]一首{F}[。|]", "[可以|能|能不能][为我|给我|帮我|]写一首{F}[吗|]？"],
    "T": [f"{_ZQ}以{{QT}}为题[，|]{_ZW}{_N1}{{F}}{_ZE}", f"{_ZQ}{_ZW}[一首|首][题为|名为|题目是|叫]{{QT}}的{{F}}{_ZE}",
          f"{_ZQ}{_ZW}[一首|首]{{F}}[，|，|：| ][题目|题|标题|诗题|主题][是|为|：|叫|]{{QT}}{_ZE}",
          "{F}{QT}", "{F}：{T}", "{F} {QT}", "{QT} {F}", "{QT}，{F}[。|]", "[写|作|赋|来]首{F}[，|：| |]{QT}[。|]",
          f"{_ZQ}{_ZW}一首{{F}}[，|：| |]{{QT}}{_ZE}", f"{_ZQ}写一首[关于|描写|吟咏|咏]{{T}}的{{F}}{_ZE}",
          "[请|]用{F}[的形式|]写[一写|]{QT}[。|]", f"{_ZQ}以{{QT}}为[题目|题材|主题|诗题][，|]{_ZW}{_N1}{{F}}{_ZE}",
          "[赋|写|作]{F}一首[，|：]题[曰|为|作]{QT}[。|]", "[请|]以{QT}为题[，|][写|作|赋]{F}一首[。|]", f"题目：{{T}}[，|；|。| ][体裁|形式|要求]：{{F}}[。|]",
          f"{_ZQ}就{{QT}}{_ZW}{_N1}{{F}}{_ZE}", "我想要一首{F}[，|]题目[是|叫]{QT}[。|]"],
    "A": [f"{_ZQ}[仿|模仿|仿照|学]{{A}}[，|]{_ZW}{_N1}{{F}}{_ZE}", f"{_ZQ}{_ZW}[一首|首]{{A}}[风格|式]的{{F}}{_ZE}",
          f"{_ZQ}[用|以]{{A}}的[风格|笔法|口吻|笔调|手法][，|]{_ZW}{_N1}{{F}}{_ZE}", "仿{A}{F}[一首|]", "{F}[，|,| ]仿{A}[。|]",
          f"{_ZQ}[像{{A}}那样|按{{A}}的风格]写[一首|首]{{F}}{_ZE}", "[写|作]首{F}[，|]{A}[的风格|体|风][。|]"],
    "L": [f"{_ZQ}以{{QL}}[为首句|开头|起句|为第一句|为起句|作首句][，|]{_ZW}{_N1}{{F}}{_ZE}",
          f"{_ZQ}{_ZW}[一首|首]{{F}}[，|：][第一句|首句|开头|起句|头一句][是|为|：]{{QL}}{_ZE}",
          "[请|]续[写|完][这首|]{F}：{L}[，|。|]", "首句{QL}[，|：][写|作][一首|首|]{F}[。|]", "[请|]从{QL}写起[，|][写|作]一首{F}[。|]",
          "{F}[，|,]首句：{L}", "{L}……[请|][续成|写成][一首|]{F}[。|]"],
    "TA": [f"{_ZQ}[仿|模仿|学]{{A}}[，|]以{{QT}}为题[，|]{_ZW}{_N1}{{F}}{_ZE}", "{F}{QT}[，|,| ]仿{A}[。|]",
           f"{_ZQ}以{{QT}}为题[，|]{_ZW}[一首|首]{{A}}风格的{{F}}{_ZE}", f"{_ZQ}[用|以]{{A}}的[风格|口吻|笔法]写一首{{F}}[，|：]{{QT}}{_ZE}",
           f"{_ZQ}{_ZW}[一首|首]题为{{QT}}的{{F}}[，|]仿{{A}}[的风格|]{_ZE}", "[写|作]首{F}{QT}[，|]{A}[体|的风格][。|]"],
    "TL": [f"{_ZQ}以{{QT}}为题[、|，]{{QL}}[为首句|开头][，|]{_ZW}{_N1}{{F}}{_ZE}", "{F}{QT}[，|：]首句[：|是|]{QL}[。|]",
           f"{_ZQ}写一首{{F}}[，|：]题为{{QT}}[，|]第一句[是|：]{{QL}}{_ZE}"],
    "AL": [f"{_ZQ}[仿|模仿]{{A}}[，|]以{{QL}}[为首句|开头][，|]{_ZW}{_N1}{{F}}{_ZE}", "{F}[，|]仿{A}[，|]首句{QL}[。|]"],
}
POEM_EN = {
    "F": [f"{_EQ}{_EW} a {{F}}{_EE}", "Write [me |]a {F}[.|]", "[A |]{F}[, please|].", "I'd like a {F}.", "Can you write a {F}?"],
    "T": [f"{_EQ}{_EW} a {{F}} [titled|entitled|called|with the title|on the title|named] {{QT}}{_EE}",
          f"{_EQ}{_EW} a {{F}}[:| titled:|, title:] {{QT}}{_EE}", "Write a {F} [about|on] {QT}[.|]", "{F}: {QT}", "{QT}, a {F}[.|]",
          f"[Title|The title is]: {{T}}[.|;] {_EW} a {{F}}{_EE}", "Write {QT} as a {F}[.|]", "A {F} [titled|on|about] {QT}[, please|][.|]",
          f"{_EQ}{_EW} a {{F}} on the [theme|topic|subject] {{QT}}{_EE}", "I want a {F} [titled|called] {QT}."],
    "A": [f"{_EQ}{_EW} a {{F}} in the [manner|style] of {{A}}{_EE}", "Write a {F} [like|after] {A}[.|]", "[A |]{F} in the [style|manner] of {A}[.|]",
          f"In the [style|manner] of {{A}}, {_EW} a {{F}}{_EE}", f"Imitate {{A}} and {_EW} a {{F}}{_EE}", "Write a {A}-style {F}[.|]"],
    "L": [f"{_EQ}{_EW} a {{F}} [that begins with|beginning with|starting with|whose first line is|with the first line|that opens with] {{QL}}{_EE}",
          "[Continue|Complete] this {F}: {L}[.|，|]", "First line: {L}. Write [a|the] {F}[.|]", "Start with {QL} and write a {F}[.|]"],
    "TA": [f"{_EQ}{_EW} a {{F}} titled {{QT}} in the [manner|style] of {{A}}{_EE}", "{F}: {QT}, in the [style|manner] of {A}[.|]",
           f"In the [style|manner] of {{A}}, {_EW} a {{F}} [titled|called|about] {{QT}}{_EE}"],
    "TL": [f"{_EQ}{_EW} a {{F}} titled {{QT}} [beginning with|whose first line is] {{QL}}{_EE}"],
    "AL": [f"{_EQ}{_EW} a {{F}} in the [manner|style] of {{A}} [beginning with|starting with] {{QL}}{_EE}"],
}
CI_ZH = {
    "F": [f"{_ZQ}[以{{QC}}为词牌|按{{QC}}词牌|用{{QC}}的词牌|依{{QC}}][，|][写|填|作][一首|首|]词{_ZE}", f"{_ZQ}[填|写|作][一首|首|一阕]{{QC}}{_ZE}",
          f"{_ZQ}[写|填|作][一首|首]词[，|：][词牌|词牌名|调寄|词调][是|为|：|]{{QC}}{_ZE}", "词牌[：|]{QC}", "词[：|，| ]{QC}", "调寄{QC}[，|][填|写]词一首[。|]",
          "{C}", "{C}[一首|一阕]", f"{_ZQ}[填|写]一首{{C}}词{_ZE}"],
    "A": [f"{_ZQ}[仿|模仿|学]{{A}}[，|][填|写][一首|首]{{QC}}{_ZE}", f"{_ZQ}[用|以]{{A}}的[风格|口吻|笔法][填|写]一首词[，|：]词牌[为|是|]{{QC}}{_ZE}",
          "{QC}[，|]仿{A}[。|]", f"{_ZQ}写一首{{A}}风格的{{QC}}{_ZE}"],
    "L": [f"{_ZQ}以{{QL}}[为首句|开头|起句][，|][填|写][一首|首]{{QC}}{_ZE}", "[填|写]一首{QC}[，|：][首句|第一句|起句][是|为|：|]{QL}[。|]",
          "[请|]续[写|完][这首|]{QC}：{L}"],
}
CI_EN = {
    "F": [f"{_EQ}{_EW} a ci [poem |lyric |][to the tune|to the tune of|on the tune|in the form of] {{QC}}{_EE}", "[A |]ci to the tune [of |]{QC}[.|]",
          f"{_EQ}{_EW} a [song lyric|ci] to {{QC}}{_EE}", "Tune: {C}[. Write a ci.|]"],
    "A": [f"{_EQ}{_EW} a ci to the tune [of |]{{QC}} in the [style|manner] of {{A}}{_EE}"],
    "L": [f"{_EQ}{_EW} a ci to the tune [of |]{{QC}} [beginning with|whose first line is|starting with] {{QL}}{_EE}"],
}
COUPLET_ZH = [
    "[请|请你|]对[出|]下[联|句][：|:|，| ]{X}", "上联[：|:|是|]{QX}[，|。| ][请|]对[出|]下联[。|]", "上联：{X}", "上句：{X}", "上句[是|：|]{QX}[，|。][请|]对[出|]下句[。|]",
    "[请|]对对联：{X}", "{QX}的下[一句|联|句][是|是什么？|？|]", "{X}，下[一句|联|句][是|]？", "[请|请你|帮我|]续[写|]下[一句|句]：{X}", "[请|]接下[一句|句]：{X}",
    "[请|请你|帮我|]补全[这|]对[句|联|偶]：{X}[，|]", "给{QX}对[个|一句|]下[联|句][。|]", "[请|]对句：{X}", "对仗：{X}", "{X}[，|]请对下[联|句][。|]", "{QX}，[请|]对[下联|下一句][。|]"]
COUPLET_EN = [
    "Complete [the|this] couplet: {X}", "Complete [the|this] couplet[:|] {QX}[.|]", f"{_EQ}[complete|finish] [the|this] couplet: {{QX}}{_EE}",
    "[Give|Write] the [second|next|other] line of [the|this] couplet[:|] {QX}[.|]", "[What is|Give me] the [matching|second|next] line for {QX}[?|]",
    "First line of a couplet: {X}. [Second line?|Give the second.|Write the second line.]", "The couplet begins {QX}. How does it [go on|end|continue]?"]
TO_ZH = [
    (3, "[请|请你|请帮我|帮我|麻烦|]把[这句话|这句|下面的句子|下面这句话|以下句子|以下英文|这句英语|下面的英文]翻译[成|为|成]中文[：|:]{QX}"),
    (3, "[请|请你|]翻译[成|为]中文[：|:|，|]{QX}"), (2, "译[成|为]中文[：|:]{QX}"), (2, "英译[中|汉][：|:]{X}"), (2, "{QX}[用|]中文怎么说？"),
    (1, "{QX}[是|]什么意思？"), (1, "{QX}翻译[成|为]中文[。|]"), (1, "[请|]将{QX}[译|翻译]成中文[。|]"), (1, "[请|]翻译[一下|][：|:]{X}"), (1, "英文：{X} 中文："),
    (1, "[请问|]{QX}[用|]汉语怎么说？"), (1, "{QX}的中文[翻译|意思|]是什么？"), (1, "[请|]翻成中文[：|:]{QX}"),
    (6, "[Please t|T|T]ranslate [this |the following |the sentence |this sentence ||]into Chinese[:|.] {QX}"),
    (3, "Translate [this |]to Chinese: {QX}"), (3, "How [do|would] you say {QX} in Chinese?"), (2, "English to Chinese: {X}"), (2, "In Chinese[:|, please:] {QX}"),
    (2, "Translate {QX} into Chinese[.|]"), (1, "What is {QX} in Chinese?"), (1, "Translate [this |the following |]from English [in|]to Chinese: {X}"),
    (1, "Chinese translation [of|for][:|] {QX}"), (1, "[Could|Can] you translate {QX} into Chinese?"), (1, "Translate: {X}"),
]
TO_EN = [
    (4, "[请|请你|请帮我|帮我|麻烦|]把[这句话|这句|下面的句子|下面这句话|以下句子|以下中文|下面的中文]翻译[成|为|成][英文|英语][：|:]{QX}"),
    (4, "[请|请你|]翻译[成|为][英文|英语][：|:|，|]{QX}"), (2, "译[成|为][英文|英语][：|:]{QX}"), (2, "[中|汉]译英[：|:]{X}"), (4, "{QX}[用|][英语|英文]怎么说？"),
    (1, "{QX}翻译[成|为][英文|英语][。|]"), (1, "[请|]将{QX}[译|翻译]成[英文|英语][。|]"), (1, "[请|]翻译[一下|][：|:]{X}"), (1, "中文：{X} 英文："),
    (1, "[请问|]{QX}[用|][英语|英文]怎么讲？"), (1, "{QX}的[英文|英语][翻译|]是什么？"), (1, "[请|]翻成[英文|英语][：|:]{QX}"),
    (6, "[Please t|T|T]ranslate [this |the following |the sentence |this sentence ||]into English[:|.] {QX}"),
    (3, "Translate [this |]to English: {QX}"), (2, "How [do|would] you say {QX} in English?"), (2, "Chinese to English: {X}"), (2, "In English[:|, please:] {QX}"),
    (2, "Translate {QX} into English[.|]"), (1, "What does {QX} mean[ in English|]?"), (1, "Translate [this |the following |]from Chinese [in|]to English: {X}"),
    (1, "English translation [of|for][:|] {QX}"), (1, "[Could|Can] you translate {QX} into English?"), (1, "Translate: {X}"),
]


THEMES = {
    "春": ("春天", "spring"), "夏": ("夏天", "summer"), "秋": ("秋天", "autumn"), "冬": ("冬天", "winter"),
    "月": ("月亮", "the moon"), "雨": ("雨", "rain"), "雪": ("雪", "snow"), "风": ("风", "the wind"),
    "梅": ("梅花", "plum blossoms"), "菊": ("菊花", "chrysanthemums"), "荷": ("荷花", "lotus flowers"),
    "柳": ("柳树", "willows"), "竹": ("竹子", "bamboo"), "花": ("花", "flowers"), "夜": ("夜晚", "the night"),
    "山": ("山", "mountains"), "江": ("江水", "the river"), "湖": ("湖", "a lake"), "海": ("大海", "the sea"),
    "别": ("离别", "parting"), "送": ("送别", "saying farewell to a friend"), "归": ("归乡", "going home"),
    "乡": ("思乡", "homesickness"), "酒": ("饮酒", "wine"), "琴": ("琴", "the zither"), "雁": ("大雁", "wild geese"),
    "舟": ("泛舟", "boating"), "寺": ("古寺", "an old temple"), "病": ("病中", "illness"), "老": ("老年", "old age"),
}
THEME_ZH = [f"{_ZQ}{_ZW}[一首|首][关于|描写|写|有关|歌咏]{{T}}的{{F}}{_ZE}", "以{T}为[主题|题材]写一首{F}[。|]", "[写|来]首{F}[，|]写{T}[的|][。|]"]
THEME_EN = [f"{_EQ}{_EW} a {{F}} about {{T}}{_EE}", "[A |]{F} about {T}[, please|][.|]"]


def theme_prompt(rng, form, chinese, theme):
    slots = {"F": form_name(rng, form, chinese), "T": THEMES[theme][0 if chinese else 1]}
    return fill(rng, pick(rng, THEME_ZH if chinese else THEME_EN), slots, chinese)


def form_prompt(rng, form, chinese, title="", author="", line=""):
    """A request for a poem of this form with whatever details are given."""
    key = ("T" if title else "") + ("A" if author else "") + ("L" if line else "") or "F"
    if key == "TAL":
        key, author = "TL", ""
    slots = {"F": form_name(rng, form, chinese), "T": title, "A": author_name(rng, author, chinese), "L": line,
             "QT": quoted(rng, title, chinese), "QL": quoted_line(rng, line, chinese)}
    return fill(rng, pick(rng, (POEM_ZH if chinese else POEM_EN)[key]), slots, chinese)


def ci_prompt(rng, tune, chinese, author="", line=""):
    """A request for a 词 to a tune."""
    key = "L" if line else "A" if author else "F"
    name = tune_name(rng, tune, chinese)
    slots = {"C": name, "QC": quoted(rng, name, chinese), "A": author_name(rng, author, chinese), "L": line,
             "QL": quoted_line(rng, line, chinese)}
    return fill(rng, pick(rng, (CI_ZH if chinese else CI_EN)[key]), slots, chinese)


def couplet_prompt(rng, verse, chinese):
    slots = {"X": verse, "QX": quoted_line(rng, verse, chinese)}
    return fill(rng, pick(rng, COUPLET_ZH if chinese else COUPLET_EN), slots, chinese)


def translate_prompt(rng, text, to_chinese):
    pattern = weighted(rng, TO_ZH if to_chinese else TO_EN)
    marks = weighted(rng, [(45, ""), (30, "“”"), (25, '""')])
    inline = not pattern.endswith(("{QX}", "{X}"))
    asked = text
    if inline and marks == "" and rng.random() < 0.7:      # "... 用英语怎么说？": no full stop inside
        asked = text.rstrip(".。")
    elif rng.random() < 0.08:
        asked = text.rstrip(".。")
    slots = {"X": asked, "QX": marks[0] + asked + marks[1] if marks else asked}
    chinese = any("\u4e00" <= c <= "\u9fff" for c in pattern)
    return fill(rng, pattern, slots, chinese)
