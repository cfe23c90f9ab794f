#!/usr/bin/env python3
"""A server that speaks the page's API with written answers, for tests and for trying the page by hand:

    python3 tests/web/mock_server.py [--port 8181]

The first word of the last message chooses the answer (ANSWERS below); other messages come back as they
are. `requests` holds what was asked."""
import argparse
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "tools"))
import embed_page  # noqa: E402

DEMO = r"""## 从 $e^{i\pi}+1=0$ 说起

欧拉公式把指数函数和三角函数联系在一起。当 \(x=\pi\) 时，它给出**最美的等式**：

\[ e^{ix} = \cos x + i\sin x,\qquad \int_{-\infty}^{\infty} e^{-x^2}\,\mathrm{d}x = \sqrt{\pi} \]

It can be checked numerically in a few lines:

```python
import cmath

def euler(x: float) -> complex:
    "e^(ix), and how far it is from cos x + i sin x"
    return cmath.exp(1j * x)  # 复数

print(abs(euler(cmath.pi) + 1) < 1e-15)
```

| 方法 | error | 步数 |
|:-----|------:|:----:|
| Taylor | 1e-6 | 12 |
| 分割 *halving* | 1e-12 | 40 |

1. 先看级数：每一项都*绝对收敛*。
2. 再看极限：
   - 复平面上的旋转
   - `cmath.exp` 的实现
3. More at <https://example.org/euler>.

> 路漫漫其修远兮，吾将上下而求索。
"""

HOSTILE = r"""<script>window.hacked=1</script> <img src=x onerror="window.hacked=2">
<svg onload="window.hacked=3"><a href="javascript:window.hacked=4">x</a></svg>
<iframe srcdoc="<script>parent.hacked=5</script>"></iframe><style>body{display:none}</style>

[a](javascript:window.hacked=6) [b](JaVaScRiPt:window.hacked=7) [c](data:text/html,<script>hacked=8</script>)
[d](java
script:window.hacked=9) [e](vbscript:x) <javascript:window.hacked=10> [f](&#106;avascript:window.hacked=11)
[good](https://example.org/?q="><script>window.hacked=12</script>) [g](//evil.example/x) [h](file:///etc/passwd)
![pic](https://tracker.example/p.png) ![svg](data:image/svg+xml,<svg/onload=alert(1)>) ![y](javascript:alert(1))

$\href{javascript:window.hacked=13}{x}$ $\url{javascript:window.hacked=14}$
$\includegraphics{https://tracker.example/k.png}$ $\htmlData{a=b}{x}$ $\htmlStyle{color:red}{x}$ $\htmlClass{a}{x}$
$\htmlId{ask}{x}$ $$\def\a{\a\a}\a$$ $\edef\b{\b\b}\b$ $\rule{99999em}{99999em}$ $x_{₂}$ $\edef\a{x}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\edef\a{\a\a}\a$ $\color{red;background:url(//evil.example)}x$

```"><script>window.hacked=15</script>
</code></pre><script>window.hacked=16</script>
```

```html
<script>window.hacked=17</script><img src=x onerror="window.hacked=18">&lt;span class="x" onclick="y"&gt;
```

| <img src=x onerror=window.hacked=19> | b |
|---|---|
| <b onmouseover=window.hacked=20>x</b> | [x](javascript:window.hacked=21) |
"""

MATH = r"""Inline \(a^2+b^2\) and $\frac{1}{2}$, prices $5 and $6.

$$\begin{pmatrix} a & b \\ c & d \end{pmatrix} \vec{v} = \overbrace{x+y}^{n} + \boxed{z} + \cancel{q} + \fcolorbox{red}{white}{w}$$

\[
\sum_{i=1}^{n} i = \sqrt[3]{x} \xrightarrow{abc} \widehat{xyz} \mathbb{R} \mathcal{L} \mathfrak{g} \mathscr{S} \mathsf{s} \mathtt{t} \boldsymbol{\alpha}
\]

Wrong: $\frac{1}{$ end.
"""


def words(text, size=3):
    return [text[i:i + size] for i in range(0, len(text), size)]


