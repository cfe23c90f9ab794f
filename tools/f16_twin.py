#!/usr/bin/env python3
"""Writes the F16 twin of a GGUF model: the same keys, every matrix dequantised and rounded to F16.

    tools/f16_twin.py MODEL OUT

Vectors, and matrices that are F32 in the model (norms and routers), stay as they are. Two programs
that read the twin multiply by the same numbers, so that what differs is their arithmetic and not how
they treat a quantised type. Needs numpy. Format: GGUF versions 2 and 3, little-endian.
"""
import struct
import sys

import numpy as np

F32, F16, Q4_0, Q8_0, BF16 = 0, 1, 2, 8, 30
BLOCK = {F32: (1, 4), F16: (1, 2), BF16: (1, 2), Q8_0: (32, 34), Q4_0: (32, 18)}  # values, bytes
SCALAR = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
ALIGN = 32


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if n > len(self.data) - self.at:
            raise ValueError("the file ends at byte %d" % len(self.data))
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize(form)))[0]

    def string(self):
        return bytes(self.take(self.number("Q")))

    def skip_value(self, kind):
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            elem, n = self.number("I"), self.number("Q")
            for _ in range(n if elem in (STRING, ARRAY) else 0):
                self.skip_value(elem)
            if elem in SCALAR:
                self.take(n * SCALAR[elem])
        else:
            self.take(SCALAR[kind])


def decode(raw, kind, n):
    """n values of a type as float32."""
    raw = np.frombuffer(raw, dtype=np.uint8)
    if kind == F32:
        return raw.view("<f4")
    if kind == F16:
        return raw.view("<f2").astype(np.float32)
    if kind == BF16:
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    blocks = raw.reshape(n // 32, BLOCK[kind][1])
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    if kind == Q8_0:
        return (blocks[:, 2:].view(np.int8) * scale).reshape(-1)
    low, high = blocks[:, 2:] & 15, blocks[:, 2:] >> 4
    return ((np.concatenate([low, high], axis=1).astype(np.float32) - 8) * scale).reshape(-1)


def read(data):
    """(header of keys as bytes, their number, tensors, alignment, first byte of the tensors)"""
    r = Reader(data)
    if bytes(r.take(4)) != b"GGUF" or r.number("I") not in (2, 3):
        raise ValueError("no GGUF file of version 2 or 3")
    n_tensors, n_kv = r.number("Q"), r.number("Q")
    keys, align, n_kept = b"", ALIGN, 0
    for _ in range(n_kv):
        start = r.at
        key, kind = r.string(), r.number("I")
        value = r.at
        r.skip_value(kind)
        if key == b"general.alignment":
            align = struct.unpack("<I", bytes(data[value:r.at]))[0]
            continue
        pair = bytes(data[start:r.at])
        if key == b"general.file_type":
            pair = pair[:value - start] + struct.pack("<I", 1)  # mostly F16
        keys += pair
        n_kept += 1
    tensors = []
    for _ in range(n_tensors):
        name = r.string()
        ne = [r.number("Q") for _ in range(r.number("I"))]
        tensors.append((name, ne, r.number("I"), r.number("Q")))
    return keys, n_kept, tensors, (r.at + align - 1) // align * align


def write(path, keys, n_kv, tensors, base, data):
    infos, at, new = b"", 0, []
    for name, ne, kind, offset in tensors:
        n = int(np.prod(ne, dtype=np.int64))
        out = kind if len(ne) < 2 or kind == F32 else F16
        size = n // BLOCK[out][0] * BLOCK[out][1]
        infos += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(ne))
        infos += struct.pack("<%dQIQ" % len(ne), *ne, out, at)
        new.append((kind, out, n, base + offset, at))
        at += (size + ALIGN - 1) // ALIGN * ALIGN
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), n_kv) + keys + infos
    head += bytes(-len(head) % ALIGN)
    with open(path, "wb") as f:
        f.write(head)
        for kind, out, n, source, offset in new:
            f.seek(len(head) + offset)
            raw = data[source:source + n // BLOCK[kind][0] * BLOCK[kind][1]]
            f.write(raw if out == kind else decode(raw, kind, n).astype("<f2").tobytes())
        f.truncate(len(head) + at)


def make_twin(model, out):
    with open(model, "rb") as f:
        data = memoryview(f.read())
    keys, n_kv, tensors, base = read(data)
    write(out, keys, n_kv, tensors, base, data)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    make_twin(*sys.argv[1:])
