"""The terminal emulation behind the README's picture."""
import os
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ET

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))

import terminal_picture as tp  # noqa: E402


class Emulation(unittest.TestCase):
    def show(self, text, cols=20, rows=4):
        s = tp.Screen(cols, rows)
        s.feed(text)
        return s

    def test_line_editing(self):
        self.assertEqual(self.show("abc\b\bX").lines(), ["aXc"])
        self.assertEqual(self.show("abc\rX").lines(), ["Xbc"])
        self.assertEqual(self.show("abcdef\x1b[3D\x1b[K").lines(), ["abc"])
        self.assertEqual(self.show("abcdef\r\x1b[2C\x1b[2P").lines(), ["abef"])
        self.assertEqual(self.show("abef\r\x1b[2C\x1b[2@cd").lines(), ["abcdef"])

    def test_wide(self):
        s = self.show("春望ab", cols=5)
        self.assertEqual(s.lines(), ["春望a", "b"])
        self.assertEqual(tp.runs(s.grid[0]), [(0, "春望", 4, (None, False), True), (4, "a", 1, (None, False), False)])

    def test_scroll_and_split_sequence(self):
        s = tp.Screen(10, 2)
        for part in ("one\r\ntwo\r\n", "\x1b[3", "1mthree\x1b[0m"):
            s.feed(part)
        self.assertEqual(s.lines(), ["one", "two", "three"])
        self.assertEqual(s.grid[1][0], ("t", (tp.COLOURS[1], False)))

    def test_a_program(self):
        with tempfile.TemporaryDirectory() as d:
            path = lambda n: os.path.join(d, n)
            with open(path("in"), "w", encoding="utf-8") as f:
                f.write("春\n")
            code = "x = input('> '); print('\\x1b[1m' + x * 2 + '\\x1b[0m <&>')"
            tp.main(["--type", path("in"), "--out", path("o.svg"), "--text", path("o.txt"), "--cols", "40", "--rows", "5",
                     "--quiet", "0.5", "--", sys.executable, "-c", code])
            with open(path("o.txt"), encoding="utf-8") as f:
                self.assertEqual(f.read().splitlines(), ["> 春", "春春 <&>"])
            text = "".join(ET.parse(path("o.svg")).getroot().itertext())
            self.assertIn("春春", text)
            self.assertIn("<&>", text)


if __name__ == "__main__":
    unittest.main()
