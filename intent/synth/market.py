"""Sample catalogs of realistic products from several departments, with near-duplicates and invented names."""

from collections.abc import Sequence
from random import Random

from intent.synth import size
from intent.synth.language import Language, load
from intent.synth.lexicon import Idea, Pool, departments
from intent.synth.shelf import Product, Shelf, ontology, qualities
from intent.synth.size import pick

ONSETS = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "qu",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "w",
    "z",
)
VOWELS = ("a", "e", "i", "o", "u", "ea", "io", "y")
CODAS = ("", "", "l", "n", "r", "s", "x", "m", "k", "ra", "lo", "ta", "vex", "nix", "do", "mo", "li")
QUALITIES = (
    "Blue",
    "Mega",
    "Ultra",
    "Nova",
    "Royal",
    "Smart",
    "Silver",
    "Eco",
    "Prime",
    "Night",
    "Solar",
    "Tiny",
    "Classic",
    "Turbo",
)
THINGS = (
    "Kit",
    "Set",
    "Box",
    "Adapter",
    "Bundle",
    "Case",
    "Mount",
    "Clip",
    "Cover",
    "Station",
    "Sensor",
    "Refill",
    "Holder",
    "Panel",
)
VERSIONS = ("S", "M", "L", "XL", "Mini", "Max", "Pro", "Lite", "2", "3", "Black", "White", "500 g", "1 kg")
# The departments of each kind of shop. A supermarket is listed three times to be drawn more often.
SUPERMARKET = ("grocery", "bakery", "deli", "drinks", "frozen", "world_food", "cleaning", "pharmacy", "baby", "pets")
SHOPS = (
    *(SUPERMARKET, SUPERMARKET, SUPERMARKET),
    ("pharmacy", "cosmetics", "baby", "cleaning"),
    ("diy", "garden", "home", "car", "smart_home"),
    ("electronics", "appliances", "smart_home", "media"),
    ("fashion", "sports", "cosmetics"),
    ("toys", "baby", "office", "craft", "party", "media"),
    ("home", "appliances", "garden", "pets"),
)
ANY = 0.3  # the share of shops with departments of any kind of shop
STYLES = ("plain", "plain", "plain", "plain", "plain", "lower", "upper", "comma")
# (fewest products, most products, share of the shops). Most shops have a few dozen, some have hundreds.
SIZES = ((5, 10, 0.05), (10, 60, 0.735), (60, 150, 0.13), (150, 400, 0.07), (400, 1000, 0.015))
LARGE = 80  # A shop with more products needs all its departments.
NEAR = 0.1  # the chance that a product adds another one that shares a word with it (apples, apple juice)


def sample(rng: Random, languages: Sequence[str], pool: Pool, brands: frozenset[str]) -> Shelf:
    """Return 5 to 1,000 products of the ideas in `pool`, all named in one shop's style.

    Half of the shops name their products in English, the others in one of `languages`. A few draw one of `languages` for each
    product, like a delicatessen. `brands`: the brands that may occur.
    """
    language = "en" if rng.random() < 0.5 else pick(rng, languages)
    spoken = languages if rng.random() < 0.12 else (language,)
    target, invented = _target(rng), pick(rng, (0.0, 0.0, 0.0, 0.05, 0.1, 0.4))
    stock = departments() if rng.random() < ANY else [name for name in pick(rng, SHOPS) if name in departments()]
    chosen = set(rng.sample(stock, len(stock) if target > LARGE else min(len(stock), pick(rng, (1, 1, 2, 3, 7)))))
    local = [idea for department, members in pool.departments.items() if department in chosen for idea in members]
    if len({idea.name for idea in local}) < 5:
        local = [idea for members in pool.departments.values() for idea in members]
    shop = _Shop(rng, spoken, brands)
    products: dict[str, Product] = {}
    for _ in range(4 * target):
        if len(products) >= target:
            break
        for product in relatives(rng) if rng.random() < invented else shop.variants(pick(rng, local)):
            products.setdefault(product.name.casefold(), product)
            near = [idea for idea in pool.near(product.idea) if idea.department in stock] if rng.random() < NEAR else []
            if near:
                products.setdefault((beside := shop.product(pick(rng, near))).name.casefold(), beside)
    shelf = list(products.values())[:target]
    rng.shuffle(shelf)
    return Shelf(shelf, language)


