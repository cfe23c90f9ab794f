"""The command bench: the fixed form of its object, CSV, refusals."""
import csv
import io
import json
import os
import unittest

from program import FOLDER, main, model, run


class Bench(unittest.TestCase):
    def ok(self, *args):
        rc, out, err = run("bench", *args)
        self.assertEqual(rc, 0, err)
        self.assertEqual(err, b"")  # no progress in a pipe
        return out.decode()

    def test_object(self):
        out = self.ok("-m", model("moe", "f32"), "--prompt", "20", "--gen", "3", "--depth", "5",
                      "--batch", "2", "--threads", "1", "--train", "64", "-r", "1", "--json")
        self.assertEqual(out.count("\n"), 1)
        o = json.loads(out)
        self.assertEqual(set(o), {"machine", "model", "runs"})
        self.assertEqual(o["machine"]["threads"], 1)
        for key in ("read_gb_s", "int8_gop_s", "bf16_gflop_s", "fp32_gflop_s"):
            self.assertGreater(o["machine"][key], 0)
        self.assertEqual(o["model"]["arch"], "deepseek")
        self.assertEqual([(r["test"], r["n"], r["depth"], r["batch"]) for r in o["runs"]],
                         [("prefill", 20, 5, 2), ("decode", 3, 5, 2), ("train", 64, 0, 1)])
        for r in o["runs"]:
            self.assertGreater(r["tok_s"], 0)
            self.assertAlmostEqual(r["share"], r["tok_s"] / r["limit_tok_s"],
                                   delta=2e-5 * r["share"])
        decode = o["runs"][1]  # two sequences a step
        self.assertAlmostEqual(2000 / decode["limit_tok_s"],
                               max(decode["limit_bytes_ms"], decode["limit_ops_ms"]), delta=1e-3)
        self.assertNotIn("limit_ops_ms", o["runs"][0])

    def test_csv(self):
        out = self.ok(model("moe", "f32"), "-p", "8", "-n", "2", "-t", "1", "--no-train", "-r",
                      "1", "--csv")
        rows = list(csv.DictReader(io.StringIO(out)))
        self.assertEqual([r["test"] for r in rows], ["prefill", "decode"])
        self.assertTrue(all(float(r["tok_s"]) > 0 for r in rows))

    def test_refusals(self):
        self.assertEqual(run("bench", "--batch", "0")[0], 2)
        self.assertEqual(run("bench", "--json", "--csv")[0], 2)
        rc, out, err = run("bench", "-m", os.path.join(FOLDER, "none.gguf"))
        self.assertEqual((rc, out), (1, b""))
        self.assertIn(b"none.gguf", err)
        rc, _, err = run("bench", "--isa", "amx9")
        self.assertEqual(rc, 1)
        self.assertIn(b"amx9", err)


if __name__ == "__main__":
    main()
