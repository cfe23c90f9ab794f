"""What the system refuses or takes away: threads, memory, a model's file, a disk. Each ends with a
message and exit code 1, never with a signal."""
import os
import platform
import resource
import shutil
import subprocess
import unittest

from program import ENV, FOLDER, PROGRAM, TIMEOUT, limited, main, model, run


class Faults(unittest.TestCase):
    def failed(self, result, *words):
        rc, _, err = result
        self.assertEqual(rc, 1, err)
        for w in words:
            self.assertIn(w, err)

    def test_threads_refused(self):
        def no_stacks():  # a thread's stack is as large as this limit: none can be made
            hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
            resource.setrlimit(resource.RLIMIT_STACK, (1 << 46, hard))
        if resource.getrlimit(resource.RLIMIT_STACK)[1] != resource.RLIM_INFINITY:
            self.skipTest("the limit on stacks cannot be raised")
        args = ("score", "-m", model("moe", "f32"), "--ids", "1 2 3")
        self.failed(limited(no_stacks, *args, "-t", "4"), b"thread 2 of 4")
        self.assertEqual(limited(no_stacks, *args, "-t", "1")[0], 0)  # one needs no other

    def test_memory_refused(self):
        args = ("run", model("moe", "f32"), "--raw", "-p", "a", "-n", "4", "-t", "1")
        self.assertEqual(run(*args)[0], 0)
        refused = 0
        for mib in (24, 32, 40, 48, 64, 96):
            size = mib << 20
            rc, _, err = limited(lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)), *args)
            if rc == 127 or b"shared libraries" in err:
                continue  # not even the program itself
            self.assertIn(rc, (0, 1), (mib, err))
            if rc == 1:
                refused += 1
                self.assertRegex(err, b"memory|[Mm]ap", mib)
        self.assertGreater(refused, 0)

    def test_level_without_avx2(self):
        args = ("score", "-m", model("moe", "f32"), "--ids", "1 2 3")
        self.assertEqual(run(*args, "--isa", "ref")[0], 0)
        rc, _, err = run(*args, "--isa", "neon9")
        self.assertEqual(rc, 1)
        self.assertIn(b"ref", err)

    def test_level_above_the_cpu(self):
        lacking = 0
        for level in ("avx2", "avxvnni", "avx512", "vnni", "bf16", "amx", "neon", "dotprod", "i8mm"):
            rc, out, err = run("score", "-m", model("moe", "f32"), "--ids", "1 2 3", "--isa", level)
            if rc == 0:
                continue
            lacking += 1  # of another kind of CPU at least
            self.assertEqual((rc, out), (1, b""), level)
            self.assertIn(f"'{level}'".encode(), err)
            self.assertRegex(err, b"this CPU has .*ref")
        self.assertGreater(lacking, 0)

    @unittest.skipUnless(shutil.which("qemu-x86_64") and platform.machine() == "x86_64",
                         "no qemu-x86_64 (Debian: qemu-user)")
    def test_plain_x86_64(self):
        # the whole program on a CPU that has SSE2 and nothing later
        def plain(*args):
            p = subprocess.run(["qemu-x86_64", "-cpu", "qemu64", PROGRAM, *args], env=ENV, check=False,
                               capture_output=True, timeout=10 * TIMEOUT, stdin=subprocess.DEVNULL)
            return p.returncode, p.stdout, p.stderr
        args = ("score", "-m", model("moe", "q8_0"), "--ids", "1 2 3", "--top", "2", "-t", "2")
        if b"anitizer" in plain("--version")[2]:
            self.skipTest("sanitizers do not run there")
        rc, out, err = plain(*args)
        self.assertEqual((rc, out), (0, run(*args, "--isa", "ref")[1]), err)
        rc, out, err = plain(*args, "--isa", "avx2")
        self.assertEqual((rc, out), (1, b""))
        self.assertIn(b"this CPU has no level 'avx2': it has ref", err)

    def test_file_that_shrinks(self):
        path = os.path.join(FOLDER, "shrinks.gguf")
        shutil.copy(model("moe", "f32"), path)
        p = subprocess.Popen([PROGRAM, "chat", path, "-n", "4", "-t", "2"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV)
        try:
            p.stdin.write(b"hello\n")
            p.stdin.flush()
            first = p.stdout.readline()  # the model answers: it is loaded and in use
            self.assertTrue(first)
            os.truncate(path, 4096)
            _, err = p.communicate(b"again, and a little longer than before\n", timeout=TIMEOUT)
        finally:
            p.kill()
            p.wait()
            p.stdout.close()
        self.assertEqual(p.returncode, 1, err)
        self.assertIn(b"shrinks.gguf", err)
        self.assertIn(b"changed while it was in use", err)

    def test_disk_that_errs(self):
        # reading this file fails as a broken disk does: with EIO
        rc, out, err = run("run", model("moe", "f32"), "--raw", "-f", "/proc/self/mem", "-n", "2")
        self.assertEqual((rc, out), (1, b""))
        self.assertIn(b"/proc/self/mem", err)
        self.assertIn(b"nput/output error", err)


if __name__ == "__main__":
    main()
