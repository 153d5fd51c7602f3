"""How is a text that came from outside shown, so that it steers no terminal and every writer takes it?"""

from __future__ import annotations


def legible(text: str) -> str:
    r"""The text on one line: letters of any language stay, what can't be printed or is no Unicode is written as an escape.

    >>> print(legible("caf\u00e9 \x1b[31m\n" + b"\xff".decode(errors="surrogateescape")))
    café \x1b[31m\x0a\xff
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def shortened(text: str, most: int = 200) -> str:
    """The text, or its beginning: what a file holds may be a hundred megabytes long, and a message is one sentence."""
    return text if len(text) <= most else f"{text[:most]}…"


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no UTF-8, as Python carries it about
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
