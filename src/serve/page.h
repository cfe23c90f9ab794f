/* The chat page as bytes in the program. Made from web/ by tools/embed_page.py, which writes the
 * definitions into the build folder. One HTML file that fetches nothing. Constant: any thread. */
#ifndef QSI_SERVE_PAGE_H
#define QSI_SERVE_PAGE_H

#include <stddef.h>

/* UTF-8 HTML, for clients that do not take gzip. A NUL that is not counted follows. */
extern const unsigned char qsi_page[];
extern const size_t qsi_page_bytes;

/* The same, gzipped: for Content-Encoding: gzip. */
extern const unsigned char qsi_page_gzip[];
extern const size_t qsi_page_gzip_bytes;

/* Value of the header Content-Security-Policy. The page must not be sent without it. */
extern const char qsi_page_policy[];

/* Value of the header ETag, quotes included; an If-None-Match that holds it is answered with 304. */
extern const char qsi_page_etag[];

#endif
