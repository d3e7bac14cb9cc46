"""What a pseudonym costs, and what requests pay for those on their spans.

    python -m benchmarks.privacy_cost [--rounds 7] [--size 200000]

- cold     an HMAC of a person's key and a destination, as it is made once for each person
- person   the key's look-up by the user's id as well, as the store's writer does it
- cached   of somebody who is known in this process (SpanPseudonyms.of())
- missed   of somebody who is not, and is asked for by the thread later
- session  of a session of theirs, the one of the request before

Processor time, and the best of the rounds: the others measure the machine's neighbours.
"""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Callable

from pbmon import privacy
from pbmon.settings import Settings
from pbmon.worker.pseudonyms import Known, SpanPseudonyms


def best_us(work: Callable[[int], object], size: int, rounds: int) -> float:
    """Of one call, less what the loop takes."""
    found = []
    for _ in range(rounds):
        begin = time.process_time()
        for number in range(size):
            work(number)
        found.append(time.process_time() - begin)
    return min(found) / size * 1e6


def _nothing(number: int) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=200_000)
    args = parser.parse_args()
    key, pepper, other = (secrets.token_bytes(32) for _ in range(3))
    users = [f"user-{number}" for number in range(1000)]
    seen = SpanPseudonyms(Settings, lambda: None)  # type: ignore[arg-type, return-value]
    seen._started = True
    seen._known = {user: Known(key, "otlp") for user in users}
    one = seen.of(users[0])
    assert one is not None
    ways: dict[str, Callable[[int], object]] = {
        "cold": lambda n: privacy.pseudonym(key, "webhook"),
        "person": lambda n: (
            privacy.veiled(other, privacy.lookup(pepper, users[n % 1000])),
            privacy.pseudonym(key, "webhook"),
        ),
        "cached": lambda n: seen.of("user-7"),
        "missed": lambda n: seen.of("user-4711"),
        "session": lambda n: one.session("s"),
    }
    base = best_us(_nothing, args.size, args.rounds)
    for name, work in ways.items():
        print(f"{name:<8} {best_us(work, args.size, args.rounds) - base:6.3f} µs")


if __name__ == "__main__":
    main()
