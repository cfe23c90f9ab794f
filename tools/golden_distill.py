#!/usr/bin/env python3
"""Writes tests/golden/hf/{r1_qwen2,r1_qwen3,r1_llama}: Hugging Face folders of tiny random models of
the architectures of R1's distilled models, and in logits.f32 what they answer, computed here in
float64 from docs/distills.md: biases on queries, keys and values (qwen2); heads normed before the
rotation, heads wider than their share of the model, YaRN with an attention factor (qwen3); Llama 3.1's
frequencies (llama). Contexts are short, so that eight positions reach what is scaled. Vectors are
BF16, embedding and head F16, matrices F32.

    tools/golden_distill.py tests/golden/tok tests/golden/hf [--check]

--check: holds the answers to transformers, where that knows the class (needs torch).
"""
import json
import os
import shutil
import struct
import sys

import numpy as np

from golden_hf import IDS, rms, save, silu, softmax, weights_of

COMMON = dict(vocab_size=512, hidden_size=32, num_hidden_layers=2, intermediate_size=48,
              num_attention_heads=4, num_key_value_heads=2, hidden_act="silu",
              tie_word_embeddings=False, use_cache=True, torch_dtype="float32")
MODELS = {
    "r1_qwen2": ("deepseek-r1-qwen", dict(
        COMMON, architectures=["Qwen2ForCausalLM"], model_type="qwen2", rms_norm_eps=1e-5,
        max_position_embeddings=64, rope_theta=10000, sliding_window=4096, max_window_layers=2,
        use_sliding_window=False)),
    "r1_qwen3": ("deepseek-r1-qwen", dict(
        COMMON, architectures=["Qwen3ForCausalLM"], model_type="qwen3", rms_norm_eps=1e-6,
        head_dim=12, attention_bias=False, max_position_embeddings=64, rope_theta=100,
        sliding_window=None, use_sliding_window=False,
        rope_scaling={"rope_type": "yarn", "factor": 4.0, "attn_factor": 0.75,
                      "original_max_position_embeddings": 16})),
    "r1_llama": ("llama-bpe", dict(
        COMMON, architectures=["LlamaForCausalLM"], model_type="llama", rms_norm_eps=1e-5,
        attention_bias=False, mlp_bias=False, max_position_embeddings=256, rope_theta=100.0,
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                      "high_freq_factor": 4.0, "original_max_position_embeddings": 32})),
}


def head_dim(c):
    return c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])


def shapes(c):
    d, f, hd = c["hidden_size"], c["intermediate_size"], head_dim(c)
    rows = {"q": c["num_attention_heads"] * hd}
    rows["k"] = rows["v"] = c["num_key_value_heads"] * hd
    out = {"model.embed_tokens.weight": (c["vocab_size"], d), "model.norm.weight": (d,),
           "lm_head.weight": (c["vocab_size"], d)}
    for n in range(c["num_hidden_layers"]):
        p = f"model.layers.{n}."
        out[p + "input_layernorm.weight"] = out[p + "post_attention_layernorm.weight"] = (d,)
        for k, r in rows.items():
            out[p + f"self_attn.{k}_proj.weight"] = (r, d)
            if c["model_type"] == "qwen2":
                out[p + f"self_attn.{k}_proj.bias"] = (r,)
            if c["model_type"] == "qwen3" and k != "v":
                out[p + f"self_attn.{k}_norm.weight"] = (hd,)
        out[p + "self_attn.o_proj.weight"] = (d, rows["q"])
        out[p + "mlp.gate_proj.weight"] = out[p + "mlp.up_proj.weight"] = (f, d)
        out[p + "mlp.down_proj.weight"] = (d, f)
    return out


