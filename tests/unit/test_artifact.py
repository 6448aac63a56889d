"""What a node fetches is what the store holds now."""

from intent import artifact
from intent.artifact import ArtifactRecord
from intent.storage import open_store

RECORD = ArtifactRecord("variant-gptq", {}, {})


def test_a_variant_made_again_with_other_bytes_is_fetched_again(root):
    """GPTQ's files differ from one making to the next, at the same fingerprint."""
    for text in ("once", "again"):
        made = artifact.make(root, RECORD, lambda folder, text=text: (folder / "model").write_text(text) and None)
        assert (artifact.fetch(made) / "model").read_text() == text
        open_store(made.uri).delete("record.json")
