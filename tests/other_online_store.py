"""A store of someone's own, which only Feast knows how to read: Feast's SQLite store under another name."""

from __future__ import annotations

from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig

NAME = f"{__name__}.OtherOnlineStore"


class OtherOnlineStoreConfig(SqliteOnlineStoreConfig):
    type: str = NAME


class OtherOnlineStore(SqliteOnlineStore):
    @staticmethod
    def _get_db_path(config):
        return config.online_store.path
