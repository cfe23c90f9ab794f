"""The command plan: sizes follow the header, contexts follow memory, speeds are there."""
import json
import unittest

from program import main, model, run


class Plan(unittest.TestCase):
    def plan(self, *args):
        rc, out, err = run("plan", model("moe", "f32"), "-t", "1", "--json", *args)
        self.assertEqual((rc, err), (0, b""))
        return json.loads(out)

    def test_object(self):
        o = self.plan("-c", "640")
        self.assertEqual(set(o), {"model", "machine", "memory", "caches", "speed"})
        self.assertEqual(o["model"]["arch"], "deepseek")
        m = o["memory"]
        self.assertEqual(m["n_ctx"], 640)
        self.assertIs(m["fits"], True)
        caches = {c["type"]: c for c in o["caches"]}
        self.assertEqual(caches["f32"]["pos_bytes"], 2 * caches["f16"]["pos_bytes"])
        self.assertEqual(m["cache_bytes"], 640 * caches["f16"]["pos_bytes"])
        for c in o["caches"]:  # whole pages, as many as fit and not one more
            left = m["available_bytes"] - m["weight_bytes"] - m["scratch_bytes"]
            self.assertEqual(c["n_ctx"] % 64, 0)
            self.assertLessEqual(c["n_ctx"] * c["pos_bytes"], left)
            self.assertGreater((c["n_ctx"] + 64) * c["pos_bytes"], left)
        s = o["speed"]
        self.assertGreater(s["prefill_tok_s"], 0)
        self.assertGreaterEqual(s["decode_tok_s"], s["deep_tok_s"])
        self.assertGreater(s["deep_tok_s"], 0)

    def test_memory_and_cache_type(self):
        wide = self.plan("--cache-type", "f32", "-c", "640")
        need = sum(wide["memory"][k] for k in ("weight_bytes", "cache_bytes", "scratch_bytes"))
        tight = self.plan("--cache-type", "f32", "-c", "640", "--memory", str(need - 1))
        self.assertIs(tight["memory"]["fits"], False)
        self.assertEqual(tight["memory"]["available_bytes"], need - 1)
        self.assertGreaterEqual({c["type"]: c["n_ctx"] for c in tight["caches"]}["f16"], 640)
        none = self.plan("--memory", "4096")
        self.assertEqual([c["n_ctx"] for c in none["caches"]], [0] * len(none["caches"]))

    def test_text(self):
        rc, out, _ = run("plan", model("moe", "f32"), "-t", "1", "--memory", "4096")
        self.assertEqual(rc, 0)
        self.assertIn(b"does not fit", out)
        self.assertIn(b"--memory", out)

    def test_refusals(self):
        self.assertEqual(run("plan")[0], 2)
        rc, out, err = run("plan", "no-such-file.gguf")
        self.assertEqual((rc, out), (1, b""))
        self.assertIn(b"no-such-file.gguf", err)
        self.assertEqual(run("plan", model("moe", "f32"), "--cache-type", "q1")[0], 2)


if __name__ == "__main__":
    main()
