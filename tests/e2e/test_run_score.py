"""The commands run and score, and chat with piped input, through the program itself."""
import json
import math
import os
import unittest

from program import FOLDER, main, model, run


class Run(unittest.TestCase):
    def setUp(self):
        self.m = model("moe", "f32", "tasks")

    def ok(self, *args, stdin=b""):
        rc, out, err = run(*args, stdin=stdin)
        self.assertEqual(rc, 0, err)
        return out.decode()

    def test_same_seed_same_text(self):
        args = ["run", self.m, "你好，moon", "-n", "40", "--seed", "7"]
        first = self.ok(*args)
        self.assertEqual(first, self.ok(*args, "-t", "1"))
        self.assertEqual(first, self.ok(*args, "-t", "2"))
        self.assertNotEqual(first, self.ok(*args[:-1], "8"))

    def test_refused_types_are_named(self):
        """Types that cannot be computed with: their name, and which to take in their place."""
        path = os.path.join(FOLDER, "refused.gguf")
        self.ok("init", "--preset", "dense-tiny", "--type", "Q3_K", "-o", path)
        with open(path, "rb") as f:
            data = bytearray(f.read())
        name = b"blk.1.ffn_gate.weight"
        at = data.index(name) + len(name) + 4 + 2 * 8  # behind the number of its sizes, and these
        self.assertEqual(data[at:at + 4], bytes([11, 0, 0, 0]))  # Q3_K, the widest of them
        for number, kind, other in ((16, b"IQ2_XXS", b"Q2_K"), (17, b"IQ2_XS", b"Q2_K"),
                                    (18, b"IQ3_XXS", b"Q3_K"), (19, b"IQ1_S", b"Q2_K"),
                                    (21, b"IQ3_S", b"Q3_K"), (22, b"IQ2_S", b"Q2_K"),
                                    (29, b"IQ1_M", b"Q2_K"), (34, b"TQ1_0", b"Q2_K"),
                                    (35, b"TQ2_0", b"Q2_K")):
            data[at] = number
            with open(path, "wb") as f:
                f.write(data)
            for args in (("run", path, "--raw", "a"), ("score", "-m", path, "--ids", "1 2"),
                         ("plan", path)):
                rc, _, err = run(*args)
                self.assertEqual(rc, 1, err)
                self.assertIn(name + b" has type " + kind + b", which", err)
                self.assertIn(b" in " + other + b", or convert", err)

    def test_a_longer_context_is_said(self):
        """Beyond the trained one YaRN takes over, and says so; it can be kept off, and asked for."""
        path = os.path.join(FOLDER, "longer.gguf")
        self.ok("init", "--preset", "dense-tiny", "--type", "Q8_0", "--std", "0.06", "-o", path)
        ids = " ".join(str((7 + 37 * i) % 512) for i in range(600))

        def ask(*args):
            rc, out, err = run("score", "-m", path, "--ids", ids, "--top", "3", *args)
            self.assertEqual(rc, 0, err)
            return out, err.decode()
        told, note = ask("-c", "1024")
        self.assertIn("contexts of 512 tokens; for 1024, YaRN scales positions by 2", note)
        asked, note = ask("-c", "1024", "--rope-scaling", "yarn")
        self.assertNotIn("YaRN scales", note)
        self.assertEqual(told, asked)
        kept, note = ask("-c", "1024", "--rope-scaling", "none")
        self.assertNotIn("YaRN scales", note)
        self.assertIn("trained on 512 tokens", note)
        self.assertNotEqual(told, kept)
        others = {ask("-c", "1024", "--rope-scaling", x)[0] for x in ("linear", "dynamic")}
        self.assertEqual(len(others | {told, kept}), 4)
        self.assertEqual(run("score", "-m", path, "--ids", ids)[0], 1)

    def test_prompt_from_everywhere(self):
        text = "hello 明月"
        path = os.path.join(FOLDER, "prompt.txt")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text + "\n")
        tail = ["-n", "12", "--temp", "0"]
        first = self.ok("run", self.m, text, *tail)
        self.assertEqual(first, self.ok("run", "-m", self.m, "-p", text, *tail))
        self.assertEqual(first, self.ok("run", "-m", self.m, text, *tail))
        self.assertEqual(first, self.ok("run", self.m, *tail, stdin=text + "\n"))
        self.assertEqual(first, self.ok("run", self.m, "-", *tail, stdin=text))
        self.assertEqual(first, self.ok("run", self.m, "-f", path, *tail))

    def test_empty_prompt(self):
        for args in (["-p", ""], [""], ["--raw"], ["--raw", "-f", os.devnull]):
            rc, out, err = run("run", self.m, "-n", "3", *args)
            self.assertEqual((rc, out), (1, b""), err)
            self.assertIn(b"the prompt is empty", err)
        rc, out, err = run("run", self.m, "--raw", "-p", "", "-n", "3", "--temp", "0", "--json")
        self.assertEqual(rc, 0, err)
        self.assertEqual(err, b"qiusuo: the prompt is empty: a text is begun from nothing\n")
        self.assertEqual(json.loads(out)["n_prompt"], 1)  # the beginning token alone

    def test_names_of_the_number_of_tokens(self):
        want = self.ok("run", self.m, "--raw", "the moon", "--temp", "0", "-n", "4")
        for name in ("--predict", "--n-predict", "-n-predict"):
            self.assertEqual(want, self.ok("run", self.m, "--raw", "the moon", "--temp", "0", name, "4"))
            rc, out, err = run("bench", "-m", self.m, "-p", "0", name, "2", "--no-train", "-r", "1", "--json")
            self.assertEqual((rc, json.loads(out)["runs"][-1]["n"]), (0, 2), err)
            rc, _, err = run("eval", "-m", self.m, os.devnull, name, "2")
            self.assertIn(b"whose answers are written", err)  # it is known

    def test_json(self):
        tail = ["-n", "15", "--temp", "0"]
        plain = self.ok("run", self.m, "--raw", "the moon", *tail)
        o = json.loads(self.ok("run", self.m, "--raw", "the moon", "--json", "--top-logprobs", "3",
                               *tail))
        self.assertEqual(plain, o["text"] + ("" if o["text"].endswith("\n") else "\n"))
        self.assertEqual(o["finish"], "length")
        self.assertEqual(o["n_generated"], 15)
        self.assertEqual(len(o["tokens"]), 15)
        for t in o["tokens"]:  # greedy, penalty of the file on: the best is near, not always first
            self.assertEqual(len(t["top"]), 3)
            self.assertLess(t["logprob"], 0)
            self.assertEqual(sorted(t["top"], key=lambda x: -x[1]), t["top"])

    def test_raw_continues_what_score_says(self):
        """Greedy decoding takes the ids that score calls the likeliest, one after another."""
        ids = self.ok("tokenize", "-m", self.m, stdin="the moon is").split()
        o = json.loads(self.ok("run", self.m, "--raw", "the moon is", "--json", "-n", "6", "--temp",
                               "0", "--repeat-penalty", "1", "--ignore-eos"))
        for t in o["tokens"]:
            lines = self.ok("score", "-m", self.m, "--ids", " ".join(ids), "--top", "2")
            best = json.loads(lines.splitlines()[-1])["top"][0]
            self.assertEqual(best[0], t["id"])
            self.assertAlmostEqual(best[1], t["logprob"], delta=1e-6)
            ids.append(str(t["id"]))

    def test_stop_and_bias(self):
        tail = ["--raw", "the moon", "-n", "30", "--seed", "3"]
        whole = self.ok("run", self.m, *tail).rstrip("\n")
        cut = next(c for c in whole[4:] if c.isascii() and c.isalpha())
        self.assertEqual(self.ok("run", self.m, *tail, "--stop", cut).rstrip("\n"),
                         whole[:whole.index(cut)].rstrip("\n"))
        o = json.loads(self.ok("run", self.m, *tail, "--json", "--logit-bias", "97=1000"))
        self.assertEqual({t["id"] for t in o["tokens"]}, {97})
        o = json.loads(self.ok("run", self.m, *tail, "--json", "--logit-bias", "97=-inf"))
        self.assertNotIn(97, {t["id"] for t in o["tokens"]})

    def test_context_end_is_told(self):
        rc, out, err = run("run", model("dense", "q8_0", "ctx=64"), "hi", "--ignore-eos")
        self.assertEqual(rc, 0)
        self.assertIn(b"context is full", err)

    def test_wrong_usage(self):
        for args in (["run", self.m, "a", "b"], ["run", self.m, "a", "--temp", "hot"],
                     ["run", self.m, "a", "--logit-bias", "x"], ["run", self.m, "a", "--stop", ""],
                     ["score", "-m", self.m, "--ids", "1 x"], ["chat", self.m, "b"],
                     ["run", self.m, "a", "--nonsense"]):
            rc, out, err = run(*args)
            self.assertEqual(rc, 2, args)
            self.assertEqual(out, b"")
            self.assertTrue(err.startswith(b"qiusuo: "), err)

    def test_bad_models(self):
        damaged = os.path.join(FOLDER, "damaged.gguf")
        with open(self.m, "rb") as f, open(damaged, "wb") as g:
            g.write(f.read()[:300000])
        for path, word in ((damaged, "damaged.gguf"), ("nowhere.gguf", "nowhere.gguf"),
                           (model("vocab"), "vocabulary"), (FOLDER, "")):
            for args in (["run", path, "x"], ["score", "-m", path, "--ids", "1"], ["chat", path]):
                rc, out, err = run(*args)
                self.assertEqual((rc, out), (1, b""), args)
                self.assertEqual(err.count(b"\n"), 1, err)  # one sentence
                self.assertIn(word, err.decode())
        rc, out, err = run("run", model("moe", "f32", "nan"), "x")
        self.assertEqual(rc, 1)
        self.assertIn("layer 1", err.decode())

    def test_text_that_is_not_utf8(self):
        for args in (["score", "-m", self.m], ["run", self.m], ["run", self.m, "--raw"],
                     ["chat", self.m]):
            rc, out, err = run(*args, stdin=b"abc \xff def\n")
            self.assertEqual((rc, out), (1, b""), args)
            self.assertIn("offset 4", err.decode("utf-8", "replace"))
            self.assertEqual(err.count(b"\n"), 1, err)

    def test_too_long(self):
        m = model("dense", "q8_0", "ctx=64")
        for args in (["score", "-m", m], ["run", m], ["chat", m]):
            rc, out, err = run(*args, stdin="moon " * 200)
            self.assertEqual((rc, out), (1, b""), args)
            self.assertIn(b"64", err)


