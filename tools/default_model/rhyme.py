"""Do the even lines of a poem rhyme to a modern ear?

Two characters rhyme when their modern finals fall into one class: the final without its medial, and
the pairs that Chinese rhyme books of today keep together (en in un ün; eng ing ong iong; i er and the
apical vowel; e o uo). Old poems rhyme by the sounds of their time, so even theirs do not all pass.
The table of classes by character is finals.txt (first readings, made by make_finals.py).
"""
import os

CLASSES = {
    "a": "a ia ua", "o": "o e uo io", "ie": "ie ve üe ê", "ai": "ai uai", "ei": "ei uei", "ao": "ao iao",
    "ou": "ou iou", "an": "an ian uan van üan", "en": "en in uen vn ün", "ang": "ang iang uang",
    "eng": "eng ing ueng ong iong", "i": "i er -i", "u": "u", "v": "v ü",
}
CLASS_OF = {final: name for name, finals in CLASSES.items() for final in finals.split()}


def load_table(path=None):
    """-> {character: class}"""
    path = path or os.path.join(os.path.dirname(os.path.abspath(__file__)), "finals.txt")
    table = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            if not line.startswith("#"):
                name, chars = line.rstrip("\n").split("\t")
                table.update(dict.fromkeys(chars, name))
    return table


def rhyming_share(verse_lines, classes_of):
    """Share of the even lines whose last character is in the commonest class among them.

    classes_of: character -> set of classes. A poem of four lines gets 1.0 or 0.5."""
    ends = [classes_of(v[-1]) for v in verse_lines[1::2]]
    if not ends:
        return 0.0
    best = max((sum(name in e for e in ends) for name in set().union(*ends)), default=0)
    return best / len(ends)


def rhymes(verse_lines, classes_of):
    """True when all even lines rhyme and there are at least two."""
    return len(verse_lines) >= 4 and rhyming_share(verse_lines, classes_of) == 1.0
