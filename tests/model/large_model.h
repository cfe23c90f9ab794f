/* For tests of memory: large models of a plain pattern, written piece by piece, and what the system
 * says the process has in memory. Include after cmocka. */
#ifndef QSI_TESTS_LARGE_MODEL_H
#define QSI_TESTS_LARGE_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

/* Bytes of a line of /proc/self/status, 0 where there is none. */
static double status_bytes(const char *key) {
    char line[256];
    double kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0) kb = strtod(line + strlen(key), NULL);
    if (f) fclose(f);
    return kb * 1024;
}

static void write_tensor(qsi_gguf_writer *w, const qsi_tensor_spec *t, qsi_type type) {
    enum { PIECE = 1 << 14 };
    static float x[PIECE];
    static char y[PIECE * sizeof(float)];
    const qsi_type_info *ti = qsi_type_get(type);
    qs_err err = {0};
    for (int i = 0; i < PIECE; i++)
        x[i] = t->role == QSI_ROLE_NORM ? 1.0f : (float)(i * 37 % 101 - 50) * 1e-3f;
    ti->encode(x, y, PIECE);
    for (int64_t left = t->ne[0] * t->ne[1] * t->ne[2]; left > 0; left -= PIECE) {
        int64_t n = left < PIECE ? left : PIECE;
        size_t bytes = (size_t)(n / ti->block) * (size_t)ti->bytes;
        if (qsi_gguf_write(w, y, bytes, &err) != QS_OK) fail_msg("%s", err.text);
    }
}

static void write_model(const qsi_config *c, const char *path, qsi_type type) {
    qs_err err = {0};
    qsi_gguf_writer *w = NULL;
    qsi_tensor_spec t;
    if (qsi_gguf_writer_open(&w, path, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_config_put_gguf(c, w), QS_OK);
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < qsi_config_n_tensors(c); i++) {
            qsi_config_tensor(c, i, &t);
            bool plain = t.role == QSI_ROLE_NORM || t.role == QSI_ROLE_ROUTER;
            qsi_type own = plain ? QSI_F32 : type;
            if (pass)
                write_tensor(w, &t, own);
            else
                assert_int_equal(qsi_gguf_declare(w, t.name, own, t.n_dims, t.ne, &err), QS_OK);
        }
    if (qsi_gguf_finish(&w, &err) != QS_OK) fail_msg("%s", err.text);
}

#endif
