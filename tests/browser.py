"""A headless Chromium that tests drive over its DevTools pipe: no driver program, no socket.

The protocol is JSON messages, each ended by a zero byte, on the browser's descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

_REPLY_S = 30.0
_CODES = {"Enter": 13, "Tab": 9}
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--remote-debugging-pipe"),
)


class Browser:
    """One page. `errors` are what its console or its scripts complained of, `requests` the
    addresses it asked for."""

    def __init__(self, program: Path, folder: Path) -> None:
        if not program.exists():
            raise FileNotFoundError(f"{program} is missing: run `make lab`")
        self.errors: list[str] = []
        self.requests: list[str] = []
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = [str(program), *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
        # The two descriptors must be 3 and 4 in the child: a shell moves them there.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._child = subprocess.Popen(
            ["/bin/bash", "-c", script, "chromium", *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._data = b""
        self._number = 0
        self._session = ""
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._in)
        os.close(self._out)

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + _REPLY_S
        while b"\0" not in self._data:
            ready, _, _ = select.select([self._in], [], [], max(deadline - time.monotonic(), 0))
            more = os.read(self._in, 1 << 16) if ready else b""
            if not more:
                raise TimeoutError("the browser says nothing")
            self._data += more
        message, _, self._data = self._data.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _event(self, message: dict[str, Any]) -> str:
        """Keep what an event says; its name."""
        name, more = message.get("method", ""), message.get("params", {})
        if name == "Runtime.exceptionThrown":
            self.errors.append(str(more["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled" and more["type"] in ("error", "warning"):
            self.errors.append(str(more["args"]))
        elif name == "Log.entryAdded" and more["entry"]["level"] == "error":
            self.errors.append(more["entry"]["text"])
        elif name == "Network.requestWillBeSent":
            self.requests.append(more["request"]["url"])
        return str(name)

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']}")
                result: dict[str, Any] = reply["result"]
                return result
            self._event(reply)

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file, until its scripts have run."""
        self._call("Page.navigate", url="about:blank")
        self._until_loaded()
        self._call("Page.navigate", url=path.resolve().as_uri() + fragment)
        self._until_loaded()

    def _until_loaded(self) -> None:
        while self._event(self._read()) != "Page.loadEventFired":
            pass

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        reply = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until a JavaScript expression is true, looking once for each frame."""
        look = f"const look = () => ({script}) ? resolve(true) : requestAnimationFrame(look)"
        promise = f"new Promise((resolve) => {{ {look}; look(); }})"
        reply = self._call("Runtime.evaluate", expression=promise, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply

    def press(self, key: str) -> None:
        """A key, by its DOM name: `ArrowRight`, `Home`, `j`."""
        text: dict[str, object] = {"text": key} if len(key) == 1 else {}
        if key in _CODES:  # without these it does nothing by itself
            text = {"text": "\r" if key == "Enter" else "", "windowsVirtualKeyCode": _CODES[key]}
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the window, and the colours that its owner prefers."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """What is to be seen, as a PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))
