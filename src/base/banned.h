/* Calls that may not be used: each has a safer form here. base/status.h includes this last, so that
 * every file of the library meets it; tools/check_includes.py looks at the rest. */
#ifndef QSI_BASE_BANNED_H
#define QSI_BASE_BANNED_H

/* The headers that declare them come first: their guards keep the macros out of later includes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef strcpy
#define strcpy(d, s) banned_strcpy_use_memcpy_or_qsi_str
#undef strcat
#define strcat(d, s) banned_strcat_use_qsi_str
#undef strncpy
#define strncpy(d, s, n) banned_strncpy_use_memcpy
#undef strncat
#define strncat(d, s, n) banned_strncat_use_qsi_str
#undef sprintf
#define sprintf(...) banned_sprintf_use_snprintf
#undef vsprintf
#define vsprintf(d, f, a) banned_vsprintf_use_vsnprintf
#undef strtok
#define strtok(s, d) banned_strtok_it_has_hidden_state
#undef atoi
#define atoi(s) banned_atoi_use_strtol
#undef atol
#define atol(s) banned_atol_use_strtol
#undef atof
#define atof(s) banned_atof_use_strtod
#undef alloca
#define alloca(n) banned_alloca_use_an_arena

#endif
