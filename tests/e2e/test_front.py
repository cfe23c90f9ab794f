"""The front door: help and exit codes of every command, installation, make at a terminal, packages.

Called as: python3 test_front.py PROGRAM MAKE_TINY_MODEL SOURCE_ROOT BUILD_ROOT
"""
import ctypes
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

from program import ENV, FOLDER, MAKE_MODEL, PROGRAM, TIMEOUT, model, run

SOURCE, BUILD = (os.path.abspath(p) for p in sys.argv[3:5])


def commands():
    """The commands that this build has: those of the store need libraries."""
    with open(os.path.join(SOURCE, "apps/qiusuo/commands.h"), encoding="utf-8") as f:
        all_ = re.findall(r'X\(\w+, "([\w-]+)"', f.read())
    with open(os.path.join(BUILD, "features.txt"), encoding="utf-8") as f:
        left_out = "pull, list and rm" in f.read()
    return [c for c in all_ if not (left_out and c in ("pull", "list", "rm"))]


class Help(unittest.TestCase):
    def test_overview_names_every_command(self):
        rc, out, err = run("--help")
        self.assertEqual((rc, err), (0, b""))
        self.assertGreater(len(commands()), 5)
        for c in commands():
            self.assertRegex(out.decode(), r"(?m)^  %s +\w" % c)
        self.assertEqual(run("help")[1], out)
        self.assertEqual(run("-h")[1], out)

    def test_version(self):
        self.assertRegex(run("--version")[1], rb"^qiusuo \d+\.\d+\.\d+\n$")

    def test_each_command_helps(self):
        for c in commands():
            with self.subTest(command=c):
                rc, out, err = run(c, "--help")
                self.assertEqual((rc, err), (0, b""))
                self.assertTrue(out.startswith(b"usage: qiusuo " + c.encode()), out[:80])
                self.assertIn(b"\nexamples:\n", out)
                self.assertIn(b"qiusuo " + c.encode(), out.split(b"\nexamples:\n")[1])
                self.assertEqual(run("help", c)[:2], (0, out))

    def test_wrong_usage_is_exit_2(self):
        for c in commands():
            with self.subTest(command=c):
                rc, out, err = run(c, "--no-such-option")
                self.assertEqual((rc, out), (2, b""))
                self.assertRegex(err.decode(), r"^qiusuo: [^\n]*--no-such-option[^\n]*\n$")

    def test_unknown_command(self):
        rc, out, err = run("cht")
        self.assertEqual((rc, out), (2, b""))
        self.assertEqual(err, "qiusuo: unknown command 'cht'; did you mean 'chat'?\n".encode())
        self.assertEqual(run("诗")[0], 2)
        self.assertEqual(run("help", "诗")[0], 2)
        rc, out, err = run()
        self.assertEqual((rc, out), (2, b""))

    def test_a_result_that_cannot_be_written_fails(self):
        with open("/dev/full", "wb") as full:
            p = subprocess.run([PROGRAM, "--help"], stdout=full, stderr=subprocess.PIPE,
                               timeout=TIMEOUT, check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"standard output", p.stderr)

    def test_closed_streams(self):
        """No file that is opened takes the number, or the text, of a closed standard stream."""
        m = model("moe", "f32")
        for line, says in (("chat %s <&-", "cannot read standard input"),
                           ("tokenize -m %s <&-", "cannot read standard input"),
                           ("info %s >&-", "cannot write the result")):
            with self.subTest(line=line):
                p = subprocess.run(["sh", "-c", 'exec "$0" ' + line % m, PROGRAM], env=ENV,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   timeout=TIMEOUT, check=False)
                self.assertEqual((p.returncode, p.stdout), (1, b""))
                self.assertIn(says, p.stderr.decode())

    def test_ctrl_c_is_130(self):
        p = subprocess.Popen([PROGRAM, "tokenize", "-m", model("moe", "f32")], env=ENV,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.5)  # it waits for its input
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(TIMEOUT), 130)
        p.communicate()


