"""The data builder: normal forms, hold-out, requests, reproducible output."""
import collections
import contextlib
import gzip
import io
import json
import os
import random
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools", "default_model"))

import build_data  # noqa: E402
import corpus      # noqa: E402
import prompts     # noqa: E402
import rhyme       # noqa: E402


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


class Forms(unittest.TestCase):
    def test_counting(self):
        self.assertEqual(corpus.form_of("唐诗", ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。"]), "五绝")
        self.assertEqual(corpus.form_of("唐诗", ["白日依山尽，黄河入海流。欲穷千里目，更上一层楼。"]), "五绝")
        self.assertEqual(corpus.form_of("唐诗", ["春眠不觉晓，处处闻啼。", "夜来风雨声，花落知多少。"]), None)
        self.assertEqual(corpus.form_of("宋词", ["无言独上西楼，月如钩。"]), "词")
        self.assertEqual(corpus.form_of("唐诗", ["一二三四五，一二三四五。"] * 6), "五古")
        self.assertIsNone(corpus.form_of("诗经", ["一二三四五，一二三四五。"] * 6))

    def test_couplets(self):
        whole = ["白日依山尽，黄河入海流。欲穷千里目，更上一层楼。"]
        self.assertEqual(corpus.couplets(whole), ["白日依山尽，黄河入海流。", "欲穷千里目，更上一层楼。"])
        asked = ["松下问童子，言师采药去？", "只在此山中，云深不知处。"]
        self.assertEqual(corpus.couplets(asked), asked)

    def test_titles(self):
        for raw, want in (("留别  其二", "留别"), ("三叹 三", "三叹"), ("偶成二首  其一", "偶成"),
                          ("杂曲歌辞 春游曲三首 一", "春游曲"), ("静夜思", "静夜思"), ("秋兴并序", "秋兴"),
                          ("山居〈一作居山〉", ""), ("春日（二首）", "春日")):
            self.assertEqual(corpus.clean_title(raw), want, raw)

    def test_tunes(self):
        self.assertEqual(corpus.tune_of("望江南・忆江南"), ["望江南", "忆江南"])
        self.assertEqual(corpus.tune_of("点绛唇·一种蛾眉"), ["点绛唇"])
        self.assertEqual(corpus.tune_of("失调名"), [])

    def test_lines(self):
        self.assertEqual(corpus.clean_lines(["春眠 不觉晓,处处闻啼鸟"]), ["春眠不觉晓，处处闻啼鸟。"])
        self.assertIsNone(corpus.clean_lines(["春眠□觉晓，处处闻啼鸟。"]))


class HoldOut(unittest.TestCase):
    def test_variants_stay_together(self):
        a = corpus.first_key(["床前明月光，疑是地上霜。"])
        b = corpus.first_key(["“床前明月光”，", "疑是地上霜。"])
        self.assertEqual(a, b)
        self.assertEqual(a, "床前明月光")

    def test_neither_side_is_shared(self):
        rng = random.Random(3)
        pairs = [(f"e{int(rng.random() * 400)}", f"z{int(rng.random() * 400)}") for _ in range(500)]
        pairs += [(en.upper() + "!", zh + "。") for en, zh in pairs[:50]]
        done = corpus.hold_out_pairs(pairs)
        for side in (0, 1):
            fate = collections.defaultdict(set)
            for row in done:
                fate[corpus.norm_side(row[side])].add(row[2])
            self.assertTrue(all(len(f) == 1 for f in fate.values()))

    def test_share(self):
        held = sum(corpus.bucket(f"line {i}") == 0 for i in range(20000))
        self.assertTrue(340 < held < 460, held)


class Requests(unittest.TestCase):
    def test_every_pattern_fills(self):
        rng = random.Random(1)
        slots = dict.fromkeys(("F", "T", "QT", "A", "L", "QL", "C", "QC", "X", "QX"), "甲{乙}")
        lists = [v for d in (prompts.POEM_ZH, prompts.POEM_EN, prompts.CI_ZH, prompts.CI_EN) for v in d.values()]
        lists += [prompts.COUPLET_ZH, prompts.COUPLET_EN, [p for _, p in prompts.TO_ZH + prompts.TO_EN],
                  prompts.THEME_ZH, prompts.THEME_EN]
        for patterns in lists:
            for pattern in patterns:
                self.assertEqual(pattern.count("["), pattern.count("]"), pattern)
                for _ in range(20):
                    s = prompts.fill(rng, pattern, slots, True)
                    self.assertIn("甲{乙}", s)      # a slot's text is never read as a pattern
                    self.assertNotRegex(s.replace("甲{乙}", ""), r"[\[\]{}|]")

    def test_forms_are_named_in_the_request(self):
        rng = random.Random(2)
        seen = {prompts.form_prompt(rng, "七绝", True, "春望") for _ in range(300)}
        self.assertTrue(any("七绝" in s for s in seen) and any("七言绝句" in s for s in seen))
        self.assertGreater(len(seen), 200)
        self.assertTrue(all("春望" in s for s in seen))


class Mix(unittest.TestCase):
    def test_shares(self):
        usual = dict(build_data.parse_mix(""))
        self.assertAlmostEqual(sum(usual.values()), 1)
        other = dict(build_data.parse_mix("to_zh=0.45,七古=0"))
        self.assertAlmostEqual(sum(other.values()), 1)
        self.assertNotIn("七古", other)
        self.assertAlmostEqual(other["to_zh"] / other["to_en"], 3)
        with self.assertRaises(SystemExit):
            build_data.parse_mix("sonnet=1")


class Rhyme(unittest.TestCase):
    def test_classes(self):
        t = rhyme.load_table()
        classes = lambda c: {t[c]}
        self.assertTrue(rhyme.rhymes(["床前明月光", "疑是地上霜", "举头望明月", "低头思故乡"], classes))
        self.assertFalse(rhyme.rhymes(["床前明月光", "疑是地上霜", "举头望明月", "低头思故人"], classes))
        self.assertEqual(rhyme.rhyming_share(["x光", "x霜", "x月", "x人"], classes), 0.5)


class Build(unittest.TestCase):
    def test_same_bytes_and_no_leak(self):
        rng = random.Random(7)
        chars = [chr(0x4E00 + i) for i in range(60)]
        line = lambda n: "".join(prompts.pick(rng, chars) for _ in range(n))
        poems = [{"kind": "唐诗", "title": line(3), "author": "李白",
                  "lines": [f"{line(5)}，{line(5)}。", f"{line(5)}，{line(5)}。"]} for _ in range(600)]
        poems += [{"kind": "宋词", "title": "浣溪沙", "author": "苏轼", "lines": [line(7) + "。"] * 3} for _ in range(60)]
        with tempfile.TemporaryDirectory() as d:
            with gzip.open(os.path.join(d, "p.jsonl.gz"), "wt", encoding="utf-8") as f:
                f.writelines(json.dumps(p, ensure_ascii=False) + "\n" for p in poems)
            with open(os.path.join(d, "s.tsv"), "w", encoding="utf-8") as f:
                f.write("\ufeff")
                f.writelines(f"Sentence {i}.\t{line(6)}。\tby\n" for i in range(300))
            outs = []
            for name in ("a", "b"):
                out = os.path.join(d, name)
                with contextlib.redirect_stdout(io.StringIO()):
                    build_data.main(["--poems", os.path.join(d, "p.jsonl.gz"), "--pairs", os.path.join(d, "s.tsv"),
                                     "--out", out, "--tokens", "60000", "--files", "2", "--seed", "4"])
                outs.append({n: read_bytes(os.path.join(out, n)) for n in sorted(os.listdir(out))})
            self.assertEqual(outs[0], outs[1])
            train = outs[0]["train-01.jsonl"] + outs[0]["train-02.jsonl"]
            docs = [json.loads(x) for x in train.decode().splitlines()]
            self.assertGreater(len(docs), 400)
            for d in docs:
                roles = [m["role"] for m in d["messages"]]
                self.assertTrue(roles and roles == ["user", "assistant"] * (len(roles) // 2))
            self.assertTrue(any(len(d["messages"]) > 4 for d in docs))
            known = {x for d in docs for m in d["messages"][1::2] for x in corpus.verses(m["content"].split("\n"))}
            held = [json.loads(x) for x in outs[0]["heldout-poems.jsonl"].decode().splitlines()]
            self.assertTrue(held)
            for p in held:
                self.assertFalse([v for v in corpus.verses(p["lines"]) if len(v) >= 5 and v in known])


if __name__ == "__main__":
    unittest.main()
