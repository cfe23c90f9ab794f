"""convert and quantize that are killed, or meet a full disk, and go on: at whatever write that is, the
same command again gives the bytes of a run that nothing happened to, nothing half-written has the final
name, and a source or options that changed meanwhile start anew."""
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import unittest

FAULT = os.path.abspath(sys.argv.pop(3))
from program import ENV, FOLDER, PROGRAM, TIMEOUT, main, model, run  # noqa: E402

GOES_ON, ANEW = b"where it was stopped", b"anew"


def faulty(fault, at, *args):
    env = dict(ENV, LD_PRELOAD=FAULT, WRITER_FAULT=fault, WRITER_AT=str(at))
    p = subprocess.run([PROGRAM, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=TIMEOUT, env=env, check=False)
    return p.returncode, p.stderr


def content(path):
    """The bytes of a file, or of all files of a folder by name; None: there is none."""
    if os.path.isdir(path):
        return {n: content(os.path.join(path, n)) for n in sorted(os.listdir(path))}
    if not os.path.exists(path):
        return None
    with open(path, "rb") as f:
        return f.read()


class Resume(unittest.TestCase):
    def setUp(self):
        self.dir = os.path.join(FOLDER, self.id())
        os.makedirs(self.dir)
        self.dst = os.path.join(self.dir, "out.gguf")
        self.source = os.path.join(self.dir, "source.gguf")
        shutil.copy(model("moe", "f32"), self.source)

    def whole(self, *args, dst=None):
        """What the command writes when nothing happens."""
        dst = dst or os.path.join(self.dir, "whole.gguf")
        rc, _, err = run(args[0], args[1], dst, *args[2:])
        self.assertEqual(rc, 0, err)
        self.assertNotIn(GOES_ON, err)
        return content(dst)

    def finish(self, want, *args, says=None):
        rc, _, err = run(args[0], args[1], self.dst, *args[2:])
        self.assertEqual(rc, 0, err)
        self.assertEqual(content(self.dst), want)
        self.assertEqual([n for n in os.listdir(self.dir) if ".part" in n or n.startswith(".")], [])
        if says:
            self.assertIn(says, err)
        return err

    def killed_everywhere(self, want, *args, least, step=1):
        """Killed at one write after the other, each time with a good run after it."""
        at, went_on, kills = 0, 0, 0
        while True:
            rc, err = faulty("kill", at, args[0], args[1], self.dst, *args[2:])
            if rc == 0:
                break
            self.assertEqual(rc, -signal.SIGKILL, err)
            self.assertIn(content(self.dst), (None, want))  # whole or not there
            went_on += GOES_ON in self.finish(want, *args)
            os.remove(self.dst)
            at += step
            kills += 1
        self.assertGreater(at, least)
        self.assertGreater(went_on, kills / 2)
        os.remove(self.dst)

    def test_killed_at_any_write(self):
        for step, args in ((1, ("quantize", self.source, "--type", "Q4_K_M", "-t", "2")),
                           (5, ("convert", self.source, "--type", "F16"))):
            self.killed_everywhere(self.whole(*args), *args, least=40, step=step)

    def test_killed_again_and_again(self):
        args = ("quantize", self.source, "--type", "Q5_1", "-t", "2")
        want, runs = self.whole(*args), 0
        while True:
            rc, err = faulty("kill", 12, args[0], args[1], self.dst, *args[2:])
            if rc == 0:
                break
            self.assertEqual(rc, -signal.SIGKILL, err)
            self.assertIsNone(content(self.dst))
            runs += 1
            self.assertLess(runs, 100)  # every run gets some tensors further
        self.assertGreater(runs, 3)
        self.assertEqual(content(self.dst), want)

    def test_full_disk(self):
        args = ("quantize", self.source, "--type", "Q8_0", "-t", "2")
        want = self.whole(*args)
        for at in (0, 1, 2, 7, 20, 45):
            rc, err = faulty("full", at, args[0], args[1], self.dst, *args[2:])
            self.assertEqual(rc, 1, err)
            self.assertIn(b"No space left", err)
            self.assertIsNone(content(self.dst))
            self.finish(want, *args, says=GOES_ON if at > 6 else None)
            os.remove(self.dst)

    def test_source_changed(self):
        args = ("quantize", self.source, "--type", "Q8_0")
        self.assertEqual(faulty("kill", 20, args[0], args[1], self.dst, *args[2:])[0], -9)
        data = bytearray(content(self.source))
        data[-4] ^= 1  # a weight: length and keys are the same
        with open(self.source, "wb") as f:
            f.write(data)
        err = self.finish(self.whole(*args), *args, says=b"source has changed")
        self.assertIn(ANEW, err)
        self.assertNotIn(GOES_ON, err)

    def test_other_options(self):
        args = ("quantize", self.source, "--type", "Q8_0")
        self.assertEqual(faulty("kill", 20, args[0], args[1], self.dst, *args[2:])[0], -9)
        args = ("quantize", self.source, "--type", "Q4_0")
        self.finish(self.whole(*args), *args, says=b"with other options")

    def test_importance_is_an_option(self):
        matrices = []
        for i, words in enumerate(("a text to learn from. ", "which columns matter? ")):
            text = os.path.join(self.dir, "text")
            with open(text, "w", encoding="utf-8") as f:
                f.write(words * 40)
            matrices.append(os.path.join(self.dir, f"imatrix-{i}"))
            rc, _, err = run("quantize", self.source, "--imatrix", text, "--save-imatrix", matrices[i])
            self.assertEqual(rc, 0, err)
        args, other = (("quantize", self.source, "--type", "Q4_0", "--imatrix", m) for m in matrices)
        want = self.whole(*args)
        self.assertNotEqual(want, self.whole(*other))
        for begun, says in ((args, GOES_ON), (other, b"with other options")):
            self.assertEqual(faulty("kill", 30, *begun[:2], self.dst, *begun[2:])[0], -9)
            self.finish(want, *args, says=says)
            os.remove(self.dst)

    def test_what_cannot_be_is_said_before_the_text_is_read(self):
        matrix = os.path.join(self.dir, "early")
        text = os.path.join(self.dir, "early.txt")
        with open(text, "w", encoding="utf-8") as f:
            f.write("which columns matter? " * 40)
        for dst, more, says in ((self.dst, ["--tensor-type", "no_such_tensor=Q8_0"], b"no tensor has a name"),
                                (self.dst, ["--tensor-type", "attn=Q99"], b"Q99"),
                                (self.dst, ["--tensor-type", "attn_(=Q8_0"], b"attn_("),
                                (self.dir + "/", [], b"is a folder")):
            rc, _, err = run("quantize", self.source, dst, "--type", "Q4_0", "--imatrix", text,
                             "--save-imatrix", matrix, *more)
            self.assertEqual((rc, says in err), (1, True), err)
            self.assertFalse(os.path.exists(matrix), more)

    def test_damaged_part(self):
        args = ("quantize", self.source, "--type", "Q8_0")
        want = self.whole(*args)
        part = self.dst + ".part"
        for where in (0.1, 0.6, 0.95):
            self.assertEqual(faulty("kill", 40, args[0], args[1], self.dst, *args[2:])[0], -9)
            with open(part, "r+b") as f:
                f.seek(int(where * os.path.getsize(part)))
                byte = f.read(1)
                f.seek(-1, os.SEEK_CUR)
                f.write(bytes([byte[0] ^ 0xFF]))
            self.finish(want, *args)
            os.remove(self.dst)
        for path, junk in ((part, b"not a model"), (part + ".journal", os.urandom(4096))):
            self.assertEqual(faulty("kill", 40, args[0], args[1], self.dst, *args[2:])[0], -9)
            with open(path, "wb") as f:
                f.write(junk)
            self.assertNotIn(GOES_ON, self.finish(want, *args))
            os.remove(self.dst)

    def test_two_at_once(self):
        args = ("quantize", self.source, "--type", "Q8_0")
        self.assertEqual(faulty("kill", 20, args[0], args[1], self.dst, *args[2:])[0], -9)
        with open(self.dst + ".part", "r+b") as f:
            fcntl.lockf(f, fcntl.LOCK_EX)
            rc, _, err = run(args[0], args[1], self.dst, *args[2:])
            self.assertEqual(rc, 1)
            self.assertIn(b"another program is writing", err)
        self.finish(self.whole(*args), *args, says=GOES_ON)

    def test_folder_is_killed(self):
        folder = os.path.join(self.dir, "whole") + "/"
        want = self.whole("convert", self.source, dst=folder)
        self.dst = os.path.join(self.dir, "folder") + "/"
        at, went_on = 0, 0
        while True:
            rc, err = faulty("kill", at, "convert", self.source, self.dst)
            if rc == 0:
                break
            self.assertEqual(rc, -signal.SIGKILL, err)
            have = content(self.dst)
            self.assertIn(have.get("model.safetensors"), (None, want["model.safetensors"]))
            rc, _, err = run("convert", self.source, self.dst)
            self.assertEqual(rc, 0, err)
            self.assertEqual(content(self.dst), want)
            went_on += GOES_ON in err
            shutil.rmtree(self.dst)
            at += 4
        self.assertGreater(at, 40)
        self.assertGreater(went_on, at / 8)

    def test_folder_becomes_another_type_at_once(self):
        folder = os.path.join(self.dir, "folder") + "/"
        self.whole("convert", self.source, dst=folder)
        whole = os.path.join(self.dir, "f32.gguf")
        self.whole("convert", folder, dst=whole)
        args = ("quantize", folder, "--type", "Q4_K_M", "-t", "2")
        want = self.whole("quantize", whole, "--type", "Q4_K_M")
        self.assertEqual(self.whole(*args), want)  # as by way of a GGUF
        self.killed_everywhere(want, *args, least=40, step=6)


if __name__ == "__main__":
    main()
