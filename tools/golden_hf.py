#!/usr/bin/env python3
"""Writes tests/golden/hf/{dense,moe}: Hugging Face folders of two tiny random models, and in
logits.f32 what they answer, computed here in float64 the way the Hugging Face classes
(LlamaForCausalLM, DeepseekForCausalLM) do: half-split rotation, a list of experts, softmax routing
without renormalisation. `dense` is one F32 file; `moe` is two shards, its norms BF16, its embedding
and head F16. The safetensors files are written by the `safetensors` package.

logits.f32: u32 n, n int32 ids, then n x n_vocab float32.

    tools/golden_hf.py tests/golden/tok/tokenizer.json tests/golden/hf
"""
import json
import os
import shutil
import struct
import sys

import numpy as np
from safetensors.numpy import save_file

IDS = [484, 7, 300, 21, 21, 499, 130, 3]
COMMON = dict(vocab_size=512, hidden_size=32, num_hidden_layers=2, intermediate_size=48,
              max_position_embeddings=64, rms_norm_eps=1e-6, hidden_act="silu", attention_bias=False,
              tie_word_embeddings=False, bos_token_id=484, eos_token_id=485)
DENSE = dict(COMMON, architectures=["LlamaForCausalLM"], model_type="llama", num_attention_heads=4,
             num_key_value_heads=2, rope_theta=10000.0,
             rope_scaling={"type": "linear", "factor": 4.0}, torch_dtype="float32")
MOE = dict(COMMON, architectures=["DeepseekForCausalLM"], model_type="deepseek",
           num_attention_heads=4, num_key_value_heads=4, rope_theta=10000.0, rope_scaling=None,
           n_routed_experts=5, num_experts_per_tok=2, n_shared_experts=2, moe_intermediate_size=12,
           first_k_dense_replace=1, moe_layer_freq=1, norm_topk_prob=False, scoring_func="softmax",
           torch_dtype="float32")


def shapes(c):
    d, head = c["hidden_size"], c["hidden_size"] // c["num_attention_heads"]
    kv = head * c["num_key_value_heads"]
    out = {"model.embed_tokens.weight": (c["vocab_size"], d)}
    for n in range(c["num_hidden_layers"]):
        p = f"model.layers.{n}."
        out[p + "input_layernorm.weight"] = (d,)
        for k, rows in (("q", d), ("k", kv), ("v", kv), ("o", d)):
            out[p + f"self_attn.{k}_proj.weight"] = (rows, d)
        out[p + "post_attention_layernorm.weight"] = (d,)

        def ffn(prefix, width):
            out[prefix + "gate_proj.weight"] = (width, d)
            out[prefix + "up_proj.weight"] = (width, d)
            out[prefix + "down_proj.weight"] = (d, width)
        if n >= c.get("first_k_dense_replace", 99):
            out[p + "mlp.gate.weight"] = (c["n_routed_experts"], d)
            for e in range(c["n_routed_experts"]):
                ffn(p + f"mlp.experts.{e}.", c["moe_intermediate_size"])
            ffn(p + "mlp.shared_experts.", c["moe_intermediate_size"] * c["n_shared_experts"])
        else:
            ffn(p + "mlp.", c["intermediate_size"])
    out["model.norm.weight"] = (d,)
    out["lm_head.weight"] = (c["vocab_size"], d)
    return out


def to_bf16(x):
    u = x.astype(np.float32).view(np.uint32)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16)


def weights_of(shapes, rng, small):
    """name -> (what is stored, the same as float64, its type); small: vectors BF16, embedding and head
    F16"""
    out = {}
    for name, shape in shapes.items():
        x = rng.standard_normal(shape) * 0.3 + (1.0 if len(shape) == 1 else 0.0)
        if small and len(shape) == 1:
            b = to_bf16(x)
            out[name] = (b, (b.astype(np.uint32) << 16).view(np.float32).astype(np.float64), "BF16")
        elif small and name in ("model.embed_tokens.weight", "lm_head.weight"):
            h = x.astype(np.float16)
            out[name] = (h, h.astype(np.float64), "F16")
        else:
            f = x.astype(np.float32)
            out[name] = (f, f.astype(np.float64), "F32")
    return out


