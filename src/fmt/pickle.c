/* Values live in one array and refer to each other by index; a container is a list of cells. An
 * opcode makes at most four values, so memory is bounded by the pickle's size. Integers are kept
 * as int64_t: larger ones are refused. */
#include "fmt/pickle.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "base/cursor.h"
#include "base/mem.h"

typedef enum kind {
    NONE, BOOL, INT, STR, NAME, /* of a class or function, among those known */
    STORAGE,                    /* a persistent id */
    TENSOR,                     /* a rebuilt tensor: the cells are the arguments */
    TUPLE, LIST, DICT
} kind;

typedef struct value {
    kind kind;
    uint32_t first, last; /* containers, STORAGE and TENSOR: cells; 0: none. NAME: index */
    uint32_t n;           /* cells */
    union {
        int64_t i;
        struct {
            const char *p;
            size_t n;
        } s;
    } u;
} value;
typedef struct cell {
    uint32_t value, next;
} cell;

typedef enum known {
    ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, A_STORAGE
} known;
static const struct name {
    const char *module, *name;
    known what;
} names[] = {
    {"collections", "OrderedDict", ORDERED_DICT},
    {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR},
    {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER},
    {"torch", "FloatStorage", A_STORAGE},
    {"torch", "HalfStorage", A_STORAGE},
    {"torch", "BFloat16Storage", A_STORAGE},
    {"torch", "DoubleStorage", A_STORAGE},
    {"torch", "LongStorage", A_STORAGE},
    {"torch", "IntStorage", A_STORAGE},
    {"torch", "ShortStorage", A_STORAGE},
    {"torch", "CharStorage", A_STORAGE},
    {"torch", "ByteStorage", A_STORAGE},
    {"torch", "BoolStorage", A_STORAGE},
};

typedef struct machine {
    qsi_cursor c;
    size_t at; /* of the opcode */
    value *values;
    size_t n_values, cap_values;
    cell *cells; /* cell 0 is never used */
    size_t n_cells, cap_cells;
    uint32_t *stack, *marks, *memo; /* memo: value + 1, 0 is empty */
    size_t n_stack, cap_stack, n_marks, cap_marks, n_memo, cap_memo;
} machine;

static qs_status no_memory(qs_err *err) {
    return qsi_err_set(err, QS_E_NOMEM, "out of memory reading a pickle");
}

static qs_status damaged(const machine *m, const char *what, qs_err *err) {
    return qsi_err_at(err, QS_E_FORMAT, (int64_t)m->at, "damaged pickle at byte %zu: %s", m->at,
                      what);
}

/* ---- values, cells, stack ---- */

static qs_status new_value(machine *m, kind k, uint32_t *out, qs_err *err) {
    void *grown = m->values;
    if (qsi_grow(&grown, &m->cap_values, m->n_values + 1, sizeof *m->values) != QS_OK)
        return no_memory(err);
    m->values = grown;
    m->values[m->n_values] = (value){.kind = k};
    *out = (uint32_t)m->n_values++;
    return QS_OK;
}

static qs_status append(machine *m, uint32_t to, uint32_t what, qs_err *err) {
    void *grown = m->cells;
    if (qsi_grow(&grown, &m->cap_cells, m->n_cells + 1, sizeof *m->cells) != QS_OK)
        return no_memory(err);
    m->cells = grown;
    uint32_t at = (uint32_t)m->n_cells++;
    value *v = &m->values[to];
    m->cells[at] = (cell){what, 0};
    if (v->n++ == 0) v->first = at;
    else m->cells[v->last].next = at;
    v->last = at;
    return QS_OK;
}

static qs_status push(machine *m, uint32_t v, qs_err *err) {
    void *grown = m->stack;
    if (qsi_grow(&grown, &m->cap_stack, m->n_stack + 1, sizeof *m->stack) != QS_OK)
        return no_memory(err);
    m->stack = grown;
    m->stack[m->n_stack++] = v;
    return QS_OK;
}

/* Values above the last mark. */
static size_t above_mark(const machine *m) {
    return m->n_stack - (m->n_marks > 0 ? m->marks[m->n_marks - 1] : 0);
}

static qs_status pop(machine *m, uint32_t *out, qs_err *err) {
    if (above_mark(m) == 0) return damaged(m, "its stack runs empty", err);
    *out = m->stack[--m->n_stack];
    return QS_OK;
}

static qs_status push_int(machine *m, kind k, int64_t i, qs_err *err) {
    qs_status st = QS_OK;
    uint32_t v = 0;
    QS_TRY(new_value(m, k, &v, err));
    m->values[v].u.i = i;
    QS_TRY(push(m, v, err));
done:
    return st;
}

