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

from program import ENV, FOLDER, PROGRAM, TIMEOUT, main, model, run

MB = 1 << 20
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """A hub of one repository, o/n. Faults are taken one at a time from `faults`, for GETs of files."""

    def __init__(self, files, faults=(), token=None, ranges=True, page=1000):
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
        self.base = "http://127.0.0.1:%d" % self.port
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
        path = h.path.split("?")[0]
        if self.token and h.headers.get("Authorization") != "Bearer " + self.token:
            return self.answer(h, 401, b"no")
        if path == "/api/models/o/n/revision/main":
            return self.answer(h, 200, json.dumps({"sha": COMMIT, "private": False}).encode())
        if path == "/api/models/o/n/tree/" + COMMIT:
            at = int(h.path.split("cursor=")[1]) if "cursor=" in h.path else 0
            all_ = self.listing()
            head = {}
            if at + self.page < len(all_):
                head["Link"] = '<%s%s?recursive=true&cursor=%d>; rel="next"' % (self.base, path, at + self.page)
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
