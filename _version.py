"""The version of Pretint: one place, read by setup.cfg and by run folders."""

__version__ = "0.1.0"
