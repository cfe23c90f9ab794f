"""A GGUF file as a folder that transformers reads: the fields of config.json have the types that its
classes want (tests/golden/hf/field_types.json), the tokenizer puts BOS where the file does, ends and
sampling are there. With transformers and torch at hand (tools/check_transformers.py) the folders are
loaded, and the numbers compared.

Called as: python3 test_export.py PROGRAM MAKE_TINY_MODEL SOURCE_ROOT [unittest arguments]
QIUSUO_REF_PYTHON names the Python that has transformers, torch, gguf and numpy.
"""
import json
import os
import subprocess
import sys
import unittest

ROOT = os.path.abspath(sys.argv.pop(3))

from program import ENV, FOLDER, PROGRAM, main, model, run  # noqa: E402

PRESETS = {"dense-tiny": "LlamaForCausalLM", "deepseek-coder-tiny": "LlamaForCausalLM",
           "moe-tiny": "DeepseekForCausalLM", "deepseek-v2-lite-tiny": "DeepseekV2ForCausalLM",
           "deepseek-v2-tiny": "DeepseekV2ForCausalLM", "deepseek-v3-tiny": "DeepseekV3ForCausalLM",
           "deepseek-v3.2-tiny": "DeepseekV32ForCausalLM", "r1-distill-qwen-tiny": "Qwen2ForCausalLM",
           "r1-distill-llama-tiny": "LlamaForCausalLM", "r1-0528-qwen3-tiny": "Qwen3ForCausalLM"}
# of the field "rope_scaling", whose parts no class declares: modeling_rope_utils.py
ROPE = {"type": str, "rope_type": str, "original_max_position_embeddings": int, "factor": float,
        "beta_fast": float, "beta_slow": float, "mscale": float, "mscale_all_dim": float,
        "attention_factor": float, "low_freq_factor": float, "high_freq_factor": float}
KIND = {str: "str", int: "int", float: "float", bool: "bool", type(None): "null", list: "list",
        dict: "dict"}
with open(os.path.join(ROOT, "tests", "golden", "hf", "field_types.json"), encoding="utf-8") as f:
    FIELDS = json.load(f)
# read before the class is built, or of no class
OTHERS = {"architectures": list, "model_type": str, "torch_dtype": str, "rope_theta": float,
          "rope_scaling": (dict, type(None)), "moe_layer_freq": int, "scoring_func": str,
          "topk_method": str, "num_nextn_predict_layers": int, "index_topk": int, "attention_bias": bool,
          "qiusuo": dict}


def export(name, source):
    folder = os.path.join(FOLDER, name)
    rc, _, err = run("convert", source, folder + "/")
    assert rc == 0, err
    return folder


def read(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        return json.load(f)


class Fields(unittest.TestCase):
    def check_types(self, preset, config):
        fields = FIELDS.get(config["model_type"], {})
        for key, value in config.items():
            kind = type(value)
            if key in fields:
                self.assertIn(KIND[kind], fields[key], f"{preset}: {key} is {value!r}")
            elif config["model_type"] in FIELDS or key in OTHERS:
                self.assertIn(key, OTHERS, f"{preset}: {key}, which no class has")
                self.assertIsInstance(value, OTHERS[key], f"{preset}: {key} is {value!r}")
        for key, value in (config["rope_scaling"] or {}).items():
            self.assertIs(type(value), ROPE[key], f"{preset}: rope_scaling {key} is {value!r}")

    def test_every_architecture(self):
        for preset, name in PRESETS.items():
            path = os.path.join(FOLDER, preset + ".gguf")
            more = ["--mtp"] if preset == "deepseek-v3-tiny" else []
            rc, _, err = run("init", "--preset", preset, "--type", "Q8_0", "-o", path, *more)
            self.assertEqual(rc, 0, err)
            config = read(export(preset, path), "config.json")
            self.assertEqual(config["architectures"], [name])
            self.check_types(preset, config)
            self.assertEqual("num_nextn_predict_layers" in config, preset == "deepseek-v3-tiny")

    def test_whole_numbers_of_v2(self):
        """16 in the place of 16.0 is refused by transformers' strict classes."""
        path = os.path.join(FOLDER, "v2.gguf")
        self.assertEqual(run("init", "--preset", "deepseek-v2-tiny", "-o", path)[0], 0)
        with open(os.path.join(export("v2", path), "config.json"), encoding="utf-8") as f:
            text = f.read()
        self.assertIn('"routed_scaling_factor":16.0,', text)
        self.assertIn('"mscale":0.707,', text)


class Tokenizer(unittest.TestCase):
    def test_bos_and_ends(self):
        folder = export("words", model("moe", "f32"))
        config, tok = read(folder, "tokenizer_config.json"), read(folder, "tokenizer.json")
        ids = {t["content"]: t["id"] for t in tok["added_tokens"]}
        bos, eos = config["bos_token"], config["eos_token"]
        self.assertIs(config["add_bos_token"], True)
        post = tok["post_processor"]
        self.assertEqual(post["type"], "TemplateProcessing")
        first = {"SpecialToken": {"id": bos, "type_id": 0}}
        self.assertEqual(post["single"], [first, {"Sequence": {"id": "A", "type_id": 0}}])
        self.assertEqual(post["pair"], [first, {"Sequence": {"id": "A", "type_id": 0}},
                                        {"SpecialToken": {"id": bos, "type_id": 1}},
                                        {"Sequence": {"id": "B", "type_id": 1}}])
        self.assertEqual(post["special_tokens"], {bos: {"id": bos, "ids": [ids[bos]], "tokens": [bos]}})
        self.assertEqual(config["model_input_names"], ["input_ids", "attention_mask"])
        self.assertEqual(read(folder, "generation_config.json")["eos_token_id"][0], ids[eos])
        rc, out, err = run("tokenize", "-m", folder, stdin="春 x")
        self.assertEqual((rc, out.split()[0]), (0, str(ids[bos]).encode()), err)
        self.assertEqual(out, run("tokenize", "-m", model("moe", "f32"), stdin="春 x")[1])


def reference_python():
    named = os.environ.get("QIUSUO_REF_PYTHON")
    for python in [named] if named else [sys.executable, "python3"]:
        try:
            p = subprocess.run([python, "-c", "import transformers, torch, gguf, numpy"],
                               capture_output=True, timeout=120, env=ENV)
        except OSError:
            continue
        if p.returncode == 0:
            return python
    return None


class Transformers(unittest.TestCase):
    PYTHON = reference_python()

    def check(self, *args):
        if self.PYTHON is None:
            self.skipTest("no Python with transformers, torch and gguf")
        p = subprocess.run([self.PYTHON, os.path.join(ROOT, "tools", "check_transformers.py"), PROGRAM,
                            *args], capture_output=True, text=True, timeout=1500,
                           env={**ENV, "PYTHONDONTWRITEBYTECODE": "1"})
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr[-2000:])
        lines = [x for x in p.stdout.splitlines() if x.startswith("ok ")]
        self.assertTrue(lines)
        print("\n".join(lines), flush=True)

    def test_presets(self):
        self.check("--vocab", model("moe", "f32"))

    def test_goldens(self):
        self.check("--goldens", os.path.join(ROOT, "tests", "golden"))

    def test_scalings(self):
        self.check("--scalings")

    def test_default_model(self):
        self.check("--model", os.path.join(ROOT, "models", "default", "qiusuo-default.gguf"))


if __name__ == "__main__":
    main()