static qs_status push_str(machine *m, uint64_t n, qs_err *err) {
    qs_status st = QS_OK;
    uint32_t v = 0;
    const uint8_t *p = qsi_cursor_bytes(&m->c, n);
    if (p == NULL) return damaged(m, "a string runs past its end", err);
    QS_TRY(new_value(m, STR, &v, err));
    m->values[v].u.s.p = (const char *)p;
    m->values[v].u.s.n = (size_t)n;
    QS_TRY(push(m, v, err));
done:
    return st;
}

static const value *arg(const machine *m, const value *v, uint32_t i) {
    uint32_t at = v->first;
    if (i >= v->n) return NULL;
    while (i-- > 0) at = m->cells[at].next;
    return &m->values[m->cells[at].value];
}

/* ---- containers ---- */

/* Pops what stands above the last mark, and the mark: values [*from, *from + *n) of the stack. */
static qs_status pop_mark(machine *m, size_t *from, size_t *n, qs_err *err) {
    if (m->n_marks == 0) return damaged(m, "no mark on its stack", err);
    *from = m->marks[--m->n_marks];
    *n = m->n_stack - *from;
    m->n_stack = *from;
    return QS_OK;
}

static qs_status push_mark(machine *m, qs_err *err) {
    void *grown = m->marks;
    if (qsi_grow(&grown, &m->cap_marks, m->n_marks + 1, sizeof *m->marks) != QS_OK)
        return no_memory(err);
    m->marks = grown;
    m->marks[m->n_marks++] = (uint32_t)m->n_stack;
    return QS_OK;
}

static qs_status push_container(machine *m, kind k, size_t from, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    uint32_t v = 0;
    QS_TRY(new_value(m, k, &v, err));
    for (size_t i = 0; i < n; i++) QS_TRY(append(m, v, m->stack[from + i], err));
    QS_TRY(push(m, v, err));
done:
    return st;
}

/* The last n values as a tuple. */
static qs_status small_tuple(machine *m, size_t n, qs_err *err) {
    if (above_mark(m) < n) return damaged(m, "its stack runs empty", err);
    m->n_stack -= n;
    return push_container(m, TUPLE, m->n_stack, n, err);
}

/* Adds stack values [from, from + n) to the container on top. */
static qs_status extend(machine *m, kind k, size_t from, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    if (above_mark(m) == 0) return damaged(m, "its stack runs empty", err);
    uint32_t to = m->stack[m->n_stack - 1];
    if (m->values[to].kind != k || (k == DICT && n % 2 != 0))
        return damaged(m, "items for what is no container of them", err);
    for (size_t i = 0; i < n; i++) QS_TRY(append(m, to, m->stack[from + i], err));
done:
    return st;
}

static qs_status extend_few(machine *m, kind k, size_t n, qs_err *err) {
    if (above_mark(m) < n + 1) return damaged(m, "its stack runs empty", err);
    m->n_stack -= n;
    return extend(m, k, m->n_stack, n, err);
}

/* ---- memo ---- */

static qs_status memo_put(machine *m, uint64_t i, qs_err *err) {
    void *grown = m->memo;
    size_t old = m->cap_memo;
    if (above_mark(m) == 0) return damaged(m, "its stack runs empty", err);
    if (i > m->c.size) return damaged(m, "a memo number beyond its size", err);
    if (qsi_grow(&grown, &m->cap_memo, (size_t)i + 1, sizeof *m->memo) != QS_OK)
        return no_memory(err);
    m->memo = grown;
    if (m->cap_memo > old) memset(m->memo + old, 0, (m->cap_memo - old) * sizeof *m->memo);
    m->memo[i] = m->stack[m->n_stack - 1] + 1;
    m->n_memo++;
    return QS_OK;
}

static qs_status memo_get(machine *m, uint64_t i, qs_err *err) {
    if (i >= m->cap_memo || m->memo[i] == 0) return damaged(m, "an empty memo is read", err);
    return push(m, m->memo[i] - 1, err);
}

/* ---- names and what is done with them ---- */

static bool str_is(const char *p, size_t n, const char *z) {
    return strlen(z) == n && memcmp(p, z, n) == 0;
}

/* A piece of the pickle fit to be shown. */
static qsi_pickle_str shown(const char *p, size_t n) {
    bool fit = n > 0 && n <= 64;
    for (size_t i = 0; fit && i < n; i++) fit = p[i] > 0x20 && p[i] < 0x7f;
    return fit ? (qsi_pickle_str){p, n} : (qsi_pickle_str){"?", 1};
}

