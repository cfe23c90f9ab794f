#!/usr/bin/env python3
"""Writes tests/golden/hf/{v2_lite,v3_fp8,v32}: Hugging Face folders of tiny random models with latent
attention, and in logits.f32 what they answer by the float64 equations of gen_golden_mla.py. v2_lite is
BF16 with YaRN; v3_fp8 has its projections in F8_E4M3 with a scale for each 128 x 128 (more than one
along either side), a router with sigmoid, groups and a bias, and a layer that predicts further (MTP),
whose logits are in mtp.f32. v32 has V3.2's indexer, which chooses 4 of 8 positions, and says that it has
such a layer but has none.

    tools/golden_hf_mla.py tests/golden/tok/tokenizer.json tests/golden/hf
"""
import json
import os
import shutil
import struct
import sys

import numpy as np
from safetensors.numpy import save_file

import gen_golden_mla as mla

IDS = [484, 7, 300, 21, 21, 499, 130, 3]
BASE = dict(mla.BASE, vocab=512, layers=2, d=32, heads=8, dn=10, dr=8, dv=17, r=12, ff=40, experts=8,
            used=3, shared=1, fe=12)
MODELS = {
    "v2_lite": dict(BASE, yarn=dict(factor=8.0, orig=64, fast=32.0, slow=1.0, log_mul=0.0707)),
    "v3_fp8": dict(BASE, mtp=True, qr=14, groups=4, groups_used=2, scale=2.5, norm=True, sigmoid=True,
                   yarn=dict(factor=40.0, orig=64, fast=32.0, slow=1.0, log_mul=0.1)),
}
MODELS["v32"] = dict(MODELS["v3_fp8"], mtp=False, topk=4, jh=6, jd=12)
NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm", "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa", "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj", "attn_output": "self_attn.o_proj",
    "nextn.eh_proj": "eh_proj", "nextn.enorm": "enorm", "nextn.hnorm": "hnorm",
    "nextn.shared_head_norm": "shared_head.norm",
    "indexer.attn_k": "self_attn.indexer.wk", "indexer.attn_q_b": "self_attn.indexer.wq_b",
    "indexer.k_norm": "self_attn.indexer.k_norm", "indexer.k_norm_bias": "self_attn.indexer.k_norm",
    "indexer.proj": "self_attn.indexer.weights_proj",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "ffn_gate_inp": "mlp.gate",
    "exp_probs_b": "mlp.gate.e_score_correction_bias",
    "ffn_gate_exps": "mlp.experts.%d.gate_proj", "ffn_up_exps": "mlp.experts.%d.up_proj",
    "ffn_down_exps": "mlp.experts.%d.down_proj", "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj", "ffn_down_shexp": "mlp.shared_experts.down_proj",
}


def bf16(x):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16)


def of_bf16(b):
    return (b.astype(np.uint32) << 16).view(np.float32)


