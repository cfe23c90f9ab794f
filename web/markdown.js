/* Markdown to DOM, while it streams in.
 *
 * Text becomes elements by createElement and textContent alone: no string is ever read as HTML, so a
 * text cannot bring in elements, attributes or scripts. Addresses of links pass safeAddress().
 *
 * A text is cut into blocks, one after the other. A block followed by another whose first line is
 * complete can no longer change: it is settled, its elements stay, and its text is not read again. Only
 * what comes after is built anew at each update. An item of the outermost list is a block of its own,
 * and an open code fence is appended to, so that neither long lists nor long programs are built twice.
 *
 * Differences from CommonMark, all for the sake of what models write: a line break is a line break
 * (poems), emphasis may touch Chinese characters and punctuation, two spaces of indentation make a child
 * of an item, there is no indented code, no HTML and no reference link. */
(function (Q) {
  'use strict';

  const MAX_DEPTH = 12;       // lists in quotes in lists: deeper ones are shown as plain text
  const MAX_LABEL = 1000;     // characters of a link's label
  const MAX_DELIMITERS = 400; // in one paragraph: more are shown as they are
  const MAX_COLUMNS = 60;

  const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^\n]*)$/;
  const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
  const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
  const QUOTE = /^ {0,3}>/;
  const ITEM = /^( {0,3})([-*+•]|\d{1,9}[.)])([ \t]+|$)/;
  const UNDERLINE = /^ {0,3}(?:(=+)|-{2,})[ \t]*$/;
  const TABLE_LINE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
  const BLANK = /^[ \t]*$/;

  /* What the tests count: characters read by the inline parser. */
  const work = { inline: 0 };

  function element(tag, className, text) {
    const e = document.createElement(tag);
    if (className) e.className = className;
    if (text !== undefined) e.textContent = text;
    return e;
  }

  /* An address that a link may have, normalised, or null. */
  function safeAddress(address) {
    if (!/^(https?:\/\/|mailto:)/i.test(address) || address.length > 2000) return null;
    try {
      const url = new URL(address);
      return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null;
    } catch {
      return null;
    }
  }

  /* ---- blocks ---- */

  function lineEnd(text, pos) {
    const end = text.indexOf('\n', pos);
    return end < 0 ? text.length : end;
  }

  function lineAt(text, pos) { return text.slice(pos, lineEnd(text, pos)); }

  function cells(line) {
    const row = line.trim().replace(/^\|/, '').replace(/(^|[^\\])\|$/, '$1');
    const out = [];
    let cell = '', code = false;
    for (let i = 0; i < row.length; i++) {
      const c = row[i];
      if (c === '\\' && row[i + 1] === '|') { cell += '|'; i++; continue; }
      if (c === '`') code = !code;
      if (c === '|' && !code) { out.push(cell.trim()); cell = ''; } else cell += c;
    }
    out.push(cell.trim());
    return out.slice(0, MAX_COLUMNS);
  }

  function startsTable(line, next) {
    return line.includes('|') && next !== null && TABLE_LINE.test(next) && next.includes('-') &&
           cells(line).length === cells(next).length;
  }

  /* Whether `line` begins something that ends a paragraph. */
  function interrupts(line, next) {
    const fence = FENCE.exec(line);
    if (fence && !(fence[2][0] === '`' && fence[3].includes('`'))) return true;
    if (HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
    const item = ITEM.exec(line);
    // "12. x" in a paragraph may be a sentence that ends in a number.
    if (item && item[0].length < line.length && !/^(?!1[.)])\d/.test(item[2])) return true;
    return startsTable(line, next) || /^ {0,3}(\$\$|\\\[)/.test(line);
  }

  function fenceBlock(text, pos, end, found) {
    // Where it ends is found while it is read: until then it is all that follows.
    return { kind: 'fence', start: pos, body: Math.min(end + 1, text.length), indent: found[1].length,
             mark: found[2], info: found[3].trim(), end: text.length };
  }

  /* Reads whole lines of a fence from `from` on: {code, next, closed}; next is where to go on. */
  function readFence(text, block, from, done) {
    const close = new RegExp('^ {0,3}\\' + block.mark[0] + '{' + block.mark.length + ',}[ \\t]*$');
    const strip = new RegExp('^ {0,' + block.indent + '}');
    let code = '', pos = from;
    while (pos < text.length) {
      const end = lineEnd(text, pos), line = text.slice(pos, end), whole = end < text.length || done;
      if (close.test(line)) {
        if (whole) return { code, next: Math.min(end + 1, text.length), closed: true };
        break;
      }
      if (!whole) break;
      code += line.replace(strip, '') + '\n';
      pos = end + 1;
    }
    return { code, next: Math.min(pos, text.length), closed: false };
  }

  /* A formula that stands alone: from its opening to its closing mark, without a blank line between. */
  function mathBlock(text, pos) {
    const found = /^ {0,3}(\$\$|\\\[)/.exec(lineAt(text, pos));
    if (!found) return null;
    const from = pos + found[0].length, close = found[1] === '$$' ? '$$' : '\\]';
    const to = text.indexOf(close, from);
    if (to < 0) return null;
    const tex = text.slice(from, to), end = lineEnd(text, to);
    if (/\n[ \t]*\n/.test(tex) || !BLANK.test(text.slice(to + 2, end)) || !tex.trim()) return null;
    return { kind: 'math', start: pos, tex: tex.trim(), written: text.slice(pos, end).trim(), end };
  }

  function quoteBlock(text, pos) {
    let body = '', at = pos, end = pos;
    while (at < text.length) {
      const e = lineEnd(text, at), line = text.slice(at, e);
      if (QUOTE.test(line)) body += line.replace(/^ {0,3}> ?/, '') + '\n';
      else if (BLANK.test(line) || interrupts(line, null)) break;
      else body += line + '\n';
      end = e;
      at = e + 1;
    }
    return { kind: 'quote', start: pos, body, end };
  }

  function itemBlock(text, pos, found) {
    const marker = found[2], ordered = /\d/.test(marker);
    const inner = Math.max(found[1].length + 2, Math.min(found[0].length, found[1].length + marker.length + 4));
    const child = found[1].length + 2;
    let end = lineEnd(text, pos), body = text.slice(pos + found[0].length, end) + '\n', at = end + 1;
    let blank = '';
    while (at < text.length) {
      const e = lineEnd(text, at), line = text.slice(at, e);
      const indent = /^ */.exec(line.replace(/\t/g, '    '))[0].length;
      if (BLANK.test(line)) {
        blank += '\n';
      } else if (indent >= child) {
        body += blank + line.replace(/\t/g, '    ').slice(Math.min(indent, inner)) + '\n';
        blank = '';
        end = e;
      } else if (!blank && !interrupts(line, null) && !ITEM.test(line)) {
        body += line.trimStart() + '\n';
        end = e;
      } else {
        break;
      }
      at = e + 1;
    }
    return { kind: 'item', start: pos, ordered, mark: marker.slice(-1), number: parseInt(marker, 10),
             body, end };
  }

  function tableBlock(text, pos) {
    let end = lineEnd(text, pos);
    const head = cells(text.slice(pos, end));
    let at = end + 1;
    end = lineEnd(text, at);
    const align = cells(text.slice(at, end)).map((c) =>
      /^:-+:$/.test(c) ? 'center' : /-:$/.test(c) ? 'end' : 'start');
    const rows = [];
    at = end + 1;
    while (at < text.length) {
      const e = lineEnd(text, at), line = text.slice(at, e);
      if (BLANK.test(line) || (!line.includes('|') && interrupts(line, null))) break;
      rows.push(cells(line).slice(0, head.length));
      end = e;
      at = e + 1;
    }
    return { kind: 'table', start: pos, head, align, rows, end };
  }

  function paragraphBlock(text, pos) {
    let end = lineEnd(text, pos), at = end + 1;
    while (at < text.length) {
      const e = lineEnd(text, at), line = text.slice(at, e);
      if (BLANK.test(line)) break;
      const under = UNDERLINE.exec(line);
      if (under && e < text.length) {
        return { kind: 'heading', start: pos, level: under[1] ? 1 : 2, body: text.slice(pos, end), end: e };
      }
      if (interrupts(line, e < text.length ? lineAt(text, e + 1) : null)) break;
      end = e;
      at = e + 1;
    }
    return { kind: 'paragraph', start: pos, body: text.slice(pos, end), end };
  }

  /* The block at or after `pos`, or null: {kind, start, end, ...}; end is the end of its last line. */
  function nextBlock(text, pos) {
    while (pos < text.length && BLANK.test(lineAt(text, pos))) pos = lineEnd(text, pos) + 1;
    if (pos >= text.length) return null;
    const end = lineEnd(text, pos), line = text.slice(pos, end);
    const fence = FENCE.exec(line);
    if (fence && !(fence[2][0] === '`' && fence[3].includes('`'))) return fenceBlock(text, pos, end, fence);
    const heading = HEADING.exec(line);
    if (heading) {
      const body = (heading[2] || '').replace(/(^|[ \t])#+[ \t]*$/, '').trim();
      return { kind: 'heading', start: pos, level: heading[1].length, body, end };
    }
    if (RULE.test(line)) return { kind: 'rule', start: pos, end };
    if (QUOTE.test(line)) return quoteBlock(text, pos);
    const item = ITEM.exec(line);
    if (item) return itemBlock(text, pos, item);
    if (startsTable(line, end < text.length ? lineAt(text, end + 1) : null)) return tableBlock(text, pos);
    return mathBlock(text, pos) || paragraphBlock(text, pos);
  }

  /* ---- what stands in a line ---- */

  const CJK = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\u3000-\u303f\uff00-\uffef]/u;
  const PUNCTUATION = /[\p{P}\p{S}]/u;
  const ENTITIES = new Map([['amp', '&'], ['lt', '<'], ['gt', '>'], ['quot', '"'], ['nbsp', '\u00a0'],
                            ['#39', "'"], ['mdash', '—'], ['ndash', '–'], ['hellip', '…']]);
  const SPECIAL = /[\\`*_~$[\]!<&\nh]/g;

  /* A run of *, _ or ~ and whether it may open or close emphasis. */
  function delimiter(text, pos) {
    const char = text[pos];
    let end = pos;
    while (text[end] === char) end++;
    const before = pos > 0 ? text[pos - 1] : ' ', after = end < text.length ? text[end] : ' ';
    const punctBefore = PUNCTUATION.test(before), punctAfter = PUNCTUATION.test(after);
    const left = !/\s/.test(after) && (!punctAfter || /\s/.test(before) || punctBefore || CJK.test(before));
    const right = !/\s/.test(before) && (!punctBefore || /\s/.test(after) || punctAfter || CJK.test(after));
    const word = char === '_';
    return { char, count: end - pos, open: left && (!word || !right || punctBefore),
             close: right && (!word || !left || punctAfter), end };
  }

  function matches(opener, closer) {
    return opener.char === closer.char && (closer.char !== '~' || opener.count === closer.count);
  }

  /* Turns pairs of delimiters in `parts` into {tag, parts}; those left over are text. */
  function pairDelimiters(parts) {
    const open = [];
    for (let i = 0; i < parts.length; i++) {
      const closer = parts[i];
      if (!closer.char) continue;
      while (closer.close && closer.count > 0) {
        let k = open.length - 1;
        while (k >= 0 && !matches(open[k], closer)) k--;
        if (k < 0) break;
        const opener = open[k], at = parts.indexOf(opener);
        const used = closer.char === '~' ? closer.count : Math.min(2, opener.count, closer.count);
        const tag = closer.char === '~' ? 'del' : used === 2 ? 'strong' : 'em';
        const inner = parts.splice(at + 1, i - at - 1);
        parts.splice(at + 1, 0, { tag, parts: inner });
        i = at + 2;
        opener.count -= used;
        closer.count -= used;
        open.length = opener.count > 0 ? k + 1 : k;
      }
      if (closer.open && closer.count > 0 && (closer.char !== '~' || closer.count <= 2)) open.push(closer);
    }
  }

  function emit(parent, parts) {
    for (const part of parts) {
      if (typeof part === 'string') parent.append(part);
      else if (part.node) parent.append(part.node);
      else if (part.char) parent.append(part.char.repeat(part.count));
      else { const e = element(part.tag); emit(e, part.parts); parent.append(e); }
    }
  }

  function link(address, className) {
    const a = element('a', className);
    a.href = address;
    a.target = '_blank';
    a.rel = 'noopener noreferrer';
    a.title = address;
    return a;
  }

  /* The end of a label that begins at `pos` ('['), or -1. */
  function labelEnd(text, pos) {
    let depth = 0;
    const stop = Math.min(text.length, pos + MAX_LABEL);
    for (let i = pos; i < stop; i++) {
      if (text[i] === '\\') i++;
      else if (text[i] === '[') depth++;
      else if (text[i] === ']' && --depth === 0) return i;
    }
    return -1;
  }

  const PLAIN = '[^\\s()\\\\]|\\\\.';  // a character of an address, or one behind a backslash
  const DESTINATION = new RegExp('^\\([ \\t]*(?:<([^<>\\n]*)>|((?:' + PLAIN + '|\\((?:' + PLAIN + ')*\\))*))' +
                                 '(?:\\s+(?:"[^"]*"|\'[^\']*\'))?[ \\t]*\\)');

  /* "(address "title")" at `pos`: {address, end} or null. */
  function destination(text, pos) {
    const part = text.slice(pos, pos + 3000);
    const found = DESTINATION.exec(part);
    if (!found) return null;
    const address = (found[1] !== undefined ? found[1] : found[2]).replace(/\\([!-/:-@[-`{-~])/g, '$1');
    return { address, end: pos + found[0].length };
  }

  /* A link or an image at `pos`: {node, end} or null. Pictures are not fetched: they become links. */
  function linkAt(text, pos, depth) {
    const image = text[pos] === '!', from = image ? pos + 1 : pos;
    const end = labelEnd(text, from);
    if (end < 0 || text[end + 1] !== '(') return null;
    const to = destination(text, end + 1);
    if (!to) return null;
    const label = text.slice(from + 1, end), address = safeAddress(to.address);
    if (!address && !image) return null;
    if (!address) return { node: element('span', 'noimage', Q.strings.text('image', { name: label })), end: to.end };
    const a = link(address, image ? 'noimage' : '');
    if (image) a.textContent = Q.strings.text('image', { name: label || address });
    else inline(a, label || address, depth + 1, true);
    return { node: a, end: to.end };
  }

  const BARE = /^https?:\/\/[^\s<>"'`\u3000-\u303f\uff00-\uffef\p{Script=Han}]{1,2000}/u;

  /* An address written out: ends before punctuation that belongs to the sentence. */
  function bareAddress(text, pos) {
    if (!text.startsWith('http://', pos) && !text.startsWith('https://', pos)) return null;
    if (pos > 0 && /[A-Za-z0-9]/.test(text[pos - 1])) return null;
    let shown = BARE.exec(text.slice(pos, pos + 2100));
    if (!shown) return null;
    shown = shown[0].replace(/[.,;:!?*_~\])}]+$/, (tail) =>
      tail[0] === ')' && shown[0].includes('(') ? ')' : '');
    const address = safeAddress(shown);
    if (!address) return null;
    const a = link(address);
    a.textContent = shown;
    return { node: a, end: pos + shown.length };
  }

  function angleAt(text, pos) {
    const part = text.slice(pos, pos + 2100), br = /^<br[ \t]*\/?>/i.exec(part);
    if (br) return { node: element('br'), end: pos + br[0].length };
    const found = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/i.exec(part);
    const address = found && safeAddress(found[1]);
    if (!address) return null;
    const a = link(address);
    a.textContent = found[1];
    return { node: a, end: pos + found[0].length };
  }

  /* Where `mark` comes next at or after `pos`, remembering that it never does. */
  function seek(text, mark, pos, missing) {
    if (missing.has(mark)) return -1;
    const at = text.indexOf(mark, pos);
    if (at < 0) missing.add(mark);
    return at;
  }

  function codeAt(text, pos, missing) {
    let n = 0;
    while (text[pos + n] === '`') n++;
    const mark = '`'.repeat(n);
    let at = pos + n;
    for (;;) {
      at = seek(text, mark, at, missing);
      if (at < 0) return { text: mark, end: pos + n };
      let m = 0;
      while (text[at + m] === '`') m++;
      if (m === n) break;
      at += m;
    }
    let code = text.slice(pos + n, at).replace(/\n/g, ' ');
    if (code.startsWith(' ') && code.endsWith(' ') && code.trim()) code = code.slice(1, -1);
    return { node: element('code', '', code), end: at + n };
  }

  /* A formula at `pos` ('$' or a backslash before a bracket): {node, end} or null. */
  function mathAt(text, pos, missing) {
    const two = text.slice(pos, pos + 2);
    let open = 2, close, display = false;
    if (two === '\\(') close = '\\)';
    else if (two === '\\[') { close = '\\]'; display = true; }
    else if (two === '$$') { close = '$$'; display = true; }
    else { open = 1; close = '$'; }
    const from = pos + open, to = seek(text, close, from, missing);
    if (to < 0) return null;
    const tex = text.slice(from, to);
    // As Pandoc: "$5 and $6" are prices.
    const price = /^\s|\s$/.test(tex) || /[0-9]/.test(text[to + 1] || '') || text[to - 1] === '\\';
    if (!tex.trim() || (open === 1 && price)) return null;
    const end = to + close.length;
    return { node: Q.math.build(tex.trim(), display, text.slice(pos, end)), end };
  }

  /* What begins with the special character at `pos`: {node | text | part, end}. */
  function special(text, pos, depth, inLink, missing) {
    const c = text[pos];
    let found = null;
    if (c === '\n') return { node: element('br'), end: pos + 1 };
    if (c === '`') return codeAt(text, pos, missing);
    if (c === '*' || c === '_' || c === '~') { const d = delimiter(text, pos); return { part: d, end: d.end }; }
    if (c === '$' || (c === '\\' && /[([]/.test(text[pos + 1] || ''))) found = mathAt(text, pos, missing);
    if (!found && c === '\\') {
      if (text[pos + 1] === '\n') return { node: element('br'), end: pos + 2 };
      if (/[!-/:-@[-`{-~]/.test(text[pos + 1] || '')) return { text: text[pos + 1], end: pos + 2 };
    }
    if (c === '&') {
      const e = /^&(#?\w{1,8});/.exec(text.slice(pos, pos + 12));
      if (e && ENTITIES.has(e[1])) return { text: ENTITIES.get(e[1]), end: pos + e[0].length };
    }
    if (c === '<' && (!inLink || /^<br/i.test(text.slice(pos, pos + 3)))) found = angleAt(text, pos);
    const label = c === '[' || (c === '!' && text[pos + 1] === '[');
    if (label && !inLink && depth < MAX_DEPTH) found = linkAt(text, pos, depth);
    if (!inLink && c === 'h') found = bareAddress(text, pos);
    return found || { text: c, end: pos + 1 };
  }

  function inline(parent, text, depth, inLink) {
    work.inline += text.length;
    const parts = [], missing = new Set();
    let pos = 0, delimiters = 0, plain = '';
    const flush = () => { if (plain) parts.push(plain); plain = ''; };
    while (pos < text.length) {
      SPECIAL.lastIndex = pos;
      const found = SPECIAL.exec(text), at = found ? found.index : text.length;
      plain += text.slice(pos, at);
      if (at === text.length) break;
      const s = special(text, at, depth, inLink, missing);
      pos = s.end;
      if (s.text !== undefined) { plain += s.text; continue; }
      if (s.node && s.node.nodeName === 'BR') plain = plain.trimEnd();
      if (s.part && ++delimiters > MAX_DELIMITERS) { plain += s.part.char.repeat(s.part.count); continue; }
      flush();
      parts.push(s.part || { node: s.node });
    }
    flush();
    pairDelimiters(parts);
    emit(parent, parts);
  }

  /* ---- building ---- */

  function buildTable(block) {
    const frame = element('div', 'table'), table = element('table');
    frame.tabIndex = 0;
    frame.setAttribute('role', 'region');
    frame.setAttribute('aria-label', Q.strings.text('table'));
    const row = (tag, list) => {
      const tr = element('tr');
      for (let i = 0; i < block.head.length; i++) {
        const cell = element(tag, block.align[i] || 'start');
        inline(cell, list[i] || '', 0, false);
        if (tag === 'th') cell.scope = 'col';
        tr.append(cell);
      }
      return tr;
    };
    const head = element('thead'), body = element('tbody');
    head.append(row('th', block.head));
    for (const r of block.rows) body.append(row('td', r));
    table.append(head, body);
    frame.append(table);
    return frame;
  }

  function buildItem(block, depth) {
    const li = element('li');
    const task = /^\[([ xX])\][ \t]+/.exec(block.body);
    let body = block.body;
    if (task) {
      const box = element('input');
      box.type = 'checkbox';
      box.disabled = true;
      box.checked = task[1] !== ' ';
      li.className = 'task';
      li.append(box, ' ');
      body = body.slice(task[0].length);
    }
    const first = nextBlock(body, 0);
    // An item of one paragraph, or one paragraph and what hangs on it, is set tight.
    if (first && first.kind === 'paragraph') {
      inline(li, first.body.trim(), 0, false);
      buildAll(li, body.slice(first.end), depth + 1);
    } else {
      buildAll(li, body, depth + 1);
    }
    return li;
  }

  /* The element of a block; items give their <li>, which addBlock puts into a list. */
  function build(block, depth) {
    if (block.kind === 'item') return buildItem(block, depth);
    if (block.kind === 'rule') return element('hr');
    if (block.kind === 'math') return Q.math.build(block.tex, true, block.written);
    if (block.kind === 'table') return buildTable(block);
    if (block.kind === 'quote') {
      const e = element('blockquote');
      buildAll(e, block.body, depth + 1);
      return e;
    }
    // The page's own headings are h1 and h2: an answer's begin below them.
    const e = element(block.kind === 'heading' ? 'h' + Math.min(6, block.level + 2) : 'p',
                      block.kind === 'heading' ? 'level' + block.level : '');
    inline(e, block.body.trim(), 0, false);
    return e;
  }

  function sameList(list, block) {
    return list && list.dataset.mark === block.mark && (list.tagName === 'OL') === block.ordered;
  }

  /* Puts a block's element behind what `root` holds; returns what was added at the top. */
  function addBlock(root, block, node) {
    if (block.kind !== 'item') { root.append(node); return node; }
    if (sameList(root.lastElementChild, block)) { root.lastElementChild.append(node); return node; }
    const list = element(block.ordered ? 'ol' : 'ul');
    list.dataset.mark = block.mark;
    if (block.ordered && block.number !== 1) list.start = block.number;
    list.append(node);
    root.append(list);
    return list;
  }

  /* Builds a whole text into `root`. */
  function buildAll(root, text, depth) {
    if (depth > MAX_DEPTH) { root.append(text); return; }
    let pos = 0;
    for (let block = nextBlock(text, pos); block; block = nextBlock(text, pos)) {
      if (block.kind === 'fence') {
        const read = readFence(text, block, block.body, true), code = Q.code.create(block.info);
        code.append(read.code);
        code.finish();
        root.append(code.element);
        pos = read.next;
      } else {
        addBlock(root, block, build(block, depth));
        pos = block.end;
      }
    }
  }

  /* A text that grows: update(text, done) with all of it so far; done settles everything. */
  function stream(root) {
    let settled = 0;       // text before this is settled
    let tail = [];         // elements of blocks that may still change
    let fence = null;      // {block, code, next}: an open fence, the only block after `settled`

    function drop() {
      for (const node of tail) node.remove();
      tail = [];
    }

    function growFence(text, done) {
      const read = readFence(text, fence.block, fence.next, done);
      fence.next = read.next;
      fence.code.append(read.code);
      fence.code.partial(read.closed ? '' : text.slice(read.next));
      if (!read.closed && !done) return false;
      fence.code.finish();
      settled = read.closed ? read.next : text.length;
      fence = null;
      return true;
    }

    function openFence(text, block) {
      settled = block.start;
      fence = { block, code: Q.code.create(block.info), next: block.body };
      root.append(fence.code.element);
    }

    /* Settles all blocks before the last one whose first line is complete. */
    function update(text, done) {
      if (fence && !growFence(text, done)) return;
      drop();
      const blocks = [];
      for (let b = nextBlock(text, settled); b; b = nextBlock(text, b.end)) blocks.push(b);
      let last = blocks.length - 1;
      if (!done && last > 0 && lineEnd(text, blocks[last].start) === text.length) last--;
      for (let i = 0; i < blocks.length; i++) {
        const block = blocks[i], firstLine = lineEnd(text, block.start) < text.length;
        if (block.kind === 'fence' && (firstLine || done)) {
          tail = [];
          openFence(text, block);
          if (growFence(text, done)) update(text, done);
          return;
        }
        if (block.kind === 'fence') break;
        const added = addBlock(root, block, build(block, 0));
        if (i < last || done) settled = block.end;
        else tail.push(added);
      }
    }

    return { update };
  }

  Q.markdown = { stream, nextBlock, safeAddress, element, work,
                 build: (root, text) => buildAll(root, text, 0) };
})(Qiusuo);
