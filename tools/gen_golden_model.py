#!/usr/bin/env python3
"""Goldens of whole models: weights, a batch, the loss, every gradient, ten AdamW steps, in PyTorch.

usage: gen_golden_model.py OUT_DIR      writes model_dense.gguf, model_moe.gguf, model_moe_norm.gguf

Written from the equations of the papers, in the layout of the original releases: rotation by halves,
projections [out, in]. On the way into the GGUF file the rows of q and k are permuted per head so that
rotating adjacent pairs gives the same scores, as every converter to GGUF does. Gradients are computed
in float64 and stored as float32; the float32 run must agree, else the script fails.

Made with Python 3.11, torch 1.13.1.
"""
import struct
import sys

import torch
import torch.nn.functional as F

BASE = dict(vocab=48, layers=2, d=24, heads=4, kv=2, hd=6, ff=40, eps=1e-6, theta=1e5, factor=4.0,
            experts=0, used=0, shared=0, fe=0, dense=0, norm=False, scale=1.0, alpha=0.0,
            per_seq=False, arch="llama")
MODELS = {
    "model_dense": BASE,
    "model_moe": dict(BASE, kv=4, theta=1e4, factor=1.0, layers=3, dense=1, experts=6, used=2,
                      shared=2, fe=10, alpha=0.05, per_seq=True, arch="deepseek"),
    "model_moe_norm": dict(BASE, kv=4, theta=1e4, factor=1.0, experts=5, used=3, shared=1, fe=12,
                           dense=0, norm=True, scale=1.5, alpha=0.05, arch="deepseek"),
}
DOCS = [70, 5, 21]
LR, STEPS = 3e-3, 10


def init(c, gen):
    """All parameters by GGUF name (without .weight), q and k still in halves."""
    d, hq, hk = c["d"], c["heads"] * c["hd"], c["kv"] * c["hd"]
    p = {}

    def add(name, *shape, norm=False):
        x = torch.randn(*shape, generator=gen, dtype=torch.float32)
        p[name] = 1 + 0.2 * x if norm else 0.15 * x

    add("token_embd", c["vocab"], d)
    for i in range(c["layers"]):
        b = f"blk.{i}."
        add(b + "attn_norm", d, norm=True)
        add(b + "attn_q", hq, d)
        add(b + "attn_k", hk, d)
        add(b + "attn_v", hk, d)
        add(b + "attn_output", d, hq)
        add(b + "ffn_norm", d, norm=True)
        if c["experts"] and i >= c["dense"]:
            e, f, fs = c["experts"], c["fe"], c["fe"] * c["shared"]
            add(b + "ffn_gate_inp", e, d)
            p[b + "ffn_gate_inp"] *= 4
            add(b + "ffn_gate_exps", e, f, d)
            add(b + "ffn_up_exps", e, f, d)
            add(b + "ffn_down_exps", e, d, f)
            add(b + "ffn_gate_shexp", fs, d)
            add(b + "ffn_up_shexp", fs, d)
            add(b + "ffn_down_shexp", d, fs)
        else:
            add(b + "ffn_gate", c["ff"], d)
            add(b + "ffn_up", c["ff"], d)
            add(b + "ffn_down", d, c["ff"])
    add("output_norm", d, norm=True)
    add("output", c["vocab"], d)
    return p


def rms(x, w, eps):
    return w * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def rotate(x, pos, c):
    """x [rows, heads, hd]; pairs (i, i + hd/2)."""
    half = c["hd"] // 2
    freq = torch.tensor(c["theta"], dtype=torch.float64) ** (
        -2 * torch.arange(half, dtype=torch.float64) / c["hd"])
    a = (pos.double()[:, None] / c["factor"] * freq)[:, None, :]
    cos, sin = a.cos().to(x.dtype), a.sin().to(x.dtype)
    x1, x2 = x[..., :half], x[..., half:]
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1)


def attention(x, p, b, pos, mask, c):
    n = x.shape[0]
    q = rotate((x @ p[b + "attn_q"].T).view(n, c["heads"], c["hd"]), pos, c)
    k = rotate((x @ p[b + "attn_k"].T).view(n, c["kv"], c["hd"]), pos, c)
    v = (x @ p[b + "attn_v"].T).view(n, c["kv"], c["hd"])
    group = c["heads"] // c["kv"]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = torch.einsum("ihd,jhd->hij", q, k) / c["hd"] ** 0.5
    s = s.masked_fill(~mask, float("-inf")).softmax(-1)
    return torch.einsum("hij,jhd->ihd", s, v).reshape(n, -1) @ p[b + "attn_output"].T


