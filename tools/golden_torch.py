#!/usr/bin/env python3
"""Writes what torch.save makes, from the safetensors of tests/golden/hf:

    hf/moe_torch     the model of hf/moe as two pytorch_model-*.bin with an index
    torch/plain.bin  every kind of entry a state dictionary may hold: types, shapes, a parameter, a
                     view into a larger storage, tied weights, the _metadata of a module
    torch/strided.bin, torch/nested.bin, torch/evil.bin, torch/legacy.bin   to be refused

    tools/golden_torch.py tests/golden
"""
import collections
import json
import os
import shutil
import struct
import sys

import numpy as np
import torch

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_safetensors(path):
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        head = json.loads(f.read(n))
        data = f.read()
    out = collections.OrderedDict()
    for name, t in head.items():
        if name == "__metadata__":
            continue
        b, e = t["data_offsets"]
        out[name] = torch.frombuffer(bytearray(data[b:e]), dtype=DTYPES[t["dtype"]]).reshape(t["shape"])
    return out


def model(root):
    src, dst = os.path.join(root, "hf", "moe"), os.path.join(root, "hf", "moe_torch")
    os.makedirs(dst, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "logits.f32"):
        shutil.copy(os.path.join(src, name), os.path.join(dst, name))
    with open(os.path.join(src, "model.safetensors.index.json")) as f:
        shards = sorted(set(json.load(f)["weight_map"].values()))
    listed = {}
    for i, shard in enumerate(shards):
        state = read_safetensors(os.path.join(src, shard))
        name = f"pytorch_model-{i + 1:05d}-of-{len(shards):05d}.bin"
        torch.save(state, os.path.join(dst, name))
        listed.update({k: name for k in state})
    with open(os.path.join(dst, "pytorch_model.bin.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": listed}, f, indent=1, sort_keys=True)


class Evil:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


def plain(root):
    out = os.path.join(root, "torch")
    os.makedirs(out, exist_ok=True)

    def put(name, x, **how):
        torch.save(x, os.path.join(out, name), **how)
    net = torch.nn.Linear(3, 2)
    with torch.no_grad():
        net.weight.copy_(torch.arange(6.0).reshape(2, 3))
        net.bias.copy_(torch.tensor([-1.0, 0.5]))
    state = net.state_dict()
    long = torch.arange(20, dtype=torch.float16)
    state["half"] = long[4:16].reshape(3, 4)
    state["brain"] = torch.tensor([1.0, -2.5], dtype=torch.bfloat16)
    state["ids"] = torch.tensor([[7, -9]], dtype=torch.int64)
    state["flags"] = torch.tensor([True, False])
    state["empty"] = torch.zeros(0, 4)
    state["one"] = torch.tensor(3.25)
    state["tied"] = state["weight"]
    state["parameter"] = torch.nn.Parameter(torch.tensor([8.0]))
    put("plain.bin", state)
    put("strided.bin", {"t": torch.arange(6.0).reshape(2, 3).t()})
    put("nested.bin", {"model": {"a": torch.zeros(2)}})
    put("evil.bin", {"a": torch.zeros(2), "b": Evil()})
    put("legacy.bin", {"a": torch.zeros(2)}, _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.manual_seed(1)
    model(sys.argv[1])
    plain(sys.argv[1])
    print("torch", torch.__version__, "numpy", np.__version__)
