"""A small Llama with random weights and a byte-level tokenizer, as real files, made in a second."""

from pathlib import Path

from intent.task.schema import Choice, Count, Entity, IntentSchema

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
BASKET = IntentSchema(
    "basket",
    "Turn the shopper's message into a list of cart intents.",
    (Choice("action", ("add", "remove")), Entity("product"), Count("quantity", 1, 99, 1)),
    repeat=4,
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


def write_adapter(folder: Path, base: Path, seed: int = 0) -> Path:
    """Write a LoRA adapter of rank 2 with random weights for the model in `base`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def write_pieces(folder: Path, texts: tuple[str, ...] = NAMES, vocabulary: int = 500):
    """Write a tokenizer like Gemma's: spaces are ▁, unknown characters are bytes, and all token pairs are merges."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=vocabulary - 256 - len(special), show_progress=False)
    text = "add remove none product quantity milk eggs please two three, ça va? Größe über ñandú 牛乳 をください молоко"
    trained.train_from_iterator([*texts, text, "aaaa bbbb    !!!! 1234567890 the then there other"] * 3, trainer)
    # The first merge has the lowest id, and characters have the highest ids, as in SentencePiece.
    made = sorted(trained.get_vocab().items(), key=lambda entry: (len(entry[0]) == 1, entry[1]))
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *(piece for piece, _ in made), "\n"]
    ids = {piece: i for i, piece in enumerate(pieces)}
    ways = [(p[:at], p[at:]) for p in pieces for at in range(1, len(p)) if p[:at] in ids and p[at:] in ids]
    model = models.BPE(ids, ways, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>"}'
    (folder / "tokenizer_config.json").write_text(names)
    return tokenizer


def write_gemma(folder: Path, window: int = 16, seed: int = 0, **changes) -> Path:
    """Write a small Gemma 3 with random weights: five sliding-window layers, a full-attention one, and a sliding-window one.

    `changes`: values of its configuration that differ.
    """
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = write_pieces(folder)
    torch.manual_seed(seed)
    shape = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "query_pre_attn_scalar": 64,
        "sliding_window": window,
        "max_position_embeddings": 8192,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "initializer_range": 0.05,
    }
    config = Gemma3TextConfig(**shape | changes)
    model = Gemma3ForCausalLM(config)
    # Norms start at 0, which means 1. Another value reveals code that ignores them.
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.normal_(weight, std=0.2)
    model.to(torch.float16).save_pretrained(folder)
    return folder