class Place(unittest.TestCase):
    def test_one_program(self):
        found = [os.path.join(d, "qiusuo") for d, _, names in os.walk(BUILD) if "qiusuo" in names
                 and os.access(os.path.join(d, "qiusuo"), os.X_OK)]
        self.assertEqual(found, [PROGRAM])

    def test_default_model_from_the_real_path(self):
        prefix = os.path.join(FOLDER, "前缀")
        models = os.path.join(prefix, "share/qiusuo/models/default")
        os.makedirs(models)
        os.makedirs(os.path.join(prefix, "bin"))
        shutil.copy(PROGRAM, os.path.join(prefix, "bin/qiusuo"))
        shutil.copy(model("moe", "f32", "tasks"), os.path.join(models, "small.gguf"))
        link = os.path.join(FOLDER, "other-name")
        os.symlink(os.path.join(prefix, "bin/qiusuo"), link)
        p = subprocess.run(["qiusuo", "chat", "-n", "3"], executable=link, input=b"hello\n", cwd="/",
                           capture_output=True, timeout=TIMEOUT, env=ENV, check=False)
        self.assertEqual(p.returncode, 0, p.stderr)
        os.rename(models, models + "-away")
        p = subprocess.run([link, "chat"], input=b"hello\n", capture_output=True, timeout=TIMEOUT,
                           env=ENV, check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"models/default", p.stderr)


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.top = os.path.join(FOLDER, "install")
        p = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", cls.top],
                           capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert p.returncode == 0, p.stdout + p.stderr
        cls.files = {}
        for folder, _, names in os.walk(cls.top):
            for n in names:
                cls.files[os.path.relpath(os.path.join(folder, n), cls.top)] = os.path.join(folder, n)

    def only(self, ending):
        found = [p for p in self.files.values() if p.endswith(ending)]
        self.assertEqual(len(found), 1, (ending, sorted(self.files)))
        return found[0]

    def test_contents(self):
        self.only("/bin/qiusuo")
        self.only("/pkgconfig/qiusuo.pc")
        for name in os.listdir(os.path.join(SOURCE, "include/qiusuo")):
            self.only("/include/qiusuo/" + name)
        if os.path.exists(os.path.join(SOURCE, "docs/qiusuo.1")):
            self.only("/man/man1/qiusuo.1")
        for name in os.listdir(os.path.join(SOURCE, "models/default")):
            self.only("/share/qiusuo/models/default/" + name)
        programs = [f for f in self.files if "/bin/" in "/" + f]
        self.assertEqual(len(programs), 1, programs)

    def test_library(self):
        lib = self.only("/libqiusuo.so.0.1.0")
        self.assertTrue(os.path.islink(self.only("/libqiusuo.so.0")))
        self.assertTrue(os.path.islink(self.only("/libqiusuo.so")))
        so = ctypes.CDLL(lib)
        so.qs_version.restype = ctypes.c_char_p
        self.assertEqual(b"qiusuo " + so.qs_version() + b"\n", run("--version")[1])
        symbols = subprocess.run(["nm", "-D", "--defined-only", lib], capture_output=True, text=True,
                                 check=True).stdout
        names = [line.split()[-1].split("@")[0] for line in symbols.splitlines()]
        self.assertIn("qs_version", names)
        self.assertEqual([n for n in names if not n.startswith("qs_")], [])
        dynamic = subprocess.run(["readelf", "-d", lib], capture_output=True, text=True,
                                 check=True).stdout
        self.assertRegex(dynamic, r"SONAME.*\[libqiusuo\.so\.0\]")

    def test_a_program_builds_with_pkg_config(self):
        source, program = os.path.join(FOLDER, "user.c"), os.path.join(FOLDER, "user")
        with open(source, "w", encoding="ascii") as f:
            f.write('#include <stdio.h>\n')
            for name in sorted(os.listdir(os.path.join(SOURCE, "include/qiusuo"))):
                f.write('#include <qiusuo/%s>\n' % name)
            f.write('int main(void) { puts(qs_version()); return 0; }\n')
        pc = self.only("/pkgconfig/qiusuo.pc")
        env = dict(os.environ, PKG_CONFIG_PATH=os.path.dirname(pc), PKG_CONFIG_SYSROOT_DIR=self.top)
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "qiusuo"], capture_output=True,
                               text=True, check=True, env=env).stdout.split()
        subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", "-o", program, source, *flags], check=True)
        out = subprocess.run([program], capture_output=True, check=True, env=dict(
            os.environ, LD_LIBRARY_PATH=os.path.dirname(self.only("/libqiusuo.so.0")))).stdout
        self.assertEqual(b"qiusuo " + out, run("--version")[1])

    def test_installed_program_finds_its_model(self):
        models = [f for f in self.files if f.endswith(".gguf")]
        if not models:
            self.skipTest("the repository holds no default model yet")
        p = subprocess.run([self.only("/bin/qiusuo"), "chat", "-n", "8"], input="你好\n".encode(),
                           capture_output=True, timeout=TIMEOUT, env=ENV, check=False)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertTrue(p.stdout.strip())


