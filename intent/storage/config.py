"""Configure the access to stores."""

from dataclasses import dataclass

from intent.storage.interface import StorageOptions


@dataclass
class StorageConfig:
    """S3's endpoint and region. See `StorageOptions`."""

    endpoint: str | None = None
    region: str | None = None

    def __post_init__(self):
        self.options()

    def options(self) -> StorageOptions:
        """Return the options. Raises ConfigError if the endpoint is invalid."""
        return StorageOptions(self.endpoint, self.region)
