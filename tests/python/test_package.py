"""The package fastvlm against the library it finds: in the wheel, or FASTVLM_LIBRARY's."""
import ctypes
import dataclasses
import dis
import errno
import gc
import inspect
import io
import logging
import os
import pathlib
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import typing
import unittest
import unittest.mock
import weakref

import fastvlm
from fastvlm import _abi, _batch, _library, _model

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
IMAGES = ROOT / "examples" / "images"
SIGN = IMAGES / "sign.png"
TEXT = "What does the text say?"
EMULATED = os.environ.get("FASTVLM_TEST_EMULATOR")  # what starts a Python of another architecture
MODEL_PATH = None if _model.DEMO.exists() else ROOT / "models" / "demo" / "demo.gguf"

try:
    import numpy
except ImportError:
    numpy = None
try:
    import PIL.Image
except ImportError:
    PIL = None


def demo(**options):
    return fastvlm.Model(MODEL_PATH, **options)


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = demo()


class Questions(Case):
    def test_answer(self):
        answer = self.model.ask(SIGN, TEXT)
        self.assertEqual(answer, "HELLO")
        self.assertIsInstance(answer, str)
        self.assertEqual(answer.finish, "stop")
        self.assertIsNone(answer.logprobs)
        text = b"".join(self.model.token_bytes(t) for t in answer.tokens[:-1])
        self.assertEqual(text, b"HELLO")
        self.assertIn(answer.tokens[-1], self.model.info.end_tokens)

    def test_default_prompt(self):
        self.assertEqual(self.model.ask(SIGN), self.model.ask(SIGN, "Describe the image."))

    def test_stream(self):
        pieces = list(self.model.stream(SIGN))
        self.assertGreater(len(pieces), 5)
        self.assertEqual("".join(pieces), self.model.ask(SIGN))
        self.assertEqual([p.finish for p in pieces], [""] * (len(pieces) - 1) + ["stop"])

    def test_stream_gives_the_rest_as_an_answer(self):
        stream = self.model.stream(SIGN)
        first = next(stream)
        answer = stream.answer()
        self.assertTrue(answer.startswith(first))
        self.assertEqual(answer, self.model.ask(SIGN))
        self.assertEqual(list(stream), [])

    def test_several_images_and_none(self):
        with self.model.session() as s:
            s.ask(TEXT, [SIGN, IMAGES / "shapes.png"])
            self.assertEqual(s.stats.image_tokens, 2 * self.model.info.n_image_tokens)
        self.assertIsInstance(self.model.ask(None, "Hello"), str)

    def test_limits_and_stop(self):
        answer = self.model.ask(SIGN, max_tokens=3)
        self.assertEqual((len(answer.tokens), answer.finish), (3, "length"))
        answer = self.model.ask(SIGN, stop=["star", "never"])
        self.assertEqual((answer, answer.finish), ("A large red ", "stop_string"))
        self.assertEqual(self.model.ask(SIGN, stop="star"), "A large red ")

    def test_logprobs(self):
        answer = self.model.ask(SIGN, TEXT, logprobs=3)
        self.assertEqual(len(answer.logprobs), len(answer.tokens))
        for token, logprob, top in zip(answer.tokens, answer.logprobs, answer.top_logprobs):
            self.assertLessEqual(logprob, 0)
            self.assertEqual(len(top), 3)
            self.assertEqual(top[0], (token, logprob))  # greedy

    def test_sampling_repeats_with_a_seed(self):
        ask = lambda seed: self.model.ask(SIGN, temperature=8.0, seed=seed, max_tokens=12)  # noqa: E731
        self.assertEqual(ask(1), ask(1))
        self.assertGreater(len({ask(seed) for seed in range(6)}), 1)

    def test_bias(self):
        first = self.model.ask(SIGN, TEXT).tokens[0]
        self.assertNotEqual(self.model.ask(SIGN, TEXT, bias={first: float("-inf")}).tokens[0], first)

    def test_threads_share_a_model(self):
        """Everything at once; in free-threaded builds the Python code, too."""
        features, answers = self.model.encode(SIGN), []
        start = threading.Barrier(4)

        def work():
            start.wait()
            answers.append(self.model.ask(SIGN, TEXT))
            answers.append("".join(self.model.stream(features, TEXT)))
            answers.extend(self.model.caption_batch([SIGN, features], TEXT))
            answers.append(self.model.encode(SIGN).rows.tobytes() == features.rows.tobytes() and "HELLO")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, ["HELLO"] * 20)

    def test_closed_while_threads_use_it(self):
        """What is closed in the middle of calls is freed after them."""
        model, answers = demo(), []
        going = threading.Semaphore(0)

        def work():
            try:
                while True:
                    answers.append(model.ask(SIGN, TEXT))
                    going.release()
            except fastvlm.StateError:
                pass

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        going.acquire()
        model.close()
        for thread in threads:
            thread.join()
        self.assertEqual(set(answers), {"HELLO"})


    @unittest.skipUnless(hasattr(os, "fork"), "no fork")
    def test_after_fork(self):
        """A child has none of the model's threads: it works on its own."""
        self.assertEqual(self.model.ask(SIGN, TEXT), "HELLO")
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if self.model.ask(SIGN, TEXT) == "HELLO" else 1)
            finally:
                os._exit(2)
        self.assertEqual(os.waitpid(child, 0)[1], 0)


