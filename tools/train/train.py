#!/usr/bin/env python3
"""Train the demonstration model.

  train.py --out DIR [--hours 2 | --end HH:MM] [--procs 2] [--mb 16] [--per-step 4]
           [--talk [--features FILE]] [--hold FILE]

Every step takes --per-step micro-batches of --mb new images; a counter hands them out to the processes, so one that is
held up does less. Data follow from the micro-batch number. The learning rate follows the wall clock, so a run ends on
time whatever the machine does; starting again with the same --out resumes the run. One process on a GPU when
there is one. While the file --hold exists, training waits.

--talk: the pictures and conversations of the second edition. --features: new conversations about the pictures whose features are
in a file of features.py; the encoder stays as it is.

DIR/loss.csv: step, hours, pictures, loss, learning-rate factor, exact answers in % overall and per kind (teacher-forced, on
images never seen before; with --features, on conversations never seen before).
"""
import argparse
import datetime
import json
import os
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from data import AUX, KIND_NAMES, batch, batch_again, forward
from export import load_exported
from features import open_features
from model import CONFIG, Aux, Model
from tok import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))


def orthogonal(g, steps=4):
    """Newton-Schulz iteration (Muon) on a stack of matrices of one shape."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    t = x.shape[1] > x.shape[2]
    if t:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        y = x @ x.mT
        x = a * x + (b * y + c * (y @ y)) @ x
    return (x.mT if t else x).float()


class Source(torch.utils.data.Dataset):
    """Micro-batch k of the run."""

    def __init__(self, a, tok, offset, image, known):
        self.a, self.tok, self.offset, self.image, self.known = a, tok, offset, image, known

    def __getitem__(self, k):
        a, at, n_img = self.a, self.offset + k * self.a.mb, (self.image // 64) ** 2
        if self.known is not None:
            at = -(-at // a.mb) * a.mb                    # also when an earlier run had another --mb
            epoch, at = divmod(at, len(self.known) // a.mb * a.mb)
            return batch_again(self.tok, at, a.mb, epoch, a.questions, n_img, self.known)
        return batch(self.tok, 1000000 + at, a.mb, a.questions, n_img, self.image, a.talk)


class Optimizer:
    """Muon for the matrices of the blocks (each process does its share), Adam for the rest."""

    def __init__(self, model, rank, world, a):
        self.a, self.rank, self.world = a, rank, world
        self.params = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.muon = [(i, p) for i, (n, p) in enumerate(self.params) if self.is_muon(n, p)]
        cost = sorted(self.muon, key=lambda ip: -ip[1].numel() * min(ip[1].shape))
        load, self.mine = [0] * world, []
        for i, p in cost:
            r = load.index(min(load))
            load[r] += p.numel() * min(p.shape)
            if r == rank:
                self.mine.append((i, p))
        self.adam = [(i, p) for i, (n, p) in enumerate(self.params) if not self.is_muon(n, p)]
        self.m = {i: torch.zeros_like(p) for i, p in self.mine}
        self.m1 = {i: torch.zeros_like(p) for i, p in self.adam}
        self.m2 = {i: torch.zeros_like(p) for i, p in self.adam}
        self.t, self.vision = 0, 1.0                         # factor of the encoder's learning rates

    @staticmethod
    def is_muon(n, p):
        return p.dim() == 2 and n != "embed" and not n.startswith("aux.")

    @torch.no_grad()
    def step(self, scale):
        self.t += 1
        a = self.a
        upd = {i: torch.zeros_like(p) for i, p in self.muon}
        shapes = {}
        for i, p in self.mine:
            m = self.m[i].lerp_(p.grad, 1 - a.momentum)
            shapes.setdefault(p.shape, []).append((i, p.grad.lerp(m, a.momentum)))
        for sh, g in shapes.items():
            o = orthogonal(torch.stack([x for _, x in g])) * max(1.0, sh[0] / sh[1]) ** 0.5
            for (i, _), u in zip(g, o):
                upd[i] = u
        if self.world > 1:
            flat = torch.cat([upd[i].flatten() for i, _ in self.muon])
            dist.all_reduce(flat)
            o = 0
            for i, p in self.muon:
                upd[i] = flat[o:o + p.numel()].view_as(p)
                o += p.numel()
        for share, factor in self.shares(self.muon):
            ps = [p for _, p in share]
            torch._foreach_mul_(ps, 1 - a.lr_muon * scale * factor * a.wd)
            torch._foreach_add_(ps, [upd[i] for i, _ in share], alpha=-a.lr_muon * scale * factor)
        for share, factor in self.shares(self.adam):
            self.adam_step(share, a.lr_adam * scale * factor)

    def shares(self, params):
        """Encoder and rest, with the factors of their learning rates."""
        own = [[(i, p) for i, p in params if self.params[i][0].startswith("vision.") == v] for v in (True, False)]
        return [(share, f) for share, f in zip(own, (self.vision, 1.0)) if share and f]

    def adam_step(self, share, rate):
        b1, b2 = 0.9, 0.98
        ps, gs = [p for _, p in share], [p.grad for _, p in share]
        m, v = [self.m1[i] for i, _ in share], [self.m2[i] for i, _ in share]
        torch._foreach_lerp_(m, gs, 1 - b1)
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, gs, gs, 1 - b2)
        d = torch._foreach_div(v, 1 - b2 ** self.t)
        torch._foreach_sqrt_(d)
        torch._foreach_add_(d, 1e-8)
        torch._foreach_addcdiv_(ps, m, d, -rate / (1 - b1 ** self.t))

    def state(self):
        names = [n for n, _ in self.params]
        return dict(t=self.t, **{k: {names[i]: x for i, x in d.items()} for k, d in (("m", self.m), ("m1", self.m1), ("m2", self.m2))})

    def load(self, s):
        for mine, got in ((self.m, s["m"]), (self.m1, s["m1"]), (self.m2, s["m2"])):
            for i in mine:
                n = self.params[i][0]
                if n in got:
                    mine[i].copy_(got[n])
        self.t = s["t"]


def save(path, obj):
    torch.save(obj, path + ".tmp")
    os.replace(path + ".tmp", path)


def worker(rank, world, a, counter):
    torch.set_num_threads(a.threads)
    dev = "cuda" if torch.cuda.is_available() else "cpu"
    if world > 1:
        dist.init_process_group("gloo", init_method="file://" + os.path.abspath(a.out) + "/rendezvous-%d" % a.run,
                                rank=rank, world_size=world, timeout=datetime.timedelta(hours=3))
    with open(a.pids, "a") as f:
        f.write("%d\n" % os.getpid())
    torch.manual_seed(a.seed)
    tok = Tokenizer(a.tokenizer)
    ck, c, init = os.path.join(a.out, "last.pt"), dict(CONFIG), None
    if os.path.exists(ck):
        c = torch.load(ck, map_location="cpu")["config"]
    elif a.init:
        c, init = load_exported(a.init, tok)
    model = (init or Model(c)).to(dev)
    known = open_features(a.features) if a.features else None
    if known is not None and len(known) < a.mb:
        raise SystemExit("%s has the features of %d pictures so far; expected at least --mb, %d" % (a.features, len(known), a.mb))
    model.vision.requires_grad_(known is None)
    model.aux = Aux(c, **AUX).to(dev).requires_grad_(known is None)
    for p in model.parameters():
        if p.dim() == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    model.train()
    ema = {k: v.detach().clone().float() for k, v in model.state_dict().items() if v.is_floating_point()}
    opt = Optimizer(model, rank, world, a)
    step, spent, seen, moved = 0, 0.0, 0, known is None   # moved: the encoder is not that of --init any more
    heads = 0 if known is None else None                  # the step at which the auxiliary heads began to learn
    if os.path.exists(ck):
        s = torch.load(ck, map_location=dev)
        missing = model.load_state_dict(s["model"], strict=False)
        assert not missing.unexpected_keys and all(k.startswith("aux.") for k in missing.missing_keys), missing
        ema.update(s["ema"])
        step, spent, seen, moved = s["step"], s["spent"], s["seen"], moved or s.get("moved", True)
        if known is None:
            heads = s.get("heads", 0 if s.get("moved", True) else None)    # older checkpoints do not tell
            heads = step if heads is None or missing.missing_keys else heads
        merged = {"m": {}}
        for r in range(8):
            p = os.path.join(a.out, "opt%d.pt" % r)
            if os.path.exists(p):
                o = torch.load(p, map_location=dev)
                if o.get("step", o["t"]) == step:         # t lacks the steps whose gradients were not finite
                    merged["m"].update(o["m"])
                    merged.update(m1=o["m1"], m2=o["m2"], t=o["t"])
        if "m1" in merged:
            opt.load(merged)
        elif rank == 0:
            print("%s: no optimizer state of step %d; it begins anew" % (a.out, step), flush=True)
    offset = seen - step * a.per_step * a.mb             # never the same image twice
    bufs = [b for b in model.buffers() if b.is_floating_point()]
    t0, total = time.time(), a.seconds
    source = Source(a, tok, offset, c["image"], known)
    loader = a.workers and iter(torch.utils.data.DataLoader(source, None, sampler=range(step * a.per_step, 1 << 40), num_workers=a.workers,
                                                            prefetch_factor=4))
    kind_w = torch.ones(len(KIND_NAMES))
    kind_w[KIND_NAMES.index("text")], kind_w[KIND_NAMES.index("describe")] = a.w_text, a.w_describe
    for kind in ("relation", "size", "count", "followup"):
        kind_w[KIND_NAMES.index(kind)] = a.w_hard
    kind_w[KIND_NAMES.index("two")], kind_w[KIND_NAMES.index("json")] = a.w_two, a.w_json
    stats, lastlog, lastsave = torch.zeros(2 * len(KIND_NAMES) + 4), time.time(), time.time()
    params = [q for q in model.parameters() if q.requires_grad]

    def keep():
        save(os.path.join(a.out, "opt%d.pt" % rank), dict(opt.state(), step=step))
        if rank == 0:
            save(os.path.join(a.out, "last.pt"), dict(model=model.state_dict(), ema=ema, step=step, spent=spent + time.time() - t0, seen=seen,
                                                      config=c, talk=a.talk, moved=moved, heads=heads))

    def agreed(value):
        """Rank 0's value: of clocks and files, which the processes may see differently."""
        t = torch.tensor([float(value)], dtype=torch.float64)
        if world > 1:
            dist.broadcast(t, 0)
        return float(t)

    held, stopped = (lambda: os.path.exists(a.hold or "")), (lambda: os.path.exists(os.path.join(a.out, "STOP")))
    while True:
        if agreed(held()):                               # whoever wants the machine may also end this
            keep()
            since = time.time()
            while agreed(held() and not stopped()):
                time.sleep(2)
            t0 += time.time() - since
        if agreed(stopped()):
            break
        h = agreed(spent + time.time() - t0)
        p = h / total if total else 1.0
        if p >= 1:
            break
        scale = min(1.0, (opt.t + 1) / a.warmup) * min(1.0, max(0.0, (1 - p) / max(1 - a.flat, 1e-9)))
        alone = known is None and step - heads < a.heads  # the heads are new: their gradients would spoil an encoder that is not
        if known is None:
            model.vision.requires_grad_(not alone)
            opt.vision = 0.0 if alone else a.lr_vision * (min(1.0, (step - heads - a.heads + 1) / a.warmup) if a.heads else 1.0)
        for q in model.parameters():
            q.grad = None
        tokens, n_mb = 0, 0
        while True:
            with counter.get_lock():
                k = counter.value
                if k >= (step + 1) * a.per_step:
                    break
                counter.value += 1
            b = next(loader) if loader else source[k]
            with torch.autocast(dev, torch.bfloat16, enabled=not a.f32):
                lg = forward(model, b, dev)
                taps = [t.detach() for t in model.vision.taps] if alone else model.vision.taps if known is None else None
                aux = 0.0 if known is not None else model.aux(taps, b["places"], dev)
            lg, tgt = lg.float(), b["tgt"].to(dev)
            ce = F.cross_entropy(lg, tgt, reduction="none")
            loss = ce.sum()
            wt = kind_w[b["kinds"]][b["seg"]].to(dev)
            wsum = float(wt.sum())
            (((ce * wt).sum() + a.aux * (1 - p) * aux * wsum) / 2000.0).backward()
            with torch.no_grad():
                ok = torch.ones(len(b["kinds"])).scatter_reduce_(0, b["seg"], (lg.argmax(-1) == tgt).float().cpu(), "amin")
                nk = len(KIND_NAMES)
                stats[:nk].index_add_(0, b["kinds"], ok)
                stats[nk:2 * nk].index_add_(0, b["kinds"], torch.ones_like(ok))
                stats[-3] += float(aux)
                stats[-4] += 1
                stats[-2] += float(loss)
                stats[-1] += len(tgt)
            tokens += wsum
            n_mb += 1
        gs = [q.grad if q.grad is not None else torch.zeros_like(q) for q in params]
        flat = torch.cat([g.flatten() for g in gs] + [x.flatten() * n_mb for x in bufs] + [torch.tensor([float(tokens), float(n_mb)], device=dev)])
        if world > 1:
            dist.all_reduce(flat)
        tot, mbs, o = float(flat[-2]), float(flat[-1]), 0
        for q, g in zip(params, gs):
            q.grad = (flat[o:o + q.numel()] * (2000.0 / tot)).view_as(q)
            o += q.numel()
        for x in bufs:
            x.copy_((flat[o:o + x.numel()] / mbs).view_as(x))
            o += x.numel()
        if bool(torch.isfinite(flat).all()):
            opt.step(scale)
        step += 1
        seen += int(mbs) * a.mb
        d = min(a.ema, (step + 1) / (step + 20))
        with torch.no_grad():
            sd = model.state_dict()
            torch._foreach_lerp_(list(ema.values()), [sd[n] for n in ema], 1 - d)
        if step % a.log == 0:
            s = stats.clone()
            stats.zero_()
            if world > 1:
                dist.all_reduce(s)
            if rank == 0:
                nk = len(KIND_NAMES)
                acc = (100 * s[:nk] / s[nk:2 * nk].clamp_min(1)).tolist()
                allacc = float(100 * s[:nk].sum() / s[nk:2 * nk].sum())
                dt = time.time() - lastlog
                lastlog = time.time()
                line = "%d,%.4f,%d,%.4f,%.3f,%.2f,%s" % (step, h / 3600, seen, float(s[-2] / s[-1]), scale, allacc,
                                                        ",".join("%.1f" % x for x in acc))
                new = not os.path.exists(os.path.join(a.out, "loss.csv"))
                with open(os.path.join(a.out, "loss.csv"), "a") as f:
                    if new:
                        f.write("step,hours,pictures,loss,lr,exact," + ",".join(KIND_NAMES) + "\n")
                    f.write(line + "\n")
                print(line, " aux %.3f %.1f img/s" % (float(s[-3] / s[-4]), a.log * a.per_step * a.mb / dt), flush=True)
        if agreed(time.time() - lastsave > a.save):
            lastsave = time.time()
            keep()
    keep()
    if world > 1:
        dist.barrier()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--tokenizer", default=os.path.join(HERE, "../../models/demo"))
    ap.add_argument("--hours", type=float, default=2.0, help="training time in all, earlier runs in the same DIR included")
    ap.add_argument("--init", help="an exported directory to train on from (without its optimizer state)")
    ap.add_argument("--talk", action="store_true", help="the second edition's pictures and conversations; --questions: turns a picture")
    ap.add_argument("--features", help="train the decoder alone, on the pictures of this file (features.py)")
    ap.add_argument("--hold", help="wait while this file exists")
    ap.add_argument("--end", help="HH:MM: end of the run, instead of --hours")
    ap.add_argument("--procs", type=int, default=2)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--workers", type=int, default=0, help="processes that draw, for one process that trains (on a GPU)")
    ap.add_argument("--mb", type=int, default=8)
    ap.add_argument("--per-step", type=int, default=2)
    ap.add_argument("--questions", type=int, default=6)
    ap.add_argument("--lr-muon", type=float, default=0.008)
    ap.add_argument("--lr-adam", type=float, default=0.0015)
    ap.add_argument("--lr-vision", type=float, default=1.0, help="factor of the encoder's learning rates")
    ap.add_argument("--heads", type=int, default=0, help="the first steps of new auxiliary heads, in which the encoder stays as it is")
    ap.add_argument("--momentum", type=float, default=0.95)
    ap.add_argument("--wd", type=float, default=0.02)
    ap.add_argument("--warmup", type=int, default=40)
    ap.add_argument("--flat", type=float, default=0.6, help="part of the time before the learning rate falls")
    ap.add_argument("--ema", type=float, default=0.99)
    ap.add_argument("--aux", type=float, default=0.8, help="weight of the auxiliary heads; falls to 0 with time")
    ap.add_argument("--w-text", type=float, default=0.6, help="weight of the tokens of read-out answers")
    ap.add_argument("--w-describe", type=float, default=0.7)
    ap.add_argument("--w-hard", type=float, default=1.5, help="weight of the tokens of answers about relations, sizes, counts")
    ap.add_argument("--w-two", type=float, default=1.5, help="of answers about two images")
    ap.add_argument("--w-json", type=float, default=1.0, help="of answers in JSON")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--log", type=int, default=20)
    ap.add_argument("--save", type=float, default=300.0)
    ap.add_argument("--f32", action="store_true")
    ap.add_argument("--pids", default=os.devnull)
    a = ap.parse_args()
    if a.workers and not torch.cuda.is_available() and a.procs > 1:
        ap.error("--workers draw for one process: --procs 1")
    if a.features and not a.talk or a.talk and a.mb % 2:
        ap.error("--features belongs to --talk, and --talk to an even --mb (two pictures may belong together)")
    os.makedirs(a.out, exist_ok=True)
    a.run = int(time.time())
    if os.path.exists(os.path.join(a.out, "STOP")):
        os.remove(os.path.join(a.out, "STOP"))
    spent, step = 0.0, 0
    if os.path.exists(os.path.join(a.out, "last.pt")):
        s = torch.load(os.path.join(a.out, "last.pt"), map_location="cpu")
        spent, step = s["spent"], s["step"]
    if a.end:
        now = datetime.datetime.now()
        hh, mm = map(int, a.end.split(":"))
        a.seconds = spent + (now.replace(hour=hh, minute=mm, second=0) - now).total_seconds()
    else:
        a.seconds = a.hours * 3600
    if torch.cuda.is_available():
        a.procs = 1
    if a.pids != os.devnull:
        with open(a.pids, "w") as f:
            f.write("%d\n" % os.getpid())
    counter = mp.get_context("spawn").Value("q", step * a.per_step)
    print(json.dumps(vars(a)), flush=True)
    if a.procs == 1:
        worker(0, 1, a, counter)
    else:
        mp.spawn(worker, (a.procs, a, counter), nprocs=a.procs)


if __name__ == "__main__":
    main()