# every finite value of F8_E4M3
GRID = np.array([(1 + i % 8 / 8) * 2.0 ** (i // 8 - 7) if i >= 8 else i / 8 * 2.0 ** -6
                 for i in range(127)])


def fp8(x):
    """bytes, scales [blocks, blocks] and the values they mean, rounded to bfloat16"""
    rows, cols = x.shape
    scale = np.zeros((-(-rows // 128), -(-cols // 128)), np.float32)
    code = np.zeros(x.shape, np.uint8)
    value = np.zeros(x.shape, np.float32)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            at = np.s_[i * 128:i * 128 + 128, j * 128:j * 128 + 128]
            scale[i, j] = np.abs(x[at]).max() / 448
            q = x[at] / scale[i, j]
            k = np.abs(np.abs(q)[..., None] - GRID).argmin(-1)
            code[at] = k + 128 * (q < 0)
            value[at] = np.where(q < 0, -GRID[k], GRID[k]).astype(np.float32) * scale[i, j]
    return code, scale, of_bf16(bf16(value))


def save(path, tensors):
    """tensors: name -> (array, dtype); the numpy writer knows neither BF16 nor F8_E4M3"""
    save_file({k: np.ascontiguousarray(v[0]) for k, v in tensors.items()}, path,
              metadata={"format": "pt"})
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        head, data = json.loads(f.read(n)), f.read()
    for k, v in tensors.items():
        head[k]["dtype"] = v[1]
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def folder_tensors(p, with_fp8):
    """what is stored under the folder's names; p's values become what it means"""
    out = {}
    for name, x in p.items():
        part = name.split(".", 2)[2] if name.startswith("blk.") else name
        hf = NAMES[part]
        if name.startswith("blk."):
            hf = f"model.layers.{name.split('.')[1]}.{hf}"
        for e in range(len(x)) if x.ndim == 3 else [None]:
            w = x if e is None else x[e]
            key = hf if e is None else hf % e
            key += {"exp_probs_b": "", "indexer.k_norm_bias": ".bias"}.get(part, ".weight")
            plain = w.ndim == 1 or part in ("token_embd", "output", "ffn_gate_inp", "indexer.proj")
            if with_fp8 and not plain:
                code, scale, w[...] = fp8(w)
                out[key] = (code, "F8_E4M3")
                out[key + "_scale_inv"] = (scale, "F32")
            elif part == "exp_probs_b":
                out[key] = (w, "F32")
            else:
                b = bf16(w)
                w[...] = of_bf16(b)
                out[key] = (b, "BF16")
    return out


def config(c, v3):
    y = c["yarn"]
    v = "32" if c["topk"] else "3" if v3 else "2"
    index = dict(index_topk=c["topk"], index_n_heads=c["jh"], index_head_dim=c["jd"])
    return dict(index if c["topk"] else {}, architectures=[f"DeepseekV{v}ForCausalLM"],
                model_type=f"deepseek_v{v}", vocab_size=c["vocab"],
                hidden_size=c["d"], num_hidden_layers=c["layers"], intermediate_size=c["ff"],
                max_position_embeddings=512, num_attention_heads=c["heads"],
                num_key_value_heads=c["heads"], rms_norm_eps=c["eps"], hidden_act="silu",
                attention_bias=False, kv_lora_rank=c["r"], q_lora_rank=c["qr"] or None,
                qk_nope_head_dim=c["dn"], qk_rope_head_dim=c["dr"], v_head_dim=c["dv"],
                n_routed_experts=c["experts"], num_experts_per_tok=c["used"],
                n_shared_experts=c["shared"], moe_intermediate_size=c["fe"],
                first_k_dense_replace=c["dense"], moe_layer_freq=1,
                routed_scaling_factor=c["scale"], norm_topk_prob=c["norm"],
                scoring_func="sigmoid" if v3 else "softmax",
                topk_method="noaux_tc" if v3 else "greedy", n_group=c["groups"],
                topk_group=c["groups_used"], num_nextn_predict_layers=1 if v3 else 0,
                rope_theta=c["theta"], tie_word_embeddings=False,
                rope_scaling=dict(type="yarn", factor=y["factor"],
                                  original_max_position_embeddings=y["orig"],
                                  beta_fast=y["fast"], beta_slow=y["slow"],
                                  mscale=10 * y["log_mul"], mscale_all_dim=10 * y["log_mul"]),
                bos_token_id=484, eos_token_id=485)


def main():
    tokenizer, out = sys.argv[1:]
    for name, c in MODELS.items():
        folder, v3 = os.path.join(out, name), name != "v2_lite"
        os.makedirs(folder, exist_ok=True)
        p = mla.init(c, np.random.default_rng(sum(map(ord, name))))
        tensors = folder_tensors(p, v3)
        if c["mtp"]:  # as in the release, copies of the model's own
            tensors["model.layers.2.embed_tokens.weight"] = tensors["model.embed_tokens.weight"]
            tensors["model.layers.2.shared_head.head.weight"] = tensors["lm_head.weight"]
        save(os.path.join(folder, "model.safetensors"), tensors)
        cfg = config(c, v3)
        if v3:
            cfg["quantization_config"] = dict(quant_method="fp8", fmt="e4m3",
                                              weight_block_size=[128, 128])
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(cfg, f, indent=1)
        shutil.copy(tokenizer, os.path.join(folder, "tokenizer.json"))
        z, further = mla.logits(p, np.array(IDS), c)
        if further is not None:
            further.astype("<f4").tofile(os.path.join(folder, "mtp.f32"))
        with open(os.path.join(folder, "logits.f32"), "wb") as f:
            f.write(struct.pack("<I", len(IDS)) + np.array(IDS, "<i4").tobytes())
            f.write(z.astype("<f4").tobytes())
        print(name, float(z.std()))


main()
