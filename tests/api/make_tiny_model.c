/* make_tiny_model OUT [moe|dense] [f32|f16|bf16|q8_0|q4_0] [seed] [vocab|tasks|nan|notemplate|
 * ctx=N]...: the small random model as a file, for tests that run the program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tiny_model.h"

int main(int argc, char **argv) {
    tiny_model_opts o = { .arch = QSI_ARCH_DEEPSEEK, .type = QSI_F32, .seed = 1 };
    qs_err err = { 0 };
    if (argc < 2) return 2;
    for (int i = 2; i < argc; i++) {
        const char *a = argv[i];
        if (strcmp(a, "dense") == 0) o.arch = QSI_ARCH_LLAMA;
        else if (strcmp(a, "moe") == 0) o.arch = QSI_ARCH_DEEPSEEK;
        else if (strcmp(a, "vocab") == 0) o.vocab_only = true;
        else if (strcmp(a, "tasks") == 0) o.tasks = true;
        else if (strcmp(a, "nan") == 0) o.nan = true;
        else if (strcmp(a, "notemplate") == 0) o.no_template = true;
        else if (strncmp(a, "ctx=", 4) == 0) o.n_ctx = (int32_t)strtol(a + 4, NULL, 10);
        else if (qsi_type_find(a) != NULL) o.type = qsi_type_find(a)->type;
        else o.seed = strtoull(a, NULL, 10);
    }
    if (tiny_model_write(argv[1], &o, &err) == QS_OK) return 0;
    fprintf(stderr, "make_tiny_model: %s\n", err.text);
    return 1;
}