static qs_status push_name(machine *m, const char *mod, size_t n_mod, const char *name,
                           size_t n_name, qs_err *err) {
    qs_status st = QS_OK;
    uint32_t v = 0;
    for (size_t i = 0; i < QSI_COUNT(names); i++) {
        if (!str_is(mod, n_mod, names[i].module) || !str_is(name, n_name, names[i].name)) continue;
        QS_TRY(new_value(m, NAME, &v, err));
        m->values[v].first = (uint32_t)i;
        QS_TRY(push(m, v, err));
        goto done;
    }
    qsi_pickle_str a = shown(mod, n_mod), b = shown(name, n_name);
    st = qsi_err_at(err, QS_E_UNSUPPORTED, (int64_t)m->at,
                    "the pickle asks for %.*s.%.*s (byte %zu): only tensors are read, no code from "
                    "a file is run",
                    (int)a.n, a.p, (int)b.n, b.p, m->at);
done:
    return st;
}

/* One line of a GLOBAL. */
static const char *line(qsi_cursor *c, size_t *n) {
    const char *p = (const char *)c->data + c->pos;
    const char *end = memchr(p, '\n', qsi_cursor_left(c));
    if (end == NULL) return NULL;
    *n = (size_t)(end - p);
    (void)qsi_cursor_bytes(c, *n + 1);
    return p;
}

static qs_status global(machine *m, qs_err *err) {
    size_t n_mod = 0, n_name = 0;
    const char *mod = line(&m->c, &n_mod), *name = mod ? line(&m->c, &n_name) : NULL;
    if (name == NULL) return damaged(m, "a name runs past its end", err);
    return push_name(m, mod, n_mod, name, n_name, err);
}

static qs_status stack_global(machine *m, qs_err *err) {
    qs_status st = QS_OK;
    uint32_t name = 0, mod = 0;
    QS_TRY(pop(m, &name, err));
    QS_TRY(pop(m, &mod, err));
    const value *a = &m->values[mod], *b = &m->values[name];
    if (a->kind != STR || b->kind != STR) return damaged(m, "a name that is no string", err);
    st = push_name(m, a->u.s.p, a->u.s.n, b->u.s.p, b->u.s.n, err);
done:
    return st;
}

/* Turns the tuple on top into ('storage', class, key, location, numel). */
static qs_status persistent_id(machine *m, qs_err *err) {
    qs_status st = QS_OK;
    uint32_t t = 0, v = 0;
    QS_TRY(pop(m, &t, err));
    const value *id = &m->values[t];
    const value *tag = arg(m, id, 0), *cls = arg(m, id, 1), *key = arg(m, id, 2);
    const value *numel = arg(m, id, 4);
    if (id->kind != TUPLE || id->n < 5 || tag->kind != STR ||
        !str_is(tag->u.s.p, tag->u.s.n, "storage") || cls->kind != NAME ||
        names[cls->first].what != A_STORAGE || key->kind != STR || numel->kind != INT)
        return damaged(m, "a reference to something that is no storage", err);
    value copy = *id;
    QS_TRY(new_value(m, STORAGE, &v, err));
    copy.kind = STORAGE;
    m->values[v] = copy;
    QS_TRY(push(m, v, err));
done:
    return st;
}

/* The callable and its arguments are on top. */
static qs_status reduce(machine *m, qs_err *err) {
    qs_status st = QS_OK;
    uint32_t args = 0, fn = 0, v = 0;
    QS_TRY(pop(m, &args, err));
    QS_TRY(pop(m, &fn, err));
    if (m->values[args].kind != TUPLE || m->values[fn].kind != NAME)
        return damaged(m, "a call of what is no known function", err);
    value copy = m->values[args];
    switch (names[m->values[fn].first].what) {
    case ORDERED_DICT:
        if (copy.n != 0) return damaged(m, "an OrderedDict with arguments", err);
        QS_TRY(new_value(m, DICT, &v, err));
        break;
    case REBUILD_TENSOR:
        if (copy.n < 5 || arg(m, &copy, 0)->kind != STORAGE)
            return damaged(m, "a tensor without a storage", err);
        QS_TRY(new_value(m, TENSOR, &v, err));
        copy.kind = TENSOR;
        m->values[v] = copy;
        break;
    case REBUILD_PARAMETER:
        if (copy.n < 1 || arg(m, &copy, 0)->kind != TENSOR)
            return damaged(m, "a parameter without a tensor", err);
        v = m->cells[copy.first].value;
        break;
    default: return damaged(m, "a call of a storage class", err);
    }
    QS_TRY(push(m, v, err));
done:
    return st;
}

