/* Chats: their form, what may be imported, and where they are kept (IndexedDB of this browser).
 *
 * A chat is a tree of turns, so that earlier versions stay reachable: every turn names its parent, and
 * `pick` names the child that is shown. The root's pick is the chat's own. */
(function (Q) {
  'use strict';

  const MAX_CHATS = 5000, MAX_TURNS = 20000, MAX_TEXT = 20e6, MAX_NAME = 200;

  function newId() {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
  }

  /* Numbers of the sampling panel: range and step. */
  const NUMBERS = {
    temperature: { lo: 0, hi: 2, step: 0.05 },
    top_p: { lo: 0, hi: 1, step: 0.01 },
    top_k: { lo: 0, hi: 100000, step: 1 },
    min_p: { lo: 0, hi: 1, step: 0.01 },
    max_tokens: { lo: 1, hi: 10000000, step: 1 },
    seed: { lo: 0, hi: 4294967295, step: 1 },
  };

  function newSettings() {
    return { system: '', thinking: 'auto', temperature: null, top_p: null, top_k: null, min_p: null,
             max_tokens: null, seed: null };
  }

  /* A number of the panel from what somebody wrote; null: left to the model; NaN: not allowed. */
  function readNumber(name, text) {
    const rule = NUMBERS[name], value = Number(text);
    if (String(text).trim() === '') return null;
    if (!Number.isFinite(value) || value < rule.lo || value > rule.hi) return NaN;
    return rule.step === 1 && !Number.isInteger(value) ? NaN : value;
  }

  function newChat(settings) {
    const now = Date.now();
    return { id: newId(), title: '', created: now, updated: now, settings: { ...settings }, pick: '', turns: [] };
  }

  function newTurn(parent, role) {
    return { id: newId(), parent, role, text: '', reasoning: '', calls: [], files: [], pick: '', model: '',
             fault: '', ended: '', stats: null };
  }

  /* ---- the tree ---- */

  function find(chat, id) { return chat.turns.find((t) => t.id === id) || null; }

  /* Turns by their parent's id, in the order in which they were made: Map of id -> [turn]. */
  function families(chat) {
    const below = new Map();
    for (const turn of chat.turns) {
      if (!below.has(turn.parent)) below.set(turn.parent, []);
      below.get(turn.parent).push(turn);
    }
    return below;
  }

  /* The turns that are shown, from the first to the last. */
  function path(chat, below = families(chat)) {
    const out = [], seen = new Set();
    for (let parent = '', pick = chat.pick; below.has(parent) && !seen.has(parent);) {
      seen.add(parent);
      const list = below.get(parent), turn = list.find((t) => t.id === pick) || list[list.length - 1];
      out.push(turn);
      parent = turn.id;
      pick = turn.pick;
    }
    return out;
  }

  function choose(chat, turn) {
    if (turn.parent) find(chat, turn.parent).pick = turn.id;
    else chat.pick = turn.id;
  }

  /* Adds a turn below `parent` ('' for the first) and shows it. */
  function addTurn(chat, parent, role) {
    const turn = newTurn(parent, role);
    chat.turns.push(turn);
    choose(chat, turn);
    return turn;
  }

  function removeTurn(chat, turn) {
    chat.turns = chat.turns.filter((t) => t !== turn);
  }

  /* ---- import ---- */

  function string(value, most) { return typeof value === 'string' ? value.slice(0, most) : ''; }

  function count(value) { return Number.isFinite(value) && value >= 0 ? value : 0; }

  function list(value, most) { return Array.isArray(value) ? value.slice(0, most) : []; }

  function own(value, name) {
    return value !== null && typeof value === 'object' && Object.hasOwn(value, name) ? value[name] : undefined;
  }

  function readSettings(raw) {
    const out = newSettings();
    out.system = string(own(raw, 'system'), MAX_TEXT);
    const thinking = own(raw, 'thinking');
    if (['auto', 'on', 'off'].includes(thinking)) out.thinking = thinking;
    for (const name of Object.keys(NUMBERS)) {
      const value = own(raw, name);
      if (typeof value === 'number' && !Number.isNaN(readNumber(name, value))) out[name] = value;
    }
    return out;
  }

  function readStats(raw) {
    if (raw === null || typeof raw !== 'object') return null;
    const out = {};
    const names = ['completion', 'prompt', 'cached', 'speed', 'first', 'thought', 'n_ctx'];
    for (const name of names) out[name] = count(own(raw, name));
    return out;
  }

  function readTurn(raw, ids) {
    const role = own(raw, 'role') === 'assistant' ? 'assistant' : 'user';
    const turn = newTurn(ids.get(own(raw, 'parent')) || '', role);
    turn.id = ids.get(own(raw, 'id'));
    for (const name of ['text', 'reasoning', 'fault']) turn[name] = string(own(raw, name), MAX_TEXT);
    turn.pick = ids.get(own(raw, 'pick')) || '';
    turn.model = string(own(raw, 'model'), MAX_NAME);
    turn.ended = string(own(raw, 'ended'), 40);
    turn.stats = readStats(own(raw, 'stats'));
    turn.files = list(own(raw, 'files'), 100).map((f) => ({
      name: string(own(f, 'name'), MAX_NAME), text: string(own(f, 'text'), MAX_TEXT) }));
    turn.calls = list(own(raw, 'calls'), 100).map((c) => ({
      name: string(own(c, 'name'), MAX_NAME), args: string(own(c, 'args'), MAX_TEXT) }));
    return turn;
  }

  /* A chat made anew from foreign JSON: known fields of the right type are copied, ids are given afresh, a
   * parent that does not come earlier is none. Nothing of the foreign object itself is kept. */
  function readChat(raw) {
    const chat = newChat(readSettings(own(raw, 'settings')));
    chat.title = string(own(raw, 'title'), MAX_NAME);
    chat.created = count(own(raw, 'created')) || chat.created;
    chat.updated = count(own(raw, 'updated')) || chat.created;
    const ids = new Map();
    const all = list(own(raw, 'turns'), MAX_TURNS).filter((t) => typeof own(t, 'id') === 'string');
    for (const t of all) if (!ids.has(t.id)) ids.set(t.id, newId());
    const known = new Set();
    for (const t of all) {
      const turn = readTurn(t, ids);
      if (known.has(turn.id)) continue;
      if (!known.has(turn.parent)) turn.parent = '';
      known.add(turn.id);
      chat.turns.push(turn);
    }
    chat.pick = ids.get(own(raw, 'pick')) || '';
    return chat;
  }

  /* The chats in an exported file; throws an Error that says what is wrong. */
  function importText(text) {
    const raw = JSON.parse(text);
    const chats = Array.isArray(raw) ? raw : own(raw, 'chats');
    if (!Array.isArray(chats) || (!Array.isArray(raw) && own(raw, 'format') !== 'qiusuo-chats')) {
      throw new Error('"format": "qiusuo-chats"');
    }
    return chats.slice(0, MAX_CHATS).map(readChat);
  }

  function exportText(chats) {
    return JSON.stringify({ format: 'qiusuo-chats', version: 1, chats }, null, 1);
  }

  /* ---- keeping ---- */

  let base = null;

  function request(r) {
    return new Promise((resolve, reject) => {
      r.onsuccess = () => resolve(r.result);
      r.onerror = () => reject(r.error);
    });
  }

  /* Opens the browser's store; false when there is none: chats then live in memory. */
  async function open() {
    try {
      const opening = indexedDB.open('qiusuo', 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore('chats', { keyPath: 'id' });
      base = await request(opening);
      return true;
    } catch {
      return false;
    }
  }

  function chats(mode) { return base.transaction('chats', mode).objectStore('chats'); }

  async function all() { return base ? request(chats('readonly').getAll()) : []; }
  async function get(id) { return base ? request(chats('readonly').get(id)) : undefined; }
  async function put(chat) { if (base) await request(chats('readwrite').put(chat)); }
  async function remove(id) { if (base) await request(chats('readwrite').delete(id)); }
  async function clear() { if (base) await request(chats('readwrite').clear()); }

  /* Small settings of the page; a browser that keeps nothing is no error. */
  function setting(name, value) {
    try {
      if (value === undefined) return localStorage.getItem('qiusuo.' + name);
      localStorage.setItem('qiusuo.' + name, value);
    } catch { /* kept for this visit only */ }
    return null;
  }

  let keyHere = '';
  function apiKey(value) {
    try {
      if (value === undefined) return sessionStorage.getItem('qiusuo.key') || keyHere;
      sessionStorage.setItem('qiusuo.key', value);
    } catch { /* kept in memory only */ }
    if (value !== undefined) keyHere = value;
    return keyHere;
  }

  Q.store = { NUMBERS, newSettings, readSettings, readNumber, newChat, find, families, path, choose, addTurn,
              removeTurn, importText, exportText, open, all, get, put, remove, clear, setting, apiKey };
})(Qiusuo);
