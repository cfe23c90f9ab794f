"""train: a model from text; kill -9, Ctrl-C and SIGTERM in the middle; the log; longer runs.

Called as: python3 test_train.py PROGRAM MAKE_TINY_MODEL
"""
import csv
import os
import random
import re
import signal
import subprocess
import time
import unittest

import program
from program import FOLDER, PROGRAM, run

COLUMNS = ["step", "tokens", "loss", "val_loss", "lr", "grad_norm", "tok_s"]
# Small steps: what is tested is the run, not the model.
SMALL = ["--set", "train.batch_tokens=256", "--set", "model.context=32", "--set", "model.layers=2",
         "--set", "model.d_model=32", "--set", "model.d_ff=64", "--set", "model.experts=4",
         "--set", "model.expert_ff=32", "--set", "tokenizer.size=300"]


def write_text(name, seed, n=4000):
    r = random.Random(seed)
    words = ["stone", "water", "the", "moon", "明月", "river", "of", "故乡", "a", "bright"]
    lines = (" ".join(r.choice(words) for _ in range(6)) for _ in range(n))
    path = os.path.join(FOLDER, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(lines))
    return path


def rows(out):
    with open(os.path.join(out, "log.csv"), newline="") as f:
        return list(csv.reader(f))


def numbers(out):
    """The log without the speed."""
    return [r[:6] for r in rows(out)]


def model(out):
    with open(os.path.join(out, "model.gguf"), "rb") as f:
        return f.read()


