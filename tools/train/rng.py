"""A small counter-based random generator (splitmix64), so that scenes do not depend on a library's generator."""
import numpy as np

M64 = (1 << 64) - 1


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
    return z ^ (z >> 31)


class Rng:
    def __init__(self, *key):
        s = 0x243F6A8885A308D3
        for k in key:
            if isinstance(k, str):
                h = 0xCBF29CE484222325
                for b in k.encode():
                    h = ((h ^ b) * 0x100000001B3) & M64
                k = h
            s = mix((s + int(k) * 0x9E3779B97F4A7C15 + 0x1234567) & M64)
        self.s = s

    def next(self):
        self.s = (self.s + 0x9E3779B97F4A7C15) & M64
        return mix(self.s)

    def u(self, a=0.0, b=1.0):
        return a + (b - a) * (self.next() >> 11) / 9007199254740992.0

    def int(self, a, b):
        """a .. b inclusive."""
        return a + self.next() % (b - a + 1)

    def p(self, x):
        return self.u() < x

    def pick(self, seq):
        return seq[self.next() % len(seq)]

    def shuffled(self, seq):
        s = list(seq)
        for i in range(len(s) - 1, 0, -1):
            j = self.next() % (i + 1)
            s[i], s[j] = s[j], s[i]
        return s


def mix_np(z):
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


_bank = None


def noise_bank():
    """1 Mi samples of nearly Gaussian noise, unit variance, float32 (fixed for ever)."""
    global _bank
    if _bank is None:
        z = mix_np(np.arange(1, (1 << 20) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        s = np.zeros(1 << 20, np.float32)
        for sh in (0, 16, 32, 48):
            s += ((z >> np.uint64(sh)) & np.uint64(0xFFFF)).astype(np.float32)
        _bank = (s - 131070.0) / 37837.0
    return _bank
