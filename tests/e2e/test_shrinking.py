"""A file that another program makes shorter while a command reads it, at several places: the command ends
with exit code 1 and says so, by no signal; nothing has the final name, and no half of it is left for a
later run to go on from, because what was read may be zeros.

Called as: python3 test_shrinking.py PROGRAM MAKE_TINY_MODEL SHRINKING_FILE [unittest arguments]
"""
import os
import shutil
import subprocess
import sys
import unittest

SHRINK = os.path.abspath(sys.argv.pop(3))
from malform import I32, STR, U16, gguf, info, pair  # noqa: E402
from program import ENV, FOLDER, PROGRAM, TIMEOUT, main, model, run  # noqa: E402


def shrinking(path, at, keep, *args):
    """Runs the program; `path` is cut to `keep` bytes at the at-th piece that it is done with."""
    env = dict(ENV, LD_PRELOAD=SHRINK, SHRINK_PATH=path, SHRINK_AT=str(at), SHRINK_BYTES=str(keep))
    p = subprocess.run([PROGRAM, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=TIMEOUT, env=env, check=False)
    return p.returncode, p.stdout, p.stderr


class Shrinking(unittest.TestCase):
    def setUp(self):
        self.dir = os.path.join(FOLDER, self.id())
        os.makedirs(self.dir)
        self.source = os.path.join(self.dir, "source.gguf")
        self.dst = os.path.join(self.dir, "out.gguf")
        shutil.copy(model("moe", "f32"), self.source)
        self.size = os.path.getsize(self.source)

    def folder(self):
        """The source as a folder: its path and that of its weights."""
        folder = os.path.join(self.dir, "folder") + "/"
        rc, _, err = run("convert", self.source, folder)
        self.assertEqual(rc, 0, err)
        return folder, os.path.join(folder, "model.safetensors")

    def refused(self, path, *args, places=((0, 0.0), (0, 0.5), (6, 0.5)), dst=None):
        """Exit code 1, the file named, and beside it nothing that was not there before."""
        whole = path + ".whole"
        shutil.copy(path, whole)
        before = sorted(os.listdir(self.dir))
        for at, share in places:
            shutil.copy(whole, path)
            keep = int(share * os.path.getsize(whole))
            rc, out, err = shrinking(path, at, keep, *args)
            self.assertEqual(os.path.getsize(path), keep, "the file was not cut: %r" % err)
            self.assertEqual(rc, 1, (at, share, rc, err))
            self.assertIn(os.path.basename(path).encode(), err)
            self.assertIn(b"changed while it was in use", err)
            if dst is not None and os.path.isdir(dst):  # its folder is made first
                self.assertEqual([n for n in os.listdir(dst) if n != "."], [])
                os.rmdir(dst)
            self.assertEqual(sorted(os.listdir(self.dir)), before)
            yield out
        shutil.copy(whole, path)

    def test_quantize(self):
        args = ("quantize", self.source, self.dst, "--type", "Q8_0", "-t", "2")
        list(self.refused(self.source, *args, places=((0, 0.0), (3, 0.4), (12, 0.6))))
        self.assertEqual(run(*args)[0], 0)

    def test_importance(self):
        text, matrix = (os.path.join(self.dir, n) for n in ("text", "imatrix.gguf"))
        with open(text, "w", encoding="utf-8") as f:
            f.write("which columns matter? " * 40)
        rc, _, err = run("quantize", self.source, "--imatrix", text, "--save-imatrix", matrix)
        self.assertEqual(rc, 0, err)
        args = ("quantize", self.source, self.dst, "--type", "Q4_0", "--imatrix", matrix)
        list(self.refused(matrix, *args))
        self.assertEqual(run(*args)[0], 0)

    def test_quantize_a_folder(self):
        folder, weights = self.folder()
        args = ("quantize", folder, self.dst, "--type", "Q8_0", "-t", "2")
        list(self.refused(weights, *args))
        self.assertEqual(run(*args)[0], 0)

    def test_convert(self):
        list(self.refused(self.source, "convert", self.source, self.dst))
        list(self.refused(self.source, "convert", self.source, self.dst, "--type", "F16"))

    def test_convert_from_a_folder(self):
        folder, weights = self.folder()
        list(self.refused(weights, "convert", folder, self.dst))
        list(self.refused(weights, "convert", folder, self.dst, "--type", "F16"))

    def test_convert_to_a_folder(self):
        dst = os.path.join(self.dir, "made") + "/"
        list(self.refused(self.source, "convert", self.source, dst, dst=dst))

    def test_merge(self):
        parts = []
        for no in range(2):
            keys = [pair("general.architecture", STR, "other")] if no == 0 else []
            keys += [pair("split.no", U16, no), pair("split.count", U16, 2),
                     pair("split.tensors.count", I32, 8)]
            infos = [info(f"t{no}.{i}.weight", [1 << 17], 0, i << 19) for i in range(4)]  # large: not copied
            parts.append(os.path.join(self.dir, f"part-{no + 1:05}-of-00002.gguf"))
            with open(parts[no], "wb") as f:
                f.write(gguf(keys, infos, b"\1" * (4 << 19)))
        args = ("merge", parts[0], self.dst)
        for cut in parts:
            list(self.refused(cut, *args, places=((0, 0.0), (1, 0.7))))
        self.assertEqual(run(*args)[0], 0)

    def test_verify(self):
        folder, weights = self.folder()
        for path, args in ((self.source, (self.source,)), (weights, (folder,)),
                           (self.source, (self.source, "--json"))):
            for out in self.refused(path, "info", *args, "--verify"):
                self.assertNotIn(b"finite", out)
            self.assertEqual(run("info", *args, "--verify")[0], 0)

    def test_run_a_folder(self):
        folder, weights = self.folder()
        for out in self.refused(weights, "run", folder, "--raw", "-p", "a", "-n", "4"):
            self.assertEqual(out, b"")


if __name__ == "__main__":
    main()
