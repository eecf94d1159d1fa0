"""The one FeatureService: everything the present views hold is what a model sees."""

from __future__ import annotations

from collections.abc import Sequence

from feast import FeatureService, FeatureView

SERVICE = "esmm"


def service(views: Sequence[FeatureView]) -> FeatureService:
    return FeatureService(name=SERVICE, features=list(views), description="Input of the pCTR and pCVR model.")
