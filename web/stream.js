/* The server's API: the list of models, and answers that arrive as server-sent events. */
(function (Q) {
  'use strict';

  /* An answer that did not come: the server's own words, and the status (0: no connection). */
  class Fault extends Error {
    constructor(message, status) { super(message); this.status = status; }
  }

  function headers() {
    const out = { 'Content-Type': 'application/json' }, key = Q.store.apiKey();
    // A header holds no other characters; a key with some would not even be sent.
    if (/^[\x21-\x7e]+$/.test(key)) out.Authorization = 'Bearer ' + key;
    return out;
  }

  function errorText(raw) {
    const error = raw && raw.error;
    if (typeof error === 'string') return error;
    return error && typeof error.message === 'string' ? error.message : '';
  }

  async function call(path, options) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: headers(), cache: 'no-store', credentials: 'same-origin' });
    } catch (e) {
      if (e.name === 'AbortError') throw e;
      throw new Fault(Q.strings.text('unreachable'), 0);
    }
    if (response.ok) return response;
    let said = '';
    try {
      const body = await response.text();
      try { said = errorText(JSON.parse(body)); } catch { said = body.slice(0, 500); }
    } catch { /* the status says enough */ }
    throw new Fault(said || Q.strings.text('status', { n: response.status }), response.status);
  }

  /* [{id, n_ctx, thinking}] */
  async function models() {
    const raw = await (await call('/v1/models', {})).json();
    const list = raw && Array.isArray(raw.data) ? raw.data : [];
    return list.filter((m) => m && typeof m.id === 'string').map((m) => {
      const meta = m.meta && typeof m.meta === 'object' ? m.meta : {};
      return { id: m.id, n_ctx: Number(meta.n_ctx) || 0, thinking: meta.thinking };
    });
  }

  /* Cuts bytes into events: feed(text) calls on.data(text) for each event's data, on.comment(text) for
   * each comment. Line ends may be \n, \r\n or \r, and may be cut anywhere. */
  function events(on) {
    let rest = '', data = [];
    function line(text) {
      if (text === '') {
        if (data.length) on.data(data.join('\n'));
        data = [];
      } else if (text[0] === ':') {
        on.comment(text.slice(1).trim());
      } else if (text.startsWith('data:')) {
        data.push(text.slice(text[5] === ' ' ? 6 : 5));
      }
    }
    return {
      feed(text) {
        rest += text;
        let from = 0;
        const ends = /\r\n|\n|\r(?!$)/g;
        for (let m = ends.exec(rest); m; m = ends.exec(rest)) {
          line(rest.slice(from, m.index));
          from = ends.lastIndex;
        }
        rest = rest.slice(from);
      },
      end() {
        line(rest.replace(/\r$/, ''));
        line('');
      },
    };
  }

  function number(value) { return typeof value === 'number' && Number.isFinite(value) ? value : 0; }

  /* Usage and timings of the last chunks, in the form that turns keep. */
  function readStats(chunk, stats) {
    const usage = chunk.usage, timings = chunk.timings;
    if (usage && typeof usage === 'object') {
      stats.completion = number(usage.completion_tokens);
      stats.prompt = number(usage.prompt_tokens);
      stats.cached = number(usage.prompt_tokens_details && usage.prompt_tokens_details.cached_tokens);
    }
    if (timings && typeof timings === 'object') stats.speed = number(timings.predicted_per_second);
  }

  function readCalls(list, on) {
    for (const c of Array.isArray(list) ? list : []) {
      if (!c || typeof c !== 'object') continue;
      const f = c.function && typeof c.function === 'object' ? c.function : {};
      on.call(Math.min(99, Math.max(0, Math.trunc(number(c.index)))), typeof f.name === 'string' ? f.name : '',
              typeof f.arguments === 'string' ? f.arguments : '');
    }
  }

  /* One chunk of an answer; fields that are not known are passed over. */
  function readChunk(chunk, on, state) {
    if (chunk === null || typeof chunk !== 'object') throw new Fault(Q.strings.text('strange'), 0);
    if (chunk.error) throw new Fault(errorText(chunk) || Q.strings.text('strange'), number(chunk.error.code));
    readStats(chunk, state.stats);
    const choice = Array.isArray(chunk.choices) ? chunk.choices[0] : null;
    if (!choice) return;
    const delta = choice.delta && typeof choice.delta === 'object' ? choice.delta : {};
    if (typeof delta.reasoning_content === 'string' && delta.reasoning_content) on.reasoning(delta.reasoning_content);
    if (typeof delta.content === 'string' && delta.content) on.text(delta.content);
    readCalls(delta.tool_calls, on);
    if (typeof choice.finish_reason === 'string') state.ended = choice.finish_reason;
  }

  function readComment(text, on) {
    const queue = /^queue (\d+)$/.exec(text), prompt = /^prompt (\d+)\/(\d+)$/.exec(text);
    if (queue) on.queued(Number(queue[1]));
    else if (prompt) on.reading(Number(prompt[1]), Number(prompt[2]));
  }

  /* Asks for an answer. on: text(s), reasoning(s), call(index, name, arguments), queued(place),
   * reading(done, of). Resolves to {ended, stats}; rejects with a Fault, or an AbortError after
   * signal. A stream that ends without its end mark is a lost connection. */
  async function answer(body, signal, on) {
    const response = await call('/v1/chat/completions', { method: 'POST', body: JSON.stringify(body), signal });
    const state = { ended: '', stats: {}, done: false }, decoder = new TextDecoder();
    const cut = events({
      comment: (text) => readComment(text, on),
      data(text) {
        if (text === '[DONE]') { state.done = true; return; }
        let chunk;
        try { chunk = JSON.parse(text); } catch { throw new Fault(Q.strings.text('strange'), 0); }
        readChunk(chunk, on, state);
      },
    });
    const reader = response.body.getReader();
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        cut.feed(decoder.decode(value, { stream: true }));
      }
      cut.end();
    } catch (e) {
      reader.cancel().catch(() => {});
      if (e.name === 'AbortError' || e instanceof Fault) throw e;
      throw new Fault(Q.strings.text('lost'), 0);
    }
    if (!state.done && !state.ended) throw new Fault(Q.strings.text('lost'), 0);
    return { ended: state.ended, stats: state.stats };
  }

  Q.stream = { Fault, models, answer, events };
})(Qiusuo);
