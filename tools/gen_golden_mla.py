#!/usr/bin/env python3
"""Goldens of latent attention, of the routers of DeepSeek-V2 and V3, of the sparse attention of V3.2,
and of the layer that predicts further (MTP), in NumPy and float64.

usage: gen_golden_mla.py OUT_DIR      writes mla_lite.gguf, mla_lite_old.gguf, mla_v2_old.gguf,
                                      mla_v3.gguf, dsa.gguf, dsa_long.gguf, mtp.gguf

Written from the equations (DeepSeek-V2, arXiv:2405.04434, 2.1 and 2.2; DeepSeek-V3, arXiv:2412.19437,
2.1 and 2.2; YaRN, arXiv:2309.00071; the indexer: deepseek-facts 2.7), in the naive form: keys and values of
every head spelled out; sparse attention is a mask of what the indexer did not choose. The files hold
the weights in either layout of GGUF (attn_kv_b whole, or attn_k_b and attn_v_b), a text of ids and the
log-probabilities of every position (dsa_long: of the last ones; mtp: also those of MTP, which takes
the hidden state after the final norm of each position but the last, and the id after it). A choice of experts, groups or
positions so close that float32 could take another one fails the script.

Made with Python 3.11, numpy 2.4.6, gguf 0.19.0.
"""
import sys

import gguf
import numpy as np

BASE = dict(vocab=48, layers=3, dense=1, d=24, heads=3, dn=6, dr=12, dv=5, r=10, qr=0, ff=40,
            eps=1e-6, theta=1e4, experts=8, used=3, shared=2, fe=10, scale=1.0, norm=False,
            sigmoid=False, groups=1, groups_used=1, yarn=None, split=True, topk=0, jh=0, jd=0, mtp=False)
YARN = dict(factor=8.0, orig=256, fast=4.0, slow=1.0, log_mul=0.0707)
MODELS = {
    "mla_lite": dict(BASE, yarn=YARN),
    "mla_lite_old": dict(BASE, yarn=YARN, split=False),
    "mla_v2_old": dict(BASE, qr=14, groups=4, groups_used=2, scale=16.0, split=False),
    "mla_v3": dict(BASE, qr=14, groups=4, groups_used=2, scale=2.5, norm=True, sigmoid=True,
                   yarn=dict(YARN, factor=40.0, fast=32.0, log_mul=0.1)),
}
MODELS["dsa"] = dict(MODELS["mla_v3"], topk=20, jh=5, jd=18)
# more chosen positions than a span of 256, more pages than two pieces of the indexer's work
MODELS["dsa_long"] = dict(MODELS["dsa"], layers=2, experts=4, used=2, groups=1, groups_used=1, fe=6,
                          ff=24, yarn=None, topk=270, n=1100, last=40, seed=3)
MODELS["mtp"] = dict(MODELS["mla_v3"], mtp=True, layers=2)
N = 90  # positions: more than a page of 64
MARGIN = 1e-5
INDEX_MARGIN = 1e-6  # of scores whose size is near 1


def init(c, rng):
    p = {}

    def add(name, *shape, norm=False):
        x = rng.standard_normal(shape)
        p[name] = (1 + 0.2 * x if norm else 0.25 * x).astype(np.float32)

    d, h = c["d"], c["heads"]

    def add_layer(i):
        b = f"blk.{i}."
        add(b + "attn_norm", d, norm=True)
        if c["qr"]:
            add(b + "attn_q_a", c["qr"], d)
            add(b + "attn_q_a_norm", c["qr"], norm=True)
            add(b + "attn_q_b", h * (c["dn"] + c["dr"]), c["qr"])
        else:
            add(b + "attn_q", h * (c["dn"] + c["dr"]), d)
        add(b + "attn_kv_a_mqa", c["r"] + c["dr"], d)
        add(b + "attn_kv_a_norm", c["r"], norm=True)
        add(b + "attn_kv_b", h * (c["dn"] + c["dv"]), c["r"])
        if c["topk"]:
            add(b + "indexer.attn_k", c["jd"], d)
            add(b + "indexer.k_norm", c["jd"], norm=True)
            add(b + "indexer.k_norm_bias", c["jd"])
            add(b + "indexer.proj", c["jh"], d)
            add(b + "indexer.attn_q_b", c["jh"] * c["jd"], c["qr"])
        add(b + "attn_output", d, h * c["dv"])
        add(b + "ffn_norm", d, norm=True)
        if i >= c["dense"]:
            e, f, fs = c["experts"], c["fe"], c["fe"] * c["shared"]
            add(b + "ffn_gate_inp", e, d)
            if c["sigmoid"]:
                add(b + "exp_probs_b", e)
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

    add("token_embd", c["vocab"], d)
    for i in range(c["layers"]):
        add_layer(i)
    add("output_norm", d, norm=True)
    add("output", c["vocab"], d)
    if c["mtp"]:
        b = f"blk.{c['layers']}.nextn."
        add_layer(c["layers"])
        add(b + "eh_proj", d, 2 * d)
        for name in ("enorm", "hnorm", "shared_head_norm"):
            add(b + name, d, norm=True)
    return p


