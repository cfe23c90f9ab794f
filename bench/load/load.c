/* Load for a server: many streams at once over HTTP, and when their tokens come.
 *
 *   load --port N [--host A] [--streams N] [--requests N] [--prompt N] [--shared N] [--tokens N]
 *        [--idle N] [--vocab N] [--seed N] [--key K] [--json]
 *
 * Each request is a POST to /v1/completions with a prompt of random ids, the first `shared` of
 * them the same for all, greedy, without an end before --tokens ids, streamed. One thread, epoll,
 * a connection a request. Reported: time to the first token, time between tokens, whole time, each
 * as median, 90th and 99th percentile, and tokens a second of all together, from the first request
 * to the last answer. Exit code 1 when a request failed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct options {
    const char *host, *key;
    int port, streams, requests, prompt, shared, tokens, idle, vocab;
    uint64_t seed;
    bool json;
} options;

/* A list of times in seconds. */
typedef struct times {
    double *v;
    size_t n, cap;
} times;

typedef enum body_state { BODY_NONE, BODY_SIZE, BODY_DATA, BODY_END } body_state;

typedef struct stream {
    int fd;
    char *out;
    size_t n_out, at_out;
    char line[8192];       /* of the body */
    size_t n_line;
    char frame[512];       /* of the head, or of a chunk's size */
    size_t n_frame;
    body_state body;
    bool chunked;
    long left;             /* bytes of the chunk */
    int status;
    double t0, t_last;
    int n_events, n_tokens;
    bool done;
} stream;

typedef struct load {
    options o;
    int epoll, started, ended, failed;
    long n_tokens, n_cached;
    stream *streams;
    uint64_t rng;
    times first, between, whole;
} load;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void add(times *t, double v) {
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 1024;
        t->v = realloc(t->v, t->cap * sizeof *t->v);
        if (!t->v) die("memory");
    }
    t->v[t->n++] = v;
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at(const times *t, double part) {
    return t->n ? t->v[(size_t)(part * (double)(t->n - 1) + 0.5)] : 0;
}

static uint64_t draw(uint64_t *s) { /* splitmix64 */
    uint64_t z = *s += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int open_socket(const options *o) {
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)o->port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) die("socket");
    if (inet_pton(AF_INET, o->host, &a.sin_addr) != 1) die(o->host);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

/* The bytes of a request into s->out. */
static void write_request(load *l, stream *s) {
    const options *o = &l->o;
    uint64_t same = o->seed;
    size_t cap = 512 + (size_t)o->prompt * 8, n = 0;
    char *body = malloc(cap), key[300] = "";
    s->out = malloc(cap + 600);
    if (!body || !s->out) die("memory");
    n += (size_t)snprintf(body, cap, "{\"prompt\":[");
    for (int i = 0; i < o->prompt; i++) {
        uint64_t r = draw(i < o->shared ? &same : &l->rng);
        n += (size_t)snprintf(body + n, cap - n, "%s%d", i ? "," : "", (int)(r % (uint64_t)o->vocab));
    }
    n += (size_t)snprintf(body + n, cap - n, "],\"max_tokens\":%d,\"temperature\":0,\"stream\":true,"
                          "\"ignore_eos\":true,\"stream_options\":{\"include_usage\":true}}", o->tokens);
    if (o->key) snprintf(key, sizeof key, "Authorization: Bearer %.200s\r\n", o->key);
    s->n_out = (size_t)snprintf(s->out, cap + 600, "POST /v1/completions HTTP/1.1\r\nHost: %s:%d\r\n"
                                "Content-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n%s",
                                o->host, o->port, key, n, body);
    free(body);
}

static void start(load *l, stream *s) {
    memset(s, 0, sizeof *s);
    l->started++;
    write_request(l, s);
    s->t0 = now();
    s->fd = open_socket(&l->o);
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT, .data.ptr = s };
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, s->fd, &e) != 0) die("epoll");
}

