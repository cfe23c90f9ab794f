/* Formulas, set by KaTeX where it is built in, shown as their source where not.
 *
 * KaTeX builds elements itself (katex.render, not the string form). It gets trust: false, so \href, \url,
 * \includegraphics and the \html commands give no link, picture or attribute; sizes and expansions are
 * bounded. Some versions do not count expansions inside \edef and in Unicode subscripts; without
 * definitions nothing can grow there, so a formula that defines macros is shown as its source. */
(function (Q) {
  'use strict';

  const MAX_LENGTH = 4000;
  const DEFINES = /\\(?:[egx]?def|let|futurelet|global|long|(?:new|renew|provide)command)(?![A-Za-z])/;
  const OPTIONS = { trust: false, strict: 'ignore', throwOnError: true, maxSize: 20, maxExpand: 500,
                    output: 'htmlAndMathml' };

  /* KaTeX sets some styles by setAttribute('style'), which the page's policy forbids; while it works they
   * go through the style object, which is allowed and can only set properties. */
  function withStyleObjects(work) {
    const plain = Element.prototype.setAttribute;
    Element.prototype.setAttribute = function (name, value) {
      if (name === 'style') this.style.cssText = value;
      else plain.call(this, name, value);
    };
    try {
      work();
    } finally {
      Element.prototype.setAttribute = plain;
    }
  }

  function source(written, display, failed) {
    const e = Q.markdown.element('code', display ? 'tex display' : 'tex', written);
    if (failed) e.title = Q.strings.text('formula_bad');
    return e;
  }

  /* An element that shows `tex`, or else what was written, marks included; display: on a line of its own. */
  function build(tex, display, written) {
    if (!window.katex) return source(written, display, false);
    if (tex.length > MAX_LENGTH || DEFINES.test(tex)) return source(written, display, true);
    const e = Q.markdown.element('span', display ? 'formula display' : 'formula');
    try {
      withStyleObjects(() => window.katex.render(tex, e, { ...OPTIONS, displayMode: display }));
    } catch {
      return source(written, display, true);
    }
    if (display) e.tabIndex = 0;
    return e;
  }

  Q.math = { build };
})(Qiusuo);
