"""`Postman`: delivers callbacks from the outbox until they are answered, or it gives up."""

from __future__ import annotations

import copy
import heapq
import itertools
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import msgspec

from pman.actions.base import Timers
from pman.errors import PmanError
from pman.job.callback import Target, check_allowed, parse_target
from pman.jobdb.outbox import Letter, OutboxChanges
from pman.jobdb.reader import Reader
from pman.services.base import Service
from pman.services.courier import TRY_S, Errand, Undelivered
from pman.services.signing import Signer

_log = logging.getLogger(__name__)

#: After the first try, and at most, until the next one, seconds; doubled from try to try.
BACKOFF_FIRST_S, BACKOFF_MAX_S = 1.0, 3600.0

#: Share of such a time by which it is longer or shorter, lest all come at once.
JITTER = 0.25

#: How long a letter is tried, and how long one that was given up stays to be seen, seconds.
GIVE_UP_S, SHOWN_S = 3 * 24 * 3600.0, 30 * 24 * 3600.0

#: Threads in all; for one receiver; for one in trouble, which has not answered the last time.
MAX_COURIERS, MAX_FOR_ONE, MAX_FOR_TROUBLE = 32, 4, 1

#: Threads for all receivers in trouble together: the others are kept for those that answer.
MAX_IN_TROUBLE = MAX_COURIERS // 2

#: How long a courier goes on with letters to one receiver before others have their turn, seconds.
ROUND_S = 1.0

#: Longest time without a look at the clock, which somebody may set, seconds.
LOOK_S = 60.0

#: How long the couriers may take to end, seconds.
STOP_S = 2.0

#: A receiver says with it that it wants no more. Source: Standard Webhooks, "Deliverability".
GONE = 410

#: Address and auid.
_Key = tuple[str, str]


class _Receiver:
    """The letters of one user to one address.

    What one user's URLs do at an address that others use too is not held against these.
    """

    __slots__ = ("auid", "couriers", "due", "is_in_trouble")

    def __init__(self, auid: str) -> None:
        self.auid = auid
        self.due: list[tuple[float, int, Letter]] = []  # a heap: when, a number, the letter
        self.couriers = 0
        self.is_in_trouble = False

    @property
    def may_have_more(self) -> bool:
        return self.couriers < (MAX_FOR_TROUBLE if self.is_in_trouble else MAX_FOR_ONE)


class _Load:
    """What the couriers are busy with."""

    __slots__ = ("_free", "_free_for_trouble", "_of_auid")

    def __init__(self, visited: Collection[_Receiver]) -> None:
        """Count.

        Args:
            visited: The receiver of each courier.
        """
        self._of_auid = Counter(each.auid for each in visited)
        self._free = MAX_COURIERS - len(visited)
        in_trouble = sum(each.is_in_trouble for each in visited)
        self._free_for_trouble = min(self._free, MAX_IN_TROUBLE - in_trouble)

    def allows(self, receiver: _Receiver) -> bool:
        """Tell whether a receiver may have one more courier."""
        free = self._free_for_trouble if receiver.is_in_trouble else self._free
        return receiver.may_have_more and self._of_auid[receiver.auid] < free