def long_answer(n):
    """About n tokens of every kind of block, deterministic."""
    out, i = [], 0
    while len(out) < n:
        i += 1
        out += ["## ", f"Part {i}", "\n\n", "Some ", "**bold** ", "text ", "with ", "`code` ", "and ", "中文 ", "$x_%d$" % i, ".\n\n"]
        for k in range(12):
            out += ["- ", f"item {k} ", "of ", "the ", "list", "\n"]
        out += ["\n", "```c\n"]
        for k in range(12):
            out += ["int ", f"x{k} ", "= ", f"{k};", "\n"]
        out += ["```", "\n\n"]
    return out[:n]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def plain(self, status, kind, data, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status, message, **headers):
        body = {"error": {"message": message, "type": "error", "param": None, "code": status}}
        self.plain(status, "application/json", json.dumps(body).encode(), **headers)

    def allowed(self):
        key = self.server.key
        if key and self.headers.get("Authorization") != "Bearer " + key:
            self.error(401, "Wrong or missing API key")
            return False
        return True

    def do_GET(self):
        if self.path == "/":
            self.plain(200, "text/html; charset=utf-8", self.server.page,
                       Content_Security_Policy=self.server.policy)
        elif self.path == "/v1/models":
            if self.allowed():
                data = [{"id": i, "object": "model", "created": 1, "owned_by": "x", "meta": m}
                        for i, m in self.server.models]
                self.plain(200, "application/json", json.dumps({"object": "list", "data": data}).encode())
        else:
            self.error(404, "no such route")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.down:  # as if nobody were there
            self.close_connection = True
            return
        if not self.allowed():
            return
        self.server.requests.append(body)
        said = body["messages"][-1]["content"]
        word = said.split()[0] if said.split() else ""
        try:
            if word.startswith("error"):
                self.error(int(word[5:]), "The queue is full: <b>place 9</b>; try again in 3 s", Retry_After="3")
            else:
                self.begin()
                self.answer(word, said, body)
                self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.server.gone.append(word)
            self.close_connection = True

    # -- streams --

    def begin(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def raw(self, text):
        data = text.encode() if isinstance(text, str) else text
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, delta=None, finish=None, **more):
        chunk = {"id": "x", "object": "chat.completion.chunk", "unknown": [1],
                 "choices": [] if delta is None and finish is None else
                 [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}
        self.raw("data: " + json.dumps(chunk) + "\n\n")

    def text(self, pieces, wait=0.0, field="content"):
        for piece in pieces:
            self.event({field: piece})
            if wait:
                time.sleep(wait)

    def finish(self, n=42, reason="stop", prompt=512):
        self.event({}, reason)
        self.event(usage={"prompt_tokens": prompt, "completion_tokens": n,
                          "prompt_tokens_details": {"cached_tokens": 480}},
                   timings={"prompt_ms": 10.0, "prompt_n": 32, "predicted_ms": n * 22.0, "predicted_n": n,
                            "predicted_per_second": 45.5})
        self.raw("data: [DONE]\n\n")

    def answer(self, word, said, body):
        self.event({"role": "assistant", "content": ""})
        if word == "slow":
            for i in range(400):
                self.text([f"word{i} "], 0.05)
            self.finish()
        elif word == "cut":
            self.text(["Half an ans"])
            time.sleep(0.1)
            self.close_connection = True
            raise BrokenPipeError
        elif word == "end":  # a whole response, but no end of the answer
            self.text(["No end"])
        elif word == "fault":
            self.text(["Begun, "])
            self.event(error={"message": "The model <i>failed</i> at step 7", "type": "server_error", "code": 500})
        elif word == "reason" or (body.get("chat_template_kwargs") or {}).get("thinking"):
            self.text(words("First **think** about it.\n\n- one\n- two\n"), 0.01, "reasoning_content")
            self.text(["The answer", " is 4."])
            self.finish()
        elif word == "tool":
            for part in ({"id": "c1", "function": {"name": "weather", "arguments": ""}},
                         {"function": {"arguments": '{"city": "<b>北京'}}, {"function": {"arguments": '</b>"}'}}):
                self.event({"tool_calls": [{"index": 0, **part}]})
            self.finish(reason="tool_calls")
        elif word == "queue":
            self.raw(": queue 3\n\n")
            self.raw("event: strange\r\nid: 4\r\nretry: 10\r\n\r\n")
            time.sleep(0.5)
            self.raw(": prompt 512/4000\n\n")
            time.sleep(0.5)
            self.text(["Done."])
            self.finish()
        elif word == "split":  # bytes cut inside characters and line ends
            data = "".join("data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": c}}]}, ensure_ascii=False)
                           + "\r\n\r\n" for c in ["春眠", "不觉晓", "😀", "**粗**"]).encode()
            for i in range(0, len(data), 7):
                self.raw(data[i:i + 7])
                time.sleep(0.002)
            self.finish()
        elif word == "long":
            pieces = long_answer(int(said.split()[1]))
            for i in range(0, len(pieces), 20):
                self.text(pieces[i:i + 20])
            self.finish(len(pieces), "length")
        elif word in ANSWERS:
            self.text(words(ANSWERS[word], 5), 0.004 if word == "demo" else 0.0)
            self.finish(386)
        else:
            self.text(words(said, 4))
            self.finish()


ANSWERS = {"demo": DEMO, "欧拉公式": DEMO, "hostile": HOSTILE, "math": MATH}
MODELS = [("qiusuo-moe-16b-Q4_K", {"n_ctx": 4096, "thinking": "choice"}),
          ("plain", {"n_ctx": 2048, "thinking": False}),
          ("<img src=x onerror=window.hacked=30>", {"n_ctx": "x", "thinking": {"a": 1}})]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port=0, without=()):
        super().__init__(("127.0.0.1", port), Handler)
        self.page, self.policy, _ = embed_page.build(os.path.join(ROOT, "web"), without)
        self.key, self.requests, self.gone, self.models = "", [], [], list(MODELS)
        self.down = False

    def handle_error(self, request, client_address):
        pass  # browsers close connections as they like

    def start(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server_address[1]}/"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8181)
    args = parser.parse_args()
    print(f"http://127.0.0.1:{args.port}/", flush=True)
    Server(args.port).serve_forever()
