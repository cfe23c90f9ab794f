"""chrF: character n-gram F-score (Popović 2015), n = 1..6, beta = 2, white space left out.

Over a corpus: for every n the matches, the n-grams of the answers and those of the references are
summed over all sentences; precision and recall are averaged over the n for which both sides have any;
F combines the two averages, recall weighing beta^2 times. A sentence with several references uses the
one that fits it best. By hand: answer "abc", reference "abd", n up to 2: unigrams 2 of 3, bigrams 1 of
2, so precision = recall = (2/3 + 1/2) / 2 = 0.5833 and F is the same.
"""
import collections
import math

ORDER = 6
BETA = 2.0


def ngrams(text, order=ORDER):
    """-> list of Counters, one an n"""
    s = "".join(text.split())
    return [collections.Counter(s[i:i + n] for i in range(len(s) - n + 1)) for n in range(1, order + 1)]


def statistics(hyp, ref):
    """hyp, ref: from ngrams() -> [(matches, n-grams of hyp, n-grams of ref)] for every n"""
    return [(sum(min(c, r[g]) for g, c in h.items() if g in r), sum(h.values()), sum(r.values()))
            for h, r in zip(hyp, ref)]


def f_score(stats, beta=BETA):
    """F in 0..1 of summed statistics."""
    used = [(m, h, r) for m, h, r in stats if h and r]
    if not used:
        return 0.0
    precision = sum(m / h for m, h, _ in used) / len(used)
    recall = sum(m / r for m, _, r in used) / len(used)
    if precision + recall == 0:
        return 0.0
    return (1 + beta * beta) * precision * recall / (beta * beta * precision + recall)


def sentence(hyp, refs, order=ORDER):
    h = ngrams(hyp, order)
    return max(f_score(statistics(h, ngrams(r, order))) for r in refs)


def corpus(hyps, refs_of, order=ORDER):
    """hyps: list of texts; refs_of: list of lists of texts -> F in 0..1"""
    total = [(0, 0, 0)] * order
    for hyp, refs in zip(hyps, refs_of):
        h = ngrams(hyp, order)
        best = max((statistics(h, ngrams(r, order)) for r in refs), key=f_score)
        total = [tuple(a + b for a, b in zip(t, s)) for t, s in zip(total, best)]
    return f_score(total)


class Nearest:
    """Finds the training sentence most like a given one: candidates by shared rare n-grams (weights
    log(N/df) of character trigrams, and of single characters for Chinese), the best 40 ranked by chrF."""

    def __init__(self, sentences, chinese):
        self.sentences = sentences
        self.sizes = (1, 2) if chinese else (3, 4)
        self.index = collections.defaultdict(list)
        for i, s in enumerate(sentences):
            for g in self._grams(s):
                self.index[g].append(i)

    def _grams(self, s):
        t = " " + s.casefold() + " "
        return {t[i:i + n] for n in self.sizes for i in range(len(t) - n + 1)}

    def find(self, s):
        """-> index into sentences"""
        score = collections.Counter()
        for g in sorted(self._grams(s)):
            post = self.index.get(g, ())
            if post and len(post) < max(10, len(self.sentences) / 4):
                w = math.log(1 + len(self.sentences) / len(post))
                for i in post:
                    score[i] += w
        best = sorted(score, key=lambda i: (-score[i] / (8 + len(self.sentences[i])) ** 0.5, i))[:40]
        if not best:
            return 0
        return max(best, key=lambda i: (sentence(s, [self.sentences[i]]), -i))
