"""The manual page: well-formed, and complete against what the program's --help says.

Called as: python3 test_man.py PROGRAM PAGE
"""
import os
import re
import shutil
import subprocess
import sys
import unittest

PROGRAM, PAGE = (os.path.abspath(p) for p in sys.argv[1:3])


def shown(*args):
    return subprocess.run([PROGRAM, *args], capture_output=True, text=True, check=True).stdout


def commands():
    names = re.findall(r"(?m)^  ([a-z]+) +\S", shown("--help").split("commands:\n")[1])
    return [[n] for n in names if n not in ("help", "tokenizer")] + [["tokenizer", "train"]]


def page():
    with open(PAGE, encoding="utf-8") as f:
        return f.read()


def section(text, start, end):
    m = re.search(r"(?ms)^" + start + r"(.*?)(?=^" + end + r"|\Z)", text)
    return m.group(1) if m else None


class Man(unittest.TestCase):
    def test_lint(self):
        if shutil.which("mandoc") is None:
            self.skipTest("mandoc is not installed")
        p = subprocess.run(["mandoc", "-Tlint", PAGE], capture_output=True, text=True, check=False)
        self.assertEqual((p.stdout, p.returncode), ("", 0))

    def test_every_command_and_option(self):
        text = page()
        shared = section(text, r"\.Ss Options for models", r"\.Sh ENVIRONMENT")
        names = commands()
        self.assertGreater(len(names), 5)
        for words in names:
            name = " ".join(words)
            own = section(text, r"\.It Nm Cm " + name + r"\b", r"\.It Nm Cm |\.Ss ")
            self.assertIsNotNone(own, f"{name} is not in the manual page")
            if "options for models" in own:
                own += shared
            written = own.replace("\\-", "-")
            options = re.findall(r"(?m)^  (?:-(\w), |    )--([\w-]+)", shown(*words, "--help"))
            for letter, option in options:
                if option == "help":
                    continue
                self.assertRegex(written, r"Fl -%s\b" % option, f"{name} --{option}")
                if letter:
                    self.assertRegex(written, r"Fl %s\b" % letter, f"{name} -{letter}")

    def test_no_option_that_does_not_exist(self):
        text = page()
        helps = shown("--help") + "".join(shown(*words, "--help") for words in commands())
        for option in set(re.findall(r"Fl \\-([\w\\-]+)", text)):
            option = option.replace("\\-", "-")
            self.assertIn("--" + option, helps)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[3:])
