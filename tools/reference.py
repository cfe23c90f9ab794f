"""The reference tokenizers, built from Hugging Face `tokenizers` and a vocabulary in a GGUF file."""
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

# The letters of deepseek-llm's second step, as ranges of code points.
LLM_LETTERS = """41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F
386 388-38A 38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA
1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B
1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4
1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F
2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F
A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3
104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943"""


def regex_ranges(text):
    """"41-5A 61" -> characters for a regular expression's class."""
    return "".join("-".join(chr(int(c, 16)) for c in part.split("-")) for part in text.split())


LETTERS = regex_ranges(LLM_LETTERS)
CJK = "[一-\u9fa5\u0800-一가-\ud7ff]+"
V3_WORDS = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
            "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*"
            "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")

GPT_WORDS = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}%s| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
             "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


STEPS = {
    "deepseek-llm": [split("[\\r\\n]"), split("\\s?[" + LETTERS + "]+"),
                     split("\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"), split("\\s+$"), split(CJK),
                     pre_tokenizers.Digits(individual_digits=True)],
    "deepseek-coder": [split("[\\r\\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split(CJK),
                       split("\\p{N}")],
    "deepseek-v3": [split("\\p{N}{1,3}"), split("[一-\u9fa5\u3040-ゟ゠-ヿ]+"), split(V3_WORDS)],
    "llama-bpe": [split(GPT_WORDS % "{1,3}")],
    "qwen2": [split(GPT_WORDS % "")],
    "deepseek-r1-qwen": [split(GPT_WORDS % "")],
}
WHOLE = ("llama-bpe",)  # a piece that is a token becomes it, whatever its merges
PRETOKENIZERS = {name: pre_tokenizers.Sequence(steps) for name, steps in STEPS.items()}


def code_points():
    """Every scalar value."""
    return [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def read_gguf(path):
    """Tokens, types, merges, pre-tokenizer of a GGUF file."""
    import gguf
    fields = gguf.GGUFReader(path).fields
    prefix = "tokenizer.ggml."

    def strings(key):
        f = fields[prefix + key]
        return [bytes(f.parts[i]).decode() for i in f.data]

    types = fields[prefix + "token_type"]
    return {"tokens": strings("tokens"), "merges": strings("merges"),
            "types": [int(types.parts[i][0]) for i in types.data], "pre": strings("pre")[0]}


def load_reference(vocab):
    """A `tokenizers.Tokenizer` of that vocabulary; [PADn] fillers do not match."""
    tokens, types = vocab["tokens"], vocab["types"]
    ordinary = {t: i for i, t in enumerate(tokens) if types[i] in (1, 6)}
    added = [i for i, t in enumerate(types) if t in (3, 4) and not tokens[i].startswith("[PAD")]
    # Added tokens keep their ids only when the model knows them.
    everything = dict(ordinary, **{tokens[i]: i for i in added})
    merges = [tuple(m.split(" ")) for m in vocab["merges"]]
    tok = Tokenizer(models.BPE(vocab=everything, merges=merges, ignore_merges=vocab["pre"] in WHOLE))
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        STEPS[vocab["pre"]] + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(tokens[i], special=True, normalized=False)
                            for i in added if types[i] == 3])
    tok.add_tokens([AddedToken(tokens[i], special=False, normalized=False)
                    for i in added if types[i] == 4])
    return tok
