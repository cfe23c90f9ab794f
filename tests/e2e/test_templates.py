"""A model whose chat template nobody knows: what asks for a conversation refuses, before anything is typed,
and lists what there is; what continues text works, and so does what reads the file alone; a template that
is named counts before the file's.

Called as: python3 test_templates.py PROGRAM MAKE_TINY_MODEL [unittest arguments]
"""
import json
import os
import unittest

from program import FOLDER, Terminal, main, model, run

FOREIGN = {
    "chatml": b"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    "latin1": b"caf\xe9 {{ messages[0].content }}",
    "zeros": b"a\0b",
    "word": b"x",
}
KNOWN = (b"deepseek-llm", b"deepseek-coder", b"deepseek-v2.5", b"deepseek-r1", b"deepseek-v3.2")
LLM = ("--chat-template", "deepseek-llm")


def foreign(name):
    """The tiny model with that template: as a folder, and as a file."""
    folder, path = os.path.join(FOLDER, name), os.path.join(FOLDER, name + ".gguf")
    if not os.path.exists(path):
        rc, _, err = run("convert", model("moe", "f32", "tasks"), folder + "/")
        assert rc == 0, err
        with open(os.path.join(folder, "chat_template.jinja"), "wb") as f:
            f.write(FOREIGN[name])
        rc, _, err = run("convert", folder, path)
        assert rc == 0, err
    return folder, path


class Templates(unittest.TestCase):
    @staticmethod
    def each():
        return *foreign("chatml"), foreign("zeros")[1]

    def works(self, *args, stdin=b""):
        rc, out, err = run(*args, stdin=stdin)
        self.assertEqual((rc, out != b""), (0, True), (args, err))
        return out, err

    def refused(self, *args, stdin=b""):
        rc, out, err = run(*args, stdin=stdin)
        self.assertEqual((rc, out), (1, b""), (args, err))
        self.assertEqual(err.count(b"\n"), 1, err)
        for name in KNOWN:
            self.assertIn(name, err)
        return err

    def test_text_is_continued(self):
        for path in self.each():
            for more in ((), LLM, ("--chat-template", "nonsense")):
                self.works("run", path, "--raw", "-p", "the moon", "-n", "3", *more)

    def test_run(self):
        for path in self.each():
            self.assertIn(b"is not known", self.refused("run", path, "-p", "hi", "-n", "3"))
            self.works("run", path, "-p", "hi", "-n", "3", *LLM)
            self.assertIn(b"'nonsense'", self.refused("run", path, "-p", "hi", "--chat-template", "nonsense"))

    def test_chat(self):
        for path in self.each():
            for lines in (b"hi\nthere\n", b""):
                self.assertIn(b"is not known", self.refused("chat", path, "-n", "3", stdin=lines))
            self.works("chat", path, "-n", "3", *LLM, stdin=b"hi\n")
            t = Terminal("chat", path, "-n", "3")
            shown = t.rest().decode("utf-8", "replace")
            self.assertEqual(t.p.returncode, 1, shown)
            self.assertIn("is not known", shown)
            self.assertNotIn(">>>", shown)  # nobody is let type first

    def test_eval(self):
        name = os.path.join(FOLDER, "gsm8k_test.jsonl")
        with open(name, "w", encoding="utf-8") as f:
            f.write(json.dumps({"question": "What is 1 + 1?", "answer": "Two.\n#### 2"}) + "\n")
        text = os.path.join(FOLDER, "text.txt")
        with open(text, "w", encoding="utf-8") as f:
            f.write("the fox jumps over the moon. " * 20)
        for path in self.each():
            note = b"questions are asked as texts to be continued"
            ask = ("eval", path, name, "-n", "4")
            self.assertIn(note, self.works(*ask)[1])
            self.assertNotIn(note, self.works(*ask, "--chat", "off")[1])
            self.assertNotIn(note, self.works(*ask, *LLM)[1])
            self.assertIn(b"is not known", self.refused(*ask, "--chat", "on"))
            self.works("eval", path, text)  # a text is no question

    def test_what_reads_alone(self):
        for path in self.each():
            self.assertIn(b"chat template", self.works("info", path)[0])
            self.works("info", path, "--json", "--keys")
            self.works("score", "-m", path, stdin=b"hello")
            self.works("tokenize", "-m", path, stdin=b"hello")

    def test_as_a_folder_again(self):
        for name, text in FOREIGN.items():
            with self.subTest(name):
                again = os.path.join(FOLDER, name + "-again")
                rc, _, err = run("convert", foreign(name)[1], again + "/")
                self.assertEqual(rc, 0, err)
                with open(os.path.join(again, "tokenizer_config.json"), encoding="utf-8") as f:
                    there = json.load(f).get("chat_template")
                is_text = name in ("chatml", "word")
                self.assertEqual(there, text.decode() if is_text else None)
                self.assertEqual(b"chat template is no UTF-8 text" in err, not is_text)
                self.works("run", again, "--raw", "-p", "hi", "-n", "3")


if __name__ == "__main__":
    main()
