"""Files that lie: structured malformations of every format that the program reads, each from a sound
file by one change. Standard library only.

    python3 malform.py FOLDER [fuzz]    writes them all (fuzz: as corpus files per target instead)

Each case is (name, what, {file: bytes}, words): "info": `qiusuo info` refuses the first of the files;
"folder": it refuses the folder they are in; "convert": `qiusuo convert` refuses that; "fine": they are sound; and what the one message says.
"""
import json
import os
import struct
import sys
import zlib

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q",
           I64: "q", F64: "d"}


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(s)) + s


def value(kind, v):
    if kind == STR:
        return text(v)
    if kind == ARR:
        elem, items = v
        return struct.pack("<IQ", elem, len(items)) + b"".join(value(elem, i) for i in items)
    return struct.pack("<" + FORMATS[kind], v)


def pair(key, kind, v):
    return text(key) + struct.pack("<I", kind) + value(kind, v)


def info(name, dims, kind, offset):
    return text(name) + struct.pack("<I", len(dims)) + struct.pack("<%dQ" % len(dims), *dims) + \
        struct.pack("<IQ", kind, offset)


def gguf(pairs, infos, data, version=3, n_kv=None, n_tensors=None, magic=b"GGUF", align=32):
    head = magic + struct.pack("<IQQ", version, len(infos) if n_tensors is None else n_tensors,
                               len(pairs) if n_kv is None else n_kv)
    head += b"".join(pairs) + b"".join(infos)
    return head + b"\0" * (-len(head) % align) + data


ARCH = pair("general.architecture", STR, "llama")
# sound: two tensors of 32 floats
T0, T1 = info("a.weight", [32], 0, 0), info("b.weight", [32], 0, 128)
DATA = bytes(256)
SOUND = gguf([ARCH], [T0, T1], DATA)


