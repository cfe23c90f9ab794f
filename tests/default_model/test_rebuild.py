"""rebuild_sources.py on a small made-up checkout and export; build_data.py reads what it writes."""
import contextlib
import gzip
import io
import json
import os
import struct
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools", "default_model"))

import corpus           # noqa: E402
import rebuild_sources  # noqa: E402
import set_number       # noqa: E402

TREE = {
    "全唐诗/poet.tang.0.json": [
        {"author": "李白", "title": "静夜思", "paragraphs": ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。"]},
        {"author": "李白", "title": "静夜思", "paragraphs": ["床前明月光，疑是地上霜；举头望明月，低头思故乡。"]},
        {"author": "某", "title": "残", "paragraphs": ["床前□月光，疑是地上霜。"]},
        {"author": "某", "title": "空", "paragraphs": []}],
    "全唐诗/poet.tang.1000.json": [{"author": "王之涣", "title": "登鹳雀楼", "paragraphs": ["白日依山尽，黄河入海流。", "欲穷千里目，更上一层楼。"]}],
    "全唐诗/poet.song.0.json": [{"author": "王安石", "title": "梅花", "paragraphs": ["墙角数枝梅，凌寒独自开。", "遥知不是雪，为有暗香来。"]}],
    "全唐诗/error/poet.song.0.json": [{"author": "x", "title": "错", "paragraphs": ["错误的诗歌。"]}],
    "宋词/ci.song.0.json": [{"author": "李清照", "rhythmic": "如梦令", "paragraphs": ["常记溪亭日暮。", "沉醉不知归路。"]}],
    "诗经/shijing.json": [{"title": "关雎", "chapter": "国风", "section": "周南", "content": ["关关雎鸠，在河之洲。"]}],
    "纳兰性德/纳兰性德诗集.json": [{"title": "木兰花令·拟古决绝词", "author": "纳兰性德", "para": ["人生若只如初见，何事秋风悲画扇"]}],
    "曹操诗集/caocao.json": [{"title": "龟虽寿", "paragraphs": ["神龟虽寿，犹有竟时。"]}],
}


class Rebuild(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def put(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8", newline="\n") as f:
            f.write(text)

    def run_tool(self, *args):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            rebuild_sources.main(list(args) + ["--script", "as-is"])
        return said.getvalue()

    def test_poems(self):
        for name, data in TREE.items():
            self.put("c/" + name, json.dumps(data, ensure_ascii=False))
        said = self.run_tool("poems", "--checkout", self.path("c"), "--out", self.path("p.jsonl.gz"))
        self.assertEqual(said, "7 poems, 3 left out\n")
        rows = list(corpus.read_json_lines(self.path("p.jsonl.gz")))
        self.assertEqual([r["kind"] for r in rows], ["宋诗", "唐诗", "唐诗", "宋词", "汉诗", "清词", "诗经"])
        self.assertEqual(rows[3]["title"], "如梦令")
        self.assertEqual([rows[4]["author"], rows[6]["author"]], ["曹操", "佚名"])
        self.assertEqual(corpus.form_of(rows[1]["kind"], rows[1]["lines"]), "五绝")
        first = open_bytes(self.path("p.jsonl.gz"))
        self.run_tool("poems", "--checkout", self.path("c"), "--out", self.path("p.jsonl.gz"))
        self.assertEqual(first, open_bytes(self.path("p.jsonl.gz")))

    def test_not_a_checkout(self):
        self.put("c/readme", "x")
        with self.assertRaises(SystemExit) as e:
            self.run_tool("poems", "--checkout", self.path("c"), "--out", self.path("p.jsonl.gz"))
        self.assertIn("chinese-poetry", str(e.exception))

    def test_pairs(self):
        self.put("x/e.tsv", "1\teng\tI see you.\tCK\t\\N\t\\N\n2\teng\tHi.\tCM\t\\N\t\\N\n9\tfra\tSalut.\tz\t\\N\t\\N\n")
        self.put("x/c.tsv", "3\tcmn\t我看见你。\tw\t\\N\t\\N\n4\tcmn\t你好。\t\\N\t\\N\t\\N\n")
        self.put("x/l.tsv", "1\t3\n2\t4\n4\t2\n1\t99\n9\t4\n")
        said = self.run_tool("pairs", "--english", self.path("x/e.tsv"), "--chinese", self.path("x/c.tsv"),
                             "--links", self.path("x/l.tsv"), "--out", self.path("s.tsv.gz"))
        self.assertEqual(said, "2 pairs\n")
        with gzip.open(self.path("s.tsv.gz"), "rt", encoding="utf-8") as f:
            self.assertEqual(f.read(), "Hi.\t你好。\tCC-BY 2.0 (France) Attribution: tatoeba.org #2 (CM) & #4 (unknown)\n"
                             "I see you.\t我看见你。\tCC-BY 2.0 (France) Attribution: tatoeba.org #1 (CK) & #3 (w)\n")
        self.assertEqual([p[:2] for p in corpus.read_pairs(self.path("s.tsv.gz"))], [("Hi.", "你好。"), ("I see you.", "我看见你。")])


class SetNumber(unittest.TestCase):
    def test_one_float(self):
        key = lambda name, kind, value: struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value
        head = b"GGUF" + bytes(20)
        data = head + key(b"a.temp", 6, struct.pack("<f", 0.5)) + key(b"a.top_k", 4, struct.pack("<I", 3))
        with tempfile.NamedTemporaryFile() as f:
            f.write(data)
            f.flush()
            set_number.main([f.name, "a.temp=0.25"])
            after = open_bytes(f.name)
            self.assertEqual(after, head + key(b"a.temp", 6, struct.pack("<f", 0.25)) + data[-23:])
            for word in ("a.top_k=1", "b=1"):
                with self.assertRaises(SystemExit):
                    set_number.main([f.name, word])
            self.assertEqual(open_bytes(f.name), after)


def open_bytes(path):
    with open(path, "rb") as f:
        return f.read()


if __name__ == "__main__":
    unittest.main()
