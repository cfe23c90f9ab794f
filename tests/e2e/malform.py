"""Files that lie: structured malformations of every format that the program reads, each from a sound
file by one change. Standard library only.

    python3 malform.py FOLDER [fuzz]    writes them all (fuzz: as corpus files per target instead)

Each case is (name, what, {file: bytes}, words): "info": `qiusuo info` refuses the first of the files;
"folder": it refuses the folder they are in; "convert": `qiusuo convert` refuses that; "tokenize":
`qiusuo tokenize` refuses the first file; "chat": a conversation with the folder is refused, its text can
be continued; "fine", "tokenizes": they are sound; and what the one message says.
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


GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "hf", "dense")


def golden(name):
    with open(os.path.join(GOLDEN, name), "rb") as f:
        return f.read()


def config_cases():
    """Configurations that no model has, beside a sound safetensors file."""
    weights = safetensors({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(16))

    def one(name, config, *words, what="folder"):
        blob = config if isinstance(config, bytes) else json.dumps(config).encode()
        return ("config_" + name, what, {"model.safetensors": weights, "config.json": blob}, words)

    yield ("folder_without_tensors", "folder", {"model.safetensors": weights, "config.json": golden(
        "config.json"), "tokenizer.json": golden("tokenizer.json")}, ("model.embed_tokens.weight is missing",))
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


def byte_symbols():
    """The 256 characters that stand for bytes, as GPT-2 has them."""
    own = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    rest = [b for b in range(256) if b not in own]
    return [chr(b if b in own else 0x100 + rest.index(b)) for b in range(256)]


BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
TOKENS = byte_symbols() + ["ab", "abc", BOS, EOS]
TYPES = [1] * 258 + [3, 3]
MERGES = ["a b", "ab c"]
T = "tokenizer.ggml."


def vocabulary(tokens=TOKENS, types=TYPES, merges=MERGES, more=(), but=()):
    """A GGUF that is a vocabulary and nothing else. but: keys that are left out."""
    keys = {"model": (STR, "gpt2"), "pre": (STR, "deepseek-llm"), "tokens": (ARR, (STR, tokens)),
            "token_type": (ARR, (I32, types)), "merges": (ARR, (STR, merges)),
            "bos_token_id": (U32, 258), "eos_token_id": (U32, 259)}
    return gguf([ARCH] + [pair(T + k, *v) for k, v in keys.items() if k not in but] + list(more), [], b"")


def vocabulary_cases():
    def one(name, blob, *words):
        return ("vocab_" + name, "tokenize", {"vocab_%s.gguf" % name: blob}, words)

    def other(name, key, kind, v, *words):
        return one(name, vocabulary(but=(key,), more=[pair(T + key, kind, v)]), *words)

    scores = pair(T + "scores", ARR, (F32, [0.0] * len(TOKENS)))
    yield ("vocab_sound", "tokenizes", {"v.gguf": vocabulary(more=[scores])}, ())
    for n in (0, 1, len(TOKENS) - 1, len(TOKENS) + 1, 100000):
        yield other("types_%d" % n, "token_type", ARR, (I32, [1] * n), "token types")
        yield one("scores_%d" % n, vocabulary(more=[pair(T + "scores", ARR, (F32, [0.0] * n))]), "scores")
    for key in ("model", "tokens", "merges"):
        yield one("no_" + key, vocabulary(but=(key,)), T + key)
    yield other("no_tokens_at_all", "tokens", ARR, (STR, []))
    yield other("tokens_numbers", "tokens", ARR, (I32, [1] * 260), T + "tokens")
    yield other("tokens_one_text", "tokens", STR, "a b c", T + "tokens")
    yield other("merges_numbers", "merges", ARR, (U8, [1] * 9), T + "merges")
    yield other("types_floats", "token_type", ARR, (F32, [1.0] * 260), "token_type")
    yield other("types_texts", "token_type", ARR, (STR, ["1"] * 260), "token_type")
    for t in (0, 7, -1, 257, 2**31 - 1):
        yield one("type_%d" % t, vocabulary(types=[t] + TYPES[1:]), "token 0")
    for name, text_, words in (("empty", "", "token 257"), ("not_utf8", b"\xff\xfe", "token 257"),
                               ("half_a_character", b"\xe4\xbd", "token 257"),
                               ("surrogate", b"\xed\xa0\x80", "token 257"),
                               ("of_megabytes", "a" * (3 << 20), "token 257"), ("twice", "a", "both 'a'")):
        yield one("token_" + name, vocabulary(TOKENS[:257] + [text_] + TOKENS[258:], merges=MERGES[:1]), words)
    yield one("byte_without_symbol", vocabulary(["x" * 99] + TOKENS[1:]), "byte")
    for name, m, words in (("unknown_left", "zzz a", "merge 2"), ("unknown_right", "a zzz", "merge 2"),
                           ("makes_nothing", "a c", "merge 2"), ("twice", "a b", "the same"),
                           ("no_space", "ab", "merge 2"), ("two_spaces", "a b c", "merge 2"),
                           ("ends_in_space", "a ", "merge 2"), ("empty", "", "merge 2"),
                           ("of_markers", BOS + " a", "merge 2"), ("not_utf8", b"\xff a", "merge 2")):
        yield one("merge_" + name, vocabulary(merges=MERGES + [m]), words)
    for key in ("bos", "eos", "padding", "fim_pre"):
        for v in (260, 2**31, 2**32 - 1):
            yield other("%s_%d" % (key, v), key + "_token_id", U32, v, key)
        yield other(key + "_negative", key + "_token_id", I32, -7, key)
        yield other(key + "_text", key + "_token_id", STR, "258", key)
        yield other(key + "_float", key + "_token_id", F32, 258.0, key)
    yield other("bos_2_63", "bos_token_id", U64, 2**63)
    yield other("add_bos_number", "add_bos_token", U32, 1, "add_bos")
    yield other("other_model", "model", STR, "llama", "'llama'")
    yield other("model_number", "model", U32, 4, T + "model")
    yield other("other_pre", "pre", STR, "x" * 100000, "pre-tokenizer")
    yield one("no_pre", vocabulary(but=("pre",)), T + "pre")
    for name, kind, v in (("array", ARR, (STR, ["x"])), ("number", U32, 7)):
        yield one("template_" + name, vocabulary(more=[pair("tokenizer.chat_template", kind, v)]),
                  "chat_template")
    yield ("vocab_template_of_10_mb", "tokenizes", {"v.gguf": vocabulary(
        more=[pair("tokenizer.chat_template", STR, "{{ x }}" * (10 << 20 >> 3))])}, ())


def tokenizer_cases():
    """tokenizer.json, with tokenizer_config.json beside it."""
    sound = json.loads(golden("tokenizer.json"))
    n = 1 + max(t["id"] for t in sound["added_tokens"])

    def one(name, change, *words, config=None, what="tokenize"):
        blob = change
        if not isinstance(change, bytes):
            tok = json.loads(json.dumps(sound))
            change(tok)
            blob = json.dumps(tok).encode()
        files = {"tokenizer.json": blob}
        if config is not None:
            files["tokenizer_config.json"] = config if isinstance(config, bytes) else json.dumps(config).encode()
        return ("tok_" + name, what, files, words)

    def put(*path):
        """Puts the last of path at the place that the others name."""
        def change(tok):
            for key in path[:-2]:
                tok = tok[key]
            tok[path[-2]] = path[-1]
        return change

    def more(key, *items):
        def change(tok):
            (tok if key == "added_tokens" else tok["model"])[key].extend(items)
        return change

    yield one("sound", lambda tok: None, what="tokenizes")
    pairs = [m.split(" ") if isinstance(m, str) else m for m in sound["model"]["merges"]]
    yield one("merges_as_pairs", put("model", "merges", pairs), what="tokenizes")
    yield one("merges_as_texts", put("model", "merges", [" ".join(p) for p in pairs]), what="tokenizes")
    yield one("merges_of_both_kinds", put("model", "merges", pairs[:1] + [" ".join(p) for p in pairs[1:]]),
              what="tokenizes")
    whole = json.dumps(sound).encode()
    for share in (0, 1, 7, 50, 99):
        yield one("cut_%d" % share, whole[:len(whole) * share // 100], "tokenizer.json")
    yield one("deep", b'{"model":' + b"[" * 200000 + b"]" * 200000 + b"}", "nested")
    yield one("deep_objects", b'{"a":' * 200000 + b"1" + b"}" * 200000, "nested")
    yield one("not_utf8", whole.replace(b'"BPE"', b'"B\xff\xfeE"'))
    yield one("nul", whole.replace(b'"BPE"', b'"B\\u0000E"'))
    yield one("key_twice", whole.replace(b'"model":', b'"model": 1, "model":', 1))
    for name, v in (("array", b"[]"), ("number", b"7"), ("text", b'"x"'), ("null", b"null")):
        yield one("is_" + name, v)
    for name, v in (("none", None), ("array", []), ("text", "BPE"), ("number", 3), ("empty", {})):
        yield one("model_" + name, put("model", v))
    yield one("model_unigram", put("model", "type", "Unigram"), "Unigram")
    for name, v in (("array", ["a"]), ("number", 1), ("none", None), ("empty", {})):
        yield one("vocab_" + name, put("model", "vocab", v))
    for name, v in (("float", 1.5), ("text", "1"), ("negative", -1), ("2_40", 2**40), ("2_70", 2**70),
                    ("gap", n + 5), ("taken", 0), ("null", None), ("array", [1])):
        yield one("id_" + name, put("model", "vocab", "zz", v))
    for name, v in (("none", None), ("object", {}), ("text", "a b"), ("numbers", [1, 2]), ("nulls", [None])):
        yield one("merges_" + name, put("model", "merges", v), "merge")
    for name, v in (("three", ["a", "b", "c"]), ("one", ["a"]), ("numbers", [1, 2]), ("no_space", "ab"),
                    ("unknown", "zzz zzz"), ("empty_text", ""), ("nested", [["a", "b"], "c"])):
        yield one("merge_" + name, more("merges", v), "merge")
    added = {"content": "<x>", "special": True}
    for name, v in (("collides", {**added, "id": 0}), ("taken", {**added, "id": n - 1}),
                    ("gap", {**added, "id": n + 9}), ("huge", {**added, "id": 2**40}),
                    ("negative", {**added, "id": -3}), ("no_id", added), ("id_text", {**added, "id": "1"}),
                    ("no_content", {"id": n}), ("content_number", {"id": n, "content": 5}),
                    ("empty", {"id": n, "content": ""}), ("same_text", {"id": n, "content": BOS}),
                    ("text", "<x>"), ("null", None), ("of_megabytes", {"id": n, "content": "x" * (2 << 20)})):
        yield one("added_" + name, more("added_tokens", v))
    yield one("pre_missing", put("pre_tokenizer", None), "pre-tokenizer")
    yield one("pre_array", put("pre_tokenizer", []), "pre-tokenizer")
    yield one("pre_many", put("pre_tokenizer", "pretokenizers", [{"type": "Digits"}] * 5000), "pre-tokenizer")
    for name, regex in (("backtracks", "(a+)+$"), ("empty", ""), ("bracket", "["), ("wide", "[" + "a" * 100000),
                        ("all", "[\x01-\U0010ffff]"), ("backwards", "[z-a]")):
        yield one("regex_" + name, put("pre_tokenizer", "pretokenizers", [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]), "pre-tokenizer")
    yield one("normalizer", put("normalizer", {"type": "Replace"}), "normalizer")
    for name, v in (("cut", b'{"a":'), ("deep", b"[" * 200000), ("unknown_bos", {"bos_token": "<none>"})):
        yield one("config_" + name, lambda tok: None, config=v)
    for name, v in (("array", []), ("numbers", {"bos_token": 7, "chat_template": 9, "add_bos_token": "yes"}),
                    ("templates", {"chat_template": [{"name": "default"}, 7, {"template": "x"}]})):
        yield one("config_" + name, lambda tok: None, config=v, what="tokenizes")


def template_cases():
    """Templates that are programs: none runs, and none is taken for one that is known."""
    model = {name: golden(name) for name in ("config.json", "model.safetensors", "tokenizer.json")}
    user, assistant = "<｜User｜>", "<｜Assistant｜>"
    turns = "{%% for m in messages %%}{{ '%s' + m['content'] }}{%% endfor %%}" % user

    def one(name, text):
        return ("jinja_" + name, "chat", dict(model, **{"chat_template.jinja": text.encode()}),
                ("chat template is not known",))

    yield one("empty_loop", "{% for i in range(10**9) %}{% endfor %}")
    yield one("loop", "{% for i in range(10**9) %}{{ '#' * 10**9 }}{% endfor %}" + turns)
    yield one("loops", "{% for i in range(99999) %}" * 2000 + "x" + "{% endfor %}" * 2000)
    yield one("power", "{{ 9**9**9**9 }}" + turns)
    yield one("classes", "{{ ''.__class__.__mro__[1].__subclasses__() }}" + turns)
    yield one("system", "{{ cycler.__init__.__globals__.os.popen('touch ran').read() }}" + turns)
    yield one("attr", "{{ messages|attr('__class__')|attr('__base__') }}" + turns)
    yield one("include", "{% include '/etc/passwd' %}" + turns)
    yield one("import", "{% import '/etc/passwd' as x %}{{ x.system('touch ran') }}")
    yield one("extends", "{% extends 'http://127.0.0.1:1/x' %}")
    yield one("recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")
    yield one("open_output", "{{ " * 300000)
    yield one("open_statement", turns + "{%" * 300000)
    yield one("open_comment", "{#" * 300000)
    yield one("open_quote", "{{ '" + "\\" * 900001)
    yield one("brackets", "{{ x" + "(" * 900000 + " }}")
    yield one("literals", "{{ " + "'a' + " * 140000 + "'b' }}")
    yield one("nothing", "\0\1\2\x7f")
    yield one("too_long", "{#" + "x" * ((1 << 20) + 1 - 4 - len(turns.encode())) + "#}" + turns)
    yield one("foreign_roles", "<|im_start|>user\n{{ messages[0]['content'] }}<|im_end|>\n")
    yield one("almost_known", turns.replace(user, user + "{{ x }}") + assistant)


def all_cases():
    for make in (gguf_cases, split_cases, safetensors_cases, config_cases, torch_cases, vocabulary_cases,
                 tokenizer_cases, template_cases):
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
