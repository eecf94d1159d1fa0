"""Writes the online store on Redis: bounded batches, one atomic command an entity.

Redis has no transaction that a crash rolls back, so a run that dies leaves of each entity the previous row or the new
one, never a part of either, each stamped with its own event time. The journal says how far the run came, and the next
run goes on there; the watermark is written last.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from feast import FeatureStore
from google.protobuf.timestamp_pb2 import Timestamp
from redis.exceptions import NoScriptError, RedisError

from components.contracts import layout
from components.contracts.config import Config
from components.contracts.errors import ServiceError
from components.contracts.files import read_manifest
from components.contracts.online import Materialized, Place
from components.contracts.times import format_utc, parse_utc
from components.features.online import redis_lock, registry, staging
from components.features.online.sqlite_store import Written
from components.features.online.staging import PLACE, Plan, Progress
from components.features.online.values import Rows, encode

SCAN = 5_000
"""Keys a round trip when looking for entities that are in the table no more."""

HEAD = """
local function micros(stamp)
  local place, found = 1, {0, 0}
  while place <= #stamp do
    local field, scale, value = math.floor(stamp:byte(place) / 8), 1, 0
    repeat
      place = place + 1
      value = value + stamp:byte(place) % 128 * scale
      scale = scale * 128
    until stamp:byte(place) < 128
    place = place + 1
    found[field] = value
  end
  if found[1] >= 9223372036854775808 then return -1 end
  return found[1] * 1000000 + found[2] / 1000
end
local old = redis.call('HGET', KEYS[1], ARGV[1])
"""
"""How the scripts begin. A stamp is a serialized `google.protobuf.Timestamp`: seconds and nanoseconds as varints, each
left out where it is zero. Microseconds since 1970 are exact in Lua's doubles; times before 1970 count as oldest."""
WRITE = (
    HEAD
    + """
if old and micros(old) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], unpack(ARGV, 3))
return 1
"""
)
"""key; time field, the latest stamp that is overwritten, new stamp, then fields and values. 0: a later one stayed.
Looking and writing are one step, so that a push in between is not lost."""
REMOVE = (
    HEAD
    + """
if not old or micros(old) >= tonumber(ARGV[2]) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1], unpack(ARGV, 3))
return 1
"""
)
"""key; time field, the first stamp that stays, then the view's fields. Redis removes a key without fields."""


class Journal(Config):
    """What a run leaves in Redis until it comes to its end.

    `tables`: fingerprint of the copied tables. `full`: every view goes whole. `reached`: the latest as-of of runs
    before it that did not come to their end either, with other tables. `places`: by view the row number up to which
    everything is written.
    """

    tables: str
    as_of: str
    full: bool
    reached: str | None = None
    places: dict[str, int] = {}


@contextmanager
def opened(place: Place) -> Iterator[RedisTarget]:
    """Locks the project in Redis. Raises Busy, and ServiceError if the registry or Redis does not answer."""
    with registry.opened(place) as store, _answering(place):
        client = store._get_provider().online_store._get_client(store.config.online_store)
        what = f"materializing the features of {place.project!r}"
        with redis_lock.exclusive(client, f"esmm:materialize-lock:{place.project}", what) as check:
            yield RedisTarget(store, client, check)


