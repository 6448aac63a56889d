"""Configure the access to stores."""

from dataclasses import dataclass

from intent.storage.interface import StorageOptions


@dataclass
class StorageConfig:
    endpoint: str | None = None
    region: str | None = None

    def __post_init__(self):
        self.options()

    def options(self) -> StorageOptions:
        return StorageOptions(self.endpoint, self.region)
