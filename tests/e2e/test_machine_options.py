"""How the machine is used: threads, level, NUMA, locked memory, and what is refused."""
import ctypes
import os
import resource
import subprocess
import unittest

from program import ENV, PROGRAM, TIMEOUT, main, model, run


CAP_IPC_LOCK = 14


def drop_lock_right():
    """Root may always lock memory: the program is to start without that right."""
    if ctypes.CDLL(None, use_errno=True).prctl(24, CAP_IPC_LOCK, 0, 0, 0) != 0:  # PR_CAPBSET_DROP
        raise OSError(ctypes.get_errno(), "prctl")


def limited(*args, setup):
    p = subprocess.run([PROGRAM, *args], capture_output=True, timeout=TIMEOUT, env=ENV,
                       preexec_fn=setup, check=False)
    return p.returncode, p.stdout, p.stderr


class MachineOptions(unittest.TestCase):
    def score(self, *options, **kw):
        args = ("score", "-m", model("moe", "f32"), "--ids", "1 2 3", "--top", "2", *options)
        return limited(*args, **kw) if kw else run(*args)

    def test_numa_changes_no_result(self):
        _, plain, _ = self.score()
        rc, out, err = self.score("--numa")
        nodes = len([n for n in os.listdir("/sys/devices/system/node")
                     if n.startswith("node")]) if os.path.isdir("/sys/devices/system/node") else 1
        if b"libhwloc-dev" in err:
            self.assertEqual(rc, 1)
            return
        self.assertEqual((rc, out), (0, plain))
        if nodes == 1:
            self.assertIn(b"one NUMA node", err)

    def test_mlock(self):
        _, plain, _ = self.score()

        def refuse():
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
            if os.getuid() == 0:
                drop_lock_right()
        rc, out, err = self.score("--mlock", setup=refuse)
        self.assertEqual((rc, out), (1, b""))
        self.assertIn(b"RLIMIT_MEMLOCK", err)
        self.assertIn(b"ulimit -l", err)
        rc, out, err = self.score("--mlock")  # as this user may, or may not
        self.assertTrue((rc, out) == (0, plain) or b"RLIMIT_MEMLOCK" in err, err)

    def test_level(self):
        rc, ref, _ = self.score("--isa", "ref")
        self.assertEqual(rc, 0)
        self.assertGreater(len(ref), 0)
        rc, out, err = self.score("--isa", "amx9")
        self.assertEqual((rc, out), (1, b""))
        self.assertIn(b"ref", err)  # what there is

    def test_default_threads_are_the_cores_allowed(self):
        cpu = min(os.sched_getaffinity(0))
        rc, out, err = limited("bench", "-m", model("moe", "f32"), "-p", "8", "-n", "2", "--no-train",
                               "-r", "1", "--json", setup=lambda: os.sched_setaffinity(0, {cpu}))
        self.assertEqual(rc, 0, err)
        self.assertIn(b'"threads":1,', out)

    def test_memory_sizes(self):
        rc, _, err = self.score("--memory", "twelve")
        self.assertEqual(rc, 2)
        self.assertIn(b"512M", err)
        rc, _, err = self.score("--memory", "1G", "--mlock")
        self.assertEqual(rc, 1)
        self.assertIn(b"--memory", err)


if __name__ == "__main__":
    main()