class Score(unittest.TestCase):
    TEXT = "床前明月光，疑是地上霜。\nthe moon is bright\n"

    def score(self, *args, stdin=b""):
        rc, out, err = run("score", *args, stdin=stdin)
        self.assertEqual((rc, err), (0, b""))
        return out

    def test_form(self):
        m = model("moe", "f32", "tasks")
        out = self.score("-m", m, "--top", "3", stdin=self.TEXT).decode()
        ids = run("tokenize", "-m", m, stdin=self.TEXT)[1].split()
        lines = out.splitlines()
        self.assertEqual(len(lines), len(ids))
        for i, line in enumerate(lines):
            self.assertRegex(line, r'^\{"pos":%d,"id":%d,"logprob":(null|-?\d+\.\d+),"top":'
                                   r'\[\[\d+,-?\d+\.\d+\](,\[\d+,-?\d+\.\d+\]){2}\]\}$'
                             % (i, int(ids[i])))
            self.assertEqual(json.loads(line)["logprob"] is None, i == 0)
        self.assertEqual(out.encode(), self.score(m, "--top", "3", stdin=self.TEXT))
        by_ids = self.score("-m", m, "--top", "3", "--ids", " ".join(map(bytes.decode, ids)))
        self.assertEqual(out.encode(), by_ids)
        self.assertNotIn(b"[[", self.score("-m", m, stdin=self.TEXT))

    def test_same_bytes_for_any_threads(self):
        for words in (("moe", "f32"), ("dense", "q8_0"), ("moe", "bf16"), ("moe", "q4_0")):
            outs = {self.score("-m", model(*words), "--top", "10", "-t", str(t), stdin=self.TEXT)
                    for t in (1, 2, 3, 5)}
            self.assertEqual(len(outs), 1, words)

    def test_levels_agree(self):
        """Every CPU level the machine has, up to rounding."""
        m = model("moe", "f32")
        base = None
        for isa in ("ref", "avx2", "avxvnni", "avx512", "vnni", "bf16", "amx"):
            rc, out, err = run("score", "-m", m, "--isa", isa, stdin=self.TEXT)
            if rc != 0:
                self.assertIn(isa.encode(), err)  # says that the machine lacks it
                continue
            values = [json.loads(x)["logprob"] for x in out.splitlines()][1:]
            base = base or values
            for a, b in zip(base, values):
                self.assertAlmostEqual(a, b, delta=2e-2)

    def test_exact(self):
        m = model("dense", "q8_0")
        plain = [json.loads(x) for x in self.score("-m", m, stdin=self.TEXT).splitlines()]
        exact = [json.loads(x) for x in self.score("-m", m, "--exact", stdin=self.TEXT).splitlines()]
        ref = [json.loads(x) for x in self.score("-m", m, "--exact", "--isa", "ref",
                                                 stdin=self.TEXT).splitlines()]
        far = [abs(a["logprob"] - b["logprob"]) for a, b in zip(plain[1:], exact[1:])]
        self.assertGreater(max(far), 1e-6)  # 8-bit activations do round
        self.assertLess(max(far), 0.1)
        for a, b in zip(exact[1:], ref[1:]):
            self.assertAlmostEqual(a["logprob"], b["logprob"], delta=1e-3)
        f32 = model("dense", "f32")  # no quantised weights: nothing to be exact about
        self.assertEqual(self.score("-m", f32, stdin=self.TEXT),
                         self.score("-m", f32, "--exact", stdin=self.TEXT))

    def test_perplexity(self):
        m = model("moe", "f32")
        values = [json.loads(x)["logprob"] for x in self.score("-m", m, stdin=self.TEXT).splitlines()]
        want = math.exp(-sum(values[1:]) / len(values[1:]))
        out = self.score("-m", m, "--ppl", stdin=self.TEXT).decode()
        self.assertRegex(out, r"^\d+\.\d+\n$")
        self.assertAlmostEqual(float(out) / want, 1, delta=1e-4)

    def test_distribution_sums_to_one(self):
        m = model("dense", "f32")
        n = json.loads(self.score("-m", m, "--ids", "5", "--top", "1000000").splitlines()[0])["top"]
        self.assertAlmostEqual(sum(math.exp(p) for _, p in n), 1, delta=1e-4)
        self.assertEqual(len({i for i, _ in n}), len(n))

    def test_bad_ids(self):
        m = model("moe", "f32")
        for ids, word in (("1 99999 2", "position 1"), ("1 -3", "position 1"),
                          ("99999999999", "position 0")):
            rc, out, err = run("score", "-m", m, "--ids", ids)
            self.assertEqual((rc, out), (1, b""))
            self.assertIn(word, err.decode())
        for args, stdin in ((["--no-bos"], ""), (["--ids", "1", "--ppl"], "")):
            rc, out, err = run("score", "-m", m, *args, stdin=stdin)
            self.assertEqual((rc, out), (1, b""))