class Masks(Case):
    class Only:
        """Tokens of a list, one after the other."""

        def __init__(self, tokens):
            self.tokens, self.seen = tokens, []

        def start(self):
            self.seen = []
            return self

        def fill(self, mask):
            wanted = self.tokens[len(self.seen)]
            for i in range(len(mask)):
                mask[i] &= 1 << wanted % 32 if i == wanted // 32 else 0

        def chosen(self, token):
            self.seen.append(token)

    def test_mask(self):
        tokens = self.model.tokenize("no") + [self.model.info.end_tokens[0]]
        mask = self.Only(tokens)
        for _ in range(2):  # start() makes it new
            answer = self.model.ask(SIGN, TEXT, mask=mask)
            self.assertEqual((answer, answer.tokens, mask.seen), ("no", tokens, tokens))

    def test_what_a_mask_raises(self):
        class Bad(self.Only):
            def fill(self, mask):
                raise KeyError("inside")

        with self.model.session() as s:
            before = s.ask(TEXT, SIGN)
            position = s.position
            with self.assertRaisesRegex(KeyError, "inside"):
                s.ask(TEXT, mask=Bad([]))
            self.assertEqual((before, s.position), ("HELLO", position))

    def test_json_schema(self):
        try:
            import llguidance  # noqa: F401
        except ImportError:
            self.skipTest("no llguidance")
        import json
        from fastvlm import guide
        schema = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 8}, "stars": {"type": "integer",
                  "minimum": 0, "maximum": 9}}, "required": ["text", "stars"], "additionalProperties": False}
        mask = guide.json_schema(self.model, schema)
        for answer in [self.model.ask(SIGN, TEXT, mask=mask)] + self.model.caption_batch([SIGN] * 3, TEXT, mask=mask):
            value = json.loads(answer)
            self.assertEqual(set(value), {"text", "stars"})
            self.assertIn(value["stars"], range(10))
        self.assertRegex(self.model.ask(SIGN, TEXT, mask=guide.regex(self.model, "(yes|no)!")), "^(yes|no)!$")
        with self.assertRaises(ValueError):
            guide.regex(self.model, "(")

    def test_grammars_keep_no_model(self):
        try:
            import llguidance  # noqa: F401
        except ImportError:
            self.skipTest("no llguidance")
        from fastvlm import guide
        real, freed = _library.lib.fv_engine_free, []
        with unittest.mock.patch.object(_library.lib, "fv_engine_free", lambda p: (freed.append(1), real(p))):
            models = demo(), demo(), demo()
        masks = [guide.regex(model, "yes|no") for model in models]
        gone, closed, used = models
        session = used.session()
        used.close()
        gc.collect()
        gc.disable()
        try:
            self.assertIn(session.ask(TEXT, SIGN, mask=masks[2]), ("yes", "no"))
            closed.close()
            del masks, session
        finally:
            gc.enable()
        self.assertEqual(len(freed), 2)
        gone = weakref.ref(gone)
        del models
        self.assertEqual((gone(), len(freed)), (None, 3))


class Features(Case):
    def test_asked_many_times(self):
        features = self.model.encode(SIGN)
        info = self.model.info
        self.assertEqual(features.shape, (info.n_image_tokens, info.d_model))
        self.assertEqual(len(features), info.n_image_tokens)
        self.assertEqual(self.model.ask(features, TEXT), "HELLO")
        self.assertEqual(self.model.ask(features), self.model.ask(SIGN))

    def test_rows(self):
        features = self.model.encode(SIGN)
        rows = features.rows
        self.assertEqual((rows.shape, rows.readonly, rows.format), (features.shape, True, "f"))
        value, gone = rows[3, 7], weakref.ref(features)
        del features
        gc.collect()
        self.assertIsNotNone(gone())  # rows hold it
        self.assertEqual(rows[3, 7], value)
        again = self.model.features(rows)
        self.assertEqual(again.rows.tobytes(), rows.tobytes())
        self.assertEqual(self.model.ask(again, TEXT), "HELLO")
        del rows
        gc.collect()
        self.assertIsNone(gone())

    def test_outlive_their_model(self):
        with demo() as model:
            features = model.encode(SIGN)
        self.assertEqual(self.model.ask(features, TEXT), "HELLO")

    def test_fit(self):
        wide = bytes([200, 30, 30]) * 40 * 20
        array = Array(wide, (20, 40, 3), "|u1")
        self.assertNotEqual(self.model.encode(array, fit="stretch").rows.tobytes(),
                            self.model.encode(array, fit="pad").rows.tobytes())

    def test_wrong_rows(self):
        with self.assertRaisesRegex(ValueError, "expected float32"):
            self.model.features(memoryview(b"1234"))
        rows = memoryview(bytes(4 * 6)).cast("f", (2, 3))
        with self.assertRaisesRegex(fastvlm.ArgumentError, "d_model"):
            self.model.features(rows)

    @unittest.skipUnless(numpy, "no numpy")
    def test_numpy_sees_them_without_a_copy(self):
        features = self.model.encode(SIGN)
        array = numpy.asarray(features)
        self.assertEqual((array.shape, array.dtype), (features.shape, numpy.float32))
        self.assertEqual(array.ctypes.data, features.__array_interface__["data"][0])
        self.assertFalse(array.flags.writeable)
        value = array.copy()
        del features
        gc.collect()
        self.assertTrue((array == value).all())
        self.assertEqual(self.model.features(array).rows.tobytes(), value.tobytes())


class Array:
    """An array without numpy."""

    def __init__(self, data, shape, typestr, strides=None):
        self.buffer = ctypes.create_string_buffer(data, len(data))
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": typestr, "strides": strides,
                                    "data": (ctypes.addressof(self.buffer), False)}


