#!/usr/bin/env python3
"""Holds the folders that `qiusuo convert MODEL.gguf FOLDER/` writes to transformers, which loads them
with its own classes (no code from a folder runs), and holds the float64 goldens to the same classes.

    tools/check_transformers.py build/qiusuo [--vocab FILE ...] [--presets A,B]
        models of the tiny presets: every tensor is found and none is left over; log-probabilities of all
        ids at POSITIONS positions, in F32, and in BF16 of what was Q4_K_M or Q8_0; with --vocab ids of
        texts, their way back, the chat template and the settings of sampling
    tools/check_transformers.py build/qiusuo --goldens tests/golden
        the folders of tests/golden/hf and the exported models of tests/golden/*.gguf against the numbers
        that were computed for them from the equations, the layer that predicts further (MTP) included
    tools/check_transformers.py build/qiusuo --scalings
        a dense model at twice the positions that it was made for: linear, dynamic, YaRN
    tools/check_transformers.py build/qiusuo --types tests/golden/hf/field_types.json
        writes the types that transformers' classes want of the fields of a config.json

Needs transformers (5.24 knows all classes but DeepSeekMoE v1's, which is code in its folder and is
left out) and torch; without them exits 77 (skipped). Prints one line a check, exits 1 when one fails.

Tolerance: both sides compute in F32 with sums in another order; differences were at most 1e-5 at
logits of deviation 1, allowed is 5e-5. Goldens are compared in float64, of which transformers does norms
and routers in F32: 5e-5 too, as the tests hold this program to.
"""
import argparse
import glob
import json
import math
import os
import subprocess
import sys
import tempfile

from check_llama_cpp import STD, TEXTS, Report

os.environ.update(TRANSFORMERS_OFFLINE="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
POSITIONS, ALLOWED = 96, 5e-5
PRESETS = ("dense-tiny,deepseek-coder-tiny,deepseek-v2-lite-tiny,deepseek-v2-tiny,deepseek-v3-tiny,"
           "deepseek-v3.2-tiny,r1-distill-qwen-tiny,r1-distill-llama-tiny,r1-0528-qwen3-tiny")
CLASSES = ("Llama", "Qwen2", "Qwen3", "DeepseekV2", "DeepseekV3", "DeepseekV32")
MESSAGES = [{"role": "system", "content": "Be brief.\n"}, {"role": "user", "content": "春眠不觉晓"},
            {"role": "assistant", "content": "处处闻啼鸟"}, {"role": "user", "content": "Go on, please."}]
SAMPLING = {"general.sampling.temp": "temperature", "general.sampling.top_p": "top_p",
            "general.sampling.top_k": "top_k", "general.sampling.min_p": "min_p",
            "general.sampling.penalty_repeat": "repetition_penalty"}


def quiet(*cmd, **more):
    return subprocess.run(cmd, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          **more).stdout


def load(folder, dtype):
    """The folder's model, and what of it does not fit the class."""
    from transformers import AutoConfig, AutoModelForCausalLM
    config = AutoConfig.from_pretrained(folder)
    rope = config.rope_parameters
    if "attn_factor" in rope:  # that class reads "attention_factor", the whole of it (docs/distills.md)
        rope["attention_factor"] = (0.1 * math.log(rope["factor"]) + 1) * rope["attn_factor"]
    m, info = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype,
                                                   output_loading_info=True, attn_implementation="eager",
                                                   experts_implementation="eager")
    # the layer that predicts further is read by a class of its own
    last = "model.layers.%d." % m.config.num_hidden_layers
    wrong = {k: sorted(n for n in v if not n.startswith(last)) for k, v in info.items()}
    return m.eval(), {k: v for k, v in wrong.items() if v}


