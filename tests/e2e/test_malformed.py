"""Malformed files of every format (malform.py): one clear message, exit code 1, bounded memory and time,
never a signal; and the sound files they were made from are fine."""
import os
import resource
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from malform import all_cases, write  # noqa: E402
from program import ENV, FOLDER, PROGRAM, TIMEOUT, main  # noqa: E402

MOST_KIB, MOST_S = 400 << 10, 20  # with sanitizers; a plain build stays under 40 MiB and a second


# What the sound GGUF files lack, and nothing else: they are no models.
SOUND = "llama.vocab_size is missing"


class Malformed(unittest.TestCase):
    def refuse(self, name, args, words, cwd=FOLDER):
        begin = time.monotonic()
        p = subprocess.run([PROGRAM, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           stdin=subprocess.DEVNULL, timeout=TIMEOUT, env=ENV, cwd=cwd, check=False)
        err = p.stderr.decode()
        self.assertEqual(p.returncode, 1, f"{name}: exit {p.returncode}, {err}{p.stdout.decode()}")
        self.assertEqual(err.count("\n"), 1, f"{name}: not one message: {err!r}")
        self.assertTrue(err.startswith("qiusuo: ") and len(err) > 30, f"{name}: {err!r}")
        self.assertTrue(all(c == "\n" or c >= " " for c in err), f"{name}: {err!r}")
        self.assertNotIn(SOUND, err, name)  # it went through
        for w in words:
            self.assertIn(w, err.replace(name, ""), name)
        self.assertLess(time.monotonic() - begin, MOST_S, name)

    def runs(self, name, args, stdin=b"", cwd=FOLDER):
        begin = time.monotonic()
        p = subprocess.run([PROGRAM, *args], input=stdin, capture_output=True, timeout=TIMEOUT, env=ENV,
                           cwd=cwd, check=False)
        self.assertEqual((p.returncode, p.stdout != b""), (0, True), f"{name}: {p.stderr.decode()}")
        self.assertLess(time.monotonic() - begin, MOST_S, name)

    def test_all(self):
        for name, what, files, words in all_cases():
            with tempfile.TemporaryDirectory() as folder, self.subTest(name):
                write(folder, files)
                path = os.path.join(folder, next(iter(files)))
                if what == "fine":
                    p = subprocess.run([PROGRAM, "info", path], capture_output=True, timeout=TIMEOUT,
                                       env=ENV, check=False)
                    self.assertTrue(p.returncode == 0 or SOUND.encode() in p.stderr, p.stderr)
                    continue
                if what == "tokenizes":
                    self.runs(name, ["tokenize", "-m", path], b"abc")
                    continue
                if what == "tokenize":
                    self.refuse(name, ["tokenize", "-m", path], words)
                    continue
                if what == "chat":
                    self.refuse(name, ["run", folder, "-p", "hello", "-n", "1"], words, folder)
                    self.runs(name, ["run", folder, "--raw", "-p", "hello", "-n", "1"], cwd=folder)
                    self.assertEqual(sorted(os.listdir(folder)), sorted(files))  # nothing was made
                    continue
                if what == "convert":
                    out = os.path.join(folder, "out.gguf")
                    self.refuse(name, ["convert", folder, out], words)
                    self.assertFalse(os.path.exists(out))
                    continue
                self.refuse(name, ["info", folder if what == "folder" else path], words)
        self.assertLess(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, MOST_KIB)


if __name__ == "__main__":
    main()
