"""The library, called from Python, for the checks that compare it with other runtimes.

    engine = fv.Engine("build/release/libfastvlm.so", "models/demo", precision="f32")
    engine.ids("some text")                            ids of text
    engine.answer("cat.png", "What is it?", 24)        (ids, text), greedy; the image may be None
"""
import ctypes as c
import os
import subprocess


class Error(c.Structure):
    _fields_ = [("status", c.c_int), ("reserved", c.c_uint32), ("at", c.c_uint64), ("message", c.c_char * 496)]


class Sized(c.Structure):
    """A struct that begins with its size; every other field zero means default."""
    def __init__(self, **fields):
        super().__init__(size=c.sizeof(self), **fields)


class EngineOptions(Sized):
    _fields_ = [("size", c.c_size_t), ("vision", c.c_int), ("decoder", c.c_int), ("kv", c.c_int), ("image_size", c.c_int),
                ("n_threads", c.c_int), ("callbacks", c.c_void_p)]


class EncodeOptions(Sized):
    _fields_ = [("size", c.c_size_t), ("fit", c.c_int), ("n_threads", c.c_int), ("callbacks", c.c_void_p), ("tap", c.c_void_p),
                ("tap_user", c.c_void_p)]


class SessionOptions(Sized):
    _fields_ = [("size", c.c_size_t), ("max_context", c.c_int), ("n_threads", c.c_int), ("system", c.c_char_p),
                ("n_system_bytes", c.c_size_t), ("exact_reuse", c.c_bool), ("callbacks", c.c_void_p), ("tap", c.c_void_p),
                ("tap_user", c.c_void_p), ("tap_prompt_logits", c.c_bool)]


class AnswerOptions(Sized):
    _fields_ = [("size", c.c_size_t), ("temperature", c.c_float), ("top_k", c.c_int), ("top_p", c.c_float), ("min_p", c.c_float),
                ("repetition_penalty", c.c_float), ("seed", c.c_uint64), ("max_new_tokens", c.c_int), ("stop", c.c_void_p),
                ("n_stop", c.c_size_t), ("ignore_end", c.c_bool), ("n_logprobs", c.c_int), ("bias", c.c_void_p),
                ("n_bias", c.c_size_t), ("mask", c.c_void_p), ("chosen", c.c_void_p), ("mask_user", c.c_void_p)]


class Piece(Sized):
    _fields_ = [("size", c.c_size_t), ("text", c.c_void_p), ("n_bytes", c.c_size_t), ("id", c.c_int32), ("done", c.c_bool),
                ("finish", c.c_int), ("logprob", c.c_float), ("top", c.c_void_p), ("n_top", c.c_size_t)]


FIT = {"auto": 0, "pad": 1, "crop": 2, "stretch": 3}
PRECISION = {"auto": 0, "f32": 1, "bf16": 2, "f16": 3}


class Engine:
    def __init__(self, library, model, precision="f32"):
        self.lib = c.CDLL(library)
        self.folder = os.path.dirname(library)
        self.err = Error()
        self.handle = c.c_void_p()
        s = EngineOptions(vision=PRECISION[precision], decoder=PRECISION[precision])
        self.call("fv_engine_open", c.byref(self.handle), os.fsencode(model), c.byref(s))

    def call(self, name, *args, lib=None):
        if getattr(lib or self.lib, name)(*args, c.byref(self.err)):
            raise RuntimeError(self.err.message.decode())

    def ids(self, text):
        data = text.encode()
        n = c.c_size_t()
        buffer = (c.c_int32 * (3 * len(data) + 16))()  # composing may take a character apart into three
        self.call("fv_engine_tokenize", self.handle, data, c.c_size_t(len(data)), c.c_bool(True), buffer, c.c_size_t(len(buffer)), c.byref(n))
        assert n.value <= len(buffer)
        return list(buffer[:n.value])

    def limit(self):
        """One past the last id that has a token: only these are ever chosen."""
        self.lib.fv_engine_token_text.restype = c.c_void_p
        n, top = c.c_size_t(), 1 << 18
        while top and not self.lib.fv_engine_token_text(self.handle, c.c_int32(top - 1), c.byref(n)):
            top -= 1
        return top

    def answer(self, picture, prompt, n, fit="pad", dump=None):
        """dump: a folder; needs libfastvlm_tools.so beside the library."""
        o, rules, encode = SessionOptions(), AnswerOptions(max_new_tokens=n), EncodeOptions(fit=FIT[fit])
        session, image, piece, files = c.c_void_p(), c.c_void_p(), Piece(), c.c_void_p()
        if dump:
            tools = c.CDLL(os.path.join(self.folder, "libfastvlm_tools.so"))
            self.call("fv_dump_open", c.byref(files), os.fsencode(dump), lib=tools)
            o.tap, o.tap_user, o.tap_prompt_logits = c.cast(tools.fv_dump_tap, c.c_void_p), files, True
        self.call("fv_session_new", c.byref(session), self.handle, c.byref(o))
        if picture:
            self.call("fv_image_open", c.byref(image), os.fsencode(picture), None)
            self.call("fv_session_add_image", session, image, c.byref(encode))
            self.lib.fv_image_free(image)
        data = prompt.encode()
        self.call("fv_session_add_text", session, data, c.c_size_t(len(data)))
        self.call("fv_session_begin", session, c.byref(rules))
        ids, text = [], b""
        while True:
            self.call("fv_session_next", session, c.byref(piece))
            if piece.id >= 0:
                ids.append(piece.id)
            if piece.n_bytes:
                text += c.string_at(piece.text, piece.n_bytes)
            if piece.done:
                break
        if dump:
            self.call("fv_dump_commit", files, lib=tools)
            tools.fv_dump_free(files)
        self.lib.fv_session_free(session)
        return ids, text.decode()


def export(program, *args):
    """fastvlm export ...; fails with what the program said."""
    r = subprocess.run([program, "export", *args], capture_output=True, text=True)
    if r.returncode:
        raise RuntimeError("fastvlm export %s: %s" % (" ".join(args), r.stderr))
    return r.stderr


def prompt_text(question, picture):
    """The conversation around a question. [docs/model.md, 5.2]"""
    return ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n%s%s<|im_end|>\n<|im_start|>assistant\n"
            % ("<image>\n" if picture else "", question))
