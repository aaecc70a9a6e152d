#!/usr/bin/env python3
"""Prints the constants of src/kernels/x86/vmath_*.h. Needs mpmath.

gelu(x) = max(x, 0) - g(|x|) with g(a) = a (1 - Phi(a)) = a erfc(a / sqrt 2) / 2, a bump of height
0.17 that dies out before a = 6. Interval n has its centre at n h and width h; on each one a
polynomial through the Chebyshev nodes, by powers of a - n h or of a itself. Interval 0 begins
at a = 0 and has no constant term, so that gelu(x) -> x / 2 keeps its relative accuracy.

exp is exp(r) on |r| <= ln 2 / 2; exp2 is 2^r on 0 <= r <= 1, both by Chebyshev nodes."""
import struct
from mpmath import mp, mpf, erfc, sqrt, cos, pi, exp, log, matrix, lu_solve

mp.dps = 60


def bump(a):
    return a * erfc(a / sqrt(mpf(2))) / 2


def f32(x):
    return struct.unpack("<f", struct.pack("<f", float(x)))[0]


def literal(x):
    text = f"{f32(x):.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


def fit(f, lo, hi, degree, centre, lowest=0):
    """Coefficients [degree + 1] by powers of x - centre, the first `lowest` of them zero."""
    n = degree + 1 - lowest
    nodes = [(lo + hi) / 2 + (hi - lo) / 2 * cos(pi * (2 * k + 1) / (2 * n)) for k in range(n)]
    a = matrix(n, n)
    b = matrix(n, 1)
    for i, x in enumerate(nodes):
        for j in range(n):
            a[i, j] = (x - centre) ** (j + lowest)
        b[i] = f(x)
    return [mpf(0)] * lowest + list(lu_solve(a, b))


def worst(f, c, lo, hi, centre):
    error = rel = mpf(0)
    for i in range(201):
        x = lo + (hi - lo) * i / 200
        y = sum(mpf(f32(ck)) * (x - centre) ** k for k, ck in enumerate(c))
        error = max(error, abs(y - f(x)))
        if f(x) != 0:
            rel = max(rel, abs(y / f(x) - 1))
    return error, rel


def gelu(name, h, n_intervals, degree, reduced, limit):
    rows, error, rel = [], mpf(0), mpf(0)
    for n in range(n_intervals):
        centre = n * h
        lo, hi = max(mpf(0), centre - h / 2), min(centre + h / 2, limit)
        if hi <= lo:
            rows.append([mpf(0)] * (degree + 1))
            continue
        at = centre if reduced else mpf(0)
        c = fit(bump, lo, hi, degree, at, 1 if n == 0 else 0)
        e, r = worst(bump, c, lo, hi, at)
        error, rel = max(error, e), max(rel, r)
        rows.append(c)
    print(f"/* {name}: error {float(error):.2g}, relative to g {float(rel):.2g} */")
    for k in range(degree + 1):
        row = [literal(r[k]) for r in rows]
        print("    { " + ",\n      ".join(", ".join(row[i:i + 8]) for i in range(0, len(row), 8)) + " },")


def poly(name, f, lo, hi, degree):
    c = fit(f, lo, hi, degree, mpf(0))
    e, r = worst(f, c, lo, hi, mpf(0))
    print(f"/* {name}: relative error {float(r):.2g} */")
    print(", ".join(literal(x) for x in c))


gelu("avx512, 32 intervals, degree 4", mpf(3) / 16, 32, 4, True, mpf("5.71875"))
gelu("avx512, 16-bit results: 32 intervals, degree 3, by powers of a", mpf(3) / 16, 32, 3, False, mpf("5.71875"))
gelu("avx512, 8-bit results: 16 intervals, degree 2, by powers of a", mpf(3) / 8, 16, 2, False, mpf("5.8125"))
gelu("avx2, 8 intervals, degree 6", mpf(3) / 4, 8, 6, True, mpf("5.625"))
b = log(mpf(2)) / 2
poly("exp, degree 6", exp, -b, b, 6)
poly("exp2, degree 6", lambda x: mpf(2) ** x, mpf(0), mpf(1), 6)
poly("exp2 of results with 8 bits, degree 3", lambda x: mpf(2) ** x, -mpf(1) / 2, mpf(1) / 2, 3)
