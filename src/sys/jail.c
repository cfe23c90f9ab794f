/* The sandbox for programs of strangers; see jail.h. Between fork and exec the child calls nothing but
 * the system: this process has threads. */
#define _GNU_SOURCE /* pipe2, memfd_create, syscall */
#include "sys/jail.h"

#include "sys/oserr.h"

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sys/file.h"

#ifdef __x86_64__
#define ARCH AUDIT_ARCH_X86_64
#else
#define ARCH AUDIT_ARCH_AARCH64
#endif

/* ---- system calls ----------------------------------------------------------------------------- */

/* Calls that may be made with any arguments: they read, compute, or change the process alone. */
static const int allowed[] = {
    SYS_read, SYS_readv, SYS_pread64, SYS_write, SYS_writev, SYS_close, SYS_lseek, SYS_dup, SYS_dup3,
    SYS_fstat, SYS_newfstatat, SYS_statfs, SYS_fstatfs, SYS_faccessat, SYS_readlinkat, SYS_getdents64,
    SYS_getcwd, SYS_pipe2, SYS_ppoll, SYS_pselect6,
    SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise, SYS_brk, SYS_mincore,
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_sigaltstack,
    SYS_setitimer, SYS_getitimer, SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime,
    SYS_clock_getres, SYS_gettimeofday, SYS_times, SYS_restart_syscall,
    SYS_getpid, SYS_gettid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
    SYS_getgroups, SYS_getresuid, SYS_getresgid, SYS_getpgid, SYS_getsid, SYS_getpriority,
    SYS_getrusage, SYS_getrlimit, SYS_sysinfo, SYS_uname, SYS_umask,
    SYS_futex, SYS_set_tid_address, SYS_set_robust_list, SYS_get_robust_list, SYS_sched_yield,
    SYS_sched_getaffinity, SYS_getrandom, SYS_execve, SYS_exit, SYS_exit_group,
#ifdef SYS_rseq
    SYS_rseq,
#endif
#ifdef SYS_statx
    SYS_statx,
#endif
#ifdef SYS_faccessat2
    SYS_faccessat2,
#endif
#ifdef __x86_64__
    SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_dup2, SYS_pipe, SYS_poll, SYS_select,
    SYS_getpgrp, SYS_arch_prctl, SYS_time, SYS_alarm, SYS_pause,
#endif
};

enum { MAX_FILTER = 320 };
typedef struct filter {
    struct sock_filter code[MAX_FILTER];
    unsigned short n;
} filter;

static void put(filter *f, uint16_t code, uint32_t k, uint8_t yes, uint8_t no) {
    QS_CHECK(f->n < MAX_FILTER);
    f->code[f->n++] = (struct sock_filter)BPF_JUMP(code, k, yes, no);
}