def session(argv, steps):
    """Runs argv as leader of a new session with a controlling terminal. Each step is (pattern to wait
    for, text to send). Returns (exit code, everything shown)."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(SOURCE)
        os.execvpe(argv[0], argv, ENV)
    shown, seen = b"", 0
    end = time.monotonic() + TIMEOUT
    for pattern, text in steps + [(None, None)]:
        while pattern is None or not re.search(pattern, shown[seen:]):
            try:
                data = os.read(fd, 4096)
            except OSError:
                data = b""
            if not data or time.monotonic() > end:
                break
            shown += data
        seen = len(shown)
        if text is not None:
            time.sleep(0.2)
            os.write(fd, text)
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    return os.waitstatus_to_exitcode(status), shown.decode("utf-8", "replace")


class Make(unittest.TestCase):
    def make(self, *words, **kw):
        return subprocess.run(["make", "-C", SOURCE, "BUILD=" + BUILD, *words], capture_output=True,
                              timeout=TIMEOUT, env=ENV, check=False, **kw)

    def test_chat_in_a_pipe(self):
        p = self.make("chat", "ARGS=%s -n 4 --seed 1" % model("moe", "f32"), input="你好\nhello\n".encode())
        self.assertEqual(p.returncode, 0, p.stderr)
        direct = run("chat", model("moe", "f32"), "-n", "4", "--seed", "1", stdin="你好\nhello\n")
        answers = [line for line in p.stdout.split(b"\n") if b"Entering dir" not in line
                   and b"Leaving dir" not in line]
        self.assertEqual(b"\n".join(answers), direct[1])

    def test_chat_at_a_terminal_survives_ctrl_c(self):
        make = ["make", "BUILD=" + BUILD, "chat", "ARGS=%s -n 8" % model("moe", "f32")]
        rc, shown = session(make, [(rb">>> ", b"\x03"), (rb">>> ", b"hello\n"),
                                   (rb"tokens/s", b"/quit\n")])
        self.assertEqual(rc, 0, shown)
        self.assertNotIn("***", shown)

    def test_help(self):
        p = self.make("help")
        for word in (b"make chat", b"make test", b"make install", b"make bench", b"make fuzz"):
            self.assertIn(word, p.stdout)


class Packages(unittest.TestCase):
    """tools/packages.sh with a pretended Debian: programs of the same name earlier in PATH."""

    def setUp(self):
        self.bin = os.path.join(FOLDER, "bin-" + self.id().split(".")[-1])
        os.makedirs(self.bin)
        self.log = os.path.join(self.bin, "apt.log")
        self.tree = os.path.join(self.bin, "tree")
        os.makedirs(os.path.join(self.tree, "tools"))
        shutil.copy(os.path.join(SOURCE, "tools/packages.sh"), os.path.join(self.tree, "tools"))

    def fake(self, name, script):
        path = os.path.join(self.bin, name)
        with open(path, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\n" + script)
        os.chmod(path, 0o755)

    def debian(self, installed, uid=0, apt="exit 0"):
        names = "|".join(installed) or "none"
        self.fake("dpkg-query", 'for p; do :; done; case $p in %s) echo installed;; '
                                '*) exit 1;; esac\n' % names)
        self.fake("apt-get", 'echo "$@" >>"%s"\n%s\n' % (self.log, apt))
        self.fake("id", "echo %d\n" % uid)
        self.fake("sudo", "exit 1\n")

    def go(self, task, **env):
        p = subprocess.run([os.path.join(self.tree, "tools/packages.sh"), task], capture_output=True,
                           text=True, timeout=TIMEOUT, check=False,
                           env={**ENV, "PATH": self.bin + ":" + ENV["PATH"], "CC": "", **env})
        calls = []
        if os.path.exists(self.log):
            with open(self.log, encoding="ascii") as f:
                calls = f.read().splitlines()
            os.remove(self.log)
        return p, calls

    BUILD_NEEDS = ["gcc", "libc6-dev", "meson", "ninja-build", "pkgconf", "libjansson-dev",
                   "libxxhash-dev"]
    BUILD_WANTS = ["libedit-dev", "libhwloc-dev", "libcurl4-openssl-dev", "libssl-dev", "libmicrohttpd-dev",
                   "libjs-katex", "fonts-katex", "libjs-highlight.js"]

    def test_nothing_missing_calls_no_apt(self):
        self.debian(self.BUILD_NEEDS + self.BUILD_WANTS)
        p, calls = self.go("build")
        self.assertEqual((p.returncode, p.stdout, calls), (0, "", []))

    def test_installs_what_is_missing_only(self):
        self.debian([n for n in self.BUILD_NEEDS if n not in ("meson", "libxxhash-dev")]
                    + self.BUILD_WANTS)
        p, calls = self.go("build")
        self.assertEqual(p.returncode, 0)
        self.assertIn("meson libxxhash-dev", p.stdout)
        self.assertEqual(len(calls), 1)
        self.assertRegex(calls[0], r"^install -y .*--no-install-recommends meson libxxhash-dev$")

    def test_old_lists_are_updated_once(self):
        self.debian([], apt='case $1 in update) touch "%s/fresh";; '
                            'install) test -e "%s/fresh";; esac' % (self.bin, self.bin))
        p, calls = self.go("test")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual([c.split()[0] for c in calls], ["install", "update", "install", "install"])

    def test_apt_that_fails_is_said(self):
        self.debian([], apt="echo E: no such package; exit 100")
        p, calls = self.go("fuzz")
        self.assertEqual(p.returncode, 1)
        self.assertIn("E: no such package", p.stderr)
        self.assertIn("could not install", p.stderr)

    def test_optional_package_that_cannot_be_had(self):
        self.debian(self.BUILD_NEEDS, apt="exit 100")
        p, calls = self.go("build")
        self.assertEqual(p.returncode, 0)
        self.assertIn("going on without: " + " ".join(self.BUILD_WANTS), p.stdout)
        self.assertTrue(calls)
        p, calls = self.go("build")  # and it is not tried again
        self.assertEqual((p.returncode, p.stdout, calls), (0, "", []))

    def test_without_root_says_the_command(self):
        self.debian([], uid=1000)
        p, calls = self.go("build")
        self.assertEqual((p.returncode, calls), (1, []))
        self.assertIn("sudo apt-get install --no-install-recommends gcc", p.stderr)

    def test_password_less_sudo(self):
        self.debian(self.BUILD_NEEDS, uid=1000)
        self.fake("sudo", 'shift; echo sudo >>"%s"; exec "$@"\n' % self.log)
        p, calls = self.go("build")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn("sudo", calls)
        self.assertTrue(any(c.endswith(" ".join(self.BUILD_WANTS)) for c in calls), calls)

    def test_own_compiler_needs_no_gcc(self):
        self.debian(self.BUILD_NEEDS[2:] + self.BUILD_WANTS)
        p, calls = self.go("build", CC="clang")
        self.assertEqual((p.returncode, calls), (0, []))

    def test_unknown_task(self):
        self.assertEqual(self.go("dinner")[0].returncode, 2)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[5:])