class Train(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = write_text("words.txt", 1)
        cls.whole = os.path.join(FOLDER, "whole")
        rc, out, err = run("train", cls.text, "--out", cls.whole, "--steps", "60", *SMALL)
        assert rc == 0, err.decode()
        cls.printed, cls.said = out.decode(), err.decode()

    def start(self, out, *args):
        return subprocess.Popen([PROGRAM, "train", self.text, "--out", out, "--steps", "60", *SMALL,
                                 *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=program.ENV)

    def wait_for_step(self, out, n):
        for _ in range(3000):
            try:
                if int(rows(out)[-1][0]) >= n:
                    return
            except (OSError, ValueError, IndexError):
                pass
            time.sleep(0.02)
        self.fail(f"step {n} did not come")

    def test_result(self):
        self.assertEqual(self.printed, os.path.join(self.whole, "model.gguf") + "\n")
        got = rows(self.whole)
        self.assertEqual(got[0], COLUMNS)
        self.assertEqual([int(r[0]) for r in got[1:]], list(range(1, 61)))
        self.assertTrue(all(r[2] for r in got[1:]))
        self.assertLess(float(got[-1][2]), float(got[1][2]) - 1)
        self.assertTrue(any(r[3] for r in got[1:]))
        with open(os.path.join(self.whole, "loss.svg"), encoding="utf-8") as f:
            self.assertIn("</svg>", f.read())
        self.assertNotIn("\r", self.said)

    def test_model_runs(self):
        rc, out, err = run("run", os.path.join(self.whole, "model.gguf"), "--raw", "-n", "8",
                           "the moon")
        self.assertEqual(rc, 0, err.decode())
        self.assertTrue(out.strip())

    def test_kill_and_resume(self):
        out = os.path.join(FOLDER, "killed")
        for n in (3, 17, 34):  # before the first checkpoint, and between checkpoints
            p = self.start(out, "--threads", "1")
            self.wait_for_step(out, n)
            p.send_signal(signal.SIGKILL)
            p.communicate()
        p = self.start(out, "--threads", "2")
        _, err = p.communicate(timeout=120)
        self.assertEqual(p.returncode, 0, err.decode())
        resumed = [l for l in err.decode().splitlines() if "resumed at step" in l]
        self.assertEqual(len(resumed), 1)
        self.assertGreaterEqual(int(resumed[0].split()[-1]), 30)  # at most the steps since the last
        self.assertEqual(numbers(out), numbers(self.whole))
        self.assertEqual(model(out), model(self.whole))
        self.assertFalse([f for f in os.listdir(os.path.join(out, "checkpoints")) if "tmp" in f])

    def test_signals(self):
        out = os.path.join(FOLDER, "stopped")
        for sig, rc in ((signal.SIGINT, 130), (signal.SIGTERM, 0)):
            p = self.start(out)
            self.wait_for_step(out, 7 if sig == signal.SIGINT else 23)
            p.send_signal(sig)
            _, err = p.communicate(timeout=60)
            self.assertEqual(p.returncode, rc, err.decode())
            step = int(rows(out)[-1][0])
            self.assertIn(f"saved at step {step};", err.decode())  # nothing is lost
        p = self.start(out)
        _, err = p.communicate(timeout=120)
        self.assertIn(f"resumed at step {step}\n", err.decode())
        self.assertEqual(model(out), model(self.whole))
        self.assertEqual(numbers(out), numbers(self.whole))

    def test_progress_fits_the_terminal(self):
        for columns in (80, 40):
            t = program.Terminal("train", self.text, "--out", os.path.join(FOLDER, f"tty{columns}"),
                                 "--steps", "60", *SMALL, columns=columns)
            raw = t.rest()
            self.assertEqual(t.p.returncode, 0)
            lines = re.findall(rb"(?:\n|\r\x1b\[K)(step [^\r\n]*?)(?=\r\x1b\[K)", raw)
            self.assertTrue(lines, raw)
            for line in lines:
                self.assertLess(len(line), columns)
            kept = re.findall(rb"step \d+/60  loss [^\r\x1b]*?  val .*? left", raw, re.S)
            self.assertGreater(len(kept), 1, raw)
            for line in re.split(rb"[\r\n]+", b"\n".join(kept)):
                self.assertLessEqual(len(line), columns)
                self.assertNotRegex(line, rb"^ ?(of peak|left|tok/s)|^ *[\d.e-]+$")
            if columns == 80:
                self.assertIn(b" left", lines[-1])

    def test_what_changed_is_named(self):
        out = os.path.join(FOLDER, "changed")
        self.assertEqual(run("train", self.text, "--out", out, "--steps", "2", *SMALL)[0], 0)
        with open(self.text, encoding="utf-8") as f:
            text = f.read()
        other = os.path.join(FOLDER, "other.txt")
        for changed, said in ((text.replace("stone", "steel"), "the text is not what the run in"),
                              (text[:60000], "(not set, it follows from preset and length of the "
                                             "text)")):
            with open(other, "w", encoding="utf-8") as f:
                f.write(changed)
            rc, _, err = run("train", other, "--out", out, "--steps", "2", *SMALL)
            self.assertEqual(rc, 1)
            self.assertIn(said, err.decode())
        rc, _, err = run("train", self.text, "--out", out, "--steps", "2", *SMALL, "--set",
                         "tokenizer.size=310")
        self.assertEqual(rc, 1)
        self.assertIn("'tokenizer.size = 300', now it is 'tokenizer.size = 310'", err.decode())
        rc, _, err = run("train", "--steps", "2")
        self.assertEqual(rc, 2)
        self.assertIn("which text", err.decode())

    def test_folder_of_a_run(self):
        rc, _, err = run("run", self.whole, "hello")
        self.assertEqual(rc, 1)
        self.assertIn(f"'{self.whole}/model.gguf'", err.decode())

    def test_again_and_longer(self):
        args = ["train", self.text, *SMALL, "--set", "train.warmup_steps=5"]
        long, grown = os.path.join(FOLDER, "long"), os.path.join(FOLDER, "grown")
        self.assertEqual(run(*args, "--out", long, "--steps", "40")[0], 0)
        self.assertEqual(run(*args, "--out", grown, "--steps", "20")[0], 0)
        rc, out, err = run(*args, "--out", grown, "--steps", "20")
        self.assertEqual(rc, 0)
        self.assertIn("already finished", err.decode())
        rc, out, err = run(*args, "--out", grown, "--steps", "40")
        self.assertEqual(rc, 0)
        self.assertEqual(model(grown), model(long))
        self.assertEqual(numbers(grown), numbers(long))

    def test_config(self):
        conf = os.path.join(FOLDER, "a.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write(f"[run]\nout = state:mine\n[data]\ntrain = \"{self.text}\"\n[train]\nsteps = 5\n"
                    "batch_tokens = 128\n[model]\ncontext = 32\nlayers = 1\n[output]\ntype = Q8_0\n"
                    "[metadata]\ngeneral.name = \"诗\"\n")
        rc, out, err = run("train", conf)
        self.assertEqual(rc, 0, err.decode())
        where = os.path.join(FOLDER, "state", "qiusuo", "train", "mine", "model.gguf")
        self.assertEqual(out.decode().strip(), where)
        with open(conf, "a", encoding="utf-8") as f:
            f.write("[train]\nlearning_rate = 1\n")
        rc, out, err = run("train", conf)
        self.assertEqual(rc, 1)
        self.assertIn("line 16", err.decode())
        self.assertIn("'lr'", err.decode())

    def test_mistakes(self):
        bad = os.path.join(FOLDER, "bad.txt")
        with open(bad, "wb") as f:
            f.write(b"fine\nfine\n\xff\n")
        broken = os.path.join(FOLDER, "bad.jsonl")
        with open(broken, "wb") as f:
            f.write(b'{"text": "x"}\n{"text": }\n')
        for path, says in ((bad, "bad.txt' line 3"), (broken, "bad.jsonl' line 2"),
                           (os.path.join(FOLDER, "none"), "does not exist")):
            rc, out, err = run("train", path, "--out", os.path.join(FOLDER, "bad"))
            self.assertEqual((rc, out), (1, b""))
            self.assertIn(says, err.decode())
        vocab = os.path.join(FOLDER, "only-vocab.gguf")
        self.assertEqual(run("tokenizer", "train", self.text, "--vocab", "300", "-o", vocab)[0], 0)
        rc, _, err = run("train", self.text, "--init", vocab, "--out", os.path.join(FOLDER, "bad"))
        self.assertEqual(rc, 1)
        self.assertIn("without weights", err.decode())
        self.assertEqual(run("train")[0], 2)
        self.assertEqual(run("train", self.text, "--steps", "5", "--hours", "1")[0], 2)
        rc, _, err = run("train", self.text, "--out", self.whole, "--steps", "70", *SMALL,
                         "--set", "train.lr=0.5")
        self.assertEqual(rc, 1)
        self.assertIn("train.lr = ", err.decode())

    def test_conversations(self):
        chat = os.path.join(FOLDER, "chat.jsonl")
        with open(chat, "w", encoding="utf-8") as f:
            for i in range(400):
                f.write('{"messages": [{"role": "user", "content": "say %d"}, '
                        '{"role": "assistant", "content": "yes"}]}\n' % (i % 10))
        out = os.path.join(FOLDER, "chat")
        rc, _, err = run("train", chat, "--out", out, "--steps", "60", *SMALL, "--set",
                         "train.lr=0.01", "--set", "sample.prompt=say 3", "--set",
                         "sample.every_steps=30")
        self.assertEqual(rc, 0, err.decode())
        self.assertEqual(err.decode().count("--- step"), 2)
        rc, said, err = run("chat", os.path.join(out, "model.gguf"), "--temp", "0", stdin="say 4\n")
        self.assertEqual(rc, 0, err.decode())
        self.assertEqual(said.decode().strip(), "yes")  # 60 steps are enough for one word


if __name__ == "__main__":
    unittest.main(argv=["test_train"])
