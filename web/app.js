/* The page itself: state, what buttons and keys do, and the flow of an answer. */
(function (Q) {
  'use strict';

  const MAX_FILE = 2e6;
  const $ = (id) => document.getElementById(id);
  const t = Q.strings.text;
  const element = Q.markdown.element;

  let chats = [];           // all chats, the latest first
  let chat = null;          // the one that is shown; not kept before its first message
  let models = [];
  let files = [];           // [{name, text}] that go with the next message
  let running = null;       // {chat, turn, view, abort}: the answer that is coming
  let follow = true;        // the end of the conversation stays in sight

  /* Said by screen readers; never the growing answer itself, which would flood them. */
  Q.announce = function (said) {
    $('status').textContent = '';
    setTimeout(() => { $('status').textContent = said; }, 30);
  };

  function notice(said) { $('notice').textContent = said; }

  /* ---- keeping ---- */

  const channel = 'BroadcastChannel' in window ? new BroadcastChannel('qiusuo') : null;

  async function keep(which) {
    if (!chats.includes(which)) chats.unshift(which);
    try {
      await Q.store.put(which);
      if (channel) channel.postMessage({ id: which.id });
    } catch (e) {
      notice(String(e.message || e));
    }
  }

  function touched(which) {
    which.updated = Date.now();
    chats = [which, ...chats.filter((c) => c !== which)];
    showList();
    return keep(which);
  }

  /* Another tab changed or removed a chat. */
  async function changedElsewhere(id) {
    if (running && running.chat.id === id) return;
    const fresh = await Q.store.get(id), at = chats.findIndex((c) => c.id === id);
    if (at >= 0) chats.splice(at, 1);
    if (fresh) chats.push(fresh);
    chats.sort((a, b) => b.updated - a.updated);
    if (chat && chat.id === id) openChat(fresh || Q.store.newChat(chat.settings));
    showList();
  }

  /* ---- the list of chats ---- */

  function nameOf(which) { return which.title || t('untitled'); }

  function listItem(which) {
    const li = element('li'), open = element('button', 'open', nameOf(which));
    open.type = 'button';
    open.title = nameOf(which);
    open.addEventListener('click', () => { openChat(which); if (narrow()) toggleList(false); });
    if (which === chat) {
      li.className = 'current';
      open.setAttribute('aria-current', 'true');
    }
    const more = Q.view.button('dots', t('more', { name: nameOf(which) }), () => chatMenu(which, more));
    more.setAttribute('aria-haspopup', 'menu');
    li.append(open, more);
    return li;
  }

  function showList() {
    const wanted = $('search').value.trim().toLowerCase();
    const shown = chats.filter((c) => !wanted || nameOf(c).toLowerCase().includes(wanted) ||
      c.turns.some((turn) => turn.text.toLowerCase().includes(wanted)));
    $('chats').replaceChildren(...shown.map(listItem));
    if (!shown.length) {
      const li = element('li');
      li.append(element('p', 'dim', t('no_chats')));
      $('chats').append(li);
    }
    $('export').disabled = $('clear').disabled = !chats.length;
  }

  function closeMenu(back) {
    $('menu').hidden = true;
    if (back && back.isConnected) back.focus();
  }

  function chatMenu(which, anchor) {
    const menu = $('menu'), place = anchor.getBoundingClientRect();
    const entry = (key, act) => {
      const b = element('button', '', t(key));
      b.type = 'button';
      b.setAttribute('role', 'menuitem');
      b.addEventListener('click', () => { closeMenu(anchor); act(which); });
      return b;
    };
    menu.replaceChildren(entry('rename', renameChat), entry('export_one', (c) => exportChats([c])),
      entry('remove', removeChat));
    menu.hidden = false;
    menu.style.left = Math.min(place.left, innerWidth - menu.offsetWidth - 8) + 'px';
    menu.style.top = Math.min(place.bottom + 4, innerHeight - menu.offsetHeight - 8) + 'px';
    menu.onkeydown = (e) => {
      const items = [...menu.children], at = items.indexOf(document.activeElement);
      const step = { ArrowDown: 1, ArrowUp: items.length - 1 }[e.key];
      if (step) { e.preventDefault(); items[(at + step) % items.length].focus(); }
      if (e.key === 'Escape' || e.key === 'Tab') { e.preventDefault(); e.stopPropagation(); closeMenu(anchor); }
    };
    menu.firstChild.focus();
  }

  /* A dialog; resolves to true, or to what was written in its field, or to null when it was left. */
  function ask({ title, text, field, yes, body }) {
    return new Promise((resolve) => {
      const box = $('dialog'), input = element('input');
      $('dialog-title').textContent = title;
      $('dialog-body').replaceChildren();
      if (text) $('dialog-body').append(element('p', '', text));
      if (body) $('dialog-body').append(body);
      if (field) {
        input.type = field.type || 'text';
        input.value = field.value || '';
        input.maxLength = 500;
        input.autocomplete = 'off';
        input.setAttribute('aria-labelledby', 'dialog-title');
        $('dialog-body').append(input);
      }
      $('dialog-yes').textContent = yes;
      $('dialog-no').hidden = Boolean(body);
      box.returnValue = '';
      $('dialog-yes').value = 'yes';
      box.onclose = () => resolve(box.returnValue !== 'yes' ? null : field ? input.value : true);
      box.showModal();
      if (field) input.select();
    });
  }

  async function renameChat(which) {
    const name = await ask({ title: t('rename_title'), field: { value: which.title }, yes: t('save') });
    if (name === null || !name.trim()) return;
    which.title = name.trim().slice(0, 200);
    await keep(which);
    showList();
    showTitle();
  }

  async function removeChat(which) {
    const text = t('remove_text', { name: nameOf(which) });
    if (!await ask({ title: t('remove_title'), text, yes: t('remove') })) return;
    if (running && running.chat === which) stop();
    chats = chats.filter((c) => c !== which);
    await Q.store.remove(which.id);
    if (channel) channel.postMessage({ id: which.id });
    if (chat === which) newChat();
    showList();
    $('ask').focus();
  }

  async function removeAll() {
    const text = t('remove_all_text', { n: chats.length });
    if (!await ask({ title: t('remove_all_title'), text, yes: t('remove') })) return;
    if (running) stop();
    chats = [];
    await Q.store.clear();
    newChat();
  }

  function exportChats(list) {
    const a = element('a');
    const name = list.length === 1 ? nameOf(list[0]).replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 40) : 'all';
    a.href = URL.createObjectURL(new Blob([Q.store.exportText(list)], { type: 'application/json' }));
    a.download = 'qiusuo-' + name + '.json';
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 10000);
  }

  async function importFile(file) {
    try {
      const found = Q.store.importText(await file.text());
      for (const c of found) await keep(c);
      chats.sort((a, b) => b.updated - a.updated);
      showList();
      notice('');
      Q.announce(t('imported', { n: found.length }));
      if (found.length) openChat(found[0]);
    } catch (e) {
      notice(t('import_bad', { why: e.message }));
    }
  }

  function narrow() { return matchMedia('(max-width: 46rem)').matches; }

  function toggleList(open) {
    document.body.classList.toggle('no-list', !open);
    $('open-list').setAttribute('aria-expanded', String(open));
    shade();
    if (!narrow()) Q.store.setting('list', open ? '1' : '0');
  }

  function shade() {
    const list = narrow() && !document.body.classList.contains('no-list');
    const settings = !$('settings').hidden && matchMedia('(max-width: 56rem)').matches;
    $('shade').hidden = !list && !settings;
  }

  /* ---- the conversation ---- */

  function showTitle() { document.title = (chat.title ? chat.title + ' – ' : '') + 'Qiusuo 求索'; }

  function settingsOfLastVisit() {
    try {
      return Q.store.readSettings(JSON.parse(Q.store.setting('settings')));
    } catch {
      return Q.store.newSettings();
    }
  }

  function newChat() {
    openChat(Q.store.newChat({ ...(chat ? chat.settings : settingsOfLastVisit()), system: '' }));
    $('ask').focus();
  }

  function openChat(which) {
    chat = which;
    follow = true;
    notice('');
    showTurns();
    showSettings();
    showList();
    showTitle();
  }

  const act = {
    again: (turn) => answerAgain(turn),
    retry: (turn) => answerAgain(turn),
    edit: (turn) => editTurn(turn),
    version(turn) {
      if (running && running.chat === chat) return;
      Q.store.choose(chat, turn);
      const scroll = $('scroll').scrollTop;
      showTurns();
      follow = false;
      $('scroll').scrollTop = scroll;
      const shown = articleOf(turn).querySelector('.versions button:enabled');
      if (shown) shown.focus();
      keep(chat);
    },
    grown: () => { if (follow) toEnd(); },
  };

  function articleOf(turn) { return $('turns').querySelector('[data-id="' + CSS.escape(turn.id) + '"]'); }

  function versionsOf(turn, below) { return below.get(turn.parent).filter((s) => s.role === turn.role); }

  function turnElement(turn, below) {
    const siblings = versionsOf(turn, below);
    if (turn.role === 'user') return Q.view.userTurn(turn, siblings, act);
    if (running && running.turn === turn) return running.view.element;
    const view = Q.view.assistantTurn(turn, act);
    view.finish(siblings);
    return view.element;
  }

  function showTurns() {
    const below = Q.store.families(chat), turns = Q.store.path(chat, below);
    $('greeting').hidden = turns.length > 0;
    $('turns').replaceChildren(...turns.map((turn) => turnElement(turn, below)));
    if (follow) toEnd();
    showRunning();
  }

  function toEnd() {
    const scroll = $('scroll');
    scroll.scrollTop = scroll.scrollHeight;
    $('to-end').hidden = true;
  }

  function atEnd() {
    const scroll = $('scroll');
    return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  }

  function showRunning() {
    const here = running !== null;
    $('stop').hidden = !here;
    $('send').hidden = here;
    for (const b of $('turns').querySelectorAll('.actions button, .fault button')) {
      b.classList.toggle('busy', here);
      if (!b.title.startsWith(t('copy'))) b.toggleAttribute('aria-disabled', here);
    }
  }

  /* ---- asking ---- */

  /* A fence longer than any in the text, so that a file cannot end its own block. */
  function fenced(file) {
    const longest = (file.text.match(/`{3,}/g) || []).reduce((n, run) => Math.max(n, run.length), 2);
    const fence = '`'.repeat(longest + 1);
    return fence + file.name + '\n' + file.text.replace(/\n?$/, '\n') + fence;
  }

  function contentOf(turn) {
    return [turn.text, ...turn.files.map((f) => t('file_named', { name: f.name }) + '\n' + fenced(f))]
      .filter((part) => part).join('\n\n');
  }

  /* The request for the answer that goes below `parent`. */
  function requestBody(parent) {
    const s = chat.settings, messages = [];
    if (s.system.trim()) messages.push({ role: 'system', content: s.system });
    for (const turn of Q.store.path(chat)) {
      const content = contentOf(turn);
      if (content) messages.push({ role: turn.role, content });
      if (turn.id === parent) break;
    }
    const body = { model: $('model').value, messages, stream: true,
                   stream_options: { include_usage: true } };
    for (const name of Object.keys(Q.store.NUMBERS)) if (s[name] !== null) body[name] = s[name];
    const model = currentModel();
    if (model && model.thinking === 'choice' && s.thinking !== 'auto') {
      body.chat_template_kwargs = { thinking: s.thinking === 'on' };
    }
    return body;
  }

  function listenTo(turn, view, begun) {
    const seen = () => { if (!turn.stats.first) turn.stats.first = (performance.now() - begun) / 1000; };
    return {
      text(more) {
        seen();
        if (!turn.text && turn.reasoning && more.trim()) {
          turn.stats.thought = (performance.now() - begun) / 1000 - turn.stats.first;
          view.fold();
        }
        // Templates leave blanks before an answer.
        turn.text += turn.text ? more.replace(/\r/g, '') : more.trimStart().replace(/\r/g, '');
        view.grow();
      },
      reasoning(more) { seen(); turn.reasoning += more.replace(/\r/g, ''); view.grow(); },
      call(index, name, args) {
        seen();
        while (turn.calls.length <= index) turn.calls.push({ name: '', args: '' });
        turn.calls[index].name += name;
        turn.calls[index].args += args;
        if (name) view.showCalls();
      },
      queued: (place) => view.wait(t('queued', { n: place })),
      reading: (done, of) => view.wait(t('reading', { i: done, n: of })),
    };
  }

  async function runAnswer(turn, body) {
    const view = Q.view.assistantTurn(turn, act), abort = new AbortController();
    const mine = chat, begun = performance.now(), model = currentModel();
    turn.model = body.model;
    turn.stats = {};
    running = { chat: mine, turn, view, abort };
    follow = true;
    showTurns();
    view.begin();
    Q.announce(t('answering'));
    const saving = setInterval(() => keep(mine), 5000);
    let status = 200;
    try {
      const { ended, stats } = await Q.stream.answer(body, abort.signal, listenTo(turn, view, begun));
      Object.assign(turn.stats, stats);
      turn.ended = ended;
    } catch (e) {
      if (abort.signal.aborted) {
        turn.ended = 'stopped';
      } else {
        turn.fault = e.message;
        status = e instanceof Q.stream.Fault ? e.status : 0;
      }
    }
    clearInterval(saving);
    turn.stats.n_ctx = model ? model.n_ctx : 0;
    endAnswer(mine, turn, view);
    if (status === 401) await wantKey(turn, mine);
  }

  function endAnswer(mine, turn, view) {
    running = null;
    view.finish(versionsOf(turn, Q.store.families(mine)));
    if (mine === chat) {
      showRunning();
      if (follow) toEnd();
    }
    const said = turn.ended === 'stopped' ? t('stopped') : t('answered', { n: turn.stats.completion || 0 });
    Q.announce(turn.fault || said);
    if (chats.includes(mine)) touched(mine);
  }

  /* Asks for the key that the server wants; false: none was given. */
  async function askKey() {
    const key = await ask({ title: t('key_title'), text: t('key_text'), field: { type: 'password' }, yes: t('ok') });
    if (!key) return false;
    Q.store.apiKey(key.trim());
    $('key').value = key.trim();
    return true;
  }

  async function wantKey(turn, mine) {
    if (!await askKey()) return;
    await readModels();
    if (mine === chat && !running) answerAgain(turn);
  }

  function stop() { if (running) running.abort.abort(); }

  /* A new answer beside `turn`; one that brought nothing gives up its place. */
  function answerAgain(turn) {
    if (running) return;
    const parent = turn.parent, empty = !turn.text && !turn.reasoning && !turn.calls.length;
    if (empty) Q.store.removeTurn(chat, turn);
    const fresh = Q.store.addTurn(chat, parent, 'assistant');
    runAnswer(fresh, requestBody(parent));
  }

  function sendTurn(parent, text, attached) {
    if (running || (!text.trim() && !attached.length)) return false;
    const turn = Q.store.addTurn(chat, parent, 'user');
    turn.text = text.trim();
    turn.files = attached;
    if (!chat.title) chat.title = (turn.text || attached[0].name).replace(/\s+/g, ' ').slice(0, 60);
    touched(chat);
    showTitle();
    const body = requestBody(turn.id);
    runAnswer(Q.store.addTurn(chat, turn.id, 'assistant'), body);
    return true;
  }

  function send() {
    const turns = Q.store.path(chat), parent = turns.length ? turns[turns.length - 1].id : '';
    if (!sendTurn(parent, $('ask').value, files)) return;
    files = [];
    $('ask').value = '';
    notice('');
    showFiles();
    fitField();
  }

  function editTurn(turn) {
    if (running) return;
    const article = articleOf(turn);
    const back = () => { showTurns(); $('ask').focus(); };
    const box = Q.view.editor(turn, (text) => sendTurn(turn.parent, text, turn.files), back);
    follow = false;
    article.replaceChildren(box.element);
    box.field.focus();
  }

  /* ---- files ---- */

  /* Without control characters, changes of direction and what would end a fence. */
  function cleanName(name) {
    const unwanted = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069`]/g;
    return name.replace(unwanted, '').trim().slice(-120) || 'file';
  }

  async function addFiles(list) {
    const said = [];
    for (const file of list) {
      const name = cleanName(file.name);
      if (file.size > MAX_FILE) { said.push(t('file_large', { name, max: '2 MB' })); continue; }
      try {
        const text = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
        if (text.includes('\u0000')) throw new Error();
        files.push({ name, text: text.replace(/\r\n?/g, '\n') });
      } catch {
        said.push(t('only_text', { name }));
      }
    }
    notice(said.join(' '));
    showFiles();
    $('ask').focus();
  }

  function showFiles() {
    $('files').replaceChildren(...files.map((file) => {
      const li = element('li');
      li.append(Q.view.icon('file'), element('span', '', file.name),
        Q.view.button('close', t('remove_file', { name: file.name }), () => {
          files = files.filter((f) => f !== file);
          showFiles();
          $('ask').focus();
        }));
      return li;
    }));
  }

  function fitField() {
    const field = $('ask');
    field.style.height = 'auto';
    field.style.height = field.scrollHeight + 'px';
  }

  /* ---- models and settings ---- */

  function currentModel() { return models.find((m) => m.id === $('model').value) || null; }

  function showModels() {
    const wanted = $('model').value || Q.store.setting('model');
    $('model').replaceChildren(...(models.length ? models : [{ id: '' }]).map((m) => {
      const option = element('option', '', m.id || t('no_model'));
      option.value = m.id;
      return option;
    }));
    if (models.some((m) => m.id === wanted)) $('model').value = wanted;
    $('thinking-row').hidden = !(currentModel() && currentModel().thinking === 'choice');
  }

  async function readModels() {
    try {
      models = await Q.stream.models();
      notice('');
    } catch (e) {
      if (e.status === 401 && !$('dialog').open && await askKey()) return readModels();
      notice(t('models_failed', { why: e.message }));
    }
    showModels();
  }

  function numberRow(name) {
    const rule = Q.store.NUMBERS[name], label = element('label', '', t(name)), input = element('input');
    const bad = element('p', 'bad');
    input.id = 'number-' + name;
    label.htmlFor = input.id;
    input.inputMode = rule.step === 1 ? 'numeric' : 'decimal';
    input.autocomplete = 'off';
    input.placeholder = t('by_default');
    input.value = chat.settings[name] === null ? '' : String(chat.settings[name]);
    bad.id = 'bad-' + name;
    bad.hidden = true;
    input.setAttribute('aria-describedby', bad.id);
    input.addEventListener('input', () => {
      const value = Q.store.readNumber(name, input.value), wrong = Number.isNaN(value);
      input.setAttribute('aria-invalid', String(wrong));
      bad.hidden = !wrong;
      bad.textContent = wrong ? t('bad_number', { lo: rule.lo, hi: rule.hi }) : '';
      if (!wrong) { chat.settings[name] = value; keepSettings(); }
    });
    return [label, input, bad];
  }

  function showSettings() {
    $('system').value = chat.settings.system;
    $('thinking').value = chat.settings.thinking;
    $('key').value = Q.store.apiKey();
    $('numbers').replaceChildren(...Object.keys(Q.store.NUMBERS).flatMap(numberRow));
  }

  /* New chats begin with what was set last, but for the system prompt, which belongs to its chat. */
  function keepSettings() {
    Q.store.setting('settings', JSON.stringify({ ...chat.settings, system: '' }));
    if (chats.includes(chat)) keep(chat);
  }

  function toggleSettings(open) {
    $('settings').hidden = !open;
    $('open-settings').setAttribute('aria-expanded', String(open));
    shade();
    if (open) $('system').focus();
    else $('open-settings').focus();
  }

  /* ---- language, theme, help ---- */

  function setTheme(theme) { document.documentElement.dataset.theme = theme; }

  function systemTheme() { return matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'; }

  function switchTheme() {
    const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
    setTheme(next);
    Q.store.setting('theme', next);
  }

  function setLanguage(tag) {
    Q.strings.choose(tag);
    Q.strings.apply(document);
    $('language').lang = Q.strings.language() === 'zh' ? 'en' : 'zh-CN';
  }

  function switchLanguage() {
    const next = Q.strings.language() === 'zh' ? 'en' : 'zh';
    setLanguage(next);
    Q.store.setting('language', next);
    showModels();
    openChat(chat);
    showFiles();
  }

  const SHORTCUTS = [['Enter', 'shortcut_send'], ['Shift+Enter', 'shortcut_line'], ['Esc', 'shortcut_stop'],
    ['Alt+N', 'shortcut_new'], ['Alt+L', 'shortcut_list'], ['Alt+S', 'shortcut_settings'], ['/', 'shortcut_focus'],
    ['Alt+E', 'shortcut_edit'], ['Alt+R', 'shortcut_again'], ['?', 'shortcut_help']];

  function showHelp() {
    const body = element('dl');
    for (const [keys, key] of SHORTCUTS) {
      const dt = element('dt');
      dt.append(element('kbd', '', keys));
      body.append(dt, element('dd', '', t(key)));
    }
    ask({ title: t('help'), body, yes: t('close') });
  }

  function lastTurn(role) { return Q.store.path(chat).filter((turn) => turn.role === role).pop(); }

  const ALT = {
    KeyN: () => newChat(),
    KeyL: () => toggleList(document.body.classList.contains('no-list')),
    KeyS: () => toggleSettings($('settings').hidden),
    KeyE: () => { const turn = lastTurn('user'); if (turn) editTurn(turn); },
    KeyR: () => { const turn = lastTurn('assistant'); if (turn) answerAgain(turn); },
  };

  function escape() {
    if (!$('menu').hidden) closeMenu();
    else if (running) stop();
    else if (!$('settings').hidden) toggleSettings(false);
    else if (narrow() && !document.body.classList.contains('no-list')) {
      toggleList(false);
      $('open-list').focus();
    }
  }

  function onKey(e) {
    if ($('dialog').open || e.isComposing) return;
    const writing = /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName);
    if (e.key === 'Escape') return escape();
    if (e.altKey && !e.ctrlKey && !e.metaKey && Object.hasOwn(ALT, e.code)) {
      e.preventDefault();
      ALT[e.code]();
    } else if (!writing && !e.altKey && !e.ctrlKey && !e.metaKey && e.key === '/') {
      e.preventDefault();
      $('ask').focus();
    } else if (!writing && e.key === '?') {
      e.preventDefault();
      showHelp();
    }
  }

  /* Enter sends, but not the Enter that ends the input of Chinese characters. */
  function onAskKey(e) {
    if (e.key !== 'Enter' || e.shiftKey || e.isComposing || e.keyCode === 229) return;
    e.preventDefault();
    send();
  }

  /* ---- start ---- */

  function click(id, what) { $(id).addEventListener('click', what); }

  function listenToSettings() {
    const field = (id, event, name) => $(id).addEventListener(event, () => {
      chat.settings[name] = $(id).value;
      keepSettings();
    });
    field('system', 'input', 'system');
    field('thinking', 'change', 'thinking');
    $('model').addEventListener('change', () => { Q.store.setting('model', $('model').value); showModels(); });
    $('key').addEventListener('change', () => { Q.store.apiKey($('key').value.trim()); readModels(); });
    click('reset', () => {
      chat.settings = { ...Q.store.newSettings(), system: chat.settings.system };
      showSettings();
      keepSettings();
    });
  }

  function listenToFiles() {
    click('attach', () => $('file').click());
    $('file').addEventListener('change', async () => {
      await addFiles([...$('file').files]);
      $('file').value = '';
    });
    click('import', () => $('import-file').click());
    $('import-file').addEventListener('change', async () => {
      if ($('import-file').files[0]) await importFile($('import-file').files[0]);
      $('import-file').value = '';
    });
    const carries = (e) => e.dataTransfer && [...e.dataTransfer.types].includes('Files');
    addEventListener('dragover', (e) => { if (carries(e)) { e.preventDefault(); $('drop').hidden = false; } });
    addEventListener('dragleave', (e) => { if (!e.relatedTarget) $('drop').hidden = true; });
    addEventListener('drop', (e) => {
      if (!carries(e)) return;
      e.preventDefault();
      $('drop').hidden = true;
      addFiles([...e.dataTransfer.files]);
    });
    $('ask').addEventListener('paste', (e) => {
      if (e.clipboardData.files.length) { e.preventDefault(); addFiles([...e.clipboardData.files]); }
    });
  }

  function listen() {
    click('new', () => { newChat(); if (narrow()) toggleList(false); });
    click('open-list', () => {
      toggleList(document.body.classList.contains('no-list'));
      if (narrow()) $('new').focus();
    });
    click('close-list', () => { toggleList(false); $('open-list').focus(); });
    click('shade', () => { if ($('settings').hidden) toggleList(false); else toggleSettings(false); });
    click('export', () => exportChats(chats));
    click('clear', removeAll);
    click('language', switchLanguage);
    click('theme', switchTheme);
    click('help', showHelp);
    click('open-settings', () => toggleSettings($('settings').hidden));
    click('close-settings', () => toggleSettings(false));
    click('stop', () => { stop(); $('ask').focus(); });
    click('to-end', () => { follow = true; toEnd(); });
    click('dialog-no', () => $('dialog').close());
    $('search').addEventListener('input', showList);
    $('composer').addEventListener('submit', (e) => { e.preventDefault(); send(); });
    $('ask').addEventListener('keydown', onAskKey);
    $('ask').addEventListener('input', fitField);
    $('scroll').addEventListener('scroll', () => {
      follow = atEnd();
      $('to-end').hidden = follow;
    }, { passive: true });
    addEventListener('keydown', onKey);
    addEventListener('pointerdown', (e) => { if (!$('menu').hidden && !$('menu').contains(e.target)) closeMenu(); });
    addEventListener('resize', shade);
    matchMedia('(max-width: 46rem)').addEventListener('change', (e) => toggleList(!e.matches));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      if (!Q.store.setting('theme')) setTheme(systemTheme());
    });
    if (channel) channel.onmessage = (e) => changedElsewhere(String(e.data.id));
    addEventListener('pagehide', () => { if (running) keep(running.chat); });
    listenToSettings();
    listenToFiles();
  }

  async function start() {
    const theme = Q.store.setting('theme');
    setTheme(theme === 'dark' || theme === 'light' ? theme : systemTheme());
    setLanguage(Q.store.setting('language') || navigator.language);
    document.body.classList.toggle('no-list', narrow() || Q.store.setting('list') === '0');
    $('open-list').setAttribute('aria-expanded', String(!document.body.classList.contains('no-list')));
    listen();
    const kept = await Q.store.open();
    if (!kept) $('kept').dataset.t = 'not_kept';
    Q.strings.apply($('list'));
    chats = (await Q.store.all()).sort((a, b) => b.updated - a.updated);
    newChat();
    document.body.dataset.ready = 'yes';
    await readModels();
  }

  start();
})(Qiusuo);
