"""What is written never replaces what is read, however it is spelled: the command refuses with a line and
exit code 1 before any work, and every file stays as it was.

Called as: python3 test_apart.py PROGRAM MAKE_TINY_MODEL [unittest arguments]
"""
import os
import shutil
import unittest

from program import FOLDER, main, model, run

HERE = os.path.join(FOLDER, "apart")


def content(folder):
    out = {}
    for top, _, names in os.walk(folder):
        for n in names:
            with open(os.path.join(top, n), "rb") as f:
                out[os.path.join(top, n)] = f.read()
    return out


class Apart(unittest.TestCase):
    def setUp(self):
        shutil.rmtree(HERE, ignore_errors=True)
        os.makedirs(os.path.join(HERE, "d"))
        self.a = self.put("a.gguf")
        self.parts = [self.put(f"m-0000{i}-of-00002.gguf") for i in (1, 2)]
        os.symlink("a.gguf", os.path.join(HERE, "link.gguf"))
        os.link(self.a, os.path.join(HERE, "hard.gguf"))
        self.text = os.path.join(HERE, "text.txt")
        with open(self.text, "w", encoding="utf-8") as f:
            f.write("春眠不觉晓，处处闻啼鸟。 one two three four\n" * 40)

    @staticmethod
    def put(name):
        return shutil.copy(model("moe", "f32", "tasks"), os.path.join(HERE, name))

    def refused(self, *args):
        before = content(HERE)
        rc, out, err = run(*args)
        self.assertEqual((rc, out), (1, b""), (args, err))
        self.assertEqual(err.count(b"\n"), 1, err)
        self.assertIn(b"name another file", err)
        self.assertEqual(content(HERE), before, args)

    def test_the_same_file(self):
        for name in ("a.gguf", "./a.gguf", "link.gguf", "d/../a.gguf", "hard.gguf"):
            self.refused("quantize", self.a, os.path.join(HERE, name), "--type", "Q8_0")
        self.refused("convert", self.a, os.path.join(HERE, "link.gguf"), "--type", "Q8_0")

    def test_another_part(self):
        for i in (0, 1):
            self.refused("quantize", self.parts[0], self.parts[i], "--type", "Q8_0")
        self.refused("merge", self.parts[0], os.path.join(HERE, "d/../m-00002-of-00002.gguf"))

    def test_inside_the_folder(self):
        folder = os.path.join(HERE, "hf")
        self.assertEqual(run("convert", self.a, folder + "/")[0], 0)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            self.refused("convert", folder, os.path.join(folder, name))
        for _ in range(2):  # a GGUF of its own may lie there, and be made anew
            self.assertEqual(run("convert", folder, os.path.join(folder, "new.gguf"))[0], 0)

    def test_importance(self):
        dst = os.path.join(HERE, "b.gguf")
        for save in (self.a, os.path.join(HERE, "link.gguf"), self.text, dst):
            self.refused("quantize", self.a, dst, "--type", "Q4_0", "--imatrix", self.text,
                         "--save-imatrix", save, "--window", "64")
        self.refused("quantize", self.a, self.text, "--type", "Q4_0", "--imatrix", self.text)

    def test_texts_and_vocabularies(self):
        for out in (self.text, self.a, os.path.join(HERE, "hard.gguf")):
            self.refused("eval", "-m", self.a, self.text, "--output", out)
        self.refused("tokenizer", "train", self.text, "-o", os.path.join(HERE, "d/../text.txt"))
        self.refused("init", "--preset", "moe-tiny", "--vocab", self.a, "-o",
                     os.path.join(HERE, "link.gguf"))

    def test_no_name(self):
        before = content(HERE)
        rc, _, err = run("quantize", self.a, "", "--type", "Q8_0")
        self.assertEqual(rc, 1)
        self.assertIn(b"no name", err)
        self.assertEqual(content(HERE), before)


if __name__ == "__main__":
    main()
