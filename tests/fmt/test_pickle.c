/* The pickle machine, opcode by opcode where torch's files do not reach. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "fmt/pickle.h"

typedef struct seen {
    int n;
    qsi_pickle_tensor last;
} seen;

static qs_status visit(void *user, const qsi_pickle_tensor *t, qs_err *err) {
    seen *s = user;
    s->n++;
    s->last = *t;
    return QS_OK;
}

/* {"w": rebuild(storage("3", 6 floats), 1, (2, 2), (2, 1), False, OrderedDict())} at protocol 4:
 * frames, short strings, names from the stack, memoize. */
#define P4_HEAD "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01w\x94"
#define P4_REBUILD "\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_tensor_v2\x94\x93\x94"
#define P4_STORAGE                                                                                 \
    "((\x8c\x07storage\x94\x8c\x05torch\x8c\x0c" "FloatStorage\x93\x8c\x01" "3\x8c\x03" "cpuK\x06tQ"
#define P4_SHAPE                                                                                   \
    "K\x01K\x02K\x02\x86K\x02K\x01\x86\x89\x8c\x0b" "collections\x8c\x0bOrderedDict\x93)RtR"

static void protocol_four(void **state) {
    static const char p[] = P4_HEAD P4_REBUILD P4_STORAGE P4_SHAPE "s.";
    seen s = {0};
    qs_err err = {0};
    assert_int_equal(qsi_pickle_tensors(p, sizeof p - 1, visit, &s, &err), QS_OK);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.last.offset, 1);
    assert_int_equal(s.last.storage_numel, 6);
    assert_int_equal(s.last.n_dims, 2);
    assert_int_equal(s.last.shape[1], 2);
    assert_int_equal(s.last.stride[0], 2);
    assert_memory_equal(s.last.key.p, "3", 1);
    assert_memory_equal(s.last.name.p, "w", 1);
    for (size_t n = 0; n + 1 < sizeof p; n++)
        assert_int_not_equal(qsi_pickle_tensors(p, n, visit, &s, &err), QS_OK);
}

static void expect(const char *p, size_t n, qs_status code, const char *says) {
    seen s = {0};
    qs_err err = {0};
    qs_status st = qsi_pickle_tensors(p, n, visit, &s, &err);
    if (st != code || strstr(err.text, says) == NULL)
        fail_msg("status %d, '%s'; expected %d, '%s'", (int)st, err.text, (int)code, says);
}
#define EXPECT(text, code, says) expect(text, sizeof text - 1, code, says)

static void nothing_is_called(void **state) {
    EXPECT("cos\nsystem\n(X\x02\x00\x00\x00lstR.", QS_E_UNSUPPORTED, "asks for os.system (byte 0)");
    EXPECT("\x8c\x08" "builtins\x8c\x04" "eval\x93.", QS_E_UNSUPPORTED, "builtins.eval");
    EXPECT("c\x1b[31m\nx\n.", QS_E_UNSUPPORTED, "asks for ?.x");
    EXPECT("(ios\nsystem\n.", QS_E_UNSUPPORTED, "opcode 0x69"); /* INST */
    EXPECT("\x82\x01.", QS_E_UNSUPPORTED, "opcode 0x82");       /* EXT1 */
    EXPECT("ctorch\nFloatStorage\n)R.", QS_E_FORMAT, "a call of a storage class");
}

static void damage(void **state) {
    EXPECT("", QS_E_FORMAT, "ends before its end mark");
    EXPECT(".", QS_E_FORMAT, "one value");
    EXPECT("0.", QS_E_FORMAT, "runs empty");
    EXPECT("t.", QS_E_FORMAT, "no mark");
    EXPECT("}(K\x01u.", QS_E_FORMAT, "no container");
    EXPECT("h\x05.", QS_E_FORMAT, "empty memo");
    EXPECT("}r\xff\xff\xff\xff.", QS_E_FORMAT, "memo number");
    EXPECT("\x80\x06}.", QS_E_FORMAT, "protocol newer");
    EXPECT("\x8a\x09" "123456789.", QS_E_FORMAT, "more than 64 bits");
    EXPECT("X\xff\xff\xff\x7f" "abc.", QS_E_FORMAT, "runs past");
    EXPECT("K\x01.", QS_E_FORMAT, "no dictionary");
    EXPECT("}K\x01K\x02s.", QS_E_FORMAT, "no string");
    EXPECT("}X\x01\x00\x00\x00" "aK\x02s.", QS_E_UNSUPPORTED, "entry a of the dictionary");
    EXPECT("}(0.", QS_E_FORMAT, "runs empty"); /* nothing below a mark is popped */
    EXPECT("(X\x01\x00\x00\x00" "xtQ.", QS_E_FORMAT, "no storage");
    EXPECT("]}b.", QS_E_FORMAT, "state for what is no dictionary");
}

static void empty_and_plain(void **state) {
    seen s = {0};
    qs_err err = {0};
    assert_int_equal(qsi_pickle_tensors("}.", 2, visit, &s, &err), QS_OK);
    assert_int_equal(qsi_pickle_tensors("(d.", 3, visit, &s, &err), QS_OK);
    /* a dictionary in itself is walked once */
    EXPECT("}q\x00X\x01\x00\x00\x00" "ah\x00s.", QS_E_UNSUPPORTED, "entry a");
    assert_int_equal(s.n, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(protocol_four), cmocka_unit_test(nothing_is_called),
        cmocka_unit_test(damage), cmocka_unit_test(empty_and_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