def swiglu(x, gate, up, down):
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def experts(x, p, b, seq, c):
    """Output and balance loss of a mixture layer."""
    s = (x @ p[b + "ffn_gate_inp"].T).softmax(-1)
    w, idx = s.topk(c["used"], -1)
    if c["norm"]:
        w = w / (w.sum(-1, keepdim=True) + 1e-20)
    chosen = torch.zeros_like(s).scatter(-1, idx, 1.0)
    gates = torch.zeros_like(s).scatter(-1, idx, w * c["scale"])
    y = swiglu(x, p[b + "ffn_gate_shexp"], p[b + "ffn_up_shexp"], p[b + "ffn_down_shexp"])
    for e in range(c["experts"]):
        y = y + gates[:, e:e + 1] * swiglu(x, p[b + "ffn_gate_exps"][e], p[b + "ffn_up_exps"][e],
                                           p[b + "ffn_down_exps"][e])
    rows, bal = x.shape[0], 0.0
    for r in ([seq == g for g in seq.unique()] if c["per_seq"] else [torch.ones_like(seq).bool()]):
        f = chosen[r].mean(0) * c["experts"] / c["used"]
        bal = bal + (f * s[r].mean(0)).sum() * (int(r.sum()) / rows)
    return y, bal


def losses(p, batch, c):
    ids, seq, pos, targets = batch
    mask = (seq[:, None] == seq[None]) & (pos[:, None] >= pos[None])
    x, bal = p["token_embd"][ids], 0.0
    for i in range(c["layers"]):
        b = f"blk.{i}."
        x = x + attention(rms(x, p[b + "attn_norm"], c["eps"]), p, b, pos, mask, c)
        n = rms(x, p[b + "ffn_norm"], c["eps"])
        if c["experts"] and i >= c["dense"]:
            y, l = experts(n, p, b, seq, c)
            x, bal = x + y, bal + l
        else:
            x = x + swiglu(n, p[b + "ffn_gate"], p[b + "ffn_up"], p[b + "ffn_down"])
    z = rms(x, p["output_norm"], c["eps"]) @ p["output"].T
    ce = F.cross_entropy(z, targets.long(), ignore_index=-1)
    return ce, ce + c["alpha"] * bal


def run(p32, batch, c, dtype):
    p = {k: v.to(dtype).clone().requires_grad_() for k, v in p32.items()}
    plain = [v for k, v in p.items() if k.endswith("norm")]
    rest = [v for k, v in p.items() if not k.endswith("norm")]
    opt = torch.optim.AdamW([dict(params=rest, weight_decay=0.1),
                             dict(params=plain, weight_decay=0.0)],
                            lr=LR, betas=(0.9, 0.95), eps=1e-8)
    curve, grads = [], None
    for _ in range(STEPS + 1):
        opt.zero_grad()
        ce, total = losses(p, batch, c)
        total.backward()
        curve.append((ce.item(), total.item()))
        if grads is None:
            grads = {k: v.grad.clone() for k, v in p.items()}
        torch.nn.utils.clip_grad_norm_(p.values(), 1.0)
        opt.step()
    return curve, grads


