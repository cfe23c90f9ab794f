/* Benchmark files and their labels (measure/task_file.c): what opens can be asked. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/str.h"
#include "measure/task_prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const qsi_task_item *it) {
    QS_CHECK(it->line > 0 && it->question != NULL);
    QS_CHECK(it->n_choices >= 0 && it->n_choices <= QSI_TASK_MAX_CHOICES);
    QS_CHECK(it->answer >= -1 && it->answer < (it->n_choices > 0 ? it->n_choices : 1));
    for (int32_t i = 0; i < it->n_choices; i++) QS_CHECK(it->choices[i] != NULL);
    QS_CHECK(it->n_choices > 0 || it->solution != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    qsi_task_file f;
    qsi_str prompt = { 0 };
    qs_err err = { 0 };
    qs_status st = qsi_task_parse(&f, "dir/x_test.csv", text, size, &err);
    QS_CHECK(st == QS_OK ? f.n > 0 && f.task != QSI_TASK_NONE : f.items == NULL && err.text[0] != '\0');
    for (size_t i = 0; i < f.n; i++) {
        check(&f.items[i]);
        qsi_str_clear(&prompt);
        QS_CHECK(qsi_task_prompt(&prompt, f.task, size % 2, &f, &f.items[i], NULL, 0, &err) == QS_OK);
    }
    /* the same bytes as labels, for a file that lacks them */
    static const char piqa[] = "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\"}\n"
                               "{\"goal\":\"h\",\"sol1\":\"c\",\"sol2\":\"d\"}\n";
    qsi_task_release(&f);
    QS_CHECK(qsi_task_parse(&f, "p", piqa, sizeof piqa - 1, &err) == QS_OK);
    if (qsi_task_labels(&f, "labels", text, size, &err) == QS_OK)
        for (size_t i = 0; i < f.n; i++) QS_CHECK(f.items[i].answer >= 0 && f.items[i].answer < 2);
    qsi_task_release(&f);
    qsi_str_release(&prompt);
    return 0;
}