def logprobs_of(m, ids):
    import torch
    with torch.no_grad():
        return m(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()


def difference(program, path, ids, want, *options):
    """Largest, over all ids of all positions; NaN where a number of one side is none."""
    import numpy as np
    out = quiet(program, "score", "-m", path, "--ids", " ".join(map(str, ids)), "--top",
                str(want.shape[1]), "--cache-type", "f32", *options)
    got = np.full(want.shape, np.nan)
    for pos, line in enumerate(out.splitlines()):
        for i, p in json.loads(line)["top"]:
            got[pos, i] = p
    return float(np.abs(got - want).max())


class Check:
    def __init__(self, o, report):
        self.o, self.report = o, report

    def logprobs(self, what, source, folder):
        import torch
        m, wrong = load(folder, torch.float32)
        name = type(m).__name__
        self.report.line(not wrong, f"{what}: tensors of {name}: {wrong or 'all there, none over'}")
        size = m.config.vocab_size
        ids = [(7 + 37 * i + i * i % 11) % size for i in range(POSITIONS)]
        off = difference(self.o.program, source, ids, logprobs_of(m, ids))
        self.report.line(off <= ALLOWED, f"{what}: {name}, all ids at {POSITIONS} positions: {off:.1e}")
        return m

    def tokenizer(self, what, source, folder):
        from transformers import AutoTokenizer
        t = AutoTokenizer.from_pretrained(folder)
        ids, back = 0, 0
        for text in TEXTS + ["\n\n".join(TEXTS), "x<" + (t.eos_token or "") + "y"]:
            ours = [int(x) for x in quiet(self.o.program, "tokenize", "-m", source,
                                          input=text.encode()).split()]
            theirs = t(text)["input_ids"]
            ids += theirs != ours
            begin = 1 if theirs[:1] == [t.bos_token_id] else 0
            back += t.decode(theirs[begin:]) != text
        self.report.line(ids == 0 and back == 0, f"{what}: {type(t).__name__}, {len(TEXTS) + 2} texts: "
                         f"ids of {ids} differ, {back} do not come back")
        return t

    def settings(self, what, source, t, generation):
        """Template and sampling are those of the file."""
        from gguf import GGUFReader
        from jinja2.sandbox import ImmutableSandboxedEnvironment
        r = GGUFReader(source)
        field = r.get_field("tokenizer.chat_template")
        if field is not None:
            jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
            want = jinja.from_string(field.contents()).render(
                messages=MESSAGES, add_generation_prompt=True, bos_token=t.bos_token,
                eos_token=t.eos_token)
            got = t.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
            self.report.line(got == want, f"{what}: chat template")
        for key, name in SAMPLING.items():
            if (f := r.get_field(key)) is not None:
                x, y = f.contents(), getattr(generation, name)
                self.report.line(abs(x - y) < 1e-6, f"{what}: {name} {y}")
        eos = generation.eos_token_id
        ends = eos if isinstance(eos, list) else [eos]
        self.report.line(t.eos_token_id in ends, f"{what}: ends {ends}")

    def preset(self, preset, vocab, folder):
        program = self.o.program
        for kind in ("F32", "Q8_0"):
            path, out = os.path.join(folder, f"{kind}.gguf"), os.path.join(folder, kind) + "/"
            more = ["--vocab", vocab] if vocab else []
            if preset.startswith(("deepseek-v3",)):
                more += ["--mtp"]
            quiet(program, "init", "--preset", preset, "--type", kind, "--std", STD.get(preset, "0.06"),
                  "-o", path, *more)
            quiet(program, "convert", path, out)
            source = path
            if kind != "F32":  # the BF16 that the folder has, read back into a file that computes in F32
                source = os.path.join(folder, "back.gguf")
                quiet(program, "convert", out, source, "--type", "F32")
            what = f"{preset} {kind}"
            m = self.logprobs(what, source, out)
            if vocab and kind == "F32":
                t = self.tokenizer(what, source, out)
                self.settings(what, source, t, m.generation_config)

    def model(self, path, folder):
        """A file with a vocabulary and a template of its own; of DeepSeekMoE v1 the tokenizer alone."""
        from transformers import GenerationConfig
        out, back = os.path.join(folder, "model") + "/", os.path.join(folder, "model.gguf")
        what = os.path.basename(path)
        quiet(self.o.program, "convert", path, out)
        with open(os.path.join(out, "config.json")) as f:
            if json.load(f)["model_type"] != "deepseek":
                quiet(self.o.program, "convert", out, back, "--type", "F32")
                self.logprobs(what, back, out)
        t = self.tokenizer(what, path, out)
        self.settings(what, path, t, GenerationConfig.from_pretrained(out))


def check_scalings(o, report):
    """Rotary positions stretched from 512 to 1024. "dynamic" there goes by the length that has come,
    here by the whole context: the two are the same where the sequence fills it."""
    import torch
    with tempfile.TemporaryDirectory() as temp:
        path, folder = os.path.join(temp, "model.gguf"), os.path.join(temp, "folder", "")
        quiet(o.program, "init", "--preset", "dense-tiny", "--type", "F32", "--std", "0.06", "-o", path)
        quiet(o.program, "convert", path, folder)
        with open(folder + "config.json") as f:
            config = json.load(f)
        for kind in ("linear", "dynamic", "yarn"):
            config["rope_scaling"] = {"rope_type": kind, "factor": 2.0,
                                      "original_max_position_embeddings": 512}
            with open(folder + "config.json", "w") as f:
                json.dump(config, f)
            m = load(folder, torch.float32)[0]
            ids = [(7 + 37 * i + i * i % 11) % 512 for i in range(1024)]
            off = difference(o.program, path, ids, logprobs_of(m, ids), "-c", "1024",
                             "--rope-scaling", kind)
            report.line(off <= ALLOWED, f"scaling {kind}, 1024 of 512 positions: {off:.1e}")


def golden_file(path):
    """ids, log-probabilities of the last positions, and those of MTP or None"""
    from gguf import GGUFReader
    t = {t.name: t.data for t in GGUFReader(path).tensors}
    if "golden.logprobs" not in t:
        return None  # of training
    return [int(i) for i in t["golden.ids"]], t["golden.logprobs"], t.get("golden.mtp_logprobs")


def golden_folder(folder):
    import numpy as np
    import torch
    with open(os.path.join(folder, "logits.f32"), "rb") as f:
        n = int(np.fromfile(f, "<i4", 1)[0])
        ids, z = np.fromfile(f, "<i4", n).tolist(), np.fromfile(f, "<f4").reshape(n, -1)
    return ids, torch.tensor(z).double().log_softmax(-1).numpy(), None


def first_of_equals(x, k, dim=-1, **_):
    """The k largest; of equal ones (an indexer's scores where every head gives 0) the first."""
    import torch
    v, i = torch.sort(x, dim=dim, descending=True, stable=True)
    return torch.return_types.topk((v.narrow(dim, 0, k), i.narrow(dim, 0, k)))


def further_of(m, ids):
    """Log-probabilities that the layer behind the last gives for the token after the next."""
    import torch
    from transformers.modeling_layers import MtpModel
    # the class knows that layer under the number that it has in the released models
    m._keys_to_ignore_on_load_unexpected = [r"model\.layers\.%d\." % m.config.num_hidden_layers]
    mtp = MtpModel.from_pretrained(m).double()
    n = len(ids) - 1
    with torch.no_grad():
        h = m.model(torch.tensor([ids])).last_hidden_state[:, :n]
        x, pos = mtp.embed_tokens(torch.tensor([ids[1:]])), torch.arange(n)[None]
        mask = torch.full((n, n), float("-inf"), dtype=h.dtype).triu(1)[None, None]
        y = mtp.layers[0](x, h, mtp.rotary_emb(x, pos), mask, pos, None)
        return m.lm_head(y)[0].double().log_softmax(-1).numpy()


def check_golden(o, report, name, source, golden):
    """source: a folder or a GGUF file; what is not F32 in it goes through `convert` first."""
    import numpy as np
    import torch
    ids, want, further = golden
    with tempfile.TemporaryDirectory() as temp:
        folder = os.path.join(source, "")
        if os.path.isfile(source) or name.endswith(("fp8", "v32")):
            folder, path = os.path.join(temp, "folder", ""), os.path.join(temp, "model.gguf")
            quiet(o.program, "convert", source, path, "--type", "F32")
            quiet(o.program, "convert", path, folder)
        m, wrong = load(folder, torch.float64)
        what = f"{name}: {type(m).__name__}"
        off = float(np.abs(logprobs_of(m, ids)[-len(want):] - want).max())
        report.line(not wrong and off <= ALLOWED,
                    f"{what}, {len(want)} positions: {off:.1e} {wrong or ''}")
        if further is not None:
            off = float(np.abs(further_of(m, ids)[-len(further):] - further).max())
            report.line(off <= ALLOWED,
                        f"{what}, the token after the next, {len(further)} positions: {off:.1e}")


def check_goldens(o, report):
    import torch
    torch.Tensor.topk = first_of_equals
    for folder in sorted(glob.glob(os.path.join(o.goldens, "hf", "*", ""))):
        with open(os.path.join(folder, "config.json")) as f:
            if json.load(f)["model_type"] == "deepseek":
                continue  # that class is code in the folder
        name = os.path.basename(os.path.dirname(folder))
        check_golden(o, report, name, folder, golden_folder(folder))
    for path in sorted(glob.glob(os.path.join(o.goldens, "*.gguf"))):
        golden = golden_file(path)
        if golden is not None:
            check_golden(o, report, os.path.basename(path), path, golden)


def write_types(path):
    """{model type: {field: [JSON types]}} of transformers' classes, which refuse other types."""
    import dataclasses
    import typing

    import transformers
    names = {int: "int", float: "float", bool: "bool", str: "str", type(None): "null", list: "list",
             dict: "dict"}
    out = {}
    for name in CLASSES:
        c, fields = getattr(transformers, name + "Config"), {}
        for f in dataclasses.fields(c):
            parts = typing.get_args(f.type) or [f.type]
            kinds = {names.get(typing.get_origin(p) or p) for p in parts} - {None}
            if kinds and not isinstance(f.type, str):
                fields[f.name] = sorted(kinds)
        out[c.model_type] = fields
    with open(path, "w") as f:
        lines = (json.dumps(k) + ": " + json.dumps(v, sort_keys=True) for k, v in sorted(out.items()))
        f.write("{" + ",\n".join(lines) + "}\n")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("program")
    a.add_argument("--vocab", action="append", default=[])
    a.add_argument("--presets", default=PRESETS)
    a.add_argument("--model", action="append", default=[])
    a.add_argument("--goldens")
    a.add_argument("--types")
    a.add_argument("--scalings", action="store_true")
    o = a.parse_args()
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        print("skipped: transformers or torch is not installed")
        return 77
    report = Report()
    check = Check(o, report)
    with tempfile.TemporaryDirectory() as temp:
        if o.types:
            write_types(o.types)
        elif o.scalings:
            check_scalings(o, report)
        elif o.goldens:
            check_goldens(o, report)
        elif o.model:
            for path in o.model:
                check.model(path, temp)
        else:
            for i, preset in enumerate(o.presets.split(",")):
                check.preset(preset, o.vocab[i % len(o.vocab)] if o.vocab else None, temp)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