def gguf_cases():
    def one(name, blob, *words):
        return (name, "info", {name + ".gguf": blob}, words)

    big = pair("x", U32, 1)
    yield ("sound", "fine", {"sound.gguf": SOUND}, ())
    yield one("not_gguf", gguf([ARCH], [T0, T1], DATA, magic=b"GGJT"))
    yield one("big_endian", gguf([ARCH], [T0, T1], DATA, version=0x03000000), "big-endian")
    yield one("version_1", gguf([ARCH], [T0, T1], DATA, version=1), "version")
    yield one("version_9", gguf([ARCH], [T0, T1], DATA, version=9), "version")
    for bits in (33, 62, 63):
        yield one("tensors_2_%d" % bits, gguf([ARCH], [T0, T1], DATA, n_tensors=1 << bits))
        yield one("keys_2_%d" % bits, gguf([ARCH], [T0, T1], DATA, n_kv=1 << bits))
    yield one("tensors_all_ones", gguf([ARCH], [T0, T1], DATA, n_tensors=2**64 - 1))
    yield one("one_tensor_more", gguf([ARCH], [T0, T1], DATA, n_tensors=3))
    for n in range(0, len(SOUND), len(SOUND) // 23):
        yield one("cut_%d" % n, SOUND[:n])
    # dims
    for name, dims in (("zero", [0]), ("negative", [2**63]), ("product_wraps", [2**33, 2**33]),
                       ("bytes_wrap", [2**62]), ("product_wraps_to_32", [2**32, 2**32 + 1]),
                       ("none", []), ("nine", [1] * 9), ("huge", [2**40, 4])):
        yield one("dims_" + name, gguf([ARCH], [info("a.weight", dims, 0, 0)], DATA), "a.weight")
    yield one("half_a_block", gguf([ARCH], [info("a.weight", [33], 8, 0)], DATA), "a.weight")
    # offsets
    for name, at in (("overlap", 64), ("same", 0), ("past_the_end", 4096), ("odd", 130),
                     ("wraps", 2**64 - 32), ("half_past", 224)):
        yield one("offset_" + name, gguf([ARCH], [T0, info("b.weight", [32], 0, at)], DATA))
    for name, v in (("0", 0), ("3", 3), ("2_31", 2**31), ("1", 1)):
        yield one("alignment_" + name, gguf([ARCH, pair("general.alignment", U32, v)], [T0, T1], DATA),
                  "alignment")
    yield one("alignment_text", gguf([ARCH, pair("general.alignment", STR, "32")], [T0, T1], DATA))
    # names and keys
    for name, s in (("empty", ""), ("escape", "a\x1b[2J"), ("not_utf8", b"\xff\xfe"), ("long", "n" * 65)):
        yield one("name_" + name, gguf([ARCH], [info(s, [32], 0, 0)], DATA))
    yield one("name_twice", gguf([ARCH], [T0, info("a.weight", [32], 0, 128)], DATA), "a.weight")
    yield one("key_twice", gguf([ARCH, big, big], [T0, T1], DATA))
    yield one("key_past_the_end", gguf([struct.pack("<Q", 2**40) + b"x"], [], b"", n_kv=1))
    yield one("string_past_the_end", gguf([text("x") + struct.pack("<IQ", STR, 2**63)], [T0], DATA))
    yield one("string_wraps", gguf([text("x") + struct.pack("<IQ", STR, 2**64 - 8)], [T0], DATA))
    yield one("type_of_nothing", gguf([text("x") + struct.pack("<II", 77, 0)], [T0], DATA))
    yield one("tensor_type_200", gguf([ARCH], [info("a.weight", [32], 200, 0)], DATA), "a.weight")
    yield one("tensor_type_removed", gguf([ARCH], [info("a.weight", [32], 4, 0)], DATA), "a.weight")
    yield one("bool_7", gguf([text("x") + struct.pack("<IB", BOOL, 7)], [], b""))
    # arrays
    yield one("array_in_array", gguf([text("x") + struct.pack("<IIQ", ARR, ARR, 1) +
                                      struct.pack("<IQ", U8, 0)], [], b""), "arrays")
    deep = text("x") + struct.pack("<I", ARR) + struct.pack("<IQ", ARR, 1) * 20000
    yield one("array_20000_deep", gguf([deep], [], b""), "arrays")
    for kind, bits in ((U64, 61), (U8, 63), (STR, 60), (F64, 40)):
        blob = gguf([text("x") + struct.pack("<IIQ", ARR, kind, 1 << bits)], [], b"")
        yield one("array_%d_of_2_%d" % (kind, bits), blob.ljust(160, b"\0"), "claims")
    yield one("array_of_type_99", gguf([text("x") + struct.pack("<IIQ", ARR, 99, 1)], [], bytes(64)))
    yield one("strings_that_end", gguf([text("x") + struct.pack("<IIQ", ARR, STR, 3) + text("a") +
                                        struct.pack("<Q", 2**62)], [], bytes(64)))


def split_cases():
    def part(no, count, infos, data, total=2, more=()):
        pairs = ([ARCH] if no == 0 else []) + list(more)
        pairs += [pair("split.no", U16, no), pair("split.count", U16, count),
                  pair("split.tensors.count", I32, total)]
        return gguf(pairs, infos, data)

    b0 = info("b.weight", [32], 0, 0)
    first = part(0, 2, [T0], DATA[:128])
    second = part(1, 2, [b0], DATA[:128])

    def two(name, a, b, *words):
        files = {"%s-00001-of-00002.gguf" % name: a}
        if b is not None:
            files["%s-00002-of-00002.gguf" % name] = b
        return ("split_" + name, "info", files, words)

    yield ("split_sound", "fine", two("sound", first, second)[2], ())
    yield two("missing", first, None, "00002-of-00002")
    yield two("empty", first, b"")
    yield two("no_part", first, SOUND)
    yield two("other_count", first, part(1, 3, [b0], DATA[:128]))
    yield two("other_number", first, part(0, 2, [b0], DATA[:128]))
    yield two("twice", first, part(1, 2, [info("a.weight", [32], 0, 0)], DATA[:128]), "a.weight")
    yield two("too_few", part(0, 2, [T0], DATA[:128], total=3), part(1, 2, [b0], DATA[:128], total=3))
    yield two("too_many", part(0, 2, [T0], DATA[:128], total=1), part(1, 2, [b0], DATA[:128], total=1))
    yield two("count_65535", part(0, 65535, [T0], DATA[:128]), second)
    yield two("cut", first, second[:-64])


def safetensors(header, data=b"", size=None):
    h = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(h) if size is None else size) + h + data