class PipedChat(unittest.TestCase):
    def test_tools_and_thinking(self):
        path = os.path.join(FOLDER, "tools.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump([{"type": "function", "function": {"name": "weather", "parameters": {}}}], f)
        plain, _ = self.chat("hello\n", "--seed", "1")
        with_tools, err = self.chat("hello\n", "--seed", "1", "--tools", path)
        self.assertNotEqual(plain, with_tools)  # the functions stand in the prompt
        with open(path, "w", encoding="utf-8") as f:
            f.write('[{"name": 3}]')
        for args, says in ((["--tools", path], "tool 1"), (["--tools", FOLDER + "/no"], "cannot open"),
                           (["--think", "on"], "knows no thinking"),
                           (["--chat-template", "chatml"], "deepseek-v3.1")):
            rc, out, err = run("chat", model("moe", "f32"), *args,
                               stdin="hello\n")
            self.assertEqual((rc, out), (1, b""), args)
            self.assertIn(says, err.decode())
        # a template that is not known is found out before anything is loaded
        rc, _, err = run("chat", FOLDER + "/no.gguf", "--chat-template", "chatml", stdin="hello\n")
        self.assertEqual(rc, 1)
        self.assertIn("unknown chat template", err.decode())
        # and does not matter where none is used
        rc, out, err = run("run", model("moe", "f32"), "--raw", "hello", "-n", "3", "--chat-template",
                           "chatml")
        self.assertEqual(rc, 0, err)

    def chat(self, text, *args):
        rc, out, err = run("chat", model("moe", "f32", "tasks"), "-n", "12", *args, stdin=text)
        self.assertEqual(rc, 0, err)
        return out.decode(), err.decode()

    def test_one_turn_a_line(self):
        one, err = self.chat("hello\n", "--seed", "1")
        self.assertNotIn(">>>", one + err)
        self.assertNotIn("tokens/s", one + err)
        both, _ = self.chat("hello\n写一首诗\n", "--seed", "1")
        self.assertTrue(both.startswith(one))
        self.assertGreater(len(both), len(one))
        self.assertTrue(both.endswith("\n"))
        # empty and blank lines are no turns, CR belongs to the line end, the last line may lack its end
        self.assertEqual(both, self.chat("\nhello\r\n \t\n写一首诗", "--seed", "1")[0])
        # the second turn knows the first
        alone, _ = self.chat("写一首诗\n", "--seed", "1")
        self.assertNotEqual(both[len(one):], alone)

    def test_a_slash_is_text(self):
        out, err = self.chat("/help\n", "--seed", "1")
        self.assertNotIn("/quit", out + err)
        self.assertTrue(out)

    def test_template_note_once(self):
        for words, times in ((("moe", "f32", "tasks"), 0), (("moe", "f32", "notemplate"), 1)):
            rc, out, err = run("chat", model(*words), "-n", "4", stdin="a\nb\nc\n")
            self.assertEqual((rc, err.count(b"chat template")), (0, times))

    def test_matches_run(self):
        out, _ = self.chat("hello\n", "--seed", "5", "--system", "be brief")
        rc, one, _ = run("run", model("moe", "f32", "tasks"), "hello", "-n", "12", "--seed", "5",
                         "--system", "be brief")
        self.assertEqual(out, one.decode())

    def test_no_input(self):
        self.assertEqual(self.chat("")[0], "")

    def test_a_full_context_is_said(self):
        """Also when -n gives a number, which the answer did not reach."""
        m = model("moe", "f32", "tasks")
        for args, stdin in ((["run", m, "--raw", "hello"], b""), (["chat", m], b"hello\n")):
            rc, _, err = run(*args, "-c", "40", "-n", "1000", "--ignore-eos", stdin=stdin)
            self.assertEqual(rc, 0, err)
            self.assertIn(b"the context is full", err)
            self.assertEqual(run(*args, "-c", "40", "-n", "2", stdin=stdin)[2], b"")


if __name__ == "__main__":
    main()
