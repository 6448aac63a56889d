"""A small Llama with random weights and a byte-level tokenizer: real files of every kind, made in a second."""

from pathlib import Path

from intent.schema import Choice, Count, Entity, IntentSchema

NAMES = (
    "Whole Milk 1L",
    "Whole Milk 2L",
    "Skimmed Milk 1L",
    "Eggs",
    "Eggs 12 pack",
    "27 inch Monitor",
    'Nails 3"',
    "Crème brûlée",
)
CART = IntentSchema(
    "cart",
    "Turn the shopper's message into a cart intent.",
    (Choice("action", ("add", "remove", "none"), ("none",)), Entity("product"), Count("quantity", 1, 99, 1)),
)
LABELS = IntentSchema("labels", "Give the intent.", (Choice("label", ("order_status", "return_item", "none")),))


def write_tokenizer(folder: Path, texts: tuple[str, ...] = NAMES, vocabulary: int = 400):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken("<eos>", special=True)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*texts, "add remove none product quantity milk eggs please two three"] * 3, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>"}')
    return tokenizer


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = write_tokenizer(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=0,
        bos_token_id=None,
        initializer_range=0.15,
    )
    LlamaForCausalLM(config).to(torch.float16).save_pretrained(folder)
    return folder


def write_windowed(folder: Path, seed: int = 0, window: int = 24) -> Path:
    """A small Gemma 3: two of three layers see `window` tokens, far fewer than a prompt has."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = write_tokenizer(folder)
    torch.manual_seed(seed)
    config = Gemma3TextConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=64,
        query_pre_attn_scalar=64,
        sliding_window=window,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        max_position_embeddings=8192,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=None,
        initializer_range=0.15,
    )
    Gemma3ForCausalLM(config).to(torch.float16).save_pretrained(folder)
    return folder