class Images(Case):
    def test_sources(self):
        data = SIGN.read_bytes()
        want = self.model.ask(SIGN)
        for source in (str(SIGN), data, bytearray(data), memoryview(data), memoryview(bytearray(data)), fastvlm.Image(SIGN)):
            self.assertEqual(self.model.ask(source), want, type(source))

    def test_properties(self):
        image = fastvlm.Image(SIGN)
        self.assertEqual(image.format, "PNG")
        self.assertEqual(repr(image), f"<fastvlm.Image PNG {image.width}x{image.height}>")
        self.assertEqual(image.__array_interface__["shape"], (image.height, image.width, 3))

    def test_arrays(self):
        w, h = 9, 5
        rgb = bytes(range(w * h * 3))
        want = self.model.encode(Array(rgb, (h, w, 3), "|u1")).rows.tobytes()
        rgba = b"".join(rgb[i:i + 3] + b"\x00" for i in range(0, len(rgb), 3))
        self.assertEqual(self.model.encode(Array(rgba, (h, w, 4), "|u1")).rows.tobytes(), want)
        gaps = b"".join(rgb[y * w * 3:(y + 1) * w * 3] + b"?" * 7 for y in range(h))
        self.assertEqual(self.model.encode(Array(gaps, (h, w, 3), "|u1", (w * 3 + 7, 3, 1))).rows.tobytes(), want)
        floats = memoryview(bytearray(w * h * 12)).cast("f")
        for i, value in enumerate(rgb):
            floats[i] = value / 255
        self.assertEqual(self.model.encode(Array(floats.tobytes(), (h, w, 3), "<f4")).rows.tobytes(), want)
        gray = bytes(range(w * h))
        want = self.model.encode(Array(bytes(v for v in gray for _ in range(3)), (h, w, 3), "|u1")).rows.tobytes()
        for shape in ((h, w), (h, w, 1)):
            self.assertEqual(self.model.encode(Array(gray, shape, "|u1")).rows.tobytes(), want)

    def test_wrong_arrays(self):
        for shape, typestr in (((5, 9, 2), "|u1"), ((9,), "|u1"), ((5, 9, 3), "<f8"), ((3, 5, 9), "|u1"), ((5, 9, 3, 1), "|u1")):
            with self.assertRaisesRegex(ValueError, r"array is .*expected uint8 \[height, width\]"):
                fastvlm.Image(Array(bytes(1200), shape, typestr))
        with self.assertRaisesRegex(ValueError, "expected 1 to 65535"):
            fastvlm.Image(Array(b"", (0, 9, 3), "|u1"))
        with self.assertRaisesRegex(TypeError, "int is not an image; expected a path"):
            fastvlm.Image(5)

    def test_floats_outside(self):
        def image(value):
            floats = memoryview(bytearray(2 * 3 * 12)).cast("f")
            floats[7] = value
            return Array(floats.tobytes(), (2, 3, 3), "<f4")

        for modules in (sys.modules, {n: m for n, m in sys.modules.items() if n != "numpy"}):
            with unittest.mock.patch.object(sys, "modules", modules):
                for value, shown in ((255, "255"), (1.01, "1.01"), (-1, "-1"), (float("nan"), "nan"), (float("inf"), "inf")):
                    with self.assertRaisesRegex(fastvlm.ArgumentError, f"array holds {shown}; expected float32 from 0 to 1"):
                        fastvlm.Image(image(value))
                for value in 0, 1, 1.0000001, -0.0000001:
                    fastvlm.Image(image(value))

    @unittest.skipUnless(numpy, "no numpy")
    def test_numpy(self):
        image = numpy.asarray(fastvlm.Image(SIGN))
        self.assertEqual(image.shape[2], 3)
        want = self.model.encode(SIGN).rows.tobytes()
        for array in (image, numpy.asfortranarray(image), numpy.ascontiguousarray(image[::-1])[::-1],
                      numpy.dstack([image, image])[:, :, :3], (image / 255).astype(numpy.float32)):
            self.assertEqual(self.model.encode(array).rows.tobytes(), want)
        row = numpy.broadcast_to(image[:1], image.shape)
        self.assertEqual(self.model.encode(row).rows.tobytes(), self.model.encode(row.copy()).rows.tobytes())

        class Tensor:
            def __array__(self, dtype=None, copy=None):
                return image

        self.assertEqual(self.model.encode(Tensor()).rows.tobytes(), want)

    @unittest.skipUnless(PIL, "no Pillow")
    def test_pillow(self):
        want = self.model.encode(SIGN).rows.tobytes()
        image = PIL.Image.open(SIGN)
        for one in (image, image.convert("RGB"), image.convert("RGBA")):
            self.assertEqual(self.model.encode(one).rows.tobytes(), want, one.mode)
        gray = image.convert("L")
        self.assertEqual(self.model.encode(gray).rows.tobytes(), self.model.encode(gray.convert("RGB")).rows.tobytes())
        self.model.encode(image.convert("P"))

    @unittest.skipUnless(PIL, "no Pillow")
    def test_pillow_in_16_bits(self):
        """The same as from the file."""
        w, h = 40, 30
        data = b"".join((65535 * i // (w * h - 1)).to_bytes(2, "little") for i in range(w * h))
        image = PIL.Image.frombytes("I;16", (w, h), data)
        for name in "PNG", "TIFF":
            if fastvlm.image_formats()[name]:
                continue
            file = io.BytesIO()
            image.save(file, name)
            opened = PIL.Image.open(io.BytesIO(file.getvalue()))
            if opened.mode == "I":  # older Pillow's of PNG
                continue
            self.assertEqual(self.model.encode(opened).rows.tobytes(), self.model.encode(file.getvalue()).rows.tobytes())
        want = self.model.encode(PIL.Image.frombytes("L", (w, h), data[1::2])).rows.tobytes()
        swapped = b"".join(data[i:i + 2][::-1] for i in range(0, len(data), 2))
        for one in image, PIL.Image.frombytes("I;16B", (w, h), swapped):
            self.assertEqual(self.model.encode(one).rows.tobytes(), want, one.mode)
        for mode in "I", "F":
            with self.assertRaisesRegex(fastvlm.ArgumentError, f'the mode "{mode}".*expected'):
                fastvlm.Image(PIL.Image.new(mode, (4, 4)))

    @unittest.skipUnless(PIL, "no Pillow")
    def test_pillow_closed(self):
        image = PIL.Image.open(SIGN)
        image.close()
        with self.assertRaisesRegex(fastvlm.FormatError, "Pillow cannot read the image: .*closed"):
            fastvlm.Image(image)

    @unittest.skipUnless(PIL, "no Pillow")
    def test_pillow_turns_as_exif_says(self):
        image = PIL.Image.open(IMAGES / "sign.png").convert("RGB").resize((120, 80))
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        file = io.BytesIO()
        image.save(file, "PNG", exif=exif)
        opened = PIL.Image.open(io.BytesIO(file.getvalue()))
        turned = fastvlm.Image(opened)
        self.assertEqual((turned.width, turned.height), (80, 120))
        self.assertEqual(self.model.encode(turned).rows.tobytes(), self.model.encode(file.getvalue()).rows.tobytes())
        plain = fastvlm.Image(opened, ignore_exif=True)
        self.assertEqual((plain.width, plain.height), (120, 80))
        with unittest.mock.patch.object(opened, "getexif", lambda: {0x0112: 6.0}):  # as damaged files have it
            self.assertEqual(fastvlm.Image(opened).width, 120)

    def test_max_pixels(self):
        with self.assertRaises(fastvlm.LimitError):
            fastvlm.Image(SIGN, max_pixels=10)


class Sessions(Case):
    def test_conversation(self):
        with self.model.session() as s:
            self.assertEqual(s.ask("What shape is red?", SIGN), "Star")
            self.assertEqual(s.ask(TEXT), "HELLO")
            self.assertLess(s.stats.prompt_tokens, s.stats.context_used - self.model.info.n_image_tokens)  # what is new
            self.assertGreater(s.stats.context_used, self.model.info.n_image_tokens)
        with self.assertRaisesRegex(fastvlm.StateError, "closed"):
            s.ask("more?")

    def test_parts(self):
        with self.model.session() as s:
            s.add_image(SIGN)
            s.add_text(TEXT)
            self.assertEqual(s.answer(max_tokens=50).answer(), "HELLO")
            s.add_text("What shape is red?")
            s.add_answer("Star")
            s.add_text(TEXT)
            self.assertIsInstance(s.answer().answer(), str)

    def test_score(self):
        def score(answer):
            with self.model.session() as s:
                s.add_image(SIGN)
                s.add_text(TEXT)
                return s.score(answer)

        right, wrong = score("HELLO"), score("GOODBYE")
        self.assertGreater(right.logprob, wrong.logprob)
        self.assertEqual(right.n_greedy, right.n_tokens)

    def test_position_copy_save(self):
        with self.model.session() as s:
            start = s.position
            s.ask("What shape is red?", SIGN)
            after = s.position
            self.assertGreater(after, start)
            twin, data = s.copy(), s.save()
            want = s.ask(TEXT)
            self.assertEqual(twin.ask(TEXT), want)
            s.rewind(after)
            self.assertEqual(s.ask(TEXT), want)
        with self.model.session() as s:
            s.load(data)
            self.assertEqual(s.position, after)
            self.assertEqual(s.ask(TEXT), want)
            with self.assertRaises(fastvlm.FormatError):
                s.load(data[:-1])
            with self.assertRaises(fastvlm.ArgumentError):
                s.rewind(10**6)

    def test_a_question_that_fails_leaves_no_trace(self):
        with self.model.session() as s:
            s.ask("What shape is red?", SIGN)
            position = s.position
            with self.assertRaises(TypeError):
                s.ask(TEXT, SIGN, colour=3)
            with self.assertRaises(fastvlm.LimitError):
                s.ask("word " * 5000, SIGN)
            with self.assertRaises(fastvlm.FileError):
                s.ask(TEXT, [SIGN, "nowhere.png"])
            self.assertEqual(s.position, position)
            self.assertEqual(s.ask(TEXT), "HELLO")
            self.assertEqual(s.stats.image_tokens, 0)

    def test_an_answer_that_is_cut_off(self):
        with self.model.session() as s:
            stream = s.stream("Describe the image.", SIGN)
            next(stream)
            self.assertEqual(s.ask(TEXT), "HELLO")
            with self.assertRaisesRegex(fastvlm.StateError, "another turn"):
                next(stream)
            s.add_text(TEXT)
            stream = s.answer()
            s.add_answer("GOODBYE")
            with self.assertRaisesRegex(fastvlm.StateError, "another turn"):
                next(stream)

    def test_an_answer_refused_in_an_answer(self):
        with self.model.session() as s:
            stream = s.stream(TEXT, SIGN)
            next(stream)
            for add in s.add_answer, s.score:
                with self.assertRaisesRegex(fastvlm.StateError, "no user turn"):
                    add("GOODBYE")
            self.assertEqual(stream.answer(), "HELLO")

    def test_reset_and_system(self):
        with self.model.session(system="", max_context=200, threads=1, exact_reuse=True) as s:
            s.ask(TEXT, SIGN)
            s.reset()
            self.assertEqual(s.position, 0)
            self.assertIsInstance(s.ask(TEXT, SIGN), str)
            with self.assertRaises(fastvlm.LimitError):
                s.ask("word " * 300)

    def test_no_answer_begun(self):
        with self.model.session() as s:
            with self.assertRaises(fastvlm.StateError):
                s.answer().answer()


class Batches(Case):
    def files(self):
        return sorted(IMAGES.iterdir())

    def test_the_same_bits_as_alone(self):
        n = 1 if EMULATED else 3
        images = [p.read_bytes() for p in self.files()] * n
        alone = [self.model.ask(i, logprobs=1) for i in images[:5]] * n
        for together in (3,) if EMULATED else (1, 3, 16):
            answers = self.model.caption_batch(images, together=together, logprobs=1)
            self.assertEqual(answers, alone)
            self.assertEqual([a.logprobs for a in answers], [a.logprobs for a in alone])
            self.assertEqual([a.tokens for a in answers], [a.tokens for a in alone])

    def test_prompts_features_and_lists(self):
        features = self.model.encode(SIGN)
        answers = self.model.caption_batch([SIGN, features, [SIGN], None], [TEXT, "What shape is red?", TEXT, "Hello"])
        self.assertEqual(answers[:3], ["HELLO", "Star", "HELLO"])
        with self.assertRaisesRegex(ValueError, "2 images and 1 prompts"):
            self.model.caption_batch([SIGN, SIGN], [TEXT])
        with self.assertRaisesRegex(ValueError, "1 prompts, and more images"):
            self.model.caption_batch(iter([SIGN, SIGN]), [TEXT])

    def test_one_bad_image(self):
        images = [SIGN, b"not an image", SIGN, "nowhere.png"]
        answers = self.model.caption_batch(images, TEXT, errors="return")
        self.assertEqual([answers[0], answers[2]], ["HELLO", "HELLO"])
        self.assertIsInstance(answers[1], fastvlm.Error)
        self.assertIsInstance(answers[3], fastvlm.FileError)
        self.assertEqual([answers[1].index, answers[3].index], [1, 3])
        with self.assertRaises(fastvlm.Error) as raised:
            self.model.caption_batch(images, TEXT)
        self.assertIn(raised.exception.index, (1, 3))
        answers = self.model.caption_batch([SIGN] * 2, [TEXT, "word " * 5000], errors="return")
        self.assertEqual(answers[0], "HELLO")
        self.assertIsInstance(answers[1], fastvlm.LimitError)

    def test_items_of_a_wrong_kind(self):
        """Each is an error in its place, whatever it raises where it stands alone."""
        class Bad:
            __array_interface__ = property(lambda self: {}["shape"])

        images = [SIGN, 5, object(), [SIGN, 5], Bad(), memoryview(b""), SIGN]
        if PIL:
            images.insert(1, PIL.Image.open(SIGN))
            images[1].close()
        answers = self.model.caption_batch(images, TEXT, errors="return")
        self.assertEqual([answers[0], answers[-1]], ["HELLO", "HELLO"])
        for index, answer in enumerate(answers[1:-1], 1):
            self.assertIsInstance(answer, fastvlm.Error)
            self.assertEqual(answer.index, index)
        self.assertRegex(str(answers[-6]), "^int is not an image; expected")
        self.assertIsInstance(answers[-6].__cause__, TypeError)
        with self.assertRaises(TypeError):
            self.model.caption_batch([SIGN, 5], TEXT)
        answers = self.model.caption_batch([SIGN] * 5, [TEXT, 5, "\ud800", "a\0b", TEXT], errors="return")
        self.assertEqual([answers[0], answers[4]], ["HELLO", "HELLO"])
        self.assertEqual([type(a) for a in answers[1:4]], [fastvlm.ArgumentError] * 3)

        class Mask:
            def start(self):
                raise TypeError("of the option")

        for options in {"mask": Mask()}, {"temperature": "hot"}:
            with self.assertRaisesRegex(TypeError, "of the option|expected a number"):
                self.model.caption_batch([SIGN], TEXT, errors="return", **options)

    def test_captions_of_an_endless_iterable(self):
        taken = []

        def endless():
            while True:
                taken.append(1)
                yield SIGN

        found = []
        captions = self.model.captions(endless(), TEXT, together=2)
        for index, answer in captions:
            found.append(answer)
            if len(found) == 5:
                break
        captions.close()
        self.assertEqual(found, ["HELLO"] * 5)
        self.assertLess(len(taken), 20)
        self.assertFalse([t for t in threading.enumerate() if t.name.startswith("fastvlm")])

    def test_one_in_place_of_many(self):
        for images in str(SIGN), SIGN, SIGN.read_bytes(), bytearray(b"1"), memoryview(b"1"):
            with self.assertRaisesRegex(TypeError, "images is one [A-Za-z]+; expected a list"):
                self.model.caption_batch(images, TEXT)
        for prompt in 5, b"What?", None:
            with self.assertRaisesRegex(TypeError, "prompt is .*; expected a str or a list of them"):
                self.model.caption_batch([SIGN], prompt)

    def test_none_at_all(self):
        self.assertEqual(self.model.caption_batch([]), [])

    def test_an_iterable_that_fails(self):
        def failing():
            yield SIGN
            raise KeyError("inside")

        with self.assertRaisesRegex(KeyError, "inside"):
            self.model.caption_batch(failing(), TEXT)
        self.assertFalse([t for t in threading.enumerate() if t.name.startswith("fastvlm")])

    def test_wrong_arguments(self):
        for arguments, problem in (({"together": 0}, "together is 0"), ({"errors": "ignore"}, "expected 'raise' or 'return'"),
                                   ({"temperature": "hot"}, "expected a number")):
            with self.assertRaisesRegex((ValueError, TypeError), problem):
                self.model.caption_batch([SIGN], **arguments)


class Workers(unittest.TestCase):
    """fastvlm.ray and fastvlm.spark without Ray and Spark; with them: tools/test-cluster.sh."""

    def test_ray(self):
        from fastvlm.ray import Captioner
        worker = Captioner(MODEL_PATH, TEXT, threads=1)
        out = worker({"path": ["a", "b", "c"], "bytes": [SIGN.read_bytes(), b"nothing", None]})
        self.assertEqual(out["path"], ["a", "b", "c"])
        self.assertEqual(out["caption"], ["HELLO", "", ""])
        self.assertEqual([bool(e) for e in out["error"]], [False, True, True])
        out = Captioner(MODEL_PATH, None, max_tokens=1)({"bytes": [SIGN.read_bytes()], "prompt": ["What shape is red?"]})
        self.assertEqual((out["caption"], out["error"]), (["Star"], [""]))
        with self.assertRaisesRegex(ValueError, "no column 'prompt'"):
            Captioner(MODEL_PATH, None)({"bytes": [SIGN.read_bytes()]})

    def test_spark(self):
        from fastvlm.spark import captioner

        class Frame(dict):
            """What captioner uses of a pandas.DataFrame."""

            def __getitem__(self, key):
                return Frame({k: self[k] for k in key}) if isinstance(key, list) else super().__getitem__(key)

            def assign(self, **columns):
                return Frame(self, **columns)

        run = captioner(MODEL_PATH, TEXT, threads=1)
        frames = [Frame(path=["a"], content=[SIGN.read_bytes()]), Frame(path=["b"], content=[b"nothing"])]
        first, second = run(iter(frames))
        self.assertEqual(first, {"path": ["a"], "caption": ["HELLO"], "error": [""]})
        self.assertEqual((second["path"], second["caption"]), (["b"], [""]))


class Interrupts(Case):
    def test_ctrl_c_in_a_call(self):
        """The signal comes while C runs: Python's handler runs in the next callback."""
        def progress(stage, done):
            os.kill(os.getpid(), signal.SIGINT)

        with self.model.session(progress=progress) as s:
            with self.assertRaises(KeyboardInterrupt):
                s.ask(TEXT, SIGN)
        with self.assertRaises(KeyboardInterrupt):
            self.model.encode(SIGN, progress=progress)
        self.assertEqual(self.model.ask(SIGN, TEXT), "HELLO")

    def interrupted_between(self, signum, error):
        """The signal comes while C runs and no Python code does."""
        entered = threading.Event()

        def kill():
            entered.wait()  # and for the GIL, which the callback gives up by returning to C
            os.kill(os.getpid(), signum)

        handler, killer = signal.getsignal(signum), threading.Thread(target=kill)
        killer.start()
        with self.model.session(progress=lambda stage, done: entered.set()) as s:
            with self.assertRaises(error):
                s.ask("Describe the image.", [SIGN] * 8)
                killer.join()
        killer.join()
        self.assertIs(signal.getsignal(signum), handler)

    def test_ctrl_c_between_callbacks(self):
        self.interrupted_between(signal.SIGINT, KeyboardInterrupt)

    def test_other_handlers_that_raise(self):
        def late(signum, frame):
            raise TimeoutError

        for signum in (signal.SIGALRM, signal.SIGTERM):
            previous = signal.signal(signum, late)
            try:
                self.interrupted_between(signum, TimeoutError)
            finally:
                signal.signal(signum, previous)

    def interrupted_after(self, name, number=1):
        """The library's function `name` with Ctrl-C after its work, as if during its last instruction."""
        real, left = getattr(_library.lib, name), [number]

        def function(*arguments):
            status = real(*arguments)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGINT)
            return status

        return unittest.mock.patch.object(_library.lib, name, function)

    def test_ctrl_c_after_the_last_callback(self):
        """The conversation is what it was, whichever call of a question was the last before Ctrl-C."""
        with self.model.session() as s:
            s.ask("What shape is red?", SIGN)
            position = s.position
            answer = s.copy().ask(TEXT, logprobs=1)
            for name, number in (("fv_session_add_image", 1), ("fv_session_add_image", 2), ("fv_session_add_text", 1),
                                 ("fv_session_begin", 1), ("fv_session_next", 1), ("fv_session_next", 2)):
                with self.subTest(name, number=number), self.interrupted_after(name, number):
                    with self.assertRaises(KeyboardInterrupt):
                        s.ask(TEXT, [SIGN, IMAGES / "shapes.png"])
                    self.assertEqual(s.position, position)
                    self.assertEqual(s.copy().ask(TEXT, logprobs=1).logprobs, answer.logprobs)
            with self.interrupted_after("fv_session_next", len(answer.tokens)), self.assertRaises(KeyboardInterrupt):
                s.ask(TEXT)
            self.assertEqual(s.position, position)
            again = s.ask(TEXT, logprobs=1)
            self.assertEqual((again, again.logprobs), (answer, answer.logprobs))
        self.assertIs(signal.getsignal(signal.SIGINT), signal.default_int_handler)

    def test_ctrl_c_after_an_answer_was_added(self):
        """A stream that was begun before does not take the answer away."""
        for name, add in (("fv_session_add_answer", fastvlm.Session.add_answer), ("fv_session_score", fastvlm.Session.score)):
            with self.subTest(name), self.model.session() as s:
                stream = s.stream(TEXT, SIGN)
                with self.interrupted_after(name), self.assertRaises(KeyboardInterrupt):
                    add(s, "GOODBYE")
                position = s.position
                with self.assertRaisesRegex(fastvlm.StateError, "another turn"):
                    next(stream)
                self.assertEqual(s.position, position)

    def test_what_was_made_before_ctrl_c_is_freed(self):
        real, freed = _library.lib.fv_features_free, []
        with unittest.mock.patch.object(_library.lib, "fv_features_free", lambda p: (freed.append(p.value), real(p))):
            with self.interrupted_after("fv_encode"), self.assertRaises(KeyboardInterrupt):
                self.model.encode(SIGN)
        self.assertEqual([bool(p) for p in freed], [True])

    def test_a_handler_that_does_not_raise(self):
        seen = []
        previous = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
        try:
            with self.model.session(progress=lambda stage, done: os.kill(os.getpid(), signal.SIGINT)) as s:
                self.assertEqual(s.ask(TEXT, SIGN), "HELLO")
        finally:
            signal.signal(signal.SIGINT, previous)
        self.assertGreater(len(seen), 3)

    def test_a_signal_at_any_instruction(self):
        """While handlers are replaced or put back: what a handler raises is raised once, and nothing stays behind."""
        class Late(ValueError):  # signal.signal raises these, too
            pass

        def late(signum, frame):
            raise Late

        def signalled(signum, number):
            """Runs nothing, with a signal before instruction `number` of _library.py; the instructions left."""
            left = number

            def trace(frame, event, argument):
                nonlocal left
                if frame.f_code.co_filename != _library.__file__:
                    return None
                frame.f_trace_opcodes = True
                # Python runs no handler at this one, which is no instruction but a mark, nor minds exceptions there.
                if event == "opcode" and dis.opname[frame.f_code.co_code[frame.f_lasti]] != "NOT_TAKEN":
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signum)
                return trace

            before = sys.gettrace()
            sys._getframe().f_trace_opcodes = True  # without one that is set, Python 3.12 gives no such events
            sys.settrace(trace)
            try:
                watch.run(int)
            finally:
                sys.settrace(before)
            return left

        watch = _library.Watch()
        handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: late, signal.SIGALRM: late}
        before = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
        try:
            for signum, error in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Late), (signal.SIGALRM, Late)):
                n_instructions = 10**6 - signalled(signum, 10**6)
                self.assertGreater(n_instructions, 50)
                for number in range(1, n_instructions + 1):
                    with self.assertRaises(error):
                        signalled(signum, number)
                    self.assertEqual({s: signal.getsignal(s) for s in handlers}, handlers, number)
                    self.assertEqual((watch.state.deferring, watch.state.raised), (False, None), number)
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def test_ctrl_c_in_a_batch(self):
        def images():
            for i in range(1000):
                if i == 5:
                    os.kill(os.getpid(), signal.SIGINT)
                yield SIGN

        with self.assertRaises(KeyboardInterrupt):
            self.model.caption_batch(images())
        self.assertFalse([t for t in threading.enumerate() if t.name.startswith("fastvlm")])

    def test_ctrl_c_while_the_threads_start(self):
        def start(feeder):
            reader, encoder = feeder._threads
            reader.start()
            os.kill(os.getpid(), signal.SIGINT)
            encoder.start()

        with unittest.mock.patch.object(_batch._Feeder, "start", start), self.assertRaises(KeyboardInterrupt):
            self.model.caption_batch([SIGN] * 5)
        self.assertFalse([t for t in threading.enumerate() if t.name.startswith("fastvlm")])

    def test_ctrl_c_while_the_iterable_waits(self):
        """What it waits for may never come."""
        waits, goes_on = threading.Event(), threading.Event()

        def images():
            yield SIGN
            waits.set()
            goes_on.wait()
            yield SIGN

        def kill():
            waits.wait()
            os.kill(os.getpid(), signal.SIGINT)

        killer = threading.Thread(target=kill)
        with unittest.mock.patch.object(_batch, "_PATIENCE_S", 0.0):
            with self.assertRaises(KeyboardInterrupt):
                killer.start()
                self.model.caption_batch(images(), TEXT)
        goes_on.set()
        killer.join()
        for thread in threading.enumerate():
            if thread.name.startswith("fastvlm"):
                thread.join()

    def test_what_a_question_in_a_callback_raises(self):
        """It is the twin's callback, too, whose exception both calls end with."""
        twins, asked = [], []

        def progress(stage, done):
            if twins:
                asked.append(twins.pop())
                asked[0].ask(TEXT)
            elif asked:
                raise KeyError("inside")

        with self.model.session(progress=progress) as s:
            s.ask("What shape is red?", SIGN)
            twins.append(s.copy())
            with self.assertRaisesRegex(KeyError, "inside"):
                s.ask(TEXT)

    def test_what_progress_raises(self):
        stages = set()

        def progress(stage, done):
            stages.add(stage)
            if stage == "decode":
                raise KeyError("inside")

        with self.model.session(progress=progress) as s:
            with self.assertRaisesRegex(KeyError, "inside"):
                s.ask(TEXT, SIGN)
            self.assertEqual(s.position, 0)
        self.assertLessEqual({"vision", "prefill", "decode"}, stages)

    def test_progress_says_stop(self):
        with self.assertRaises(fastvlm.Cancelled):
            self.model.encode(SIGN, progress=lambda stage, done: True)
        with self.assertRaises(fastvlm.Cancelled):
            demo(progress=lambda stage, done: True)


