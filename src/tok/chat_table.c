/* The chat templates: deepseek-facts 3.2 and the official templates (tests/golden/MANIFEST.md says
 * where each was had). A Jinja text here is this program's own, for other programs to read from the
 * files it writes: it renders system, user and assistant turns as the row does. */
#include "tok/chat_table.h"

/* All system texts first. */
#define J_GATHER                                                                                   \
    "{% set ns = namespace(system='', first=true) %}{% for message in messages %}"                 \
    "{% if message['role'] == 'system' %}{% set ns.system = ns.system + "                          \
    "('' if ns.first else '\\n\\n') + message['content'] %}{% set ns.first = false %}"             \
    "{% endif %}{% endfor %}{{ bos_token + ns.system }}"
/* One system text; a later one takes its place. */
#define J_ONE                                                                                      \
    "{% set ns = namespace(system='') %}{% for message in messages %}"                             \
    "{% if message['role'] == 'system' %}{% set ns.system = message['content'] %}"                 \
    "{% endif %}{% endfor %}{{ bos_token + ns.system }}"
#define J_TURNS "{% for message in messages %}{% if message['role'] == 'user' %}"
#define J_USER "{{ '<｜User｜>' + message['content'] }}"
#define J_USER_OPENS "{{ '<｜User｜>' + message['content'] + '<｜Assistant｜>' }}"
#define J_ASSISTANT "{% elif message['role'] == 'assistant' %}"
#define J_MARKER "'<｜Assistant｜>' + "
#define J_PLAIN "message['content'] + eos_token }}"
#define J_STRIP "{% set content = message['content'].split('</think>')[-1] %}{{ "
#define J_STRIPPED "content + eos_token }}"
#define J_END "{% endif %}{% endfor %}{% if add_generation_prompt %}"
#define J_PROMPT J_END "{{ '<｜Assistant｜>' }}{% endif %}"
#define J_PROMPT_THINK J_END "{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
#define J_PROMPT_OPENED                                                                            \
    J_END "{% if messages[-1]['role'] != 'user' %}{{ '<｜Assistant｜>' }}{% endif %}{% endif %}"
#define J_SWITCH_ANSWER                                                                            \
    "{{ '<｜Assistant｜></think>' + message['content'].split('</think>', 1)[-1] + eos_token }}"
#define J_SWITCH                                                                                   \
    J_END "{% if thinking is defined and thinking %}{{ '<｜Assistant｜><think>' }}"                \
    "{% else %}{{ '<｜Assistant｜></think>' }}{% endif %}{% endif %}"

/* Of DeepSeek-V2.5 and later: tokens around the turns. */
#define TOKENS .user = {QSI_M_USER, ""}, .system = {"", ""}, .marker = QSI_M_ASSISTANT,            \
               .answer_end = "\2", .calls = QSI_CALLS_FENCED, .gathers = true
#define WORDS_SYSTEM "{% if message['role'] == 'system' %}"

