/* CSV from strangers, row by row: RFC 4180 with what its writers do in practice. UTF-8 with or without
 * a byte-order mark; rows end with CRLF, LF or CR; a quoted field may hold separators, line ends and
 * doubled quotes; a quote inside a field that does not begin with one is an ordinary character. Empty
 * lines are skipped. Refused, with the line: bytes that are not UTF-8, NUL, text after a closing
 * quote, a quote that is never closed, a row beyond the limits.
 *
 * The text is borrowed; memory is that of the longest row. Thread: owner. */
#ifndef QSI_BASE_CSV_H
#define QSI_BASE_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define QSI_CSV_MAX_FIELDS ((size_t)4096)
#define QSI_CSV_MAX_ROW ((size_t)16 << 20) /* bytes */

typedef struct qsi_csv {
    const char *p;
    size_t n, pos;
    char separator;
    int64_t line;       /* that the row begins in, from 1 */
    size_t n_fields;    /* of the row */
    int64_t next_line;
    qsi_str row;        /* the fields, each followed by a NUL */
    size_t *begin;      /* [n_fields] in row */
    size_t cap;
} qsi_csv;

/* In place. separator: ',' , ';' or '\t' for instance; neither a quote nor a line end. */
void qsi_csv_init(qsi_csv *c, const char *text, size_t n, char separator);
/* Copes with a zeroed struct. */
void qsi_csv_release(qsi_csv *c);
/* The next row; *more false: there is none. QS_E_FORMAT, QS_E_LIMIT name the line. */
qs_status qsi_csv_next(qsi_csv *c, bool *more, qs_err *err) QS_MUST_CHECK;
/* Field i of the row (i < n_fields), NUL-terminated, without another NUL; valid until the next row. */
const char *qsi_csv_field(const qsi_csv *c, size_t i);

#endif
