/* Character classes of every code point, as the pre-tokenizers need them. The tables are generated
 * (tools/gen_unicode.py) from the reference implementation. Two levels: blocks of 128 code points,
 * each byte the number of a combination of flags. Thread: any (constant data). */
#ifndef QSI_TOK_UNICODE_TABLE_H
#define QSI_TOK_UNICODE_TABLE_H

#include <stdint.h>

#define QSI_UC_L 0x001u          /* \p{L} */
#define QSI_UC_M 0x002u          /* \p{M} */
#define QSI_UC_N 0x004u          /* \p{N} of the regex engine */
#define QSI_UC_P 0x008u          /* \p{P} */
#define QSI_UC_S 0x010u          /* \p{S} */
#define QSI_UC_SPACE 0x020u      /* \s: Unicode White_Space */
#define QSI_UC_DIGIT 0x040u      /* numeric for the Digits step of deepseek-llm */
#define QSI_UC_LLM_LETTER 0x080u /* the letters spelled out in deepseek-llm's second step */
#define QSI_UC_LLM_PUNCT 0x100u  /* the characters of its third step */
#define QSI_UC_LLM_CJK 0x200u    /* the ranges of its fifth step (deepseek-coder has the same) */
#define QSI_UC_V3_CJK 0x400u     /* the ranges of deepseek-v3's second step */
#define QSI_UC_NEWLINE 0x800u    /* CR, LF */
#define QSI_UC_ALPHA 0x1000u     /* A-Z a-z */
#define QSI_UC_APUNCT 0x2000u    /* the 32 ASCII punctuation marks and symbols */
#define QSI_UC_BLANK 0x4000u     /* U+0020 */

extern const uint16_t qsi_uc_combo[];
extern const uint16_t qsi_uc_index[];
extern const uint8_t qsi_uc_block[];

/* Flags of a code point (cp <= 0x10FFFF). */
static inline unsigned qsi_uc_flags(uint32_t cp)
{
    return qsi_uc_combo[qsi_uc_block[(uint32_t)qsi_uc_index[cp >> 7] * 128u + (cp & 127u)]];
}

#endif
