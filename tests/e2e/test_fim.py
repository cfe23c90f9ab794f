"""run --fim: the prompt's order against the same written out with --raw, its forms, and what is refused.

The vocabulary is made here: the byte symbols and the tokens of fill-in-the-middle.
"""
import json
import os
import unittest

from program import FOLDER, main, model, run

PATTERN = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
           "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
BEGIN, HOLE, END = "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"


def byte_symbols():
    """GPT-2's: a printable byte is itself, the others come from U+0100 on."""
    plain = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(0x100 + i) for i in range(len(rest))]


def write_vocab(path):
    tokens = byte_symbols()
    marks = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", HOLE, BEGIN, END]
    step = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    last = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"added_tokens": [{"id": 256 + i, "content": t, "special": i < 2}
                                    for i, t in enumerate(marks)],
                   "pre_tokenizer": {"type": "Sequence", "pretokenizers": [step, last]},
                   "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)},
                             "merges": []}}, f)


class Fim(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        vocab = os.path.join(FOLDER, "fim.json")
        cls.m = os.path.join(FOLDER, "fim.gguf")
        write_vocab(vocab)
        rc, _, err = run("init", "--preset", "r1-distill-qwen-tiny", "--type", "Q8_0", "--layers", "2",
                         "--std", "0.06", "--vocab", vocab, "-o", cls.m)
        assert rc == 0, err

    def file(self, name, text):
        path = os.path.join(FOLDER, name)
        with open(path, "w", encoding="utf-8", newline="") as f:
            f.write(text)
        return path

    def answer(self, *args, stdin=b""):
        rc, out, err = run("run", self.m, "--json", "-n", "20", "--temp", "0", *args, stdin=stdin)
        self.assertEqual(rc, 0, err)
        o = json.loads(out)
        return o["n_prompt"], [t["id"] for t in o["tokens"]]

    def test_every_form_asks_the_same(self):
        before, behind = "def 加(a, b):\n    ", "\n    return c\n"
        want = self.answer("--raw", BEGIN + before + HOLE + behind + END)
        self.assertEqual(want[0], 4 + len((before + behind).encode()))
        head, tail = self.file("head.py", before), self.file("tail.py", behind)
        text = before + "<FILL_ME>" + behind
        for args in (["--fim", text], ["--fim", "-p", text], ["--fim", "-f", self.file("all.py", text)],
                     ["--hole", "???", before + "???" + behind],
                     ["--prefix", head, "--suffix", tail]):
            self.assertEqual(self.answer(*args), want, args)
        self.assertEqual(self.answer("--fim", stdin=text), want)
        self.assertEqual(self.answer("--prefix", "-", "--suffix", tail, stdin=before), want)
        self.assertEqual(self.answer("--prefix", head), self.answer("--fim", before + "<FILL_ME>"))
        self.assertEqual(self.answer("--suffix", tail), self.answer("--fim", "<FILL_ME>" + behind))

    def test_text_is_all_that_is_printed(self):
        args = ["-n", "12", "--temp", "0", "--fim", "a<FILL_ME>b"]
        rc, out, err = run("run", self.m, *args)
        self.assertEqual(rc, 0, err)
        rc, whole, err = run("run", self.m, "--json", *args)
        self.assertEqual(rc, 0, err)
        self.assertEqual(out.decode(), json.loads(whole)["text"])

    def test_a_persons_text_is_no_token(self):
        n, _ = self.answer("--fim", END + "<FILL_ME>" + BEGIN + HOLE + "<｜end▁of▁sentence｜>")
        self.assertEqual(n, 4 + len((END + BEGIN + HOLE + "<｜end▁of▁sentence｜>").encode()))

    def test_wrong_use(self):
        head = self.file("head.txt", "a")
        for args, says in ((["--fim", "no hole"], "<FILL_ME>"),
                           (["--fim", "a<FILL_ME>b<FILL_ME>c"], "more than one hole"),
                           (["--hole", "", "a"], "no hole"),
                           (["--fim", "--raw", "a<FILL_ME>"], "--raw"),
                           (["--fim", "--system", "x", "a<FILL_ME>"], "--system"),
                           (["--prefix", head, "text"], "exclude"),
                           (["--prefix", head, "-f", head], "exclude"),
                           (["--prefix", "-", "--suffix", "-"], "standard input")):
            rc, out, err = run("run", self.m, *args)
            self.assertEqual((rc, out), (2, b""), args)
            self.assertIn(says, err.decode(), args)
        rc, _, err = run("run", self.m, "--prefix", os.path.join(FOLDER, "none.txt"))
        self.assertEqual(rc, 1, err)

    def test_a_model_without_the_tokens(self):
        rc, out, err = run("run", model("dense", "f32"), "--fim", "a<FILL_ME>b")
        self.assertEqual((rc, out), (1, b""), err)
        self.assertIn("cannot fill in the middle", err.decode())
        self.assertEqual(len(err.strip().splitlines()), 1, err)


if __name__ == "__main__":
    main()
