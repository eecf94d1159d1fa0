"""Context: what is known of the request or of an item in it, logged with the impression and sent when ranking.

Declared once here, beside the views. A dataset's own context columns that are not listed get the default of
their type. Position feeds the CTR tower alone and is never taken from a request.
"""

from typing import Any

from feature_repo.ali_ccp import ITEM_CONTEXT
from feature_repo.declare import Logged, logged

CONTEXT: dict[str, Logged] = {
    "position": logged("Place in the list that was shown, from 1.", encoding="id", tower="ctr", min_count=1),
    "hour": logged("Hour of the day at which the list was asked for.", encoding="id", min_count=1),
    "device": logged("Kind of device that the list was asked for on.", encoding="id"),
    "price": logged("The item's price as it was shown in this request.", encoding="bucket", minimum=0),
    **ITEM_CONTEXT,
}


def settings_of(name: str) -> dict[str, Any]:
    """What a context column has instead of the defaults of its type; nothing if it is not listed."""
    return CONTEXT[name].settings if name in CONTEXT else {}