def rms(x, w, c):
    return w * x / np.sqrt((x * x).mean(-1, keepdims=True) + c["eps"])


def frequencies(c):
    """One a pair of the rotated part; with YaRN a ramp between theirs and theirs / factor."""
    d, y = c["dr"], c["yarn"]
    f = c["theta"] ** (-2.0 * np.arange(d // 2) / d)
    if not y:
        return f

    def pair_of(turns):
        return d * np.log(y["orig"] / (2 * np.pi * turns)) / (2 * np.log(c["theta"]))

    low, high = max(np.floor(pair_of(y["fast"])), 0), min(np.ceil(pair_of(y["slow"])), d - 1)
    ramp = np.clip((np.arange(d // 2) - low) / max(high - low, 1e-3), 0, 1)
    return f * (1 - ramp) + f / y["factor"] * ramp


def rotate(x, c):
    """x [rows, ..., dr]: adjacent pairs as complex numbers times exp(i pos f)."""
    z = x[..., 0::2] + 1j * x[..., 1::2]
    turn = np.exp(1j * np.arange(len(x))[:, None] * frequencies(c))
    z = z * turn.reshape(len(x), *[1] * (x.ndim - 2), -1)
    return np.stack([z.real, z.imag], -1).reshape(x.shape)


def rotate_halves(x, c):
    """x [rows, ..., dr]: pairs (i, i + dr / 2)."""
    h = c["dr"] // 2
    y = rotate(np.stack([x[..., :h], x[..., h:]], -1).reshape(x.shape), c)
    return np.concatenate([y[..., 0::2], y[..., 1::2]], -1)


def chosen(x, a, p, b, c):
    """[rows, rows] which positions each attends to; x the layer's normed input, a the query latent"""
    n, jh, jd, dr = len(x), c["jh"], c["jd"], c["dr"]
    k = x @ p[b + "indexer.attn_k"].T
    k = (k - k.mean(-1, keepdims=True)) / np.sqrt(k.var(-1, keepdims=True) + 1e-6)
    k = k * p[b + "indexer.k_norm"] + p[b + "indexer.k_norm_bias"]
    q = (a @ p[b + "indexer.attn_q_b"].T).reshape(n, jh, jd)
    k = np.concatenate([rotate_halves(k[:, :dr], c), k[:, dr:]], -1)
    q = np.concatenate([rotate_halves(q[..., :dr], c), q[..., dr:]], -1)
    w = x @ p[b + "indexer.proj"].T / np.sqrt(jh)
    score = np.einsum("tj,tjs->ts", w, np.maximum(np.einsum("tjd,sd->tjs", q, k), 0)) / np.sqrt(jd)
    keep = np.tri(n, dtype=bool)
    for t in range(c["topk"], n):
        order = np.argsort(-score[t, :t + 1], kind="stable")  # of equal ones the earlier
        near = score[t, order[c["topk"] - 1]] - score[t, order[c["topk"]]]
        # exactly equal are scores of 0, where no head's product is positive: the same in float32
        assert near == 0 or near > INDEX_MARGIN, f"too close a choice: {near:.1e} at {t}"
        keep[t, order[c["topk"]:]] = False
    return keep


def attention(x, p, b, c):
    n, h, dn, dr, dv = len(x), c["heads"], c["dn"], c["dr"], c["dv"]
    keep = np.tri(n, dtype=bool)
    if c["qr"]:
        low = rms(x @ p[b + "attn_q_a"].T, p[b + "attn_q_a_norm"], c)
        q = low @ p[b + "attn_q_b"].T
        if c["topk"]:
            keep = chosen(x, low, p, b, c)
    else:
        q = x @ p[b + "attn_q"].T
    q = q.reshape(n, h, dn + dr)
    a = x @ p[b + "attn_kv_a_mqa"].T
    latent, k_pe = rms(a[:, :c["r"]], p[b + "attn_kv_a_norm"], c), rotate(a[:, c["r"]:], c)
    kv = (latent @ p[b + "attn_kv_b"].T).reshape(n, h, dn + dv)
    k = np.concatenate([kv[..., :dn], np.repeat(k_pe[:, None], h, 1)], -1)
    q = np.concatenate([q[..., :dn], rotate(q[..., dn:], c)], -1)
    m = 1 + c["yarn"]["log_mul"] * np.log(c["yarn"]["factor"]) if c["yarn"] else 1
    s = np.einsum("ihd,jhd->hij", q, k) * m * m / np.sqrt(dn + dr)
    s = np.where(keep, s, -np.inf)
    s = np.exp(s - s.max(-1, keepdims=True))
    s /= s.sum(-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", s, kv[..., dn:]).reshape(n, -1) @ p[b + "attn_output"].T


def swiglu(x, gate, up, down):
    g = x @ gate.T
    return (g / (1 + np.exp(-g)) * (x @ up.T)) @ down.T


def best(values, k):
    """The k largest; fails where the next one is too close."""
    order = np.argsort(-values)
    assert k >= len(values) or values[order[k - 1]] - values[order[k]] > MARGIN, "too close a choice"
    return order[:k]


def experts(x, p, b, c):
    y = swiglu(x, p[b + "ffn_gate_shexp"], p[b + "ffn_up_shexp"], p[b + "ffn_down_shexp"])
    z = x @ p[b + "ffn_gate_inp"].T
    for t in range(len(x)):
        if c["sigmoid"]:
            s = 1 / (1 + np.exp(-z[t]))
            choice = s + p[b + "exp_probs_b"]
        else:
            s = np.exp(z[t] - z[t].max())
            choice = s = s / s.sum()
        if c["groups"] > 1:
            g = np.sort(choice.reshape(c["groups"], -1), -1)
            worth = g[:, -2:].sum(-1) if c["sigmoid"] else g[:, -1]
            keep = np.zeros(c["groups"], bool)
            keep[best(worth, c["groups_used"])] = True
            choice = np.where(np.repeat(keep, c["experts"] // c["groups"]), choice, -np.inf)
        ids = best(choice, c["used"])
        w = s[ids] / (s[ids].sum() + 1e-20) if c["norm"] else s[ids]
        for e, we in zip(ids, w * c["scale"]):
            y[t] += we * swiglu(x[t], p[b + "ffn_gate_exps"][e], p[b + "ffn_up_exps"][e],
                                p[b + "ffn_down_exps"][e])
    return y


def layer(x, p, i, c):
    b = f"blk.{i}."
    x = x + attention(rms(x, p[b + "attn_norm"], c), p, b, c)
    n = rms(x, p[b + "ffn_norm"], c)
    return x + (experts(n, p, b, c) if i >= c["dense"] else
                swiglu(n, p[b + "ffn_gate"], p[b + "ffn_up"], p[b + "ffn_down"]))


def logits(p32, ids, c):
    """of every position, and (else None) of MTP for every position but the last"""
    p = {k: v.astype(np.float64) for k, v in p32.items()}
    x = p["token_embd"][ids]
    for i in range(c["layers"]):
        x = layer(x, p, i, c)
    h = rms(x, p["output_norm"], c)
    if not c["mtp"]:
        return h @ p["output"].T, None
    b = f"blk.{c['layers']}.nextn."
    e = rms(p["token_embd"][ids[1:]], p[b + "enorm"], c)
    x = np.concatenate([e, rms(h[:-1], p[b + "hnorm"], c)], -1) @ p[b + "eh_proj"].T
    x = layer(x, p, c["layers"], c)
    return h @ p["output"].T, rms(x, p[b + "shared_head_norm"], c) @ p["output"].T


def logprobs(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def keys(w, c):
    a = "deepseek32." if c["topk"] else "deepseek2."
    sizes = {"block_count": "layers", "embedding_length": "d", "feed_forward_length": "ff",
             "attention.head_count": "heads", "attention.kv_lora_rank": "r",
             "rope.dimension_count": "dr", "vocab_size": "vocab",
             "leading_dense_block_count": "dense", "expert_count": "experts",
             "expert_used_count": "used", "expert_shared_count": "shared",
             "expert_feed_forward_length": "fe"}
    for key, name in sizes.items():
        w.add_uint32(a + key, c[name] + (c["mtp"] if key == "block_count" else 0))
    if c["mtp"]:
        w.add_uint32(a + "nextn_predict_layers", 1)
    w.add_uint32(a + "context_length", max(512, c.get("n", N)))
    if c["topk"]:
        for key, name in (("top_k", "topk"), ("head_count", "jh"), ("key_length", "jd")):
            w.add_uint32(f"{a}attention.indexer.{key}", c[name])
    if c["qr"]:
        w.add_uint32(a + "attention.q_lora_rank", c["qr"])
    naive = (c["dn"] + c["dr"], c["dv"])
    absorbed = (c["r"] + c["dr"], c["r"])
    w.add_uint32(a + "attention.head_count_kv", 1 if c["split"] else c["heads"])
    for key, i in (("key", 0), ("value", 1)):
        w.add_uint32(f"{a}attention.{key}_length", (absorbed if c["split"] else naive)[i])
        if c["split"]:
            w.add_uint32(f"{a}attention.{key}_length_mla", naive[i])
    w.add_float32(a + "attention.layer_norm_rms_epsilon", c["eps"])
    w.add_float32(a + "rope.freq_base", c["theta"])
    w.add_float32(a + "expert_weights_scale", c["scale"])
    w.add_bool(a + "expert_weights_norm", c["norm"])
    if c["sigmoid"]:
        w.add_uint32(a + "expert_gating_func", 2)
    if c["groups"] > 1:
        w.add_uint32(a + "expert_group_count", c["groups"])
        w.add_uint32(a + "expert_group_used_count", c["groups_used"])
    if c["yarn"]:
        y = c["yarn"]
        w.add_string(a + "rope.scaling.type", "yarn")
        w.add_float32(a + "rope.scaling.factor", y["factor"])
        w.add_uint32(a + "rope.scaling.original_context_length", y["orig"])
        w.add_float32(a + "rope.scaling.yarn_log_multiplier", y["log_mul"])
        w.add_float32(a + "rope.scaling.yarn_beta_fast", y["fast"])
        w.add_float32(a + "rope.scaling.yarn_beta_slow", y["slow"])


def write(path, c, p, ids, lp, further):
    w = gguf.GGUFWriter(path, "deepseek32" if c["topk"] else "deepseek2")
    keys(w, c)
    for name, x in p.items():
        if name.endswith("attn_kv_b") and c["split"]:
            x = x.reshape(c["heads"], c["dn"] + c["dv"], c["r"])
            b = name[:-len("kv_b")]
            w.add_tensor(b + "k_b.weight", np.ascontiguousarray(x[:, :c["dn"]].transpose(0, 2, 1)))
            w.add_tensor(b + "v_b.weight", np.ascontiguousarray(x[:, c["dn"]:]))
        else:
            bias = name.endswith(("exp_probs_b", "_bias"))
            w.add_tensor(name.removesuffix("_bias") + (".bias" if bias else ".weight"), x)
    w.add_tensor("golden.ids", ids.astype(np.int32))
    w.add_tensor("golden.logprobs", lp.astype(np.float64))
    if further is not None:
        w.add_tensor("golden.mtp_logprobs", logprobs(further))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    for name, c in MODELS.items():
        # the two layouts of one model have the same weights
        rng = np.random.default_rng(c.get("seed", sum(map(ord, name.removesuffix("_old")))))
        p, ids = init(c, rng), rng.integers(0, c["vocab"], c.get("n", N))
        z, further = logits(p, ids, c)
        lp = logprobs(z)[-c.get("last", N):]
        write(f"{sys.argv[1]}/{name}.gguf", c, p, ids, lp, further)
        print(f"{name}: entropy {-(np.exp(lp) * lp).sum(-1).mean():.4f} of {np.log(c['vocab']):.4f}")


if __name__ == "__main__":
    main()
