"""Programs held to so many bytes of memory, page cache included, by a control group of their own, where
the system lets one be made (root, cgroup 1 or 2); and the most that a program's own memory has been."""
import os
import subprocess

ROOTS = (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"))


class Group:
    """with Group(limit) as g: g.run([...]). g.path is None where the system has no group to give."""

    def __init__(self, limit):
        self.path = None
        for root, key in ROOTS:
            path = os.path.join(root, f"qiusuo-bench-{os.getpid()}")
            try:
                os.mkdir(path)
            except OSError:
                continue
            try:
                with open(os.path.join(path, key), "w", encoding="ascii") as f:
                    f.write(str(limit))
                self.path = path
                break
            except OSError:
                os.rmdir(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self.path:
            return
        # what a program left running goes on outside
        with open(os.path.join(self.path, "cgroup.procs"), encoding="ascii") as f:
            left = f.read().split()
        for pid in left:
            try:
                with open(os.path.join(os.path.dirname(self.path), "cgroup.procs"), "w",
                          encoding="ascii") as f:
                    f.write(pid)
            except OSError:
                pass  # it has ended
        os.rmdir(self.path)

    def _enter(self):
        with open(os.path.join(self.path, "cgroup.procs"), "w", encoding="ascii") as f:
            f.write(str(os.getpid()))

    def run(self, cmd):
        """Exit code, standard output, standard error, and the peak of resident memory in bytes."""
        with subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True,
                              preexec_fn=self._enter if self.path else None) as p:
            # what these programs write is far smaller than a pipe, so nothing waits for anything
            _, status, usage = os.wait4(p.pid, 0)
            p.returncode = os.waitstatus_to_exitcode(status)
            return p.returncode, p.stdout.read(), p.stderr.read(), usage.ru_maxrss * 1024
