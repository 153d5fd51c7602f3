"""Pretint: pretrain image encoders by colourization, then judge and export them."""

from ._version import __version__

__all__ = ["__version__"]
