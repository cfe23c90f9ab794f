#!/usr/bin/env python3
"""The official clients of OpenAI, Anthropic and Ollama against `qiusuo serve`: what they send is understood,
and what comes back is what they expect, streamed and whole.

usage: test_clients.py PROGRAM MODEL     with a Python that has openai, anthropic and ollama
"""
import json
import re
import subprocess
import sys

import anthropic
import ollama
import openai

POEM = [{"role": "user", "content": "写一首五绝，题为《春雨》"}]
TOOL = {"type": "object", "properties": {"city": {"enum": ["北京", "上海"]}}, "required": ["city"],
        "additionalProperties": False}


def start(program, model):
    p = subprocess.Popen([program, "serve", model, "--port", "0", "--access-log", "off"],
                         stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for line in p.stderr:
        m = re.search(r"API: (http://[^/]+)", line)
        if m:
            return p, m.group(1)
    raise SystemExit("the server did not start")


def refused(kind, f):
    try:
        f()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was expected")


def chat(c):
    ask = {"model": "", "messages": POEM, "seed": 1, "max_tokens": 60}
    r = c.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
    text = r.choices[0].message.content
    assert b"".join(bytes(t.bytes) for t in r.choices[0].logprobs.content).decode() == text
    s = list(c.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(x.choices[0].delta.content or "" for x in s if x.choices) == text
    assert s[-1].usage.completion_tokens == r.usage.completion_tokens
    tool = {"type": "function", "function": {"name": "weather", "parameters": TOOL}}
    r = c.chat.completions.create(**ask, tools=[tool], tool_choice="required")
    call = r.choices[0].message.tool_calls[0].function
    assert call.name == "weather" and json.loads(call.arguments)["city"] in ["北京", "上海"]
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": TOOL}}
    assert "city" in json.loads(c.chat.completions.create(**ask, response_format=form)
                                .choices[0].message.content)
    refused(openai.BadRequestError, lambda: c.chat.completions.create(**ask, temperature=3))
    refused(openai.BadRequestError, lambda: c.chat.completions.create(model="", messages=[]))
    refused(openai.NotFoundError, lambda: c.chat.completions.create(model="gpt-9", messages=POEM))


def others(c):
    p = c.completions.create(model="", prompt=["春眠", "明月"], max_tokens=5, echo=True, logprobs=3)
    assert p.choices[1].text.startswith("明月") and p.choices[0].logprobs.token_logprobs[0] is None
    e = c.embeddings.create(model="", input=["春", "秋"])
    assert abs(sum(x * x for x in e.data[0].embedding) - 1) < 1e-5
    r = c.responses.create(model="", input="写一首五绝，题为《春雨》", instructions="诗")
    assert r.output_text and r.status == "completed"
    with c.responses.stream(model="", input="写一首五绝，题为《春雨》") as s:
        text = "".join(x.delta for x in s if x.type == "response.output_text.delta")
        assert s.get_final_response().output_text == text


def messages(c, model):
    ask = {"model": model, "max_tokens": 60, "messages": POEM}
    m = c.messages.create(**ask, system="诗")
    assert m.content[0].text and m.stop_reason == "end_turn" and m.usage.output_tokens > 0
    with c.messages.stream(**ask) as s:
        text = "".join(s.text_stream)
        assert s.get_final_message().content[0].text == text
    tools = [{"name": "weather", "input_schema": TOOL}]
    m = c.messages.create(**ask, tools=tools, tool_choice={"type": "tool", "name": "weather"})
    assert m.stop_reason == "tool_use" and m.content[-1].input["city"] in ["北京", "上海"]
    assert c.messages.count_tokens(model=model, messages=POEM).input_tokens > 5
    refused(anthropic.NotFoundError, lambda: c.messages.create(**{**ask, "model": "claude"}))


def ollama_api(c, model):
    few = {"num_predict": 10}
    assert c.chat(model=model, messages=POEM, options=few).message.content
    parts = list(c.chat(model=model, messages=POEM, stream=True, options=few))
    assert parts[-1].done and "".join(x.message.content for x in parts)
    assert c.generate(model=model, prompt="春眠", raw=True, options=few).response
    assert c.list().models[0].model == model


def main(program, model_file):
    p, url = start(program, model_file)
    try:
        c = openai.OpenAI(base_url=url + "/v1", api_key="any", max_retries=0)
        model = c.models.list().data[0].id
        chat(c)
        others(c)
        messages(anthropic.Anthropic(base_url=url, api_key="any", max_retries=0), model)
        ollama_api(ollama.Client(host=url), model)
    finally:
        p.terminate()
        p.wait(30)
    print("the clients agree")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
