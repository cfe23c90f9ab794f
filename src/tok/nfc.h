/* Unicode's normal form NFC, which Qwen's tokenizers bring text to first (docs/distills.md). The tables
 * are generated (tools/gen_nfc.py), sorted by their first columns. Thread: any. */
#ifndef QSI_TOK_NFC_H
#define QSI_TOK_NFC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

/* Appends text in NFC to out, or appends nothing and sets *same where it is in NFC already (which is
 * found out without memory; a few texts that are come out as copies). text is UTF-8 that was checked.
 * Takes linear time. QS_E_NOMEM. */
qs_status qsi_nfc(const char *text, size_t n, qsi_str *out, bool *same) QS_MUST_CHECK;

extern const uint32_t qsi_nfc_split[][3]; /* code point; the pair it stands for (second 0: one) */
extern const uint32_t qsi_nfc_join[][3];  /* a pair; what it becomes */
extern const uint32_t qsi_nfc_class[][3]; /* first, last; canonical combining class, where not 0 */
extern const uint32_t qsi_nfc_loud[][2];  /* first, last that may change, or change what stands before */
extern const size_t qsi_nfc_n_split, qsi_nfc_n_join, qsi_nfc_n_class, qsi_nfc_n_loud;

#endif
