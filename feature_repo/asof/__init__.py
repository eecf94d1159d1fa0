"""An offline store for Feast: one ASOF join a view in DuckDB, from Parquet to Parquet (docs/features.md).

`offline_store: {type: feature_repo.asof.AsofOfflineStore}`; Feast looks for the config class beside the store.
"""

from feature_repo.asof.store import AsofOfflineStore, AsofOfflineStoreConfig

__all__ = ["AsofOfflineStore", "AsofOfflineStoreConfig"]