class Errors(unittest.TestCase):
    def test_classes(self):
        with self.assertRaisesRegex(fastvlm.FileError, "nowhere") as raised:
            fastvlm.Model("nowhere")
        self.assertIsInstance(raised.exception, OSError)
        self.assertIsInstance(raised.exception, fastvlm.Error)
        self.assertRegex(str(raised.exception), "^nowhere: no such model; expected .*python -m fastvlm pull ")
        with self.assertRaises(fastvlm.FormatError) as raised:
            fastvlm.Image(b"\x89PNG\r\n\x1a\n")
        self.assertIsInstance(raised.exception, ValueError)
        self.assertEqual({v for k, v in vars(_abi).items() if k.startswith("FV_ERR_")}, set(_library._CLASSES))

    def test_files_that_cannot_be_opened(self):
        """As Python's open says it."""
        model = demo()
        for path in "nowhere.png", pathlib.Path("nowhere.png"):
            for ask in (model.ask, fastvlm.Image, fastvlm.Model, fastvlm.estimate,
                        lambda p: model.caption_batch([p])):
                with self.assertRaisesRegex(FileNotFoundError, "^nowhere.png: ") as raised:
                    ask(path)
                for error in raised.exception, pickle.loads(pickle.dumps(raised.exception)):
                    self.assertIsInstance(error, fastvlm.FileError)
                    self.assertEqual((error.errno, str(error.filename)), (errno.ENOENT, "nowhere.png"))
                    self.assertEqual(str(error), str(raised.exception))
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaises(fastvlm.FileError) as raised:  # the folder is there
                fastvlm.Model(folder)
            self.assertNotIsInstance(raised.exception, FileNotFoundError)
            self.assertRegex(str(raised.exception), "no config.json")

    @unittest.skipUnless(hasattr(os, "seteuid"), "no users")
    def test_files_that_may_not_be_opened(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "a.png")
            pathlib.Path(path).write_bytes(SIGN.read_bytes())
            os.chmod(path, 0)
            user = os.geteuid()
            try:
                os.seteuid(user or 65534)  # root may open everything
            except OSError:
                self.skipTest("no other user")
            try:
                for ask in fastvlm.Image, fastvlm.Model:
                    with self.assertRaisesRegex(PermissionError, "a.png: ") as raised:
                        ask(path)
                    self.assertIsInstance(raised.exception, fastvlm.FileError)
                    self.assertEqual((raised.exception.errno, raised.exception.filename), (errno.EACCES, path))
            finally:
                os.seteuid(user)

    def test_pickled(self):
        error = _library.error_of(_abi.FV_ERR_FORMAT, "wrong", 12)
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((type(again), str(again), again.at), (fastvlm.FormatError, "wrong", 12))
        again = pickle.loads(pickle.dumps(_library.error_of(_abi.FV_ERR_IO, "wrong")))
        self.assertEqual((type(again), str(again)), (fastvlm.FileError, "wrong"))
        model = demo()
        for one in model, model.session(), model.encode(SIGN), fastvlm.Image(SIGN):
            with self.assertRaisesRegex(TypeError, "cannot be pickled; make a fastvlm.Model in each process"):
                pickle.dumps(one)

    def test_numbers_are_not_cut_off(self):
        """ctypes would make 2**32 a 0."""
        model = demo()
        for options in ({"max_tokens": 2**32}, {"seed": 2**64}, {"top_k": -2**40}, {"logprobs": 21}, {"bias": {2**32: 1.0}}):
            with self.assertRaisesRegex(fastvlm.ArgumentError, "expected 0 to"):
                model.ask(SIGN, **options)
        with self.assertRaisesRegex(TypeError, "max_tokens is 1.5; expected an integer"):
            model.ask(SIGN, max_tokens=1.5)
        with self.assertRaisesRegex(TypeError, "unknown option 'max_token'; expected max_tokens"):
            model.ask(SIGN, max_token=1)
        for options, problem in (({"mask": 5}, r"mask is 5; expected an object with a method start\(\)"),
                                 ({"stop": 5}, "stop is 5; expected a str or a list"), ({"stop": b"x"}, "stop is b'x'; expected"),
                                 ({"stop": [5]}, "stop is a int; expected str"), ({"bias": 5}, "bias is 5; expected a dict")):
            with self.assertRaisesRegex(TypeError, problem):
                model.ask(SIGN, **options)
        with self.assertRaises(fastvlm.ArgumentError):  # the library's own check
            model.ask(SIGN, temperature=-1)

    def test_zero_bytes(self):
        """C would take what stands before one."""
        model, path = demo(), f"{MODEL_PATH or _model.DEMO}\0"
        for call in (lambda: fastvlm.Image(f"{SIGN}\0.jpg"), lambda: fastvlm.Image(pathlib.Path(f"{SIGN}\0.jpg")),
                     lambda: fastvlm.Model(path), lambda: fastvlm.estimate(path),
                     lambda: model.ask(SIGN, "a\0b"), lambda: model.caption_batch([SIGN], "a\0b"),
                     lambda: model.session(system="a\0b"), lambda: model.session().add_text("a\0b"),
                     lambda: model.ask(SIGN, stop="star\0"), lambda: model.ask(SIGN, stop=["x", "star\0"])):
            with self.assertRaisesRegex(fastvlm.ArgumentError, "byte [0-9]+ of [a-z]+ is a NUL"):
                call()
        self.assertEqual(b"".join(map(model.token_bytes, model.tokenize("a\0b"))), b"a\0b")

    def test_blank_prompts(self):
        model = demo()
        with model.session() as s:
            for prompt in "", " ", "\n\t \r\v\f":
                for ask in (lambda p: model.ask(SIGN, p), lambda p: model.stream(None, p), s.ask,
                            lambda p: model.caption_batch([], p), lambda p: model.caption_batch([SIGN], [p])):
                    with self.assertRaisesRegex(fastvlm.ArgumentError, "the prompt is blank; expected a question"):
                        ask(prompt)
            self.assertEqual(s.position, 0)
            s.add_text("")  # a part of a turn may be
        answers = model.caption_batch([SIGN] * 3, [TEXT, "", TEXT], errors="return")
        self.assertEqual([answers[0], str(answers[1]), answers[2]], ["HELLO", "the prompt is blank; expected a question", "HELLO"])

    def test_wrong_options(self):
        for options, problem in (({"vision": "int9"}, "expected auto, f32"), ({"kv": 8}, "expected auto, f32, f16, q8"),
                                 ({"image_size": 65}, "64"), ({"threads": -1}, "threads is -1")):
            with self.assertRaisesRegex(fastvlm.Error, problem):
                demo(**options)
        with self.assertRaises(fastvlm.UnsupportedError):
            demo(decoder="q4")

    def test_closed(self):
        model = demo()
        session = model.session()
        model.close()
        with self.assertRaisesRegex(fastvlm.StateError, "closed"):
            model.ask(SIGN)
        self.assertEqual(session.ask(TEXT, SIGN), "HELLO")  # it keeps the engine
        self.assertIn("closed", repr(model))

    def test_library_of_another_version(self):
        environment = dict(os.environ, FASTVLM_LIBRARY="/nowhere/libfastvlm.so")
        done = subprocess.run([EMULATED or sys.executable, "-B", "-c", "import fastvlm"], env=environment, capture_output=True, text=True)
        self.assertIn("/nowhere/libfastvlm.so cannot be loaded", done.stderr)


