"""qiusuo eval on benchmark files: each published form, scores against `score`, the journal.

The samples are written for this test. Expected scores are computed here from the program's own
log-probabilities of ids (qiusuo score), which have tests of their own; prompts and rules are spelled
out once more."""
import csv
import gzip
import json
import math
import os
import signal
import subprocess
import time
import unittest

from program import ENV, FOLDER, PROGRAM, Terminal, main, model, run

LETTERS = [
    ("What is the colour of snow?", ["red", "white", "green, and\nblue", "\"black\""], "B"),
    ("天上有几个太阳？", ["一个", "两个", "三个", "四个"], "A"),
    ("Which word is a fruit?", ["stone", "cloud", "river", "pear"], "D"),
    ("水在多少度结冰？", ["十度", "五十度", "零度", "一百度"], "C"),
]
DEV = [("What do cows drink?", ["water", "ink", "sand", "tea"], "A"),
       ("太阳从哪边升起？", ["西边", "东边", "南边", "北边"], "B")]
HELLASWAG = [
    {"ind": 1, "activity_label": "Making tea", "ctx_a": "A woman fills a kettle.",
     "ctx_b": "she then Puts it on the stove and", "ctx": "not used",
     "endings": ["waits until it boils [step] slowly.", "drives to  the moon.", "eats it.",
                 "[title] sings to the kettle about the long winter and the short summer."],
     "split": "val", "label": 0},
    {"ind": 2, "activity_label": "下棋", "ctx": "两个人坐在树下。 [title] 他们", "label": "1",
     "endings": ["吃了棋盘。", "开始下棋。", "飞走了。", "变成了石头。"]},
]
ARC = [
    {"id": "a", "question": {"stem": "Which animal can fly?", "choices": [
        {"text": "a dog", "label": "A"}, {"text": "a sparrow in the morning", "label": "B"},
        {"text": "a carp", "label": "C"}]}, "answerKey": "B"},
    {"id": "b", "question": {"stem": "冰变成水叫什么？", "choices": [
        {"text": "融化", "label": "1"}, {"text": "凝固", "label": "2"}]}, "answerKey": "1"},
]
PIQA = [{"goal": "To dry a wet shirt,", "sol1": "hang it in the sun.", "sol2": "put it in a well."},
        {"goal": "要把灯打开，", "sol1": "把书翻到最后一页。", "sol2": "按一下开关。"}]
PIQA_LABELS = [0, 1]
GSM8K = [{"question": "Tom has 3 pens and buys 4. How many has he?", "answer": "3+4=7\n#### 7"},
         {"question": "小明有十个苹果，吃了两个，还剩几个？", "answer": "10-2=8\n#### 8"},
         {"question": "A book costs $1,000. What do two cost?", "answer": "2*1000\n#### 2,000"}]
HUMANEVAL = [{"task_id": "own/%d" % i, "prompt": "def %s(x):\n    \"\"\"%s\"\"\"\n" % (name, words),
              "canonical_solution": "    return %s\n" % body, "entry_point": name,
              "test": "def check(candidate):\n    assert candidate(2) == %d\n" % want}
             for i, (name, words, body, want) in enumerate([("double", "Twice x.", "2 * x", 4),
                                                            ("square", "x 的平方。", "x * x", 4)])]


def path(name):
    return os.path.join(FOLDER, name)


def write(name, text):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    with open(path(name), "w", encoding="utf-8", newline="") as f:
        f.write(text)
    return path(name)


def write_csv(name, rows, bom=False):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    with open(path(name), "w", encoding="utf-8-sig" if bom else "utf-8", newline="") as f:
        csv.writer(f).writerows(rows)
    return path(name)


