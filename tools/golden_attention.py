#!/usr/bin/env python3
"""Writes tests/golden/self_attention.json: what examples/self_attention.c must print, by PyTorch.

The textbook module is written here with torch's own layers; the standard one is torch's
MultiheadAttention. Inputs and weights come from xoshiro256++ as include/qiusuo/tensor.h documents it,
computed with Python's integers.

usage: golden_attention.py [OUT]"""
import json
import math
import os
import sys

import numpy as np
import torch
from torch import nn

M = (1 << 64) - 1


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    return z ^ (z >> 31)


def splitmix(x, n):
    return [mix((x + (i + 1) * 0x9E3779B97F4A7C15) & M) for i in range(n)]


def rotl(x, k):
    return ((x << k) | (x >> (64 - k))) & M


def uniform(seed, stream, shape, lo, hi):
    s = splitmix(mix(splitmix(seed, 1)[0] ^ splitmix((stream + 0x9E3779B97F4A7C15) & M, 1)[0]), 4)
    out = np.empty(math.prod(shape), np.float32)
    lo, hi = np.float32(lo), np.float32(hi)
    for i in range(out.size):
        x = (rotl((s[0] + s[3]) & M, 23) + s[0]) & M
        t = (s[1] << 17) & M
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotl(s[3], 45)
        out[i] = np.float32(x >> 40) * np.float32(2.0 ** -24)
    return torch.from_numpy((lo + (hi - lo) * out).reshape(shape))


class SelfAttention(nn.Module):
    """The textbook module: one projection each for V, K, Q, shared by the heads."""

    def __init__(self, embed, heads):
        super().__init__()
        self.embed, self.heads, self.head_dim = embed, heads, embed // heads
        self.values = nn.Linear(self.head_dim, self.head_dim, bias=False)
        self.keys = nn.Linear(self.head_dim, self.head_dim, bias=False)
        self.queries = nn.Linear(self.head_dim, self.head_dim, bias=False)
        self.fc_out = nn.Linear(embed, embed)

    def forward(self, values, keys, query, mask):
        n = query.shape[0]
        split = lambda x: x.reshape(n, x.shape[1], self.heads, self.head_dim)
        v, k, q = (self.values(split(values)), self.keys(split(keys)), self.queries(split(query)))
        energy = torch.einsum("nqhd,nkhd->nhqk", q, k)
        if mask is not None:
            energy = energy.masked_fill(mask == 0, -1e20)
        attention = torch.softmax(energy / self.embed ** 0.5, dim=3)
        out = torch.einsum("nhqk,nkhd->nqhd", attention, v)
        return self.fc_out(out.reshape(n, query.shape[1], self.embed))


def make_mask(kind, n, n_query, n_key):
    if kind == "none":
        return None
    if kind == "causal":
        return torch.tril(torch.ones(n_query, n_key)).reshape(1, 1, n_query, n_key)
    lengths = torch.tensor([n_key - i % 3 for i in range(n)])
    return (torch.arange(n_key)[None, :] < lengths[:, None]).float().reshape(n, 1, 1, n_key)


def reference(n, n_query, n_key, embed, heads, seed, kind, module):
    def matrix(rows, columns, stream):
        bound = np.float32(1 / math.sqrt(columns))
        return uniform(seed, stream, (rows, columns), -bound, bound)

    values = uniform(seed, 0, (n, n_key, embed), -1, 1)
    keys = uniform(seed, 1, (n, n_key, embed), -1, 1)
    queries = uniform(seed, 2, (n, n_query, embed), -1, 1)
    mask = make_mask(kind, n, n_query, n_key)
    d = embed if module == "standard" else embed // heads
    w_v, w_k, w_q, w_o = (matrix(r, r, s) for r, s in ((d, 3), (d, 4), (d, 5), (embed, 6)))
    with torch.no_grad():
        if module == "standard":
            m = nn.MultiheadAttention(embed, heads, bias=False, batch_first=True)
            m.in_proj_weight.copy_(torch.cat([w_q, w_k, w_v]))
            m.out_proj.weight.copy_(w_o)
            full = None
            if mask is not None:
                full = (mask == 0).expand(n, heads, n_query, n_key).reshape(-1, n_query, n_key)
            return m.eval()(queries, keys, values, attn_mask=full)[0]
        m = SelfAttention(embed, heads)
        m.values.weight.copy_(w_v)
        m.keys.weight.copy_(w_k)
        m.queries.weight.copy_(w_q)
        m.fc_out.weight.copy_(w_o)
        bound = np.float32(1 / math.sqrt(embed))
        m.fc_out.bias.copy_(uniform(seed, 7, (embed,), -bound, bound))
        return m(values, keys, queries, mask)


# N, queries, keys, embed, heads, seed, mask, kind, step
CASES = [
    (64, 10, 10, 256, 8, 1, "none", "shared", 997),
    (64, 10, 10, 256, 8, 1, "causal", "shared", 997),
    (64, 10, 10, 256, 8, 1, "none", "standard", 997),
    (3, 5, 7, 24, 4, 2, "none", "shared", 1),
    (3, 5, 7, 24, 4, 2, "padding", "shared", 1),
    (3, 6, 6, 24, 4, 3, "causal", "shared", 1),
    (3, 5, 7, 24, 4, 4, "none", "standard", 1),
    (3, 5, 7, 24, 4, 4, "padding", "standard", 1),
    (2, 6, 6, 40, 5, 5, "causal", "standard", 1),
    (1, 1, 1, 8, 1, 6, "none", "shared", 1),
]

torch.manual_seed(0)
torch.set_num_threads(1)
cases = []
for case in CASES:
    out = reference(*case[:8])
    flat = out.reshape(-1)
    cases.append({"args": [str(x) for x in case], "shape": str(tuple(out.shape)),
                  "sum": float(flat.double().sum()),
                  "values": [float("%.9g" % x) for x in flat[::case[8]].tolist()]})
path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden", "self_attention.json")
with open(path, "w") as f:
    f.write(json.dumps({"torch": torch.__version__, "cases": cases}).replace("}, {", "},\n{") + "\n")