def frequencies(c):
    """Of the pairs of a head, and what cos and sin are multiplied by."""
    hd, theta, s = head_dim(c), c["rope_theta"], c.get("rope_scaling")
    freq = float(theta) ** (-np.arange(0, hd, 2) / hd)
    if s is None:
        return freq, 1.0
    orig, factor = s["original_max_position_embeddings"], s["factor"]
    turns = orig * freq / (2 * np.pi)  # within the original context
    if s["rope_type"] == "llama3":
        low, high = s["low_freq_factor"], s["high_freq_factor"]
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return freq * (kept + (1 - kept) / factor), 1.0
    # YaRN: pairs that turn more than 32 times are kept, fewer than once divided, by the pair's number
    number = [hd * np.log(orig / (n * 2 * np.pi)) / (2 * np.log(theta)) for n in (32, 1)]
    low, high = max(np.floor(number[0]), 0), min(np.ceil(number[1]), hd - 1)
    divided = np.clip((np.arange(hd // 2) - low) / (high - low), 0, 1)
    return (freq * (1 - divided) + freq / factor * divided,
            (0.1 * np.log(factor) + 1) * s.get("attn_factor", 1.0))


def rotate(x, c):
    """x [position, head, dim], pairs (i, i + dim / 2)"""
    freq, m = frequencies(c)
    angle = np.arange(x.shape[0])[:, None] * freq
    cos, sin = np.cos(angle)[:, None, :] * m, np.sin(angle)[:, None, :] * m
    a, b = np.split(x, 2, -1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def forward(c, w, ids):
    heads, kv, hd = c["num_attention_heads"], c["num_key_value_heads"], head_dim(c)
    n, eps = len(ids), c["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][ids]
    mask = np.triu(np.full((n, n), -np.inf), 1)
    for layer in range(c["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        h = rms(x, w[p + "input_layernorm.weight"], eps)

        def project(name, count):
            y = h @ w[p + f"self_attn.{name}_proj.weight"].T + w.get(p + f"self_attn.{name}_proj.bias", 0)
            y = y.reshape(n, count, hd)
            norm = w.get(p + f"self_attn.{name}_norm.weight")
            return y if norm is None else rms(y, norm, eps)
        q, k, v = rotate(project("q", heads), c), rotate(project("k", kv), c), project("v", kv)
        k, v = (np.repeat(t, heads // kv, 1) for t in (k, v))
        a = softmax(np.einsum("ihd,jhd->hij", q, k) / np.sqrt(hd) + mask)
        x = x + np.einsum("hij,jhd->ihd", a, v).reshape(n, -1) @ w[p + "self_attn.o_proj.weight"].T
        h = rms(x, w[p + "post_attention_layernorm.weight"], eps)
        gate, up = h @ w[p + "mlp.gate_proj.weight"].T, h @ w[p + "mlp.up_proj.weight"].T
        x = x + (silu(gate) * up) @ w[p + "mlp.down_proj.weight"].T
    return rms(x, w["model.norm.weight"], eps) @ w["lm_head.weight"].T


def check(folder, logits):
    """Against transformers; those before 4.51 have no Qwen3, and none knows "attn_factor"."""
    import torch
    import transformers
    with open(os.path.join(folder, "config.json")) as f:
        name = json.load(f)["architectures"][0]
    if not hasattr(transformers, name) or name == "Qwen3ForCausalLM":
        return "not checked"
    m = getattr(transformers, name).from_pretrained(folder, torch_dtype=torch.float64)
    with torch.no_grad():
        z = m(torch.tensor([IDS])).logits[0].double().numpy()
    return "differs from transformers by %.1e" % np.abs(z - logits).max()


def main():
    tok, out = sys.argv[1:3]
    rng = np.random.default_rng(17)
    for name, (vocab, c) in MODELS.items():
        folder = os.path.join(out, name)
        os.makedirs(folder, exist_ok=True)
        stored = weights_of(shapes(c), rng, True)
        save(os.path.join(folder, "model.safetensors"), sorted(stored), stored)
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(c, f, indent=1)
        shutil.copy(os.path.join(tok, vocab, "tokenizer.json"), folder)
        logits = forward(c, {k: v[1] for k, v in stored.items()}, IDS)
        with open(os.path.join(folder, "logits.f32"), "wb") as f:
            f.write(struct.pack("<I", len(IDS)) + np.array(IDS, "<i4").tobytes())
            f.write(logits.astype("<f4").tobytes())
        print(name, float(logits.std()), check(folder, logits) if "--check" in sys.argv else "")


main()