static void end(load *l, stream *s, const char *why) {
    if (why) {
        l->failed++;
        fprintf(stderr, "load: a request failed: %s (status %d, %.200s)\n", why, s->status, s->line);
    } else {
        add(&l->whole, now() - s->t0);
        l->n_tokens += s->n_tokens;
    }
    close(s->fd);
    free(s->out);
    s->out = NULL;
    l->ended++;
    if (l->started < l->o.requests) start(l, s);
    else s->fd = -1;
}

/* A whole number behind a key, or -1. */
static int number_of(const char *line, const char *key) {
    const char *p = strstr(line, key);
    return p ? (int)strtol(p + strlen(key), NULL, 10) : -1;
}

/* A line of the body. */
static void hear(load *l, stream *s) {
    double t = now();
    s->line[s->n_line] = 0;
    if (strncmp(s->line, "data: ", 6) != 0) return;
    if (strcmp(s->line, "data: [DONE]") == 0) {
        s->done = true;
        return;
    }
    int n = number_of(s->line, "\"completion_tokens\":");
    if (n >= 0) s->n_tokens = n;
    int cached = number_of(s->line, "\"cached_tokens\":");
    if (cached > 0) l->n_cached += cached;
    if (!strstr(s->line, "\"text\":")) return;
    if (s->n_events++ == 0) add(&l->first, t - s->t0);
    else add(&l->between, t - s->t_last);
    s->t_last = t;
}

static void body_byte(load *l, stream *s, char c) {
    if (c == '\n') {
        if (s->n_line > 0 && s->line[s->n_line - 1] == '\r') s->n_line--;
        hear(l, s);
        s->n_line = 0;
    } else if (s->n_line + 1 < sizeof s->line) {
        s->line[s->n_line++] = c;
    }
}

/* A line of the head, or of a chunk's frame. */
static void head_line(stream *s) {
    s->frame[s->n_frame] = 0;
    if (s->body == BODY_NONE && s->status == 0)
        s->status = s->n_frame > 9 ? (int)strtol(s->frame + 9, NULL, 10) : -1;
    else if (s->body == BODY_NONE && strncasecmp(s->frame, "transfer-encoding: chunked", 26) == 0)
        s->chunked = true;
    else if (s->body == BODY_NONE && s->n_frame == 0) s->body = s->chunked ? BODY_SIZE : BODY_DATA;
    else if (s->body == BODY_SIZE && s->n_frame > 0) {
        s->left = strtol(s->frame, NULL, 16);
        s->body = s->left > 0 ? BODY_DATA : BODY_END;
    }
    s->n_frame = 0;
}

static void take(load *l, stream *s, const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (s->body == BODY_DATA) {
            body_byte(l, s, p[i]);
            if (s->chunked && --s->left == 0) s->body = BODY_SIZE;
        } else if (p[i] == '\n') {
            if (s->n_frame > 0 && s->frame[s->n_frame - 1] == '\r') s->n_frame--;
            head_line(s);
        } else if (s->n_frame + 1 < sizeof s->frame) {
            s->frame[s->n_frame++] = p[i];
        }
    }
}

static void serve(load *l, stream *s, uint32_t events) {
    char buf[65536];
    if (events & EPOLLOUT && s->at_out < s->n_out) {
        ssize_t n = send(s->fd, s->out + s->at_out, s->n_out - s->at_out, MSG_NOSIGNAL);
        if (n > 0) s->at_out += (size_t)n;
        if (s->at_out == s->n_out) {
            struct epoll_event e = { .events = EPOLLIN, .data.ptr = s };
            epoll_ctl(l->epoll, EPOLL_CTL_MOD, s->fd, &e);
        }
    }
    for (;;) {
        ssize_t n = recv(s->fd, buf, sizeof buf, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n <= 0) {
            end(l, s, s->done ? NULL : "the connection ended");
            return;
        }
        take(l, s, buf, (size_t)n);
        if (s->status && s->status != 200) {
            end(l, s, "refused");
            return;
        }
        if (s->done) {
            end(l, s, NULL);
            return;
        }
    }
}