class RedisTarget:
    """Values in Redis, registry wherever the place has it."""

    keeps_views = True

    def __init__(self, store: FeatureStore, client: Any, check: Callable[[], None]) -> None:
        self.store = store
        self.client = client
        self._check = check
        self._state_key = layout.materialized_key(store.project)
        self._journal_key = f"esmm:materializing:{store.project}"
        self._journal = Journal(tables="", as_of="", full=True)

    def materialized(self) -> Materialized | None:
        text = self.client.get(self._state_key)
        return None if text is None else Materialized.parse(text, where=f"{self._state_key} in Redis")

    def resume(self, copied: Path, as_of: datetime, full: bool) -> tuple[datetime | None, bool]:
        """A run that died with these very tables is taken up. After one with others everything is written again, since
        some of what it wrote may be in the tables no more."""
        journal = Journal(tables=read_manifest(copied, verify=False)["fingerprint"], as_of=format_utc(as_of), full=full)
        text = self.client.get(self._journal_key)
        left = None if text is None else Journal.parse(text, where=f"{self._journal_key} in Redis")
        if left is not None and (left.tables, left.as_of) == (journal.tables, journal.as_of) and left.full >= full:
            journal = left
        elif left is not None:
            reached = max(parse_utc(left.as_of), parse_utc(left.reached or left.as_of))
            journal = journal.model_copy(update={"full": True, "reached": format_utc(reached)})
        self._journal = journal
        return parse_utc(journal.reached) if journal.reached else None, journal.full

    def holds(self, view: str, rows: int) -> bool:
        return True  # the watermark is kept beside the values, and lost with them

    def write(self, plans: tuple[Plan, ...], copied: Path, as_of: datetime, progress: Progress) -> dict[str, Written]:
        """The registry first: a view that is registered and has no rows yet is unknown, the reverse is an error."""
        present = tuple(plan.view.name for plan in plans)
        registry.apply(self.store, copied, present)
        for script in (WRITE, REMOVE):
            self.client.script_load(script)
        written = {plan.view.name: self._bring(plan, progress) for plan in plans}
        registry.record(self.store, present, as_of)
        return written

    def finish(self, done: Materialized) -> None:
        self._check()
        self.client.set(self._state_key, done.model_dump_json())
        self.client.delete(self._journal_key)

    def _bring(self, plan: Plan, progress: Progress) -> Written:
        started, written, done = time.monotonic(), 0, 0
        if plan.mode == "unchanged":
            return Written(0, 0, 0.0)
        # First what is gone: looking for it takes as long as there are keys, so none in an empty store.
        removed = self._remove(plan) if plan.mode == "full" else 0
        batches = staging.batches(plan, self._journal.places.get(plan.view.name, -1))
        with ThreadPoolExecutor(1) as sender:
            # Redis works on one batch while the next is made.
            sent = ((batch, sender.submit(self._write, plan, encode(batch, plan.view))) for batch in batches)
            for batch, answer in _one_ahead(sent):
                written += answer.result()
                self._note(plan.view.name, batch[PLACE][-1].as_py())
                done += len(batch)
                progress(plan.view.name, done, plan.entities)
        return Written(written, removed, time.monotonic() - started)

    def _write(self, plan: Plan, rows: Rows) -> int:
        self._check()
        return sum(self._run(WRITE, self._writes(plan, rows)))

    def _writes(self, plan: Plan, rows: Rows) -> Iterator[tuple[Any, ...]]:
        """Arguments of WRITE for each entity: its key, then the rest."""
        view, stamped = plan.view, layout.redis_time_field(plan.view.name)
        fields = [layout.redis_field(view.name, name) for name in rows.values]
        floor = _micros(plan.boundary) - 1 if plan.mode == "full" else -1
        for key, event, values in zip(rows.keys, rows.events, zip(*rows.values.values(), strict=True), strict=True):
            pairs = [part for pair in zip(fields, values, strict=True) for part in pair]
            name = layout.redis_key(self.store.project, view.entity.join_key, key)
            yield name, stamped, max(event, floor), stamp(event), *pairs

    def _remove(self, plan: Plan) -> int:
        """Of the entities that the table has no row of, what was stamped before the boundary."""
        view = plan.view
        fields = [layout.redis_time_field(view.name), *(layout.redis_field(view.name, f.name) for f in view.fields)]
        removed, boundary = 0, _micros(plan.boundary)
        for gone in staging.without_row(plan, self._stored(plan)):
            self._check()
            keys = [layout.redis_key(self.store.project, view.entity.join_key, key) for key in gone]
            removed += sum(self._run(REMOVE, ((key, fields[0], boundary, *fields[1:]) for key in keys)))
        return removed

    def _stored(self, plan: Plan) -> Iterator[list[str]]:
        """Entities that something is stored about, of this view or of another with the same entity."""
        start = layout.redis_key("", plan.view.entity.join_key, "")[:-4]
        end = self.store.project.encode()
        pattern = re.sub(rb"([*?\[\]^\\-])", rb"\\\1", start) + b"*" + re.sub(rb"([*?\[\]^\\-])", rb"\\\1", end)
        found: list[str] = []
        for key in self.client.scan_iter(match=pattern, count=SCAN):
            length = int.from_bytes(key[len(start) : len(start) + 4], "little")
            # Another project's name may end alike, so the key has to be of exactly this length.
            if len(key) == len(start) + 4 + length + len(end):
                found.append(key[len(start) + 4 :][:length].decode())
            if len(found) >= SCAN:
                yield found
                found = []
        yield found

    def _note(self, view: str, place: int) -> None:
        self._journal = self._journal.model_copy(update={"places": {**self._journal.places, view: place}})
        self.client.set(self._journal_key, self._journal.model_dump_json())

    def _run(self, script: str, calls: Iterable[tuple[Any, ...]]) -> list[int]:
        """A script once a call, in one round trip. A restarted Redis has forgotten it; repeating does no harm."""
        given = list(calls)
        try:
            return self._pipelined(script, given)
        except NoScriptError:
            self.client.script_load(script)
            return self._pipelined(script, given)

    def _pipelined(self, script: str, calls: list[tuple[Any, ...]]) -> list[int]:
        digest = hashlib.sha1(script.encode()).hexdigest()
        pipe = self.client.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command("EVALSHA", digest, 1, *call)
        return list(pipe.execute())


def _one_ahead(things: Iterator[Any]) -> Iterator[Any]:
    """Each in its turn, the next one already begun."""
    held = next(things, None)
    while held is not None:
        following = next(things, None)
        yield held
        held = following


@lru_cache(maxsize=4096)
def stamp(micros: int) -> bytes:
    """An event time as Feast writes it, from microseconds since 1970."""
    made = Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)
    return bytes(made.SerializeToString())


def _micros(moment: datetime) -> int:
    return round((moment - registry.EPOCH) / registry.TICK)


@contextmanager
def _answering(place: Place) -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        # Only the addresses: the rest of the string holds the password.
        where = ",".join(part for part in (place.redis or "").split(",") if "=" not in part)
        raise ServiceError(
            f"Redis at {where} does not answer ({error}): start it or correct its address, and run again; what was "
            "being written goes on where it stopped"
        ) from error
