#!/usr/bin/env python3
"""plot.py LOSS.csv OUT.svg: the loss and the share of exact answers against the images seen."""
import csv
import sys

POINTS = 300                                              # at most; each the mean of rows that follow each other
rows = []
for r in csv.DictReader(open(sys.argv[1])):
    while rows and int(rows[-1]["pictures"]) >= int(r["pictures"]):
        rows.pop()                                        # a run that was resumed from before its end
    rows.append(r)
n = -(-len(rows) // POINTS)
mean = lambda key: [sum(float(r[key]) for r in rows[i:i + n]) / len(rows[i:i + n]) for i in range(0, len(rows), n)]
x = [v / 1000 for v in mean("pictures")]
series = [("loss", "#c0392b", mean("loss")), ("exact answers, %", "#2c6fbb", mean("exact")), ("answers to what is written, %", "#27864b", mean("text"))]
W, H, L, R, T, B = 720, 340, 52, 52, 34, 44
xm, lm = max(x) or 1, max(series[0][2])
px = lambda v: L + (W - L - R) * v / xm
py = lambda v, m: T + (H - T - B) * (1 - v / m)
o = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">' % (W, H),
     '<rect width="%d" height="%d" fill="#ffffff"/>' % (W, H)]
for k in range(6):
    y = T + (H - T - B) * k / 5
    o.append('<path d="M%d %.1fH%d" stroke="#dddddd"/>' % (L, y, W - R))
    o.append('<text x="%d" y="%.1f" text-anchor="end" fill="#c0392b">%.1f</text>' % (L - 6, y + 4, lm * (1 - k / 5)))
    o.append('<text x="%d" y="%.1f" fill="#2c6fbb">%d</text>' % (W - R + 6, y + 4, 100 - 20 * k))
    o.append('<text x="%.1f" y="%d" text-anchor="middle" fill="#444444">%.0f</text>' % (px(xm * k / 5), H - B + 18, xm * k / 5))
o.append('<text x="%d" y="%d" text-anchor="middle" fill="#444444">images seen, thousands</text>' % ((L + W - R) / 2, H - 8))
for i, (name, col, v) in enumerate(series):
    m = lm if i == 0 else 100.0
    o.append('<polyline fill="none" stroke="%s" stroke-width="1.6" points="%s"/>' % (
        col, " ".join("%.1f,%.1f" % (px(a), py(b, m)) for a, b in zip(x, v))))
    o.append('<text x="%d" y="20" fill="%s">%s</text>' % (L + 8 + i * 130, col, name))
o.append("</svg>")
open(sys.argv[2], "w").write("\n".join(o) + "\n")
