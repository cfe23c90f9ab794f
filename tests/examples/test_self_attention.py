"""examples/self_attention.c against PyTorch (tests/golden/self_attention.json)."""
import json
import subprocess
import sys
import unittest

EXAMPLE, GOLDEN = sys.argv[1:3]
TOLERANCE = 1e-5


class SelfAttention(unittest.TestCase):
    def run_example(self, *args):
        return subprocess.run([EXAMPLE, *args], check=True, stdout=subprocess.PIPE, timeout=60,
                              text=True).stdout.splitlines()

    def test_golden(self):
        with open(GOLDEN) as f:
            cases = json.load(f)["cases"]
        self.assertGreaterEqual(len(cases), 10)
        for case in cases:
            lines = self.run_example(*case["args"])
            self.assertEqual(lines[0], case["shape"])
            values = [float(x) for x in lines[2:]]
            self.assertEqual(len(values), len(case["values"]))
            worst = max(abs(a - b) for a, b in zip(values, case["values"]))
            self.assertLessEqual(worst, TOLERANCE, case["args"])
            # 163,840 values, each off by some 4e-8: 400 * 4e-8 when the signs are random
            self.assertLessEqual(abs(float(lines[1].split()[1]) - case["sum"]), 1e-4, case["args"])

    def test_what_it_prints_alone(self):
        lines = self.run_example()
        self.assertEqual(lines[0], "(64, 10, 256)")
        self.assertTrue(lines[1].startswith("sum "))
        self.assertEqual(len(lines), 6)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
