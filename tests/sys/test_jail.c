/* The sandbox: what a program in it can do, what it cannot, and how it ends. The programs are those of a
 * shell and, where there is one, of Python. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sys/file.h"
#include "sys/jail.h"
#include "sys/osinfo.h"
#include "../sys/tmpdir.h"

#define PYTHON "/usr/bin/python3"

static bool no_landlock; /* the filter of system calls is to do alone */

static qs_status run(const char *const *argv, const char *input, double seconds, qsi_jail_result *r,
                     qs_err *err) {
    const qsi_jail_opts o = { .argv = argv, .input = input, .n_input = strlen(input),
                              .seconds = seconds, .memory = (uint64_t)512 << 20,
                              .no_landlock = no_landlock };
    *err = (qs_err){ 0 };
    return qsi_jail_run(&o, r, err);
}

/* Skips the test where the system has no sandbox. */
static void need_sandbox(void) {
    const char *const argv[] = { "/bin/sh", "-c", "exit 0", NULL };
    qsi_jail_result r;
    qs_err err;
    if (run(argv, "", 10, &r, &err) == QS_E_UNSUPPORTED) skip();
}

/* Runs a shell script; its output, NUL-terminated, in out. */
static qsi_jail_result sh(const char *script, double seconds, char out[QSI_JAIL_OUT + 1]) {
    const char *const argv[] = { "/bin/sh", "-c", script, NULL };
    qsi_jail_result r;
    qs_err err;
    if (run(argv, "one line\nanother\n", seconds, &r, &err) != QS_OK) fail_msg("%s", err.text);
    memcpy(out, r.out, r.n_out);
    out[r.n_out] = '\0';
    return r;
}

static void says(const char *script, const char *want) {
    char out[QSI_JAIL_OUT + 1];
    qsi_jail_result r = sh(script, 10, out);
    if (strcmp(out, want) != 0 || r.end != QSI_JAIL_EXITED)
        fail_msg("%s: '%s', end %d, code %d", script, out, (int)r.end, r.code);
}

static void ends(void **state) {
    need_sandbox();
    char out[QSI_JAIL_OUT + 1];
    qsi_jail_result r = sh("exit 3", 10, out);
    assert_int_equal(r.end, QSI_JAIL_EXITED);
    assert_int_equal(r.code, 3);
    r = sh("kill -TERM $$", 10, out);
    assert_int_equal(r.end, QSI_JAIL_SIGNALLED);
    assert_int_equal(r.code, 15);
    int64_t t = qsi_now_ns();
    assert_int_equal(sh("while :; do :; done", 0.3, out).end, QSI_JAIL_TIMED_OUT);
    /* nothing is written there any more, and it lives on */
    assert_int_equal(sh("exec 3>&-; exec /bin/sleep 60", 0.3, out).end, QSI_JAIL_TIMED_OUT);
    assert_true(qsi_now_ns() - t < (int64_t)20e9);
}

static void input_and_output(void **state) {
    need_sandbox();
    char out[QSI_JAIL_OUT + 1];
    says("read x; echo \"$x\" >&3", "one line\n");
    says("echo seen; echo seen >&2; echo shown >&3", "shown\n");
    sh("i=0; while [ $i -lt 100 ]; do echo 0123456789 >&3; i=$((i+1)); done", 10, out);
    assert_int_equal(strlen(out), QSI_JAIL_OUT);
    says("echo \"$HOME-$PATH\" >&3", "-/usr/bin:/bin\n");
}

static void changes_nothing(void **state) {
    need_sandbox();
    char script[1200];
    const char *path = tmp_path("made");
    snprintf(script, sizeof script, "{ echo x > %s; } 2>&- || echo none >&3", path);
    says(script, "none\n");
    assert_false(qsi_path_exists(path));
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("kept", f);
    fclose(f);
    snprintf(script, sizeof script, "echo x > %s || echo x >> %s || echo none >&3", path, path);
    says(script, "none\n");
    snprintf(script, sizeof script, "exec /bin/rm -f %s", path);
    sh(script, 10, script);
    assert_true(qsi_path_exists(path));
    unlink(path);
}

static void changes_nothing_by_filter(void **state) {
    no_landlock = true;
    changes_nothing(state);
    no_landlock = false;
}

