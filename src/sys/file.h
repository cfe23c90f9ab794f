/* Files: read-only mappings, whole-file reads, atomic replacement, folders. Paths are UTF-8.
 * Errors name the path and the reason. Thread: any; a writer has one owner. */
#ifndef QSI_SYS_FILE_H
#define QSI_SYS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"
#include "sys/marks.h"

/* A read-only mapping of a whole regular file. size 0 has data NULL. */
typedef struct qsi_map {
    const uint8_t *data;
    size_t size;
    int fd;
} qsi_map;
qs_status qsi_map_open(qsi_map *m, const char *path, qs_err *err) QS_MUST_CHECK;
void qsi_map_close(qsi_map *m);
/* Gives up pages [off, off+n): they are read again when touched. */
void qsi_map_drop(const qsi_map *m, size_t off, size_t n);
void qsi_map_will_need(const qsi_map *m, size_t off, size_t n);
/* Pages will be touched here and there: the system reads no others with them. */
void qsi_map_random(const qsi_map *m);
/* Pieces of the file that the system keeps as huge pages are mapped so, and reading from disk makes
 * such pieces. A hint. */
void qsi_map_huge(const qsi_map *m);
/* Reads pages [off, off + n) into memory and the page table now; several threads may share a range. */
void qsi_map_populate(const qsi_map *m, size_t off, size_t n);
/* When the file was last changed, nanoseconds; 0 when the system does not say. */
int64_t qsi_map_mtime_ns(const qsi_map *m);
/* A hash of the file's size and of when its content and its inode were last changed, mixed with seed:
 * another value means that it may be another file. */
uint64_t qsi_map_stamp(const qsi_map *m, uint64_t seed);
/* Copies n bytes at off without touching the mapping: nothing else is read with them. */
qs_status qsi_map_peek(const qsi_map *m, size_t off, void *out, size_t n, qs_err *err) QS_MUST_CHECK;

/* Reads a whole file (or standard input for "-") of at most `max` bytes into an owned string. */
qs_status qsi_file_read(const char *path, size_t max, qsi_str *out, qs_err *err) QS_MUST_CHECK;

/* Atomic replacement: bytes go to a temporary file in the same folder; commit flushes, fsyncs,
 * renames over the target and fsyncs the folder; abort (or release without commit) removes it.
 * A failed write sticks; commit reports it. Buffered. */
typedef struct qsi_writer qsi_writer;
qs_status qsi_writer_open(qsi_writer **w, const char *path, qs_err *err) QS_MUST_CHECK;
qs_status qsi_writer_write(qsi_writer *w, const void *p, size_t n, qs_err *err) QS_MUST_CHECK;
uint64_t qsi_writer_pos(const qsi_writer *w);
/* Overwrites n bytes already written at off (headers filled in at the end). */
qs_status qsi_writer_patch(qsi_writer *w, uint64_t off, const void *p, size_t n, qs_err *err)
    QS_MUST_CHECK;
qs_status qsi_writer_commit(qsi_writer **w, qs_err *err) QS_MUST_CHECK;
void qsi_writer_abort(qsi_writer **w);
/* A file written over several runs: "PATH.part" with a journal beside it (sys/marks.h) is gone on
 * with when its origin is the same; otherwise, or where its bytes are not those that were marked, it
 * is written anew from there. What *r says is there already must not be written again. QS_E_IO when
 * another program writes it. Commit, abort (which removes both) and the rest as with any writer. */
typedef struct qsi_resume {
    size_t marks;   /* pieces that are whole */
    uint64_t bytes; /* how long they are */
    bool other_source, other_options; /* why an unfinished file was given up */
} qsi_resume;
qs_status qsi_writer_open_part(qsi_writer **w, const char *path, qsi_origin origin,
                               qsi_resume *r, qs_err *err) QS_MUST_CHECK;
/* Of a part writer: what was written since the last mark is a whole piece. */
qs_status qsi_writer_mark(qsi_writer *w, qs_err *err) QS_MUST_CHECK;
/* Closes a part writer; the file and its journal stay for the next run when there is a mark. */
void qsi_writer_leave(qsi_writer **w);
/* After commit the journal stays until qsi_writer_forget: of several files that belong together those
 * which are complete are known when another run goes on. */
