"""pull, list, rm: against a hub on this machine that cuts, stalls, lies and redirects.

Called as: python3 test_hub.py PROGRAM MAKE_TINY_MODEL
"""
import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import unittest
import urllib.parse

from program import ENV, FOLDER, PROGRAM, TIMEOUT, Terminal, main, model, run

MB = 1 << 20
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """A hub of one repository, o/n. Faults are taken one at a time from `faults`, for GETs of files.

    prefix: the path under which it lies. next_base: what stands before the path in a listing's
    link to its next page. raw: bodies to give to "revision" or "tree"; silent: seconds before any
    such answer. A refusal repeats the request's head, as some servers do."""

    def __init__(self, files, faults=(), token=None, ranges=True, page=1000, prefix="", next_base=None,
                 raw=None, silent=0, refusal=401):
        self.prefix, self.next_base, self.raw = prefix, next_base, raw or {}
        self.silent, self.refusal = silent, refusal
        self.files, self.faults, self.token = dict(files), list(faults), token
        self.ranges, self.page, self.seen, self.lock = ranges, page, [], threading.Lock()
        self.sizes, self.digests = {}, {}
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def handle(self):
                try:
                    super().handle()
                except ConnectionResetError:
                    pass

            def do_GET(self):
                try:
                    hub.get(self)
                except (BrokenPipeError, ConnectionResetError):
                    pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.base = "http://127.0.0.1:%d%s" % (self.port, prefix)
        if next_base is None:
            self.next_base = self.base
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, h, code, body, **head):
        h.send_response(code)
        for k, v in head.items():
            h.send_header(k.replace("_", "-"), v)
        h.send_header("Content-Length", str(len(body)))
        h.end_headers()
        h.wfile.write(body)

    def listing(self):
        out = []
        for path, data in sorted(self.files.items()):
            size = self.sizes.get(path, len(data))
            e = {"type": "file", "path": path, "size": size, "oid": git_blob(data)}
            if path.endswith((".gguf", ".safetensors", ".bin")):
                e["oid"] = "f" * 40
                e["lfs"] = {"oid": self.digests.get(path, hashlib.sha256(data).hexdigest()), "size": size}
            out.append(e)
        return out

    def get(self, h):
        with self.lock:
            self.seen.append((h.path, h.headers.get("Authorization"), h.headers.get("Range")))
        path = urllib.parse.unquote(h.path.split("?")[0])
        if not path.startswith(self.prefix + "/"):
            return self.answer(h, 404, b"none")
        path = path[len(self.prefix):]
        if self.token and h.headers.get("Authorization") != "Bearer " + self.token:
            said = str(h.headers)
            return self.answer(h, self.refusal, said.encode(), X_Seen=" ".join(said.split()))
        if path.startswith("/api/") and self.silent:
            time.sleep(self.silent)
        if path.startswith("/api/") and path.split("/")[5] in self.raw:
            return self.answer(h, 200, self.raw[path.split("/")[5]])
        if path == "/api/models/o/n/revision/main":
            return self.answer(h, 200, json.dumps({"sha": COMMIT, "private": False}).encode())
        if path == "/api/models/o/n/tree/" + COMMIT:
            at = int(h.path.split("cursor=")[1]) if "cursor=" in h.path else 0
            all_ = self.listing()
            head = {}
            if at + self.page < len(all_):
                head["Link"] = '<%s%s?recursive=true&cursor=%d>; rel="next"' % (
                    self.next_base, path, at + self.page)
            return self.answer(h, 200, json.dumps(all_[at:at + self.page]).encode(), **head)
        prefix = "/o/n/resolve/%s/" % COMMIT
        name = path[len(prefix):] if path.startswith(prefix) else path[len("/plain/"):]
        if name not in self.files:
            return self.answer(h, 404, b"none")
        self.send_file(h, name)

    def send_file(self, h, name):
        data, at = self.files[name], 0
        with self.lock:
            fault = self.faults.pop(0) if self.faults else None
        if fault and fault[0] == "redirect":
            return self.answer(h, 302, b"", Location=fault[1])
        if fault and fault[0] == "status":
            return self.answer(h, fault[1], b"busy", Retry_After="0")
        rng, end = h.headers.get("Range"), len(data)
        if rng and self.ranges:
            a, b = rng[len("bytes="):].split("-")
            at, end = int(a), min(int(b) + 1, len(data)) if b else len(data)
            if fault and fault[0] == "wrong range":
                at = 0
            h.send_response(206)
            h.send_header("Content-Range", "bytes %d-%d/%d" % (at, end - 1, len(data)))
        else:
            h.send_response(200)
        body = data[at:end]
        if fault and fault[0] == "more":
            body += b"x" * 1000
        h.send_header("ETag", '"%s"' % hashlib.md5(data).hexdigest())
        h.send_header("Content-Length", str(len(body)))
        h.end_headers()
        if fault and fault[0] == "cut":
            h.wfile.write(body[:fault[1]])
            h.wfile.flush()
            h.connection.shutdown(2)
            h.close_connection = True
        elif fault and fault[0] == "stall":
            h.wfile.write(body[:fault[1]])
            h.wfile.flush()
            time.sleep(fault[2])
            h.close_connection = True
        elif fault and fault[0] == "slow":
            for i in range(0, len(body), MB):
                h.wfile.write(body[i:i + MB])
                h.wfile.flush()
                time.sleep(fault[1])
        else:
            h.wfile.write(body)


