/* loss.svg: well-formed, of finite numbers inside the picture, small whatever the run's length. */
#include "train_testing.h"

#include "train/trainlog.h"

static void make(size_t n, bool valid, qsi_str *out) {
    qsi_log_row *rows = qsi_calloc(n + 1, sizeof(*rows));
    for (size_t i = 0; i < n; i++)
        rows[i] = (qsi_log_row){.step = (int64_t)i + 1, .loss = 8 / (1 + (double)i / 50),
                                .val_loss = valid && i % 20 == 19 ? 3 : NAN,
                                .lr = i < n * 4 / 5 ? 1e-3 : 3e-4};
    qsi_str_clear(out);
    assert_int_equal(qsi_curve_svg(rows, n, "a < b & c", out), QS_OK);
    qsi_free(rows);
}

/* Tags close, attributes are quoted, no bare < or &. */
static void well_formed(const char *s) {
    int depth = 0;
    for (; *s != '\0'; s++) {
        if (*s == '&') assert_true(strncmp(s, "&lt;", 4) == 0 || strncmp(s, "&amp;", 5) == 0);
        if (*s != '<') continue;
        const char *end = strchr(s, '>');
        assert_non_null(end);
        int quotes = 0;
        for (const char *p = s; p < end; p++) quotes += *p == '"';
        assert_int_equal(quotes % 2, 0);
        if (s[1] == '/') depth--;
        else if (end[-1] != '/') depth++;
        assert_true(depth >= 0);
        s = end;
    }
    assert_int_equal(depth, 0);
}

static void sizes(void **state) {
    (void)state;
    qsi_str svg = {0};
    const size_t n[] = {0, 1, 2, 3, 40, 899, 900, 901, 20000};
    for (size_t i = 0; i < sizeof(n) / sizeof(n[0]); i++) {
        make(n[i], i % 2 == 0 && n[i] < 2000, &svg);
        well_formed(svg.data);
        assert_null(strstr(svg.data, "nan"));
        assert_null(strstr(svg.data, "inf"));
        assert_true(svg.len < 120000);
        assert_int_equal(strstr(svg.data, "class=\"s\"") != NULL, n[i] > 0);
        assert_int_equal(strstr(svg.data, "validation") != NULL, i % 2 == 0 && n[i] >= 40 &&
                         n[i] < 2000);
    }
    qsi_str_release(&svg);
}

static void flat_and_strange(void **state) {
    (void)state;
    qsi_str svg = {0};
    const qsi_log_row rows[3] = {{.step = 1, .loss = 2, .val_loss = NAN},
                                 {.step = 2, .loss = 2, .val_loss = NAN},
                                 {.step = 3, .loss = 2, .val_loss = NAN}};
    assert_int_equal(qsi_curve_svg(rows, 3, NULL, &svg), QS_OK); /* constant loss, no rate */
    well_formed(svg.data);
    assert_null(strstr(svg.data, "nan"));
    qsi_str_release(&svg);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(flat_and_strange)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
