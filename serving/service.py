"""The BentoML service: ranks items for a user by pCTCVR, with features from the online store.

No `from __future__ import annotations` here: BentoML reads the annotations. Nothing is loaded on import, so
that building a Bento needs no model.
"""

import gc
import logging
import sys
from typing import TYPE_CHECKING, Any, cast

import bentoml
import numpy as np
from starlette.responses import JSONResponse

from components.contracts.columns import GROUP_ID, ITEM_ID, USER_ID
from components.contracts.errors import ServiceError, UsageError
from components.contracts.paths import HOME_VARIABLE
from components.contracts.quiet import QUIET
from components.scoring.score import Scorer
from serving.context import BadContext, context_columns, context_types, item_context_types
from serving.middleware import BodyGuard
from serving.schemas import InfoResponse, RankedItem, RankRequest, RankResponse
from serving.settings import MAX_BODY_BYTES, THREADS, Settings

if TYPE_CHECKING:
    from serving.lookup import Lookup, NullLookup, OnlineLookup

log = logging.getLogger("bentoml.esmm")


@bentoml.service(
    name="esmm",
    threads=THREADS,
    traffic={"timeout": 30, "max_concurrency": 256},
    logging={"access": {"enabled": False}},
    envs=[{"name": name, "value": value} for name, value in QUIET.items()],
)
class Ranker:
    """pCTR, pCVR and pCTCVR of items for a user."""

    def __init__(self) -> None:
        settings = Settings.load()
        self.packaged = settings.packaged
        self.scorer = Scorer(settings.model)
        self.spec = self.scorer.info.spec
        self.lookup = self._lookup(settings)
        bento = cast(Any, Ranker).bento
        self.tag = str(bento.tag) if bento is not None else f"unpackaged:{self.packaged.run}"
        # What was loaded stays: kept out of every later collection, this halves p99.
        gc.collect()
        gc.freeze()
        log.info("serving %s: %s, %d features", self.tag, self.packaged.candidate, len(self.spec.features))

    def _lookup(self, settings: Settings) -> "NullLookup | OnlineLookup":
        # Feast takes seconds to import, and the build and BentoML's supervisor import this module without ranking.
        # Where torch is installed Feast imports it too, for nothing that is used here.
        sys.modules.setdefault("torch", cast(Any, None))
        from serving.lookup import NullLookup, OnlineLookup

        if not self.spec.views:
            return NullLookup()
        if settings.place is None:
            raise UsageError(
                f"{HOME_VARIABLE} is not set: the model needs the feature store in that folder (or, of the profile "
                "production, the servers that its variables name)"
            )
        return OnlineLookup(settings.place, self.spec, self.packaged.clock, settings.cache_items)

    @bentoml.api(route="/rank")
    def rank(self, request: RankRequest, /) -> RankResponse:
        """Ranks `item_ids` for `user_id`; 400 with a sentence for a request that cannot be answered, 503 with one where
        the feature store cannot."""
        try:
            context = context_columns(self.spec, request.context, request.item_context, len(request.item_ids))
        except BadContext as error:
            # BentoML would wrap the body of an exception of its own in a list.
            return cast(RankResponse, JSONResponse({"error": str(error)}, status_code=400))
        try:
            found = self.lookup.rows(request.user_id, request.item_ids, context, request.group_id)
        except ServiceError as error:
            log.error("503: %s", error)
            return cast(RankResponse, JSONResponse({"error": str(error)}, status_code=503))
        scores = self.scorer.score(found.columns, position="reference")
        items = [
            RankedItem(item_id=item, pctr=pctr, pcvr=pcvr, pctcvr=pctr * pcvr)
            for item, pctr, pcvr in zip(request.item_ids, scores.pctr.tolist(), scores.pcvr.tolist(), strict=True)
        ]
        unknown_user, unknown_items = self._unknown(found, request.item_ids)
        return RankResponse(
            model_version=self.tag,
            run=self.packaged.run,
            user_id=request.user_id,
            unknown_user=unknown_user,
            unknown_group=found.unknown_group,
            unknown_items=unknown_items,
            expired_features=found.expired,
            expired_by_view=found.expired_by_view,
            items=sorted(items, key=lambda item: (-item.pctcvr, item.item_id)),
        )

    @bentoml.api(route="/info")
    def info(self) -> InfoResponse:
        """What is served, and up to when its features are. Also answers to GET."""
        model = self.scorer.info
        return InfoResponse(
            model_version=self.tag,
            run=self.packaged.run,
            candidate=model.candidate,
            dataset=self.packaged.dataset,
            as_of=model.as_of,
            materialized_as_of=self.lookup.materialized_as_of(),
            freshness=self.lookup.freshness(),
            features=[feature.name for feature in self.spec.features],
            context=dict(context_types(self.spec)),
            item_context=dict(item_context_types(self.spec)),
            group_id=GROUP_ID in self.spec.keys,
            reference_position=self.spec.reference_position,
        )

    def _unknown(self, found: "Lookup", item_ids: list[str]) -> tuple[bool, list[str]]:
        """Whether nothing is known of the user, and of which items.

        The feature store decides where the model reads views of that entity; otherwise the model's vocabulary.
        """
        stored = {view.entity for view in self.spec.views}
        absent = self.scorer.encoder.unknown(found.columns)
        nothing = np.zeros(len(item_ids), np.bool_)
        user = found.unknown_user if USER_ID in stored else bool(absent.get(USER_ID, nothing)[0])
        if ITEM_ID in stored:
            return user, list(found.unknown_items)
        return user, [item for item, is_new in zip(item_ids, absent.get(ITEM_ID, nothing), strict=True) if is_new]


cast(Any, Ranker).add_asgi_middleware(BodyGuard, max_bytes=MAX_BODY_BYTES, schemas={"/rank": RankRequest})