const qsi_chat_template qsi_chat_table[] = {
    /* LLM 7B and 67B, MoE 16B, V2: the authors published no system text for the first two. */
    {.name = "deepseek-llm",
     .pre = "deepseek-llm",
     .system = {"", "\n\n"},
     .user = {"User: ", "\n\n"},
     .marker = "Assistant:",
     .answer_end = "\2",
     .calls = QSI_CALLS_JSON,
     .space = true,
     .jinja = "{{ bos_token }}{% for message in messages %}"
              WORDS_SYSTEM "{{ message['content'] + '\\n\\n' }}"
              "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}"
              "{% elif message['role'] == 'assistant' %}"
              "{{ 'Assistant: ' + message['content'] + eos_token }}"
              "{% endif %}{% endfor %}"
              "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"},
    {.name = "deepseek-coder",
     .pre = "deepseek-coder",
     .end = "<|EOT|>",
     .system = {"", ""},
     .user = {"### Instruction:\n", "\n"},
     .marker = "### Response:\n",
     .answer_end = "\n\2\n",
     .calls = QSI_CALLS_JSON,
     .file_system = true,
     .jinja = "{{ bos_token }}{% for message in messages %}"
              WORDS_SYSTEM "{{ message['content'] }}"
              "{% elif message['role'] == 'user' %}"
              "{{ '### Instruction:\\n' + message['content'] + '\\n' }}"
              "{% elif message['role'] == 'assistant' %}"
              "{{ '### Response:\\n' + message['content'] + '\\n<|EOT|>\\n' }}"
              "{% endif %}{% endfor %}"
              "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"},
    /* V2-Chat and Coder-V2 of June 2024. */
    {.name = "deepseek-v2-0628",
     .system = {"", "\n\n"},
     .user = {QSI_M_USER, ""},
     .marker = QSI_M_ASSISTANT,
     .answer_end = "\2",
     .calls = QSI_CALLS_JSON,
     .jinja = "{{ bos_token }}" J_TURNS J_USER J_ASSISTANT "{{ " J_MARKER J_PLAIN
              "{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}" J_PROMPT},
    {.name = "deepseek-v2.5", TOKENS, .between = "\n",
     .jinja = J_ONE J_TURNS J_USER J_ASSISTANT "{{ " J_MARKER J_PLAIN J_PROMPT},
    {.name = "deepseek-v3", .pre = "deepseek-v3", TOKENS, .between = "\n",
     .jinja = J_GATHER J_TURNS J_USER J_ASSISTANT "{{ " J_MARKER J_PLAIN J_PROMPT},
    {.name = "deepseek-v3-0324", TOKENS, .between = "\n", .opens = QSI_OPENS_WITH_USER,
     .jinja = J_GATHER J_TURNS J_USER_OPENS J_ASSISTANT "{{ " J_PLAIN J_PROMPT_OPENED},
    /* R1: as its files were first, and with the prompt that opens the reasoning. */
    {.name = "deepseek-r1", TOKENS, .between = "", .thinks = QSI_THINKS_ITSELF,
     .jinja = J_GATHER J_TURNS J_USER J_ASSISTANT J_STRIP J_MARKER J_STRIPPED J_PROMPT},
    {.name = "deepseek-r1-open", TOKENS, .between = "", .thinks = QSI_THINKS_OPENED,
     .jinja = J_GATHER J_TURNS J_USER J_ASSISTANT J_STRIP J_MARKER J_STRIPPED J_PROMPT_THINK},
    {.name = "deepseek-r1-0528", TOKENS, .between = "\n", .opens = QSI_OPENS_WITH_USER,
     .thinks = QSI_THINKS_ITSELF,
     .jinja = J_GATHER J_TURNS J_USER_OPENS J_ASSISTANT J_STRIP J_STRIPPED J_PROMPT_OPENED},
    /* Qwen and Llama that learned from R1. Their files keep only the last of several system texts;
     * here none is dropped. */
    {.name = "deepseek-r1-distill", TOKENS, .between = "\n", .thinks = QSI_THINKS_ITSELF,
     .jinja = J_ONE J_TURNS J_USER J_ASSISTANT J_STRIP J_MARKER J_STRIPPED J_PROMPT},
    {.name = "deepseek-r1-distill-open", TOKENS, .between = "\n", .thinks = QSI_THINKS_OPENED,
     .jinja = J_ONE J_TURNS J_USER J_ASSISTANT J_STRIP J_MARKER J_STRIPPED J_PROMPT_THINK},
    {.name = "deepseek-v3.1",
     .system = {"", ""},
     .user = {QSI_M_USER, ""},
     .marker = QSI_M_ASSISTANT,
     .answer_end = "\2",
     .between = "",
     .opens = QSI_OPENS_AFTER_USER,
     .thinks = QSI_THINKS_SWITCHED,
     .calls = QSI_CALLS_PLAIN,
     .gathers = true,
     .jinja = J_GATHER J_TURNS J_USER J_ASSISTANT J_SWITCH_ANSWER J_SWITCH},
    /* V3.2 comes with a program instead of a template. */
    {.name = "deepseek-v3.2",
     .system = {"", ""},
     .user = {QSI_M_USER, ""},
     .marker = QSI_M_ASSISTANT,
     .answer_end = "\2",
     .between = "",
     .opens = QSI_OPENS_WITH_USER,
     .thinks = QSI_THINKS_SWITCHED,
     .calls = QSI_CALLS_DSML,
     .jinja = "{% set calls = '<｜DSML｜function_calls>' %}{{ bos_token }}"
              "{% for message in messages %}" WORDS_SYSTEM "{{ message['content'] }}"
              "{% elif message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] + "
              "'<｜Assistant｜>' }}{% if loop.last and thinking is defined and thinking %}"
              "{{ '<think>' }}{% else %}{{ '</think>' }}{% endif %}"
              "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
              "{% endif %}{% endfor %}"},
};
const size_t qsi_chat_table_n = QSI_COUNT(qsi_chat_table);
