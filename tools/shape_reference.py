#!/usr/bin/env python3
"""Log-probabilities at positions 4095, 4096 and 8191 of the published attention shapes, with rotary
positions as trained and stretched, against float64 NumPy written from the equations. A longer suite: a
few minutes and 3 GB a shape (6 GB with --layers 2); docs/models.md has the figures.

    tools/shape_reference.py build/qiusuo models/default/qiusuo-default.gguf [--presets A,B] [--layers N]
                             [--types F32,F16]

The models are random (`init`, weights of deviation 0.02, N layers of the shape, the small vocabulary of
the file named); the ten likeliest ids of each position are compared, and of 64 more. Two layers of a
model with experts are its dense one and one with experts; where two experts' scores are so close that
rounding decides, the other choice is as right: such places are counted. The equations, beside those of
gen_golden_mla.py: grouped heads rotated as pairs of neighbours, as GGUF files of `llama` and `deepseek`
have them, or as halves (`qwen2`, whose queries, keys and values have biases); positions / s (linear, as
the coder's file declares); Llama 3.1's frequencies, from its rule, not from the file's tensor; YaRN
(arXiv:2309.00071) by context / trained with scores times (1 + 0.1 ln s)^2, or as the file declares it.
How far the reference without scaling is from the one with is said, so that one sees that a difference
would be seen. Of the last layer only the rows compared are computed, of the others all 8192. Exits 1
when a difference is more than is allowed (1e-4 in F32, 3e-3 in F16: each rounding of 2^-11 is some 3e-4
of a product's deviation, through a dozen products of two layers).

Needs numpy and gguf.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from gguf import GGUFReader

N, TRAINED, WHERE = 8192, 4096, (4095, 4096, 8191)
PLACES = (*WHERE, *range(63, N, 128))  # the others are there for what routers choose
NEAR = 1e-4  # two experts' scores this close, as a share, are a tie to a program that computes in F32
ALLOWED = {"F32": 1e-4, "F16": 3e-3}
ROWS = 512  # whose scores are held at a time


class Model:
    def __init__(self, path):
        self.reader = GGUFReader(path)
        self.tensors = {t.name: t for t in self.reader.tensors}
        arch = self.reader.get_field("general.architecture").contents()
        self.key = lambda k, d=None: (f.contents() if (f := self.reader.get_field(f"{arch}.{k}")) else d)
        self.latent = arch == "deepseek2"
        self.halves = arch == "qwen2"

    def __contains__(self, name):
        return name in self.tensors

    def linear(self, x, name):
        """with the bias that qwen2 has"""
        y = x @ self(name + ".weight").T
        return y + self(name + ".bias") if name + ".bias" in self else y

    def __call__(self, name):
        """in float64, rows of inputs last: [out, in]"""
        t = self.tensors[name]
        return np.asarray(t.data, np.float64).reshape([int(n) for n in reversed(t.shape)])

    def expert(self, name, e):
        """one of [expert, out, in]"""
        t = self.tensors[name]
        return np.asarray(t.data.reshape([int(n) for n in reversed(t.shape)])[e], np.float64)


def yarn(f, d, theta, factor, orig):
    pair = [d * np.log(orig / (2 * np.pi * turns)) / (2 * np.log(theta)) for turns in (32, 1)]
    low, high = max(np.floor(pair[0]), 0), min(np.ceil(pair[1]), d - 1)
    ramp = np.clip((np.arange(d // 2) - low) / max(high - low, 1e-3), 0, 1)
    return f * (1 - ramp) + f / factor * ramp


def llama31(f):
    """factor 8, low 1, high 4, 8192 trained positions"""
    turns = 8192 * f / (2 * np.pi)
    smooth = np.clip((turns - 1) / (4 - 1), 0, 1)
    return f * smooth + f / 8 * (1 - smooth)


def rotations(m):
    """(what --rope-scaling is given, None where no run asks for it and it only shows how far another
    rotation is; a name; the frequencies; what scores are multiplied by) of each"""
    d, theta = m.key("rope.dimension_count"), m.key("rope.freq_base")
    f = theta ** (-2.0 * np.arange(d // 2) / d)
    scale = (m.key("attention.key_length_mla") if m.latent else d) ** -0.5
    factor, orig, log_times = N / TRAINED, TRAINED, 0.1
    if "rope_freqs.weight" in m:
        return [(None, "no scaling", f, scale), ("auto", "Llama 3.1's frequencies", llama31(f), scale)]
    plain = ("none", "no scaling", f, scale)
    if m.key("rope.scaling.type") == "linear":
        factor = m.key("rope.scaling.factor")
        return [plain, ("auto", f"linear by {factor:g}", f / factor, scale)]
    if m.latent:
        factor, orig, log_times = (m.key("rope.scaling." + k) for k in
                                   ("factor", "original_context_length", "yarn_log_multiplier"))
    elif m.key("context_length") >= N:
        return [plain]
    return [plain, ("auto", "YaRN", yarn(f, d, theta, factor, orig),
                    scale * (1 + log_times * np.log(factor)) ** 2)]


def rotate(x, pos, freq, halves=False):
    """x [rows, heads, d]; a pair is two neighbours, or one value of each half"""
    re, im = np.split(x, 2, -1) if halves else (x[..., 0::2], x[..., 1::2])
    z = (re + 1j * im) * np.exp(1j * pos[:, None, None] * freq)
    if halves:
        return np.concatenate([z.real, z.imag], -1)
    return np.stack([z.real, z.imag], -1).reshape(x.shape)


def rms(x, w, eps):
    return w * x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def swiglu(x, gate, up, down):
    g = x @ gate.T
    return (g / (1 + np.exp(-g)) * (x @ up.T)) @ down.T


def heads_of(m, b, x, rows, freq):
    """queries of `rows`, keys and values of all positions, [positions, heads, width]"""
    h, pos = m.key("attention.head_count"), np.arange(N)
    if not m.latent:
        kv = m.key("attention.head_count_kv", h)
        q = m.linear(x[rows], b + "attn_q").reshape(len(rows), h, -1)
        k, v = (m.linear(x, b + name).reshape(N, kv, -1) for name in ("attn_k", "attn_v"))
        return rotate(q, rows, freq, m.halves), rotate(k, pos, freq, m.halves), v
    r, dr = m.key("attention.kv_lora_rank"), m.key("rope.dimension_count")
    q = (x[rows] @ m(b + "attn_q.weight").T).reshape(len(rows), h, -1)
    q[..., -dr:] = rotate(q[..., -dr:], rows, freq)
    a = x @ m(b + "attn_kv_a_mqa.weight").T
    c = rms(a[:, :r], m(b + "attn_kv_a_norm.weight"), m.eps)
    kp = rotate(a[:, None, r:], pos, freq)
    k = np.einsum("tr,hrd->thd", c, m(b + "attn_k_b.weight"), optimize=True)
    v = np.einsum("tr,hdr->thd", c, m(b + "attn_v_b.weight"), optimize=True)
    return q, np.concatenate([k, np.repeat(kp, h, 1)], -1), v


def attention(m, b, x, rows, freq, scale):
    q, k, v = heads_of(m, b, x, rows, freq)
    h, group = q.shape[1], q.shape[1] // k.shape[1]
    out = np.empty((len(rows), h, v.shape[2]))
    for i in range(h):
        kt, vi = np.ascontiguousarray(k[:, i // group].T), np.ascontiguousarray(v[:, i // group])
        for at in range(0, len(rows), ROWS):
            some = rows[at:at + ROWS]
            n = some.max() + 1
            s = q[at:at + ROWS, i] @ kt[:, :n] * scale
            s[np.arange(n) > some[:, None]] = -np.inf
            s = np.exp(s - s.max(-1, keepdims=True))
            out[at:at + ROWS, i] = s @ vi[:n] / s.sum(-1, keepdims=True)
    return out.reshape(len(rows), -1) @ m(b + "attn_output.weight").T


def dense_ffn(m, b, x):
    """a few rows at a time: gate and up of all are the widest matrices here"""
    w = [m(b + f"ffn_{p}.weight") for p in ("gate", "up", "down")]
    return np.concatenate([swiglu(x[i:i + ROWS], *w) for i in range(0, len(x), ROWS)])


def expert_ffn(m, b, x, spare):
    """Shared and chosen experts; every expert's weights are held once, for the rows that use it. With
    spare, the first that was not chosen takes the place of the last that was. Also how far apart, as a
    share, the scores of these two are."""
    used = m.key("expert_used_count")
    y = swiglu(x, *(m(b + f"ffn_{p}_shexp.weight") for p in ("gate", "up", "down")))
    z = x @ m(b + "ffn_gate_inp.weight").T
    s = np.exp(z - z.max(-1, keepdims=True))
    s /= s.sum(-1, keepdims=True)
    order = np.argsort(-s, -1, kind="stable")
    last, next_ = (np.take_along_axis(s, order[:, i:i + 1], -1)[:, 0] for i in (used - 1, used))
    chosen = order[:, [*range(used - 1), used if spare else used - 1]]
    for e in range(s.shape[1]):
        rows = np.nonzero((chosen == e).any(-1))[0]
        if len(rows):
            w = (m.expert(b + f"ffn_{p}_exps.weight", e) for p in ("gate", "up", "down"))
            y[rows] += s[rows, e, None] * swiglu(x[rows], *w)
    return y, (last - next_) / last


def logprobs(m, ids, freq, scale):
    """[which choice of experts, place, id], and the margin of the choice at each place or None"""
    m.eps = m.key("attention.layer_norm_rms_epsilon")
    layers = m.key("block_count")
    x = m("token_embd.weight")[ids]
    margin = None
    for i in range(layers):
        b = f"blk.{i}."
        rows = np.array(PLACES) if i == layers - 1 else np.arange(N)
        a = attention(m, b, rms(x, m(b + "attn_norm.weight"), m.eps), rows, freq, scale)
        x = x[rows] + a
        h = rms(x, m(b + "ffn_norm.weight"), m.eps)
        if b + "ffn_gate.weight" in m:
            x = (x + dense_ffn(m, b, h))[None]
        else:
            (y, margin), (other, _) = (expert_ffn(m, b, h, spare) for spare in (False, True))
            x = np.stack([x + y, x + other])
        if i < layers - 1:
            x = x[0]
    z = rms(x, m("output_norm.weight"), m.eps) @ m("output.weight").T
    z -= z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True)), margin


def ours(program, path, ids, scaling):
    p = subprocess.run([program, "score", "-m", path, "--ids", " ".join(map(str, ids)), "--top", "10",
                        "--cache-type", "f32", "-c", str(N), "--rope-scaling", scaling], check=True,
                       stdout=subprocess.PIPE, text=True)
    lines = p.stdout.splitlines()
    return [json.loads(lines[i])["top"] for i in PLACES]


def compare(want, margin, got, allowed):
    """The difference of each place, and at how many another of two equally good experts was chosen."""
    off = [[max(abs(p - w[i][j]) for j, p in top) for i, top in enumerate(got)] for w in want]
    worst, others = list(off[0]), 0
    for i in range(len(worst)):
        if margin is not None and worst[i] > allowed and margin[i] < NEAR:
            worst[i], others = min(off[0][i], off[1][i]), others + 1
    return worst, others


def check(o, preset, kind, path):
    subprocess.run([o.program, "init", "--preset", preset, "--type", kind, "--layers", str(o.layers),
                    "--std", "0.02", "--vocab", o.vocab, "-o", path], check=True)
    m = Model(path)
    size = len(m("token_embd.weight"))
    ids = [(7 + 37 * i + i * i % 11) % size for i in range(N)]
    good, before = True, None
    for scaling, name, freq, scale in rotations(m):
        want, margin = logprobs(m, np.array(ids), freq, scale)
        apart = None if before is None else np.abs(want[0] - before).max(-1)[:len(WHERE)]
        before = want[0]
        if scaling is None:
            continue
        worst, others = compare(want, margin, ours(o.program, path, ids, scaling), ALLOWED[kind])
        fine = max(worst) <= ALLOWED[kind]
        good &= fine
        more = f"; the other {len(PLACES) - len(WHERE)}: {max(worst[len(WHERE):]):.1e}"
        if apart is not None:
            more += f"; without scaling {apart.min():.1e} or more away"
        if margin is not None:
            more += (f"; another choice of experts at {others}, closest two of them {min(margin):.1e} "
                     "apart")
        print(f"{'ok ' if fine else 'BAD'} {preset}, {kind}, {o.layers} layers, {name}: "
              + ", ".join(f"{p}: {w:.1e}" for p, w in zip(WHERE, worst)) + more, flush=True)
    return good


def main():
    a = argparse.ArgumentParser()
    a.add_argument("program")
    a.add_argument("vocab")
    a.add_argument("--presets", default=",".join((
        "deepseek-llm-7b", "deepseek-coder-6.7b", "deepseek-moe-16b", "deepseek-v2-lite",
        "r1-distill-qwen-1.5b", "r1-distill-llama-8b")))
    a.add_argument("--types", default="F32,F16")
    a.add_argument("--layers", type=int, default=1)
    o = a.parse_args()
    good = True
    for preset in o.presets.split(","):
        for kind in o.types.split(","):
            with tempfile.TemporaryDirectory() as folder:
                good &= check(o, preset, kind, os.path.join(folder, "model.gguf"))
    sys.exit(0 if good else 1)


main()