static void load(filter *f, size_t offset) {
    put(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* The next `skip` instructions unless the loaded word is k. */
static void when(filter *f, uint32_t k, uint8_t skip) {
    put(f, BPF_JMP | BPF_JEQ | BPF_K, k, 0, skip);
}

static void give(filter *f, uint32_t what) { put(f, BPF_RET | BPF_K, what, 0, 0); }
static void give_error(filter *f, int e) { give(f, SECCOMP_RET_ERRNO | (uint32_t)e); }

/* The low word of an argument; both machines are little-endian. */
static size_t argument(int i) {
    return offsetof(struct seccomp_data, args) + (size_t)i * sizeof(uint64_t);
}

/* A call that is allowed when its argument is one of the values. */
static void one_of(filter *f, int call, int arg, const uint32_t *values, uint8_t n) {
    when(f, (uint32_t)call, (uint8_t)(2 + 2 * n));
    load(f, argument(arg));
    for (uint8_t i = 0; i < n; i++) {
        when(f, values[i], 1);
        give(f, SECCOMP_RET_ALLOW);
    }
    give_error(f, EPERM);
}

/* An open that neither writes nor makes anything. */
static void for_reading(filter *f, int call, int flags_arg) {
    when(f, (uint32_t)call, 4);
    load(f, argument(flags_arg));
    put(f, BPF_JMP | BPF_JSET | BPF_K, O_ACCMODE | O_CREAT | O_TRUNC, 0, 1);
    give_error(f, EACCES);
    give(f, SECCOMP_RET_ALLOW);
}

/* Limits are read, not set. */
static void limits_read(filter *f) {
    when(f, SYS_prlimit64, 6);
    load(f, argument(2));
    when(f, 0, 3);
    load(f, argument(2) + 4);
    when(f, 0, 1);
    give(f, SECCOMP_RET_ALLOW);
    give_error(f, EPERM);
}

static void make_filter(filter *f, uint32_t pid) {
    static const uint32_t ioctls[] = { TCGETS, TIOCGWINSZ, FIOCLEX, FIONCLEX, FIONREAD };
    static const uint32_t fcntls[] = { F_GETFD, F_SETFD, F_GETFL, F_DUPFD, F_DUPFD_CLOEXEC };
    f->n = 0;
    load(f, offsetof(struct seccomp_data, arch));
    put(f, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    give(f, SECCOMP_RET_KILL_PROCESS);
    load(f, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < QSI_COUNT(allowed); i++) {
        when(f, (uint32_t)allowed[i], 1);
        give(f, SECCOMP_RET_ALLOW);
    }
    /* each of the following ends in a verdict once its call has matched */
    for_reading(f, SYS_openat, 2);
#ifdef SYS_open
    for_reading(f, SYS_open, 1);
#endif
    one_of(f, SYS_ioctl, 1, ioctls, QSI_COUNT(ioctls));
    one_of(f, SYS_fcntl, 1, fcntls, QSI_COUNT(fcntls));
    one_of(f, SYS_kill, 0, &pid, 1); /* abort and raise */
    one_of(f, SYS_tgkill, 0, &pid, 1);
    limits_read(f);
#ifdef SYS_clone3
    when(f, SYS_clone3, 1); /* libraries then try clone, and hear EPERM */
    give_error(f, ENOSYS);
#endif
    give_error(f, EPERM);
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* As in linux/landlock.h, which older systems lack. */
struct ruleset_attr {
    uint64_t handled_access_fs;
};
struct path_beneath_attr {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));
enum { LL_EXECUTE = 1 << 0, LL_READ_FILE = 1 << 2, LL_READ_DIR = 1 << 3, LL_PATH_BENEATH = 1,
       LL_ALL_V1 = (1 << 13) - 1, LL_READ = LL_EXECUTE | LL_READ_FILE | LL_READ_DIR };

static void allow_reading(int ruleset, const char *path, uint64_t access) {
#ifdef SYS_landlock_add_rule
    struct path_beneath_attr a = { .allowed_access = access };
    a.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (a.parent_fd < 0) return; /* there is no such folder: nothing to allow */
    (void)syscall(SYS_landlock_add_rule, ruleset, LL_PATH_BENEATH, &a, 0u);
    close(a.parent_fd);
#endif
}

/* The system's folders and the program's `own` may be read, nothing may be written. A kernel without
 * Landlock leaves the filter alone, which forbids writing too. False: it has it, and refuses. */
static bool limit_reading(char own[2][PATH_MAX]) {
#ifdef SYS_landlock_create_ruleset
    static const char *const folders[] = { "/usr", "/lib", "/lib64", "/bin", "/etc" };
    static const char *const files[] = { "/dev/null", "/dev/urandom" };
    const struct ruleset_attr attr = { .handled_access_fs = LL_ALL_V1 };
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0u);
    if (fd < 0) return errno == ENOSYS || errno == EOPNOTSUPP;
    for (size_t i = 0; i < QSI_COUNT(folders); i++) allow_reading(fd, folders[i], LL_READ);
    for (size_t i = 0; i < QSI_COUNT(files); i++) allow_reading(fd, files[i], LL_READ_FILE);
    for (int i = 0; i < 2; i++) allow_reading(fd, own[i], LL_READ);
    bool ok = syscall(SYS_landlock_restrict_self, fd, 0u) == 0;
    close(fd);
    return ok;
#else
    return true;
#endif
}

/* ---- the child -------------------------------------------------------------------------------- */

typedef struct start {
    const qsi_jail_opts *o;
    char own[2][PATH_MAX]; /* the folder above the program's, as named and with links resolved */
    int input, out, failed; /* descriptors */
    pid_t parent;
} start;

static bool limit(int what, rlim_t n) {
    struct rlimit r = { n, n };
    return setrlimit(what, &r) == 0;
}

static bool set_limits(const qsi_jail_opts *o) {
    rlim_t seconds = (rlim_t)o->seconds + 1;
    return limit(RLIMIT_CPU, seconds) && limit(RLIMIT_AS, o->memory) && limit(RLIMIT_FSIZE, 0) &&
           limit(RLIMIT_NOFILE, 64) && limit(RLIMIT_CORE, 0) && limit(RLIMIT_NPROC, 0) &&
           limit(RLIMIT_MSGQUEUE, 0);
}

/* No capability now or after an exec, also for root. Who has none has nothing to drop. */
static bool drop_privileges(void) {
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { { 0 } };
    const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                               SECBIT_NO_SETUID_FIXUP_LOCKED;
    if (geteuid() == 0 && prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) != 0 && errno != EPERM) return false;
    return syscall(SYS_capset, &head, none) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* Input at 0, nothing at 1 and 2, the result at 3, `failed` at 4 until the exec; the rest closed. */
static bool set_descriptors(start *s) {
    int fds[5] = { s->input, open("/dev/null", O_WRONLY), -1, s->out, s->failed };
    fds[2] = fds[1];
    for (int i = 0; i < 5; i++) { /* out of the way of 0 to 4 */
        fds[i] = fcntl(fds[i], F_DUPFD, 16);
        if (fds[i] < 0) return false;
    }
    for (int i = 0; i < 5; i++)
        if (dup2(fds[i], i) != i) return false;
    s->failed = 4;
    if (fcntl(4, F_SETFD, FD_CLOEXEC) != 0) return false;
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 5u, ~0u, 0u) == 0) return true;
#endif
    for (int fd = 5; fd < 65536; fd++) close(fd);
    return true;
}

