#!/usr/bin/env python3
"""Writes two files of reference results by the `gguf` Python package.

tests/golden/quant/blocks.bin: for the types that package encodes the encoding and decoding of fixed
float32 rows (its quantisers equal ggml's reference code, but for the
sign of the scale of an all-negative-zero block, which is therefore left out).

File, little-endian: u32 n; n float32 inputs; then per record: u32 type id, u32 encoded bytes,
the encoded bytes, n float32 decoded.

tests/golden/quant/decode.bin: blocks of random bytes of every block format and what they decode to.
Records: u32 type id, u32 n; the encoded bytes, n float32 decoded.

    tools/golden_quant.py tests/golden/quant/blocks.bin tests/golden/quant/decode.bin
"""
import struct
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
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
    for t in (T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.MXFP4):
        with np.errstate(over="ignore"):
            enc = np.ascontiguousarray(quantize(x.reshape(1, -1), t)).view(np.uint8).ravel()
        dec = dequantize(enc.reshape(1, -1), t).astype("<f4").ravel()
        f.write(struct.pack("<II", int(t), enc.size))
        f.write(enc.tobytes())
        f.write(dec.tobytes())

FACTORS = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.IQ4_NL: [0],
           T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_XS: [0],
           T.MXFP4: []}
with open(sys.argv[2], "wb") as f:
    for t, places in FACTORS.items():
        block, size = GGML_QUANT_SIZES[t]
        n = 8 if block == 256 else 24
        enc = rng.integers(0, 256, (n, size), dtype=np.uint8)
        # Most factors of a usual size; the first blocks keep random ones, infinities and denormals.
        special = np.array([0, 0x8000, 0x7c00, 0xfc00, 1, 0x03ff, 0x7bff], np.uint16)
        for i in range(1, n):
            for at in places:
                d = np.float16(rng.standard_normal() * 0.01).view(np.uint16)
                if i <= 2:
                    d = rng.choice(special)
                enc[i, at:at + 2] = np.array([d], "<u2").view(np.uint8)
        with np.errstate(all="ignore"):
            dec = dequantize(enc.reshape(1, -1), t).astype("<f4").ravel()
        f.write(struct.pack("<II", int(t), dec.size))
        f.write(enc.tobytes())
        f.write(dec.tobytes())
