# SPDX-License-Identifier: GPL-2.0-only
"""The user's side: FreeRDP as VMConnect, in an X server of its own that can be looked at."""
from __future__ import annotations

import os
import select
import shutil
import signal
import struct
import subprocess
import time
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

from hvhost.roots import Root

WIDTH, HEIGHT = 1024, 768
NAMES = ("xfreerdp", "xfreerdp3")               # FreeRDP 2 of Debian 12, FreeRDP 3 of Debian 13
HOME = Path("/mnt/home")                        # in a root
LOUDSPEAKER = "loudspeaker"                     # PulseAudio's socket, if it was started


class ClientError(Exception):
    """What the user would complain about."""


class Picture:
    """What the screen showed at one moment, 24 bits deep."""

    def __init__(self, width: int, height: int, rows: Sequence[bytes]) -> None:
        self.width, self.height = width, height
        self._rows = rows                       # blue, green, red, nothing

    @classmethod
    def of_xwd(cls, data: bytes) -> Picture:
        """From the X window dump which Xvfb keeps of its screen."""
        words = struct.unpack_from(">25I", data)
        header, width, height, order, bits, stride, colours = (
            words[0], words[4], words[5], words[7], words[11], words[12], words[19])
        if (order, bits) != (0, 32):
            raise ClientError(f"the X server's pixels are not understood: {order=}, {bits=}")
        at = header + 12 * colours
        rows = [data[at + y * stride:at + y * stride + 4 * width] for y in range(height)]
        return cls(width, height, rows)

    def share(self, rgb: str, box: tuple[int, int, int, int] | None = None) -> float:
        """How much of the picture, or of (left, top, right, bottom), has exactly this colour."""
        left, top, right, bottom = box or (0, 0, self.width, self.height)
        pixel = int(rgb, 16)
        rows = self._rows[top:bottom:4]         # enough of them
        found = 0
        for row in rows:
            pixels = memoryview(row[4 * left:4 * right]).cast("I").tolist()
            found += pixels.count(pixel) + pixels.count(pixel | 0xFF000000)
        return found / ((right - left) * len(rows))

    def png(self, comment: str) -> bytes:
        """The picture as a PNG file, with a word on where it comes from."""
        def chunk(kind: bytes, data: bytes) -> bytes:
            return (struct.pack(">I", len(data)) + kind + data
                    + struct.pack(">I", zlib.crc32(kind + data)))

        raw = bytearray()
        for row in self._rows:
            line = bytearray(3 * self.width)
            line[0::3], line[1::3], line[2::3] = row[2::4], row[1::4], row[0::4]
            raw += b"\0" + line
        return (b"\x89PNG\r\n\x1a\n"
                + chunk(b"IHDR", struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0))
                + chunk(b"tEXt", b"Comment\0" + comment.encode("latin-1"))
                + chunk(b"IDAT", zlib.compress(bytes(raw), 9)) + chunk(b"IEND", b""))


