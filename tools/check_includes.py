#!/usr/bin/env python3
"""Holds the tree to its own law: who may include whom, which library, which call.

usage: check_includes.py [ROOT]    prints each violation, exits 1 when there is one
       check_includes.py --rules   lists what is checked

The rooms and their numbers are those of docs/architecture.md. A file includes its own room and rooms
with a smaller number. Python's standard library only.
"""
import fnmatch
import os
import re
import sys

ROOMS = {
    "base": 0, "sys": 1, "quant": 1, "kern": 2, "fmt": 2, "doc": 2, "comm": 2, "tok": 3, "op": 3,
    "hub": 3, "model": 4, "index": 4, "infer": 5, "train": 5, "files": 5, "assist": 6, "measure": 6,
    "serve": 7, "api": 8,
}
# Edges that the numbers would allow and the design does not.
FORBIDDEN = {("serve", "model"), ("serve", "op"), ("doc", "quant")}

# Third-party headers and who may include them ("apps" is apps/, "tests" is tests/ and fuzz/).
THIRD_PARTY = {
    "regex.h": {"files"},
    "jansson.h": {"fmt", "tok", "train", "files", "measure", "api", "apps", "tests"},
    "xxhash.h": {"base"},
    "histedit.h": {"apps"},
    "sqlite3.h": {"index"},
    "microhttpd.h": {"serve"},
    "mpi.h": {"comm"},
    "curl/curl.h": {"hub"}, "openssl/evp.h": {"hub"},
    "hwloc.h": {"sys"},
    "cblas.h": {"tests"},
    "cmocka.h": {"tests"},
}
C_HEADERS = set("""assert ctype errno fenv float inttypes iso646 limits locale math setjmp signal
stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath time uchar
wchar wctype""".split())
# The operating system is sys' business (and the program's own).
SYSTEM_ROOMS = {"sys", "doc", "hub", "serve", "apps", "tests", "examples"}
# Instruction sets are kern's, detection is sys'.
CPU_HEADERS = {"immintrin.h": {"kern", "tests"}, "arm_neon.h": {"kern", "tests"}, "cpuid.h": {"sys"},
               "sanitizer/asan_interface.h": {"base"}}
OS_MACROS = re.compile(r"^\s*#\s*(?:if|elif|ifdef|ifndef)\b.*"
                       r"\b(__linux__|__linux|linux|_WIN32|_WIN64|__APPLE__|__MACH__|__FreeBSD__|"
                       r"__OpenBSD__|__NetBSD__|__unix__)\b", re.M)

BANNED_EVERYWHERE = {"strcpy", "strcat", "strncpy", "strncat", "sprintf", "vsprintf", "strtok", "atoi",
                     "atol", "atoll", "atof", "alloca", "gets", "tmpnam", "mktemp"}
BANNED_IN_SRC = {"printf", "fprintf", "vprintf", "vfprintf", "puts", "fputs", "putchar", "perror",
                 "exit", "_exit", "abort", "getenv", "setenv", "system", "popen", "malloc", "calloc",
                 "realloc", "free", "strdup", "strndup", "aligned_alloc", "posix_memalign", "rand",
                 "srand", "assert"}
# Each exception with its reason.
ALLOWED_CALLS = {
    ("src/base/mem.c", "posix_memalign"): "the one place that allocates",
    ("src/base/mem.c", "free"): "the one place that frees",
    ("src/base/status.c", "fprintf"): "the default handler of failed checks",
    ("src/base/status.c", "abort"): "the default handler of failed checks",
    ("src/sys/writer.c", "free"): "realpath's result",
    ("src/sys/jail.c", "_exit"): "a child that could not become the program",
}
SAME_NAME = {"status.h"}  # include/qiusuo/status.h and the internal base/status.h

MAX_LINES = 1500
MAX_COLUMNS = 105  # 100 is the rule; a word more does not break the build
GENERATED = re.compile(r"(_tables?|_data|_gen)\.(c|h|inc)$")
# Source files whose test has another name or whose behaviour is tested through others.
TESTED_ELSEWHERE_FILE = "tools/tested_elsewhere.txt"

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.M)
CALL = re.compile(r"(?<![\w.>])([A-Za-z_]\w*)\s*\(")


