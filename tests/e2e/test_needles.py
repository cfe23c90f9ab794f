"""The small model of docs/long-context.md finds facts in texts of 8,192 tokens, at every depth. `make
needles` asks two thousand times; here it is a few texts, and the same model without YaRN, which must do
worse: what is tested is the stretching of positions, not only the weights."""
import os
import subprocess
import sys
import unittest

ROOT = os.path.abspath(sys.argv.pop(3))
from program import FOLDER, PROGRAM, main  # noqa: E402

MODEL = os.path.join(ROOT, "models", "needle", "needle.gguf")


def found(texts_read, *options):
    texts = os.path.join(FOLDER, "needles.jsonl")
    with open(texts, "w", encoding="utf-8") as f:
        subprocess.run([sys.executable, os.path.join(ROOT, "tools", "needle_data.py"), "needles",
                        "--longest", "7960", "--count", str(texts_read), "--seed", "77"],
                       stdout=f, check=True)
    p = subprocess.run([sys.executable, os.path.join(ROOT, "bench", "needles.py"), PROGRAM, MODEL,
                        "--texts", texts, *options], stdout=subprocess.PIPE, check=True)
    return [int(n) for n in p.stdout.splitlines()[-1].split()[2:]]


class Needles(unittest.TestCase):
    def test_found_at_every_depth(self):
        counts = found(6)
        self.assertGreaterEqual(sum(counts), 57)  # of 60. So few texts do not tell 89 of 100 from 95
        self.assertGreaterEqual(min(counts), 5, counts)  # of 6

    def test_not_without_yarn(self):
        self.assertLess(sum(found(3, "--rope-scaling", "none")), 20)


if __name__ == "__main__":
    main()
