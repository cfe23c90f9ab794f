#!/usr/bin/env python3
"""tools/embed_page.py: the C file holds the page byte for byte, the policy allows what is in it and
nothing else, and a page without libraries is whole too. usage: test_embed.py PAGE.html PAGE_DATA.c"""
import base64
import gzip
import hashlib
import os
import re
import sys
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
WEB = os.path.join(ROOT, "web")
sys.path.insert(0, os.path.join(ROOT, "tools"))
import embed_page  # noqa: E402

PAGE, DATA = sys.argv[1:3]


def constant(source, name):
    """The bytes of a C string."""
    body = re.search(r"%s\[\] =((?:\s*\"(?:[^\"\\]|\\.)*\")+);" % name, source).group(1)
    text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', body))
    return re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m.group(1), 8)]), text.encode())


def addresses(page):
    """What a browser would fetch for this page: values of src, href and url() that are not inside it."""
    found = re.findall(r"(?:\ssrc|\shref)=[\"']([^\"']*)|url\(([^)]*)\)|@import", page)
    return [a or b for a, b in found if not (a or b).startswith(("#", "data:"))]


class Embed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(PAGE, "rb") as f:
            cls.page = f.read()
        with open(DATA, encoding="ascii") as f:
            cls.source = f.read()

    def test_bytes(self):
        self.assertEqual(constant(self.source, "qsi_page"), self.page)
        self.assertEqual(gzip.decompress(constant(self.source, "qsi_page_gzip")), self.page)
        etag = '"' + hashlib.sha256(self.page).hexdigest()[:16] + '"'
        self.assertEqual(constant(self.source, "qsi_page_etag").decode(), etag)

    def test_every_string(self):
        data = bytes(range(256)) + b"??/\\\"123%s"
        self.assertEqual(constant(embed_page.c_bytes("x", data), "x"), data)

    def test_same_twice(self):
        self.assertEqual(embed_page.build(WEB), embed_page.build(WEB))

    def test_policy(self):
        policy = constant(self.source, "qsi_page_policy").decode()
        rules = dict(r.split(" ", 1) for r in policy.split("; "))
        for tag in ("script", "style"):
            texts = re.findall(rf"<{tag}>(.*?)</{tag}>", self.page.decode(), re.S)
            hashes = ["'sha256-" + base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() + "'"
                      for t in texts]
            self.assertEqual(rules[tag + "-src"].split(), hashes)
            self.assertGreaterEqual(len(texts), 1)
        self.assertNotIn("unsafe", policy)
        self.assertNotIn("*", policy)
        for rule in ("default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"):
            self.assertEqual(rules[rule], "'none'")

    def test_no_inline_attributes(self):
        """Handlers and style attributes would need 'unsafe-inline'."""
        with open(os.path.join(WEB, "index.html"), encoding="utf-8") as f:
            html = f.read()
        self.assertFalse(re.findall(r"\s(?:on\w+|style)=", html))
        self.assertFalse(addresses(html))

    def test_fetches_nothing(self):
        page = embed_page.build(WEB, embed_page.LIBRARIES)[0].decode()
        self.assertFalse(addresses(page))
        if embed_page.has("katex"):
            self.assertFalse(re.findall(r"url\((?!data:)", embed_page.katex_css()))

    def test_no_html_from_strings(self):
        """Our own scripts have no way from a string to HTML or to code."""
        for name in os.listdir(WEB):
            if name.endswith(".js"):
                with open(os.path.join(WEB, name), encoding="utf-8") as f:
                    text = f.read()
                for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                             "new Function", "DOMParser", "createContextualFragment", "setHTML", "srcdoc"):
                    self.assertNotIn(word, text, name)

    def test_without_libraries(self):
        page, policy, _ = embed_page.build(WEB, embed_page.LIBRARIES)
        self.assertLess(len(page), 200000)
        self.assertNotIn(b"data-inline=\"k", page.split(b"<style>")[0])
        self.assertEqual(page.count(b"<script>"), 1)
        self.assertEqual(page.count(b"<style>"), 1)
        self.assertIn("script-src 'sha256-", policy)

    def test_strings_in_both_languages(self):
        with open(os.path.join(WEB, "strings.js"), encoding="utf-8") as f:
            text = f.read()
        english, chinese = text.split("    zh: {")
        pairs = r"(\w+): '((?:[^'\\]|\\.)*)'"
        en, zh = dict(re.findall(pairs, english)), dict(re.findall(pairs, chinese))
        self.assertEqual(en.keys(), zh.keys())
        for key, value in en.items():
            self.assertEqual(sorted(re.findall(r"\{\w+\}", value)), sorted(re.findall(r"\{\w+\}", zh[key])), key)

    def test_strings_are_used(self):
        """Every key that the page asks for is there, and no key is left over."""
        used, asked = {"temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "language"}, set()
        for name in os.listdir(WEB):
            with open(os.path.join(WEB, name), encoding="utf-8") as f:
                text = f.read()
            if name == "strings.js":
                keys = set(re.findall(r"(\w+): '", text.split("    zh: {")[0]))
            elif name.endswith((".js", ".html")):
                marked = set(re.findall(r'data-t(?:-label|-hint)?="(\w+)"', text))
                asked |= marked | set(re.findall(r"\bt\('(\w+)'", text))
                used |= marked | set(re.findall(r"'(\w+)'", text))
        self.assertEqual(asked - keys, set())
        self.assertEqual(keys - used, set())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