static bool filter_calls(void) {
    filter f;
    make_filter(&f, (uint32_t)getpid());
    struct sock_fprog p = { .len = f.n, .filter = f.code };
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p, 0, 0) == 0;
}

static void reset_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    for (int i = 1; i < NSIG; i++) signal(i, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Never returns. Before the program runs, an error goes to `failed`: the step and errno. */
static void be_child(start *s) {
    static const char *const env[] = { "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONHASHSEED=0", NULL };
    int step = 0;
    char *argv[QSI_JAIL_MAX_ARGS + 1] = { NULL };
    for (int i = 0; i < QSI_JAIL_MAX_ARGS && s->o->argv[i]; i++)
        memcpy(&argv[i], &s->o->argv[i], sizeof argv[i]); /* execve takes them without const */
    reset_signals();
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && getppid() == s->parent && ++step &&
        setsid() >= 0 && chdir("/") == 0 && ++step && set_descriptors(s) && ++step &&
        set_limits(s->o) && ++step && drop_privileges() && ++step &&
        (s->o->no_landlock || limit_reading(s->own)) && ++step && filter_calls() && ++step) {
        char *const *e;
        const char *const *env_p = env;
        memcpy(&e, &env_p, sizeof e);
        execve(argv[0], argv, e);
    }
    int what[2] = { step, errno };
    (void)!write(s->failed, what, sizeof what);
    _exit(127);
}

/* ---- the parent ------------------------------------------------------------------------------- */

enum { STEP_LANDLOCK = 5, STEP_SECCOMP = 6, STEP_EXEC = 7 };

static qs_status start_error(const qsi_jail_opts *o, const int what[2], qs_err *err) {
    if (what[0] == STEP_LANDLOCK || what[0] == STEP_SECCOMP)
        return qsi_err_set(err, QS_E_UNSUPPORTED, "this system has no sandbox to run programs of "
                           "strangers in: the kernel refuses %s (%s)",
                           what[0] == STEP_SECCOMP ? "a seccomp filter" : "Landlock", strerror(what[1]));
    if (what[0] == STEP_EXEC) return qsi_err_errno(err, what[1], "cannot run '%s'", o->argv[0]);
    return qsi_err_errno(err, what[1], "cannot make a sandbox (step %d)", what[0]);
}

/* The bytes as a file of memory, at its beginning; -1. */
static int input_file(const void *p, size_t n) {
    int fd = memfd_create("program", MFD_CLOEXEC);
    for (size_t at = 0; fd >= 0 && at < n;) {
        ssize_t k = write(fd, (const char *)p + at, n - at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) {
            close(fd);
            return -1;
        }
        at += (size_t)k;
    }
    if (fd >= 0) (void)lseek(fd, 0, SEEK_SET);
    return fd;
}

static bool is_over(const qsi_jail_opts *o, int64_t end) {
    return qsi_now_ns() >= end || (o->cancel && atomic_load(o->cancel));
}

