#include "amx_emul.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

static struct {
    unsigned char byte[16][64];
    int rows, row_bytes; /* 0: not configured */
} tile[8];
static bool configured;

static void want(bool ok, const char *what) {
    if (!ok) amx_emul_misuse(what);
}

static void want_tile(int t) {
    want(configured, "a tile is used before LDTILECFG");
    want(t >= 0 && t < 8 && tile[t].rows > 0, "a tile is used that is not configured");
}

void amx_emul_config(const void *config) {
    unsigned char c[64];
    uint16_t row_bytes[16];
    memcpy(c, config, sizeof c);
    memcpy(row_bytes, c + 16, sizeof row_bytes);
    want(c[0] == 1 && c[1] == 0, "palette 1, start row 0");
    for (int i = 2; i < 16; i++) want(c[i] == 0, "reserved bytes are zero");
    for (int t = 0; t < 16; t++) {
        int rows = c[48 + t];
        if (t >= 8) {
            want(rows == 0 && row_bytes[t] == 0, "palette 1 has eight tiles");
            continue;
        }
        want(rows <= 16 && row_bytes[t] <= 64, "a tile is at most 16 rows of 64 bytes");
        want((rows == 0) == (row_bytes[t] == 0), "rows and bytes, or neither");
        want(row_bytes[t] % 4 == 0, "rows of whole words");
        memset(&tile[t], 0, sizeof tile[t]);
        tile[t].rows = rows;
        tile[t].row_bytes = row_bytes[t];
    }
    configured = true;
}

void amx_emul_release(void) {
    memset(tile, 0, sizeof tile);
    configured = false;
}

bool amx_emul_idle(void) { return !configured; }

void amx_emul_zero(int t) {
    want_tile(t);
    memset(tile[t].byte, 0, sizeof tile[t].byte);
}

void amx_emul_load(int t, const void *base, size_t stride) {
    want_tile(t);
    memset(tile[t].byte, 0, sizeof tile[t].byte);
    for (int r = 0; r < tile[t].rows; r++)
        memcpy(tile[t].byte[r], (const char *)base + (size_t)r * stride, (size_t)tile[t].row_bytes);
}

void amx_emul_store(int t, void *base, size_t stride) {
    want_tile(t);
    for (int r = 0; r < tile[t].rows; r++)
        memcpy((char *)base + (size_t)r * stride, tile[t].byte[r], (size_t)tile[t].row_bytes);
}

static void want_product(int c, int a, int b) {
    want_tile(c);
    want_tile(a);
    want_tile(b);
    want(c != a && c != b && a != b, "three different tiles");
    want(tile[c].rows == tile[a].rows, "rows of C and A");
    want(tile[c].row_bytes == tile[b].row_bytes, "columns of C and B");
    want(tile[a].row_bytes / 4 == tile[b].rows, "k of A and B");
}

void amx_emul_dpbssd(int c, int a, int b) {
    want_product(c, a, b);
    for (int m = 0; m < tile[a].rows; m++)
        for (int n = 0; n < tile[b].row_bytes / 4; n++) {
            int32_t s;
            memcpy(&s, &tile[c].byte[m][4 * n], 4);
            for (int k = 0; k < tile[a].row_bytes; k++)
                s += (signed char)tile[a].byte[m][k] * (signed char)tile[b].byte[k / 4][4 * n + k % 4];
            memcpy(&tile[c].byte[m][4 * n], &s, 4);
        }
}

static float flushed(float x) { return fabsf(x) < FLT_MIN ? copysignf(0, x) : x; }

static float half_at(const unsigned char *p) {
    uint32_t bits = (uint32_t)p[1] << 24 | (uint32_t)p[0] << 16;
    float f;
    memcpy(&f, &bits, 4);
    return flushed(f);
}

void amx_emul_dpbf16ps(int c, int a, int b) {
    want_product(c, a, b);
    for (int m = 0; m < tile[a].rows; m++)
        for (int n = 0; n < tile[b].row_bytes / 4; n++) {
            float sum[2] = {0, 0}, s;
            for (int k = 0; k < tile[a].row_bytes / 4; k++)
                for (int i = 0; i < 2; i++)
                    sum[i] = flushed(fmaf(half_at(&tile[a].byte[m][4 * k + 2 * i]),
                                          half_at(&tile[b].byte[k][4 * n + 2 * i]), sum[i]));
            memcpy(&s, &tile[c].byte[m][4 * n], 4);
            s = flushed(flushed(s) + flushed(sum[0] + sum[1]));
            memcpy(&tile[c].byte[m][4 * n], &s, 4);
        }
}
