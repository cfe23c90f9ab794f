/* doctor: what helps or hinders speed on this machine. */
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/measure.h"
#include "ui.h"

static void print_finding(void *user, const qs_finding *f) {
    int *warnings = user;
    printf("%-5s %-14s %s\n", f->ok ? "ok" : "warn", f->key, f->value);
    if (!f->ok) printf("%20s %s\n", "", f->advice);
    *warnings += !f->ok;
}

static void add_finding(void *user, const qs_finding *f) {
    json_array_append_new(user, json_pack("{s:s, s:b, s:s, s:s}", "key", f->key, "ok",
                                          (int)f->ok, "value", f->value, "advice", f->advice));
}

static int print_json(const char *cache) {
    json_t *findings = json_array();
    qs_doctor(cache, add_finding, findings);
    json_t *all = json_pack("{s:o}", "findings", findings);
    char *text = all != NULL ? json_dumps(all, JSON_COMPACT) : NULL;
    if (text != NULL) puts(text);
    else qsa_say("out of memory");
    json_decref(all);
    int rc = text != NULL ? QSA_EXIT_OK : QSA_EXIT_FAILED;
    free(text);
    return rc;
}

int cmd_doctor(int argc, char **argv) {
    bool json = false;
    const qsa_opt opts[] = {
        QSA_OPT_FLAG(0, "json", &json, "print one JSON object"),
    };
    const qsa_cmd cmd = {
        .name = "doctor",
        .synopsis = "[--json]",
        .about =
            "Looks at this machine: CPU and its levels, cores and what a container allows, memory,\n"
            "huge pages, clock, NUMA, locked memory, sandbox, disk. A line with warn says in a\n"
            "sentence what would make it faster. Nothing is measured (bench does that) or changed.\n",
        .examples = "qiusuo doctor\n"
                    "qiusuo doctor --json | jq '.findings[] | select(.ok | not)'\n",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
    };
    int rc = qsa_parse(&cmd, argc, argv, NULL);
    if (rc != QSA_GO) return rc;
    char cache[4096];
    qsa_cache_dir(cache, sizeof cache);
    if (json) return print_json(cache);
    int warnings = 0;
    qs_doctor(cache, print_finding, &warnings);
    if (warnings > 0) printf("\n%d thing%s could be better.\n", warnings, warnings > 1 ? "s" : "");
    return QSA_EXIT_OK;
}
