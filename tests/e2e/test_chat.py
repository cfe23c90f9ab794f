"""The chat at a pseudo terminal: editing, commands, Ctrl-C, history."""
import json
import os
import time
import unittest

from program import ENV, FOLDER, Terminal, main, model

PROMPT = r"(?m)^>>> "


def path(name):
    return os.path.join(FOLDER, name)


def turns(name):
    with open(path(name), encoding="utf-8") as f:
        return [(m["role"], m["content"]) for m in json.load(f)["messages"]]


class Chat(unittest.TestCase):
    def start(self, *args, env=None, words=("moe", "f32", "tasks")):
        t = Terminal("chat", model(*words), "-n", "10", "--seed", "1", *args, env=env)
        self.addCleanup(lambda: t.p.poll() is None and t.p.kill())
        t.expect(PROMPT)
        return t

    def quit(self, t):
        t.send("/quit\n")
        self.assertEqual(t.close(), 0)

    def ask(self, t, text):
        t.send(text + "\n")
        return t.expect(r"\[\d+ tokens, [\d.]+ tokens/s; first after [\d.]+ s\]\n>>> ")

    def test_welcome_and_speed(self):
        t = Terminal("chat", model("moe", "f32", "tasks"), "-n", "5")
        shown = t.expect(PROMPT)
        self.assertIn("tiny (deepseek", shown)
        self.assertIn("write classical Chinese poems, complete couplets and translate",
                      shown.replace("\n", " "))
        self.assertIn("写古诗词、对对联、中英互译", shown)
        self.ask(t, "hello")
        t.send(b"\x04")  # Ctrl-D
        self.assertEqual(t.close(), 0)

    def test_no_hint_without_tasks(self):
        t = Terminal("chat", model("moe", "f32"), "-n", "5")
        self.assertNotIn("Try:", t.expect(PROMPT))
        self.quit(t)

    def test_commands(self):
        t = self.start()
        t.send("/help\n")
        shown = t.expect(PROMPT)
        for word in ("/system", "/save", "/load", "/regen", "/set", "/stats", "/quit", "/clear"):
            self.assertIn(word, shown)
        t.send("/regen\n")
        t.expect("no answer to make again.*>>> ")
        self.ask(t, "hello")
        t.send("/save %s\n" % path("a.json"))
        t.expect(r"saved: 2 turns\n>>> ")
        first = turns("a.json")
        self.assertEqual(first[0], ("user", "hello"))
        self.ask(t, "/regen")
        t.send("/save %s\n" % path("b.json"))
        t.expect(r"2 turns\n>>> ")
        second = turns("b.json")
        self.assertEqual(second[0], ("user", "hello"))
        self.assertNotEqual(first[1], second[1])  # the random numbers went on
        t.send("/system be brief\n")
        t.expect(PROMPT)
        t.send("/system\n")
        t.expect(r"be brief\n>>> ")
        self.ask(t, "again")
        t.send("/stats\n")
        shown = t.expect(PROMPT)
        self.assertRegex(shown, r"5 turns, \d+ of 256 tokens of context")
        self.assertRegex(shown, r"ended by \w+")
        t.send("/load %s\n" % path("a.json"))
        t.expect(r"loaded: 2 turns\n>>> ")
        t.send("/clear\n")
        t.expect(PROMPT)
        t.send("/stats\n")
        self.assertIn("0 turns, 0 of 256 tokens", t.expect(PROMPT))
        t.send("/save %s\n" % path("c.json"))
        t.expect(r"0 turns\n>>> ")
        t.send("/load %s\n" % path("missing.json"))
        t.expect(r"missing\.json.*>>> ")
        t.send("/nonsense\n")
        t.expect(r"no command /nonsense.*>>> ")
        self.quit(t)

    def test_set(self):
        t = self.start()
        t.send("/set\n")
        shown = t.expect(PROMPT)
        self.assertRegex(shown, r"temp +0\.5\n")   # the file's
        self.assertRegex(shown, r"top-k +20\n")
        t.send("/set temp 0\n")
        t.expect(PROMPT)
        t.send("/set n 3\n")
        t.expect(PROMPT)
        t.send("/set temp\n")
        t.expect(r"temp +0\n>>> ")
        for bad in ("temp hot", "top-p 2", "top-k 1.5"):
            t.send("/set %s\n" % bad)
            t.expect(r"needs a .*number.*>>> ")
        t.send("/set nothing 1\n")
        t.expect(r"no setting.*>>> ")
        one = self.ask(t, "hello")
        self.assertRegex(one, r"\[3 tokens,")
        self.quit(t)

    def test_several_lines(self):
        t = self.start()
        t.send("one \\\n")
        t.expect(r"(?m)^\.\.\. ")
        self.ask(t, "two")
        t.send('"""three\n')
        t.expect(r"(?m)^\.\.\. ")
        t.send("/four\n")
        t.expect(r"(?m)^\.\.\. ")
        self.ask(t, '"""')
        self.ask(t, '"""five"""')
        t.send("/save %s\n" % path("lines.json"))
        t.expect(PROMPT)
        said = [text for role, text in turns("lines.json") if role == "user"]
        self.assertEqual(said, ["one \ntwo", "three\n/four", "five"])
        self.quit(t)

    def test_paste(self):
        """A bracketed paste is one input that Enter sends, whatever lines it holds."""
        t = self.start()
        t.send("译：")
        time.sleep(0.2)
        t.send("\x1b[200~床前明月光，\r疑是地上霜。\n/quit\n\x1b[201~")
        time.sleep(0.2)
        self.ask(t, "！")
        self.ask(t, "next")
        t.send("/save %s\n" % path("paste.json"))
        t.expect(PROMPT)
        said = [text for role, text in turns("paste.json") if role == "user"]
        self.assertEqual(said, ["译：床前明月光，\n疑是地上霜。\n/quit！", "next"])
        self.assertRegex(t.raw, rb"(?s)\x1b\[\?2004h.*\x1b\[\?2004l")
        self.quit(t)

    def test_end_typed_during_an_answer(self):
        """Ctrl-D is not lost: the answer ends as it would, then the chat."""
        t = Terminal("chat", model("moe", "f32", "ctx=100000"), "--ignore-eos", "--seed", "1",
                     "-n", "300")
        self.addCleanup(lambda: t.p.poll() is None and t.p.kill())
        t.expect(PROMPT)
        t.send("hello\n")
        t.expect(r"hello\n.{30}")
        t.send(b"\x04")
        t.expect(r"\[300 tokens")
        self.assertEqual(t.close(), 0)

    def check_chinese_editing(self, env):
        t = self.start(env=env)
        t.send("你好")
        time.sleep(0.2)
        t.send(b"\x7f")            # takes the whole character
        self.ask(t, "们")
        t.send("明月")
        time.sleep(0.2)
        t.send(b"\x01")            # Ctrl-A: to the beginning
        time.sleep(0.2)
        t.send("看")
        time.sleep(0.2)
        t.send(b"\x05")            # Ctrl-E: to the end
        self.ask(t, "！")
        t.send("/save %s\n" % path("zh.json"))
        t.expect(PROMPT)
        said = [text for role, text in turns("zh.json") if role == "user"]
        self.assertEqual(said, ["你们", "看明月！"])
        self.quit(t)

    def test_chinese_editing(self):
        self.check_chinese_editing(ENV)

    def test_chinese_editing_without_locale(self):
        self.check_chinese_editing({k: v for k, v in ENV.items() if k != "LANG"})

    def test_history_file(self):
        t = self.start()
        self.ask(t, "白日依山尽")
        self.quit(t)
        file = os.path.join(ENV["XDG_STATE_HOME"], "qiusuo", "chat-history")
        self.assertEqual(os.stat(file).st_mode & 0o077, 0)
        t = self.start()
        t.send(b"\x1b[A")          # up: /quit
        time.sleep(0.2)
        t.send(b"\x1b[A")          # up: the text
        time.sleep(0.2)
        self.ask(t, "，")
        t.send("/save %s\n" % path("history.json"))
        t.expect(PROMPT)
        self.assertEqual(turns("history.json")[0][1], "白日依山尽，")
        self.quit(t)

    def test_interrupt_ends_the_answer_only(self):
        t = Terminal("chat", model("moe", "f32", "ctx=100000"), "--ignore-eos", "--seed", "1")
        t.expect(PROMPT)
        t.send("hello\n")
        t.expect(r"hello\n.{30}")  # it answers, and would go on for long
        t.send(b"\x03")
        shown = t.expect(r"cancelled\]\n>>> ", 20)
        t.send("/set n 4\n")
        t.expect(PROMPT)
        self.assertRegex(self.ask(t, "go on"), r"\[4 tokens")
        t.send("/save %s\n" % path("cut.json"))
        t.expect(r"4 turns\n>>> ")
        self.assertGreater(len(turns("cut.json")[1][1]), 5)
        # at the prompt: drops the line, says how to leave
        t.send("half a line")
        time.sleep(0.2)
        t.send(b"\x03")
        t.expect(r"Ctrl-D or /quit.*>>> ")
        t.send("/save %s\n" % path("cut2.json"))
        t.expect(r"4 turns\n>>> ")
        self.quit(t)

    def test_interrupt_of_a_piped_run(self):
        t = Terminal("run", model("moe", "f32", "ctx=100000"), "hello", "--ignore-eos")
        t.expect(r".{20}")
        t.send(b"\x03")
        self.assertEqual(t.close(), 130)

    def test_context_full(self):
        t = self.start("-c", "60")
        t.send("moon " * 80 + "\n")
        t.expect(r"context.*>>> ")
        self.assertIn("tokens", self.ask(t, "hi"))
        t.send("moon " * 80 + "\n")
        t.expect(r"context.*/clear begins a new conversation.*>>> ")
        t.send("/save %s\n" % path("full.json"))
        t.expect(r"2 turns\n>>> ")
        self.quit(t)

    def test_narrow_terminal(self):
        """What the chat says is wrapped between words."""
        t = Terminal("chat", model("moe", "f32", "tasks"), columns=50)
        shown = t.expect(PROMPT)
        shown = shown[shown.index("tiny (deepseek"):]  # what stood there while loading was erased
        for line in shown.split("\n"):
            self.assertLessEqual(len(line), 50, shown)
            self.assertFalse(line.startswith(" "), shown)
        self.assertIn("Try: Write a", shown.replace("\n", " "))
        self.quit(t)

    def test_plain_lines(self):
        """Without a terminal for output there is no line editor; all else is the same."""
        with open(path("answers.txt"), "wb") as out:
            t = Terminal("chat", model("moe", "f32", "tasks"), "-n", "10", stdout=out)
            t.expect(PROMPT)
            self.ask(t, "hello")
            t.send("/stats\n")
            t.expect(r"2 turns.*>>> ")
            t.send(b"\x04")
            self.assertEqual(t.close(), 0)
        with open(path("answers.txt"), "rb") as f:
            self.assertNotIn(b">>>", f.read())


if __name__ == "__main__":
    main()
