#!/usr/bin/env python3
"""Writes the twin of a deepseek2 GGUF model in the older layout: attn_kv_b whole instead of attn_k_b
and attn_v_b, with the keys that go with it (deepseek-facts 4.1).

    tools/mla_whole.py MODEL OUT

The matrices in question must be F32, F16 or BF16. Needs numpy.
"""
import struct
import sys

import numpy as np

from f16_twin import ALIGN, BLOCK, Reader, read

A = b"deepseek2.attention."


def pairs_of(keys, n):
    """[(key, bytes of the whole pair, its number if it is one of 4 bytes)]"""
    r, out = Reader(keys), []
    for _ in range(n):
        start = r.at
        key, kind = r.string(), r.number("I")
        value = r.at
        r.skip_value(kind)
        raw = bytes(keys[start:r.at])
        out.append((key, raw, struct.unpack("<I", keys[value:r.at])[0] if kind == 4 else None))
    return out


def older_keys(keys, n):
    pairs = pairs_of(keys, n)
    number = {key: v for key, _, v in pairs}
    new = {A + b"head_count_kv": number[A + b"head_count"],
           A + b"key_length": number[A + b"key_length_mla"],
           A + b"value_length": number[A + b"value_length_mla"]}
    kept = [raw[:-4] + struct.pack("<I", new[key]) if key in new else raw
            for key, raw, _ in pairs if not key.endswith(b"_mla")]
    return b"".join(kept), len(kept)


def whole(k_b, v_b, sizes):
    """[H, r, dn] and [H, dv, r], as bytes -> [H (dn + dv), r]"""
    dn, r, heads, width = sizes
    k = np.frombuffer(k_b, dtype=f"<u{width}").reshape(heads, r, dn)
    v = np.frombuffer(v_b, dtype=f"<u{width}").reshape(heads, -1, r)
    both = np.concatenate([k.transpose(0, 2, 1), v], 1)
    return both.tobytes(), [r, both.shape[0] * both.shape[1]]


def make_whole(model, out):
    with open(model, "rb") as f:
        data = memoryview(f.read())
    keys, n_kv, tensors, base = read(data)
    keys, n_kv = older_keys(keys, n_kv)
    raw, infos, body, at, n_out = {}, b"", [], 0, 0
    for name, ne, kind, offset in tensors:
        size = int(np.prod(ne, dtype=np.int64)) // BLOCK[kind][0] * BLOCK[kind][1]
        raw[name] = bytes(data[base + offset:base + offset + size])
    for name, ne, kind, _ in tensors:
        x = raw[name]
        if b"attn_v_b" in name:
            continue
        if b"attn_k_b" in name:
            x, ne = whole(x, raw[name.replace(b"_k_b", b"_v_b")], [*ne, BLOCK[kind][1]])
            name = name.replace(b"_k_b", b"_kv_b")
        infos += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(ne))
        infos += struct.pack("<%dQIQ" % len(ne), *ne, kind, at)
        body.append(x + bytes(-len(x) % ALIGN))
        at += len(body[-1])
        n_out += 1
    head = b"GGUF" + struct.pack("<IQQ", 3, n_out, n_kv) + keys + infos
    with open(out, "wb") as f:
        f.write(head + bytes(-len(head) % ALIGN) + b"".join(body))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    make_whole(*sys.argv[1:])
