"""What HTTP owes an operator: TLS, the access log, clients that leave in great numbers, many connections,
a reload that fails, what the service manager is told.

Called as: python3 test_serve_http.py PROGRAM MAKE_TINY_MODEL DEFAULT_MODEL [unittest arguments]
QIUSUO_ABORTS sets the number of clients that leave (300).
"""
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import unittest

import program

MODEL = os.path.abspath(sys.argv[3])
ABORTS = int(os.environ.get("QIUSUO_ABORTS", "300"))


class Server:
    def __init__(self, *args, model=MODEL, env=None):
        self.log = os.path.join(program.FOLDER, f"access-{random.random()}.log")
        self.p = subprocess.Popen([program.PROGRAM, "serve", model, "--port", "0", "--access-log", self.log, *args],
                                  stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env or program.ENV,
                                  text=True)
        self.said = []
        self.listening = threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        assert self.listening.wait(60), self.said

    def read(self):
        for line in self.p.stderr:
            self.said.append(line)
            m = re.search(r"API: https?://127.0.0.1:(\d+)", line)
            if m:
                self.port = int(m.group(1))
                self.listening.set()

    def wait_for(self, text, seconds=30):
        end = time.time() + seconds
        while not any(text in line for line in self.said):
            assert time.time() < end, (text, self.said)
            time.sleep(0.01)

    def ask(self, method, path, body=None, headers=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request(method, path, None if body is None else json.dumps(body), headers or {})
        r = c.getresponse()
        text = r.read()
        c.close()
        return r.status, text

    def complete(self, n=8, **more):
        return self.ask("POST", "/v1/completions", {"prompt": "春", "max_tokens": n, "temperature": 0, **more})

    def metric(self, name):
        text = self.ask("GET", "/metrics")[1].decode()
        return float(re.search(r"(?m)^%s (\S+)" % name, text).group(1))

    def resident(self):
        with open(f"/proc/{self.p.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self, sig=signal.SIGTERM):
        self.p.send_signal(sig)
        code = self.p.wait(60)
        self.reader.join()
        self.p.stderr.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()
            self.reader.join()
            self.p.stderr.close()


class ServeHttp(unittest.TestCase):
    def test_start_and_stop(self):
        with Server() as s:
            self.assertEqual(s.ask("GET", "/ready")[0], 200)
            status, text = s.complete()
            self.assertEqual(status, 200)
            self.assertEqual(json.loads(text)["usage"]["completion_tokens"], 8)
            self.assertIn(b"<!doctype html>", s.ask("GET", "/")[1])
            self.assertEqual(s.ask("GET", "/nothing")[0], 404)
            slots = json.loads(s.ask("GET", "/slots")[1])
            self.assertEqual(len(slots), 32)
            self.assertEqual(s.metric("qiusuo_generated_tokens_total"), 8)
            self.assertEqual(s.stop(), 0)
            with open(s.log, encoding="utf-8") as f:
                lines = [json.loads(line) for line in f]
            self.assertIn(("/v1/completions", 200, 8), [(x["route"], x["status"], x.get("completion_tokens"))
                                                        for x in lines])
            self.assertNotIn("春", json.dumps(lines, ensure_ascii=False))

    def test_reload_that_fails(self):
        path = os.path.join(program.FOLDER, "reloaded.gguf")
        shutil.copy(MODEL, path)
        with Server(model=path) as s:
            os.rename(path, path + ".away")
            s.p.send_signal(signal.SIGHUP)
            s.wait_for("the old one stays")
            self.assertEqual(s.complete()[0], 200)
            os.rename(path + ".away", path)
            s.p.send_signal(signal.SIGHUP)
            s.wait_for("was opened anew")
            self.assertEqual(s.complete()[0], 200)
            self.assertEqual(s.stop(), 0)

    def test_service_manager(self):
        path = os.path.join(program.FOLDER, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(path)
            told.settimeout(30)
            with Server(env=dict(program.ENV, NOTIFY_SOCKET=path)) as s:
                self.assertEqual(told.recv(200), b"READY=1")
                s.p.send_signal(signal.SIGHUP)
                self.assertEqual(told.recv(200)[:11], b"RELOADING=1")
                self.assertEqual(told.recv(200), b"READY=1")
                self.assertEqual(s.stop(), 0)
                self.assertEqual(told.recv(200), b"STOPPING=1")

    def test_log_is_opened_anew(self):
        with Server() as s:
            s.ask("GET", "/health")
            os.rename(s.log, s.log + ".1")
            s.p.send_signal(signal.SIGHUP)
            s.wait_for("opened anew")
            s.ask("GET", "/ready")
            s.stop()
            with open(s.log, encoding="utf-8") as f:
                self.assertIn("/ready", f.read())

    def test_keys(self):
        keys = os.path.join(program.FOLDER, "keys")
        with open(keys, "w", encoding="ascii") as f:
            f.write("# ours\nopen-sesame\n")
        with Server("--host", "127.0.0.1", "--api-key-file", keys, "--log-prompts") as s:
            self.assertEqual(s.complete()[0], 401)
            status, _ = s.ask("POST", "/v1/completions", {"prompt": "春", "max_tokens": 1},
                              {"Authorization": "Bearer open-sesame"})
            self.assertEqual(status, 200)
            s.stop()
            with open(s.log, encoding="utf-8") as f:
                text = f.read()
            self.assertNotIn("sesame", text + "".join(s.said))
            self.assertIn("prompt", text)

    @unittest.skipIf(shutil.which("openssl") is None, "openssl is not installed")
    def test_tls(self):
        cert, key = (os.path.join(program.FOLDER, n) for n in ("cert.pem", "key.pem"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
                        "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                       check=True, capture_output=True)
        with Server("--tls-cert", cert, "--tls-key", key) as s:
            c = http.client.HTTPSConnection("localhost", s.port, timeout=30,
                                            context=ssl.create_default_context(cafile=cert))
            c.request("POST", "/v1/completions", json.dumps({"prompt": "春", "max_tokens": 20, "stream": True,
                                                             "ignore_eos": True}))
            self.assertTrue(c.getresponse().read().endswith(b"data: [DONE]\n\n"))
            c.close()
            with socket.create_connection(("127.0.0.1", s.port), 10) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertFalse(plain.recv(100).startswith(b"HTTP/1.1 200"))
            self.assertEqual(s.stop(), 0)

    def test_clients_that_leave(self):
        """Random aborts leave nothing behind: no call, no job, no memory; others are served as before."""
        rng = random.Random(7)
        with Server() as s:
            expected = s.complete()[1]
            text = json.dumps({"prompt": "春" * 50, "max_tokens": 400, "ignore_eos": True, "stream": True})
            request = (f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n"
                       + text).encode()
            before = 0
            for i in range(ABORTS):
                if i == ABORTS // 3:
                    before = s.resident()
                c = socket.create_connection(("127.0.0.1", s.port), 10)
                c.sendall(request[:rng.choice((1, 20, 60, len(request) - 1, len(request), len(request)))])
                if rng.random() < 0.5:
                    time.sleep(rng.random() * 0.01)
                if rng.random() < 0.3:
                    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                c.close()
            end = time.time() + 30
            while (s.metric("qiusuo_calls") > 0 or s.metric("qiusuo_running") > 0) and time.time() < end:
                time.sleep(0.05)
            self.assertEqual((s.metric("qiusuo_calls"), s.metric("qiusuo_running"), s.metric("qiusuo_queue")),
                             (0, 0, 0))
            same = (lambda t: json.loads(t)["choices"][0]["text"])
            self.assertEqual(same(s.complete()[1]), same(expected))
            self.assertLess(s.resident() - before, 32 << 20)
            self.assertEqual(s.stop(), 0)

    def test_many_connections(self):
        """1,000 that idle and 200 that stream."""
        with Server("--max-connections", "1300", "--max-queue", "300") as s:
            idle = [socket.create_connection(("127.0.0.1", s.port), 30) for _ in range(1000)]
            text = json.dumps({"prompt": "春", "max_tokens": 30, "ignore_eos": True, "stream": True})
            request = (f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                       f"Content-Length: {len(text)}\r\n\r\n" + text).encode()
            active = [socket.create_connection(("127.0.0.1", s.port), 60) for _ in range(200)]
            for c in active:
                c.sendall(request)
            for c in active:
                got = b""
                while piece := c.recv(65536):
                    got += piece
                c.close()
                self.assertTrue(got.startswith(b"HTTP/1.1 200"), got[:100])
                self.assertIn(b"[DONE]", got)
            for c in idle[::100]:
                c.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertTrue(c.recv(1000).startswith(b"HTTP/1.1 200"))
            for c in idle:
                c.close()
            self.assertEqual(s.stop(), 0)


if __name__ == "__main__":
    del sys.argv[1:4]
    unittest.main(verbosity=2)
