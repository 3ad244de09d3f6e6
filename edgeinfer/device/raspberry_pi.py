"""What the firmware of a Raspberry Pi says of its power and its clock: ``get_throttled``.

Three ways lead there. Raspberry Pi's own kernels had a file for it, until they dropped it. The
mailbox is what ``vcgencmd`` asks, without starting a process. The kernel of kernel.org has
neither, and an alarm for under-voltage alone.

Source of the bits: the documentation of ``vcgencmd``, raspberrypi.com/documentation/computers/os.
"""

from __future__ import annotations

import array
import struct
from collections.abc import Callable
from pathlib import Path

from edgeinfer.device.procfs import read_int, read_text

_BITS = ("under-voltage", "clock capped by the firmware", "throttled by the firmware",
         "soft temperature limit")  # fmt: skip
_PAST = 16  # the same bits again, since the start

_GET_THROTTLED = 0x00030046  # property of the mailbox
_REQUEST = 3 << 30 | struct.calcsize("P") << 16 | 100 << 8  # _IOWR(100, 0, char *)


def firmware(root: Path) -> Callable[[], int] | None:
    """A function that reads the bits, or None if this is no Raspberry Pi."""
    files = list((root / "sys/devices/platform").glob("soc*/soc*firmware/get_throttled"))
    if files:
        return lambda: _hexadecimal(read_text(files[0]))
    mailbox = root / "dev/vcio"
    if mailbox.exists():
        return lambda: _ask(mailbox)
    for chip in (root / "sys/class/hwmon").glob("hwmon[0-9]*"):
        if read_text(chip / "name").strip() == "rpi_volt":
            return lambda: read_int(chip / "in0_lcrit_alarm") or 0
    return None


def reasons(bits: int) -> tuple[list[str], list[str]]:
    """What the bits say of now, and of the past that is over."""
    now = [text for bit, text in enumerate(_BITS) if bits >> bit & 1]
    past = [text for bit, text in enumerate(_BITS) if bits >> (bit + _PAST) & 1]
    return now, [text for text in past if text not in now]


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _ask(mailbox: Path) -> int:
    """Asks the mailbox; 0 where this process may not."""
    import fcntl

    # Bytes in all, request; property, bytes of its value, request, value (sent as 0, it leaves
    # the past as it is); end.
    message = array.array("I", [28, 0, _GET_THROTTLED, 4, 0, 0, 0])
    try:
        with mailbox.open("rb", buffering=0) as device:
            fcntl.ioctl(device, _REQUEST, message, True)
    except OSError:
        return 0
    return message[5]
