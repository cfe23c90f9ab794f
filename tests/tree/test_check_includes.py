"""The tree checker itself: a clean small tree passes, each planted violation is found."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import check_includes  # noqa: E402

CLEAN = {
    "include/qiusuo/status.h": "#include <stdint.h>\n",
    "include/qiusuo/qiusuo.h": '#include "qiusuo/status.h"\n',
    "src/base/status.h": '#include "qiusuo/status.h"\n',
    "src/base/mem.c": '#include <stdlib.h>\n#include "base/status.h"\nvoid f(void *p) { free(p); }\n',
    "src/sys/file.h": "#include <stddef.h>\n",
    "src/sys/file.c": '#include <unistd.h>\n#include "sys/file.h"\n#include "base/status.h"\n'
                      '#include "sys/levels.h"\n',
    "src/sys/meson.build": "configure_file(output: 'levels.h', configuration: c)\n",
    "src/quant/quant.h": '#include "base/status.h"\n',
    "src/fmt/gguf.h": '#include "sys/file.h"\n',
    "src/fmt/gguf.c": '#include <jansson.h>\n#include "fmt/gguf.h"\n#include "quant/quant.h"\n',
    "src/model/model.h": '#include "fmt/gguf.h"\n',
    "src/api/model_api.c": '#include "qiusuo/qiusuo.h"\n#include "model/model.h"\n',
    "apps/qiusuo/args.h": "\n",
    "apps/qiusuo/main.c": '#include <stdlib.h>\n#include "args.h"\n#include "qiusuo/qiusuo.h"\n'
                          'int main(void) { return getenv("HOME") != NULL; }\n',
    "examples/hello.c": '#include "qiusuo/qiusuo.h"\n',
    "tests/base/test_mem.c": '#include <cmocka.h>\n#include "base/status.h"\n',
    "tests/sys/test_file.c": "\n",
    "tests/fmt/test_gguf.c": "\n",
    "tests/api/test_model_api.c": "\n",
    "fuzz/fuzz_gguf.c": '#include "fmt/gguf.h"\n',
}

# name: (files to add or replace, part of the message)
PLANTED = {
    "upwards": ({"src/fmt/x.h": '#include "model/model.h"\n'}, "fmt (2) includes upwards"),
    "sideways": ({"src/quant/x.h": '#include "sys/file.h"\n'}, "quant (1) includes sideways"),
    "upwards with spaces": ({"src/fmt/x.h": '  #  include "model/model.h"\n'}, "includes upwards"),
    "after a comment": ({"src/fmt/x.h": '/* " */\n#include "model/model.h"\n'}, "x.h:2:"),
    "forbidden pair": ({"src/serve/x.h": '#include "model/model.h"\n'}, "serve may not see model"),
    "room unknown": ({"src/lobby/x.h": "\n"}, "no room is called lobby"),
    "public API inside": ({"src/fmt/x.h": '#include "qiusuo/qiusuo.h"\n'}, "only api implements"),
    "app sees a room": ({"apps/qiusuo/x.h": '#include "base/status.h"\n'}, "public API only"),
    "example sees a room": ({"examples/x.c": '#include "base/status.h"\n'}, "public API only"),
    "public header sees a room": ({"include/qiusuo/x.h": '#include "base/status.h"\n'},
                                  "a public header includes"),
    "no room prefix": ({"src/fmt/x.h": '#include "file.h"\n'}, "write an include as"),
    "missing header": ({"src/fmt/x.h": '#include "base/nothing.h"\n'}, "no such header"),
    "library in the wrong room": ({"src/quant/x.h": "#include <jansson.h>\n"}, "<jansson.h> belongs"),
    "unknown library": ({"src/fmt/x.h": "#include <zlib.h>\n"}, "<zlib.h> is no C11 header"),
    "system outside sys": ({"src/fmt/x.h": "#include <unistd.h>\n"}, "<unistd.h> is no C11 header"),
    "intrinsics outside kern": ({"src/fmt/x.h": "#include <immintrin.h>\n"}, "<immintrin.h> belongs"),
    "a .c file included": ({"src/fmt/x.h": '#include "fmt/gguf.c"\n'}, "includes a .c file"),
    "same file name": ({"src/model/file.h": "\n"}, "file name is taken"),
    "banned call": ({"src/fmt/x.h": "int f(const char *s) { return atoi (s); }\n"}, "banned call: atoi"),
    "banned call in an app": ({"apps/qiusuo/x.h": "void f(char *s) { strcpy(s, s); }\n"},
                              "banned call: strcpy"),
    "printf in src": ({"src/fmt/x.h": 'void f(void) { printf("x"); }\n'}, "banned call: printf"),
    "malloc in src": ({"src/fmt/x.h": "void *f(void) { return malloc(1); }\n"}, "banned call: malloc"),
    "exit in src": ({"src/fmt/x.h": "void f(void) { exit(1); }\n"}, "banned call: exit"),
    "getenv in src": ({"src/fmt/x.h": "char *f(void) { return getenv(0); }\n"}, "banned call: getenv"),
    "system macro": ({"src/fmt/x.h": "#if defined(__linux__)\n#endif\n"}, "#if on __linux__"),
    "too long": ({"src/fmt/x.h": "\n" * 1600}, "split files past"),
    "too wide": ({"src/fmt/x.h": "/* " + "x" * 120 + " */\n"}, "columns, more than"),
    "tab": ({"src/fmt/x.h": "\tint x;\n"}, "a tab"),
    "no test": ({"src/fmt/x.c": "\n"}, "has no test: tests/fmt/test_x.c"),
    "stale exception": ({"tools/tested_elsewhere.txt": "src/fmt/y.c: tests/fmt/test_gguf.c\n"},
                        "no such file: src/fmt/y.c"),
    "empty exception": ({"tools/tested_elsewhere.txt": "src/fmt/gguf.c:\n"}, "names no test"),
}

# Things that look like violations and are none.
HARMLESS = {
    "call in a comment": {"src/fmt/x.h": "/* never strcpy(a, b) */\n"},
    "call in a string": {"src/fmt/x.h": 'static const char *const s = "printf(1)";\n'},
    "include in a comment": {"src/fmt/x.h": '/*\n#include "model/model.h"\n*/\n'},
    "member of that name": {"src/fmt/x.h": "void f(struct s *p) { p->free(p); }\n"},
    "longer name": {"src/fmt/x.h": "void f(void) { qsi_free(0); snprintf(0, 0, 0); }\n"},
    "generated table": {"src/fmt/big_tables.h": "\n" * 1600},
    "tested elsewhere by pattern": {
        "src/fmt/x1.c": "\n", "src/fmt/x2.c": "\n",
        "tools/tested_elsewhere.txt": "src/fmt/x?.c: tests/fmt/test_gguf.c\n"},
    "tested elsewhere": {"src/fmt/x.c": "\n",
                         "tools/tested_elsewhere.txt": "# why\nsrc/fmt/x.c: tests/fmt/test_gguf.c\n"},
}


def check(extra):
    with tempfile.TemporaryDirectory() as root:
        for path, text in {**CLEAN, **extra}.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as f:
                f.write(text)
        return check_includes.Tree(root).run()


class CheckIncludes(unittest.TestCase):
    def test_clean_tree(self):
        self.assertEqual(check({}), [])

    def test_empty_tree_is_an_error(self):
        with tempfile.TemporaryDirectory() as root:
            self.assertEqual(check_includes.main(["check", root]), 1)


def planted(files, message):
    def test(self):
        found = check(files)
        self.assertTrue(any(message in line for line in found), found)
        self.assertEqual(len(found), 1, found)
    return test


def harmless(files):
    def test(self):
        self.assertEqual(check(files), [])
    return test


for name, (files, message) in PLANTED.items():
    setattr(CheckIncludes, "test_finds_" + name.replace(" ", "_"), planted(files, message))
for name, files in HARMLESS.items():
    setattr(CheckIncludes, "test_allows_" + name.replace(" ", "_"), harmless(files))

if __name__ == "__main__":
    unittest.main()
