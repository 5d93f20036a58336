# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A headless Chromium that opens pages, uploads files and clicks, by its DevTools protocol over two pipes."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
SAFE = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-sync", *QUIET]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# It reads from 3 and writes to 4, which may be taken
_START = """
import fcntl, os, sys
for fd, name in zip([fcntl.fcntl(int(name), fcntl.F_DUPFD, 10) for name in sys.argv[1:3]], (3, 4)):
    os.dup2(fd, name)
os.execvp(sys.argv[3], sys.argv[3:])
"""

_WAIT = """
new Promise((resolve, reject) => {
  const observer = new MutationObserver(check);
  const timer = setTimeout(() => { observer.disconnect(); reject(new Error("never: " + %s)); }, %d);
  function check() {
    const value = (() => { try { return %s } catch { return null } })();
    if (value) { observer.disconnect(); clearTimeout(timer); resolve(value); }
  }
  observer.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
  document.addEventListener("timeupdate", check, true);
  check();
})
"""


class Browser:
    """The browser's process, for the time of a `with` block."""

    def __init__(self, folder):
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        command = [CHROMIUM, *SAFE, "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]
        start = [sys.executable, "-S", "-c", _START, str(read_there), str(write_there), *command]
        self.process = subprocess.Popen(start, pass_fds=(read_there, write_there), stderr=subprocess.DEVNULL)
        os.close(read_there)
        os.close(write_there)
        self.incoming, self.outgoing = read_here, write_here
        self.number, self.pending, self.events = 0, b"", []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with contextlib.suppress(OSError, AssertionError):  # it may be gone
            self.send("Browser.close")
        os.close(self.incoming)
        os.close(self.outgoing)
        self.process.wait(20)

    def send(self, method, session=None, **params):
        """The result of a command; events that come in between are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.outgoing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def _receive(self):
        while b"\0" not in self.pending:
            part = os.read(self.incoming, 2**20)
            assert part, "the browser is gone"
            self.pending += part
        message, _, self.pending = self.pending.partition(b"\0")
        return json.loads(message)

    def open(self, address, width=1280, height=900):
        """A new tab with this page."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        tab = Tab(self, self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Network", "Runtime"):
            tab.send(f"{domain}.enable")
        tab.resize(width, height)
        tab.send("Page.navigate", url=address)
        return tab


class Tab:
    """A page in the browser."""

    def __init__(self, browser, session):
        self.browser, self.session = browser, session

    def send(self, method, **params):
        return self.browser.send(method, self.session, **params)

    def resize(self, width, height):
        mobile = width < 600
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def evaluate(self, expression, **options):
        """The value of an expression of JavaScript, or of what it promises."""
        result = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, **{"returnByValue": True, **options}
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value", result["result"])

    def wait(self, expression, seconds=25):
        """The value of an expression once the page has changed so that it is true."""
        return self.evaluate(_WAIT % (json.dumps(expression), 1000 * seconds, expression))

    def click(self, element):
        """Clicks the element that an expression gives, once it is there."""
        self.wait(f"!!({element})")
        self.evaluate(f"({element}).click()")

    def type(self, element, text):
        self.wait(f"!!({element})")
        self.evaluate(
            f"(field => {{ field.value = {json.dumps(text)}; field.dispatchEvent(new Event('input', {{bubbles: true}})) }})({element})"
        )

    def upload(self, element, path):
        self.wait(f"!!({element})")
        found = self.evaluate(element, returnByValue=False)
        self.send("DOM.setFileInputFiles", files=[str(path)], objectId=found["objectId"])

    def screenshot(self, path, whole=True):
        content = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(content))

    def requests(self):
        """The addresses that the page has asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.browser.events
            if event.get("method") == "Network.requestWillBeSent" and event.get("sessionId") == self.session
        ]
