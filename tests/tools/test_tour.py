"""docs/tour.md names only files that exist and functions, types or tables that stand in them."""
import os
import re
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def rows():
    with open(os.path.join(ROOT, "docs", "tour.md"), encoding="utf-8") as f:
        for line in f:
            if re.match(r"\| (src|apps|include|examples)/", line):  # one file a row
                path, names = [cell.strip() for cell in line.split("|")[1:3]]
                yield path, re.findall(r"`(\w+)`", names)


def stands_in(name, path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return re.search(r"\b" + re.escape(name) + r"\b", f.read()) is not None


class Tour(unittest.TestCase):
    def test_names(self):
        table = list(rows())
        self.assertGreater(len(table), 40)
        for path, names in table:
            self.assertTrue(os.path.exists(os.path.join(ROOT, path)), path)
            for name in names:
                self.assertTrue(stands_in(name, path), f"{name} does not stand in {path}")

    def test_the_check_can_fail(self):
        self.assertFalse(stands_in("qsi_no_such_function", "src/base/status.h"))


if __name__ == "__main__":
    unittest.main()
