/* Blocks of code: a bar with the language and a copy button, and colours where highlight.js is built in.
 *
 * highlight.js gives a string of HTML. It is not handed to the browser as HTML: colour() reads it as what
 * it is made of, <span class="..."> and </span> and escaped text, and builds the elements itself.
 * Anything else in it is shown as text, so no fault of highlight.js can bring in an element or attribute. */
(function (Q) {
  'use strict';

  // Debian's version is one that its authors no longer mend. Nothing here relies on it (see above), so it
  // need not say that at every visit.
  if (window.hljs) window.hljs.configure({ hideUpgradeWarningAcceptNoSupportOrSecurityUpdates: true });

  // Patterns of some languages take long on long texts and lines: those stay without colours.
  const MAX_COLOURED = 30000, MAX_LINE = 1000;
  const ESCAPES = { '&amp;': '&', '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#x27;': "'" };

  function colour(parent, html) {
    const open = [parent];
    const pieces = /<span class="([\w\- ]*)">|<\/span>|([^<]+|<)/g;
    for (let m = pieces.exec(html); m; m = pieces.exec(html)) {
      const top = open[open.length - 1];
      if (m[2] !== undefined) {
        top.append(m[2].replace(/&(?:amp|lt|gt|quot|#x27);/g, (e) => ESCAPES[e]));
      } else if (m[1] !== undefined) {
        const span = Q.markdown.element('span', m[1]);
        top.append(span);
        open.push(span);
      } else if (open.length > 1) {
        open.pop();
      }
    }
  }

  function longestLine(text) {
    let longest = 0;
    for (let pos = 0; pos <= text.length;) {
      const end = text.indexOf('\n', pos) < 0 ? text.length : text.indexOf('\n', pos);
      longest = Math.max(longest, end - pos);
      pos = end + 1;
    }
    return longest;
  }

  function highlight(code, language, text) {
    if (!window.hljs || !language || text.length > MAX_COLOURED || longestLine(text) > MAX_LINE) return;
    if (!window.hljs.getLanguage(language)) return;
    let html;
    try {
      html = window.hljs.highlight(language, text, true).value;
    } catch {
      return;
    }
    code.replaceChildren();
    colour(code, html);
  }

  /* Copies by the clipboard interface or, where the page does not come over a secure connection, by the
   * old command. True when it worked. */
  async function copy(text) {
    if (navigator.clipboard && window.isSecureContext) {
      try {
        await navigator.clipboard.writeText(text);
        return true;
      } catch { /* not allowed: the old way may be */ }
    }
    const before = document.activeElement, field = Q.markdown.element('textarea', 'offscreen');
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand('copy');
    field.remove();
    if (before) before.focus();
    return done;
  }

  /* A button that copies what get() returns, and says for a moment that it did. */
  function copyButton(className, key, get) {
    const button = Q.markdown.element('button', className, Q.strings.text('copy'));
    button.type = 'button';
    button.setAttribute('aria-label', Q.strings.text(key));
    button.addEventListener('click', async () => {
      const said = Q.strings.text(await copy(get()) ? 'copied' : 'copy_failed');
      button.textContent = said;
      Q.announce(said);
      setTimeout(() => { button.textContent = Q.strings.text('copy'); }, 1500);
    });
    return button;
  }

  /* A block of code: append() whole lines, partial() the line that is still coming, finish() colours. */
  function create(info) {
    const name = (/^[^\s{]+/.exec(info) || [''])[0].slice(0, 60), element = Q.markdown.element;
    const frame = element('div', 'code'), bar = element('div', 'bar'), pre = element('pre');
    const code = element('code'), lines = document.createTextNode(''), rest = document.createTextNode('');
    code.append(lines, rest);
    pre.append(code);
    pre.tabIndex = 0;
    pre.setAttribute('role', 'region');
    pre.setAttribute('aria-label', Q.strings.text('code_region', { name: name || 'text' }));
    let text = '';
    bar.append(element('span', 'name', name), copyButton('plain', 'copy_code', () => text));
    frame.append(bar, pre);
    return {
      element: frame,
      append(more) { if (more) { text += more; lines.appendData(more); } },
      partial(more) { if (rest.data !== more) rest.data = more; },
      finish() {
        text += rest.data;
        text = text.replace(/\n$/, '');
        lines.data = text;
        rest.data = '';
        highlight(code, name.toLowerCase().replace(/^.*\.(?=\w+$)/, ''), text);
      },
    };
  }

  Q.code = { create, copyButton, copy, colour };
})(Qiusuo);
