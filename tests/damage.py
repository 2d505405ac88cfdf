"""Ways in which a stored file is damaged."""


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "changed": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
}