class Screen:
    """An X server without a monitor, and programs on it. FreeRDP's home is the directory; it is
    this machine's, or FreeRDP 3 in a root that has it.
    """

    def __init__(self, directory: Path, root: Root | None = None) -> None:
        self.home = HOME if root else directory
        self._directory, self._root = directory, root
        self._programs: list[subprocess.Popen[bytes]] = []
        ready, number = os.pipe()
        try:
            # Without the repetition of keys that are held: on a busy machine all are.
            self._start(["Xvfb", "-r", "-displayfd", str(number), "-fbdir", str(directory),
                         "-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-nolisten", "tcp", "-noreset"],
                        "xvfb.log", pass_fds=[number])
        finally:
            os.close(number)
        display = b""
        with open(ready, "rb", buffering=0) as lines:
            while not display.endswith(b"\n") and select.select([lines], [], [], 30)[0]:
                if not (more := lines.read(16)):
                    break
                display += more
        if not display.endswith(b"\n"):
            self.close()
            raise ClientError("Xvfb did not start: see xvfb.log")
        self._display = f":{display.decode().strip()}"

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End everything that was started here, the X server last."""
        for program in reversed(self._programs):
            program.terminate()
            try:
                program.wait(5)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
        self._programs.clear()

    def _start(self, command: list[str], log: str, environment: dict[str, str] | None = None,
               pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        with (self._directory / log).open("ab") as output:
            program = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, env=environment, pass_fds=pass_fds,
                start_new_session=True)
        self._programs.append(program)
        return program

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self._directory),
                "DISPLAY": self._display, "LC_ALL": "C.UTF-8"}

    def connect(self, vm_id: uuid.UUID, port: int, user: str, password: str, *options: str,
                security: str = "tls") -> Client:
        """Start FreeRDP as VMConnect would connect."""
        command = client_command(vm_id, port, security, NAMES[1:] if self._root else NAMES) + [
            f"/u:{user}", f"/p:{password}", f"/size:{WIDTH}x{HEIGHT}", "/bpp:24", "-decorations",
            *options]
        return Client(self.start(command, "freerdp.log"))

    def start(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        """Start a program where FreeRDP is, which ends with the screen."""
        if self._root:
            command = self._root.command(command, binds={self._directory: str(HOME)}, becomes=True)
        return self._start(command, log, {
            **self._environment(), "HOME": str(self.home),
            "PULSE_SERVER": f"unix:{self.home}/{LOUDSPEAKER}"})

    def picture(self) -> Picture:
        """What the screen shows now."""
        return Picture.of_xwd((self._directory / "Xvfb_screen0").read_bytes())

    def act(self, *action: str) -> None:
        """What the user does with mouse and keyboard, in xdotool's words."""
        done = subprocess.run(["xdotool", *action], env=self._environment(), check=False,
                              capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise ClientError(f"xdotool {action[0]}: {done.stderr.strip()}")

    def type(self, x: int, y: int, text: str) -> None:
        """Click there, type the text as a user would, press Return."""
        self.act("mousemove", str(x), str(y), "sleep", "0.3", "click", "1", "sleep", "0.5")
        self.act("type", "--delay", "40", text)
        self.act("key", "Return")

    def copy(self, data: bytes, kind: str = "UTF8_STRING") -> None:
        """Put something into the clipboard, as a program of the user's would."""
        done = subprocess.run(["xclip", "-selection", "clipboard", "-in", "-target", kind],
                              input=data, env=self._environment(), check=False, timeout=60,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if done.returncode:
            raise ClientError(f"xclip: status {done.returncode}")

    def paste(self, kind: str = "UTF8_STRING") -> bytes:
        """What is in the clipboard; nothing if that is of another kind."""
        return subprocess.run(["timeout", "5", "xclip", "-selection", "clipboard", "-out",
                               "-target", kind], env=self._environment(), check=False,
                              capture_output=True, timeout=60).stdout


class Client:
    """FreeRDP while it runs."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        self._program = program
        self.started = time.monotonic()

    @property
    def name(self) -> str:
        """What the process is."""
        return Path(f"/proc/{self._program.pid}/comm").read_text().strip()

    def file(self, uri: str) -> Path:
        """Where a file is for others that it knows by this."""
        return Path(f"/proc/{self._program.pid}/root{unquote(urlsplit(uri).path)}")

    def check(self) -> None:
        """Complain if it has gone."""
        if self._program.poll() is not None:
            raise ClientError(f"FreeRDP ended with {self._program.returncode}: see freerdp.log")

    def wait(self, seconds: float) -> int:
        """Its exit status, once it has ended by itself."""
        try:
            return self._program.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise ClientError(f"FreeRDP is still there after {seconds:.0f} s") from error

    def send(self, number: signal.Signals) -> None:
        """Suspend it, or let it go on."""
        self._program.send_signal(number)

    def leave(self) -> None:
        """Close the window, as a user who has seen enough."""
        self._program.terminate()
        self._program.wait(10)


def client_command(vm_id: uuid.UUID, port: int, security: str = "tls",
                   names: Sequence[str] = NAMES) -> list[str]:
    """FreeRDP's command line as VMConnect, but for the user and the looks. Security is `tls`
    alone, or `nla` with CredSSP. One name need not be of this machine.
    """
    there = names if len(names) == 1 else [name for name in names if shutil.which(name)]
    if not there:
        raise ClientError("FreeRDP's X11 client is not installed")
    return [there[0], f"/vmconnect:{vm_id};EnhancedMode=1", "/v:127.0.0.1", f"/port:{port}",
            "/cert:ignore", f"/sec:{security}", "/timeout:60000"]
