"""A page in headless Chromium: what it logs, what it asks the network for, how it looks.

Speaks the DevTools protocol over Chromium's own pipe, so that a `chromium` on the PATH is all
that is needed. By hand: `python tests/headless_chromium.py report.html FOLDER` writes screenshots
in both widths and both colour schemes.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_LOCAL = ("file:", "data:", "blob:", "about:")
_DRAWN = """
(() => {
  const all = [...document.querySelectorAll('.canvas')].filter((x) => x.checkVisibility());
  return all.every((x) => x.dataset.drawn) && document.readyState === 'complete';
})()
"""


def find_chromium() -> str | None:
    """A Chromium or Chrome on the PATH."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


@dataclass
class Page:
    """What one page did: errors it logged, addresses it asked the network for."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    loaded: bool = False

    def note(self, event: dict[str, Any]) -> None:
        method, params = event["method"], event.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            said = [arg.get("value", arg.get("description")) for arg in params["args"]]
            self.errors.append(f"console.{params['type']}: {said}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(_LOCAL):
                self.requests.append(url)


class Chromium:
    """A browser with one page, in a fresh profile; use as a context manager."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.page = Page()
        self._next = 0
        self._buffer = b""
        self._answers: dict[int, dict[str, Any]] = {}

    def __enter__(self) -> "Chromium":
        self._profile = tempfile.mkdtemp(prefix="chromium-profile-")
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        inside, outside = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs_in, theirs_out))
        quiet = os.open(os.devnull, os.O_RDWR)
        self._pid = os.posix_spawn(
            self.path,
            [self.path, *FLAGS, f"--user-data-dir={self._profile}"],
            {**os.environ, "HOME": self._profile},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, quiet, 0),
                (os.POSIX_SPAWN_DUP2, quiet, 1),
                (os.POSIX_SPAWN_DUP2, quiet, 2),
                (os.POSIX_SPAWN_DUP2, inside, 3),
                (os.POSIX_SPAWN_DUP2, outside, 4),
            ],
            setpgroup=0,
        )
        for fd in (theirs_in, theirs_out, inside, outside, quiet):
            os.close(fd)
        target = self.send("Target.createTarget", {"url": "about:blank"}, session=None)
        attached = self.send(
            "Target.attachToTarget",
            {"targetId": target["targetId"], "flatten": True},
            session=None,
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._profile, ignore_errors=True)

    def send(self, method: str, params: dict | None = None, *, session: str | None = "page") -> Any:
        """One command and its answer."""
        self._next += 1
        message = {"id": self._next, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        wanted = self._next
        self._read(lambda: wanted in self._answers, what=method)
        answer = self._answers.pop(wanted)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _read(self, done, *, what: str, seconds: float = 120) -> None:
        """Read messages until `done()`."""
        end = time.monotonic() + seconds
        while not done():
            if not select.select([self._from], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"no answer to {what} within {seconds} s")
            chunk = os.read(self._from, 1 << 20)
            if not chunk:
                raise RuntimeError(f"Chromium ended during {what}")
            *messages, self._buffer = (self._buffer + chunk).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers[message["id"]] = message
                else:
                    self.page.note(message)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.send(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True},
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Set the size of the window and the colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, path: Path, *, width: int = 1280, dark: bool = False) -> Page:
        """Load a file from disk and wait until its figures are drawn."""
        self.page = Page()
        self.look(width=width, dark=dark)
        self.send("Page.navigate", {"url": path.resolve().as_uri()})
        self._read(lambda: self.page.loaded, what="loading")
        self.settle()
        return self.page

    def settle(self, seconds: float = 60) -> None:
        """Wait until every visible figure is drawn."""
        end = time.monotonic() + seconds
        while not self.evaluate(_DRAWN):
            if time.monotonic() > end or self.page.errors:
                break  # a page that failed is reported by its errors
            time.sleep(0.05)
        self.evaluate("new Promise((done) => setTimeout(done, 150))")

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.send("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        path.write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    report, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with Chromium(find_chromium() or "chromium") as browser:
        for width in (1280, 390):
            for dark in (False, True):
                page = browser.open(report, width=width, dark=dark)
                target = folder / f"{report.stem}_{width}_{'dark' if dark else 'light'}.png"
                browser.screenshot(target)
                overflow = browser.evaluate("document.documentElement.scrollWidth") - width
                print(target, page.errors, page.requests, f"overflow {overflow}")