static void report(load *l, double seconds) {
    const options *o = &l->o;
    times *t[3] = { &l->first, &l->between, &l->whole };
    static const char *const names[3] = { "first_s", "between_s", "whole_s" };
    for (int i = 0; i < 3; i++) qsort(t[i]->v, t[i]->n, sizeof(double), rising);
    if (!o->json) {
        printf("%d requests, %d streams at once, %d failed: %ld tokens in %.2f s, %.2f a second\n",
               l->ended, o->streams, l->failed, l->n_tokens, seconds, (double)l->n_tokens / seconds);
        for (int i = 0; i < 3; i++)
            printf("%-10s median %8.4f   90 %% %8.4f   99 %% %8.4f\n", names[i], at(t[i], 0.5),
                   at(t[i], 0.9), at(t[i], 0.99));
        return;
    }
    printf("{\"requests\":%d,\"streams\":%d,\"prompt\":%d,\"shared\":%d,\"tokens\":%d,\"failed\":%d,"
           "\"generated\":%ld,\"cached\":%ld,\"seconds\":%.4f,\"tok_s\":%.3f", l->ended, o->streams,
           o->prompt, o->shared, o->tokens, l->failed, l->n_tokens, l->n_cached, seconds,
           (double)l->n_tokens / seconds);
    for (int i = 0; i < 3; i++)
        printf(",\"%s\":{\"p50\":%.5f,\"p90\":%.5f,\"p99\":%.5f}", names[i], at(t[i], 0.5),
               at(t[i], 0.9), at(t[i], 0.99));
    printf("}\n");
}

static int int_of(int argc, char **argv, int *i) {
    char *rest;
    if (*i + 1 >= argc) {
        fprintf(stderr, "load: %s wants a number\n", argv[*i]);
        exit(2);
    }
    long v = strtol(argv[++*i], &rest, 10);
    if (*rest || v < 0 || v > 1 << 28) {
        fprintf(stderr, "load: '%s' is no number\n", argv[*i]);
        exit(2);
    }
    return (int)v;
}

static void parse(options *o, int argc, char **argv) {
    struct { const char *name; int *to; } ints[] = {
        { "--port", &o->port }, { "--streams", &o->streams }, { "--requests", &o->requests },
        { "--prompt", &o->prompt }, { "--shared", &o->shared }, { "--tokens", &o->tokens },
        { "--idle", &o->idle }, { "--vocab", &o->vocab },
    };
    for (int i = 1; i < argc; i++) {
        bool known = false;
        for (size_t k = 0; k < sizeof ints / sizeof *ints; k++)
            if (strcmp(argv[i], ints[k].name) == 0) {
                *ints[k].to = int_of(argc, argv, &i);
                known = true;
                break;
            }
        if (known) continue;
        if (strcmp(argv[i], "--json") == 0) o->json = true;
        else if (strcmp(argv[i], "--seed") == 0) o->seed = (uint64_t)int_of(argc, argv, &i);
        else if (strcmp(argv[i], "--host") == 0 && i + 1 < argc) o->host = argv[++i];
        else if (strcmp(argv[i], "--key") == 0 && i + 1 < argc) o->key = argv[++i];
        else {
            fprintf(stderr, "load: unknown option '%s' (bench/load/load.c says which there are)\n", argv[i]);
            exit(2);
        }
    }
    if (o->requests == 0) o->requests = o->streams;
}

int main(int argc, char **argv) {
    load l = { .o = { .host = "127.0.0.1", .port = 8080, .streams = 1, .prompt = 16, .tokens = 32,
                      .vocab = 256, .seed = 1 } };
    struct rlimit files;
    parse(&l.o, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    l.rng = l.o.seed * 77 + 5;
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    l.streams = calloc((size_t)l.o.streams, sizeof *l.streams);
    if (l.epoll < 0 || !l.streams) die("start");
    for (int i = 0; i < l.o.idle; i++) (void)open_socket(&l.o); /* they say nothing */
    double t0 = now();
    for (int i = 0; i < l.o.streams && l.started < l.o.requests; i++) start(&l, &l.streams[i]);
    while (l.ended < l.o.requests) {
        struct epoll_event e[256];
        int n = epoll_wait(l.epoll, e, 256, 600000);
        if (n == 0) die("nothing came for ten minutes");
        for (int i = 0; i < n; i++) serve(&l, e[i].data.ptr, e[i].events);
    }
    report(&l, now() - t0);
    return l.failed > 0;
}
