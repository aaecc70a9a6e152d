#!/usr/bin/env python3
"""engine.py MODEL TEST_DIR [-o ANSWERS.jsonl] [--vision P] [--decoder P]: answer the questions of TEST_DIR/questions.jsonl with
the C library, score them, and keep the answers (what score.py and agree.py read). Standard library only; MODEL is a checkpoint
directory or a packed file."""
import argparse
import ctypes as C
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from score import correct, table

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PRECISIONS = ["auto", "f32", "bf16", "f16", "z8", "q4", "int8"]           # fv_precision


# The structs of include/fastvlm.h.
class Error(C.Structure):
    _fields_ = [("status", C.c_int), ("at", C.c_uint64), ("message", C.c_char * 504)]


class Settings(C.Structure):
    _fields_ = [("n_threads", C.c_int), ("vision", C.c_int), ("decoder", C.c_int), ("image_size", C.c_int), ("log", C.c_void_p),
                ("log_user", C.c_void_p), ("reserved", C.c_uint64 * 8)]


class SessionOptions(C.Structure):
    _fields_ = [("temperature", C.c_float), ("top_k", C.c_int), ("top_p", C.c_float), ("min_p", C.c_float),
                ("repetition_penalty", C.c_float), ("seed", C.c_uint64), ("max_new_tokens", C.c_int), ("max_context", C.c_int),
                ("fit", C.c_int), ("system", C.c_char_p), ("stop", C.c_void_p), ("n_stop", C.c_size_t), ("ignore_eos", C.c_bool),
                ("progress", C.c_void_p), ("progress_user", C.c_void_p), ("dump_dir", C.c_char_p), ("reserved", C.c_uint64 * 8)]


class Piece(C.Structure):
    _fields_ = [("text", C.POINTER(C.c_char)), ("n_bytes", C.c_size_t), ("id", C.c_int32), ("done", C.c_bool), ("finish", C.c_int)]


class Engine:
    def __init__(self, model, vision="auto", decoder="auto", library=None, threads=0):
        self.lib = C.CDLL(library or os.path.join(ROOT, "build/release/libfastvlm.so"))
        for name in ("fv_engine_free", "fv_session_free", "fv_image_free", "fv_session_reset", "fv_settings_default",
                     "fv_session_options_default"):
            getattr(self.lib, name).restype = None
            getattr(self.lib, name).argtypes = [C.c_void_p]
        for name, kinds in (("fv_engine_open", [C.c_void_p, C.c_char_p, C.c_void_p, C.c_void_p]),
                            ("fv_session_new", [C.c_void_p] * 4), ("fv_session_add_image", [C.c_void_p] * 3),
                            ("fv_session_next", [C.c_void_p] * 3), ("fv_session_add_text", [C.c_void_p, C.c_char_p, C.c_void_p]),
                            ("fv_image_open", [C.c_void_p, C.c_char_p, C.c_void_p, C.c_void_p])):
            getattr(self.lib, name).argtypes = kinds
        self.error = Error()
        settings, options = Settings(), SessionOptions()
        self.lib.fv_settings_default(C.byref(settings))
        settings.vision, settings.decoder, settings.n_threads = PRECISIONS.index(vision), PRECISIONS.index(decoder), threads
        self.engine, self.session = C.c_void_p(), C.c_void_p()
        self.check("fv_engine_open", C.byref(self.engine), model.encode(), C.byref(settings))
        self.lib.fv_session_options_default(C.byref(options))
        options.max_new_tokens = 96
        self.check("fv_session_new", C.byref(self.session), self.engine, C.byref(options))

    def check(self, name, *arguments):
        if getattr(self.lib, name)(*arguments, C.byref(self.error)) != 0:
            sys.exit("engine.py: " + self.error.message.decode())

    def answer(self, path, question, history=()):
        """history: turns before this one as [question, answer]; they stand in the prompt as the template writes them, so that every
        engine goes on from the same words."""
        text = "".join("%s<|im_end|>\n<|im_start|>assistant\n%s<|im_end|>\n<|im_start|>user\n" % (q, a) for q, a in history)
        image, piece, out = C.c_void_p(), Piece(), b""
        self.lib.fv_session_reset(self.session)
        self.check("fv_image_open", C.byref(image), path.encode(), None)
        self.check("fv_session_add_image", self.session, image)
        self.lib.fv_image_free(image)
        self.check("fv_session_add_text", self.session, (text + question).encode())
        while not piece.done:
            self.check("fv_session_next", self.session, C.byref(piece))
            out += C.string_at(piece.text, piece.n_bytes)
        return out.decode("utf-8", "replace").strip()

    def close(self):
        self.lib.fv_session_free(self.session)
        self.lib.fv_engine_free(self.engine)


def questions(test):
    with open(os.path.join(test, "questions.jsonl")) as f:
        return [json.loads(line) for line in f]


def answer_all(engine, test, n=None):
    return [dict(image=q["image"], question=q["question"],
                 answer=engine.answer(os.path.join(test, q["image"]), q["question"], q["history"])) for q in questions(test)[:n]]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("test")
    ap.add_argument("-o", "--answers")
    ap.add_argument("-n", type=int, help="only the first N questions")
    ap.add_argument("--vision", default="auto", choices=PRECISIONS)
    ap.add_argument("--decoder", default="auto", choices=PRECISIONS)
    ap.add_argument("--library", help="default: build/release/libfastvlm.so")
    ap.add_argument("--threads", type=int, default=0)
    a = ap.parse_args()
    engine, started = Engine(a.model, a.vision, a.decoder, a.library, a.threads), time.time()
    out = answer_all(engine, a.test, a.n)
    engine.close()
    print(table([(q["kind"], correct(q["kind"], q["answer"], o["answer"])) for q, o in zip(questions(a.test), out)]))
    print("%.1f ms a question" % ((time.time() - started) * 1e3 / max(1, len(out))))
    if a.answers:
        with open(a.answers, "w") as f:
            f.writelines(json.dumps(o) + "\n" for o in out)


if __name__ == "__main__":
    main()
