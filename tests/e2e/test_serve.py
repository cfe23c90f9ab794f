"""qiusuo serve on the default model: many at once, streams, cancelled requests, caches over turns and
restarts, reloading, stopping, and what makes it refuse to start.

Called as: python3 test_serve.py PROGRAM MAKE_TINY_MODEL DEFAULT_MODEL
"""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

from program import ENV, FOLDER, PROGRAM, run

MODEL = os.path.abspath(sys.argv.pop(3))
WAIT = 60


class Server:
    def __init__(self, *args, model=MODEL, port=0):
        self.p = subprocess.Popen([PROGRAM, "serve", model, "--port", str(port), "--access-log", "off",
                                   *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, env=ENV)
        self.lines = []
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.ready.wait(WAIT)
        m = re.search(r"https?://[^:]+:(\d+)", self.text())
        if not m:
            raise AssertionError("no server: " + self.text())
        self.port = int(m.group(1))

    def read(self):
        for line in self.p.stderr:
            self.lines.append(line)
            if "API:" in line:
                self.ready.set()
        self.ready.set()

    def text(self):
        return "".join(self.lines)

    def wait_for(self, words):
        end = time.monotonic() + WAIT
        while words not in self.text():
            if time.monotonic() > end:
                raise AssertionError(f"'{words}' does not come: {self.text()}")
            time.sleep(0.02)

    def ask(self, path, body=None, headers=None, method=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        data = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
        c.request(method or ("GET" if body is None else "POST"), path, data, headers or {})
        r = c.getresponse()
        got = r.read()
        c.close()
        return r.status, dict(r.getheaders()), got

    def json(self, path, body=None, status=200):
        code, _, got = self.ask(path, body)
        if code != status:
            raise AssertionError(f"{path}: {code} {got[:400]}")
        return json.loads(got)

    def stop(self, sig=signal.SIGTERM):
        self.p.send_signal(sig)
        rc = self.p.wait(WAIT)
        self.p.stdout.close()
        self.reader.join(WAIT)
        self.p.stderr.close()
        return rc


def events(body):
    return [json.loads(x[6:]) for x in body.decode().split("\n\n") if x.startswith("data: {")]


def together(n, f):
    """f(0) ... f(n - 1), each in a thread of its own; what they return."""
    out, wrong = [None] * n, []

    def one(i):
        try:
            out[i] = f(i)
        except Exception as e:  # told by the test's own thread
            wrong.append(e)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if wrong:
        raise wrong[0]
    return out


def ids_of(i, n):
    return [(i * 7919 + k * k * 31 + k) % 4000 + 10 for k in range(n)]


class Serve(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.s = Server()

    @classmethod
    def tearDownClass(cls):
        cls.assertEqual(cls(), cls.s.stop(), 0)

    def idle(self):
        """Until nothing runs or waits."""
        end = time.monotonic() + WAIT
        while any(x["is_processing"] for x in self.s.json("/slots")):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def test_front(self):
        self.assertEqual(self.s.json("/health")["status"], "ok")
        self.assertEqual(self.s.ask("/ready")[0], 200)
        name = self.s.json("/v1/models")["data"][0]["id"]
        self.assertEqual(self.s.json("/v1/models/" + name.replace(" ", "%20"))["id"], name)
        code, headers, page = self.s.ask("/")
        self.assertEqual(code, 200)
        self.assertIn(b"<html", page[:400])
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
        self.assertIn(b"qiusuo", self.s.ask("/metrics")[2])
        self.assertEqual(self.s.ask("/nothing")[0], 404)
        self.assertEqual(self.s.ask("/v1/models", method="DELETE")[0], 405)
        self.assertEqual(self.s.ask("/health", headers={"Host": "evil.example"})[0], 403)

    def test_whole_and_streamed(self):
        for think in (0, 0.8):
            body = {"messages": [{"role": "user", "content": "写一首关于月亮的诗"}], "max_tokens": 40,
                    "temperature": think, "seed": 5}
            whole = self.s.json("/v1/chat/completions", body)
            code, headers, got = self.s.ask("/v1/chat/completions", {**body, "stream": True})
            self.assertEqual((code, headers["Content-Type"].split(";")[0]), (200, "text/event-stream"))
            self.assertTrue(got.endswith(b"data: [DONE]\n\n"))
            text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events(got)
                           if e["choices"])
            self.assertEqual(text, whole["choices"][0]["message"]["content"])
            self.assertGreater(len(text), 4)

    def test_crowd(self):
        """Forty at once, streams among them, have the answers that each has alone."""
        def body(i):
            return {"prompt": ids_of(i % 8, 20 + i * 5), "max_tokens": 24, "seed": i, "ignore_eos": True,
                    "temperature": 0.9 if i % 2 else 0, "logprobs": 2}

        def one(i):
            if i % 3:
                return self.s.json("/v1/completions", body(i))["choices"][0]["text"]
            got = self.s.ask("/v1/completions", {**body(i), "stream": True})[2]
            return "".join(e["choices"][0]["text"] for e in events(got) if e["choices"])
        alone = [self.s.json("/v1/completions", body(i))["choices"][0]["text"] for i in range(40)]
        self.assertEqual(together(40, one), alone)

    def test_second_turn(self):
        prompt = ids_of(77, 300)
        body = {"prompt": prompt, "max_tokens": 20, "temperature": 0, "return_token_ids": True}
        first = self.s.json("/v1/completions", body)
        self.assertEqual(first["usage"]["prompt_tokens"], 300)
        again = self.s.json("/v1/completions", {**body, "prompt": prompt + ids_of(3, 40)})
        self.assertGreaterEqual(again["usage"]["prompt_tokens_details"]["cached_tokens"], 300)
        self.assertEqual(self.s.json("/v1/completions", body)["choices"], first["choices"])

    def test_shared_beginning_at_once(self):
        """A beginning that eight ask for at the same time is computed about once."""
        same = ids_of(500, 384)
        got = together(8, lambda i: self.s.json("/v1/completions", {
            "prompt": same + ids_of(i + 900, 32), "max_tokens": 1}))
        cached = [g["usage"]["prompt_tokens_details"]["cached_tokens"] for g in got]
        self.assertGreaterEqual(sum(c >= 320 for c in cached), 6, cached)

    def test_echo(self):
        ids = ids_of(11, 60)
        lp = self.s.json("/v1/completions", {"prompt": ids, "max_tokens": 0, "echo": True,
                                             "logprobs": 3})["choices"][0]["logprobs"]
        self.assertEqual(len(lp["token_logprobs"]), 60)
        self.assertIsNone(lp["token_logprobs"][0])
        rc, out, _ = run("score", "-m", MODEL, "--ids", " ".join(map(str, ids)))
        self.assertEqual(rc, 0)
        want = [json.loads(x)["logprob"] for x in out.decode().splitlines()]
        for a, b in zip(lp["token_logprobs"][1:], want[1:]):
            self.assertAlmostEqual(a, b, places=4)

    def test_structured(self):
        words = ["red", "绿色", "blue"]
        for i in range(4):
            got = self.s.json("/v1/chat/completions", {
                "messages": [{"role": "user", "content": "a colour"}], "seed": i,
                "structured_outputs": {"choice": words}})["choices"][0]
            self.assertIn(got["message"]["content"], words)
            self.assertEqual(got["finish_reason"], "stop")
        text = self.s.json("/v1/completions", {"prompt": "x", "max_tokens": 64, "seed": 3,
                                               "guided_regex": "[a-f]{4}-[0-9]{2,5}!"})
        self.assertRegex(text["choices"][0]["text"], r"\A[a-f]{4}-[0-9]{2,5}!\Z")

    def test_clients_that_leave(self):
        """In the queue, in the prompt, in the answer: places become free, others are not touched."""
        keep = {"prompt": ids_of(1, 100), "max_tokens": 60, "temperature": 0, "ignore_eos": True}
        want = self.s.json("/v1/completions", keep)["choices"]
        running = threading.Event()
        got = []

        def others():
            while not running.is_set():
                got.append(self.s.json("/v1/completions", keep)["choices"])
        t = threading.Thread(target=others)
        t.start()
        for i in range(60):
            data = json.dumps({"prompt": ids_of(i, 300), "max_tokens": 200, "stream": i % 2 == 0,
                               "ignore_eos": True}).encode()
            head = (f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}"
                    "\r\n\r\n").encode()
            c = socket.create_connection(("127.0.0.1", self.s.port))
            whole = head + data
            c.sendall(whole[:len(whole) * (i % 4 + 1) // 4])
            if i % 4 == 3:
                time.sleep(0.01 * (i % 5))
            c.close()
        running.set()
        t.join()
        for g in got:
            self.assertEqual(g, want)
        self.idle()

    def test_bad_requests(self):
        rows = [("{", 400), ("[]", 400), ({"prompt": "a", "max_tokens": -5}, 400),
                ({"prompt": "a", "temperature": "hot"}, 400), ({"prompt": [1, 2, 99999999]}, 400),
                ({"prompt": "a", "model": "no-such"}, 404), ({"prompt": "a", "n": 1000}, 400),
                ({"prompt": ids_of(1, 2000)}, 400), ({"prompt": "a", "guided_regex": "(?=x)y"}, 400),
                ("{\"prompt\":" + "[" * 5000, 400), ({}, 400)]
        for body, status in rows:
            got = self.s.json("/v1/completions", body, status)
            self.assertIn("message", got["error"], body)
        self.assertEqual(self.s.ask("/v1/completions", b"x" * (9 << 20))[0], 413)
        self.assertEqual(self.s.json("/v1/chat/completions", {"messages": []}, 400)["error"]["param"],
                         "messages")

    def test_many_connections(self):
        idle = [socket.create_connection(("127.0.0.1", self.s.port)) for _ in range(150)]
        got = together(60, lambda i: self.s.json("/v1/completions", {"prompt": ids_of(i, 10),
                                                                     "max_tokens": 4}))
        self.assertEqual(len(got), 60)
        for c in idle:
            c.close()


class Life(unittest.TestCase):
    def test_restart_keeps_prompts(self):
        kept = os.path.join(FOLDER, "prompts.bin")
        body = {"prompt": ids_of(5, 300), "max_tokens": 16, "temperature": 0}
        answers = []
        for i in range(3):
            s = Server("--prompt-cache", kept)
            got = s.json("/v1/completions", body)
            answers.append(got["choices"])
            cached = got["usage"]["prompt_tokens_details"]["cached_tokens"]
            self.assertEqual(cached >= 299, i == 1, (i, cached, s.text()))
            self.assertEqual(s.stop(), 0)
            if i == 1:
                with open(kept, "r+b") as f:
                    f.seek(100)
                    f.write(b"damage")
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0], answers[2])

    def test_reload(self):
        s = Server()
        body = {"prompt": ids_of(5, 50), "max_tokens": 30, "temperature": 0, "ignore_eos": True}
        want = s.json("/v1/completions", body)["choices"]
        stop = threading.Event()
        got = []

        def ask():
            while not stop.is_set():
                got.append(s.json("/v1/completions", body)["choices"])
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for t in threads:
            t.start()
        for _ in range(3):
            before = s.text().count("opened anew")
            s.p.send_signal(signal.SIGHUP)
            end = time.monotonic() + WAIT
            while s.text().count("opened anew") == before:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.02)
        stop.set()
        for t in threads:
            t.join()
        self.assertGreater(len(got), 3)
        for g in got:
            self.assertEqual(g, want)
        self.assertEqual(s.stop(), 0)

    def test_stop_lets_answers_end(self):
        for second in (False, True):
            s = Server()
            body = {"prompt": ids_of(5, 50), "max_tokens": 400, "ignore_eos": True, "stream": True}
            out = []
            def ask(s=s, out=out):
                try:
                    out.append(s.ask("/v1/completions", body)[2])
                except http.client.HTTPException:
                    pass  # cut, as was asked for
            t = threading.Thread(target=ask)
            t.start()
            end = time.monotonic() + WAIT
            while not any(x["is_processing"] for x in s.json("/slots")):
                self.assertLess(time.monotonic(), end)
            s.p.send_signal(signal.SIGTERM)
            if second:
                s.p.send_signal(signal.SIGINT)
            self.assertEqual(s.p.wait(WAIT), 0)
            t.join()
            if not second:
                self.assertTrue(out[0].endswith(b"data: [DONE]\n\n"))
            s.p.stdout.close()
            s.reader.join(WAIT)
            s.p.stderr.close()

    def refused(self, words, *args):
        rc, _, err = run("serve", MODEL, *args)
        self.assertEqual(rc, 1, err)
        self.assertIn(words, err.decode())

    def test_refuses_to_start(self):
        with socket.create_server(("127.0.0.1", 0)) as c:
            self.refused(str(c.getsockname()[1]), "--port", str(c.getsockname()[1]))
        self.refused("--api-key-file", "--host", "0.0.0.0", "--port", "0")
        self.refused("no-such-keys", "--api-key-file", "no-such-keys", "--port", "0")
        self.refused("no-such-cert", "--tls-cert", "no-such-cert", "--tls-key", "k", "--port", "0")
        rc, _, err = run("serve", "no-such-model.gguf", "--port", "0")
        self.assertEqual((rc, b"no-such-model.gguf" in err), (1, True))
        rc, _, err = run("serve", MODEL, "--tls-cert", "c")
        self.assertEqual((rc, b"--tls-key" in err), (2, True))

    def test_keys(self):
        keys = os.path.join(FOLDER, "keys")
        with open(keys, "w", encoding="utf-8") as f:
            f.write("# people\nsecret-one\n\nsecret-two\n")
        s = Server("--api-key-file", keys)
        body = {"prompt": "a", "max_tokens": 1}
        for headers, status in (({}, 401), ({"Authorization": "Bearer wrong"}, 401),
                                ({"Authorization": "Bearer secret-two"}, 200),
                                ({"x-api-key": "secret-one"}, 200)):
            self.assertEqual(s.ask("/v1/completions", body, headers)[0], status, headers)
        self.assertEqual(s.ask("/health")[0], 200)
        self.assertEqual(s.stop(), 0)
        self.assertNotIn("secret", s.text())


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[3:], verbosity=2)