def rms(x, w, eps):
    return w * x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def rotate(x, c):
    """x [position, head, dim], pairs (i, i + dim / 2)"""
    n, _, dim = x.shape
    scale = (c["rope_scaling"] or {}).get("factor", 1.0)
    angle = (np.arange(n) / scale)[:, None] * c["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
    cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    a, b = x[..., :dim // 2], x[..., dim // 2:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def forward(c, w, ids):
    heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
    dim, n, eps = c["hidden_size"] // heads, len(ids), c["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][ids]
    mask = np.triu(np.full((n, n), -np.inf), 1)
    for layer in range(c["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        h = rms(x, w[p + "input_layernorm.weight"], eps)
        q = rotate((h @ w[p + "self_attn.q_proj.weight"].T).reshape(n, heads, dim), c)
        k = rotate((h @ w[p + "self_attn.k_proj.weight"].T).reshape(n, kv_heads, dim), c)
        v = (h @ w[p + "self_attn.v_proj.weight"].T).reshape(n, kv_heads, dim)
        k, v = (np.repeat(t, heads // kv_heads, 1) for t in (k, v))
        a = softmax(np.einsum("ihd,jhd->hij", q, k) / np.sqrt(dim) + mask)
        x = x + np.einsum("hij,jhd->ihd", a, v).reshape(n, -1) @ w[p + "self_attn.o_proj.weight"].T
        h = rms(x, w[p + "post_attention_layernorm.weight"], eps)

        def ffn(prefix, t):
            gate, up = t @ w[prefix + "gate_proj.weight"].T, t @ w[prefix + "up_proj.weight"].T
            return (silu(gate) * up) @ w[prefix + "down_proj.weight"].T
        if p + "mlp.gate.weight" in w:
            s = softmax(h @ w[p + "mlp.gate.weight"].T)
            y = ffn(p + "mlp.shared_experts.", h)
            for i in range(n):
                for e in np.argsort(-s[i])[:c["num_experts_per_tok"]]:
                    y[i] += s[i, e] * ffn(p + f"mlp.experts.{e}.", h[i])
            x = x + y
        else:
            x = x + ffn(p + "mlp.", h)
    return rms(x, w["model.norm.weight"], eps) @ w["lm_head.weight"].T


def save(path, tensors, stored):
    """The package's numpy writer knows no BF16: it writes U16, whose name is then patched."""
    save_file({k: np.ascontiguousarray(stored[k][0]) for k in tensors}, path,
              metadata={"format": "pt"})
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        head, data = json.loads(f.read(n)), f.read()
    for k in tensors:
        head[k]["dtype"] = stored[k][2]
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main():
    tokenizer, out = sys.argv[1:]
    rng = np.random.default_rng(11)
    for name, c in (("dense", DENSE), ("moe", MOE)):
        folder = os.path.join(out, name)
        os.makedirs(folder, exist_ok=True)
        stored = weights_of(shapes(c), rng, name == "moe")
        names = sorted(stored)
        if name == "dense":
            save(os.path.join(folder, "model.safetensors"), names, stored)
        else:
            half = len(names) // 2
            where = {}
            for i, part in enumerate((names[:half], names[half:])):
                file = f"model-{i + 1:05d}-of-00002.safetensors"
                save(os.path.join(folder, file), part, stored)
                where.update({k: file for k in part})
            size = sum(v[0].nbytes for v in stored.values())
            with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
                json.dump({"metadata": {"total_size": size}, "weight_map": where}, f, indent=1)
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(c, f, indent=1)
        shutil.copy(tokenizer, os.path.join(folder, "tokenizer.json"))
        logits = forward(c, {k: v[1] for k, v in stored.items()}, IDS)
        with open(os.path.join(folder, "logits.f32"), "wb") as f:
            f.write(struct.pack("<I", len(IDS)) + np.array(IDS, "<i4").tobytes())
            f.write(logits.astype("<f4").tobytes())
        print(name, float(logits.std()))


if __name__ == "__main__":
    main()