class About(Case):
    def test_dataclasses_have_every_field(self):
        def fields(struct):
            return {name for name, _ in struct._fields_} - {"size"}

        for one, struct, apart in ((fastvlm.ModelInfo, _abi.fv_model_info, {"n_end_tokens"}),
                                   (fastvlm.Stats, _abi.fv_stats, set()), (fastvlm.Score, _abi.fv_score, set()),
                                   (fastvlm.Memory, _abi.fv_memory, set()), (fastvlm.System, _abi.fv_system, set())):
            self.assertEqual({f.name for f in dataclasses.fields(one)}, fields(struct) - apart, one)
        named = {"max_tokens": "max_new_tokens", "logprobs": "n_logprobs"}
        options = {named.get(n, n) for n in fastvlm.AnswerOptions.__annotations__}
        self.assertEqual(options, fields(_abi.fv_answer_options) - {"n_stop", "n_bias", "chosen", "mask_user"})

    def test_info(self):
        info = self.model.info
        self.assertEqual((info.vision_precision, info.decoder_precision, info.fit), ("int8", "z8", "pad"))
        self.assertEqual(len(info.vision_layers), info.vision_stages)
        self.assertEqual(len(info.end_tokens), 2)
        self.assertGreater(self.model.memory.mapped_bytes, 10**6)
        path = MODEL_PATH or _model.DEMO
        self.assertGreater(fastvlm.estimate(path, max_context=100).session_bytes, 0)
        self.assertIn("int8 + z8", repr(self.model))

    def test_system(self):
        self.assertGreaterEqual(fastvlm.system().n_cores, 1)
        self.assertLessEqual({"JPEG", "PNG", "WebP", "HEIC"}, set(fastvlm.image_formats()))
        self.assertEqual(fastvlm.image_formats()["JPEG"], "")

    def test_version(self):
        header = (ROOT / "include" / "fastvlm.h").read_text()
        self.assertIn(f'#define FV_VERSION       "{fastvlm.__version__}"', header)

    def test_tokens(self):
        ids = self.model.tokenize("café <|im_end|>")
        self.assertEqual(b"".join(self.model.token_bytes(t) for t in ids).decode(), "café <|im_end|>")
        self.assertEqual(len(self.model.tokenize("<|im_end|>", special=True)), 1)
        self.assertEqual(self.model.tokenize(""), [])
        self.assertIsNone(self.model.token_bytes(-1))
        with self.assertRaises(TypeError):
            self.model.tokenize(b"bytes")

    def test_threads(self):
        threads = fastvlm.Threads(2)
        one, other = demo(threads=threads), demo(threads=threads)
        del threads
        self.assertEqual(one.ask(SIGN, TEXT), other.ask(SIGN, TEXT))
        with self.assertRaises(fastvlm.ArgumentError):
            fastvlm.Threads(2, cpus=[0])

    def test_log(self):
        with self.assertLogs("fastvlm", logging.WARNING) as logs:
            watch = _library.Watch()
            watch.callbacks.log(None, _abi.FV_LOG_WARNING, b"careful")
        self.assertEqual(logs.records[0].getMessage(), "careful")

    def test_everything_is_freed(self):
        """No cycle keeps a session, a stream or features after the last reference."""
        gc.collect()
        gc.disable()
        try:
            session = self.model.session()
            stream = session.stream(TEXT, SIGN)
            next(stream)
            features, image = self.model.encode(SIGN), fastvlm.Image(SIGN)
            gone = [weakref.ref(o) for o in (session, stream, features, image)]
            del session, stream, features, image
            self.assertEqual([g() for g in gone], [None] * 4)
        finally:
            gc.enable()

    def test_names(self):
        for name in fastvlm.__all__:
            self.assertTrue(hasattr(fastvlm, name), name)
            if isinstance(getattr(fastvlm, name), type):
                self.assertTrue(getattr(fastvlm, name).__doc__, name)
        self.assertTrue((pathlib.Path(fastvlm.__file__).parent / "py.typed").exists())
        self.assertTrue(typing.get_type_hints(fastvlm.Stats))

    @staticmethod
    def blocks():
        """(code, what it prints) of the Python in docs/python.md."""
        text = (ROOT / "docs" / "python.md").read_text()
        return re.findall(r"^```python\n(.*?)^```\n(?:\n((?:    [^\n]*\n)+))?", text, flags=re.M | re.S)

    def test_the_first_example(self):
        """It needs no file and no other package, and stands in both READMEs, too."""
        self.run_blocks(self.blocks()[:1])
        for page in (ROOT / "README.md").read_text(), (ROOT / "bindings" / "python" / "README.md").read_text():
            for line in self.blocks()[0][0].splitlines():
                self.assertIn(line.split("  #")[0].rstrip(), page)

    def test_the_documentation(self):
        """Every block of Python in docs/python.md runs, and prints what stands below it."""
        try:
            import llguidance  # noqa: F401
        except ImportError:
            self.skipTest("no llguidance")
        if not numpy:
            self.skipTest("no numpy")
        self.assertGreater(len(self.blocks()), 3)
        self.run_blocks(self.blocks())

    def test_every_argument_is_documented(self):
        text = (ROOT / "docs" / "python.md").read_text()
        for function, head in (fastvlm.Model, "| `fastvlm.Model(path, ...)`"), (fastvlm.Model.session, "| `model.session(...)`"):
            names = re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\|([^|]*)", text[text.index(head):].split("\n\n")[0])))
            self.assertEqual(set(names), set(inspect.signature(function).parameters) - {"self", "path"})
        for name in fastvlm.AnswerOptions.__annotations__:
            self.assertIn(f"`{name}`", text)

    def run_blocks(self, blocks):
        here, printed, names = os.getcwd(), [], {"print": lambda *a: printed.append(" ".join(map(str, a)))}
        path, _model.DEMO = _model.DEMO, MODEL_PATH or _model.DEMO
        os.chdir(IMAGES)
        try:
            for code, output in blocks:
                del printed[:]
                exec(compile(code, "docs/python.md", "exec"), names)
                if output:
                    self.assertEqual("".join(f"    {line}\n" for line in printed), output)
        finally:
            os.chdir(here)
            _model.DEMO = path

    def test_program(self):
        if EMULATED:
            self.skipTest("Python cannot start an Arm program under qemu")
        program = pathlib.Path(fastvlm.__file__).parent / "bin" / "fastvlm"
        done = subprocess.run([sys.executable, "-m", "fastvlm", "run", "-q", str(SIGN), TEXT], capture_output=True, text=True)
        if program.exists():
            self.assertEqual((done.stdout, done.returncode), ("HELLO\n", 0), done.stderr)
            done = subprocess.run([sys.executable, "-m", "fastvlm", "nonsense"], capture_output=True, text=True)
            self.assertEqual(done.returncode, 2)
        else:
            self.assertIn("without the program", done.stderr)
            self.assertEqual(done.returncode, 1)


if __name__ == "__main__":
    unittest.main()