def write_jsonl(name, objects):
    return write(name, "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects))


def mmlu(name, items):
    return write_csv(name, [[q, *c, a] for q, c, a in items])


class Model:
    """Log-likelihoods of continuations, from ids and their log-probabilities."""

    def __init__(self, name):
        self.name = name
        self.known = {}

    def ids(self, text):
        rc, out, err = run("tokenize", "-m", self.name, "--no-special", stdin=text)
        assert rc == 0, err
        return out.decode().split()

    def likelihood(self, prompt, text):
        if (prompt, text) not in self.known:
            whole, n = self.ids(prompt + text), len(self.ids(prompt))
            rc, out, err = run("score", "-m", self.name, "--ids", " ".join(whole))
            assert rc == 0, err
            lines = [json.loads(line) for line in out.decode().splitlines()]
            self.known[prompt, text] = sum(p["logprob"] for p in lines[min(n, len(whole) - 1):])
        return self.known[prompt, text]

    def scores(self, prompt, choices, right):
        lls = [self.likelihood(prompt, " " + c) for c in choices]
        norm = [x / len(c.encode()) for x, c in zip(lls, choices)]
        return lls, lls.index(max(lls)) == right, norm.index(max(norm)) == right


def question(item, answer):
    q, choices, _ = item
    return q + "".join("\n%s. %s" % x for x in zip("ABCD", choices)) + answer


def letters(m, items, head, answer, dev=()):
    prompt = head + "".join(question(d, answer) + " " + d[2] + "\n\n" for d in dev)
    return [m.scores(prompt + question(i, answer), "ABCD", "ABCD".index(i[2])) for i in items]


MMLU_HEAD = "The following are multiple choice questions (with answers) about %s.\n\n"
CEVAL_HEAD = "以下是中国关于%s的单项选择题，请选出其中的正确答案。\n\n"
CMMLU_HEAD = "以下是关于%s的单项选择题，请直接给出正确答案的选项。\n\n"


class Eval(unittest.TestCase):
    def setUp(self):
        self.m = Model(model("moe", "f32"))

    def ok(self, *args):
        rc, out, err = run("eval", "-m", self.m.name, *args)
        self.assertEqual(rc, 0, err)
        return out.decode()

    def fails(self, message, *args, code=1):
        rc, out, err = run("eval", "-m", self.m.name, *args)
        self.assertEqual((rc, out), (code, b""), err)
        self.assertIn(message, err.decode())

    def check(self, want, *args):
        """The report and the journal of a run over one file."""
        out = path("check.json")
        for old in (out, out + ".journal"):
            if os.path.exists(old):
                os.remove(old)
        r = json.loads(self.ok(*args, "--json", "-o", out))
        with open(out, encoding="utf-8") as f:
            self.assertEqual(json.load(f), r)
        with open(out + ".journal", encoding="utf-8") as f:
            lines = [json.loads(line) for line in f][1:]
        self.assertEqual(len(lines), len(want))
        for line, (lls, acc, norm) in zip(lines, want):
            for got, ll in zip(line["log_likelihood"], lls):
                self.assertAlmostEqual(got, ll, delta=1e-4)
            self.assertEqual(line["score"], [acc, norm][:len(line["score"])])
        n = len(want)
        for k, name in enumerate(["acc", "acc_norm"][:2 if "acc_norm" in r else 1]):
            p = sum(w[1 + k] for w in want) / n
            self.assertAlmostEqual(r[name]["value"], p, delta=1e-12)
            self.assertAlmostEqual(r[name]["se"], math.sqrt(p * (1 - p) / (n - 1)), delta=1e-12)
        return r

    def test_mmlu(self):
        want = letters(self.m, LETTERS, MMLU_HEAD % "odd things", "\nAnswer:")
        name = mmlu("mmlu/odd_things_test.csv", LETTERS)
        r = self.check(want, name)
        self.assertEqual((r["task"], r["shots"], r["items"]), ("mmlu", 0, 4))
        self.assertEqual([f["name"] for f in r["files"]], ["odd_things"])
        objects = [{"question": q, "choices": c, "answer": "ABCD".index(a), "subject": "odd_things"}
                   for q, c, a in LETTERS]
        self.check(want, write_jsonl("x.jsonl", objects))
        self.check(want, write("x.json", json.dumps(objects, indent=1)))
        dev = mmlu("mmlu_dev/odd_things_dev.csv", DEV)
        want = letters(self.m, LETTERS, MMLU_HEAD % "odd things", "\nAnswer:", DEV)
        self.assertEqual(self.check(want, name, "--dev", dev)["shots"], 2)
        self.check(want, name, "--dev", os.path.dirname(dev))
        want = letters(self.m, LETTERS, MMLU_HEAD % "odd things", "\nAnswer:", DEV[:1])
        self.check(want, name, "--dev", dev, "--shots", "1")

    def test_ceval(self):
        want = letters(self.m, LETTERS, CEVAL_HEAD % "逻辑学", "\n答案：")
        head = ["id", "question", "A", "B", "C", "D", "answer"]
        rows = [head] + [[i, q, *c, a] for i, (q, c, a) in enumerate(LETTERS)]
        r = self.check(want, write_csv("ceval/logic_val.csv", rows))
        self.assertEqual(r["task"], "ceval")
        rows = [head + ["explanation"]] + [row + ["因为\n如此"] for row in rows[1:]]
        self.check(want, write_csv("ceval/logic_dev.csv", rows, bom=True))
        self.check(want, write_jsonl("ceval_json/logic_val.jsonl", [dict(zip(rows[0], row))
                                                                 for row in rows[1:]]))
        name = write_csv("ceval/law_test.csv", [row[:6] for row in rows])
        self.fails("does not say which choice is right", name)
        want = letters(self.m, LETTERS, MMLU_HEAD % "logic", "\nAnswer:")
        self.check(want, path("ceval/logic_val.csv"), "--task", "mmlu")

    def test_cmmlu(self):
        rows = [["", "Question", "A", "B", "C", "D", "Answer"]]
        rows += [[i, q, *c, a] for i, (q, c, a) in enumerate(LETTERS)]
        want = letters(self.m, LETTERS, CMMLU_HEAD % "艺术学", "\n答案：")
        self.assertEqual(self.check(want, write_csv("cmmlu/arts.csv", rows))["task"], "cmmlu")

    def test_hellaswag(self):
        prompts = ["Making tea: A woman fills a kettle. She then puts it on the stove and",
                   "下棋: 两个人坐在树下。.  他们"]
        prompts[1] = prompts[1].replace("  ", " ")
        endings = [["waits until it boils  slowly.".replace("  ", " "), "drives to the moon.", "eats it.",
                    " sings to the kettle about the long winter and the short summer."],
                   HELLASWAG[1]["endings"]]
        want = [self.m.scores(p, e, i) for i, (p, e) in enumerate(zip(prompts, endings))]
        r = self.check(want, write_jsonl("h/hellaswag_val.jsonl", HELLASWAG))
        self.assertEqual(r["task"], "hellaswag")

    def test_arc(self):
        prompt = "Question: %s\nAnswer:"
        want = [self.m.scores(prompt % x["question"]["stem"],
                              [c["text"] for c in x["question"]["choices"]], right)
                for x, right in zip(ARC, (1, 0))]
        self.assertEqual(self.check(want, write_jsonl("ARC-Easy-Test.jsonl", ARC))["task"], "arc")
        other = [{"id": x["id"], "question": x["question"]["stem"], "answerKey": x["answerKey"],
                  "choices": {k: [c[k] for c in x["question"]["choices"]] for k in ("text", "label")}}
                 for x in ARC]
        self.check(want, write_jsonl("arc_hf.jsonl", other))
        head = ("questionID originalQuestionID totalPossiblePoint AnswerKey isMultipleChoiceQuestion "
                "includesDiagram examName schoolGrade year question subject category").split()
        rows = [[x["id"], "1", "1", x["answerKey"], "1", "0", "Test", "5", "2007", " ".join(
                    [x["question"]["stem"]] + ["(%(label)s) %(text)s" % c for c in x["question"]["choices"]]),
                 "", "Test"] for x in ARC]
        self.check(want, write_csv("ARC-Easy-Test.csv", [head] + rows))

    def test_piqa(self):
        want = [self.m.scores("Question: %s\nAnswer:" % x["goal"], [x["sol1"], x["sol2"]], right)
                for x, right in zip(PIQA, PIQA_LABELS)]
        name = write_jsonl("piqa/valid.jsonl", PIQA)
        self.fails("does not say which choice is right", name)
        labels = write("piqa/elsewhere.lst", "0\n1\n")
        self.check(want, name, "--labels", labels)
        write("piqa/valid-labels.lst", "0\r\n1\r\n")
        self.assertEqual(self.check(want, name)["task"], "piqa")
        self.check(want, write_jsonl("piqa2.jsonl", [dict(x, label=i)
                                                     for x, i in zip(PIQA, PIQA_LABELS)]))
        self.fails("has 1 labels", name, "--labels", write("one.lst", "1\n"))
        self.fails("elsewhere.lst' line 2", name, "--labels", write("piqa/elsewhere.lst", "0\n2\n"))

    def test_neighbours(self):
        """Questions of as many tokens, one after the other; choices of which one is short."""
        items = [("What follows after " + w + "?", ["aa", "bb", "cc", "dd"], "B")
                 for w in "1234"]
        want = letters(self.m, items, MMLU_HEAD % "near", "\nAnswer:")
        self.check(want, mmlu("near_test.csv", items))
        words = "stone river cloud green 春 秋 水 moon pear salt".split()
        pairs = [{"goal": "Take %s" % a, "sol1": b, "sol2": "%s %s and %s" % (a, b, c), "label": 1}
                 for a in words[:5] for b, c in zip(words, words[3:])]
        want = [self.m.scores("Question: %s\nAnswer:" % x["goal"], [x["sol1"], x["sol2"]], 1)
                for x in pairs]
        self.check(want, write_jsonl("pairs.jsonl", pairs))

    def generated(self, prompt, *options, raw=True):
        args = ["--raw", prompt] if raw else [prompt]
        rc, out, err = run("run", self.m.name, *args, "--temp", "0", "--repeat-penalty", "1", "--json",
                           *options)
        self.assertEqual(rc, 0, err)
        return json.loads(out)["text"]

    def answers(self, *args):
        out = path("answers.json")
        for old in (out, out + ".journal"):
            if os.path.exists(old):
                os.remove(old)
        report = json.loads(self.ok(*args, "-o", out, "--json"))
        with open(out + ".journal", encoding="utf-8") as f:
            return report, [json.loads(line) for line in f][1:]

    def test_gsm8k(self):
        name = write_jsonl("gsm8k_test.jsonl", GSM8K)
        r, lines = self.answers(name, "-n", "24", "--chat", "off")
        self.assertEqual((r["task"], r["items"], r["shots"]), ("gsm8k", 3, 0))
        for x, line in zip(GSM8K, lines):
            prompt = "Question: %s\nAnswer:" % x["question"]
            self.assertEqual(line["answer"], self.generated(prompt, "-n", "24", "--stop", "Question:"))
            self.assertEqual(len(line["score"]), 2)
        shown = "".join("Question: %s\nAnswer: %s\n\n" % (x["question"], x["answer"]) for x in GSM8K[:2])
        _, lines = self.answers(name, "-n", "5", "--chat", "off", "--dev", name, "--shots", "2",
                                "--limit", "1", "--stop", "\\n", "-c", "1024")
        prompt = shown + "Question: %s\nAnswer:" % GSM8K[0]["question"]
        self.assertEqual(lines[0]["answer"],
                         self.generated(prompt, "-n", "5", "--stop", "\n", "-c", "1024"))
        # asked in a conversation where the model has a template
        _, lines = self.answers(name, "-n", "12", "--limit", "1")
        prompt = "Question: %s\nAnswer:" % GSM8K[0]["question"]
        self.assertEqual(lines[0]["answer"], self.generated(prompt, "-n", "12", raw=False))

    def test_gsm8k_killed(self):
        args = [write_jsonl("many_gsm8k.jsonl", [dict(x, question="%d: %s" % (i, x["question"]))
                                                 for i in range(40) for x in GSM8K]), "-n", "30"]
        whole, out = path("whole_gsm8k.json"), path("parts_gsm8k.json")
        self.ok(*args, "-o", whole)
        n = self.killed(args, out).count(b"\n") - 1
        self.assertTrue(0 < n < 120, n)
        rc, _, err = run("eval", "-m", self.m.name, *args, "-o", out, "--resume")
        self.assertEqual(rc, 0, err)
        self.assertIn(b"of 120 items were done before", err)
        for end in ("", ".journal"):
            with open(whole + end, "rb") as f, open(out + end, "rb") as g:
                self.assertEqual(f.read(), g.read(), end)

    def test_humaneval(self):
        name = write_jsonl("HumanEval.jsonl", HUMANEVAL)
        self.fails("--run-code allows that", name)
        self.fails("there is no program", name, "--run-code", "--python", "/no/python")
        script = write("python.sh", "#!/bin/sh\nexec python3 \"$@\"\n")
        os.chmod(script, 0o755)
        self.fails("scripts do not count", name, "--run-code", "--python", script)
        _, _, err = run("eval", "-m", self.m.name, name, "--run-code", "-n", "1", "-c", "1024")
        if b"no sandbox" in err:
            self.skipTest("this system has no sandbox")
        self.fails("does not work in the sandbox", name, "--run-code", "--python", "/bin/true")
        r, lines = self.answers(name, "--run-code", "-n", "16", "--chat", "off", "-c", "1024")
        self.assertEqual(r["pass@1"], {"value": 0, "se": 0})
        for x, line in zip(HUMANEVAL, lines):
            stops = [w for s in ("\\nclass", "\\ndef", "\\n#", "\\nif", "\\nprint") for w in ("--stop", s)]
            self.assertEqual(line["answer"], self.generated(x["prompt"], "-n", "16", "-c", "1024", *stops))
            self.assertIn(line["program"], ("failed", "timed out"))

    def test_folder_and_table(self):
        mmlu("subjects/abc_test.csv", LETTERS[:2])
        mmlu("subjects/long_words_test.csv", LETTERS)
        write("subjects/README.md", "not data")
        r = json.loads(self.ok(path("subjects"), "--json"))
        self.assertEqual([(f["name"], f["items"]) for f in r["files"]], [("abc", 2), ("long_words", 4)])
        accs = [f["acc"]["value"] for f in r["files"]]
        self.assertAlmostEqual(r["acc"]["value"], (2 * accs[0] + 4 * accs[1]) / 6, delta=1e-12)
        self.assertAlmostEqual(r["mean_of_files"]["acc"], sum(accs) / 2, delta=1e-12)
        table = self.ok(path("subjects")).splitlines()
        self.assertEqual(len(table), 5)
        self.assertIn("%6.2f %% +- " % (100 * r["acc"]["value"]), table[3])
        same = json.loads(self.ok(path("subjects/abc_test.csv"), path("subjects/long_words_test.csv"),
                                  "--json"))
        self.assertEqual(same, r)
        few = json.loads(self.ok(path("subjects"), "--json", "--limit", "1"))
        self.assertEqual([f["items"] for f in few["files"]], [1, 1])

    def test_model_in_front(self):
        name = mmlu("front_test.csv", LETTERS)
        a = self.ok(name)
        rc, out, err = run("eval", self.m.name, name)
        self.assertEqual((rc, out.decode()), (0, a), err)

    def test_long_prompts_are_told(self):
        name = mmlu("cut_test.csv", [("very " * 200 + q, c, a) for q, c, a in LETTERS])
        rc, out, err = run("eval", "-m", model("moe", "f32", "ctx=64"), name, "--json")
        self.assertEqual(rc, 0, err)
        self.assertEqual(json.loads(out)["cut"], 4)
        self.assertIn(b"4 prompts were longer than the context", err)

    def test_bad_files(self):
        self.fails("no .csv, .json or .jsonl file", os.path.dirname(write("nothing/x.md", "x")))
        self.fails("'%s': line 3: the answer is 'F', wanted A to D" % path("bad.csv"),
                   write("bad.csv", "q,a,b,c,d,A\n\nq,a,b,c,d,F\n"))
        self.fails("line 2: 5 fields, where the first row has 6", write("bad.csv", "q,a,b,c,d,A\nq,a,b,c,A"))
        self.fails("line 2: a quote is opened", write("bad.csv", "q,a,b,c,d,A\n\"q,a,b,c,d,A\n"))
        self.fails("line 2: bad JSON in column", write("bad.jsonl", json.dumps(ARC[0]) + "\n{\"id\": \n"))
        self.fails("line 2: not of the form of those before it (arc)",
                   write_jsonl("bad.jsonl", [ARC[0], PIQA[0]]))
        self.fails("is none of the choices' labels", write_jsonl("bad.jsonl", [dict(ARC[0], answerKey="X")]))
        for name in ("HumanEval.jsonl", "HumanEval.jsonl.gz"):  # as it is published
            os.makedirs(FOLDER, exist_ok=True)
            with gzip.open(path(name), "wb") as f:
                f.write(json.dumps(HUMANEVAL[0]).encode())
            self.fails("unpack it with gunzip", path(name))
        self.fails("bad.csv': the file is empty\n", write("bad.csv", "\n"))
        self.fails("bad.json': it holds no item\n", write("bad.json", "[]"))
        self.fails("line 2: \"answer\" does not end with a line", write_jsonl(
            "bad.jsonl", [GSM8K[0], dict(GSM8K[1], answer="#### abc")]))
        self.fails("cannot open '%s': No such file or directory\n" % path("no.csv"), path("no.csv"))
        self.fails("cannot open '%s': No such file or directory\n" % path("no.txt"), path("no.txt"))
        self.fails("bad.jsonl' line 2 does not say which choice is right", write_jsonl(
            "bad.jsonl", [dict(PIQA[0], label=1), PIQA[1]]))
        self.fails("bad.json' element 2 does not say which choice is right", write(
            "bad.json", json.dumps([dict(PIQA[0], label=1), PIQA[1]])))
        self.fails("of no known form", write("bad.csv", "a,b,c\n"))
        self.fails("of no known form", write("bad.jsonl", "{\"text\": \"x\"}\n"))
        self.fails("one task at a time", write_jsonl("arc1.jsonl", ARC),
                   mmlu("m1.csv", LETTERS))
        self.fails("holds no examples for 'm1'", path("m1.csv"), "--dev",
                   os.path.dirname(mmlu("dev2/other_dev.csv", DEV)))
        self.fails("has 2 examples, 3 are wanted", path("m1.csv"), "--dev", path("dev2/other_dev.csv"),
                   "--shots", "3")
        self.fails("--dev names a file", path("m1.csv"), "--shots", "3")

    def test_output_that_cannot_be_written(self):
        name, folder = mmlu("w.csv", LETTERS), path("w_folder")
        os.makedirs(folder, exist_ok=True)
        self.fails("it is a folder", name, "-o", folder)
        self.assertFalse(os.path.exists(folder + ".journal"), "items were evaluated first")

    def test_unknown_chat_template(self):
        name = write_jsonl("template_gsm8k.jsonl", GSM8K)
        args = [name, "-n", "1", "--chat-template", "nonsense"]
        for more in ((), ("--chat", "auto"), ("--chat", "on")):
            self.fails("unknown chat template 'nonsense' (known: ", *args, *more)
        self.ok(*args, "--chat", "off")  # does not matter where none is used

    def test_usage(self):
        name, text = mmlu("u.csv", LETTERS), write("u.txt", "some text of a few words")
        self.fails("are for texts", name, "--window", "10", code=2)
        self.fails("is read as a text", text, "--limit", "1", code=2)
        self.fails("one text at a time", text, text, code=2)
        self.fails("are for humaneval", name, "--run-code", code=2)
        self.fails("whose answers are written", name, "-n", "5", code=2)
        self.fails("whose answers are written", text, "--stop", "x", code=2)
        self.fails("--resume needs --output", name, "--resume", code=2)
        self.assertIn("perplexity", self.ok(name, "--task", "text"))
        self.fails("a window of 1 token: it takes two", text, "--window", "1")
        self.fails("the stride must be from 1 to 7", text, "--window", "8", "--stride", "8")
        for what in (name, text):
            self.fails("none is generated here", what, "--spec", "mtp", code=2)
        rc, _, err = run("score", "-m", self.m.name, "--ids", "1 2", "--spec", "mtp")
        self.assertEqual((rc, b"none is generated here" in err), (2, True))
        rc, _, err = run("eval", self.m.name)
        self.assertEqual((rc, b"which text or benchmark? '" in err), (2, True), err)
        self.fails("is a model, no text or benchmark", self.m.name, code=2)

    def test_think_needs_a_conversation(self):
        name = write_jsonl("think_gsm8k.jsonl", GSM8K)
        for word in ("on", "off"):
            self.fails("no reasoning to turn on or off", name, "--chat", "off", "--think", word, "-n", "1")
        self.ok(name, "--chat", "off", "--think", "auto", "-n", "1", "--limit", "1")
        self.fails("knows no thinking", name, "--chat", "on", "--think", "on", "-n", "1")

    def test_one_item_has_no_error(self):
        name = mmlu("one_test.csv", LETTERS[:1])
        self.assertIn("% +-   n/a", self.ok(name))
        self.assertIsNone(json.loads(self.ok(name, "--json"))["acc"]["se"])
        text = write("one.txt", "a")
        rc, out, _ = run("tokenize", "-m", self.m.name, stdin="a")
        if len(out.split()) == 2:  # the beginning token and one that is scored
            self.assertIn("+- n/a", self.ok(text))
            self.assertIsNone(json.loads(self.ok(text, "--json"))["nll"]["se"])

    def killed(self, args, out):
        """Starts a run and kills it once the journal has some items."""
        p = subprocess.Popen([PROGRAM, "eval", "-m", self.m.name, *args, "-o", out], env=ENV,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(6000):
                if os.path.exists(out + ".journal") and os.path.getsize(out + ".journal") > 2000:
                    break
                time.sleep(0.005)
        finally:
            p.send_signal(signal.SIGKILL)
            p.wait()
        with open(out + ".journal", "rb") as f:
            return f.read()

    def test_killed_run_goes_on(self):
        args = [mmlu("many_test.csv", [("%d %s" % (i, q), c, a) for i in range(150)
                                       for q, c, a in LETTERS])]
        whole, out = path("whole.json"), path("parts.json")
        self.ok(*args, "-o", whole)
        before = self.killed(args, out)
        n = before.count(b"\n") - 1
        self.assertTrue(0 < n < 600, n)
        self.fails("--resume goes on with it", *args, "-o", out)
        with open(out + ".journal", "wb") as f:  # half a line at the end is dropped
            f.write(before[:before.rfind(b"\n") + 1] + b"{\"file\":0,\"it")
        rc, _, err = run("eval", "-m", self.m.name, *args, "-o", out, "--resume")
        self.assertEqual(rc, 0, err)
        self.assertIn(b"resumed: %d of 600 items" % n, err)
        for end in ("", ".journal"):
            with open(whole + end, "rb") as f, open(out + end, "rb") as g:
                self.assertEqual(f.read(), g.read(), end)
        rc, _, err = run("eval", "-m", self.m.name, *args, "-o", out, "--resume")  # once more: all there
        self.assertIn(b"resumed: 600 of 600 items", err)

    def test_one_run_a_journal(self):
        name = mmlu("twice_test.csv", [("%d %s" % (i, q), c, a) for i in range(100) for q, c, a in LETTERS])
        out = path("twice.json")
        p = subprocess.Popen([PROGRAM, "eval", "-m", self.m.name, name, "-o", out], env=ENV,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not os.path.exists(out + ".journal") and p.poll() is None:
                time.sleep(0.005)
            p.send_signal(signal.SIGSTOP)  # it holds the journal for as long as this takes
            for more in ((), ("--resume",)):
                self.fails("another evaluation is writing '%s.journal'" % out, name, "-o", out, *more)
        finally:
            p.kill()
            p.wait()
        self.assertIn(b"items", run("eval", "-m", self.m.name, name, "-o", out, "--resume")[1])

    def test_journal_of_something_else(self):
        name, out = mmlu("else_test.csv", LETTERS), path("else.json")
        dev = mmlu("else_dev.csv", DEV)
        self.ok(name, "-o", out)
        self.fails("of another task", name, "-o", out, "--resume", "--task", "ceval")
        self.fails("setting of 'shots'", name, "-o", out, "--resume", "--dev", dev)
        self.fails("of another model", name, "-o", out, "--resume", "--kv", "q8_0")
        self.m = Model(model("moe", "f32", "2"))
        self.fails("of another model", name, "-o", out, "--resume")
        self.m = Model(model("moe", "f32"))
        mmlu("else_test.csv", LETTERS[:3])
        self.fails("of other files, or these (or --limit) have changed", name, "-o", out, "--resume")
        write("else.json.journal", "{\"a\":1}\n")
        self.fails("is no journal of an evaluation", name, "-o", out, "--resume")
        write("else.json.journal", "hello\n")
        self.fails("line 1: bad JSON", name, "-o", out, "--resume")

    def text_args(self, lines=60):
        """A text for two models, of some windows."""
        text = write("long.txt", "".join("%d 路漫漫其修远兮 and so on, line %d.\n" % (i, i * i)
                                         for i in range(lines)))
        return [text, "--against", model("moe", "f32", "2"), "--window", "64", "--stride", "50"]

    def same_report(self, a, b):
        for end in ("", ".journal"):
            with open(a + end, "rb") as f, open(b + end, "rb") as g:
                self.assertEqual(f.read(), g.read(), end)

    def test_text_goes_on_after_any_window(self):
        args, whole, out = self.text_args(), path("text_whole.json"), path("text_parts.json")
        plain = self.ok(*args, "--json")
        self.assertEqual(self.ok(*args, "--json", "-o", whole), plain)
        with open(whole, encoding="utf-8") as f:
            self.assertEqual(f.read(), plain)
        with open(whole + ".journal", "rb") as f:
            lines = f.read().splitlines(keepends=True)
        n = len(lines) - 1
        self.assertGreater(n, 20)
        scored = [json.loads(line)["tokens"] for line in lines[1:]]
        self.assertEqual(sum(scored), json.loads(plain)["tokens"])
        for k in (0, 1, 7, n - 1, n):
            with open(out + ".journal", "wb") as f:
                f.write(b"".join(lines[:k + 1]) + (lines[k + 1][:30] if k < n else b""))
            rc, got, err = run("eval", "-m", self.m.name, *args, "-o", out, "--resume", "--json")
            self.assertEqual((rc, got.decode()), (0, plain), err)
            if k > 0:
                self.assertIn(b"resumed: %d of %d tokens" % (sum(scored[:k]), sum(scored)), err)
            self.same_report(whole, out)
            os.remove(out)

    def test_killed_text_goes_on(self):
        args, whole, out = self.text_args(400), path("text_whole2.json"), path("text_killed.json")
        self.ok(*args, "-o", whole)
        n = self.killed(args, out).count(b"\n") - 1
        with open(whole + ".journal", "rb") as f:
            self.assertTrue(0 < n < f.read().count(b"\n") - 1, n)
        self.fails("--resume goes on with it", *args, "-o", out)
        rc, _, err = run("eval", "-m", self.m.name, *args, "-o", out, "--resume")
        self.assertEqual((rc, b"resumed: " in err), (0, True), err)
        self.same_report(whole, out)

    def test_text_journal_of_something_else(self):
        args, out = self.text_args(20), path("text_else.json")
        self.ok(*args, "-o", out)
        text, against, more = args[0], args[1:3], ["-o", out, "--resume"]
        self.fails("setting of 'window'", text, *against, "--window", "65", "--stride", "50", *more)
        self.fails("setting of 'stride'", text, *against, "--window", "64", "--stride", "49", *more)
        self.fails("against another model, or against none", text, *args[3:], *more)
        self.fails("against another model", text, "--against", self.m.name, *args[3:], *more)
        self.fails("of another model", *args, *more, "--kv", "q8_0")
        self.fails("of another task", mmlu("text_else.csv", LETTERS), *more)
        with open(out + ".journal", "rb") as f:
            lines = f.read().splitlines(keepends=True)
        line = json.loads(lines[1])
        for change in ({"window": 1}, {"tokens": 5}, {"kl": [1]}, {"kl_of_tokens": [0.1]},
                       {"kl_of_tokens": [-1] * line["tokens"]}, {"nll": "1"}):
            with open(out + ".journal", "wb") as f:
                f.write(lines[0] + json.dumps({**line, **change}).encode() + b"\n")
            self.fails("text_else.json.journal' line 2: ", *args, *more)
        with open(out + ".journal", "wb") as f:
            f.write(b"".join(lines) + lines[-1])
        self.fails("not the next window of this run", *args, *more)
        with open(text, "a", encoding="utf-8") as f:
            f.write("more")
        self.fails("of another text", *args, *more)

    def test_progress_and_interrupt(self):
        name = mmlu("progress_test.csv", [("%d %s" % (i, q), c, a) for i in range(2000)
                                          for q, c, a in LETTERS])
        t = Terminal("eval", "-m", self.m.name, name, "-o", path("progress.json"))
        t.expect(r"evaluating +\d+ %.*items/s")
        t.send("\x03")
        t.expect("the same command with --resume goes on")
        self.assertEqual(t.close(), 130)
        with open(path("progress.json.journal"), "rb") as f:
            self.assertTrue(f.read().endswith(b"}\n"))


if __name__ == "__main__":
    main()
