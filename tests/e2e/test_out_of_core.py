"""Models larger than the memory allowed: the same answer as in memory, resident memory within the
limit, caches that fit or are refused with what would fit, and disks that fail in use.

Called with one argument more than others: the library that makes reads fail."""
import json
import os
import re
import subprocess
import sys
import unittest

FAILING = os.path.abspath(sys.argv.pop(3))

from program import ENV, FOLDER, PROGRAM, TIMEOUT, main, run  # noqa: E402

MB = 1 << 20
LIMIT = 96 * MB


def status_kb(pid, key):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(rf"{key}:\s+(\d+) kB", f.read()).group(1))


class OutOfCore(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.paths = {}
        for preset, layers in (("dense-tiny", 60), ("moe-tiny", 50)):
            path = os.path.join(FOLDER, preset + "-large.gguf")
            rc, _, err = run("init", "--preset", preset, "--type", "F32", "--layers", str(layers),
                             "-o", path)
            assert rc == 0, err
            cls.paths[preset] = path
        p = subprocess.run([PROGRAM, "--version"], capture_output=True, check=False,
                           env=dict(ENV, LD_PRELOAD=FAILING))
        cls.preload = p.returncode == 0 and b"preload" not in p.stderr  # sanitizers come first

    def answer(self, preset, *args, env=None):
        return run("run", self.paths[preset], "--raw", "-p", "hello", "-n", "6", "--temp", "0", "-t",
                   "2", *args, env=env)

    def test_same_answer(self):
        for preset, path in self.paths.items():
            self.assertGreater(os.path.getsize(path), LIMIT)
            rc, want, err = self.answer(preset)
            self.assertEqual(rc, 0, err)
            rc, got, err = self.answer(preset, "--memory", str(LIMIT))
            self.assertEqual((rc, got), (0, want), err)

    def test_resident_memory(self):
        if not self.preload:
            self.skipTest("sanitizers have memory of their own")
        for path in self.paths.values():
            with subprocess.Popen([PROGRAM, "chat", path, "--memory", str(LIMIT), "-t", "2", "-n", "8"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, env=ENV) as p:
                p.stdin.write(b"hello\n")
                p.stdin.flush()
                self.assertTrue(p.stdout.readline())
                peak = status_kb(p.pid, "VmHWM") * 1024
                _, err = p.communicate(timeout=TIMEOUT)
            self.assertEqual(p.returncode, 0, err)
            self.assertLessEqual(peak, LIMIT)

    def test_cache_that_does_not_fit(self):
        rc, out, err = self.answer("dense-tiny", "--memory", str(LIMIT), "-c", "65536",
                                   "--cache-type", "f32", "--rope-scaling", "none")
        self.assertEqual((rc, out), (1, b""), err)
        found = re.search(rb"room for (\d+) tokens in F32, (\d+) in F16, (\d+) in Q8_0", err)
        self.assertIsNotNone(found, err)
        f32, f16, q8 = (int(x) for x in found.groups())
        self.assertTrue(0 < f32 < f16 < q8 < 65536)
        for n, kind in ((f32, "f32"), (q8, "q8_0")):  # and that is true, but for a page
            rc, _, err = self.answer("dense-tiny", "--memory", str(LIMIT), "-c", str(n - 128),
                                     "--cache-type", kind, "--rope-scaling", "none")
            self.assertEqual(rc, 0, err)

    def test_plan(self):
        # what plan says will be read is what is read; how fast, is bench/check_plan.py's
        for preset, path in self.paths.items():
            rc, out, err = run("plan", path, "--memory", str(LIMIT), "-c", "64", "-t", "2", "--json")
            self.assertEqual(rc, 0, err)
            plan = json.loads(out)
            rc, out, err = run("bench", "-m", path, "--memory", str(LIMIT), "-p", "0", "-n", "8", "-t",
                               "2", "--no-train", "--json")
            self.assertEqual(rc, 0, err)
            bench = json.loads(out)["runs"][0]
            self.assertIs(plan["memory"]["fits"], False)
            self.assertGreater(plan["disk"]["read_gb_s"], 0)
            self.assertGreater(plan["speed"]["decode_tok_s"], 0)
            away = bench["disk_away_bytes"]
            self.assertAlmostEqual(plan["disk"]["away_bytes"], away, delta=0.1 * away, msg=preset)
            if preset == "dense-tiny":  # every token reads all of it, in whole blocks
                self.assertAlmostEqual(plan["disk"]["token_bytes"], away, delta=0.1 * away)
                self.assertLess(plan["disk"]["token_bytes"], 1.1 * bench["disk_token_bytes"])
            else:
                self.assertLess(plan["disk"]["token_bytes"], away)
        rc, out, _ = run("plan", self.paths["dense-tiny"], "-t", "2", "--json")
        self.assertEqual(rc, 0)
        self.assertNotIn("disk", json.loads(out))

    def test_disk_that_fails(self):
        if not self.preload:
            self.skipTest("nothing can be preloaded")
        for preset, path in self.paths.items():
            failed = 0
            for after in (0, 3, 100, 10 ** 6):
                env = dict(ENV, LD_PRELOAD=FAILING, FAILING_DISK_AFTER=str(after),
                           FAILING_DISK_SIZE=str(os.path.getsize(path)))
                rc, _, err = self.answer(preset, "--memory", str(LIMIT), env=env)
                if rc == 0:
                    continue
                failed += 1
                self.assertEqual(rc, 1, err)
                self.assertIn(b"cannot read '" + path.encode(), err)
                self.assertIn(b"nput/output error", err)
            self.assertGreaterEqual(failed, 2)
            self.assertEqual(rc, 0, err)  # the last would have failed later than it reads

    def test_file_that_shrinks(self):
        for preset, path in self.paths.items():
            size = os.path.getsize(path)
            with open(path, "rb") as f:  # before anything can fail: it is put back in any case
                f.seek(size * 6 // 10)
                tail = f.read()
            p = subprocess.Popen([PROGRAM, "run", path, "--memory", str(LIMIT), "-n", "100000", "-t", "2",
                                  "--raw", "-p", "hello", "--ignore-eos", "--temp", "0"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, env=ENV)
            try:
                self.assertTrue(p.stdout.read(1))  # it answers
                os.truncate(path, size * 6 // 10)
                _, err = p.communicate(timeout=TIMEOUT)
            finally:
                p.kill()
                p.wait()
                p.stdout.close()
                with open(path, "r+b") as f:
                    f.seek(size * 6 // 10)
                    f.write(tail)
            self.assertEqual(p.returncode, 1, (preset, err))
            self.assertIn(os.path.basename(path).encode(), err)
            self.assertRegex(err, b"cut short while in use|changed while it was in use")


if __name__ == "__main__":
    main()
