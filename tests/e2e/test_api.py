"""The API of `qiusuo serve` on the default model, with Python's own library: what an answer, a stream, an
echo and a form promise, on a real model.

Called as: python3 test_api.py PROGRAM MAKE_TINY_MODEL DEFAULT_MODEL
"""
import base64
import json
import math
import struct
import unittest

from test_serve import Server, events, together

POEM = [{"role": "user", "content": "写一首五绝，题为《春雨》"}]


def chat(s, status=200, **fields):
    return s.json("/v1/chat/completions", {"messages": POEM, "max_tokens": 40, **fields}, status)


def stream(s, path, body):
    code, _, got = s.ask(path, body)
    assert code == 200, got
    assert got.endswith(b"data: [DONE]\n\n"), got[-200:]
    return events(got)


class Api(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.s = Server()
        cls.model = cls.s.json("/v1/models")["data"][0]["id"]

    @classmethod
    def tearDownClass(cls):
        cls.s.stop()

    def test_streams_say_what_answers_say(self):
        whole = chat(self.s, seed=5)["choices"][0]["message"]["content"]
        parts = stream(self.s, "/v1/chat/completions",
                       {"messages": POEM, "max_tokens": 40, "seed": 5, "stream": True})
        self.assertEqual("".join(p["choices"][0]["delta"].get("content", "") for p in parts), whole)
        self.assertEqual(chat(self.s, seed=5)["choices"][0]["message"]["content"], whole)

    def test_log_probabilities_join_to_the_text(self):
        c = chat(self.s, seed=6, logprobs=True, top_logprobs=3)["choices"][0]
        tokens = c["logprobs"]["content"]
        self.assertEqual(b"".join(bytes(t["bytes"]) for t in tokens).decode(), c["message"]["content"])
        for t in tokens:
            self.assertLessEqual(t["logprob"], 0)
            best = [x["logprob"] for x in t["top_logprobs"]]
            self.assertEqual(best, sorted(best, reverse=True))
            self.assertLessEqual(t["logprob"], best[0])

    def test_echo_scores_a_prompt(self):
        ids = self.s.json("/tokenize", {"content": "春眠不觉晓"})["tokens"]
        whole = self.s.json("/v1/completions", {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 2})
        c = whole["choices"][0]
        self.assertEqual(c["text"], "春眠不觉晓")
        lp = c["logprobs"]
        self.assertEqual(len(lp["tokens"]), len(ids))
        self.assertIsNone(lp["token_logprobs"][0])
        self.assertTrue(all(x < 0 for x in lp["token_logprobs"][1:]))
        # one id more, generated greedily, is the likeliest
        more = self.s.json("/v1/completions", {"prompt": ids, "max_tokens": 1, "echo": True, "logprobs": 2,
                                               "temperature": 0})["choices"][0]["logprobs"]
        self.assertEqual(more["token_logprobs"][1:len(ids)], lp["token_logprobs"][1:])
        self.assertEqual(max(more["top_logprobs"][-1].values()), more["token_logprobs"][-1])

    def test_several_prompts_and_answers(self):
        r = self.s.json("/v1/completions", {"prompt": ["春", [300, 301]], "n": 2, "max_tokens": 4,
                                            "seed": 3})
        self.assertEqual([c["index"] for c in r["choices"]], [0, 1, 2, 3])
        self.assertGreater(r["usage"]["completion_tokens"], 4)

    def test_forms(self):
        schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99},
                                                   "b": {"enum": ["春", "秋"]}},
                  "required": ["a", "b"], "additionalProperties": False}
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        for seed in range(3):
            r = chat(self.s, seed=seed, max_tokens=100, response_format=form)["choices"][0]
            got = json.loads(r["message"]["content"])
            self.assertEqual(set(got), {"a", "b"})
            self.assertTrue(0 <= got["a"] <= 99 and got["b"] in "春秋")
            r = chat(self.s, seed=seed, guided_choice=["是", "否"])["choices"][0]
            self.assertIn(r["message"]["content"], ["是", "否"])
            r = chat(self.s, seed=seed, guided_regex="[0-9]{3}-[a-f]+z")["choices"][0]
            self.assertRegex(r["message"]["content"], "^[0-9]{3}-[a-f]")
        bad = {"type": "json_schema", "json_schema": {"name": "n", "schema": {
            "type": "array", "uniqueItems": True}}}
        e = chat(self.s, 400, response_format=bad)["error"]
        self.assertIn("uniqueItems", e["message"])

    def test_forced_calls(self):
        tool = {"type": "function", "function": {"name": "weather", "parameters": {
            "type": "object", "properties": {"city": {"enum": ["北京", "上海"]}}, "required": ["city"],
            "additionalProperties": False}}}
        for choice in ["required", {"type": "function", "function": {"name": "weather"}}]:
            c = chat(self.s, tools=[tool], tool_choice=choice, max_tokens=100)["choices"][0]
            self.assertEqual(c["finish_reason"], "tool_calls")
            call = c["message"]["tool_calls"][0]["function"]
            self.assertEqual(call["name"], "weather")
            self.assertIn(json.loads(call["arguments"])["city"], ["北京", "上海"])

    def test_embeddings(self):
        r = self.s.json("/v1/embeddings", {"input": ["春雨", "秋月"]})
        for d in r["data"]:
            self.assertAlmostEqual(math.fsum(x * x for x in d["embedding"]), 1, places=5)
        b = self.s.json("/v1/embeddings", {"input": "春雨", "encoding_format": "base64"})
        raw = base64.b64decode(b["data"][0]["embedding"])
        got = struct.unpack(f"<{len(raw) // 4}f", raw)
        for x, y in zip(got, r["data"][0]["embedding"]):
            self.assertAlmostEqual(x, y, places=5)

    def test_other_apis(self):
        m = self.s.json("/v1/messages", {"max_tokens": 8, "messages": POEM})
        self.assertEqual(m["type"], "message")
        self.assertIn(m["stop_reason"], ["end_turn", "max_tokens"])
        o = self.s.json("/api/chat", {"model": self.model, "messages": POEM, "stream": False,
                                      "options": {"num_predict": 8}})
        self.assertTrue(o["done"] and o["message"]["content"])
        r = self.s.json("/v1/responses", {"input": POEM, "max_output_tokens": 8})
        self.assertIn(r["status"], ["completed", "incomplete"])

    def test_refused(self):
        for fields, status in [({"temperature": -1}, 400), ({"messages": []}, 400), ({"n": 0}, 400),
                               ({"model": "no-such"}, 404), ({"stop": ""}, 400), ({"seed": "x"}, 400)]:
            self.assertIn("error", chat(self.s, status, **fields))
        long = [{"role": "user", "content": "春" * 2000}]
        e = chat(self.s, 400, messages=long)["error"]
        self.assertEqual(e["code"], "context_length_exceeded")
        cut = self.s.json("/v1/completions", {"prompt": "春" * 2000, "max_tokens": 4, "truncation": "auto"})
        self.assertGreater(cut["truncation"]["dropped_tokens"], 0)

    def test_many_at_once(self):
        alone = chat(self.s, seed=11)["choices"][0]["message"]["content"]
        all_ = together(12, lambda i: chat(self.s, seed=11)["choices"][0]["message"]["content"])
        self.assertEqual(set(all_), {alone})


if __name__ == "__main__":
    unittest.main(argv=["test_api"], verbosity=1)