static void alone(void **state) {
    need_sandbox();
    char out[QSI_JAIL_OUT + 1], script[64];
    sh("/bin/true & echo forked >&3", 10, out);
    assert_string_equal(out, "");
    snprintf(script, sizeof script, "kill -9 %d || echo no >&3", (int)getpid());
    says(script, "no\n");
    says("read x < /usr/share/common-licenses/GPL-3 && echo read >&3; read x < /bin/sh; echo end >&3",
         qsi_path_exists("/usr/share/common-licenses/GPL-3") ? "read\nend\n" : "end\n");
}

static void reads_the_system_alone(void **state) {
    need_sandbox();
    qsi_osinfo o;
    char script[600];
    const char *path = tmp_path("secret");
    qsi_osinfo_read(&o, "/");
    if (o.landlock == 0) skip();
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("secret\n", f);
    fclose(f);
    snprintf(script, sizeof script, "{ read x < %s; } 2>&- && echo \"$x\" >&3; echo end >&3", path);
    char out[QSI_JAIL_OUT + 1];
    sh(script, 10, out);
    unlink(path);
    assert_null(strstr(out, "secret"));
}

static void python(void **state) {
    need_sandbox();
    static const struct { const char *program, *out; } cases[] = {
        { "import os, math, json, re, collections\nos.write(3, b'%d' % math.factorial(10))", "3628800" },
        { "import os, socket\ntry:\n socket.socket()\nexcept PermissionError:\n os.write(3, b'no')",
          "no" },
        { "import os, subprocess\ntry:\n subprocess.run(['/bin/true'])\n"
          "except OSError:\n os.write(3, b'no')", "no" },
        { "import os, threading\ntry:\n threading.Thread(target=print).start()\n"
          "except RuntimeError:\n os.write(3, b'no')", "no" },
        { "import os\ntry:\n x = bytearray(1 << 30)\nexcept MemoryError:\n os.write(3, b'no')", "no" },
        { "import os, tempfile\ntry:\n tempfile.TemporaryFile()\nexcept OSError:\n os.write(3, b'no')",
          "no" },
        { "import os, resource\ntry:\n resource.setrlimit(resource.RLIMIT_AS, (1, 1))\n"
          "except (ValueError, OSError):\n os.write(3, b'no')", "no" },
        { "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
          "r = [libc.unshare(0x10000000), libc.mount(b'a', b'/', b'tmpfs', 0, None), libc.setuid(1),\n"
          "     libc.ptrace(16, 1, 0, 0), libc.memfd_create(b'x', 0), libc.unlink(b'/etc/passwd')]\n"
          "os.write(3, str(r).encode())", "[-1, -1, -1, -1, -1, -1]" },
        { "x = 1 / 0", "" },
    };
    const char *const argv[] = { PYTHON, "-I", "-B", "-", NULL };
    if (!qsi_path_exists(PYTHON)) skip();
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_jail_result r;
        qs_err err;
        assert_int_equal(run(argv, cases[i].program, 20, &r, &err), QS_OK);
        if (r.n_out != strlen(cases[i].out) || memcmp(r.out, cases[i].out, r.n_out) != 0)
            fail_msg("case %zu: '%.*s', end %d, code %d", i, (int)r.n_out, r.out, (int)r.end, r.code);
    }
}

static void errors(void **state) {
    need_sandbox();
    const char *const missing[] = { "/no/such/program", NULL };
    const char *const shell[] = { "/bin/sh", "-c", "while :; do :; done", NULL };
    qsi_jail_result r;
    qs_err err;
    assert_int_equal(run(missing, "", 5, &r, &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "cannot run '/no/such/program'"));
    atomic_int cancel = 1;
    const qsi_jail_opts o = { .argv = shell, .seconds = 30, .memory = (uint64_t)512 << 20,
                              .cancel = &cancel };
    assert_int_equal(qsi_jail_run(&o, &r, &err), QS_E_CANCELLED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends), cmocka_unit_test(input_and_output), cmocka_unit_test(changes_nothing),
        cmocka_unit_test(changes_nothing_by_filter),
        cmocka_unit_test(alone), cmocka_unit_test(reads_the_system_alone), cmocka_unit_test(python),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
