"""How the Python programs report: one line for each step, in the words of ../README.md."""

import time

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
KEYLESS = {3, 7}  # Which of the ten records of `record-errors` have no key.
lacking = set()  # The steps that the client has nothing for.


class Failed(Exception):
    """A step did what it should not."""


def say(*words):
    print(*(" ".join(str(word).split())[:400] for word in words), flush=True)


def begin(client, version, needs, lacks):
    """Says who runs, what is known not to work and why, and what the client does not have."""
    lacking.update(lacks)
    say("client", client, version)
    for step, what in needs.items():
        if step not in lacks:
            say("needs", step, what)
    for step, why in lacks.items():
        say("step", step, "unsupported", why)


def report(name, error):
    if error is None:
        say("step", name, "ok")
    else:
        say("step", name, "failed", f"{type(error).__name__}: {error}")


def step(name, action, *arguments):
    """Runs one step, unless the client has no such thing, and says how it went. Gives what `action` gives."""
    if name in lacking:
        return None
    try:
        result = action(*arguments)
    except Exception as error:
        report(name, error)
        return None
    report(name, None)
    return result


async def async_step(name, action, *arguments):
    """Like `step`, for a coroutine function."""
    try:
        result = await action(*arguments)
    except Exception as error:
        report(name, error)
        return None
    report(name, None)
    return result


def check(holds, what):
    if not holds:
        raise Failed(what)


def values(first, count):
    return {f"value-{number}" for number in range(first, first + count)}


def pairs(first, count):
    """Keys and values of the records that a program writes."""
    return [(f"key-{number}".encode(), f"value-{number}".encode()) for number in range(first, first + count)]


class Seen:
    """The values that were read; none may come twice."""

    def __init__(self, seconds=30):
        self.values = set()
        self.deadline = time.monotonic() + seconds

    def add(self, value):
        value = value.decode()
        check(value not in self.values, f"twice: {value}")
        self.values.add(value)

    def waits_for(self, count):
        """Whether to go on reading."""
        return len(self.values) < count and time.monotonic() < self.deadline

    def expect(self, wanted):
        missing, unwanted = sorted(wanted - self.values), sorted(self.values - wanted)
        check(not missing, f"{len(missing)} missing, first {missing[:1]}")
        check(not unwanted, f"{len(unwanted)} too many, first {unwanted[:1]}")