def safetensors_cases():
    def one(name, blob, *words):
        return ("st_" + name, "info", {"st_%s.safetensors" % name: blob}, words)

    def entry(dtype="F32", shape=(4,), at=(0, 16)):
        return {"dtype": dtype, "shape": list(shape), "data_offsets": list(at)}

    data = bytes(16)
    yield ("st_sound", "fine", {"st_sound.safetensors": safetensors({"a": entry()}, data)}, ())
    for name, size in (("2_63", 2**63), ("all_ones", 2**64 - 1), ("gigabytes", 3 << 30), ("past", 500)):
        yield one("header_" + name, safetensors({"a": entry()}, data, size))
    yield one("empty", b"")
    yield one("no_json", safetensors(b"{]", data))
    yield one("deep", safetensors(b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}", data))
    yield one("twice", safetensors(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), data))
    for name, e in (("negative", entry(at=(-8, 8))), ("backwards", entry(at=(16, 0))),
                    ("past_the_end", entry(shape=(8,), at=(0, 32))), ("too_short", entry(shape=(3,))),
                    ("wraps", entry(shape=(2**62, 4))), ("shape_negative", entry(shape=(-4,))),
                    ("float_offset", entry(at=(0, 16.5))), ("dtype", entry(dtype="F99")),
                    ("ten_dims", entry(shape=(1,) * 9 + (4,))), ("huge", entry(at=(0, 2**70)))):
        yield one(name, safetensors({"a": e}, data))
    yield one("overlap", safetensors({"a": entry(), "b": entry()}, data))
    yield one("gap", safetensors({"a": entry(), "b": entry(at=(20, 36))}, bytes(36)))
    index = {"metadata": {}, "weight_map": {"a": "../../etc/passwd"}}
    for name, where in (("climbs", "../../etc/passwd"), ("absolute", "/etc/passwd"), ("missing", "x.safetensors"),
                        ("dots", ".."), ("number", 7)):
        index = {"metadata": {}, "weight_map": {"a": where}}
        yield ("index_" + name, "info",
               {"model.safetensors.index.json": json.dumps(index).encode()}, ())