def strip(text, keep_strings=False):
    """Blanks comments (and literals), keeping line numbers."""
    def blank(m):
        s = m.group(0)
        if keep_strings and s[0] in "\"'":
            return s
        return re.sub(r"[^\n]", " ", s)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text,
                  flags=re.S)


class Tree:
    def __init__(self, root):
        self.root = root
        self.bad = []

    def say(self, path, line, text):
        self.bad.append(f"{path}:{line}: {text}" if line else f"{path}: {text}")

    def files(self, *tops):
        for top in tops:
            for folder, dirs, names in os.walk(os.path.join(self.root, top)):
                dirs[:] = sorted(d for d in dirs if not d.startswith("."))
                for n in sorted(names):
                    if n.endswith((".c", ".h", ".inc")):
                        yield os.path.relpath(os.path.join(folder, n), self.root)

    def read(self, path):
        with open(os.path.join(self.root, path), encoding="utf-8") as f:
            return f.read()

    def exists(self, *parts):
        return os.path.exists(os.path.join(self.root, *parts))

    def built(self, name):
        """A header that the room's meson.build writes."""
        rules = os.path.join("src", os.path.dirname(name), "meson.build")
        return self.exists(rules) and f"output: '{os.path.basename(name)}'" in self.read(rules)

    # -- one file --------------------------------------------------------------------------------

    @staticmethod
    def area(path):
        parts = path.split("/")
        if parts[0] == "src":
            return parts[1]
        return {"apps": "apps", "include": "include", "examples": "examples"}.get(parts[0], "tests")

    def check_include(self, path, line, area, kind, name):
        if kind == "<":
            self.check_system(path, line, area, name)
        elif name.endswith(".c"):
            self.say(path, line, f"includes a .c file: {name}")
        elif area == "tests":
            return
        elif area in ("apps", "examples"):
            own = self.exists(os.path.dirname(path), name)
            if not name.startswith("qiusuo/") and not own:
                self.say(path, line, f"{area} may include the public API only, not {name}")
        elif area == "include":
            if not name.startswith("qiusuo/"):
                self.say(path, line, f"a public header includes {name}")
        else:
            self.check_room(path, line, area, name)

    def check_room(self, path, line, room, name):
        if name == "qiusuo/status.h":
            return
        if name.startswith("qiusuo/"):
            if room != "api":
                self.say(path, line, f"only api implements the public API: {room} includes {name}")
            return
        other = name.split("/")[0]
        if "/" not in name or other not in ROOMS:
            if not self.exists(os.path.dirname(path), name) and not self.exists("src", room, name):
                self.say(path, line, f"write an include as \"room/file.h\": {name}")
            return
        if not self.exists("src", name) and not self.built(name):
            self.say(path, line, f"no such header: {name}")
        if other == room:
            return
        if ROOMS[other] >= ROOMS[room]:
            way = "sideways" if ROOMS[other] == ROOMS[room] else "upwards"
            self.say(path, line, f"{room} ({ROOMS[room]}) includes {way}: {name} ({ROOMS[other]})")
        elif (room, other) in FORBIDDEN:
            self.say(path, line, f"{room} may not see {other}: {name}")

    def check_system(self, path, line, area, name):
        if name in THIRD_PARTY:
            if area not in THIRD_PARTY[name]:
                self.say(path, line, f"<{name}> belongs to {', '.join(sorted(THIRD_PARTY[name]))}")
        elif name in CPU_HEADERS:
            if area not in CPU_HEADERS[name]:
                self.say(path, line, f"<{name}> belongs to {', '.join(sorted(CPU_HEADERS[name]))}")
        elif name.endswith(".h") and name[:-2] in C_HEADERS:
            return
        elif area in SYSTEM_ROOMS:
            return
        else:
            self.say(path, line, f"<{name}> is no C11 header and is not in {area}'s table of libraries")

    def check_text(self, path, area, text):
        lines = text.split("\n")
        if len(lines) > MAX_LINES and not GENERATED.search(path):
            self.say(path, 0, f"{len(lines)} lines; split files past {MAX_LINES}")
        if GENERATED.search(path):
            return
        for i, line in enumerate(lines, 1):
            if len(line) > MAX_COLUMNS:
                self.say(path, i, f"{len(line)} columns, more than {MAX_COLUMNS}")
            if "\t" in line:
                self.say(path, i, "a tab")

    def check_calls(self, path, area, code):
        banned = set(BANNED_EVERYWHERE)
        if path.startswith("src/"):
            banned |= BANNED_IN_SRC
        for m in CALL.finditer(code):
            name = m.group(1)
            if name in banned and (path, name) not in ALLOWED_CALLS:
                self.say(path, code.count("\n", 0, m.start()) + 1, f"banned call: {name}")

    def check_file(self, path):
        text = self.read(path)
        area = self.area(path)
        if path.startswith("src/") and area not in ROOMS:
            self.say(path, 0, f"no room is called {area}")
            return
        includes = strip(text, keep_strings=True)
        for m in INCLUDE.finditer(includes):
            self.check_include(path, includes.count("\n", 0, m.start()) + 1, area, *m.groups())
        code = strip(text)
        if path != "src/base/banned.h":
            self.check_calls(path, area, code)
        if area != "sys" and path.startswith("src/"):
            for m in OS_MACROS.finditer(code):
                self.say(path, code.count("\n", 0, m.start()) + 1, f"#if on {m.group(1)} outside sys")
        self.check_text(path, area, text)

    # -- the tree --------------------------------------------------------------------------------

    def check_names(self):
        seen = {}
        for path in self.files("src", "apps", "include"):
            name = os.path.basename(path)
            if name in seen and name not in SAME_NAME:
                self.say(path, 0, f"file name is taken by {seen[name]}")
            seen.setdefault(name, path)

    def check_tests(self):
        """Every src/<room>/.../x.c has tests/<room>/test_x.c or a line in tested_elsewhere.txt.

        Such a line is "PATTERN: TEST...", where a pattern is a path that may hold * and ?."""
        elsewhere = []
        sources = [p for p in self.files("src") if p.endswith(".c")]
        if self.exists(TESTED_ELSEWHERE_FILE):
            for i, line in enumerate(self.read(TESTED_ELSEWHERE_FILE).splitlines(), 1):
                if not line.strip() or line.startswith("#"):
                    continue
                source, _, tests = line.partition(":")
                elsewhere.append(source.strip())
                for t in tests.split():
                    if not self.exists(t):
                        self.say(TESTED_ELSEWHERE_FILE, i, f"no such file: {t}")
                if not fnmatch.filter(sources, source.strip()):
                    self.say(TESTED_ELSEWHERE_FILE, i, f"no such file: {source.strip()}")
                if not tests.split():
                    self.say(TESTED_ELSEWHERE_FILE, i, "names no test")
        for path in sources:
            if any(fnmatch.fnmatch(path, e) for e in elsewhere):
                continue
            room, name = self.area(path), os.path.basename(path)
            if not self.exists("tests", room, "test_" + name):
                self.say(path, 0, f"has no test: tests/{room}/test_{name}")

    def run(self):
        for path in self.files("src", "apps", "include", "examples", "tests", "fuzz"):
            self.check_file(path)
        self.check_names()
        self.check_tests()
        return self.bad


def main(argv):
    if argv[1:] == ["--rules"]:
        print(__doc__.strip())
        for room, n in sorted(ROOMS.items(), key=lambda r: r[1]):
            print(f"  {n} {room}")
        return 0
    root = argv[1] if len(argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    tree = Tree(root)
    bad = tree.run()
    for line in bad:
        print(line)
    n = sum(1 for _ in tree.files("src", "apps", "include", "examples", "tests", "fuzz"))
    print(f"{n} files, {len(bad)} violations")
    return 1 if bad or n == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