/* State for a dictionary (torch keeps version numbers there): not needed. */
static qs_status build(machine *m, qs_err *err) {
    qs_status st = QS_OK;
    uint32_t state = 0;
    QS_TRY(pop(m, &state, err));
    if (above_mark(m) == 0 || m->values[m->stack[m->n_stack - 1]].kind != DICT)
        return damaged(m, "state for what is no dictionary", err);
done:
    return st;
}

/* ---- the machine ---- */

/* n bytes, little-endian, two's complement. */
static qs_status push_long(machine *m, uint64_t n, qs_err *err) {
    const uint8_t *p = n <= 8 ? qsi_cursor_bytes(&m->c, n) : NULL;
    if (p == NULL) return damaged(m, "an integer of more than 64 bits", err);
    uint64_t x = n > 0 && (p[n - 1] & 0x80) ? UINT64_MAX : 0;
    for (uint64_t i = n; i-- > 0;) x = x << 8 | p[i];
    int64_t y;
    memcpy(&y, &x, sizeof y);
    return push_int(m, INT, y, err);
}

static qs_status marked(machine *m, uint8_t op, qs_err *err) {
    qs_status st = QS_OK;
    size_t from = 0, n = 0;
    QS_TRY(pop_mark(m, &from, &n, err));
    switch (op) {
    case 't': st = push_container(m, TUPLE, from, n, err); break;
    case 'l': st = push_container(m, LIST, from, n, err); break;
    case 'd':
        if (n % 2 != 0) return damaged(m, "a key without a value", err);
        st = push_container(m, DICT, from, n, err);
        break;
    case 'e': st = extend(m, LIST, from, n, err); break;
    case 'u': st = extend(m, DICT, from, n, err); break;
    default: break; /* '1': drop */
    }
done:
    return st;
}

static qs_status execute(machine *m, uint8_t op, qs_err *err) {
    qsi_cursor *c = &m->c;
    uint32_t v = 0;
    int32_t i32 = 0;
    uint32_t u32 = 0;
    switch (op) {
    case 0x80: /* PROTO */
        if (qsi_cursor_u8(c) > 5) return damaged(m, "a protocol newer than 5", err);
        return QS_OK;
    case 0x95: (void)qsi_cursor_u64(c); return QS_OK; /* FRAME: only for buffering */
    case '(': return push_mark(m, err);
    case ')': return push_container(m, TUPLE, 0, 0, err);
    case ']': return push_container(m, LIST, 0, 0, err);
    case '}': return push_container(m, DICT, 0, 0, err);
    case 't': case 'l': case 'd': case 'e': case 'u': case '1': return marked(m, op, err);
    case 0x85: return small_tuple(m, 1, err);
    case 0x86: return small_tuple(m, 2, err);
    case 0x87: return small_tuple(m, 3, err);
    case 'a': return extend_few(m, LIST, 1, err);
    case 's': return extend_few(m, DICT, 2, err);
    case '0': return pop(m, &v, err);
    case 'N': return push_int(m, NONE, 0, err);
    case 0x88: return push_int(m, BOOL, 1, err);
    case 0x89: return push_int(m, BOOL, 0, err);
    case 'K': return push_int(m, INT, qsi_cursor_u8(c), err);
    case 'M': return push_int(m, INT, qsi_cursor_u16(c), err);
    case 'J':
        u32 = qsi_cursor_u32(c);
        memcpy(&i32, &u32, sizeof i32);
        return push_int(m, INT, i32, err);
    case 0x8a: return push_long(m, qsi_cursor_u8(c), err);
    case 'X': case 'T': return push_str(m, qsi_cursor_u32(c), err);
    case 0x8c: case 'U': return push_str(m, qsi_cursor_u8(c), err);
    case 0x8d: return push_str(m, qsi_cursor_u64(c), err);
    case 'q': return memo_put(m, qsi_cursor_u8(c), err);
    case 'r': return memo_put(m, qsi_cursor_u32(c), err);
    case 0x94: return memo_put(m, m->n_memo, err);
    case 'h': return memo_get(m, qsi_cursor_u8(c), err);
    case 'j': return memo_get(m, qsi_cursor_u32(c), err);
    case 'c': return global(m, err);
    case 0x93: return stack_global(m, err);
    case 'Q': return persistent_id(m, err);
    case 'R': return reduce(m, err);
    case 'b': return build(m, err);
    default:
        return qsi_err_at(err, QS_E_UNSUPPORTED, (int64_t)m->at,
                          "the pickle uses opcode 0x%02x (byte %zu), which files of tensors do not "
                          "need",
                          op, m->at);
    }
}