class Postman(Service):
    """Tries each letter until it is answered with a code of the 200s.

    Each receiver has few threads at a time, so that one that is slow holds up none of the others.
    Nor does one user hold up the rest: a courier is sent out for it only while it has fewer than
    are free, so at most half of all; the next user has half of what is left, and so on.
    What has become of a letter is written through the writer; one that was answered is not sent
    again, but for a crash before that is on disk.
    """

    def __init__(
        self,
        reader: Reader,
        change_outbox: Callable[[OutboxChanges], None],
        signer: Signer,
        allowed: Sequence[str],
        timers: Timers,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare a postman.

        Args:
            reader: For the letters.
            change_outbox: Makes durable what has become of them.
            allowed: Hosts that may be called, as in `check_allowed`.
            now: UTC epoch seconds.
        """
        super().__init__("postman")
        self._reader = reader
        self._change_outbox = change_outbox
        self._signer = signer
        self._allowed = allowed
        self._timers = timers
        self._now = now
        self._news = threading.Condition()
        self._known: set[str] = set()  # letters in memory have no bodies
        self._receivers: dict[_Key, _Receiver] = {}  # who was served last is last
        self._numbers = itertools.count()
        self._threads: dict[threading.Thread, _Receiver] = {}
        self._errands: set[Errand] = set()

    def take(self, letters: Sequence[Letter]) -> None:
        """Take letters that have become durable; from any thread."""
        with self._news:
            for letter in letters:
                if letter.id not in self._known:
                    self._known.add(letter.id)
                    self._post(msgspec.structs.replace(letter, body=b""))
            self._news.notify()

    def request_stop(self) -> None:
        """Ask for the end; tries that are under way are cut short and count for nothing."""
        super().request_stop()
        with self._news:
            for errand in self._errands:
                errand.cut()
            self._news.notify_all()

    def setup(self) -> None:
        """Take what the outbox holds."""
        letters = self._reader.letters()
        long_ago = self._now() - SHOWN_S
        old = [each.id for each in letters if each.given_up_at and each.given_up_at < long_ago]
        if old:
            self._change_outbox(OutboxChanges(done=old))
        given_up = sum(each.given_up_at is not None for each in letters) - len(old)
        if given_up:
            _log.warning("%d callbacks were given up and stay in the outbox", given_up)
        self.take([each for each in letters if each.given_up_at is None])

    def serve(self) -> None:
        """Send out couriers until `stopping` is set."""
        with self._news:
            while not self.stopping.is_set():
                key = self._next_receiver()
                if key is None:
                    self._news.wait(self._wait_s())
                else:
                    self._send_out(key)

    def teardown(self) -> None:
        """Wait for the couriers, not for long."""
        deadline = time.monotonic() + STOP_S
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    # --- with the lock held ---------------------------------------------------------------

    def _post(self, letter: Letter) -> None:
        key = _address(letter.url), letter.auid
        receiver = self._receivers.setdefault(key, _Receiver(letter.auid))
        heapq.heappush(receiver.due, (letter.next_at, next(self._numbers), letter))

    def _next_receiver(self) -> _Key | None:
        """Return a receiver with a letter that nobody takes yet: the one that waits longest."""
        if len(self._threads) >= MAX_COURIERS:
            return None
        now = self._now()
        load = _Load(self._threads.values())
        for key, receiver in self._receivers.items():
            if receiver.due and receiver.due[0][0] <= now and load.allows(receiver):
                return key
        return None

    def _wait_s(self) -> float:
        """Return how long nothing is to be done unless there are news."""
        if len(self._threads) >= MAX_COURIERS:
            return LOOK_S
        load = _Load(self._threads.values())
        first = min(
            (each.due[0][0] for each in self._receivers.values() if each.due and load.allows(each)),
            default=self._now() + LOOK_S,
        )
        return min(max(0.0, first - self._now()), LOOK_S)

    def _send_out(self, key: _Key) -> None:
        receiver = self._receivers.pop(key)
        self._receivers[key] = receiver
        receiver.couriers += 1
        thread = threading.Thread(
            target=self._deliver, args=(key, receiver), name="courier", daemon=True
        )
        self._threads[thread] = receiver
        thread.start()

    # --- the couriers ---------------------------------------------------------------------

    def _deliver(self, key: _Key, receiver: _Receiver) -> None:
        """Deliver what is due, one after the other, until a try fails or the round is over."""
        deadline = time.monotonic() + ROUND_S
        try:
            while (letter := self._next_letter(receiver)) is not None:
                is_good = self._try(letter, key[0], receiver)
                if not is_good or time.monotonic() >= deadline:
                    break
        finally:
            with self._news:
                receiver.couriers -= 1
                if not receiver.due and not receiver.couriers:
                    self._receivers.pop(key, None)
                self._threads.pop(threading.current_thread(), None)
                self._news.notify()

    def _next_letter(self, receiver: _Receiver) -> Letter | None:
        with self._news:
            if self.stopping.is_set() or not receiver.due or receiver.due[0][0] > self._now():
                return None
            if receiver.is_in_trouble and receiver.couriers > MAX_FOR_TROUBLE:
                return None
            return heapq.heappop(receiver.due)[2]

    def _try(self, letter: Letter, address: str, receiver: _Receiver) -> bool:
        """Try to deliver a letter; return whether the receiver may be tried again at once."""
        code = 0
        try:
            whole = self._reader.letter(letter.id)
            if whole is None:  # dropped, as there were too many
                self._forget(letter)
                return True
            code = self._send(whole)
            problem = f"it answered with {code}"
        except (Undelivered, PmanError) as exc:
            problem = str(exc)
        except Exception:  # noqa: BLE001  as for a service: the letter is tried again
            _log.exception("callback %s failed", letter.id)
            problem = "pman failed"
        if 200 <= code < 300:
            self._delivered(letter, address, receiver)
            return True
        if code or not self.stopping.is_set():
            self._failed(letter, code, problem, address, receiver)
        return False

    def _send(self, letter: Letter) -> int:
        """Return the code of the answer.

        Raises:
            Undelivered: There was none.
            PmanError: It may not be sent there.
        """
        target = parse_target(letter.url)
        check_allowed(target, self._allowed)
        headers = self._signer.headers(letter.id, int(self._now()), letter.body)
        errand = Errand(target)
        with self._news:
            if self.stopping.is_set():
                raise Undelivered("pman stops")
            self._errands.add(errand)
        cancel = self._timers.after(TRY_S, errand.cut)
        try:
            return errand.post(headers, letter.body)
        finally:
            cancel()
            with self._news:
                self._errands.discard(errand)

    def _forget(self, letter: Letter) -> None:
        with self._news:
            self._known.discard(letter.id)

    def _delivered(self, letter: Letter, address: str, receiver: _Receiver) -> None:
        self._forget(letter)
        self._change_outbox(OutboxChanges(done=[letter.id]))
        with self._news:
            was_in_trouble, receiver.is_in_trouble = receiver.is_in_trouble, False
            if was_in_trouble:  # it is back: what waits for its next try need not
                now = self._now()
                receiver.due = [(min(at, now), n, each) for at, n, each in receiver.due]
                heapq.heapify(receiver.due)
                self._news.notify()
        if was_in_trouble:
            _log.info("%s takes callbacks again", address)

    def _failed(
        self, letter: Letter, code: int, problem: str, address: str, receiver: _Receiver
    ) -> None:
        now = self._now()
        letter.tries += 1
        letter.problem = problem
        if code == GONE or now >= letter.created_at + GIVE_UP_S:
            letter.given_up_at = now
            self._forget(letter)
            _log.error(
                "the end of job %s is not told to %s: %s; given up after %d tries",
                letter.job,
                address,
                problem,
                letter.tries,
            )
        else:
            letter.next_at = min(now + backoff_s(letter.tries), letter.created_at + GIVE_UP_S)
        self._change_outbox(OutboxChanges(tried=[copy.copy(letter)]))
        is_new = not receiver.is_in_trouble and code != GONE
        with self._news:
            receiver.is_in_trouble = receiver.is_in_trouble or is_new
            if letter.given_up_at is None:
                self._post(letter)
        if is_new:
            _log.warning("%s does not take callbacks: %s; tried again", address, problem)


def backoff_s(tries: int) -> float:
    """Return how long to wait after so many tries, seconds."""
    wait_s = min(BACKOFF_FIRST_S * 2.0 ** min(tries - 1, 30), BACKOFF_MAX_S)
    spread = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  nothing to be kept secret
    wait_s *= spread
    return min(wait_s, BACKOFF_MAX_S)


def _address(url: str) -> str:
    """Return what tells receivers apart."""
    try:
        target: Target = parse_target(url)
    except PmanError:
        return url
    return target.address
