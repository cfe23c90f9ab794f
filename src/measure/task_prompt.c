/* Prompts of the tasks; see task_prompt.h. */
#include "measure/task_prompt.h"

#include <string.h>

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static const char *find_subject(const qsi_subject *table, const char *file) {
    for (; table->file != NULL; table++)
        if (strcmp(table->file, file) == 0) return table->name;
    return NULL;
}

/* The subject as words. */
static qs_status put_subject(qsi_str *out, qsi_task t, const char *subject) {
    const char *name = t == QSI_TASK_CEVAL ? find_subject(qsi_ceval_subjects, subject)
                       : t == QSI_TASK_CMMLU ? find_subject(qsi_cmmlu_subjects, subject) : NULL;
    qs_status st = QS_OK;
    if (name) return qsi_str_puts(out, name);
    for (; st == QS_OK && *subject != '\0'; subject++)
        st = qsi_str_putc(out, *subject == '_' ? ' ' : *subject);
    return st;
}

static qs_status describe(qsi_str *out, qsi_task t, const char *subject) {
    static const char *const words[][2] = {
        [QSI_TASK_MMLU] = { "The following are multiple choice questions (with answers) about ",
                            ".\n\n" },
        [QSI_TASK_CEVAL] = { "以下是中国关于", "的单项选择题，请选出其中的正确答案。\n\n" },
        [QSI_TASK_CMMLU] = { "以下是关于", "的单项选择题，请直接给出正确答案的选项。\n\n" },
    };
    qs_status st = QS_OK;
    if (!qsi_task_asks_letter(t)) return QS_OK;
    QS_TRY(qsi_str_puts(out, words[t][0]));
    QS_TRY(put_subject(out, t, subject));
    QS_TRY(qsi_str_puts(out, words[t][1]));
done:
    return st;
}

static qs_status put_stripped(qsi_str *out, const char *z) {
    while (is_space(*z)) z++;
    size_t n = strlen(z);
    while (n > 0 && is_space(z[n - 1])) n--;
    return qsi_str_append(out, z, n);
}

static qs_status ask_letter(qsi_str *out, qsi_task t, const qsi_task_item *it) {
    qs_status st = QS_OK;
    QS_TRY(put_stripped(out, it->question));
    for (int32_t i = 0; i < it->n_choices; i++)
        QS_TRY(qsi_str_printf(out, "\n%c. %s", (char)('A' + i), it->choices[i]));
    QS_TRY(qsi_str_puts(out, t == QSI_TASK_MMLU ? "\nAnswer:" : "\n答案："));
done:
    return st;
}

/* The question up to where the answer begins. */
static qs_status ask(qsi_str *out, qsi_task t, const qsi_task_item *it) {
    qs_status st = QS_OK;
    if (qsi_task_asks_letter(t)) return ask_letter(out, t, it);
    if (t == QSI_TASK_HELLASWAG || t == QSI_TASK_HUMANEVAL) return qsi_str_puts(out, it->question);
    QS_TRY(qsi_str_puts(out, "Question: "));
    QS_TRY(qsi_str_puts(out, it->question));
    QS_TRY(qsi_str_puts(out, "\nAnswer:"));
done:
    return st;
}

qs_status qsi_task_choice(qsi_str *out, qsi_task t, const qsi_task_item *it, int32_t i) {
    qs_status st = qsi_str_putc(out, ' ');
    if (st != QS_OK) return st;
    return qsi_task_asks_letter(t) ? qsi_str_putc(out, (char)('A' + i))
                                   : qsi_str_puts(out, it->choices[i]);
}

static qs_status put_example(qsi_str *out, qsi_task t, const qsi_task_item *it) {
    qs_status st = QS_OK;
    QS_TRY(ask(out, t, it));
    if (qsi_task_has_choices(t)) {
        QS_TRY(qsi_task_choice(out, t, it, it->answer));
    } else {
        if (t != QSI_TASK_HUMANEVAL) QS_TRY(qsi_str_putc(out, ' '));
        QS_TRY(qsi_str_puts(out, it->solution));
    }
    QS_TRY(qsi_str_puts(out, "\n\n"));
done:
    return st;
}

static qs_status ask_for_code(qsi_str *out, const qsi_task_item *it) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(out, "Write a solution to the following problem and make sure that it passes "
                             "the tests:\n```python\n"));
    QS_TRY(qsi_str_puts(out, it->question));
    QS_TRY(qsi_str_puts(out, "\n```\n"));
done:
    return st;
}

qs_status qsi_task_prompt(qsi_str *out, qsi_task t, bool chat, const qsi_task_file *f,
                          const qsi_task_item *it, const qsi_task_file *examples, size_t n_shots,
                          qs_err *err) {
    qs_status st = QS_OK;
    st = describe(out, t, it->subject ? it->subject : f->subject);
    for (size_t i = 0; st == QS_OK && i < n_shots; i++) st = put_example(out, t, &examples->items[i]);
    bool in_words = chat && t == QSI_TASK_HUMANEVAL;
    if (st == QS_OK) st = in_words ? ask_for_code(out, it) : ask(out, t, it);
    if (st != QS_OK) QS_FAIL(err, st, "out of memory for a prompt");
done:
    return st;
}

const char *const *qsi_task_stops(qsi_task t) {
    static const char *const none[] = { NULL };
    static const char *const gsm8k[] = { "Question:", NULL };
    static const char *const humaneval[] = { "\nclass", "\ndef", "\n#", "\nif", "\nprint", NULL };
    return t == QSI_TASK_GSM8K ? gsm8k : t == QSI_TASK_HUMANEVAL ? humaneval : none;
}

qs_status qsi_task_fits(qsi_task t, const qsi_task_file *f, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < f->n; i++) {
        const qsi_task_item *it = &f->items[i];
        bool able = qsi_task_has_choices(t) ? it->n_choices > 0 : t == f->task;
        if (!able)
            QS_FAIL(err, QS_E_ARG, "'%s' holds items of %s, which cannot be asked as %s", f->path,
                    qsi_task_name(f->task), qsi_task_name(t));
        if (qsi_task_has_choices(t) && it->answer < 0)
            QS_FAIL(err, QS_E_ARG, "'%s' %s %lld does not say which choice is right: nothing can be "
                    "scored (a test file whose answers are kept back?%s)", f->path, f->unit,
                    (long long)it->line,
                    f->task == QSI_TASK_PIQA ? " --labels names a file of them" : "");
    }
done:
    return st;
}
