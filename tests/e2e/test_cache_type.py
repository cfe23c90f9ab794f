"""The type of the cache on the default model: what Q8_0 does to the perplexity of its own answers.

The texts are dialogues of the kind the model was trained on: questions from here, answers sampled by
the program (seeded). Perplexity is over all tokens of all dialogues. One token's log-probability
moves by some hundredths with any change of rounding, because quantised activations and the choice of
experts jump; the mean over some 10,000 tokens by a fortieth of that.

Called as: python3 test_cache_type.py PROGRAM MAKE_TINY_MODEL DEFAULT_MODEL
"""
import json
import math
import os
import sys

DEFAULT = os.path.abspath(sys.argv.pop(3))

from program import *  # noqa: E402,F403

FORMS = ["五言绝句", "七言绝句", "五言律诗", "七言律诗"]
TITLES = ["春夜", "秋思", "送友人", "山中", "江上", "望月", "早行", "雨后", "登楼", "寒食"]
SENTENCES = ["I like to read books in the evening.", "Where is the station?", "他昨天去了北京。",
             "She has two brothers.", "今天天气很好。", "We will meet again tomorrow.", "你喜欢喝茶吗？",
             "The dog is under the table."]
LIMIT = 0.001  # of the perplexity
ROUGH = 0.01   # of a cache of four bits: five standard errors of its difference (docs/kv-cache.md)
ROUNDS = 4


def dialogues():
    """Conversations of several turns, each text within the model's context."""
    asked = [f"写一首{f}：{t}" for t in TITLES for f in FORMS]
    asked += [f"Translate into {'English' if ord(s[0]) > 127 else 'Chinese'}: {s}" for s in SENTENCES]
    for seed in range(ROUNDS):
        turns = []
        for question in asked:
            rc, out, err = run("run", "-m", DEFAULT, "--seed", str(seed), "-n", "100",
                               stdin=question)
            assert rc == 0, err
            turns.append(f"User: {question}\n\nAssistant: {out.decode().strip()}<｜end▁of▁sentence｜>")
        for i in range(0, len(turns), 4):
            yield "".join(turns[i:i + 4])


def logprobs(text, kind):
    rc, out, err = run("score", "-m", DEFAULT, "--cache-type", kind, stdin=text)
    assert rc == 0, err
    return [json.loads(x)["logprob"] for x in out.splitlines()][1:]


class CacheType(unittest.TestCase):
    def test_perplexity(self):
        texts = list(dialogues())
        ppl = {}
        for kind in ("f32", "f16", "bf16", "q8_0", "q4_0"):
            values = [v for t in texts for v in logprobs(t, kind)]
            ppl[kind] = math.exp(-sum(values) / len(values))
        print(len(values), "tokens", ppl, file=sys.stderr)
        self.assertGreater(len(values), 6000)
        self.assertNotEqual(ppl["q8_0"], ppl["f16"])  # it is another cache
        self.assertLess(abs(ppl["f16"] / ppl["f32"] - 1), LIMIT)
        self.assertNotEqual(ppl["bf16"], ppl["f16"])
        self.assertLess(abs(ppl["bf16"] / ppl["f32"] - 1), LIMIT)
        self.assertLess(abs(ppl["q8_0"] / ppl["f16"] - 1), LIMIT)
        self.assertLess(abs(ppl["q8_0"] / ppl["f32"] - 1), LIMIT)
        self.assertNotEqual(ppl["q4_0"], ppl["f32"])
        self.assertLess(abs(ppl["q4_0"] / ppl["f32"] - 1), ROUGH)

    def test_names(self):
        m = model("moe", "f32")
        want = None
        for words in (("--cache-type", "q8_0"), ("-ctk", "q8_0", "-ctv", "q8_0"), ("-ctk", "q8_0"),
                      ("--cache-type-k", "q8_0", "--cache-type-v", "q8_0"), ("--kv", "q8_0")):
            rc, out, err = run("score", "-m", m, *words, "--ids", "1 2 3 4 5 6 7 8")
            self.assertEqual(rc, 0, err)
            want = want or out
            self.assertEqual(out, want)
        self.assertNotEqual(run("score", "-m", m, "--ids", "1 2 3 4 5 6 7 8")[1], want)
        rc, _, err = run("score", "-m", m, "-ctk", "q8_0", "-ctv", "f16", "--ids", "1 2")
        self.assertEqual(rc, 2)
        self.assertIn(b"one type for both", err)
        self.assertEqual(run("score", "-m", m, "--cache-type", "q5", "--ids", "1")[0], 2)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[3:])
