#!/usr/bin/env python3
"""Prints the numbers of tests/base/test_rng.c, computed from the published algorithms.

splitmix64 and xoshiro256++ 1.0: Blackman, Vigna (2019). Bounded numbers: Lemire (2019). Python's
integers, no code shared with the library."""
import math

M = (1 << 64) - 1


def splitmix(x):
    while True:
        x = (x + 0x9E3779B97F4A7C15) & M
        yield mix(x)


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    return z ^ (z >> 31)


def rotl(x, k):
    return ((x << k) | (x >> (64 - k))) & M


class Xoshiro:
    def __init__(self, seed):
        gen = splitmix(seed)
        self.s = [next(gen) for _ in range(4)]

    def next(self):
        s = self.s
        out = (rotl((s[0] + s[3]) & M, 23) + s[0]) & M
        t = (s[1] << 17) & M
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotl(s[3], 45)
        return out

    def below(self, n):
        while True:
            m = self.next() * n
            if m & M >= (1 << 64) % n:
                return m >> 64


def stream(seed, number):
    return Xoshiro(mix(next(splitmix(seed)) ^ next(splitmix((number + 0x9E3779B97F4A7C15) & M))))


for seed in (0, 1, 42, M):
    r = Xoshiro(seed)
    print(f"{{0x{seed:X}, {{" + ", ".join(f"0x{r.next():016X}" for _ in range(4)) + "}},")
print("streams of seed 42:")
for n in (0, 1, 2):
    r = stream(42, n)
    print(", ".join(f"0x{r.next():016X}" for _ in range(2)))
r = Xoshiro(7)
for _ in range(1000):
    r.next()
print(f"1001st of seed 7: 0x{r.next():016X}")
r = Xoshiro(5)
print("below 10:", [r.below(10) for _ in range(16)])
big = (1 << 63) + 1
print("below 2^63 + 1:", [f"0x{r.below(big):X}" for _ in range(4)])
r = Xoshiro(3)
print("f64:", [(r.next() >> 11) / (1 << 53) for _ in range(3)])
print("f32:", [(r.next() >> 40) / (1 << 24) for _ in range(3)])
print("normal:", [repr(math.sqrt(-2 * math.log(1 - (r.next() >> 11) / (1 << 53))) *
                       math.cos(2 * math.pi * ((r.next() >> 11) / (1 << 53)))) for _ in range(3)])
