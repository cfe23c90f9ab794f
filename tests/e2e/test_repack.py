"""Repacked copies of weights: --repack-cache writes one, later starts map it; results are the same, and
whatever is wrong with a copy, the model runs."""
import json
import os
import shutil
import subprocess
import unittest

from program import ENV, FOLDER, PROGRAM, TIMEOUT, Terminal, limited, main, model, run, small_files


def score(path, *options, **kw):
    return run("score", "-m", path, "--ids", "1 2 3 4 5 6", "--top", "3", *options, **kw)


class Repack(unittest.TestCase):
    def setUp(self):
        self.dir = os.path.join(FOLDER, "copies", self.id().rsplit(".", 1)[1])

    def copies(self, folder=None):
        folder = folder or self.dir
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        self.assertEqual([n for n in names if n.endswith(".tmp")], [])
        return [os.path.join(folder, n) for n in names if n.endswith(".qspacked")]

    def same(self, path, *options, note=None, **kw):
        """With and without a copy; returns the copy's inode."""
        rc, want, _ = score(path, *[o for o in options if not o.startswith("--repack")])
        self.assertEqual(rc, 0)
        rc, out, err = score(path, *options, **kw)
        self.assertEqual((rc, out), (0, want), err)
        if note is None:
            self.assertEqual(err, b"")
        else:
            self.assertIn(note, err)

    def test_written_then_mapped(self):
        latent = os.path.join(FOLDER, "latent.gguf")
        subprocess.run([PROGRAM, "init", "--preset", "deepseek-v2-lite-tiny", "--type", "Q8_0", "-o",
                        latent], check=True, timeout=TIMEOUT, stderr=subprocess.DEVNULL)
        option = "--repack-cache=" + self.dir
        for path in (model("moe", "f32"), model("dense", "q8_0"), latent):
            self.same(path, option)
            made = [c for c in self.copies() if os.path.basename(path)[:-5] in c]
            self.assertEqual(len(made), 1)
            before = os.stat(made[0])
            self.same(path, option)
            self.same(path, option, "-t", "1")
            self.assertEqual(os.stat(made[0]).st_ino, before.st_ino)
            self.same(path, option, "--exact")  # beside the other
            self.same(path, option, "--exact")
            self.assertEqual(os.stat(made[0]).st_ino, before.st_ino)
        self.assertEqual(len(self.copies()), 6)

    def test_cache_folder(self):
        cache = os.path.join(FOLDER, "cache")
        for env in (dict(ENV, XDG_CACHE_HOME=cache),
                    {k: v for k, v in ENV.items() if k != "XDG_CACHE_HOME"}):
            folder = os.path.join(env.get("XDG_CACHE_HOME", os.path.join(env["HOME"], ".cache")),
                                  "qiusuo", "repacked")
            self.same(model("moe", "f32"), "--repack-cache", env=env)
            self.assertEqual(len(self.copies(folder)), 1)

    def test_other_level_and_changed_model(self):
        path = os.path.join(FOLDER, "changes.gguf")
        shutil.copy(model("moe", "f32"), path)
        option = "--repack-cache=" + self.dir
        self.same(path, option)
        self.same(path, option, "--isa", "ref", note=b"made for other kernels")
        self.same(path, option, "--isa", "ref")
        os.utime(path, (1, 1))
        self.same(path, option, "--isa", "ref", note=b"the model changed")
        self.same(path, option, "--isa", "ref")
        os.truncate(self.copies()[0], 5000)
        self.same(path, option, "--isa", "ref", note=b"is damaged")
        self.same(path, option, "--isa", "ref")
        self.assertEqual(len(self.copies()), 1)

    def test_nowhere_to_write(self):
        path = model("dense", "f32")
        self.same(path, "--repack-cache=/proc/no", note=b"no repacked copy is kept in '/proc/no/")
        file = os.path.join(FOLDER, "a-file")
        with open(file, "wb"):
            pass
        self.same(path, "--repack-cache=" + file, note=b"no repacked copy is kept")

        _, want, _ = score(path)
        rc, out, err = limited(small_files(100000), "score", "-m", path, "--ids", "1 2 3 4 5 6", "--top",
                               "3", "--repack-cache=" + self.dir)
        self.assertEqual((rc, out), (0, want), err)
        self.assertIn(b"no repacked copy is kept", err)
        self.assertEqual(self.copies(), [])

    def test_two_at_once(self):
        path = model("moe", "f32")
        _, want, _ = score(path)
        args = [PROGRAM, "score", "-m", path, "--ids", "1 2 3 4 5 6", "--top", "3",
                "--repack-cache=" + self.dir]
        for _ in range(3):
            both = [subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV)
                    for _ in range(3)]
            for p in both:
                out, err = p.communicate(timeout=TIMEOUT)
                self.assertEqual((p.returncode, out), (0, want), err)
            made = self.copies()
            self.assertEqual(len(made), 1)
            self.same(path, "--repack-cache=" + self.dir)
            os.unlink(made[0])

    def test_memory(self):
        self.same(model("dense", "q8_0"), "--repack-cache=" + self.dir, "--memory", "4G")
        self.assertEqual(len(self.copies()), 1)

    def test_copy_that_shrinks(self):
        path = model("moe", "f32")
        option = "--repack-cache=" + self.dir
        self.same(path, option)
        p = subprocess.Popen([PROGRAM, "chat", path, option, "-n", "4", "-t", "2"], env=ENV,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            p.stdin.write(b"hello\n")
            p.stdin.flush()
            self.assertTrue(p.stdout.readline())
            os.truncate(self.copies()[0], 4096)
            _, err = p.communicate(b"again, and a little longer than before\n", timeout=TIMEOUT)
        finally:
            p.kill()
            p.wait()
            p.stdout.close()
        self.assertEqual(p.returncode, 1, err)
        self.assertIn(b".qspacked", err)
        self.assertIn(b"changed while it was in use", err)

    def test_info(self):
        self.same(model("dense", "q8_0"), "--repack-cache=" + self.dir)
        made = self.copies()[0]
        rc, out, err = run("info", made, "--verify")
        self.assertEqual((rc, err), (0, b""))
        self.assertIn(b"repacked copy", out)
        rc, out, _ = run("info", made, "--json")
        self.assertEqual((rc, json.loads(out)["verified"]), (0, False))
        with open(made, "r+b") as f:
            f.seek(4096)
            byte = f.read(1)
            f.seek(4096)
            f.write(bytes([byte[0] ^ 1]))
        self.assertEqual(run("info", made)[0], 0)  # header and table are whole
        rc, out, err = run("info", made, "--verify")
        self.assertEqual((rc, out), (1, b""))
        self.assertIn(b"weight 0", err)
        rc, out, _ = run("info", made, "--verify", "--json")
        self.assertEqual((rc, json.loads(out)["ok"]), (1, False))
        rc, _, err = run("run", made, "--raw", "-p", "a")
        self.assertEqual(rc, 1)

    def test_progress(self):
        args = ("score", "-m", model("dense", "q8_0"), "--ids", "1 2 3")
        t = Terminal(*args)
        t.rest()
        self.assertRegex(t.raw, rb"loading +\d+ %  [\d.]+ \w+/s")
        self.assertEqual(run(*args)[2], b"")
        for _ in range(2):  # written, mapped
            t = Terminal(*args, "--repack-cache=" + self.dir)
            t.rest()
            self.assertRegex(t.raw, rb"loading +\d+ %  [\d.]+ \w+/s")


if __name__ == "__main__":
    main()