def _target(rng: Random) -> int:
    """Draw how many products the shop has."""
    low, high = rng.choices([(low, high) for low, high, _ in SIZES], [share for *_, share in SIZES])[0]
    # Within each range too, small shops are more frequent than large ones.
    return low + int((high - low + 1) * rng.random() ** 1.4)


class _Shop:
    """One shop's habits: how often its names have brands, sizes and qualities, and how it writes them.

    `behind`: a variety comes behind the noun ("Candle Lemon").
    """

    def __init__(self, rng: Random, languages: Sequence[str], brands: frozenset[str]):
        self.rng, self.languages = rng, [load(code) for code in languages]
        self.brands = {d: [name for name in names if name in brands] for d, names in ontology()["brands"].items()}
        self.branded, self.sized, self.described = (rng.random() * 0.8, rng.random(), rng.random())
        self.style, self.size_style, self.pack = pick(rng, STYLES), pick(rng, size.STYLES), rng.randrange(6)
        self.behind = rng.random() < 0.5
        self.wordings: dict[tuple[str, str], int] = {}

    def variants(self, idea: Idea) -> list[Product]:
        """Return a product of the idea, and often others that differ from it in brand, size or quality."""
        first = self.product(idea)
        products = [first]
        while self.rng.random() < 0.35:
            products.append(self.product(idea, first))
        return products

    def product(self, idea: Idea, like: Product | None = None) -> Product:
        """Return a product of the idea. `like`: a product that it differs from in brand, size or quality."""
        brand = self._maybe(self.brands.get(idea.department, ()), self.branded)
        amount = self._maybe(idea.sizes, self.sized)
        quality = self._maybe(qualities(idea.name), self.described)
        if like:
            change = pick(self.rng, ("brand", "size", "quality"))
            brand = brand if change == "brand" else like.brand
            amount = amount if change == "size" else like.size
            quality = quality if change == "quality" and like.quality else like.quality
        return Product(self._name(idea, brand, amount, quality), idea.name, brand, amount, quality)

    def _maybe(self, options: Sequence[str], chance: float) -> str:
        return pick(self.rng, options) if options and self.rng.random() < chance else ""

    def _name(self, idea: Idea, brand: str, amount: str, quality: str) -> str:
        language = pick(self.rng, self.languages)
        noun = language.nouns[idea.name][0]
        if quality:
            noun = language.described(idea.name, 0, quality, self._wording(language, quality), self.behind)
        text = language.title(noun.say("title", idea.number == "many"))
        amount = size.printed(amount, self.size_style, language.raw, self.pack)
        parts = [part for part in ((brand, text, amount) if language.brand_first else (text, brand, amount)) if part]
        if self.style == "comma":
            return ", ".join(parts)
        name = " ".join(parts)
        return name.lower() if self.style == "lower" else name.upper() if self.style == "upper" else name

    def _wording(self, language: Language, quality: str) -> int:
        """Return which wording of a quality this shop uses. It keeps to one, so that two names never mean one product."""
        if (language.code, quality) not in self.wordings:
            self.wordings[language.code, quality] = int(self.rng.random() ** 2 * language.wordings(quality))
        return self.wordings[language.code, quality]


def relatives(rng: Random) -> list[Product]:
    """Return an invented product, or sometimes two or three versions of it ("Zorvex Mini", "Zorvex Max")."""
    first = invent(rng)
    if rng.random() > 0.3:
        return [first]
    return [Product(f"{first.name} {version}", extra=True) for version in rng.sample(VERSIONS, pick(rng, (2, 2, 3)))]


def invent(rng: Random) -> Product:
    """Invent a product whose name means nothing, so that a model must copy it from the catalog."""
    word = "".join(pick(rng, ONSETS) + pick(rng, VOWELS) for _ in range(pick(rng, (1, 2, 2)))) + pick(rng, CODAS)
    form = rng.randrange(5)
    if form == 0 and len(word) > 3:
        return Product(word.capitalize(), extra=True)
    if form == 1:
        return Product(f"{word.capitalize()} {pick(rng, ('X', 'S', 'Pro ', 'V', 'No. '))}{rng.randint(2, 900)}", extra=True)
    if form == 2:
        return Product(f"{pick(rng, QUALITIES)} {word.capitalize()} {pick(rng, THINGS)}", extra=True)
    if form == 3:
        return Product(f"{word.capitalize()} {pick(rng, THINGS)} {pick(rng, ('S', 'M', 'L', 'XL', 'Mini', 'Max'))}", extra=True)
    return Product(f"{word.capitalize()} {pick(rng, THINGS)}", extra=True)
