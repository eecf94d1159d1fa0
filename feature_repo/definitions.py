"""For Feast's own command line: everything there is to apply, at module level.

`feast apply` imports every file that .feastignore leaves, which is this one; a second path to the same views would
be refused as a conflict. The pipeline applies the same objects through `store.apply`.
"""

from __future__ import annotations

from feature_repo.store import environment_features_dir, objects

for _object in objects(environment_features_dir()):
    globals()[_object.name] = _object