CONFIG = {"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1,
          "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2,
          "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}


def config_cases():
    """Configurations that no model has, beside a sound safetensors file."""
    weights = safetensors({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(16))

    def one(name, config, *words, what="folder"):
        blob = config if isinstance(config, bytes) else json.dumps(config).encode()
        return ("config_" + name, what, {"model.safetensors": weights, "config.json": blob}, words)

    yield one("no_json", b"{")
    yield one("deep", b'{"a":' * 100000 + b"1" + b"}" * 100000)
    yield one("array", b"[]")
    yield one("unknown", dict(CONFIG, model_type="gpt2"), "gpt2", what="convert")
    for name, scaling in (("negative", {"type": "yarn", "factor": -4}), ("unknown", {"type": "x"}),
                          ("no_factor", {"type": "linear"}), ("text", "linear")):
        yield one("rope_" + name, dict(CONFIG, rope_scaling=scaling), what="convert")
    for key, bad in (("num_hidden_layers", 2**31), ("num_hidden_layers", 0), ("num_attention_heads", 0),
                     ("hidden_size", -32), ("hidden_size", 2**62), ("vocab_size", 2**40),
                     ("intermediate_size", 0), ("num_key_value_heads", 3), ("rms_norm_eps", 1e300),
                     ("max_position_embeddings", 0), ("rope_theta", 0), ("hidden_size", "32")):
        yield one("%s_%s%s" % (key, type(bad).__name__, str(bad)[:6]), dict(CONFIG, **{key: bad}))


def zipped(entries, method=0, claim=None, at=0):
    """A zip archive of (name, bytes); claim: the size that the directory says instead."""
    out, central = b"", b""
    for name, blob in entries:
        name = name.encode()
        body = zlib.compress(blob)[2:-4] if method == 8 else blob
        size = len(blob) if claim is None else claim
        fields = struct.pack("<HHHHHIII", 20, 0, method, 0, 0, zlib.crc32(blob), len(body), size)
        central += b"PK\1\2" + struct.pack("<H", 20) + fields + \
            struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, len(out)) + name
        out += b"PK\3\4" + fields + struct.pack("<HH", len(name), 0) + name + body
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(central),
                                  len(out) + at, 0)
    return out + central + end


def torch_cases():
    def one(name, blob, *words):
        return ("torch_" + name, "folder", {"pytorch_model.bin": blob,
                                            "config.json": json.dumps(CONFIG).encode()}, words)

    def pickled(ops):
        return zipped([("archive/data.pkl", b"\x80\x02" + ops + b".")])

    yield one("calls_system", pickled(b"cposix\nsystem\nX\x02\x00\x00\x00id\x85R"), "system")
    yield one("calls_eval", pickled(b"c__builtin__\neval\nX\x01\x00\x00\x001\x85R"), "eval")
    yield one("builds_anything", pickled(b"ctorch.nn\nModule\n)R}b"), "torch.nn.Module")
    yield one("stack_empty", pickled(b"0000"))
    yield one("memo_missing", pickled(b"h\x63"))
    yield one("string_past", pickled(b"X\xff\xff\xff\x7f"))
    yield one("long_of_gigabytes", pickled(b"\x8b\xff\xff\xff\x7f"))
    yield one("marks", pickled(b"(" * 1000000))
    yield one("no_end", zipped([("archive/data.pkl", b"\x80\x02}")]))
    yield one("bomb", zipped([("archive/data.pkl", bytes(1 << 24))], method=8))
    yield one("claims_gigabytes", zipped([("archive/data.pkl", b"\x80\x02}.")], claim=0xfffffff0))
    yield one("directory_past", zipped([("archive/data.pkl", b"\x80\x02}.")], at=1 << 30))
    yield one("no_pickle", zipped([("archive/other", b"x")]))
    yield one("cut", zipped([("archive/data.pkl", b"\x80\x02}.")])[:-10])


def all_cases():
    for make in (gguf_cases, split_cases, safetensors_cases, config_cases, torch_cases):
        yield from make()


def write(folder, files):
    for name, blob in files.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(blob)


def main():
    folder, fuzz = sys.argv[1], len(sys.argv) > 2
    for name, command, files, _ in all_cases():
        first = next(iter(files))
        target = {".gguf": "gguf", ".safetensors": "safetensors", ".bin": "torchzip"}.get(
            os.path.splitext(first)[1])
        if fuzz and (target is None or name.startswith("cut_") or "config" in name or
                     sum(map(len, files.values())) > 4096):
            continue
        where = os.path.join(folder, target) if fuzz else os.path.join(folder, name)
        if fuzz and name.startswith("split_"):
            where = os.path.join(folder, "split")
            parts = [*files.values(), b""]
            files = {first: struct.pack("<H", len(parts[0])) + parts[0] + parts[1]}
        os.makedirs(where, exist_ok=True)
        write(where, {"malformed_" + name: files[first]} if fuzz else files)


if __name__ == "__main__":
    main()
