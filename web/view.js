/* Turns of a conversation as elements. Knows nothing of the network: actions are passed in. */
(function (Q) {
  'use strict';

  const element = Q.markdown.element;
  const t = Q.strings.text;

  function icon(name) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
    svg.setAttribute('aria-hidden', 'true');
    svg.setAttribute('class', 'icon');
    use.setAttribute('href', '#icon-' + name);
    svg.append(use);
    return svg;
  }

  function button(iconName, label, act) {
    const b = element('button', 'quiet');
    b.type = 'button';
    b.title = label;
    b.setAttribute('aria-label', label);
    b.append(icon(iconName));
    b.addEventListener('click', act);
    return b;
  }

  function attachment(file) {
    const box = element('details', 'file'), name = element('summary', '', file.name);
    const lines = file.text.split('\n').length;
    name.append(' ', element('span', 'dim', t('lines', { n: lines })));
    box.append(name);
    box.addEventListener('toggle', () => {
      if (!box.open || box.querySelector('pre')) return;
      const pre = element('pre', '', file.text);
      pre.tabIndex = 0;
      box.append(pre);
    });
    return box;
  }

  /* "2/3" between two arrows, where a turn has other versions. */
  function switcher(turn, siblings, act) {
    const at = siblings.indexOf(turn), box = element('span', 'versions');
    const older = button('left', t('older'), () => act.version(siblings[at - 1]));
    const newer = button('right', t('newer'), () => act.version(siblings[at + 1]));
    older.disabled = at === 0;
    newer.disabled = at === siblings.length - 1;
    const place = element('span', 'place', (at + 1) + '/' + siblings.length);
    place.setAttribute('aria-label', t('version', { i: at + 1, n: siblings.length }));
    place.setAttribute('role', 'img');
    box.append(older, place, newer);
    return box;
  }

  function copyIcon(get) {
    const b = button('copy', t('copy'), async () => {
      const said = t(await Q.code.copy(get()) ? 'copied' : 'copy_failed');
      b.title = said;
      b.classList.add('done');
      b.replaceChildren(icon('check'));
      Q.announce(said);
      setTimeout(() => { b.replaceChildren(icon('copy')); b.title = t('copy'); b.classList.remove('done'); }, 1500);
    });
    return b;
  }

  function actions(turn, siblings, act) {
    const bar = element('div', 'actions');
    if (siblings.length > 1) bar.append(switcher(turn, siblings, act));
    if (turn.text) bar.append(copyIcon(() => turn.text));
    if (turn.role === 'user') bar.append(button('edit', t('edit'), () => act.edit(turn)));
    else bar.append(button('again', t('regenerate'), () => act.again(turn)));
    return bar;
  }

  function userTurn(turn, siblings, act) {
    const article = element('article', 'turn user');
    article.dataset.id = turn.id;
    article.setAttribute('aria-label', t('you'));
    const bubble = element('div', 'bubble');
    // What a person wrote is shown as it was written.
    if (turn.text) bubble.append(element('div', 'said', turn.text));
    for (const file of turn.files) bubble.append(attachment(file));
    article.append(bubble, actions(turn, siblings, act));
    return article;
  }

  /* The field that takes a user turn's place while it is edited. */
  function editor(turn, send, cancel) {
    const box = element('form', 'editor'), field = element('textarea');
    field.value = turn.text;
    field.rows = Math.min(12, turn.text.split('\n').length + 1);
    field.setAttribute('aria-label', t('edit_message'));
    const no = element('button', 'plain', t('cancel')), yes = element('button', 'main', t('send_edit'));
    no.type = 'button';
    no.addEventListener('click', cancel);
    box.addEventListener('submit', (e) => { e.preventDefault(); send(field.value); });
    field.addEventListener('keydown', (e) => {
      if (e.key === 'Escape') { e.preventDefault(); e.stopPropagation(); cancel(); }
      if (e.key === 'Enter' && !e.shiftKey && !e.isComposing && e.keyCode !== 229) {
        e.preventDefault();
        send(field.value);
      }
    });
    const row = element('div', 'row');
    row.append(no, yes);
    box.append(field, row);
    return { element: box, field };
  }

  function statsLine(turn) {
    const s = turn.stats, parts = [];
    if (turn.model) parts.push(turn.model);
    if (s) {
      if (s.completion) parts.push(t('tokens', { n: s.completion }));
      if (s.speed) parts.push(t('speed', { n: s.speed.toFixed(1) }));
      if (s.first) parts.push(t('first', { t: s.first.toFixed(s.first < 10 ? 2 : 1) }));
      if (s.prompt) parts.push(t('prompt', { n: s.prompt }) + (s.cached ? ' (' + t('cached', { n: s.cached }) + ')' : ''));
      if (s.n_ctx && s.prompt) parts.push(t('context', { i: s.prompt + s.completion, n: s.n_ctx }));
    }
    const line = element('div', 'stats');
    for (const part of parts) line.append(element('span', '', part));
    return line;
  }

  function pretty(json) {
    try { return JSON.stringify(JSON.parse(json), null, 2); } catch { return json; }
  }

  function callBox(call) {
    const box = element('details', 'call');
    box.append(element('summary', '', t('call', { name: call.name })));
    const pre = element('pre', '', pretty(call.args));
    pre.tabIndex = 0;
    box.append(pre);
    return box;
  }

  function ending(turn) {
    const key = { stopped: 'stopped', length: 'cut', content_filter: 'filtered' }[turn.ended];
    return key ? element('div', 'ending', t(key)) : null;
  }

  function faultBox(turn, act) {
    const box = element('div', 'fault'), again = element('button', 'plain', t('retry'));
    box.append(element('p', '', turn.fault), again);
    again.type = 'button';
    again.addEventListener('click', () => act.retry(turn));
    return box;
  }

  /* An answer: {element, grow(done), wait(text), finish(siblings)}. grow() shows what has come into the
   * turn since, at most once a frame and with an eighth of the time at most, so that a long answer never
   * makes the page slow. */
  function assistantTurn(turn, act) {
    const article = element('article', 'turn assistant');
    article.dataset.id = turn.id;
    article.setAttribute('aria-label', t('assistant'));
    const waiting = element('div', 'waiting'), thought = element('details', 'thought');
    const summary = element('summary', '', t('thinking')), thoughts = element('div', 'md');
    const body = element('div', 'md answer'), calls = element('div', 'calls'), foot = element('div', 'foot');
    thought.append(summary, thoughts);
    thought.hidden = true;
    article.append(thought, waiting, body, calls, foot);
    const grown = Q.markdown.stream(body), thinking = Q.markdown.stream(thoughts);
    let shownReasoning = 0, due = 0, timer = 0;

    function render(done) {
      const start = performance.now();
      if (turn.reasoning) {
        thought.hidden = false;
        if (turn.reasoning.length !== shownReasoning || done) thinking.update(turn.reasoning, done);
        shownReasoning = turn.reasoning.length;
        if (turn.text) {
          const took = turn.stats && turn.stats.thought;
          summary.textContent = took ? t('thought_for', { t: took.toFixed(1) }) : t('thought');
        }
      }
      if (turn.text || turn.reasoning) waiting.hidden = true;
      grown.update(turn.text, done);
      due = performance.now() + 8 * (performance.now() - start);
    }

    function grow() {
      if (timer) return;
      timer = setTimeout(() => requestAnimationFrame(() => {
        timer = 0;
        if (!article.classList.contains('complete')) { render(false); act.grown(); }
      }), Math.max(0, due - performance.now()));
    }

    function finish(siblings) {
      article.classList.add('complete');
      article.removeAttribute('aria-busy');
      waiting.remove();
      render(true);
      if (turn.reasoning && !turn.text) summary.textContent = t('thought');
      calls.replaceChildren(...turn.calls.map(callBox));
      const end = ending(turn);
      foot.replaceChildren();
      if (end) foot.append(end);
      if (turn.fault) foot.append(faultBox(turn, act));
      const line = element('div', 'line');
      line.append(actions(turn, siblings, act), statsLine(turn));
      foot.append(line);
    }

    function begin() {
      article.setAttribute('aria-busy', 'true');
      thought.open = true;
      wait(t('waiting'));
    }

    function wait(text) {
      waiting.replaceChildren(element('span', 'pulse'), element('span', '', text));
    }

    return { element: article, grow, wait, begin, finish, fold: () => { thought.open = false; },
             showCalls: () => calls.replaceChildren(...turn.calls.map(callBox)) };
  }

  Q.view = { icon, button, userTurn, assistantTurn, editor, attachment };
})(Qiusuo);
