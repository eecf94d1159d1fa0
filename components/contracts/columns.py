"""The funnel's columns, and which names a feature may not take.

An impression log row is one item shown to one user. Labels mean: `click` in the click window after the
impression, `conversion` in the conversion window after the click. Conversion implies click.
"""

IMPRESSION_ID = "impression_id"
USER_ID = "user_id"
ITEM_ID = "item_id"
GROUP_ID = "group_id"
"""Optional: what user features are keyed by where one user has several sets of them (Ali-CCP's common features)."""
EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created"
CLICK = "click"
CLICK_TIMESTAMP = "click_timestamp"
CONVERSION = "conversion"
CONVERSION_TIMESTAMP = "conversion_timestamp"
PARTITION = "dt"
SPLIT = "split"
POSITION = "position"

IDS = (IMPRESSION_ID, USER_ID, ITEM_ID)
LABELS = (CLICK, CONVERSION)
LABEL_TIMESTAMPS = (CLICK_TIMESTAMP, CONVERSION_TIMESTAMP)

REQUIRED = (IMPRESSION_ID, USER_ID, ITEM_ID, EVENT_TIMESTAMP, CLICK, CONVERSION)
"""Columns every impression log has; click and conversion times are optional (then windows are zero)."""

RESERVED = frozenset({*REQUIRED, *LABEL_TIMESTAMPS, GROUP_ID, CREATED_TIMESTAMP, PARTITION, SPLIT}) - {USER_ID, ITEM_ID}
"""Names no context column and no feature may have: they are labels, times or bookkeeping."""

TRAIN, VALID, TEST, GAP = "train", "valid", "test", "gap"
SPLITS = (TRAIN, VALID, TEST)

# Truth (simulated data only), read by evaluation alone. Probabilities, one row per impression.
TRUE_P_CLICK = "p_click"
"""P(click | what the model sees, logged position)."""
TRUE_P_CLICK_REFERENCE = "p_click_reference"
"""P(click | what the model sees, do(position = reference position))."""
TRUE_P_CONVERSION_DO_CLICK = "p_conversion_do_click"
"""P(conversion in the window | do(click), what the model sees): the entire-space pCVR."""
TRUE_P_CONVERSION_CLICK = "p_conversion_click"
"""P(conversion in the window | click, what the model sees, logged position)."""
