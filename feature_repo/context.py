"""Context: what is known of the request itself, logged with the impression and sent when ranking.

Declared once here, beside the views. A dataset's own context columns that are not listed get the default of
their type. Position feeds the CTR tower alone and is never taken from a request.
"""

from typing import Any

CONTEXT: dict[str, dict[str, Any]] = {
    "position": {"encoding": "id", "tower": "ctr", "min_count": 1},
    "hour": {"encoding": "id", "min_count": 1},
    "device": {"encoding": "id"},
}
