"""A real browser for tests: Chromium without a window, spoken to over its pipe; nothing to install but Chromium.

Messages of the DevTools protocol end with a zero byte; Chromium reads them from descriptor 3 and writes to 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 90.0  # seconds: a machine may be busy


def path() -> str | None:
    """Where a Chromium is; `CHROMIUM` says so first."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page: go somewhere, ask it things, press its keys; `said` is what it wrote to the console, errors too."""

    def __init__(self, read: int, write: int):
        self._read, self._write, self._left, self._n = read, write, b"", 0
        self.said: list[str] = []
        self._session = ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Performance"):
            self._ask(f"{domain}.enable")

    def go(self, file: Path) -> float:
        """Open a file; seconds until it was drawn."""
        begun = time.perf_counter()
        self._ask("Page.navigate", url=file.resolve().as_uri())
        while self.ask("document.readyState") != "complete":
            time.sleep(0.02)
        self.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        return time.perf_counter() - begun

    def ask(self, script: str) -> Any:
        """The value of an expression."""
        found = self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        code = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "ArrowUp": 38, "ArrowDown": 40}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def look(self, width: int, height: int, dark: bool = False, phone: bool = False, paper: bool = False) -> None:
        """The size of the window and what the reader likes; `paper` is the page as it is printed."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme, still], media="print" * paper)

    def busy(self) -> float:
        """Seconds that the page's thread has worked so far, since it was made."""
        told = {one["name"]: one["value"] for one in self._ask("Performance.getMetrics")["metrics"]}
        return told["TaskDuration"]

    def shoot(self, file: Path, whole: bool = True) -> None:
        shot = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._n += 1
        message = {"id": self._n, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._n:
                assert "error" not in heard, heard
                return heard["result"]
            self._note(heard)

    def _note(self, heard: dict[str, Any]) -> None:
        """What the page says without being asked, as far as it is a complaint or a request."""
        told = heard.get("params", {})
        if heard.get("method") == "Runtime.exceptionThrown":
            self.said.append(str(told["exceptionDetails"]))
        elif heard.get("method") == "Log.entryAdded":
            self.said.append(told["entry"]["text"])
        elif heard.get("method") == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(one.get("value")) for one in told["args"]))
        elif heard.get("method") == "Network.requestWillBeSent":
            asked = told["request"]["url"]
            self.said += [] if asked.startswith(("file:", "data:", "blob:", "about:")) else [f"asked for {asked}"]

    def _hear(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._read], [], [], max(until - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            self._left += os.read(self._read, 1 << 20)
        one, self._left = self._left.split(b"\0", 1)
        return json.loads(one)


@contextmanager
def browser(home: Path) -> Iterator[Page]:
    """A Chromium with nothing in its memory, and one page of it."""
    program = path()
    assert program, "no Chromium"
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={home}")
    flags += ("--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--disable-background-networking")

    def third_and_fourth() -> None:
        low, high = os.dup(to_read), os.dup(to_write)
        os.dup2(low, 3)
        os.dup2(high, 4)

    process = subprocess.Popen(
        [program, *flags], preexec_fn=third_and_fourth, close_fds=False, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Page(read, write)
    finally:
        process.terminate()
        process.wait()
        for end in (to_read, write, read, to_write):
            os.close(end)
