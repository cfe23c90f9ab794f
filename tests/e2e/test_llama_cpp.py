"""Parity with another implementation, llama-cpp-python: models written by init, and the default model,
load there and give the same ids and log-probabilities (tools/check_llama_cpp.py has the tolerances).

Called as: python3 test_llama_cpp.py PROGRAM MAKE_TINY_MODEL SOURCE_ROOT [unittest arguments]
Needs a Python that has llama-cpp-python: the one QIUSUO_REF_PYTHON names, or this one, or python3.
Without one the test is skipped, and says so.
"""
import glob
import json
import os
import subprocess
import sys
import unittest

ROOT = os.path.abspath(sys.argv.pop(3))

from program import ENV, FOLDER, PROGRAM, main, model, run  # noqa: E402

TIMEOUT = 280
REF_ENV = {**ENV, "PYTHONDONTWRITEBYTECODE": "1"}


def reference_python():
    named = os.environ.get("QIUSUO_REF_PYTHON")
    for python in [named] if named else [sys.executable, "python3"]:
        try:
            p = subprocess.run([python, "-c", "import llama_cpp, numpy"], capture_output=True,
                               env=REF_ENV, timeout=TIMEOUT)
        except OSError:
            continue
        if p.returncode == 0:
            return python
    return None


PYTHON = reference_python()


def tool(name, *args):
    p = subprocess.run([PYTHON, os.path.join(ROOT, "tools", name), *args], stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, env=REF_ENV, timeout=TIMEOUT, text=True)
    return p.returncode, p.stdout, p.stderr


def write_model(preset, kind, vocab=None):
    """A random model of a real vocabulary, with logits of deviation 1."""
    path = os.path.join(FOLDER, f"{preset}-{kind}.gguf")
    rc, _, err = run("init", "--preset", preset, "--type", kind, "--layers", "2", "--std", "0.06",
                     "--vocab", vocab or model("moe", "f32"), "-o", path)
    assert rc == 0, err
    return path


class LlamaCpp(unittest.TestCase):
    def check(self, *args):
        rc, out, err = tool("check_llama_cpp.py", PROGRAM, *args)
        self.assertEqual(rc, 0, out + err)
        lines = out.splitlines()
        self.assertTrue(lines and all(line.startswith("ok ") for line in lines), out)
        print(out, end="", flush=True)
        return lines

    def test_every_type_dense(self):
        self.assertEqual(len(self.check("--presets", "dense-tiny")), 20)

    def test_every_type_moe(self):
        self.assertEqual(len(self.check("--presets", "moe-tiny")), 20)

    def test_latent_attention(self):
        lines = self.check("--presets", "deepseek-v2-lite-tiny,deepseek-v3-tiny")
        self.assertEqual(len(lines), 6)  # three types, both file layouts

    def test_distilled_models(self):
        lines = self.check("--presets", "r1-distill-qwen-tiny,r1-distill-llama-tiny,r1-0528-qwen3-tiny",
                           "--types", "F32,F16,Q8_0,Q4_K_M")
        self.assertEqual(len(lines), 12)

    def test_distilled_models_ids(self):
        tok = os.path.join(ROOT, "tests", "golden", "tok", "%s", "tokenizer.json")
        lines = self.check("--model",
                           write_model("r1-distill-llama-tiny", "Q8_0", tok % "llama-bpe"),
                           write_model("r1-0528-qwen3-tiny", "Q8_0", tok % "deepseek-r1-qwen"))
        self.assertEqual(len(lines), 6)

    def test_mixes(self):
        lines = self.check("--mixes", "--mix", "Q2_K_M,Q3_K_M,Q4_K_S,Q4_K_M,Q5_K_M")
        self.assertEqual(len(lines), 10)

    def test_rope_scalings(self):
        self.assertEqual(len(self.check("--scalings")), 10)

    def test_ids_and_positions(self):
        lines = self.check("--model", write_model("moe-tiny", "Q8_0"),
                           write_model("dense-tiny", "Q8_0"))
        self.assertEqual(len(lines), 6)
        self.assertEqual(sum("at 200 positions" in line for line in lines), 4)

    def test_default_model(self):
        found = glob.glob(os.path.join(ROOT, "models", "default", "*.gguf"))
        if not found:
            self.skipTest("models/default holds no model")
        self.assertEqual(len(self.check("--model", *found)), 3 * len(found))

    def test_difference_is_seen(self):
        """Weights that are not the model's: the comparison must notice."""
        a, b = write_model("moe-tiny", "Q8_0"), os.path.join(FOLDER, "other.gguf")
        with open(a, "rb") as f:
            data = bytearray(f.read())
        data[-4 * 34 * 1000:] = bytes(4 * 34 * 1000)
        with open(b, "wb") as f:
            f.write(data)
        code = ("import sys; sys.path.insert(0, sys.argv[1]); import check_llama_cpp as c, llama_cpp\n"
                "real = c.subprocess.run\n"
                "c.subprocess.run = lambda cmd, **k: real([sys.argv[3] if x == sys.argv[4] else x "
                "for x in cmd], **k)\n"
                "r = c.Report()\n"
                "r.difference('other', sys.argv[2], sys.argv[4], llama_cpp, list(range(5, 60)), None, "
                "c.MODEL_TOLERANCE)\n"
                "sys.exit(r.failed)")
        p = subprocess.run([PYTHON, "-c", code, os.path.join(ROOT, "tools"), PROGRAM, b, a],
                           capture_output=True, env=REF_ENV, timeout=TIMEOUT, text=True)
        self.assertEqual(p.returncode, 1, p.stdout + p.stderr)
        self.assertIn("mean difference", p.stdout)


class Twin(unittest.TestCase):
    """The F16 twin is the model: our own log-probabilities of both, which share no dequantisation."""
    LIMIT = {"F32": 2e-3, "F16": 0, "BF16": 6e-3, "Q8_0": 2.4e-2, "Q4_0": 2.4e-2}

    def top(self, path):
        rc, out, err = run("score", "-m", path, "--ids", " ".join(map(str, range(5, 105))), "--top",
                           "300", "--kv", "f32")
        self.assertEqual(rc, 0, err)
        return [dict(json.loads(line)["top"]) for line in out.splitlines()]

    def test_same_model(self):
        for kind, limit in self.LIMIT.items():
            path, twin = write_model("moe-tiny", kind), os.path.join(FOLDER, "twin.gguf")
            rc, out, err = tool("f16_twin.py", path, twin)
            self.assertEqual((rc, out), (0, ""), err)
            a, b = self.top(path), self.top(twin)
            d = [abs(x[i] - y[i]) for x, y in zip(a, b) for i in list(x)[:10]]
            self.assertEqual(len(d), 1000)
            self.assertLessEqual(sum(d) / len(d), limit, kind)
            rc, out, err = run("info", twin)
            self.assertEqual(rc, 0, err)


if __name__ == "__main__":
    if PYTHON is None:
        print("skipped: no Python here has llama-cpp-python (QIUSUO_REF_PYTHON names one)")
        sys.exit(77)
    main()
