"""The commands tokenize and tokenizer train, through the program itself."""
import os
import unittest

from program import FOLDER, main, model, run

TEXT = "the river the children the stones\n河水 河边 河水。1987\n" * 4


def vocabulary():
    """A vocabulary learned from TEXT."""
    text, out = os.path.join(FOLDER, "text.txt"), os.path.join(FOLDER, "vocab.gguf")
    if not os.path.exists(out):
        with open(text, "w", encoding="utf-8") as f:
            f.write(TEXT)
        code, stdout, stderr = run("tokenizer", "train", text, "--vocab", "280", "-o", out)
        assert code == 0 and stdout == b"", stderr
    return out


def ids(text, *options, where="-m"):
    words = ["-m", vocabulary()] if where == "-m" else [vocabulary()]
    code, out, err = run("tokenize", *words, *options, stdin=text)
    assert code == 0 and err == b"", err
    assert out.endswith(b"\n") and out.count(b"\n") == 1
    return [int(w) for w in out.split()]


class Tokenize(unittest.TestCase):
    def test_one_line_of_ids(self):
        bos = ids("")
        self.assertEqual(len(bos), 1)
        self.assertEqual(ids("", "--no-bos"), [])
        the = ids("the", "--no-bos")
        self.assertEqual(len(the), 1)
        self.assertEqual(ids("the"), bos + the)
        self.assertEqual(ids("the", where="argument"), bos + the)

    def test_takes_every_byte(self):
        self.assertEqual(len(ids("the\n", "--no-bos")), 2)
        self.assertEqual(len(ids("\r\n\x00\n", "--no-bos")), 4)
        self.assertEqual(len(ids("12345", "--no-bos")), 5)

    def test_control_tokens_in_the_text(self):
        marker = "<｜begin▁of▁sentence｜>"
        self.assertEqual(ids(marker, "--no-bos"), ids(""))
        plain = ids(marker, "--no-bos", "--no-special")
        self.assertGreater(len(plain), 10)
        self.assertNotIn(ids("")[0], plain)

    def test_not_utf8(self):
        code, out, err = run("tokenize", "-m", vocabulary(), stdin=b"abc\xe6\x98")
        self.assertEqual((code, out), (1, b""))
        self.assertIn(b"offset 3", err)

    def test_a_model_is_a_vocabulary_too(self):
        code, out, _ = run("tokenize", "-m", model(), "--no-bos", stdin="ab")
        self.assertEqual(code, 0)
        self.assertTrue(out.strip())

    def test_usage(self):
        self.assertEqual(run("tokenize", stdin="x")[0], 2)
        self.assertEqual(run("tokenize", "-m", vocabulary(), "other", stdin="x")[0], 2)
        code, out, _ = run("tokenize", "--help")
        self.assertEqual(code, 0)
        self.assertIn(b"--no-special", out)
        code, out, err = run("tokenize", "-m", os.path.join(FOLDER, "none.gguf"), stdin="x")
        self.assertEqual((code, out), (1, b""))
        self.assertIn(b"none.gguf", err)

    def test_damaged_file(self):
        with open(vocabulary(), "rb") as f:
            data = f.read()
        path = os.path.join(FOLDER, "cut.gguf")
        for size in (0, 3, 20, 400, len(data) // 2, len(data) - 200):
            with open(path, "wb") as f:
                f.write(data[:size])
            code, out, err = run("tokenize", "-m", path, stdin="x")
            self.assertEqual((code, out), (1, b""), size)
            self.assertIn(b"cut.gguf", err)


class TokenizerTrain(unittest.TestCase):
    def test_usage(self):
        self.assertEqual(run("tokenizer")[0], 2)
        self.assertEqual(run("tokenizer", "eat")[0], 2)
        self.assertEqual(run("tokenizer", "train")[0], 2)
        self.assertEqual(run("tokenizer", "train", "x.txt")[0], 2)
        self.assertEqual(run("tokenizer", "train", "x.txt", "-o", "y", "--pre", "gpt2")[0], 2)
        self.assertEqual(run("tokenizer", "--help")[0], 0)

    def test_missing_text(self):
        out = os.path.join(FOLDER, "never.gguf")
        code, _, err = run("tokenizer", "train", os.path.join(FOLDER, "none.txt"), "-o", out)
        self.assertEqual(code, 1)
        self.assertIn(b"none.txt", err)
        self.assertFalse(os.path.exists(out))

    def test_says_when_the_text_holds_no_more(self):
        text, out = os.path.join(FOLDER, "short.txt"), os.path.join(FOLDER, "short.gguf")
        with open(text, "w", encoding="utf-8") as f:
            f.write("ab ab")
        code, _, err = run("tokenizer", "train", text, "--vocab", "1K", "-o", out)
        self.assertEqual(code, 0)
        self.assertIn(b"no more", err)
        self.assertRegex(err, rb"from 1 file, 5 bytes")


if __name__ == "__main__":
    main()
