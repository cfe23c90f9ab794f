#!/usr/bin/env python3
"""Holds this program to another implementation, llama-cpp-python, which must load its models and give
the same ids and log-probabilities as `qiusuo tokenize` and `qiusuo score`.

    tools/check_llama_cpp.py build/qiusuo [--vocab FILE]... [--presets A,B] [--types T,U] [--layers N]
                                          [--keep FOLDER]
        models that `qiusuo init` writes: all presets and types
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
alone: over 27 layers, or by groups, rounding makes near ties choose other ones (one such token of 32
made 1.7e-2 of an F16 model's 4e-4).
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

TOLERANCE = {"F32": 1e-5, "F16": 1e-3, "BF16": 6e-3, "Q8_0": 2.4e-2, "Q4_0": 2.4e-2}
MODEL_TOLERANCE, TWIN_TOLERANCE, POSITIONS = 0.02, 0.003, 200
GGML_F32, GGML_F16 = 0, 1
# that program takes a model of 27 layers, and no other, for V2-Lite, whose queries come without a rank
LATENT = {"deepseek-v2-lite-tiny": ("27", "F32 F16"), "deepseek-v3-tiny": ("4", "F32")}

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


def mean_difference(program, path, llama_cpp, ids, cache):
    """Of log-probabilities, over the ten likeliest ids of each position; raises when the other program
    does not load the model. cache: a GGML type, or None for what each takes on its own."""
    more = {} if cache is None else {"type_k": cache, "type_v": cache}
    m = llama_cpp.Llama(model_path=path, n_ctx=len(ids) + 1, n_batch=len(ids) + 1, logits_all=True,
                        verbose=False, n_threads=2, **more)
    out = subprocess.run([program, "score", "-m", path, "--ids", " ".join(map(str, ids)), "--top",
                          "10", *(["--kv", "f32"] if cache == GGML_F32 else [])],
                         check=True, stdout=subprocess.PIPE).stdout
    top = [json.loads(line)["top"] for line in out.splitlines()]
    if len(top) != len(ids) or any(len(t) != 10 for t in top):
        raise ValueError("score gives %d positions for %d ids" % (len(top), len(ids)))
    m.eval(ids)
    total, n = 0.0, 0
    for pos, likeliest in enumerate(top):
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

    def difference(self, what, program, path, llama_cpp, ids, cache, allowed):
        try:
            d = mean_difference(program, path, llama_cpp, ids, cache)
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
    cmd = [o.program, "init", "--preset", preset, "--type", t, "--layers", layers, "--std", o.std,
           "-o", path]
    subprocess.run(cmd + (["--vocab", vocab] if vocab else []), check=True)
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


def check_written(report, o, llama_cpp):
    with tempfile.TemporaryDirectory() as temp:
        for preset in o.presets.split(","):
            for t in o.types.split(","):
                if preset in LATENT and t not in LATENT[preset][1].split():
                    continue
                for vocab in [None] + o.vocab:
                    check_one(report, o, llama_cpp, preset, t, vocab, o.keep or temp)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("program")
    a.add_argument("--model", nargs="+")
    a.add_argument("--vocab", action="append", default=[])
    a.add_argument("--presets", default=",".join(["dense-tiny", "moe-tiny", *LATENT]))
    a.add_argument("--types", default=",".join(TOLERANCE))
    a.add_argument("--layers", default="2")
    a.add_argument("--std", default="0.06")
    a.add_argument("--keep")
    o = a.parse_args()
    try:
        import llama_cpp
    except ImportError:
        print("skipped: llama-cpp-python is not installed")
        return 77
    report = Report()
    for path in o.model or []:
        check_model(report, o.program, path, llama_cpp)
    if not o.model:
        check_written(report, o, llama_cpp)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
