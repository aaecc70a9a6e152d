#!/usr/bin/env python3
"""A run of `fastvlm batch` over tar shards on many machines, simulated.

    bench/batch/simulate.py                              a million images on 1 to 1,000 machines
    bench/batch/simulate.py --images 5e7 --machines 2000 --seconds 0.9 --price 0.05

Every machine fetches the model, then takes shard after shard from one list: it reads the next shard
while it answers this one, as far as its network and the store's, which all readers share, allow;
it writes the answers and takes another. Machines differ in speed (--spread), start one after the
other (--start-rate), and die (--deaths, each machine's per hour), to be replaced after --replace
seconds (a machine's death without a shard left to do is not looked at); the shard is then read again and continues behind its last finished row (--restart: from
its first). Of the defaults only --seconds is measured (docs/batch.md), on two cores of an Emerald Rapids
Xeon, and --price is published; all others are assumptions. Beside the simulation stands the paper's
figure, images x seconds / machines; where the two part, the last column names the bottleneck. Standard
library only; the same seed gives the same table."""
import argparse
import heapq
import random


def simulate(a, machines):
    """-> hours, machine hours from each one's start to its end, share of them spent on images, GB read, shards continued"""
    rng = random.Random(a.seed)
    shards = [min(a.shard, a.images - i) for i in range(0, a.images, a.shard)][::-1]
    # events: (time, order, machine's speed, images left of its shard, second at which it dies)
    events, order, busy, read, again, end, paid = [], 0, 0.0, 0.0, 0, 0.0, 0.0

    def death(now):
        return now + rng.expovariate(a.deaths / 3600) if a.deaths else float("inf")

    def fetch(n_bytes):
        """Seconds: a machine's own network, and its part of the store's while all are at work."""
        return n_bytes / min(a.network, a.store / machines)
    for i in range(machines):
        t = i / a.start_rate + fetch(a.model_bytes)
        paid -= i / a.start_rate
        heapq.heappush(events, (t, order, rng.lognormvariate(0, a.spread), 0, death(t)))
        order += 1
    while events:
        now, _, speed, left, dies = heapq.heappop(events)
        if not left:
            if not shards:
                paid += now
                continue
            left = shards.pop()
        answer, arrive = left * a.seconds * speed, fetch(left * a.image_bytes)
        first = fetch(min(left, 16) * a.image_bytes)  # it begins with what has arrived
        span = max(first + answer, arrive) + fetch(left * a.answer_bytes) + a.shard_seconds
        read += left * a.image_bytes
        if now + span <= dies:
            busy += answer
            end = max(end, now + span)
            heapq.heappush(events, (now + span, order, speed, 0, dies))
        else:  # another machine in its place
            done = 0 if a.restart else int(max(0.0, dies - now - first) / (a.seconds * speed))
            busy += done * a.seconds * speed
            again += 1
            t = dies + a.replace + fetch(a.model_bytes)
            paid -= a.replace
            heapq.heappush(events, (t, order, rng.lognormvariate(0, a.spread), max(left - done, 1), death(t)))
        order += 1
    return end / 3600, paid / 3600, busy / paid, read / 1e9, again


def bottleneck(a, machines, share):
    rate = machines / a.seconds
    if rate * a.image_bytes > a.store:
        return "the store, %.1f GB/s" % (a.store / 1e9)
    if a.image_bytes / a.seconds > a.network:
        return "a machine's network"
    if a.images / a.shard < 4 * machines:
        return "shards: %.1f a machine" % (a.images / a.shard / machines)
    return "CPU" if share > 0.85 else "starting: the model, %.0f s" % (a.model_bytes / min(a.network, a.store / machines))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add(name, default, what):
        p.add_argument("--" + name, type=float, default=default, help="%s (default %g)" % (what, default))
    add("images", 1e6, "images")
    p.add_argument("--machines", type=int, help="only this many, instead of 1, 10, 100 and 1,000")
    add("cores", 2, "cores of a machine")
    add("seconds", 1.08, "seconds of a machine for an image, all stages: measured")
    add("spread", 0.08, "standard deviation of the machines' speed")
    add("shard", 250, "images of a shard")
    add("shard-seconds", 0.5, "seconds to take a shard and to put its output in place")
    add("image-bytes", 200e3, "bytes of an image")
    add("answer-bytes", 300, "bytes of an answer")
    add("model-bytes", 0.67e9, "bytes of the packed model")
    add("network", 1.25e8, "bytes a second of a machine")
    add("store", 5e9, "bytes a second of the store, all readers together")
    add("start-rate", 10, "machines a second that start")
    add("deaths", 0.05, "of a machine, per hour")
    add("replace", 120, "seconds until another machine is there")
    add("price", 0.0504, "price of a core hour, dollars: published")
    p.add_argument("--restart", action="store_true", help="a killed shard begins again: its output was on the machine")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    a.images, a.shard = int(a.images), max(1, int(a.shard))
    if min(a.images, a.seconds, a.network, a.store, a.start_rate) <= 0 or (a.machines or 1) < 1:
        p.error("images, machines, seconds, network, store and start-rate: expected more than 0")
    print("| machines | on paper, h | simulated, h | busy | read, GB | shards continued | core hours | price | bottleneck |")
    print("|---|---|---|---|---|---|---|---|---|")
    for m in [a.machines] if a.machines else [1, 10, 100, 1000]:
        hours, paid, share, gb, again = simulate(a, m)
        print("| %d | %.2f | %.2f | %.0f %% | %.0f | %d | %.0f | %.2f | %s |" % (
            m, a.images * a.seconds / m / 3600, hours, 100 * share, gb, again, paid * a.cores,
            paid * a.cores * a.price, bottleneck(a, m, share)))


main()
