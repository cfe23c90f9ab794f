/* See moon_vocab.h. */
#include "moon_vocab.h"

qsi_vocab *vocab;

int make_vocab(void **state) {
    static const char text[] = "the moon is bright, the moon is round. 床前明月光，疑是地上霜。";
    qsi_bpe_trainer *t;
    qs_status st = qsi_bpe_trainer_create(&t, "deepseek-llm", NULL);
    for (int i = 0; i < 4 && st == QS_OK; i++)
        st = qsi_bpe_trainer_add(t, text, sizeof text - 1, NULL);
    if (st == QS_OK) st = qsi_bpe_trainer_finish(t, 290, NULL, NULL, &vocab, NULL);
    qsi_bpe_trainer_free(t);
    return st == QS_OK ? 0 : -1;
}

int free_vocab(void **state) {
    qsi_vocab_free(vocab);
    return 0;
}
