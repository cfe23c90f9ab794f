#!/usr/bin/env python3
"""The chat page in headless Chromium against mock_server.py: every feature, hostile texts, policy,
languages, themes, keyboard, names for screen readers. After each test: no violation of the policy, no
script error, no request to another origin. Skipped (exit 77) without chromium, its driver or selenium.

usage: test_browser.py [--pictures FOLDER] [names of tests]"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True


def skip(why):
    print("skipped: " + why)
    sys.exit(77)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or skip("chromium is not installed")
DRIVER = shutil.which("chromedriver") or skip("chromedriver is not installed (Debian: chromium-driver)")
try:
    from selenium import webdriver
except ImportError:
    # Debian's package belongs to Debian's Python.
    system = "/usr/bin/python3"
    if os.path.realpath(sys.executable) == os.path.realpath(system) or not os.path.exists(system) or \
            subprocess.run([system, "-c", "import selenium"], stderr=subprocess.DEVNULL).returncode != 0:
        skip("selenium is not installed (Debian: python3-selenium)")
    os.execv(system, [system, *sys.argv])
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

import mock_server  # noqa: E402

WATCH = """
window.seen = [];
addEventListener('securitypolicyviolation', (e) => seen.push('policy: ' + e.violatedDirective + ' ' + e.blockedURI + ' ' + e.sample));
addEventListener('error', (e) => seen.push('error: ' + e.message));
addEventListener('unhandledrejection', (e) => seen.push('rejection: ' + e.reason));
"""
# Text whose contrast with what is behind it is below WCAG AA.
CONTRAST = """
const bad = [];
const rgb = (s) => { const n = s.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const light = (c) => { const f = c.slice(0, 3).map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
  return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let texts = 0;
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !e.checkVisibility({visibilityProperty: true}) ||
      e.closest('.offscreen, .katex-mathml, script, style, :disabled, .skip')) continue;
  let back = [0, 0, 0, 0];
  for (let p = e; p && back[3] < 1; p = p.parentElement) {
    const b = rgb(getComputedStyle(p).backgroundColor);
    if (b[3] === 1) back = b;
  }
  const style = getComputedStyle(e), a = light(rgb(style.color)), b = light(back);
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  texts++;
  if (ratio < 4.5) bad.push(walker.currentNode.data.slice(0, 30) + ' ' + style.color + ' on ' + back + ' ' + ratio.toFixed(2));
}
return [texts, bad];
"""


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for arg in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en",
                    "--disable-background-networking", "--no-first-run", f"--user-data-dir={cls.folder}/profile"):
            options.add_argument(arg)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        cls.driver = webdriver.Chrome(service=Service(DRIVER), options=options)
        cls.driver.set_script_timeout(60)
        cls.cdp("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        cls.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=cls.folder)

    @classmethod
    def tearDownClass(cls):
        cls.driver.quit()
        shutil.rmtree(cls.folder, ignore_errors=True)

    @classmethod
    def cdp(cls, method, **args):
        return cls.driver.execute_cdp_cmd(method, args)

    def setUp(self):
        self.server = mock_server.Server()
        self.url = self.server.start()
        self.size(1180, 860)
        self.prefer("light")
        self.open()

    def tearDown(self):
        try:
            self.assertEqual(self.js("return window.seen"), [])
            self.assertIsNone(self.js("return window.hacked === undefined ? null : window.hacked"))
            for entry in self.driver.get_log("performance"):
                message = json.loads(entry["message"])["message"]
                if message["method"] == "Network.requestWillBeSent":
                    url = message["params"]["request"]["url"]
                    self.assertTrue(url.startswith(("data:", "blob:", "chrome:", "http://127.0.0.1:")), url)
            for entry in self.driver.get_log("browser"):
                if entry["level"] == "SEVERE":
                    self.assertIn("/v1/", entry["message"])  # answers with an error status, asked for below
        finally:
            self.driver.get("about:blank")
            self.server.shutdown()
            self.server.server_close()

    # -- helpers --

    def open(self, ready=True):
        self.driver.get(self.url)
        if ready:
            self.wait("document.body.dataset.ready === 'yes' && document.querySelector('#model').options.length > 1")

    def js(self, code, *args):
        return self.driver.execute_script(code, *args)

    def wait(self, condition, seconds=15):
        end = time.time() + seconds
        while time.time() < end:
            if self.js("return Boolean(" + condition + ")"):
                return
            time.sleep(0.02)
        self.fail("never true: " + condition + "\n" + str(self.js("return document.querySelector('#turns').innerText")))

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0]).textContent", selector)

    def size(self, width, height, mobile=False):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def prefer(self, scheme):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def keys(self, *keys, alt=None):
        actions = webdriver.ActionChains(self.driver)
        if alt:
            actions.key_down(Keys.ALT).send_keys(alt).key_up(Keys.ALT)
        for k in keys:
            actions.send_keys(k)
        actions.perform()

    def say(self, text, wait=True):
        before = self.js("return document.querySelectorAll('.assistant.complete').length")
        self.one("#ask").send_keys(text, Keys.ENTER)
        if wait:
            self.wait(f"document.querySelectorAll('.assistant.complete').length > {before} && document.querySelector('#stop').hidden")

    def last(self, selector=".md"):
        return self.js("const a = [...document.querySelectorAll('.assistant')].pop().querySelectorAll(arguments[0]);"
                       "return a.length ? a[a.length - 1].innerText : null", selector)

    # -- conversation --

    def test_answer(self):
        self.say("demo")
        self.assertEqual(self.text(".user .said"), "demo")
        for selector in (".level2 .katex", ".formula.display .katex-display", ".code pre code .hljs-keyword",
                         "table thead th", "ol > li > ul > li code", "blockquote", "strong", "em",
                         'a[href="https://example.org/euler"][target="_blank"][rel="noopener noreferrer"]'):
            self.assertTrue(self.all(".assistant .answer " + selector), selector)
        self.assertEqual(len(self.all(".assistant ol > li")), 3)
        stats = self.last(".stats")
        for part in ("qiusuo-moe-16b-Q4_K", "386 tokens", "45.5 tokens/s", "prompt 512 (480 from cache)",
                     "context 898 of 4096", "first after"):
            self.assertIn(part, stats)
        body = self.server.requests[-1]
        self.assertEqual(body["messages"], [{"role": "user", "content": "demo"}])
        self.assertEqual((body["stream"], body["stream_options"], body["model"]),
                         (True, {"include_usage": True}, "qiusuo-moe-16b-Q4_K"))
        self.assertNotIn("temperature", body)
        # fonts come from the page itself
        self.assertTrue(self.js("return [...document.fonts].some((f) => f.family.includes('KaTeX') && f.status === 'loaded')"))

    def test_second_turn_sends_the_first(self):
        self.say("one")
        self.say("two")
        self.assertEqual([m["content"] for m in self.server.requests[-1]["messages"]], ["one", "one", "two"])
        self.assertEqual([m["role"] for m in self.server.requests[-1]["messages"]], ["user", "assistant", "user"])

    def test_split_bytes_and_comments(self):
        self.say("split")
        self.assertEqual(self.last(), "春眠不觉晓😀粗")
        self.assertEqual(self.text(".assistant strong"), "粗")
        self.one("#ask").send_keys("queue", Keys.ENTER)
        self.wait("document.querySelector('.waiting')?.textContent.includes('place 3')")
        self.wait("document.querySelector('.waiting')?.textContent.includes('512 of 4000')")
        self.wait("document.querySelector('#stop').hidden")
        self.assertEqual(self.last(), "Done.")

    def test_poem_keeps_its_lines(self):
        self.say("床前明月光，" + Keys.SHIFT + Keys.ENTER + Keys.SHIFT + "疑是地上霜。")
        self.assertEqual(self.server.requests[-1]["messages"][0]["content"], "床前明月光，\n疑是地上霜。")
        self.assertEqual(self.last(), "床前明月光，\n疑是地上霜。")

    def test_stop(self):
        self.say("slow", wait=False)
        self.wait("document.querySelector('.assistant .answer p')?.textContent.includes('word3')")
        self.assertEqual(self.one(".assistant").get_attribute("aria-busy"), "true")
        self.one("#stop").click()
        self.wait("document.querySelector('.ending')?.textContent === 'Stopped.'")
        self.assertIn("word3", self.last())
        self.wait("!document.querySelector('#send').hidden && document.activeElement.id === 'ask'")
        end = time.time() + 5
        while not self.server.gone and time.time() < end:
            time.sleep(0.05)
        self.assertEqual(self.server.gone, ["slow"])  # the server saw the client leave
        # what had come is kept
        self.open()
        self.one("#chats .open").click()
        self.assertIn("word3", self.last())

    def test_regenerate_and_edit(self):
        self.say("alpha")
        self.one('.assistant [aria-label="Answer again"]').click()
        self.wait("document.querySelector('.assistant .place')?.textContent === '2/2' && document.querySelector('#stop').hidden")
        self.one('.user [aria-label="Edit"]').click()
        field = self.one(".editor textarea")
        self.assertEqual(field.get_attribute("value"), "alpha")
        field.clear()
        field.send_keys("beta", Keys.ENTER)
        self.wait("document.querySelector('.user .place')?.textContent === '2/2' && document.querySelector('#stop').hidden")
        self.assertEqual(self.last(), "beta")
        self.assertEqual([m["content"] for m in self.server.requests[-1]["messages"]], ["beta"])
        self.one('.user [aria-label="Earlier version"]').click()
        self.assertEqual(self.text(".user .said"), "alpha")
        self.assertEqual(self.text(".assistant .place"), "2/2")
        self.one('.assistant [aria-label="Earlier version"]').click()
        self.assertEqual(self.text(".assistant .place"), "1/2")
        self.assertTrue(self.js("return document.querySelector('.assistant .versions button').disabled"))
        # the same versions are shown after a reload
        self.open()
        self.one("#chats .open").click()
        self.assertEqual((self.text(".user .place"), self.text(".assistant .place")), ("1/2", "1/2"))

    def test_reasoning(self):
        self.say("reason")
        thought = self.one(".thought")
        self.assertIsNone(thought.get_attribute("open"))
        self.assertRegex(self.text(".thought summary"), r"^Thought for \d+\.\d s$")
        self.assertEqual(self.last(), "The answer is 4.")
        self.one(".thought summary").click()
        self.assertEqual(len(self.all(".thought li")), 2)
        self.say("next")
        self.assertNotIn("think", json.dumps(self.server.requests[-1]["messages"]))

    def test_tool_call(self):
        self.say("tool")
        self.assertEqual(self.text(".call summary"), "Tool call: weather")
        self.assertEqual(json.loads(self.text(".call pre")), {"city": "<b>北京</b>"})

    def test_limit_is_said(self):
        self.say("long 40")
        self.assertEqual(self.text(".ending"), "Stopped at the limit of tokens.")

    # -- faults --

    def test_error_in_its_own_words(self):
        self.say("error503")
        self.assertEqual(self.text(".fault p"), "The queue is full: <b>place 9</b>; try again in 3 s")
        self.assertEqual(len(self.server.requests), 1)
        self.server.requests[0]["messages"][0]["content"] = ""
        self.one(".fault button").click()
        self.wait("document.querySelectorAll('.assistant.complete .fault').length === 1 && document.querySelector('#stop').hidden")
        self.assertEqual(len(self.server.requests), 2)
        self.assertFalse(self.all(".assistant .place"))  # the empty attempt gave up its place

    def test_lost_connection(self):
        self.say("cut")
        self.assertIn("Half an ans", self.last())
        self.assertEqual(self.text(".fault p"), "The connection was lost.")
        self.say("fault")
        self.assertEqual(self.all(".fault p")[-1].text, "The model <i>failed</i> at step 7")
        self.assertIn("Begun,", self.last())
        self.say("end")
        self.assertEqual(self.all(".fault p")[-1].text, "The connection was lost.")
        self.server.down = True
        self.say("anything")
        self.assertEqual(self.all(".fault p")[-1].text, "The server cannot be reached.")

    def test_api_key(self):
        self.server.key = "secret-1"
        self.open(ready=False)
        self.wait("document.querySelector('#dialog').open")
        self.one("#dialog input").send_keys("wrong", Keys.ENTER)
        self.wait("document.querySelector('#dialog').open && document.querySelector('#dialog input').value === ''")
        self.one("#dialog input").send_keys("secret-1", Keys.ENTER)
        self.wait("document.querySelector('#model').options.length > 1")
        self.say("hello")
        self.assertEqual(self.last(), "hello")
        kept = self.js("return [sessionStorage.getItem('qiusuo.key'), JSON.stringify({...localStorage})]")
        self.assertEqual(kept[0], "secret-1")
        self.assertNotIn("secret", kept[1])
        self.server.key = "secret-2"
        self.one("#ask").send_keys("again", Keys.ENTER)
        self.wait("document.querySelector('#dialog').open")
        self.one("#dialog input").send_keys("secret-2", Keys.ENTER)
        self.wait("[...document.querySelectorAll('.assistant .answer')].pop().innerText === 'again'")

    # -- settings --

    def test_settings(self):
        self.one("#open-settings").click()
        self.one("#system").send_keys("Be brief.")
        values = {"temperature": "0.5", "top_p": "0.9", "top_k": "40", "min_p": "0.05", "max_tokens": "64", "seed": "7"}
        for name, value in values.items():
            self.one("#number-" + name).send_keys(value)
        self.one("#thinking").send_keys("On")
        self.say("hello")
        body = self.server.requests[-1]
        self.assertEqual(body["messages"][0], {"role": "system", "content": "Be brief."})
        self.assertEqual({k: body[k] for k in values}, {k: float(v) for k, v in values.items()})
        self.assertEqual(body["chat_template_kwargs"], {"thinking": True})
        field = self.one("#number-top_p")
        field.clear()
        field.send_keys("7")
        self.assertEqual(field.get_attribute("aria-invalid"), "true")
        self.assertEqual(self.text("#bad-top_p"), "A number from 0 to 1")
        self.say("again")
        self.assertEqual(self.server.requests[-1].get("top_p", 0.9), 0.9)  # never what is not allowed
        self.one("#reset").click()
        self.say("third")
        self.assertNotIn("temperature", self.server.requests[-1])
        self.assertNotIn("chat_template_kwargs", self.server.requests[-1])
        self.one("#model").send_keys("plain")
        self.assertFalse(self.one("#thinking-row").is_displayed())
        self.say("fourth")
        self.assertEqual(self.server.requests[-1]["model"], "plain")

    # -- chats --

    def test_chats(self):
        self.say("first chat")
        self.one("#new").click()
        self.say("second chat")
        self.open()
        names = [e.text for e in self.all("#chats .open")]
        self.assertEqual(names, ["second chat", "first chat"])
        self.all("#chats .open")[1].click()
        self.assertEqual(self.text(".user .said"), "first chat")
        self.assertEqual(self.one("#chats .current .open").text, "first chat")
        self.one('#chats [aria-label*="first chat"]').click()
        self.all("#menu button")[0].click()
        self.one("#dialog input").send_keys(Keys.CONTROL, "a", Keys.NULL, "诗 <b>x</b>", Keys.ENTER)
        self.wait("document.querySelector('#chats .current .open').textContent === '诗 <b>x</b>'")
        self.assertTrue(self.driver.title.startswith("诗 <b>x</b> – "))
        self.one("#search").send_keys("second")
        self.assertEqual(len(self.all("#chats .open")), 1)
        self.one("#search").clear()
        self.one("#search").send_keys(" ", Keys.BACKSPACE)
        self.one('#chats [aria-label*="second chat"]').click()
        self.all("#menu button")[2].click()
        self.one("#dialog-yes").click()
        self.wait("document.querySelectorAll('#chats .open').length === 1")
        self.open()
        self.assertEqual([e.text for e in self.all("#chats .open")], ["诗 <b>x</b>"])

    def test_export_and_import(self):
        self.say("alpha")
        self.one('.assistant [aria-label="Answer again"]').click()
        self.wait("document.querySelector('.assistant .place')?.textContent === '2/2' && document.querySelector('#stop').hidden")
        self.one("#export").click()
        path = os.path.join(self.folder, "qiusuo-alpha.json")
        end = time.time() + 10
        while not os.path.exists(path) and time.time() < end:
            time.sleep(0.05)
        time.sleep(0.1)
        with open(path, encoding="utf-8") as f:
            kept = json.load(f)
        self.assertEqual((kept["format"], len(kept["chats"]), len(kept["chats"][0]["turns"])), ("qiusuo-chats", 1, 3))
        self.one("#clear").click()
        self.one("#dialog-yes").click()
        self.wait("!document.querySelector('#chats .open')")
        self.one("#import-file").send_keys(path)
        self.wait("document.querySelector('.assistant .place')?.textContent === '2/2'")
        self.assertEqual(self.text("#chats .open"), "alpha")
        os.remove(path)

    def import_text(self, text):
        path = os.path.join(self.folder, "in.json")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        self.one("#import-file").send_keys(path)

    def test_hostile_import(self):
        self.import_text("{")
        self.wait("document.querySelector('#notice').textContent.startsWith('This file holds no chats')")
        self.import_text('{"format": "qiusuo-chats", "chats": 7}')
        self.wait("document.querySelector('#notice').textContent.includes('qiusuo-chats')")
        evil = "<img src=x onerror=window.hacked=40>"
        self.import_text("""{"format": "qiusuo-chats", "__proto__": {"polluted": 1}, "chats": [null, 7, "x", [], {
          "id": "__proto__", "title": "%(e)s", "pick": "__proto__", "__proto__": {"polluted": 2},
          "constructor": {"prototype": {"polluted": 3}},
          "settings": {"__proto__": {"polluted": 4}, "temperature": "9", "top_p": 99, "top_k": {}, "system": ["x"], "thinking": "%(e)s"},
          "turns": [
            {"id": "__proto__", "parent": "", "role": "user", "text": "%(e)s", "files": [{"name": "%(e)s", "text": 7}, null]},
            {"id": "toString", "parent": "__proto__", "role": "assistant", "text": "%(e)s", "fault": "%(e)s", "model": "%(e)s",
             "calls": [{"name": "%(e)s", "args": "%(e)s"}, 4], "stats": {"speed": "%(e)s", "prompt": -1, "completion": 1e999}},
            {"id": "a", "parent": "b", "role": "system", "text": "x"}, {"id": "b", "parent": "a", "pick": "a"},
            {"id": "toString", "parent": "toString"}, {"id": 5}, null]}]}""" % {"e": evil})
        self.wait("[...document.querySelectorAll('#chats .open')].some((b) => b.textContent.includes('onerror'))")
        self.js("[...document.querySelectorAll('#chats .open')].find((b) => b.textContent.includes('onerror')).click()")
        self.assertEqual(self.text(".user .said"), evil)
        self.assertEqual(self.text(".fault p"), evil)
        self.assertEqual(len(self.all(".turn")), 2)  # a turn whose id is there already is none
        self.assertIsNone(self.js("return ({}).polluted === undefined && [].polluted === undefined ? null : 1"))
        self.one(".user .file summary").click()
        self.say("go on")
        self.assertEqual(self.server.requests[-1]["messages"][0]["role"], "user")
        for name in ("temperature", "top_p", "top_k"):
            self.assertNotIn(name, self.server.requests[-1])
        self.assertFalse(self.all("#turns img, #chats img"))

    # -- files --

    def drop(self, *files):
        self.js("""const data = new DataTransfer();
            for (const [name, bytes] of arguments[0]) data.items.add(new File([new Uint8Array(bytes)], name));
            for (const kind of ['dragover', 'drop'])
              document.querySelector('#ask').dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));""",
                [[name, list(data)] for name, data in files])

    def test_files(self):
        path = os.path.join(self.folder, "诗.txt")
        with open(path, "w", encoding="utf-8") as f:
            f.write("白日依山尽\n```\n黄河入海流\n")
        self.one("#file").send_keys(path)
        self.wait("document.querySelectorAll('#files li').length === 1")
        name = 'a`b"><img src=x onerror=window.hacked=50>\u202e.py'
        self.drop((name, b"print(1)\r\n"), ("x.png", b"\x89PNG\r\n\x1a\n\x00\xff"), ("z.bin", b"a\x00b"))
        self.wait("document.querySelectorAll('#files li').length === 2")
        clean = 'ab"><img src=x onerror=window.hacked=50>.py'
        self.assertEqual(self.all("#files li span")[1].text, clean)
        self.assertEqual(self.text("#notice"), "“x.png”: only text files can be read here. “z.bin”: only text files can be read here.")
        self.say("look")
        content = self.server.requests[-1]["messages"][0]["content"]
        self.assertEqual(content, "look\n\nFile: 诗.txt\n````诗.txt\n白日依山尽\n```\n黄河入海流\n````\n\n"
                                  f"File: {clean}\n```{clean}\nprint(1)\n```")
        self.assertEqual(len(self.all(".user .file")), 2)
        self.assertFalse(self.all("#files li"))
        self.one(".user .file summary").click()
        self.wait("document.querySelector('.user .file pre')?.textContent.includes('黄河')")
        self.drop(("a.txt", b"x"))
        self.wait("document.querySelectorAll('#files li').length === 1")
        self.one('#files [aria-label="Remove “a.txt”"]').click()
        self.assertFalse(self.all("#files li"))

    # -- what is hostile --

    def test_hostile_answer(self):
        self.say("hostile")
        md = ".assistant .answer "
        for selector in ("script", "img", "iframe", "svg[onload]", "style", "[onerror]", "[onload]", "[onclick]", "[onmouseover]",
                         ".katex a", "[data-a]", "#ask"):
            self.assertFalse(self.all(md + selector), selector)
        self.assertEqual(len(self.all("#ask")), 1)
        for a in self.all(md + "a"):
            self.assertRegex(a.get_attribute("href"), r"^https://(example\.org|tracker\.example)/")
            self.assertEqual(a.get_attribute("rel"), "noopener noreferrer")
        text = self.text(".assistant .answer")
        for part in ("<script>window.hacked=1</script>", "javascript:window.hacked=6", "<b onmouseover=window.hacked=20>x</b>",
                     "//evil.example/x", "window.hacked=17"):
            self.assertIn(part, text)
        self.assertTrue(self.all(md + ".noimage"))
        for command in ("def", "gdef", "edef", "xdef", "let", "futurelet", "global", "newcommand", "renewcommand",
                        "providecommand"):
            self.assertEqual(self.js("return Qiusuo.math.build(arguments[0], false, '').tagName",
                                     f"\\{command}\\x{{y}} \\x"), "CODE", command)
        self.assertLess(self.js("return document.querySelector('#turns').scrollWidth"), 1200)
        self.assertTrue(self.one("#ask").is_displayed())
        for a in self.all("#turns button, #list button"):
            self.js("arguments[0].dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))", a)
        self.say("<img src=x onerror=window.hacked=60><script>window.hacked=61</script>")
        self.assertFalse(self.all("#turns img, #chats img, #turns script"))
        # the third model's name is markup
        self.assertIn("<img src=x onerror", self.js("return document.querySelector('#model').options[2].textContent"))

    def test_strings_cannot_become_html(self):
        """The browser itself refuses: trusted types without a policy."""
        said = self.js("""const e = document.createElement('div');
            try { e.innerHTML = '<b>x</b>'; } catch (error) { return error.name; } return 'taken';""")
        self.assertEqual(said, "TypeError")
        inline = self.js("""const s = document.createElement('div');
            s.setAttribute('style', 'color: red'); document.body.append(s);
            const c = s.style.color; s.remove(); return c;""")
        self.assertEqual(inline, "")
        self.driver.get_log("browser")
        self.js("window.seen = []")  # both are violations, and meant to be

    def test_formulas(self):
        self.say("math")
        self.assertGreaterEqual(len(self.all(".assistant .katex")), 4)
        self.assertIn("prices $5 and $6.", self.last())
        self.assertEqual(self.text(".assistant .answer > p:last-child"), "Wrong: $\\frac{1}{$ end.")
        svg = self.js("return [...document.querySelectorAll('.assistant .katex-html svg')].map((s) => s.getBoundingClientRect().width)")
        self.assertTrue(svg and all(w > 0 for w in svg))

    # -- long answers --

    TEXTS = ("DEMO", "HOSTILE", "MATH")
    MORE = ["- a\n- b\n\n\ntext\n1. x\n2. y\n   - z\n\n     more\n10) q\n", "a\n---\nb\n===\n# c #\n***\n> q\nlazy\n\n> r\n> - s\n",
            "```\nopen\n\nno end", "~~~py\nx\n~~~\n``` a`b\n", "| a | b |\n|---|:-:|\n| 1 | `x|y` \\| z |\nno\n\n|x|\n", "**中文：**后面 __a__ ~~b~~ *a **b** c* a_b_c ***d*** **",
            "\\[\nx\n\\]\nafter\n\n$$ y $$\n\nend \\(", "- [x] done\n- [ ] open\n* other\n+ third\n", "[l](https://a.b/(c)) https://x.y/z). ![i](u) <https://q.r> `` a`b `` &amp; \\*",
            "1. a\n\n   ```c\n   int x;\n   ```\n2. b\n", "> > > deep\n> - > x\n", "- " * 40 + "x", ">" * 60 + "x", "*" * 3000, "[" * 3000, "`" * 999 + "a", "\\(" * 2000]

    def test_streamed_is_whole(self):
        """A text that comes in pieces, whatever they are, gives the elements of the whole text."""
        texts = [getattr(mock_server, n) for n in self.TEXTS] + self.MORE + ["".join(mock_server.long_answer(600))]
        bad = self.js("""
            const {stream, build} = Qiusuo.markdown, bad = [];
            let seed = 12345;
            const next = (n) => { seed = (seed * 1103515245 + 12345) % 2147483648; return 1 + seed % n; };
            for (const text of arguments[0]) {
              const whole = document.createElement('div');
              build(whole, text);
              for (const most of text.length > 4000 ? [40] : text.length > 900 ? [9, 300] : [1, 5, 50]) {
                const root = document.createElement('div'), s = stream(root);
                for (let pos = 0; pos < text.length;) { pos = Math.min(text.length, pos + next(most)); s.update(text.slice(0, pos), false); }
                s.update(text, true);
                if (root.innerHTML !== whole.innerHTML) bad.push([most, text.slice(0, 60), root.innerHTML.slice(0, 400), whole.innerHTML.slice(0, 400)]);
              }
            }
            return bad;""", texts)
        self.assertEqual(bad, [])

    def check_work(self, pieces):
        work = self.js("""
            const pieces = arguments[0], out = [];
            for (const n of [pieces.length / 4, pieces.length / 2, pieces.length]) {
              const root = document.createElement('div'), s = Qiusuo.markdown.stream(root);
              let text = '', built = 0;
              const count = new MutationObserver(() => {});
              count.observe(root, {childList: true, subtree: true});
              const before = Qiusuo.markdown.work.inline;
              for (let i = 0; i < n; i++) { text += pieces[i]; s.update(text, false); built += count.takeRecords().length; }
              s.update(text, true);
              out.push([Qiusuo.markdown.work.inline - before, built, root.children.length]);
            }
            return out;""", pieces)
        for i in (0, 1):
            self.assertLess(work[2][i], 2.2 * work[1][i])
            self.assertLess(work[1][i], 2.2 * work[0][i])

    def test_work_grows_with_the_text(self):
        """Twice the tokens are twice the work, one update for each token; elements that are settled stay."""
        pieces = mock_server.long_answer(20000)
        self.check_work(pieces)
        self.check_work(["- ", "one ", "*item*\n"] * 2000)  # one list, without a fence between
        self.check_work(["A ", "**paragraph**", ".\n\n"] * 2000)
        # twenty thousand tokens stream in and the page answers to keys meanwhile
        self.one("#ask").send_keys("long 20000", Keys.ENTER)
        self.wait("document.querySelectorAll('.assistant h4').length > 3")
        self.one("#ask").send_keys("typing meanwhile")
        self.js("window.firstBlock = document.querySelector('.assistant .answer').firstElementChild")
        self.wait("document.querySelector('#stop').hidden", 60)
        self.assertEqual(self.one("#ask").get_attribute("value"), "typing meanwhile")
        self.assertTrue(self.js("return window.firstBlock === document.querySelector('.assistant .answer').firstElementChild"))
        self.assertIn("20000 tokens", self.last(".stats"))
        whole = self.js("const e = document.createElement('div'); Qiusuo.markdown.build(e, arguments[0]);"
                        "return e.innerHTML === document.querySelector('.assistant .answer').innerHTML", "".join(pieces))
        self.assertTrue(whole)
        self.assertTrue(self.js("const s = document.querySelector('#scroll'); return s.scrollHeight - s.scrollTop - s.clientHeight < 60"))

    def test_reader_is_not_dragged(self):
        """Who scrolls up while an answer comes stays where they are."""
        self.say("long 600")
        self.say("slow", wait=False)
        self.wait("[...document.querySelectorAll('.assistant .answer p')].pop().textContent.includes('word2')")
        self.js("document.querySelector('#scroll').scrollTop = 100")
        self.wait("!document.querySelector('#to-end').hidden")
        self.wait("[...document.querySelectorAll('.assistant .answer p')].pop().textContent.includes('word12')")
        self.assertLess(self.js("return document.querySelector('#scroll').scrollTop"), 150)
        self.one("#to-end").click()
        self.wait("document.querySelector('#to-end').hidden")
        self.keys(Keys.ESCAPE)
        self.wait("document.querySelector('#stop').hidden")

    # -- copying --

    def test_copy(self):
        self.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        self.say("demo")
        self.one(".code .bar button").click()
        self.wait("document.querySelector('.code .bar button').textContent === 'Copied'")
        read = "navigator.clipboard.readText().then(arguments[0], (e) => arguments[0](String(e)))"
        copied = self.driver.execute_async_script(read)
        self.assertTrue(copied.startswith("import cmath\n\ndef euler") and copied.endswith("< 1e-15)"), copied)
        self.one('.assistant .actions [aria-label="Copy"]').click()
        self.wait("document.querySelector('#status').textContent === 'Copied'")
        self.assertEqual(self.driver.execute_async_script(read).strip(), mock_server.DEMO.strip())

    # -- languages, themes, sizes --

    def test_languages(self):
        self.cdp("Emulation.setLocaleOverride", locale="zh-CN")
        self.js("Object.defineProperty(Navigator.prototype, 'language', {get: () => 'en'})")
        self.say("hello")
        self.one("#language").click()
        self.assertEqual(self.js("return document.documentElement.lang"), "zh-CN")
        self.assertEqual(self.text("#new span"), "新对话")
        self.assertEqual(self.one("#ask").get_attribute("placeholder"), "写点什么")
        self.assertIn("词元/秒", self.last(".stats"))
        self.assertEqual(self.one(".assistant").get_attribute("aria-label"), "助手")
        self.open()
        self.assertEqual(self.text("#new span"), "新对话")
        # nothing English is left but names
        left = self.js("""const left = [], w = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (w.nextNode()) { const e = w.currentNode.parentElement;
              if (/[a-z]{3}/.test(w.currentNode.data.replace('Shift', '')) && !e.closest('script, style, .brand, h1, #model, #chats, #language')) left.push(w.currentNode.data); }
            return left;""")
        self.assertEqual(left, [])
        self.one("#language").click()
        self.assertEqual(self.text("#new span"), "New chat")

    def test_browser_language(self):
        found = self.cdp("Page.addScriptToEvaluateOnNewDocument",
                         source="Object.defineProperty(Navigator.prototype, 'language', {get: () => 'zh-TW'})")
        self.js("localStorage.clear()")
        self.open()
        self.assertEqual(self.text("#new span"), "新对话")
        self.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=found["identifier"])

    def test_themes_and_contrast(self):
        self.say("demo")
        self.say("error500")
        self.one("#open-settings").click()
        for theme in ("light", "dark"):
            self.assertEqual(self.js("return document.documentElement.dataset.theme"), theme)
            texts, bad = self.js(CONTRAST)
            self.assertGreater(texts, 100)
            self.assertEqual(bad, [], theme)
            self.one("#theme").click()
        self.one("#theme").click()
        self.open()
        self.assertEqual(self.js("return document.documentElement.dataset.theme"), "dark")
        self.js("localStorage.clear()")
        self.open()
        self.assertEqual(self.js("return document.documentElement.dataset.theme"), "light")
        self.prefer("dark")
        self.wait("document.documentElement.dataset.theme === 'dark'")

    def overflow(self):
        return self.js("return [document.documentElement.scrollWidth - innerWidth, document.body.scrollWidth - innerWidth,"
                       " document.querySelector('#scroll').scrollWidth - document.querySelector('#scroll').clientWidth]")

    def test_phone(self):
        for width in (360, 320):
            self.size(width, 740, mobile=True)
            self.open()
            self.assertFalse(self.one("#list").is_displayed())
            self.say("demo")
            self.say("hostile")
            self.say("x" * 300)
            self.assertTrue(all(v <= 0 for v in self.overflow()), self.overflow())
            self.one("#open-list").click()
            self.assertTrue(self.one("#list").is_displayed())
            self.one("#chats .open").click()
            self.assertFalse(self.one("#list").is_displayed())
            self.one("#open-settings").click()
            self.assertTrue(all(v <= 0 for v in self.overflow()), self.overflow())
            self.keys(Keys.ESCAPE)
            self.assertFalse(self.one("#settings").is_displayed())
            small = self.js("""return [...document.querySelectorAll('button, select, textarea')].filter((e) => e.checkVisibility())
                .map((e) => [e.id || e.className, e.getBoundingClientRect()]).filter(([n, r]) => r.width < 24 || r.height < 24 || r.right > innerWidth).map(([n]) => n)""")
            self.assertEqual([n for n in small if n != "hidden"], [])

    # -- keyboard and screen readers --

    def test_keyboard_alone(self):
        self.assertEqual(self.js("return document.querySelector('a, button, input, select, textarea').className"), "skip")
        self.js("document.querySelector('.skip').focus()")
        self.keys(Keys.ENTER)
        self.wait("document.activeElement.id === 'ask'")
        self.keys("slow", Keys.ENTER)
        self.wait("document.querySelector('.assistant .answer p')?.textContent.includes('word1')")
        self.keys(Keys.ESCAPE)
        self.wait("document.querySelector('.ending')?.textContent === 'Stopped.'")
        self.keys(alt="e")
        self.wait("document.activeElement.closest('.editor')")
        self.keys(Keys.ESCAPE)
        self.wait("!document.querySelector('.editor') && document.activeElement.id === 'ask'")
        self.keys(alt="r")
        self.wait("!document.querySelector('#stop').hidden")
        self.keys(Keys.ESCAPE)
        self.wait("document.querySelector('.assistant .place')?.textContent === '2/2'")
        self.keys(alt="s")
        self.wait("document.activeElement.id === 'system'")
        self.keys(Keys.ESCAPE)
        self.wait("document.querySelector('#settings').hidden && document.activeElement.id === 'open-settings'")
        self.keys("?")
        self.wait("document.querySelector('#dialog').open && document.querySelectorAll('#dialog dt').length > 8")
        self.keys(Keys.ESCAPE)
        self.wait("!document.querySelector('#dialog').open")
        self.keys("/")
        self.wait("document.activeElement.id === 'ask'")
        self.assertEqual(self.one("#ask").get_attribute("value"), "")
        self.keys(alt="n")
        self.wait("!document.querySelector('.turn')")
        self.keys(alt="l")
        self.wait("document.body.classList.contains('no-list')")
        self.keys(alt="l")
        # a round by Tab: everything is reached, and every stop shows that it has the focus
        self.one("#chats .open").click()
        self.js("document.querySelector('.skip').focus()")
        stops, hidden = set(), []
        for _ in range(45):
            self.keys(Keys.TAB)
            name, shown = self.js("""const e = document.activeElement, s = getComputedStyle(e), box = e.closest('#composer .box');
                return [e.id || e.className || e.tagName, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 ||
                        Boolean(e.id === 'ask' && getComputedStyle(box).boxShadow.includes('0px 0px 0px 1px'))];""")
            stops.add(name)
            if not shown and name != "BODY":
                hidden.append(name)
        self.assertEqual(hidden, [])
        for name in ("new", "search", "open", "import", "model", "language", "theme", "help", "open-settings", "ask", "attach", "send"):
            self.assertIn(name, stops)

    def test_menu_by_keys(self):
        self.say("hello")
        self.js("document.querySelector('#chats .quiet').focus()")
        self.keys(Keys.ENTER)
        self.wait("document.activeElement.textContent === 'Rename'")
        self.keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
        self.wait("document.activeElement.textContent === 'Delete'")
        self.keys(Keys.ESCAPE)
        self.wait("document.querySelector('#menu').hidden && document.activeElement.getAttribute('aria-haspopup') === 'menu'")

    def test_input_method(self):
        """The Enter that ends the input of characters does not send."""
        self.one("#ask").send_keys("ni hao")
        self.js("""document.querySelector('#ask').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}));
                   document.querySelector('#ask').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', keyCode: 229, bubbles: true}));""")
        time.sleep(0.2)
        self.assertEqual(self.server.requests, [])

    def test_names_for_screen_readers(self):
        self.say("demo")
        self.say("reason")
        self.one("#open-settings").click()
        nodes = self.cdp("Accessibility.getFullAXTree")["nodes"]
        roles = {}
        for n in nodes:
            if not n.get("ignored"):
                roles.setdefault(n["role"]["value"], []).append(n.get("name", {}).get("value", ""))
        for role in ("button", "textbox", "combobox", "searchbox", "link", "article", "navigation", "complementary", "region"):
            self.assertTrue(roles.get(role), role)
            self.assertTrue(all(roles[role]), (role, roles[role]))
        self.assertEqual(set(roles["article"]), {"You", "Assistant"})
        self.assertEqual(len(roles["main"]), 1)
        self.assertIn("Chats", roles["navigation"])
        for name in ("Send", "Add text files", "Copy code", "Answer again", "Edit", "Settings"):
            self.assertIn(name, roles["button"])
        self.assertIn("Temperature", roles["textbox"])
        self.assertIn("Message", roles["textbox"])
        self.assertIn("Model", roles["combobox"])
        self.assertTrue(roles.get("math") or roles.get("MathMLMath"), roles.keys())

    def test_announcements_are_few(self):
        self.js("""window.said = []; new MutationObserver(() => { const t = document.querySelector('#status').textContent; if (t) said.push(t); })
            .observe(document.querySelector('#status'), {childList: true, characterData: true, subtree: true});""")
        self.say("demo")
        self.wait("said.length >= 2")
        self.assertEqual(self.js("return said"), ["The assistant is answering.", "The answer is complete, 386 tokens."])
        live = self.js("return [...document.querySelectorAll('[aria-live], [role=log]')].map((e) => e.id)")
        self.assertEqual(live, ["status"])

    def test_without_libraries(self):
        server = mock_server.Server(without=mock_server.embed_page.LIBRARIES)
        self.server.page, self.server.policy = server.page, server.policy
        server.server_close()
        self.open()
        self.say("demo")
        self.assertFalse(self.all(".katex, .hljs-keyword"))
        self.assertIn("e^{ix} = \\cos x", self.text(".assistant code.tex.display"))
        self.assertIn("import cmath", self.text(".code pre"))


class Pictures(Page):
    """The pictures of docs/, to look at."""
    folder_out = ""

    def shot(self, name):
        self.driver.save_screenshot(os.path.join(self.folder_out, name))

    def runTest(self):
        self.size(1100, 800)
        self.one("#language").click()
        self.say("春江潮水连海平，下一句是什么？")
        self.one("#new").click()
        self.say("欧拉公式 是什么？请用公式和代码说明。")
        self.js("document.querySelector('#scroll').scrollTop = 0")
        time.sleep(0.5)
        self.shot("page-light.png")
        self.prefer("dark")
        self.one("#language").click()
        self.size(390, 800, mobile=True)
        self.open()
        self.js("document.querySelector('#chats .open').click()")
        time.sleep(0.3)
        self.js("const s = document.querySelector('#scroll'); s.scrollTop = s.scrollHeight")
        time.sleep(0.5)
        self.shot("page-phone.png")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pictures"]:
        Pictures.folder_out = sys.argv[2]
        unittest.TextTestRunner().run(unittest.TestSuite([Pictures()]))
    else:
        unittest.main(defaultTest=sys.argv[1:] or "Page")
