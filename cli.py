"""The `pretint` command."""


def main() -> int:
    return 0
