"""What the end-to-end tests share: the program, small models, a terminal.

Called as: python3 test_x.py PROGRAM MAKE_TINY_MODEL [unittest arguments]
"""
import fcntl
import os
import pty
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

PROGRAM = os.path.abspath(sys.argv[1])
MAKE_MODEL = os.path.abspath(sys.argv[2])
TIMEOUT = 60

_folder = tempfile.TemporaryDirectory(prefix="qiusuo-e2e-")
FOLDER = _folder.name
ENV = dict(os.environ, XDG_STATE_HOME=os.path.join(FOLDER, "state"), HOME=FOLDER, LANG="C.UTF-8",
           TERM="xterm", NO_COLOR="1")
ENV.pop("LC_ALL", None)
ENV.pop("QIUSUO_ISA", None)
_models = {}


def model(*words):
    """Path of a tiny random model; words as make_tiny_model takes them."""
    if words not in _models:
        path = os.path.join(FOLDER, "-".join(("tiny",) + words) + ".gguf")
        subprocess.run([MAKE_MODEL, path, *words], check=True, timeout=TIMEOUT)
        _models[words] = path
    return _models[words]


def run(*args, stdin=b"", env=None):
    """Runs the program; returns (exit code, standard output, standard error) as bytes."""
    if isinstance(stdin, str):
        stdin = stdin.encode()
    p = subprocess.run([PROGRAM, *args], input=stdin, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=TIMEOUT, env=env or ENV)
    return p.returncode, p.stdout, p.stderr


def limited(setup, *args, stdin=b""):
    """run() with `setup` called in the child before the program: limits, signals."""
    p = subprocess.run([PROGRAM, *args], input=stdin, capture_output=True, timeout=TIMEOUT, env=ENV,
                       preexec_fn=setup, check=False)
    return p.returncode, p.stdout, p.stderr


def small_files(most):
    """For limited(): no file can grow beyond `most` bytes, as on a disk that is full then."""
    def setup():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return setup


class Terminal:
    """The program at a pseudo terminal. Output is collected; escape sequences are taken out."""

    def __init__(self, *args, env=None, stdout=None, columns=None):
        self.out = b""
        self.raw = b""  # all that came, escape sequences included
        self.pid, self.fd = None, None
        master, slave = pty.openpty()
        if columns is not None:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.p = subprocess.Popen([PROGRAM, *args], stdin=slave, stdout=stdout or slave,
                                  stderr=slave, env=env or ENV, start_new_session=True,
                                  preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.fd = master

    def pump(self, seconds):
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.out += data
        self.raw += data
        return bool(data)

    def text(self):
        t = self.out.decode("utf-8", "replace")
        t = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]", "", t)
        return t.replace("\r", "")

    def expect(self, pattern, seconds=TIMEOUT):
        """Waits until what came since the last expect matches; forgets it up to the match."""
        end = time.monotonic() + seconds
        while True:
            m = re.search(pattern, self.text(), re.S)
            if m:
                shown = self.text()
                self.out = shown[m.end():].encode()
                return shown[:m.end()]
            if time.monotonic() > end or (not self.pump(0.2) and self.p.poll() is not None and
                                          not self.pump(0.2)):
                raise AssertionError("%r did not come; shown: %r" % (pattern, self.text()))

    def send(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        while data:
            data = data[os.write(self.fd, data):]

    def rest(self):
        """Waits for the end; returns everything shown as it came, escape sequences included."""
        self.close()
        return self.out

    def close(self):
        """Waits for the end; returns the exit code."""
        end = time.monotonic() + TIMEOUT
        while self.p.poll() is None and time.monotonic() < end:
            self.pump(0.1)
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGKILL)
            self.p.wait()
            raise AssertionError("the program does not end; shown: %r" % self.text())
        while self.pump(0.05):
            pass
        os.close(self.fd)
        return self.p.returncode


def main():
    unittest.main(argv=[sys.argv[0]] + sys.argv[3:])