static qs_status run(machine *m, uint32_t *result, qs_err *err) {
    qs_status st = QS_OK;
    for (;;) {
        m->at = m->c.pos;
        uint8_t op = qsi_cursor_u8(&m->c);
        if (m->c.failed) return damaged(m, "it ends before its end mark", err);
        if (op == '.') break;
        QS_TRY(execute(m, op, err));
        if (m->c.failed) return damaged(m, "it ends inside an opcode", err);
    }
    if (m->n_stack != 1 || m->n_marks != 0)
        return damaged(m, "its stack does not end with one value", err);
    *result = m->stack[0];
done:
    return st;
}

/* ---- the result ---- */

static bool read_ints(const machine *m, const value *v, int64_t *out, int *n) {
    if (v == NULL || v->kind != TUPLE || v->n > QSI_PICKLE_MAX_DIMS) return false;
    *n = (int)v->n;
    for (uint32_t i = 0; i < v->n; i++) {
        const value *x = arg(m, v, i);
        if (x->kind != INT || x->u.i < 0) return false;
        out[i] = x->u.i;
    }
    return true;
}

/* Arguments of the rebuild: storage, offset, size, stride. */
static bool describe(const machine *m, const value *v, qsi_pickle_tensor *t) {
    int n_stride = 0;
    const value *s = arg(m, v, 0), *off = arg(m, v, 1);
    const value *key = arg(m, s, 2), *numel = arg(m, s, 4);
    const struct name *cls = &names[arg(m, s, 1)->first];
    t->storage = (qsi_pickle_str){cls->name, strlen(cls->name)};
    t->key = (qsi_pickle_str){key->u.s.p, key->u.s.n};
    t->storage_numel = numel->u.i;
    if (off->kind != INT || off->u.i < 0) return false;
    t->offset = off->u.i;
    return read_ints(m, arg(m, v, 2), t->shape, &t->n_dims) &&
           read_ints(m, arg(m, v, 3), t->stride, &n_stride) && n_stride == t->n_dims;
}

static qs_status visit_all(const machine *m, const value *dict, qsi_pickle_visit *visit, void *user,
                           qs_err *err) {
    qs_status st = QS_OK;
    if (dict->kind != DICT)
        QS_FAIL(err, QS_E_FORMAT, "the pickle is no dictionary of names to tensors");
    uint32_t at = dict->first;
    for (uint32_t i = 0; i < dict->n; i += 2) {
        const value *k = &m->values[m->cells[at].value];
        at = m->cells[at].next;
        const value *v = &m->values[m->cells[at].value];
        at = m->cells[at].next;
        qsi_pickle_tensor t = {0};
        if (k->kind != STR)
            QS_FAIL(err, QS_E_FORMAT, "entry %u of the dictionary has a key that is no string",
                    i / 2);
        t.name = (qsi_pickle_str){k->u.s.p, k->u.s.n};
        qsi_pickle_str show = shown(t.name.p, t.name.n);
        if (v->kind != TENSOR)
            QS_FAIL(err, QS_E_UNSUPPORTED, "entry %.*s of the dictionary is no tensor", (int)show.n,
                    show.p);
        if (!describe(m, v, &t))
            QS_FAIL(err, QS_E_FORMAT, "tensor %.*s: its size or stride is no list of at most %d "
                    "numbers", (int)show.n, show.p, QSI_PICKLE_MAX_DIMS);
        QS_TRY(visit(user, &t, err));
    }
done:
    return st;
}

qs_status qsi_pickle_tensors(const void *data, size_t size, qsi_pickle_visit *visit, void *user,
                             qs_err *err) {
    qs_status st = QS_OK;
    machine m = {.n_cells = 1};
    uint32_t result = 0;
    if (size > QSI_PICKLE_MAX_BYTES)
        QS_FAIL(err, QS_E_LIMIT, "a pickle of %zu bytes (the limit is %zu)", size,
                QSI_PICKLE_MAX_BYTES);
    qsi_cursor_init(&m.c, data, size);
    QS_TRY(run(&m, &result, err));
    QS_TRY(visit_all(&m, &m.values[result], visit, user, err));
done:
    qsi_free(m.values);
    qsi_free(m.cells);
    qsi_free(m.stack);
    qsi_free(m.marks);
    qsi_free(m.memo);
    return st;
}
