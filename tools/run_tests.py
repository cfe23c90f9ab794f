#!/usr/bin/env python3
"""Builds and runs every test and counts them: what `make test` calls.

Three builds: the release build (all suites), AddressSanitizer + UndefinedBehaviorSanitizer with
QS_DEBUG (unit tests, fuzz corpora), ThreadSanitizer (unit tests). A cmocka program counts each of its
cases, a Python program each of its cases, anything else counts as one. A program that dies counts as
one failure beside what it reported. The last line is "N passed, N failed".
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
SANITIZED = ["-Doptimization=1", "-Ddebug=true", "-Db_lundef=false"]
BUILDS = [
    # name, folder, meson options, suites (None: all)
    ("release", "build", [], None),
    ("ASan+UBSan", "build-asan",
     SANITIZED + ["-Db_sanitize=address,undefined", "-Dqs_debug=true"], ["unit", "fuzz"]),
    ("TSan", "build-tsan", SANITIZED + ["-Db_sanitize=thread"], ["unit"]),
]
ENV = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:allocator_may_return_null=1",
}


def run(cmd, **kw):
    return subprocess.run(cmd, cwd=ROOT, stdin=subprocess.DEVNULL, **kw)


def must(cmd):
    p = run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if p.returncode != 0:
        print(p.stdout)
        print(f"failed: {' '.join(cmd)}")
        finish(0, 1)


def finish(passed, failed):
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


def launcher(folder, flags):
    """How sanitized programs start here: (wrapper command, environment), or None when they cannot.

    Sanitizers need a memory layout that newer kernels randomise away (`setarch -R` undoes that), and
    the leak check needs ptrace, which some containers forbid."""
    source, program = os.path.join(folder, "probe.c"), os.path.join(folder, "probe")
    with open(os.path.join(ROOT, source), "w", encoding="ascii") as f:
        f.write("int main(void) { return 0; }\n")
    must(["cc", *flags, "-o", program, source])
    no_leaks = {"ASAN_OPTIONS": ENV["ASAN_OPTIONS"].replace("detect_leaks=1", "detect_leaks=0")}
    for extra in ({}, no_leaks):
        for wrapper in ([], ["setarch", "-R"]):
            env = {**os.environ, **ENV, **extra}
            try:
                ok = all(run([*wrapper, program], capture_output=True, env=env).returncode == 0
                         for _ in range(8))
            except OSError:
                ok = False
            if ok:
                if extra:
                    print("  the leak check cannot run on this machine; everything else does")
                return wrapper, env
    return None


def count(test):
    """(passed, failed) of one meson test from its output."""
    out = test.get("stdout", "") + "\n" + test.get("stderr", "")
    passed = sum(int(n) for n in re.findall(r"^\[  PASSED  \] (\d+) test", out, re.M))
    failed = sum(int(n) for n in re.findall(r"^\[  FAILED  \] (\d+) test", out, re.M))
    ran = re.findall(r"^Ran (\d+) tests? in ", out, re.M)
    if ran:
        bad = sum(int(n) for n in re.findall(r"(?:failures|errors|unexpected successes)=(\d+)", out))
        skipped = sum(int(n) for n in re.findall(r"skipped=(\d+)", out))
        passed += int(ran[-1]) - bad - skipped
        failed += bad
    good = test["result"] in ("OK", "EXPECTEDFAIL")
    if good and passed + failed == 0:
        passed = 1
    if not good and failed == 0:
        failed = 1
    if good and failed:  # says OK but reported failures: believe the report
        print(f"  {test['name']}: exit code and report disagree")
    return passed, failed


def run_build(name, folder, options, suites, ninja):
    start = time.time()
    if not os.path.exists(os.path.join(ROOT, folder, "build.ninja")):
        must(["meson", "setup", folder, *options])
    wrapper, env = [], dict(os.environ)
    if options:
        sanitize = next(o.split("=", 1)[1] for o in options if o.startswith("-Db_sanitize"))
        start_as = launcher(folder, [f"-fsanitize={sanitize}"])
        if start_as is None:
            print(f"{name}: sanitized programs do not start on this machine")
            return 0, 1
        wrapper, env = start_as
    else:
        must([ninja, "-C", folder])
    log = os.path.join(ROOT, folder, "meson-logs", "testlog.json")
    if os.path.exists(log):
        os.remove(log)
    cmd = ["meson", "test", "-C", folder, "--print-errorlogs", "--timeout-multiplier",
           "10" if options else "4"]
    for s in suites or []:
        cmd += ["--suite", s]
    if wrapper:
        cmd += ["--wrapper", " ".join(wrapper)]
    p = run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env=env)
    tests = []
    if os.path.exists(log):
        with open(log, encoding="utf-8", errors="replace") as f:
            tests = [json.loads(line) for line in f if line.strip()]
    passed = failed = 0
    for t in tests:
        if t["result"] == "SKIP":
            print(f"  {name}: {t['name']} is skipped: {t.get('stdout', '').strip()[-200:]}")
            continue
        a, b = count(t)
        passed, failed = passed + a, failed + b
    if p.returncode != 0:
        print(p.stdout[-20000:])
        failed = max(failed, 1)
    if not tests:
        print(f"{name}: no tests ran")
        failed = max(failed, 1)
    print(f"{name}: {passed} passed, {failed} failed in {len(tests)} programs, "
          f"{time.time() - start:.0f} s", flush=True)
    return passed, failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ninja", default="ninja")
    parser.add_argument("--only", choices=[b[1] for b in BUILDS], help="one build alone")
    args = parser.parse_args()
    passed = failed = 0
    for name, folder, options, suites in BUILDS:
        if args.only in (None, folder):
            a, b = run_build(name, folder, options, suites, args.ninja)
            passed, failed = passed + a, failed + b
    finish(passed, failed)


if __name__ == "__main__":
    main()
