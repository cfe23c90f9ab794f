#!/usr/bin/env python3
"""Holds this program to another implementation, llama-cpp-python, which must load its models and give
the same ids and log-probabilities as `qiusuo tokenize` and `qiusuo score`.

    tools/check_llama_cpp.py build/qiusuo [--vocab FILE]... [--presets A,B] [--types T,U] [--layers N]
                                          [--keep FOLDER]
        models that `qiusuo init` writes: tiny presets, all types
    tools/check_llama_cpp.py build/qiusuo --mixes [--presets A,B] [--mix M,N]
        the types that `init` gives the tensors of a mix, against those the other program's quantizer
        gives the same model
    tools/check_llama_cpp.py build/qiusuo --scalings
        rotary positions stretched beyond the context of the tiny presets
    tools/check_llama_cpp.py build/qiusuo --shapes deepseek-llm-7b,... --vocab models/default/qiusuo-default.gguf
        two layers of published shapes at positions 4095, 4096 and 8191, without scaling and with YaRN
    tools/check_llama_cpp.py build/qiusuo --model FILE...
        trained models: ids of Chinese and English texts, log-probabilities of the file as it is and
        of its F16 twin (f16_twin.py)

Needs llama-cpp-python; without it exits 77 (skipped). Prints one line a check; exits 1 when a model
does not load, or differs by more than is allowed.

Tolerance: mean absolute difference over the ten likeliest ids. For --model 0.02 at 200 positions, both
programs as they come, and 0.003 for the twin. For written models, at 32 positions, both caches in F32,
weights of a deviation that gives logits of deviation 1. Where the numbers come from: an F32 model
differs by the order of sums only (measured 1e-6). ggml rounds activations to the weights' type before
a product, which this program does not for F16 and BF16: 2^-11 / sqrt(3) = 3e-4 and 2^-8 / sqrt(3) =
2e-3 of a product's deviation, times about 2 for the products one after another. With quantised
weights both round activations to 8 bits: ggml with one scale for 32 values (step 2.1 / 127 deviations,
error step / sqrt(12) = 5e-3), we with one for up to 256 (6e-3); together 8e-3 a product, 1.6e-2
through the layers. Allowed is about half as much again; more layers add up as their root. Models
with latent attention are checked in both file layouts, and in types that leave the choice of experts
alone: over 27 layers, or by groups, rounding makes near ties choose other ones (three tokens
of 32 made 1.7e-2 of an F16 model's 4e-4).
Types with blocks of 256 round activations as
ggml does, so most agree to 1e-6; but where embeddings are Q3_K (or Q6_K) their values are whole multiples
j of a step with |j| up to 128, 127 / 128 j has ties (j = 64), and rounding falls by the last bit of a
float: the two are then off by what two independent roundings are, each measured 2.35e-2 from
unrounded activations, so 3.3e-2.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

QUANTISED = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
             "Q6_K", "Q2_K_M", "Q3_K_M", "Q4_K_S", "Q4_K_M", "Q5_K_M")
TOLERANCE = {"F32": 1e-5, "F16": 1e-3, "BF16": 6e-3, **{t: 2.4e-2 for t in QUANTISED},
             "Q3_K": 3.3e-2, "Q3_K_M": 3.3e-2}
# The other program's numbers of what it calls Q2_K, Q3_K_S, ... and we Q2_K_M, Q3_K_S, ...
MIXES = {"Q2_K_M": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15,
         "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18}
MODEL_TOLERANCE, TWIN_TOLERANCE, POSITIONS = 0.02, 0.003, 200
GGML_F32, GGML_F16 = 0, 1
# that program takes a model of 27 layers, and no other, for V2-Lite, whose queries come without a rank
LATENT = {"deepseek-v2-lite-tiny": ("27", "F32 F16"), "deepseek-v3-tiny": ("4", "F32")}
DISTILLED = ("r1-distill-qwen-tiny", "r1-distill-llama-tiny", "r1-0528-qwen3-tiny")
# logits of deviation 1: std times the root of the width, 256 elsewhere
STD = {"r1-distill-qwen-tiny": "0.045"}

# Li Bai, Wang Zhihuan, Meng Haoran, Liu Zongyuan; Shakespeare; plain sentences, numbers, mixed script.
TEXTS = [
    "写一首五绝，题为《静夜思》。",
    "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。",
    "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。",
    "春眠不觉晓，处处闻啼鸟。\n夜来风雨声，花落知多少。",
    "千山鸟飞绝，万径人踪灭。\n孤舟蓑笠翁，独钓寒江雪。",
    "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\n"
    "Rough winds do shake the darling buds of May,\nAnd summer's lease hath all too short a date.",
    "翻译成英文：我昨天在图书馆见到了她。",
    "Translate into Chinese: He has been living in Tokyo for three years, hasn't he?",
    "The train leaves at 10:45 from platform 3; tickets cost $12.50 each.",
    "她问：“What time is it？”我说：“八点半。”\n\n  然后我们 walked home together...",
    "上联：海阔凭鱼跃　下联：天高任鸟飞",
]


def mean_difference(program, path, llama_cpp, ids, cache, options=(), other=None, places=None):
    """Of log-probabilities, over the ten likeliest ids of each position; raises when the other program
    does not load the model. cache: a GGML type, or None for what each takes on its own. options: more
    of ours; other: the same for llama.cpp. places: the positions that count, None: all."""
    more = {} if cache is None else {"type_k": cache, "type_v": cache}
    more.update(other or {})
    m = llama_cpp.Llama(model_path=path, n_ctx=len(ids) + 1, n_batch=len(ids) + 1, logits_all=True,
                        verbose=False, n_threads=2, **more)
    out = subprocess.run([program, "score", "-m", path, "--ids", " ".join(map(str, ids)), "--top",
                          "10", *(["--kv", "f32"] if cache == GGML_F32 else []), *options],
                         check=True, stdout=subprocess.PIPE).stdout
    top = [json.loads(line)["top"] for line in out.splitlines()]
    if len(top) != len(ids) or any(len(t) != 10 for t in top):
        raise ValueError("score gives %d positions for %d ids" % (len(top), len(ids)))
    m.eval(ids)
    total, n = 0.0, 0
    for pos, likeliest in enumerate(top):
        if places is not None and pos not in places:
            continue
        row = m.scores[pos].astype("float64")
        peak = row.max()
        log_sum = peak + math.log(sum(math.exp(x - peak) for x in row))
        for token, logprob in likeliest:
            total += abs(float(row[token]) - log_sum - logprob)
            n += 1
    m.close()
    return total / n


class Report:
    def __init__(self):
        self.failed = 0

    def line(self, good, text):
        print(f"{'ok  ' if good else 'FAIL'} {text}", flush=True)
        self.failed += not good

    def difference(self, what, program, path, llama_cpp, ids, cache, allowed, *more):
        try:
            d = mean_difference(program, path, llama_cpp, ids, cache, *more)
            self.line(d <= allowed, f"{what}: mean difference {d:.2e} at {len(ids)} positions, "
                                    f"allowed {allowed:.1e}")
        except Exception as e:  # whatever the other program throws is a failure to load
            self.line(False, f"{what}: does not load: {e}")


def check_ids(report, program, path, llama_cpp):
    """Compares the ids of all texts; returns the ids of one long text."""
    other = llama_cpp.Llama(model_path=path, vocab_only=True, verbose=False)
    differ = []
    for text in TEXTS + ["\n\n".join(TEXTS)]:
        out = subprocess.run([program, "tokenize", "-m", path], input=text.encode(), check=True,
                             stdout=subprocess.PIPE).stdout
        ids = [int(x) for x in out.split()]
        if ids != other.tokenize(text.encode(), add_bos=True, special=True):
            differ.append(text[:20])
    other.close()
    report.line(not differ, f"ids of {len(TEXTS) + 1} texts: {len(differ)} differ {differ or ''}")
    return ids


def check_model(report, program, path, llama_cpp):
    from f16_twin import make_twin
    name = os.path.basename(path)
    ids = check_ids(report, program, path, llama_cpp)
    if len(ids) < POSITIONS:
        report.line(False, f"{name}: the texts have {len(ids)} ids, {POSITIONS} are needed")
    ids = ids[:POSITIONS]
    report.difference(name, program, path, llama_cpp, ids, None, MODEL_TOLERANCE)
    with tempfile.TemporaryDirectory() as folder:
        twin = os.path.join(folder, "twin.gguf")
        make_twin(path, twin)
        report.difference(name + ", F16 twin", program, twin, llama_cpp, ids, None, TWIN_TOLERANCE)


def check_one(report, o, llama_cpp, preset, t, vocab, folder):
    path, older = os.path.join(folder, "model.gguf"), os.path.join(folder, "older.gguf")
    layers = LATENT[preset][0] if preset in LATENT else o.layers
    cmd = [o.program, "init", "--preset", preset, "--type", t, "--layers", layers, "--std",
           o.std or STD.get(preset, "0.06"), "-o", path]
    subprocess.run(cmd + (["--vocab", vocab] if vocab else []), check=True,
                   stderr=subprocess.DEVNULL)
    n_vocab = llama_cpp.Llama(model_path=path, vocab_only=True, verbose=False).n_vocab()
    ids = [(7 + 37 * i) % n_vocab for i in range(32)]
    what = f"{preset} {t} ({os.path.basename(vocab) if vocab else 'no vocabulary'})"
    allowed = TOLERANCE[t] * max(1, int(layers) / 2) ** 0.5
    report.difference(what, o.program, path, llama_cpp, ids, GGML_F32, allowed)
    if preset in LATENT:
        from mla_whole import make_whole
        make_whole(path, older)
        report.difference(what + ", attn_kv_b whole", o.program, older, llama_cpp, ids, GGML_F32,
                          allowed)
        os.remove(older)
    os.remove(path)


def check_scalings(report, o, llama_cpp):
    """Rotary positions stretched beyond the 512 positions of the tiny presets."""
    n, trained = 1000, 512
    for preset in ("dense-tiny", "moe-tiny"):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.gguf")
            subprocess.run([o.program, "init", "--preset", preset, "--type", "F32", "--layers", "2",
                            "--std", o.std or "0.06", "-o", path], check=True,
                           stderr=subprocess.DEVNULL)
            ids = [(7 + 37 * i + i * i % 11) % 512 for i in range(n)]
            for name, factor, kind in (("none", 1, llama_cpp.LLAMA_ROPE_SCALING_TYPE_NONE),
                                       ("linear", 2, llama_cpp.LLAMA_ROPE_SCALING_TYPE_LINEAR),
                                       ("yarn", 2, llama_cpp.LLAMA_ROPE_SCALING_TYPE_YARN),
                                       ("yarn", 8, llama_cpp.LLAMA_ROPE_SCALING_TYPE_YARN)):
                ours = ["-c", "1024", "--rope-scaling", name]
                ours += ["--rope-scale", str(factor)] if factor > 1 else []
                other = {"rope_scaling_type": kind, "rope_freq_scale": 1 / factor,
                         "yarn_orig_ctx": trained}
                report.difference(f"{preset}, scaling {name} {factor}", o.program, path, llama_cpp,
                                  ids, GGML_F32, TOLERANCE["F32"], ours, other)
            # dynamic NTK is another base: 10000 (s L / L0 - (s - 1))^(d / (d - 2)), heads of 64
            base = 10000 * (2 * 1024 / trained - 1) ** (64 / 62)
            report.difference(f"{preset}, scaling dynamic 2", o.program, path, llama_cpp, ids, GGML_F32,
                              TOLERANCE["F32"], ["-c", "1024", "--rope-scaling", "dynamic"],
                              {"rope_scaling_type": llama_cpp.LLAMA_ROPE_SCALING_TYPE_NONE,
                               "rope_freq_base": base})


def check_shapes(report, o, llama_cpp):
    """Positions around and beyond the trained context of the published shapes, few layers of them."""
    n, trained = 8192, 4096
    with tempfile.TemporaryDirectory() as folder:
        for preset in o.shapes.split(","):
            path = os.path.join(folder, "model.gguf")
            cmd = [o.program, "init", "--preset", preset, "--type", "F16", "--layers", "2", "--std",
                   "0.02", "-o", path]
            for vocab in o.vocab[:1]:
                cmd += ["--vocab", vocab]
            subprocess.run(cmd, check=True, stderr=subprocess.DEVNULL)
            size = llama_cpp.Llama(model_path=path, vocab_only=True, verbose=False).n_vocab()
            ids = [(7 + 37 * i + i * i % 11) % size for i in range(n)]
            for name, factor, kind in (("none", 1, llama_cpp.LLAMA_ROPE_SCALING_TYPE_NONE),
                                       ("yarn", 2, llama_cpp.LLAMA_ROPE_SCALING_TYPE_YARN)):
                ours = ["-c", str(n), "--rope-scaling", name]
                other = {"rope_scaling_type": kind, "rope_freq_scale": 1 / factor,
                         "yarn_orig_ctx": trained}
                report.difference(f"{preset}, scaling {name} {factor}", o.program, path, llama_cpp,
                                  ids, GGML_F32, TOLERANCE["F16"], ours, other,
                                  (trained - 1, trained, n - 1))


def check_written(report, o, llama_cpp):
    with tempfile.TemporaryDirectory() as temp:
        for preset in o.presets.split(","):
            for t in o.types.split(","):
                if preset in LATENT and t not in LATENT[preset][1].split():
                    continue
                for vocab in [None] + o.vocab:
                    check_one(report, o, llama_cpp, preset, t, vocab, o.keep or temp)


def tensor_types(path):
    from gguf import GGUFReader
    return {t.name: t.tensor_type.name for t in GGUFReader(path).tensors}


def check_mixes(report, o, llama_cpp):
    """--layers 32 lets every rule about layers show. Models of eight experts are left out: see mix.c."""
    import ctypes
    with tempfile.TemporaryDirectory() as temp:
        f16, ours, theirs = (os.path.join(temp, n) for n in ("f16", "ours", "theirs"))
        for preset in o.presets.split(","):
            init = [o.program, "init", "--preset", preset, "--layers", o.layers]
            subprocess.run(init + ["--type", "F16", "-o", f16], check=True)
            for mix in o.mix.split(","):
                p = llama_cpp.llama_model_quantize_default_params()
                p.ftype, p.nthread = MIXES[mix], 2
                rc = llama_cpp.llama_model_quantize(f16.encode(), theirs.encode(), ctypes.byref(p))
                if rc != 0:
                    report.line(False, f"{preset} {mix}: the other program does not write it")
                    continue
                subprocess.run(init + ["--type", mix, "-o", ours], check=True,
                               stderr=subprocess.DEVNULL)
                a, b = tensor_types(ours), tensor_types(theirs)
                bad = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
                text = "".join(f"; {k} {a.get(k)}, not {b.get(k)}" for k in bad[:3])
                report.line(not bad, f"{preset} {mix}: {len(a)} tensors, {len(bad)} differ{text}")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("program")
    a.add_argument("--model", nargs="+")
    a.add_argument("--vocab", action="append", default=[])
    a.add_argument("--mixes", action="store_true")
    a.add_argument("--scalings", action="store_true")
    a.add_argument("--shapes", help="presets, for instance deepseek-llm-7b,deepseek-moe-16b")
    a.add_argument("--mix", default=",".join(MIXES))
    a.add_argument("--presets")
    a.add_argument("--types", default=",".join(TOLERANCE))
    a.add_argument("--layers")
    a.add_argument("--std")
    a.add_argument("--keep")
    o = a.parse_args()
    try:
        import llama_cpp
    except ImportError:
        print("skipped: llama-cpp-python is not installed")
        return 77
    o.presets = o.presets or ("dense-tiny,deepseek-v3-tiny" if o.mixes else
                              ",".join(["dense-tiny", "moe-tiny", *LATENT, *DISTILLED]))
    o.layers = o.layers or ("32" if o.mixes else "2")
    report = Report()
    for path in o.model or []:
        check_model(report, o.program, path, llama_cpp)
    if o.mixes:
        check_mixes(report, o, llama_cpp)
    elif o.shapes:
        check_shapes(report, o, llama_cpp)
    elif o.scalings:
        check_scalings(report, o, llama_cpp)
    elif not o.model:
        check_written(report, o, llama_cpp)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
