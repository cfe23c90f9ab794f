"""The judge: chrF by hand, exact form, rhyme, nearest sentence, and a whole report with a stand-in
program whose answers are known, so that every figure of the report can be told beforehand."""
import contextlib
import io
import json
import os
import stat
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools", "default_model"))

import chrf      # noqa: E402
import evaluate  # noqa: E402


class ChrF(unittest.TestCase):
    def test_by_hand(self):
        s = chrf.statistics(chrf.ngrams("abc", 2), chrf.ngrams("abd", 2))
        self.assertEqual(s, [(2, 3, 3), (1, 2, 2)])
        self.assertAlmostEqual(chrf.f_score(s), (2 / 3 + 1 / 2) / 2)

    def test_recall_weighs_more(self):
        # answer "ab", reference "abcd": precision 1, recall (2/4 + 1/3) / 2 = 0.41667; F2 = 5pr/(4p+r)
        s = chrf.statistics(chrf.ngrams("ab", 2), chrf.ngrams("abcd", 2))
        r = (2 / 4 + 1 / 3) / 2
        self.assertAlmostEqual(chrf.f_score(s), 5 * r / (4 + r))
        back = chrf.f_score(chrf.statistics(chrf.ngrams("abcd", 2), chrf.ngrams("ab", 2)))
        self.assertGreater(back, chrf.f_score(s))

    def test_corpus(self):
        self.assertEqual(chrf.corpus(["我爱你。"], [["你好。", "我爱你。"]]), 1.0)
        self.assertEqual(chrf.corpus(["x"], [["y"]]), 0.0)
        self.assertEqual(chrf.corpus([""], [["y"]]), 0.0)
        # sums come before the mean: one right of two equally long sentences is one half
        self.assertAlmostEqual(chrf.corpus(["abcdef", "uvwxyz"], [["abcdef"], ["ghijkl"]]), 0.5)

    def test_nearest(self):
        n = chrf.Nearest(["I like green tea.", "He ran home.", "I like black tea.", "Where are you?"] * 3, False)
        self.assertEqual(n.find("He ran to his home."), 1)
        n = chrf.Nearest(["我喜欢茶。", "他跑回家。", "你在哪里？", "今天下雨。", "他走了。"], True)
        self.assertEqual(n.find("你在家里？"), 2)


class Form(unittest.TestCase):
    good = "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。"

    def test_exact(self):
        ok = lambda a: evaluate.exact_form(a, "五绝")
        self.assertTrue(ok(self.good))
        self.assertTrue(ok(self.good.replace("\n", "")))
        self.assertFalse(evaluate.couplet_lines(self.good.replace("\n", ""), "五绝"))
        self.assertTrue(evaluate.couplet_lines(self.good, "五绝"))
        self.assertFalse(ok("静夜思\n" + self.good))
        self.assertFalse(ok(self.good[:-2] + "。"))
        self.assertFalse(ok(self.good + "\n" + self.good))
        self.assertFalse(ok(self.good.replace("霜", "a")))
        self.assertFalse(ok(self.good.replace("霜", "\ufffd")))
        self.assertFalse(ok(""))
        self.assertFalse(evaluate.exact_form(self.good, "七绝"))


FAKE = """#!%s
import sys
text = sys.stdin.buffer.read().decode()
if sys.argv[1] == "tokenize":
    print("1 " * (1 + len(text)))
elif sys.argv[1] == "score":
    for i in range(1 + len(text)):
        print('{"pos":%%d,"id":1,"logprob":%%s,"top":[]}' %% (i, "null" if i == 0 else "-0.6931471805599453"))
elif "Translate" in text or "翻译" in text:
    print("Yes." if any("一" <= c <= "龥" for c in text.split("：")[-1].split(": ")[-1]) else "是。")
elif "七" in text or "seven" in text:
    print("两个黄鹂鸣翠柳，一行白鹭上青天。\\n窗含西岭千秋雪，门泊东吴万里船。")
elif "五" in text or "five" in text:
    print("床前明月光，疑是地上霜。\\n举头望明月，低头思故人。" if "春" in text else "错")
else:
    print("对。")
"""


class Report(unittest.TestCase):
    def test_figures(self):
        with tempfile.TemporaryDirectory() as d:
            path = lambda n: os.path.join(d, n)
            put = lambda n, s: evaluate.write(path(n), s)
            put("fake", FAKE % sys.executable)
            os.chmod(path("fake"), os.stat(path("fake")).st_mode | stat.S_IXUSR)
            put("poems.jsonl", json.dumps({"kind": "唐诗", "title": "x", "author": "y", "lines": ["窗含西岭千秋雪，床前明月光。"]}) + "\n")
            put("heldout-titles.txt", "春日\n秋日\n春夜\n秋夜\n")
            people = {"form": "五绝", "lines": ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。"]}
            put("heldout-poems.jsonl", json.dumps(people) + "\n" + json.dumps(dict(
                people, form="七绝", lines=["朝辞白帝彩云间，千里江陵一日还。", "两岸猿声啼不住，轻舟已过万重山。"])) + "\n")
            put("train-pairs.tsv", "Yes.\t是。\nNo.\t不。\nYes!\t是。\n")
            put("heldout-pairs.tsv", "Yes, yes.\t是。\n")
            put("heldout-first.tsv", "五绝\t春眠不觉晓\n")
            put("heldout-couplets.tsv", "天\t地。\n")
            put("valid.jsonl", json.dumps({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "一二三"}]}) + "\n")
            with contextlib.redirect_stdout(io.StringIO()) as said:
                evaluate.main(["--qiusuo", path("fake"), "--model", "m", "--data", d, "--poems", path("poems.jsonl"),
                               "--out", path("out"), "--tasks", "1", "--bits", "5", "--jobs", "1"])
            with open(path("out/evaluation.json"), encoding="utf-8") as f:
                r = json.load(f)
            self.assertEqual(r["titles"]["五绝"]["exact form"], 0.5)
            self.assertEqual(r["titles"]["五绝"]["rhyme"], 0.0)          # 霜, 人
            self.assertEqual(r["titles"]["五绝"]["known lines"], 0.25)   # 床前明月光
            self.assertEqual(r["titles"]["五绝"]["people"], {"poems": 1, "rhyme": 1.0, "known lines": 0.25})
            self.assertEqual(r["titles"]["七绝"]["exact form"], 1.0)
            self.assertEqual(r["titles"]["七绝"]["rhyme"], 1.0)          # 天, 船
            self.assertEqual(r["titles"]["七绝"]["different answers"], 1)
            self.assertEqual(r["titles"]["mean"]["exact form"], 0.75)
            self.assertEqual(r["translation"]["en-zh"]["model"], 100.0)
            self.assertEqual(r["translation"]["en-zh"]["commonest sentence"], "是。")
            self.assertEqual(r["tasks"]["couplet: one line of equal length"], 1.0)
            self.assertEqual(r["tasks"]["first line: kept"], 0.0)
            self.assertAlmostEqual(r["bits"]["all"], 4 / 3, places=3)    # the space counts as a token, not as text
            self.assertIn("| exact form, 五绝 and 七绝 | 0.75 | at least 0.90 | must | no |", said.getvalue())
            with open(path("out/answers.tsv"), encoding="utf-8") as f:
                self.assertIn("五言绝句", f.read())
            self.assertTrue(os.path.getsize(path("out/evaluation.svg")) > 500)


if __name__ == "__main__":
    unittest.main()
