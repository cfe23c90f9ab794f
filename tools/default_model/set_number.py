#!/usr/bin/env python3
"""Changes a float32 metadata value of a GGUF in place: the sampling settings are chosen after training.

    set_number.py model.gguf general.sampling.temp=0.5 general.sampling.top_p=0.9

The key must be there already and hold a float32; nothing else in the file changes.
"""
import struct
import sys

FLOAT32 = 6


def find_value(data, key):
    """-> offset of the key's float32 in the file's bytes"""
    raw = key.encode("utf-8")
    entry = struct.pack("<Q", len(raw)) + raw + struct.pack("<I", FLOAT32)
    at = data.find(entry)
    if data[:4] != b"GGUF" or at < 0 or data.find(entry, at + 1) >= 0:
        sys.exit(f"no single float32 key '{key}' in this file")
    return at + len(entry)


def main(argv):
    if len(argv) < 2:
        sys.exit(__doc__)
    with open(argv[0], "r+b") as f:
        data = f.read()
        for word in argv[1:]:
            key, _, value = word.partition("=")
            f.seek(find_value(data, key))
            f.write(struct.pack("<f", float(value)))


if __name__ == "__main__":
    main(sys.argv[1:])
