"""Context: what is known of the request or of an item in it, logged with the impression and sent when ranking.

Declared once here, beside the views. A dataset's own context columns that are not listed get the default of
their type. Position feeds the CTR tower alone and is never taken from a request.
"""

from typing import Any

CONTEXT: dict[str, dict[str, Any]] = {
    "position": {"encoding": "id", "tower": "ctr", "min_count": 1},
    "hour": {"encoding": "id", "min_count": 1},
    "device": {"encoding": "id"},
    "price": {"encoding": "bucket", "minimum": 0},
    # Ali-CCP: "a categorical expression of position", says its publisher, so it may explain clicks and nothing else.
    "f301": {"encoding": "id", "tower": "ctr"},
}