/* Takes what is written to `fd` until its end or that of the time. */
static void take_output(const qsi_jail_opts *o, int fd, int64_t end, qsi_jail_result *r) {
    enum { LOOK_MS = 50 }; /* how often the flag is looked at */
    while (!is_over(o, end)) {
        char more[256];
        struct pollfd p = { .fd = fd, .events = POLLIN };
        if (poll(&p, 1, LOOK_MS) <= 0) continue;
        ssize_t k = read(fd, more, sizeof more);
        if (k == 0 || (k < 0 && errno != EINTR)) return;
        size_t room = sizeof r->out - r->n_out, n = k < 0 ? 0 : (size_t)k < room ? (size_t)k : room;
        memcpy(r->out + r->n_out, more, n);
        r->n_out += n;
    }
}

/* Makes a program's path that of the folder above its own, where its libraries are. */
static void go_up(char path[PATH_MAX]) {
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(path, '/');
        if (slash) *slash = '\0';
    }
    if (path[0] != '/') memcpy(path, "/usr", 5); /* never the root */
}

static void find_own(const char *program, char own[2][PATH_MAX]) {
    size_t n = strlen(program);
    own[0][0] = '\0';
    if (n < PATH_MAX) memcpy(own[0], program, n + 1);
    if (realpath(program, own[1]) == NULL) own[1][0] = '\0';
    go_up(own[0]);
    go_up(own[1]);
}

/* Waits for the child's end, which comes with that of the time. */
static void end_child(const qsi_jail_opts *o, pid_t pid, int64_t end, qsi_jail_result *r) {
    const struct timespec pause = { .tv_nsec = 2000000 };
    int status = 0;
    bool kill_it = false;
    for (;;) { /* it may have closed its output and go on */
        pid_t k = waitpid(pid, &status, kill_it ? 0 : WNOHANG);
        if (k == pid || (k < 0 && errno != EINTR)) break;
        kill_it = is_over(o, end);
        if (kill_it) kill(pid, SIGKILL);
        else nanosleep(&pause, NULL);
    }
    r->end = kill_it ? QSI_JAIL_TIMED_OUT : WIFEXITED(status) ? QSI_JAIL_EXITED : QSI_JAIL_SIGNALLED;
    r->code = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
    /* the limit of CPU time is another clock for the same end */
    if (r->end == QSI_JAIL_SIGNALLED && (r->code == SIGXCPU || r->code == SIGKILL))
        r->end = QSI_JAIL_TIMED_OUT;
}

qs_status qsi_jail_run(const qsi_jail_opts *o, qsi_jail_result *r, qs_err *err) {
    qs_status st = QS_OK;
    start s = { .o = o, .input = -1, .parent = getpid() };
    int out[2] = { -1, -1 }, failed[2] = { -1, -1 }, what[2];
    *r = (qsi_jail_result){ 0 };
    find_own(o->argv[0], s.own);
    s.input = input_file(o->input, o->n_input);
    if (s.input < 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(failed, O_CLOEXEC) != 0) {
        st = qsi_err_errno(err, errno, "cannot make a sandbox");
        goto done;
    }
    s.out = out[1];
    s.failed = failed[1];
    pid_t pid = fork();
    if (pid == 0) be_child(&s);
    if (pid < 0) {
        st = qsi_err_errno(err, errno, "cannot make a sandbox");
        goto done;
    }
    close(out[1]);
    close(failed[1]);
    out[1] = failed[1] = -1;
    ssize_t k;
    do k = read(failed[0], what, sizeof what); /* its end: the program runs */
    while (k < 0 && errno == EINTR);
    int64_t end = qsi_now_ns() + (int64_t)(o->seconds * 1e9);
    if (k == 0) take_output(o, out[0], end, r);
    end_child(o, pid, end, r);
    if (k == (ssize_t)sizeof what) st = start_error(o, what, err);
    else if (k != 0) st = qsi_err_set(err, QS_E_IO, "cannot make a sandbox: the child ended early");
    else if (r->end == QSI_JAIL_TIMED_OUT && o->cancel && atomic_load(o->cancel))
        st = qsi_err_set(err, QS_E_CANCELLED, "cancelled");
done:
    for (int i = 0; i < 2; i++) {
        if (out[i] >= 0) close(out[i]);
        if (failed[i] >= 0) close(failed[i]);
    }
    if (s.input >= 0) close(s.input);
    return st;
}

#else

qs_status qsi_jail_run(const qsi_jail_opts *o, qsi_jail_result *r, qs_err *err) {
    return qsi_err_set(err, QS_E_UNSUPPORTED, "there is no sandbox to run programs of strangers in on "
                       "this system");
}

#endif