def noise(n, seed):
    out = hashlib.shake_128(b"%d" % seed).digest(min(n, MB))
    return (out * (n // len(out) + 1))[:n]


class HubTest(unittest.TestCase):
    def setUp(self):
        self.store = os.path.join(FOLDER, "store-" + self.id())
        self.env = dict(ENV, QIUSUO_MODELS=self.store, NO_PROXY="*", no_proxy="*")
        for k in ("HF_TOKEN", "HF_ENDPOINT"):
            self.env.pop(k, None)
        self.hubs = []

    def tearDown(self):
        for h in self.hubs:
            h.close()
        shutil.rmtree(self.store, ignore_errors=True)

    def hub(self, *a, **k):
        h = Hub(*a, **k)
        self.hubs.append(h)
        return h

    def pull(self, hub, what="o/n", *more, env=None):
        rc, out, err = run("pull", what, "--base", hub.base, *more, env=env or self.env)
        return rc, out.decode(), err.decode()

    def start(self, hub, what="o/n", *more, env=None):
        return subprocess.Popen([PROGRAM, "pull", what, "--base", hub.base, *more], env=env or self.env,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait_for(self, true):
        end = time.time() + TIMEOUT
        while not true():
            self.assertLess(time.time(), end)
            time.sleep(0.02)

    def stored(self):
        """Every file under the store, hidden ones too: path from its root to bytes."""
        out = {}
        for folder, _, names in os.walk(self.store):
            for name in names:
                full = os.path.join(folder, name)
                with open(full, "rb") as f:
                    out[os.path.relpath(full, self.store)] = f.read()
        return out

    def path(self, name):
        return os.path.join(self.store, "o", "n", name)

    def same(self, name, data):
        with open(self.path(name), "rb") as f:
            self.assertEqual(f.read(), data)
        self.assertFalse(os.path.exists(self.path(name) + ".part"))
        self.assertFalse(os.path.exists(self.path(name) + ".part.state"))


class Choosing(HubTest):
    FILES = {"m.Q4_K_M.gguf": b"four", "m.Q8_0.gguf": b"eight!", "README.md": b"hello",
             "big-F16-00001-of-00002.gguf": b"first", "big-F16-00002-of-00002.gguf": b"second"}

    def test_by_type_path_and_split(self):
        hub = self.hub(self.FILES, page=2)
        self.assertEqual(self.pull(hub, "o/n:q4_k_m"), (0, self.path("m.Q4_K_M.gguf") + "\n", ""))
        self.same("m.Q4_K_M.gguf", b"four")
        self.assertFalse(os.path.exists(self.path("m.Q8_0.gguf")))
        rc, out, _ = self.pull(hub, "o/n:F16")
        self.assertEqual((rc, out), (0, self.path("big-F16-00001-of-00002.gguf") + "\n"))
        self.same("big-F16-00002-of-00002.gguf", b"second")
        rc, _, err = self.pull(hub, "o/n")
        self.assertEqual(rc, 1)
        self.assertIn("several files fit", err)
        self.assertIn("m.Q8_0.gguf", err)
        rc, _, err = self.pull(hub, "o/n:Q5_K")
        self.assertEqual(rc, 1)
        self.assertIn("no file or type 'Q5_K'", err)

    def test_folder(self):
        files = {"config.json": b"{}", "tokenizer.json": b"{ }", "model.safetensors": b"w" * 100,
                 "pytorch_model.bin": b"old", "README.md": b"x", "onnx/model.safetensors": b"no"}
        rc, out, _ = self.pull(self.hub(files))
        self.assertEqual((rc, out), (0, os.path.join(self.store, "o", "n") + "\n"))
        self.same("model.safetensors", b"w" * 100)
        self.same("tokenizer.json", b"{ }")
        for absent in ("pytorch_model.bin", "README.md", "onnx"):
            self.assertFalse(os.path.exists(self.path(absent)))

    def test_names_cannot_lead_out(self):
        files = {"../../evil.gguf": b"a", ".hidden.gguf": b"b", "/etc/x.gguf": b"c", "a\\b.gguf": b"d",
                 "ok.gguf": b"fine"}
        rc, out, err = self.pull(self.hub(files))
        self.assertEqual((rc, out, err), (0, self.path("ok.gguf") + "\n", ""))
        self.assertFalse(os.path.exists(os.path.join(FOLDER, "evil.gguf")))
        for bad in ("n", "../n", "o/", "/n", "o/n/m", "o/..", "o/n:../x", "o/n:/etc/passwd", "o/n@../x"):
            self.assertEqual(self.pull(self.hubs[0], bad)[0], 1, bad)

    def test_a_pulled_model_runs_by_its_name(self):
        with open(model(), "rb") as f:
            hub = self.hub({"t.gguf": f.read()})
        self.assertEqual(self.pull(hub)[0], 0)
        hub.close()
        self.hubs.remove(hub)
        want = run("score", "-m", model(), "--ids", "1 2 3", env=self.env)
        self.assertEqual(run("score", "-m", "o/n", "--ids", "1 2 3", env=self.env), want)
        self.assertEqual(run("info", "o/n:t.gguf", env=self.env)[0], 0)
        rc, _, err = run("score", "-m", "o/none", "--ids", "1", env=self.env)
        self.assertEqual(rc, 1)
        self.assertIn(b"qiusuo pull o/none", err)


class Faults(HubTest):
    def test_cut_goes_on_at_the_byte(self):
        data = noise(3 * MB + 17, 1)
        hub = self.hub({"m.gguf": data}, [("cut", 1000003), ("cut", 500), ("status", 503)])
        self.assertEqual(self.pull(hub)[0], 0)
        self.same("m.gguf", data)
        ranges = [r for p, _, r in hub.seen if "resolve" in p]
        self.assertEqual(ranges[:3], ["bytes=0-%d" % (len(data) - 1), "bytes=1000003-%d" % (len(data) - 1),
                                      "bytes=1000503-%d" % (len(data) - 1)])

    def test_parallel_segments(self):
        data = noise(70 * MB + 5, 2)
        hub = self.hub({"m.gguf": data}, [("cut", 7 * MB + 1), ("cut", 3)])
        self.assertEqual(self.pull(hub)[0], 0)
        self.same("m.gguf", data)
        self.assertGreater(len({r.split("=")[1].split("-")[1] for p, _, r in hub.seen if "resolve" in p}), 2)

    def test_killed_and_started_again(self):
        data = noise(40 * MB, 3)
        hub = self.hub({"m.gguf": data}, [("slow", 0.1)] * 9)
        p = subprocess.Popen([PROGRAM, "pull", "o/n", "--base", hub.base], env=self.env,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        part = self.path("m.gguf.part")
        end = time.time() + TIMEOUT
        while time.time() < end and not (os.path.exists(part) and os.path.getsize(part) > 5 * MB):
            time.sleep(0.02)
        p.send_signal(signal.SIGKILL)
        p.communicate()
        self.assertFalse(os.path.exists(self.path("m.gguf")))
        hub.faults, hub.seen = [], []
        self.assertEqual(self.pull(hub)[0], 0)
        self.same("m.gguf", data)
        starts = [int(r.split("=")[1].split("-")[0]) for q, _, r in hub.seen if "resolve" in q]
        self.assertGreaterEqual(max(s % (20 * MB) for s in starts), MB)

    def test_ctrl_c(self):
        hub = self.hub({"m.gguf": noise(40 * MB, 4)}, [("slow", 0.2)] * 9)
        p = subprocess.Popen([PROGRAM, "pull", "o/n", "--base", hub.base], env=self.env,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.7)
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(TIMEOUT), 130)
        p.communicate()

    def test_stall(self):
        data = noise(2 * MB, 5)
        hub = self.hub({"m.gguf": data}, [("stall", 1000, 20)])
        t = time.time()
        self.assertEqual(self.pull(hub, "o/n", "--stall", "1")[0], 0)
        self.assertLess(time.time() - t, 15)  # curl's mean over a few seconds must fall to nothing
        self.same("m.gguf", data)

    def test_gives_up_and_keeps_what_came(self):
        data = noise(MB, 6)
        hub = self.hub({"m.gguf": data}, [("cut", 1000)] + [("status", 500)] * 9)
        rc, _, err = self.pull(hub, "o/n", "--tries", "2")
        self.assertEqual(rc, 1)
        self.assertIn("the same command goes on", err)
        hub.faults, hub.seen = [], []
        self.assertEqual(self.pull(hub)[0], 0)
        self.same("m.gguf", data)
        self.assertIn("bytes=1000-", hub.seen[-1][2])

    def test_wrong_digest(self):
        hub = self.hub({"m.gguf": b"not that"})
        hub.digests["m.gguf"] = "0" * 64
        rc, out, err = self.pull(hub)
        self.assertEqual((rc, out), (1, ""))
        self.assertIn("digest", err)
        self.assertFalse(os.path.exists(self.path("m.gguf")))
        self.assertFalse(os.path.exists(self.path("m.gguf.part")))

    def test_wrong_git_blob(self):
        files = {"config.json": b"{}", "model.safetensors": b"w"}
        hub = self.hub(files)
        real = hub.listing
        hub.listing = lambda: [dict(e, oid="1" * 40) if "lfs" not in e else e for e in real()]
        rc, _, err = self.pull(hub)
        self.assertEqual(rc, 1)
        self.assertIn("config.json: what arrived has the digest " + git_blob(b"{}"), err)

    def test_lies_about_sizes(self):
        for size, says in ((7, "another size"), (4000, "another size")):
            hub = self.hub({"m.gguf": b"x" * 1000})
            hub.sizes["m.gguf"] = size
            rc, _, err = self.pull(hub, "o/n", "--tries", "2")
            self.assertEqual(rc, 1)
            self.assertRegex(err, says)
        hub = self.hub({"m.gguf": b"x" * 1000}, [("more",)])
        self.assertEqual(self.pull(hub)[0], 1)
        hub = self.hub({"m.gguf": noise(5000, 7)}, [("cut", 100), ("wrong range",)])
        rc, _, err = self.pull(hub)
        self.assertEqual(rc, 1)
        self.assertIn("not send the part", err)

    def test_room_on_the_disk_comes_first(self):
        hub = self.hub({"m.gguf": b"x"})
        hub.sizes["m.gguf"] = 1 << 50
        rc, _, err = self.pull(hub)
        self.assertEqual(rc, 1)
        self.assertRegex(err, "1[.]1 PB are needed and '.*' has room for [0-9.]+ [kMGT]?B")
        self.assertFalse(any("resolve" in p for p, _, _ in hub.seen))

    def test_redirect_keeps_the_token_home(self):
        data = noise(5000, 8)
        cdn = self.hub({"m.gguf": data})
        hub = self.hub({"m.gguf": data}, token="s3cret")
        other = "http://localhost:%d/o/n/resolve/%s/m.gguf" % (cdn.port, COMMIT)
        hub.faults = [("redirect", other)] * 3
        rc, out, err = self.pull(hub)
        self.assertEqual(rc, 1)
        self.assertIn("HF_TOKEN", err)
        rc, out, err = self.pull(hub, env=dict(self.env, HF_TOKEN="s3cret"))
        self.assertEqual((rc, err), (0, ""))
        self.same("m.gguf", data)
        self.assertTrue(cdn.seen)
        self.assertTrue(all(auth is None for _, auth, _ in cdn.seen))
        hub.faults = [("redirect", "file:///etc/passwd")]
        self.assertEqual(self.pull(hub, "o/n", "--again", env=dict(self.env, HF_TOKEN="s3cret"))[0], 1)

    def test_token_file(self):
        hub = self.hub({"m.gguf": b"x"}, token="s3cret")
        path = os.path.join(FOLDER, "token")
        with open(path, "w") as f:
            f.write("s3cret\n")
        os.chmod(path, 0o644)
        rc, _, err = self.pull(hub, "o/n", "--token-file", path)
        self.assertEqual(rc, 1)
        self.assertIn("chmod 600", err)
        os.chmod(path, 0o600)
        self.assertEqual(self.pull(hub, "o/n", "--token-file", path)[0], 0)
        self.assertNotIn("s3cret", err)

    def test_nothing_there(self):
        hub = self.hub({"m.gguf": b"x"})
        rc, _, err = self.pull(hub, "o/other")
        self.assertEqual(rc, 1)
        self.assertIn("404", err)
        hub.close()
        self.hubs.remove(hub)
        self.assertEqual(self.pull(hub, "o/n", "--tries", "1")[0], 1)

    def test_two_at_once(self):
        hub = self.hub({"m.gguf": noise(30 * MB, 9)}, [("slow", 0.1)] * 9)
        p = subprocess.Popen([PROGRAM, "pull", "o/n", "--base", hub.base], env=self.env,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        end = time.time() + TIMEOUT
        while time.time() < end and not os.path.exists(self.path("m.gguf.part")):
            time.sleep(0.02)
        rc, _, err = self.pull(hub)
        self.assertEqual(rc, 1)
        self.assertIn("another process", err)
        p.communicate()
        self.assertEqual(p.returncode, 0)


class Secrets(HubTest):
    TOKEN = "hf_ThisIsNeverShown0123456789"

    def with_token(self, token=TOKEN):
        return dict(self.env, HF_TOKEN=token)

    def hidden(self, *texts):
        for t in texts:
            self.assertNotIn(self.TOKEN, t if isinstance(t, str) else t.decode("utf-8", "replace"))

    def test_no_trace_of_the_token(self):
        data = noise(3 * MB, 20)
        hub = self.hub({"m.gguf": data}, [("stall", 2 * MB, 30)], token=self.TOKEN)
        p = self.start(hub, env=self.with_token())
        part = self.path("m.gguf.part")
        self.wait_for(lambda: os.path.exists(part) and os.path.getsize(part) == 2 * MB)
        with open("/proc/%d/cmdline" % p.pid, "rb") as f:
            line = f.read()
        self.assertIn(hub.base.encode(), line)
        with open("/proc/%d/task/%d/children" % (p.pid, p.pid), "rb") as f:
            self.assertEqual(f.read(), b"")  # and nobody else's line has it
        self.assertIn("o/n/m.gguf.part.state", self.stored())
        self.hidden(line, *self.stored().values())
        p.send_signal(signal.SIGINT)
        self.hidden(*p.communicate())
        t = Terminal("pull", "o/n", "--base", hub.base, env=self.with_token())
        self.assertEqual(t.close(), 0)
        self.same("m.gguf", data)
        self.hidden(t.raw, *self.stored().values())
        for words in (("list",), ("list", "--json"), ("list", "--verify"), ("info", "o/n")):
            self.hidden(*run(*words, env=self.with_token())[1:])

    def test_a_refused_token_is_not_shown(self):
        for code in (401, 403):
            hub = self.hub({"m.gguf": b"x"}, token="another", refusal=code)
            rc, out, err = self.pull(hub, env=self.with_token())
            self.assertEqual((rc, out), (1, ""))
            self.assertRegex(err, r"\Aqiusuo: .*refuses access \(%d\): the token does not.*\n\Z" % code)
            self.hidden(err)
            hub = self.hub({"m.gguf": b"x"}, [("status", code)], token=self.TOKEN)
            rc, out, err = self.pull(hub, env=self.with_token())
            self.assertEqual((rc, out), (1, ""))
            self.assertRegex(err, r"\Aqiusuo: m.gguf: .*refuses access \(%d\).*\n\Z" % code)
            self.hidden(err, *self.stored().values())

    def test_an_answer_that_repeats_the_token(self):
        cases = [("revision", raw, "not what a hub sends")
                 for raw in ("%s", "[%s]", '{"%s"', '{"sha": [%s]}', '{"error": "%s"}')]
        cases += [("tree", raw, "no JSON") for raw in ("%s", '["%s" x]')]
        for question, raw, says in cases:
            hub = self.hub({}, raw={question: (raw % self.TOKEN).encode()})
            rc, out, err = self.pull(hub, env=self.with_token())
            self.assertEqual((rc, out, err.count("\n")), (1, "", 1))
            self.assertIn(says, err)
            self.hidden(err)

    def test_a_token_that_is_none(self):
        hub = self.hub({"m.gguf": b"x"}, token=self.TOKEN)
        for bad in (self.TOKEN + "\n", self.TOKEN + "\r\nX-More: 1", "a " + self.TOKEN,
                    self.TOKEN + "é"):
            rc, out, err = self.pull(hub, env=self.with_token(bad))
            self.assertEqual((rc, out), (1, ""))
            self.assertIn("no token has", err)
            self.hidden(err)
        self.assertEqual(hub.seen, [])

    def test_token_files_that_others_may_read(self):
        hub = self.hub({"m.gguf": b"x"}, token=self.TOKEN)
        path = os.path.join(FOLDER, "token-modes")
        with open(path, "w") as f:
            f.write(self.TOKEN + "\n")
        for mode in (0o640, 0o604, 0o660, 0o601, 0o620, 0o777):
            os.chmod(path, mode)
            rc, out, err = self.pull(hub, "o/n", "--token-file", path)
            self.assertEqual((rc, out), (1, ""), oct(mode))
            self.assertIn("chmod 600", err)
            self.hidden(err)
        self.assertEqual(hub.seen, [])
        for mode in (0o400, 0o600):
            os.chmod(path, mode)
            self.assertEqual(self.pull(hub, "o/n", "--again", "--token-file", path)[0], 0)
        with open(path, "w") as f:
            f.write(self.TOKEN * 100)
        rc, _, err = self.pull(hub, "o/n", "--token-file", path)
        self.assertEqual(rc, 1)
        self.assertIn("more than a token", err)
        self.hidden(err)

    def test_a_url_gets_the_token_of_its_own_hub_only(self):
        hub, other = self.hub({"m.gguf": b"x"}), self.hub({"x.gguf": b"y"})
        url = other.base + "/plain/x.gguf"
        self.assertEqual(self.pull(hub, url, env=self.with_token())[0], 0)
        self.assertEqual({auth for _, auth, _ in other.seen}, {None})
        other.seen = []
        self.assertEqual(self.pull(other, url, "--again", env=self.with_token())[0], 0)
        self.assertEqual({auth for _, auth, _ in other.seen}, {"Bearer " + self.TOKEN})

    def test_keys_in_urls_are_not_written_down(self):
        hub = self.hub({"x.gguf": b"model"})
        url = hub.base + "/plain/x.gguf?key=" + self.TOKEN
        rc, out, err = self.pull(hub, url)
        self.assertEqual((rc, err), (0, ""))
        self.assertIn("?key=" + self.TOKEN, hub.seen[-1][0])
        rc, listed, _ = run("list", "--json", env=self.env)
        self.assertEqual(json.loads(listed)[0]["source"], hub.base + "/plain/x.gguf")
        self.hidden(out, listed, *self.stored().values())
        for what in (hub.base + "/plain/none.gguf?key=" + self.TOKEN, hub.base + "/?key=" + self.TOKEN,
                     "http://me:%s@127.0.0.1:%d/plain/x.gguf" % (self.TOKEN, hub.port)):
            rc, _, err = self.pull(hub, what)
            self.assertEqual(rc, 1)
            self.hidden(err)
        rc, _, err = run("pull", "o/n", "--base", "http://me:%s@127.0.0.1:%d" % (self.TOKEN, hub.port),
                         env=self.env)
        self.assertEqual(rc, 1)
        self.assertIn(b"--token-file", err)
        self.hidden(err)


class Interrupted(HubTest):
    def test_goes_on_at_the_very_byte(self):
        data, at = noise(3 * MB + 11, 21), 1234567
        hub = self.hub({"m.gguf": data}, [("stall", at, 30)])
        p = self.start(hub)
        part = self.path("m.gguf.part")
        self.wait_for(lambda: os.path.exists(part) and os.path.getsize(part) == at)
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.communicate(timeout=TIMEOUT), (b"", b""))
        self.assertEqual(p.returncode, 130)
        self.assertFalse(os.path.exists(self.path("m.gguf")))
        with open(part, "rb") as f:
            self.assertEqual(f.read(), data[:at])
        self.assertEqual(run("list", env=self.env), (0, b"", b""))
        hub.seen = []
        self.assertEqual(self.pull(hub), (0, self.path("m.gguf") + "\n", ""))
        self.same("m.gguf", data)
        self.assertEqual([r for q, _, r in hub.seen if "resolve" in q],
                         ["bytes=%d-%d" % (at, len(data) - 1)])

    def test_while_the_hub_is_silent(self):
        hub = self.hub({"m.gguf": b"x"}, silent=25)
        p = self.start(hub)
        self.wait_for(lambda: hub.seen)
        time.sleep(0.2)
        t = time.time()
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(TIMEOUT), 130)
        self.assertLess(time.time() - t, 10)
        p.communicate()
        self.assertFalse(os.path.exists(self.store))


class Named(HubTest):
    FILES = {"deep/er/m-Q4_0.gguf": b"deep", "m-Q4_0.gguf": b"flat", "m-Q8_0.gguf": b"eight",
             "诗 词#1?50%.gguf": b"poems", "config.json": b"{}", "README.md": b"r"}

    def test_full_names(self):
        hub = self.hub(self.FILES)
        for name in ("deep/er/m-Q4_0.gguf", "诗 词#1?50%.gguf", "README.md", "m-Q4_0.gguf"):
            before = {k for k in self.stored() if not os.path.basename(k).startswith(".")}
            self.assertEqual(self.pull(hub, "o/n:" + name), (0, self.path(name) + "\n", ""))
            self.same(name, self.FILES[name])
            after = {k for k in self.stored() if not os.path.basename(k).startswith(".")}
            self.assertEqual(after - before, {"o/n/" + name})
        rc, out, _ = run("list", "--verify", env=self.env)
        self.assertEqual(rc, 0)
        self.assertIn("o/n:deep/er/m-Q4_0.gguf  4 bytes\n", out.decode())
        self.assertEqual(run("rm", "o/n:deep/er/m-Q4_0.gguf", env=self.env)[0], 0)
        self.assertFalse(os.path.exists(self.path("deep/er/m-Q4_0.gguf")))
        self.same("m-Q4_0.gguf", b"flat")

    def test_a_name_that_is_not_there(self):
        hub = self.hub(self.FILES)
        for name in ("deep/m-Q4_0.gguf", "er/m-Q4_0.gguf", "Q5_K_M", "诗.gguf"):
            rc, out, err = self.pull(hub, "o/n:" + name)
            self.assertEqual((rc, out), (1, ""))
            self.assertIn("no file or type '%s'" % name, err)
            for there in ("deep/er/m-Q4_0.gguf", "m-Q8_0.gguf", "诗 词#1?50%.gguf"):
                self.assertIn(there, err)
            self.assertNotIn("README.md", err)
        self.assertIn("README.md", self.pull(hub, "o/n:readme.md")[2])
        folder = self.hub({"config.json": b"{}", "model.safetensors": b"w", "sub/x.bin": b"b"})
        for name in ("model.gguf", "Q4_0", "x.bin"):
            err = self.pull(folder, "o/n:" + name)[2]
            for there in ("config.json", "model.safetensors", "sub/x.bin"):
                self.assertIn(there, err)
        self.assertIn("notes.txt", self.pull(self.hub({"notes.txt": b"n"}))[2])
        self.assertFalse(os.path.exists(self.store))


class Mirror(HubTest):
    FILES = {"a.Q4_0.gguf": b"four", "b.Q8_0.gguf": b"eight", "c.F16.gguf": b"sixteen"}

    def test_below_a_path(self):
        for next_base in (None, "https://hub.invalid", ""):
            hub = self.hub(self.FILES, page=1, prefix="/mirrors/hub", next_base=next_base)
            for base in (hub.base, hub.base + "/", hub.base + "//"):
                hub.seen = []
                rc, out, err = run("pull", "o/n:F16", "--again", "--base", base, env=self.env)
                self.assertEqual((rc, err), (0, b""))
                self.same("c.F16.gguf", b"sixteen")
                self.assertEqual(len(hub.seen), 5)  # revision, three pages, file
                for asked, _, _ in hub.seen:
                    self.assertRegex(asked, r"\A/mirrors/hub/(?!.*//)")
            entry, = json.loads(run("list", "--json", env=self.env)[1])
            self.assertEqual(entry["source"], hub.base + "/o/n")

    def test_environment_and_option(self):
        one = self.hub({"m.gguf": b"one"}, prefix="/one")
        two = self.hub({"m.gguf": b"two"}, prefix="/two")
        env = dict(self.env, HF_ENDPOINT=one.base + "/")
        self.assertEqual(run("pull", "o/n", env=env)[0], 0)
        self.same("m.gguf", b"one")
        one.seen = []
        self.assertEqual(self.pull(two, env=env)[0], 0)
        self.same("m.gguf", b"two")
        self.assertEqual(one.seen, [])

    def test_bases_that_are_none(self):
        for bad in ("127.0.0.1:1", "ftp://127.0.0.1/", "file:///etc", "http://127.0.0.1:1/?x=", "/tmp"):
            rc, out, err = run("pull", "o/n", "--tries", "1", "--base", bad, env=self.env)
            self.assertEqual((rc, out), (1, b""))
            self.assertIn(b"base URL", err)


class Offline(HubTest):
    def test_all_but_pull_works(self):
        with open(model(), "rb") as f:
            hub = self.hub({"t.gguf": f.read(), "u.gguf": b"not fetched"})
        self.assertEqual(self.pull(hub, "o/n:t.gguf")[0], 0)
        hub.close()
        self.hubs.remove(hub)
        env = dict(self.env, HF_ENDPOINT=hub.base, http_proxy=hub.base, https_proxy=hub.base,
                   NO_PROXY="", no_proxy="")
        before = self.stored()
        for what in ("o/n:t.gguf", "o/n:u.gguf", "o/other", "o/n", hub.base + "/plain/x.gguf"):
            for e in (env, dict(self.env, HF_ENDPOINT="http://hub.invalid")):
                rc, out, err = run("pull", what, "--tries", "1", env=e)
                self.assertEqual((rc, out), (1, b""))
                self.assertRegex(err, rb"\Aqiusuo: http://[^\n]*; is there a network[^\n]*\n\Z")
        self.assertEqual(self.stored(), before)
        self.assertEqual(os.listdir(os.path.join(self.store, "o")), ["n"])
        for words in (("list",), ("list", "--verify")):
            rc, out, err = run(*words, env=env)
            self.assertEqual((rc, err), (0, b""))
            self.assertRegex(out, rb"\Ao/n:t.gguf  [^\n]*B\n\Z")
        words = ("--raw", "-n", "4", "--seed", "1", "ab")
        want = run("run", model(), *words, env=env)
        self.assertEqual(want[0], 0)
        self.assertEqual(run("run", "o/n", *words, env=env)[:2], want[:2])
        self.assertEqual(run("rm", "o/n", env=env)[0], 0)
        self.assertEqual(self.stored(), {})

    def test_gone_in_the_middle(self):
        data = noise(MB, 22)
        hub = self.hub({"m.gguf": data}, [("cut", 1000)] + [("cut", 0)] * 9)
        rc, out, err = self.pull(hub, "o/n", "--tries", "1")
        self.assertEqual((rc, out, err.count("\n")), (1, "", 1))
        kept = self.stored()
        self.assertEqual(set(kept), {"o/n/.lock", "o/n/m.gguf.part", "o/n/m.gguf.part.state"})
        self.assertEqual(kept["o/n/m.gguf.part"], data[:1000])


class Together(HubTest):
    def test_one_fetches_the_others_say_so(self):
        data = noise(40 * MB, 23)
        hub = self.hub({"m.gguf": data, "x.Q4_0.gguf": b"small"}, [("slow", 0.05)] * 40)
        pulls = [self.start(hub, "o/n:m.gguf") for _ in range(3)] + [self.start(hub, "o/n:Q4_0")]
        fetched = 0
        for p in pulls:
            out, err = p.communicate(timeout=TIMEOUT)
            if p.returncode == 0:
                fetched += 1
                continue
            self.assertEqual((p.returncode, out), (1, b""))
            self.assertIn(b"another process", err)
        self.assertGreaterEqual(fetched, 1)
        for what, name in (("o/n:m.gguf", "m.gguf"), ("o/n:Q4_0", "x.Q4_0.gguf")):
            self.assertEqual(self.pull(hub, what)[0], 0)
            self.same(name, hub.files[name])
        rc, out, _ = run("list", "--verify", env=self.env)
        self.assertEqual((rc, out.count(b"\n")), (0, 2))
        self.assertEqual(set(self.stored()),
                         {"o/n/.lock", "o/n/.qiusuo.json", "o/n/m.gguf", "o/n/x.Q4_0.gguf"})


class Plain(HubTest):
    def test_url_with_and_without_ranges(self):
        data = noise(2 * MB, 10)
        for ranges in (True, False):
            hub = self.hub({"x.gguf": data}, [None, ("cut", 1000)], ranges=ranges)
            rc, out, err = self.pull(hub, hub.base + "/plain/x.gguf?download=1")
            self.assertEqual((rc, err), (0, ""))
            with open(out.strip(), "rb") as f:
                self.assertEqual(f.read(), data)
            shutil.rmtree(self.store)
        self.assertEqual(self.pull(hub, hub.base + "/")[0], 1)


class Store(HubTest):
    def test_again_list_verify_rm(self):
        data = noise(5000, 11)
        hub = self.hub({"a.gguf": data})
        self.assertEqual(self.pull(hub)[0], 0)
        n = sum("resolve" in p for p, _, _ in hub.seen)
        self.assertEqual(self.pull(hub)[0], 0)
        self.assertEqual(sum("resolve" in p for p, _, _ in hub.seen), n)
        rc, out, err = run("list", env=self.env)
        self.assertEqual((rc, err), (0, b""))
        self.assertEqual(out, b"o/n:a.gguf  5.0 kB\n")
        rc, out, _ = run("list", "--verify", "--json", env=self.env)
        self.assertEqual(rc, 0)
        entry, = json.loads(out)
        self.assertEqual((entry["model"], entry["size"], entry["state"], entry["revision"]),
                         ("o/n", 5000, "ok", COMMIT))
        self.assertEqual(entry["sha256"], hashlib.sha256(data).hexdigest())
        with open(self.path("a.gguf"), "r+b") as f:
            f.write(b"?")
        self.assertEqual(run("list", env=self.env)[0], 0)
        rc, out, err = run("list", "--verify", env=self.env)
        self.assertEqual(rc, 1)
        self.assertIn(b"damaged", out)
        os.truncate(self.path("a.gguf"), 10)
        self.assertEqual(run("list", env=self.env)[0], 1)
        self.assertEqual(self.pull(hub)[0], 0)
        self.same("a.gguf", data)
        rc, out, err = run("rm", "o/n:none.gguf", env=self.env)
        self.assertEqual(rc, 1)
        rc, out, err = run("rm", "o/n", env=self.env)
        self.assertEqual((rc, out), (0, b""))
        self.assertFalse(os.path.exists(os.path.join(self.store, "o")))
        self.assertEqual(run("rm", "o/n", env=self.env)[0], 1)
        self.assertEqual(run("list", env=self.env), (0, b"", b""))
        self.assertEqual(run("list", "--json", env=self.env), (0, b"[]\n", b""))

    def test_damaged_manifest(self):
        self.assertEqual(self.pull(self.hub({"a.gguf": b"x"}))[0], 0)
        with open(self.path(".qiusuo.json"), "w") as f:
            f.write('{"files":[{"path":"../../x","size":1}]}')
        rc, _, err = run("list", env=self.env)
        self.assertEqual(rc, 1)
        self.assertIn(b"is damaged", err)


if __name__ == "__main__":
    main()
