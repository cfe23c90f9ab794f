"""The shared library from Python's ctypes, as a program in another language would use it.

Called as the others, with the library behind them: PROGRAM MAKE_TINY_MODEL LIBRARY"""
import ctypes as C
import os
import sys
import unittest

from program import main, model, run

LIBRARY = os.path.abspath(sys.argv.pop(3))


class Err(C.Structure):
    _fields_ = [("code", C.c_int), ("offset", C.c_int64), ("text", C.c_char * 640)]


ON_TEXT = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_void_p, C.c_size_t)


class GenOpts(C.Structure):
    _fields_ = [("size", C.c_size_t), ("temp", C.c_double), ("top_p", C.c_double),
                ("min_p", C.c_double), ("repeat_penalty", C.c_double),
                ("presence_penalty", C.c_double), ("frequency_penalty", C.c_double),
                ("top_k", C.c_int32), ("penalty_last_n", C.c_int32), ("seed", C.c_int64),
                ("n_predict", C.c_int64), ("ignore_end", C.c_int32), ("show_special", C.c_int32),
                ("top_logprobs", C.c_int32), ("stops", C.c_void_p), ("n_stops", C.c_size_t),
                ("bias", C.c_void_p), ("n_bias", C.c_size_t), ("on_text", ON_TEXT),
                ("on_token", C.c_void_p), ("user", C.c_void_p)]


class Stats(C.Structure):
    _fields_ = [("n_prompt", C.c_int64), ("n_cached", C.c_int64), ("n_generated", C.c_int64),
                ("prompt_s", C.c_double), ("gen_s", C.c_double), ("finish", C.c_int)]


class Library(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.q = C.CDLL(LIBRARY)
        cls.q.qs_version.restype = C.c_char_p
        cls.q.qs_model_name.restype = C.c_char_p
        cls.q.qs_model_close.restype = None
        cls.q.qs_session_free.restype = None
        cls.q.qs_gen_opts_init.restype = None

    def test_only_the_public_names(self):
        self.assertTrue(self.q.qs_version())
        with self.assertRaises(AttributeError):
            self.q.qsi_model_open

    def test_errors(self):
        m, err = C.c_void_p(), Err()
        self.assertLess(self.q.qs_model_open(C.byref(m), b"nowhere.gguf", None, C.byref(err)), 0)
        self.assertIn(b"nowhere.gguf", err.text)
        self.assertFalse(m.value)

    def test_chat(self):
        path = model("moe", "f32", "tasks")
        m, s, err, stats = C.c_void_p(), C.c_void_p(), Err(), Stats()
        self.assertEqual(self.q.qs_model_open(C.byref(m), path.encode(), None, C.byref(err)), 0)
        self.assertEqual(self.q.qs_model_name(m), b"tiny")
        self.assertEqual(self.q.qs_session_create(C.byref(s), m, None, C.byref(err)), 0)
        pieces = []
        o = GenOpts()
        self.q.qs_gen_opts_init(C.byref(o), C.c_size_t(C.sizeof(o)), m)
        self.assertEqual((o.size, o.temp, o.top_p, o.top_k), (C.sizeof(o), 0.5, 0.75, 20))
        o.seed, o.n_predict = 7, 20
        o.on_text = ON_TEXT(lambda user, p, n: pieces.append(C.string_at(p, n)) or 0)
        text = "你好".encode()
        self.assertEqual(self.q.qs_chat_add(s, 1, text, C.c_size_t(len(text)), C.byref(err)), 0)
        self.assertEqual(self.q.qs_chat_answer(s, C.byref(o), C.byref(stats), C.byref(err)), 0)
        self.q.qs_session_free(s)
        self.q.qs_model_close(C.byref(m))
        rc, out, _ = run("run", path, "你好", "--seed", "7", "-n", "20")
        got = b"".join(pieces)
        self.assertEqual(rc, 0)
        self.assertEqual(out, got if got.endswith(b"\n") else got + b"\n")
        self.assertLessEqual(stats.n_generated, 20)


if __name__ == "__main__":
    main()
