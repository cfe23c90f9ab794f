#!/usr/bin/env python3
"""Runs a program in a terminal, types to it, and draws what stands on the screen as SVG.

    terminal_picture.py --type script.txt --out picture.svg [--text transcript.txt]
                        [--cols 80] [--rows 30] [--title NAME] -- PROGRAM ARG...

Every line of the script is typed as a person would type it, once the program has been quiet for
--quiet seconds. The screen is a small emulation of what line editors use: carriage return, backspace,
cursor movement, erasing, colours. Chinese characters are two cells wide. Standard library only.
"""
import argparse
import codecs
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
import unicodedata
from xml.sax.saxutils import escape

COLOURS = ["#3b3f46", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d7dae0"]
BRIGHT = ["#7f848e", "#ff7a85", "#b5e890", "#ffd68a", "#7cc4ff", "#e08cff", "#6fd8e5", "#ffffff"]
CELL_W, CELL_H, MARGIN = 8.4, 19, 14


def width(c):
    if unicodedata.combining(c):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


class Screen:
    """A grid of (character, style); a wide character leaves None in the cell after it. Lines that
    scroll off the top are kept in `gone`."""

    def __init__(self, cols, rows):
        self.cols, self.rows = cols, rows
        self.grid = [self._blank() for _ in range(rows)]
        self.gone = []
        self.x = self.y = 0
        self.style = (None, False)      # colour, bold
        self.rest = ""

    def _blank(self):
        return [(" ", (None, False))] * self.cols

    def feed(self, text):
        text = self.rest + text
        self.rest = ""
        i = 0
        while i < len(text):
            c = text[i]
            if c == "\x1b":
                m = re.match(r"\x1b\[([?>\d;]*)([@-~])|\x1b\][^\x07]*\x07|\x1b[()][A-Z0-9]|\x1b[=>78cDM]", text[i:])
                if not m:
                    if len(text) - i < 64:
                        self.rest = text[i:]
                        return
                    i += 1
                    continue
                if m.group(2):
                    self._csi(m.group(1), m.group(2))
                i += m.end()
                continue
            i += 1
            if c == "\r":
                self.x = 0
            elif c == "\n":
                self._down()
            elif c == "\b":
                self.x = max(0, self.x - 1)
            elif c == "\t":
                self.x = min(self.cols - 1, (self.x // 8 + 1) * 8)
            elif c >= " ":
                self._put(c)

    def _down(self):
        self.y += 1
        if self.y == self.rows:
            self.gone.append(self.grid.pop(0))
            self.grid.append(self._blank())
            self.y -= 1

    def _put(self, c):
        w = width(c)
        if w == 0:
            return
        if self.x + w > self.cols:
            self.x = 0
            self._down()
        self.grid[self.y][self.x] = (c, self.style)
        if w == 2:
            self.grid[self.y][self.x + 1] = (None, self.style)
        self.x += w

    def _csi(self, args, final):
        if args[:1] in ("?", ">"):
            return
        nums = [int(a) if a else 0 for a in args.split(";")] if args else [0]
        n = max(1, nums[0])
        if final == "m":
            self._colour(nums)
        elif final == "C":
            self.x = min(self.cols - 1, self.x + n)
        elif final == "D":
            self.x = max(0, self.x - n)
        elif final == "A":
            self.y = max(0, self.y - n)
        elif final == "B":
            self.y = min(self.rows - 1, self.y + n)
        elif final == "G":
            self.x = min(self.cols, n) - 1
        elif final == "K" and nums[0] == 0:
            self.grid[self.y][self.x:] = self._blank()[self.x:]
        elif final == "K":
            self.grid[self.y] = self._blank()
        elif final == "J" and nums[0] == 0:
            self.grid[self.y][self.x:] = self._blank()[self.x:]
            for y in range(self.y + 1, self.rows):
                self.grid[y] = self._blank()
        elif final == "J":
            self.grid = [self._blank() for _ in range(self.rows)]
        elif final == "H":
            self.y = min(self.rows, n) - 1
            self.x = min(self.cols, max(1, nums[1] if len(nums) > 1 else 1)) - 1
        elif final == "P":
            row = self.grid[self.y]
            self.grid[self.y] = row[:self.x] + row[self.x + n:] + self._blank()[:min(n, self.cols - self.x)]
        elif final == "@":
            row = self.grid[self.y]
            self.grid[self.y] = (row[:self.x] + self._blank()[:n] + row[self.x:])[:self.cols]

    def _colour(self, nums):
        colour, bold = self.style
        for n in nums:
            if n == 0:
                colour, bold = None, False
            elif n == 1:
                bold = True
            elif n == 2:
                colour = BRIGHT[0]
            elif n == 22:
                bold = False
            elif 30 <= n <= 37:
                colour = COLOURS[n - 30]
            elif 90 <= n <= 97:
                colour = BRIGHT[n - 90]
            elif n == 39:
                colour = None
        self.style = (colour, bold)

    def lines(self):
        """Everything that was shown, as text."""
        out = ["".join(c for c, _ in row if c is not None).rstrip() for row in self.gone + self.grid]
        while out and not out[-1]:
            out.pop()
        return out


def runs(row):
    """-> [(column, text, cells, style, wide)]: neighbours of one style and width together"""
    out, x = [], 0
    while x < len(row):
        c, style = row[x]
        if c is None:
            x += 1
            continue
        w = width(c)
        if out and out[-1][3] == style and out[-1][4] == (w == 2) and out[-1][0] + out[-1][2] == x:
            col, text, cells, _, wide = out[-1]
            out[-1] = (col, text + c, cells + w, style, wide)
        else:
            out.append((x, c, w, style, w == 2))
        x += w
    return [r for r in out if r[1].strip()]


def svg(rows, cols, title):
    w = cols * CELL_W + 2 * MARGIN
    h = len(rows) * CELL_H + 2 * MARGIN + 26
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{w:.0f}" height="{h:.0f}" viewBox="0 0 {w:.0f} {h:.0f}">',
           f'<title>{escape(title)}</title>', '<rect width="100%" height="100%" rx="8" fill="#1e2127"/>',
           '<g fill="#7f848e"><circle cx="18" cy="16" r="5"/><circle cx="36" cy="16" r="5"/><circle cx="54" cy="16" r="5"/></g>',
           f'<text x="{w / 2:.0f}" y="20" fill="#9da5b4" text-anchor="middle" font-family="sans-serif" font-size="12">{escape(title)}</text>',
           '<g font-family="DejaVu Sans Mono, Menlo, Consolas, Noto Sans Mono CJK SC, Noto Sans CJK SC, PingFang SC, '
           'Microsoft YaHei, monospace" font-size="14" xml:space="preserve">']
    for y, row in enumerate(rows):
        base = 26 + MARGIN + y * CELL_H + 14
        for col, text, cells, (colour, bold), wide in runs(row):
            lead = len(text) - len(text.lstrip(" "))
            text = text.strip(" ")
            size = len(text) * (2 if wide else 1)
            weight = ' font-weight="bold"' if bold else ""
            out.append(f'<text x="{MARGIN + (col + lead) * CELL_W:.1f}" y="{base}" fill="{colour or "#d7dae0"}"{weight} '
                       f'textLength="{size * CELL_W:.1f}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>')
    return "\n".join(out) + "\n</g>\n</svg>\n"


def read_until_quiet(fd, screen, quiet, limit):
    """-> False when the program has ended"""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    end = time.time() + limit
    while time.time() < end:
        ready, _, _ = select.select([fd], [], [], quiet)
        if not ready:
            return True
        try:
            data = os.read(fd, 65536)
        except OSError:
            return False
        if not data:
            return False
        screen.feed(decoder.decode(data))
    return True


def play(command, typed, screen, quiet, limit):
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS=str(screen.cols), LINES=str(screen.rows), LANG="C.UTF-8", LC_ALL="C.UTF-8")
        try:
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", screen.rows, screen.cols, 0, 0))
    alive = read_until_quiet(fd, screen, quiet, limit)
    for line in typed:
        if not alive:
            break
        os.write(fd, line.encode("utf-8") + b"\r")
        alive = read_until_quiet(fd, screen, quiet, limit)
    os.close(fd)
    os.waitpid(pid, 0)


def main(argv):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--type", help="file of lines to type")
    ap.add_argument("--out", required=True)
    ap.add_argument("--text")
    ap.add_argument("--cols", type=int, default=80)
    ap.add_argument("--rows", type=int, default=30)
    ap.add_argument("--title", default="qiusuo chat")
    ap.add_argument("--prompt", default="", help="a first line to show, as if the command had been typed at it")
    ap.add_argument("--quiet", type=float, default=2.0)
    ap.add_argument("--limit", type=float, default=60.0, help="seconds to wait for one answer at most")
    ap.add_argument("command", nargs="+")
    a = ap.parse_args(argv)
    typed = []
    if a.type:
        with open(a.type, encoding="utf-8") as f:
            typed = f.read().splitlines()
    screen = Screen(a.cols, a.rows)
    if a.prompt:
        screen.feed(a.prompt + "\r\n")
    play(a.command, typed, screen, a.quiet, a.limit)
    rows = list(screen.grid)
    while rows and not any(c not in (" ", None) for c, _ in rows[-1]):
        rows.pop()
    with open(a.out, "w", encoding="utf-8") as f:
        f.write(svg(rows, a.cols, a.title))
    if a.text:
        with open(a.text, "w", encoding="utf-8") as f:
            f.write("\n".join(screen.lines()) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
