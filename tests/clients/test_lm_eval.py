#!/usr/bin/env python3
"""lm-eval's local-completions against `qiusuo serve`, with a task of our own: log-likelihoods by echo. The
choices are verses that every model of classical Chinese knows, and ones that none would write.

usage: test_lm_eval.py PROGRAM MODEL     with a Python that has lm-eval
"""
import json
import os
import re
import subprocess
import sys
import tempfile

from test_clients import start

VERSES = [("春眠不觉", ["晓", "山"]), ("床前明月", ["光", "牛"]), ("白日依山", ["尽", "饭"])]
TASK = """task: own_poems
dataset_path: json
dataset_kwargs:
  data_files: {test: %s}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{choices}}"
doc_to_target: a
target_delimiter: ""
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


def main(program, model):
    with tempfile.TemporaryDirectory() as d:
        data = os.path.join(d, "verses.jsonl")
        with open(data, "w", encoding="utf-8") as f:
            for q, choices in VERSES:
                f.write(json.dumps({"q": q, "choices": choices, "a": 0}, ensure_ascii=False) + "\n")
        with open(os.path.join(d, "own.yaml"), "w", encoding="utf-8") as f:
            f.write(TASK % data)
        subprocess.run([program, "convert", model, os.path.join(d, "hf") + "/"], check=True)
        p, url = start(program, model)
        try:
            args = (f"model=,base_url={url}/v1/completions,tokenizer={d}/hf,tokenized_requests=True,"
                    "num_concurrent=1")
            r = subprocess.run([sys.executable, "-m", "lm_eval", "--model", "local-completions",
                                "--model_args", args, "--include_path", d, "--tasks", "own_poems"],
                               env=dict(os.environ, HF_HUB_OFFLINE="1", HF_HOME=d), cwd=d,
                               capture_output=True, text=True, check=False)
        finally:
            p.terminate()
            p.wait(30)
    m = re.search(r"own_poems.*acc\s*\|.*?\|\s*([0-9.]+)\s*\|", r.stdout)
    if r.returncode or not m or float(m.group(1)) != 1:
        raise SystemExit(r.stdout[-2000:] + r.stderr[-2000:])
    print("lm-eval agrees")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