void qsi_writer_keep_journal(qsi_writer *w);
/* Whether the file at path was committed by a part writer of that origin with so many marks, its
 * journal is still there, and its bytes are intact. */
qs_status qsi_writer_whole(const char *path, qsi_origin origin, size_t marks, bool *whole,
                           qs_err *err) QS_MUST_CHECK;
/* Removes the journal of a file that was committed. */
void qsi_writer_forget(const char *path);
/* A file without a name in folder `dir`, for data that is too large for memory: take_map ends the
 * writing and maps what was written; the bytes vanish with the mapping, or with the process. Such a
 * writer cannot be committed. */
qs_status qsi_writer_open_temp(qsi_writer **w, const char *dir, qs_err *err) QS_MUST_CHECK;
/* Closes w in any case. */
qs_status qsi_writer_take_map(qsi_writer **w, qsi_map *m, qs_err *err) QS_MUST_CHECK;

/* That there is a file at path, or none any more, is on the disk when it returns. */
qs_status qsi_sync_folder(const char *path, qs_err *err) QS_MUST_CHECK;

bool qsi_path_exists(const char *path);
/* Size of a regular file; 0 when there is none. */
uint64_t qsi_file_bytes(const char *path);
bool qsi_path_is_dir(const char *path);
/* Whether both name one file or folder, by whatever spelling or link. */
bool qsi_same_file(const char *a, const char *b);
/* QS_E_ARG when writing `out` would replace what is read from `in`: the same file, another part of a
 * split model (NAME-00001-of-0000N.gguf), or a file of folder `in` other than a GGUF. */
qs_status qsi_path_apart(const char *in, const char *out, qs_err *err) QS_MUST_CHECK;
/* Appends the absolute path without links. */
qs_status qsi_path_real(const char *path, qsi_str *out, qs_err *err) QS_MUST_CHECK;
/* True when folder `path` is also one of the folders that stand above it in `path`: a link leads in
 * a circle there. */
bool qsi_path_is_loop(const char *path);
qs_status qsi_make_dirs(const char *path, qs_err *err) QS_MUST_CHECK;
/* Appends "dir/name" handling slashes. */
qs_status qsi_path_join(qsi_str *out, const char *dir, const char *name) QS_MUST_CHECK;
/* Names in a folder (regular files and folders, no dot entries), sorted bytewise; owned by the
 * caller (qsi_free each and the array). */
qs_status qsi_dir_list(const char *path, char ***names, size_t *n, qs_err *err) QS_MUST_CHECK;
/* Free bytes on the file system that holds path (or its nearest existing parent). */
uint64_t qsi_disk_free(const char *path);
/* Folder of the running executable, resolved through links (/proc/self/exe). */
qs_status qsi_exe_dir(qsi_str *out, qs_err *err) QS_MUST_CHECK;

/* Monotonic nanoseconds. */
int64_t qsi_now_ns(void);
/* Bytes this process may still use: the least of free memory and its cgroup's limit. */
uint64_t qsi_mem_available(void);
uint64_t qsi_mem_resident(void);
/* Gives back what the allocator keeps of freed memory, where it can be asked to. */
void qsi_mem_trim(void);
/* Asks for huge pages under the whole ones of [p, p + n), before they are first touched: fewer faults
 * while filling, fewer misses of the address cache while reading. A hint; nothing where there are
 * none. */
void qsi_mem_huge(void *p, size_t n);
/* Keeps in memory what this process has in memory now and what it touches later (mlockall on fault).
 * QS_E_LIMIT: the limit on locked memory does not allow it; the text says how to raise it. */
qs_status qsi_mem_lock(qs_err *err) QS_MUST_CHECK;
void qsi_mem_unlock(void);
/* Bytes that may be locked; UINT64_MAX: no limit. */
uint64_t qsi_mem_lock_limit(void);

#endif
