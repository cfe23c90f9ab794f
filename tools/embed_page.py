#!/usr/bin/env python3
"""Makes the chat page of web/ one file, and that file C source.

The page's styles and scripts, KaTeX with its fonts and the common languages of highlight.js (the two
where Debian's packages are installed) are written into index.html where data-inline names them. The
Content-Security-Policy allows exactly these styles and scripts, by their hashes.

usage: embed_page.py WEB-FOLDER PAGE.html PAGE_DATA.c [--without LIBRARY]...
"""
import argparse
import base64
import gzip
import hashlib
import os
import re

SHARE = "/usr/share/javascript"
KATEX, FONTS = SHARE + "/katex", "/usr/share/fonts/truetype/katex"
HIGHLIGHT = SHARE + "/highlight.js/highlight.min.js"
# Fonts of commands that answers hardly ever use; KaTeX then takes the browser's.
RARE_FONTS = {"Caligraphic-Bold", "Fraktur-Bold", "SansSerif-Bold", "SansSerif-Italic"}
LANGUAGES = ["xml", "css", "javascript", "typescript", "json", "yaml", "ini", "bash", "shell", "python",
             "cpp", "cs", "java", "kotlin", "scala", "swift", "objectivec", "go", "rust", "ruby", "php",
             "perl", "lua", "r", "julia", "matlab", "fortran", "haskell", "ocaml", "lisp", "scheme",
             "erlang", "elixir", "clojure", "sql", "dockerfile", "makefile", "cmake", "diff", "tex",
             "markdown", "powershell", "nginx", "http", "vim", "x86asm", "armasm", "llvm", "protobuf",
             "verilog", "vhdl", "dart", "groovy", "awk", "plaintext"]
LIBRARIES = ("katex", "highlight")


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def katex_css():
    """KaTeX's style with its fonts inside, each in its smallest form."""
    def face(rule):
        name = re.search(r"KaTeX_([A-Za-z0-9]+-[A-Za-z]+)\.woff2", rule.group(0)).group(1)
        if name in RARE_FONTS:
            return ""
        with open(f"{FONTS}/KaTeX_{name}.woff2", "rb") as f:
            data = base64.b64encode(f.read()).decode()
        return re.sub(r"src:[^;}]*", f"src:url(data:font/woff2;base64,{data}) format('woff2')",
                      rule.group(0), count=1)
    return re.sub(r"@font-face\{[^}]*\}", face, read(KATEX + "/katex.min.css"))


def highlight_js():
    """highlight.js with the languages of LANGUAGES alone: its file is the core, then one statement for
    each language."""
    parts = re.split(r'(?<=;)(?=hljs\.registerLanguage\(")', read(HIGHLIGHT))
    chosen = {re.match(r'hljs\.registerLanguage\("([^"]+)"', p).group(1): p for p in parts[1:]}
    # A language may build on one that was registered before it: the file's own order is kept.
    text = parts[0] + "".join(p for name, p in chosen.items() if name in LANGUAGES)
    # In strings and patterns, where it stands, this means the same; in a page it would end the script.
    return re.sub(r"<(/(?:script|style)|!--)", r"<\\\1", text, flags=re.I)


def has(library, without=()):
    if library in without:
        return False
    if library == "katex":
        return all(os.path.exists(p) for p in (KATEX + "/katex.js", KATEX + "/katex.min.css",
                                               FONTS + "/KaTeX_Main-Regular.woff2"))
    return os.path.exists(HIGHLIGHT)


def source(web, name, without):
    """The text of one file that index.html names; empty for a library that is not there."""
    if name.startswith("katex."):
        if not has("katex", without):
            return ""
        return katex_css() if name == "katex.css" else read(KATEX + "/katex.js")
    if name == "highlight.js":
        return highlight_js() if has("highlight", without) else ""
    return read(os.path.join(web, name))


def digest(text):
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def policy(hashes):
    """The Content-Security-Policy: nothing but what is in the page, and its own server. Trusted types
    without any policy: the browser itself refuses to read a string as HTML."""
    return "; ".join([
        "default-src 'none'", "script-src " + " ".join(hashes["script"]),
        "style-src " + " ".join(hashes["style"]), "img-src data: 'self'", "font-src data:",
        "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        "require-trusted-types-for 'script'", "trusted-types 'none'"])


def build(web, without=()):
    """(page, policy, etag): the page's bytes, its Content-Security-Policy, its entity tag."""
    hashes = {"script": [], "style": []}

    def fill(found):
        tag, names = found.group(1), found.group(2).split()
        text = "\n".join(t for t in (source(web, n, without) for n in names) if t)
        if not text:
            return ""
        if re.search(r"</(?:script|style)|<!--", text, re.I):
            raise SystemExit(f"{names}: holds what would end its element")
        hashes[tag].append(digest(text))
        return f"<{tag}>{text}</{tag}>"

    page = re.sub(r'<(script|style) data-inline="([^"]*)"></\1>', fill, read(web + "/index.html"))
    data = page.encode()
    return data, policy(hashes), '"' + hashlib.sha256(data).hexdigest()[:16] + '"'


ESCAPES = [chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in range(256)]


def c_bytes(name, data):
    lines = ['    "' + "".join(ESCAPES[b] for b in data[i:i + 64]) + '"' for i in range(0, len(data), 64)]
    return (f"const unsigned char {name}[] =\n" + "\n".join(lines) + ";\n"
            f"const size_t {name}_bytes = {len(data)};\n")


def c_string(name, text):
    return f"const char {name}[] = \"" + "".join(ESCAPES[b] for b in text.encode()) + '";\n'


def c_source(page, csp, etag):
    """Strings, for a compiler reads them much faster than lists of numbers."""
    return ("/* Made by tools/embed_page.py. */\n#include \"serve/page.h\"\n\n"
            + c_bytes("qsi_page", page) + c_bytes("qsi_page_gzip", gzip.compress(page, 9, mtime=0))
            + c_string("qsi_page_policy", csp) + c_string("qsi_page_etag", etag))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("web")
    parser.add_argument("page")
    parser.add_argument("data")
    parser.add_argument("--without", action="append", default=[], choices=LIBRARIES)
    args = parser.parse_args()
    page, csp, etag = build(args.web, args.without)
    with open(args.page, "wb") as f:
        f.write(page)
    with open(args.data, "w", encoding="ascii") as f:
        f.write(c_source(page, csp, etag))


if __name__ == "__main__":
    main()
