#!/usr/bin/env python3
"""Writes tests/golden/quant/blocks.bin: for every type the reference encoding and decoding of fixed
float32 rows by the `gguf` Python package (its quantisers equal ggml's reference code, but for the
sign of the scale of an all-negative-zero block, which is therefore left out).

File, little-endian: u32 n; n float32 inputs; then per record: u32 type id, u32 encoded bytes,
the encoded bytes, n float32 decoded.

    tools/golden_quant.py tests/golden/quant/blocks.bin
"""
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

rng = np.random.default_rng(1)
rows = [
    rng.standard_normal(32 * 16).astype(np.float32),
    (rng.standard_normal(32 * 8) * np.float32(1e-3)).astype(np.float32),
    (rng.standard_normal(32 * 4) * np.float32(3e4)).astype(np.float32),
    np.zeros(32, np.float32),
    np.linspace(-1, 1, 32, dtype=np.float32),            # ties and both extremes
    np.array([127, -127, 0.5, -0.5, 1.5, -1.5, 2.5, 63.5] * 4, np.float32),
    np.array([8, -8, 7.5, -7.5, 0.5, -0.5, 3.5, -3.5] * 4, np.float32),
    (rng.standard_normal(32 * 2) * np.float32(1e-7)).astype(np.float32),  # binary16 denormals
    np.array([65504, 65519, 5.9604645e-8, 2.9802322e-8, 2.98023224e-8 * 1.01, 6.1035156e-5,
              6.097555e-5, 1e-30] * 4, np.float32),
    np.exp2(rng.uniform(-28, 15, 32 * 8)).astype(np.float32),
]
x = np.concatenate(rows)
assert x.size % 32 == 0
with open(sys.argv[1], "wb") as f:
    f.write(struct.pack("<I", x.size))
    f.write(x.astype("<f4").tobytes())
    for t in (T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0):
        with np.errstate(over="ignore"):
            enc = np.ascontiguousarray(quantize(x.reshape(1, -1), t)).view(np.uint8).ravel()
        dec = dequantize(enc.reshape(1, -1), t).astype("<f4").ravel()
        f.write(struct.pack("<II", int(t), enc.size))
        f.write(enc.tobytes())
        f.write(dec.tobytes())
