"""The command doctor: lines for people and one object, exit 0 whatever it finds."""
import json
import os
import unittest

from program import ENV, FOLDER, main, run


class Doctor(unittest.TestCase):
    def test_lines(self):
        rc, out, err = run("doctor")
        self.assertEqual((rc, err), (0, b""))
        keys = []
        for line in out.decode().split("\n\n")[0].splitlines():
            if line.startswith(" "):
                self.assertEqual(keys[-1][0], "warn")
                self.assertTrue(line.endswith("."))
            else:
                keys.append((line[:5].strip(), line[6:20].strip()))
        self.assertTrue({"cpu", "levels", "cores", "memory", "huge pages", "numa", "locked memory",
                         "sandbox", "disk", "frequency"} <= {k for _, k in keys})

    def test_object(self):
        rc, out, _ = run("doctor", "--json", env=dict(ENV, XDG_CACHE_HOME=FOLDER))
        self.assertEqual(rc, 0)
        findings = {f["key"]: f for f in json.loads(out)["findings"]}
        self.assertIn(os.path.join(FOLDER, "qiusuo"), findings["disk"]["value"])
        for f in findings.values():
            self.assertEqual(f["ok"], f["advice"] == "")

    def test_refusals(self):
        self.assertEqual(run("doctor", "--fix")[0], 2)
        self.assertEqual(run("doctor", "me")[0], 2)


if __name__ == "__main__":
    main()
