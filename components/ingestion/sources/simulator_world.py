"""The simulated shop: who is shown what, and the logits of click and conversion.

Click and conversion each have a logit that is a sum of effects of things the model sees (ids, profiles, context).
`selection_observed` scales a part of it common to both, so that clicked impressions are not like all impressions
in what the model sees; `selection_latent` scales a standard normal drawn anew for each impression and common to
both, which nothing in the data shows. The second is what makes a CVR model trained on clicks biased for the
impressions at large (Ma et al., SIGIR 2018, section 2.2).

Letters in shapes: U users, I items, D days, S sessions, N impressions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.contracts.config import Config
from components.contracts.times import parse_utc

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

COUNTRIES = ("de", "us", "fr", "gb", "pl", "es", "nl", "it")
SEGMENTS = ("bargain", "family", "student", "premium", "gadget", "casual")
CATEGORIES = (
    "shoes", "shirts", "jackets", "phones", "audio", "games", "garden", "kitchen", "books", "toys", "sport", "beauty",
)  # fmt: skip
DEVICES = ("mobile", "desktop", "tablet")
BRANDS = 60
AGE_BANDS = 6
MAX_POSITION = 10
DAY = 86_400_000_000
"""Microseconds in a day; all simulated times are whole microseconds since the first midnight."""

_WORLD, _EXPOSURES = 0, 1


class SimulatorConfig(Config):
    """A shop of some size. `ctr` and `cvr` are what the mean P(click) and P(conversion in the window | click) are
    set to; the windows are in seconds; `dirty_share` is the share of rows made dirty after all else is drawn."""

    days: int = Field(default=16, ge=2, le=400)
    users: int = Field(default=20_000, ge=10)
    items: int = Field(default=1_500, ge=24)
    impressions: int = Field(default=600_000, ge=100)
    seed: int = Field(default=0, ge=0)
    start: str = "2026-01-05T00:00:00Z"
    ctr: float = Field(default=0.115, gt=0, lt=1)
    cvr: float = Field(default=0.09, gt=0, lt=0.8)
    selection_observed: float = Field(default=0.5, ge=0, le=3)
    selection_latent: float = Field(default=0.6, ge=0, le=3)
    dirty_share: float = Field(default=0.0, ge=0, le=0.9)
    click_window_seconds: float = Field(default=3_600.0, gt=0)
    conversion_window_seconds: float = Field(default=86_400.0, gt=0)
    valid_days: float = Field(default=2.0, gt=0)
    test_days: float = Field(default=3.0, gt=0)

    @property
    def first_midnight(self) -> datetime:
        """Midnight UTC of the first day. Raises UsageError if `start` is no ISO-8601 time."""
        return parse_utc(self.start, "start").replace(hour=0, minute=0, second=0, microsecond=0)

    def date(self, day: int) -> str:
        return (self.first_midnight + timedelta(days=day)).strftime("%Y-%m-%d")


@dataclass(frozen=True)
class World:
    """Everything that is fixed before anyone visits. Effects are on the logit scale."""

    country_U: Ints
    age_U: Ints
    signup_day_U: Ints
    activity_U: Floats
    segment_UD: Ints
    category_I: Ints
    brand_I: Ints
    popularity_I: Floats
    price_ID: Floats
    click_U: Floats
    click_ID: Floats
    click_affinity: Floats
    conversion_U: Floats
    conversion_I: Floats
    conversion_affinity: Floats
    shared_U: Floats
    shared_I: Floats
    shared_affinity: Floats
    taste_U: Floats
    taste_I: Floats
    intent: Floats
    click_device: Floats
    conversion_device: Floats


@dataclass(frozen=True)
class Exposures:
    """N impressions in order of time. `time` and `session` are microseconds since the first midnight and a number."""

    time: Ints
    session: Ints
    user: Ints
    item: Ints
    position: Ints
    device: Ints

    @property
    def day(self) -> Ints:
        return self.time // DAY

    @property
    def hour(self) -> Ints:
        return self.time % DAY // (DAY // 24)

    def take(self, index: Any) -> Exposures:
        return Exposures(*(getattr(self, field.name)[index] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.time)


def build_world(config: SimulatorConfig) -> World:
    rng = np.random.default_rng([config.seed, _WORLD])
    users, items, days = config.users, config.items, config.days
    normal = rng.standard_normal

    segment = rng.choice(len(SEGMENTS), users, p=[0.24, 0.2, 0.17, 0.09, 0.12, 0.18])
    segment_UD = np.repeat(segment[:, None], days, axis=1)
    moves = rng.random((users, days)) < 0.003
    for day in range(1, days):  # a user who changes segment stays there
        moved = moves[:, day]
        segment_UD[moved, day:] = rng.integers(0, len(SEGMENTS), int(moved.sum()))[:, None]

    category = rng.integers(0, len(CATEGORIES), items)
    category[: len(CATEGORIES)] = np.arange(len(CATEGORIES))  # none is empty
    brand = rng.integers(0, BRANDS, items)
    changes = np.where(rng.random((items, days)) < 0.03, 0.12 * normal((items, days)), 0.0)
    changes[:, 0] = 0.0
    log_price = 3.0 + 0.5 * normal(len(CATEGORIES))[category] + 0.6 * normal(items)
    price_ID = np.round(np.exp(log_price[:, None] + changes.cumsum(axis=1)), 2).clip(0.5)

    drift = 0.05 * normal((items, days)).cumsum(axis=1)
    item_click = 0.40 * normal(items) + 0.25 * normal(BRANDS)[brand] + 0.30 * normal(len(CATEGORIES))[category]
    signup = rng.integers(-1500, -10, users)
    tenure = np.log(-signup.astype(float))
    age = rng.integers(1, AGE_BANDS + 1, users)
    cells = (len(SEGMENTS), len(CATEGORIES))
    popularity = (1.0 + np.arange(items)) ** -0.55
    return World(
        country_U=rng.choice(len(COUNTRIES), users, p=[0.28, 0.2, 0.14, 0.12, 0.09, 0.07, 0.05, 0.05]),
        age_U=age,
        signup_day_U=signup,
        activity_U=np.exp(0.7 * normal(users)),
        segment_UD=segment_UD,
        category_I=category,
        brand_I=brand,
        popularity_I=rng.permutation(popularity),
        price_ID=price_ID,
        click_U=0.30 * normal(users) + 0.15 * normal(AGE_BANDS + 1)[age],
        click_ID=item_click[:, None] + drift,
        click_affinity=0.50 * normal(cells),
        conversion_U=0.25 * normal(users) + 0.2 * (tenure - tenure.mean()) / tenure.std(),
        conversion_I=0.25 * normal(items) + 0.20 * normal(BRANDS)[brand] + 0.35 * normal(len(CATEGORIES))[category],
        conversion_affinity=0.60 * normal(cells),
        shared_U=0.35 * normal(users),
        shared_I=0.60 * normal(items),
        shared_affinity=0.72 * normal(cells),
        taste_U=normal((users, 4)),
        taste_I=normal((items, 4)),
        intent=rng.dirichlet(np.full(len(CATEGORIES), 1.5), len(SEGMENTS)),
        click_device=np.array([0.12, -0.15, -0.05]),
        conversion_device=np.array([-0.35, 0.45, 0.05]),
    )


def draw_exposures(config: SimulatorConfig, world: World) -> Exposures:
    """Sessions of 4 to 10 positions: six of ten items from the category the user came for, the others by popularity.

    The shop's present ranker puts better items higher, so position is confounded with the item, as in real logs.
    """
    rng = np.random.default_rng([config.seed, _EXPOSURES])
    count = config.impressions
    sizes = rng.integers(4, MAX_POSITION + 1, count // 4 + 1)
    sessions = int(np.searchsorted(sizes.cumsum(), count)) + 1
    sizes = sizes[:sessions]
    sizes[-1] -= int(sizes.sum()) - count
    user_S = rng.choice(config.users, sessions, p=world.activity_U / world.activity_U.sum())

    weekday = (config.first_midnight.weekday() + np.arange(config.days)) % 7
    weight = np.where(weekday >= 5, 1.15, 1.0)
    day_S = rng.choice(config.days, sessions, p=weight / weight.sum())
    hours = np.arange(24)
    diurnal = 0.15 + np.exp(-((hours - 20) ** 2) / 18) + 0.6 * np.exp(-((hours - 12) ** 2) / 14)
    hour_S = rng.choice(24, sessions, p=diurnal / diurnal.sum())
    start_S = day_S * DAY + hour_S * (DAY // 24) + rng.integers(0, DAY // 24 - 60_000_000, sessions)
    order = np.argsort(start_S, kind="stable")
    user_S, day_S, start_S = user_S[order], day_S[order], start_S[order]

    segment_S = world.segment_UD[user_S, day_S]
    device_weights = np.array([[0.65, 0.25, 0.1], [0.5, 0.3, 0.2], [0.8, 0.15, 0.05], [0.4, 0.5, 0.1], [0.5, 0.45, 0.05], [0.7, 0.2, 0.1]])  # fmt: skip # noqa: E501
    device_S = _choose_rows(rng, device_weights[segment_S])
    intent_S = _choose_rows(rng, world.intent[segment_S])

    session = np.repeat(np.arange(sessions), sizes)
    by_category = np.argsort(world.category_I, kind="stable")
    mass = world.popularity_I[by_category].cumsum()
    ends = np.array([mass[np.flatnonzero(world.category_I[by_category] == k)[-1]] for k in range(len(CATEGORIES))])
    starts = np.concatenate([[0.0], ends[:-1]])
    intended = rng.random(count) < 0.6
    low = np.where(intended, starts[intent_S[session]], 0.0)
    high = np.where(intended, ends[intent_S[session]], mass[-1])
    pick = np.searchsorted(mass, low + rng.random(count) * (high - low), side="right")
    item = by_category[np.minimum(pick, config.items - 1)]

    ranker = 0.5 * world.click_ID[item, 0] + 0.7 * rng.standard_normal(count)
    order = np.lexsort((-ranker, session))
    first = np.concatenate([[0], sizes.cumsum()[:-1]])
    position = np.arange(count) - np.repeat(first, sizes) + 1
    time = start_S[session] + (position - 1) * 400_000 + rng.integers(0, 300_000, count)
    drawn = Exposures(time, session, user_S[session], item[order], position, device_S[session])
    return drawn.take(np.argsort(time, kind="stable"))


def logits(
    config: SimulatorConfig, world: World, shown: Exposures, position: int | None = None
) -> tuple[Floats, Floats]:
    """Logits [N] of click and of conversion given click, without intercept and latent.

    `position` overrides the logged one (do(position)); it has no effect on conversion.
    """
    day, user, item = shown.day, shown.user, shown.item
    segment = world.segment_UD[user, day]
    category = world.category_I[item]
    price = (np.log(world.price_ID[item, day]) - 3.0) / 0.8
    # .35, .60 and .72, the spreads of the three parts, make their sum one standard deviation wide.
    shared = world.shared_U[user] + world.shared_I[item] + world.shared_affinity[segment, category]
    taste = 0.10 * np.einsum("nk,nk->n", world.taste_U[user], world.taste_I[item])
    place = np.log(shown.position if position is None else np.full(len(shown), position))
    click = (
        -0.5 * place
        + world.click_U[user]
        + world.click_ID[item, day]
        + world.click_affinity[segment, category]
        + world.click_device[shown.device]
        + 0.12 * np.cos((shown.hour - 21) * np.pi / 12)
        - 0.10 * price
        + taste
        + config.selection_observed * shared
    )
    conversion = (
        world.conversion_U[user]
        + world.conversion_I[item]
        + world.conversion_affinity[segment, category]
        + world.conversion_device[shown.device]
        - 0.25 * price
        + taste
        + config.selection_observed * shared
    )
    return click, conversion


def _choose_rows(rng: np.random.Generator, weights: Floats) -> Ints:
    """One column index a row, drawn with the row's weights (each row sums to 1)."""
    edges = weights.cumsum(axis=1)
    drawn: Ints = (rng.random(len(weights))[:, None] > edges[:, :-1]).sum(axis=1)
    return drawn