def pairs(x, heads):
    """Rows of q or k: halves -> adjacent pairs."""
    n, d = x.shape
    return x.view(heads, 2, n // heads // 2, d).transpose(1, 2).reshape(n, d)


def stored(t, c):
    out = {}
    for k, v in t.items():
        if k.endswith("attn_q"):
            v = pairs(v, c["heads"])
        if k.endswith("attn_k"):
            v = pairs(v, c["kv"])
        out[k] = v
    return out


class Gguf:
    """Just enough of a GGUF 3 writer."""

    def __init__(self):
        self.kv, self.tensors = [], []

    @staticmethod
    def s(x):
        x = x.encode()
        return struct.pack("<Q", len(x)) + x

    def put(self, key, v):
        if isinstance(v, bool):
            b = struct.pack("<IB", 7, v)
        elif isinstance(v, int):
            b = struct.pack("<II", 4, v)
        elif isinstance(v, float):
            b = struct.pack("<If", 6, v)
        else:
            b = struct.pack("<I", 8) + self.s(v)
        self.kv.append(self.s(key) + b)

    def tensor(self, name, t):
        kinds = {torch.float32: 0, torch.int32: 26, torch.float64: 28}
        self.tensors.append((name, list(t.shape), kinds[t.dtype], t.contiguous().numpy().tobytes()))

    def write(self, path):
        head = struct.pack("<4sIQQ", b"GGUF", 3, len(self.tensors), len(self.kv)) + b"".join(self.kv)
        off, body = 0, b""
        for name, shape, kind, data in self.tensors:
            head += self.s(name) + struct.pack("<I", len(shape))
            head += b"".join(struct.pack("<Q", n) for n in reversed(shape))
            head += struct.pack("<IQ", kind, off)
            body += data + b"\0" * (-len(data) % 32)
            off = len(body)
        with open(path, "wb") as f:
            f.write(head + b"\0" * (-len(head) % 32) + body)


def write(path, c, p, batch, r32, r64):
    g, a = Gguf(), c["arch"] + "."
    g.put("general.architecture", c["arch"])
    for key, name in [("block_count", "layers"), ("embedding_length", "d"),
                      ("attention.head_count", "heads"), ("attention.head_count_kv", "kv"),
                      ("attention.key_length", "hd"), ("attention.value_length", "hd"),
                      ("rope.dimension_count", "hd"), ("feed_forward_length", "ff"),
                      ("vocab_size", "vocab"), ("rope.freq_base", "theta"),
                      ("attention.layer_norm_rms_epsilon", "eps")]:
        g.put(a + key, c[name])
    g.put(a + "context_length", 128)
    if c["factor"] != 1.0:
        g.put(a + "rope.scaling.type", "linear")
        g.put(a + "rope.scaling.factor", c["factor"])
    if c["experts"]:
        for key, name in [("expert_count", "experts"), ("expert_used_count", "used"),
                          ("expert_shared_count", "shared"), ("expert_feed_forward_length", "fe"),
                          ("leading_dense_block_count", "dense"), ("expert_weights_norm", "norm"),
                          ("expert_weights_scale", "scale")]:
            g.put(a + key, c[name])
    g.put("golden.alpha", c["alpha"])
    g.put("golden.per_seq", c["per_seq"])
    g.put("golden.lr", LR)
    for k, v in stored(p, c).items():
        g.tensor(k + ".weight", v.float())
    for k, v in stored(r64[1], c).items():
        g.tensor("grad." + k + ".weight", v.float())
    for name, t in zip(("ids", "seq", "pos", "targets"), batch):
        g.tensor("batch." + name, t.to(torch.int32))
    g.tensor("losses.f32", torch.tensor(r32[0], dtype=torch.float64))
    g.tensor("losses.f64", torch.tensor(r64[0], dtype=torch.float64))
    g.write(path)


def main():
    torch.set_num_threads(1)
    for i, (name, c) in enumerate(MODELS.items()):
        gen = torch.Generator().manual_seed(20 + i)
        p = init(c, gen)
        n = sum(DOCS)
        ids = torch.randint(0, c["vocab"], (n,), generator=gen)
        targets = torch.randint(0, c["vocab"], (n,), generator=gen)
        targets[torch.rand(n, generator=gen) < 0.2] = -1
        seq = torch.cat([torch.full((k,), j) for j, k in enumerate(DOCS)])
        pos = torch.cat([torch.arange(k) for k in DOCS])
        batch = (ids, seq, pos, targets)
        r32, r64 = run(p, batch, c, torch.float32), run(p, batch, c, torch.float64)
        worst = max(((r32[1][k].double() - v).norm() / v.norm()).item() for k, v in r64[1].items())
        curve = max(abs(a[0] - b[0]) for a, b in zip(r32[0], r64[0]))
        assert worst < 1e-5 and curve < 1e-5, (worst, curve)
        write(f"{sys.argv[1]}/{name}.gguf", c, p, batch, r32, r64)
        print(f"{name}: loss {r64[0][0][0]:.6f} -> {r64[0][-1][0]:.6f}, float32 differs from "
              f"float64 by {worst:.1e} in gradients, {curve:.1e} in losses")


if __name__ == "__main__":
    main()
