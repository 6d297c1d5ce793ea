"""Word lists and small fact tables of the corpus; facts keep the generated sentences consistent."""

from typing import Final, NamedTuple


class Taste(NamedTuple):
    """A thing to eat: what it is like, what it comes from, and what it goes with."""

    name: str
    first: str
    second: str
    colour: str
    source: str
    dishes: tuple[str, ...]


# Tables read better as tables than one word a line.
# fmt: off
CONDIMENTS: Final = (
    Taste("mustard", "sharp", "warm", "yellow", "mustard seeds and vinegar",
          ("sausages", "a ham sandwich", "roast beef", "a soft pretzel")),
    Taste("ketchup", "sweet", "a little sour", "red", "ripe tomatoes and sugar",
          ("fried potatoes", "a burger", "scrambled eggs", "fish fingers")),
    Taste("mayonnaise", "creamy", "mild", "pale", "egg yolks and oil",
          ("fried potatoes", "a tuna sandwich", "cold chicken", "boiled eggs")),
    Taste("horseradish", "hot", "fresh", "white", "a grated root and cream",
          ("roast beef", "smoked trout", "boiled ham", "beetroot salad")),
    Taste("soy sauce", "salty", "deep", "dark", "soya beans and wheat",
          ("fried rice", "steamed dumplings", "grilled fish", "noodles")),
    Taste("mint sauce", "fresh", "sweet", "green", "chopped mint and vinegar",
          ("roast lamb", "new potatoes", "green peas", "grilled courgettes")),
    Taste("chilli oil", "hot", "fragrant", "red", "dried chillies and warm oil",
          ("noodles", "steamed dumplings", "fried rice", "a plain pizza")),
    Taste("honey mustard", "sweet", "sharp", "golden", "honey and mustard seeds",
          ("cold chicken", "a ham sandwich", "baked salmon", "a green salad")),
    Taste("mango chutney", "sweet", "spicy", "orange", "mangoes, sugar and ginger",
          ("a mild curry", "cheese on toast", "cold chicken", "fresh flatbread")),
    Taste("tartare sauce", "creamy", "sharp", "pale", "mayonnaise, capers and gherkins",
          ("fried fish", "fish fingers", "grilled prawns", "boiled potatoes")),
    Taste("garlic sauce", "strong", "creamy", "white", "crushed garlic and yoghurt",
          ("grilled lamb", "fried potatoes", "baked mushrooms", "fresh flatbread")),
    Taste("cranberry sauce", "tart", "sweet", "red", "cranberries and orange peel",
          ("roast turkey", "cheese on toast", "cold ham", "warm porridge")),
    Taste("balsamic vinegar", "sour", "sweet", "dark", "the juice of grapes",
          ("a green salad", "ripe strawberries", "grilled courgettes", "fresh tomatoes")),
    Taste("pesto", "fragrant", "nutty", "green", "basil, pine nuts and hard cheese",
          ("fresh pasta", "grilled chicken", "roasted tomatoes", "warm bread")),
)

FRUITS: Final = (
    Taste("apple", "crisp", "sweet", "red", "an old tree behind the house",
          ("cheese", "oat biscuits", "warm porridge", "a slice of ham")),
    Taste("pear", "soft", "juicy", "green", "the orchard beside the road",
          ("blue cheese", "walnuts", "dark chocolate", "a slice of cake")),
    Taste("mango", "juicy", "fragrant", "orange", "a warm valley in the south",
          ("sticky rice", "plain yoghurt", "a squeeze of lime", "grilled fish")),
    Taste("plum", "sweet", "a little sour", "purple", "the garden of a neighbour",
          ("vanilla ice cream", "warm cake", "oat biscuits", "roast duck")),
    Taste("peach", "soft", "sweet", "golden", "a market stall by the harbour",
          ("cold cream", "plain yoghurt", "a slice of ham", "almond cake")),
)

NAMES: Final = (
    ("Anna", "she", "her"), ("Tom", "he", "his"), ("Lucy", "she", "her"), ("Oliver", "he", "his"),
    ("Mia", "she", "her"), ("Ben", "he", "his"), ("Clara", "she", "her"), ("Jack", "he", "his"),
    ("Nora", "she", "her"), ("Sam", "he", "his"), ("Ella", "she", "her"), ("Leo", "he", "his"),
)
RELATIVES: Final = ("grandmother", "grandfather", "mother", "father", "aunt", "uncle", "sister", "brother")
FRIENDS: Final = ("neighbour", "cousin", "best friend", "old teacher")
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = ("January", "February", "March", "April", "May", "June", "July", "August",
                 "September", "October", "November", "December")
NUMBERS: Final = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PRAISE: Final = ("wonderful", "delicious", "perfect", "excellent", "lovely", "surprisingly good")
MEALS: Final = ("breakfast", "lunch", "supper", "dinner", "a picnic")
PLACES: Final = ("kitchen table", "top shelf", "window sill", "wooden counter")

HEROES: Final = (
    ("fox", "clever"), ("hare", "quick"), ("bear", "gentle"), ("mouse", "brave"), ("owl", "wise"),
    ("hedgehog", "shy"), ("cat", "curious"), ("badger", "patient"), ("duck", "cheerful"),
    ("goat", "stubborn"),
)
LANDS: Final = ("a small village by the sea", "a deep green forest", "a quiet valley", "an old stone mill",
                "a little house on a hill", "a narrow street in the old town", "a farm beside the river")
TREASURES: Final = ("silver bell", "golden key", "blue lantern", "wooden flute", "red kite", "glass marble",
                    "old map", "tiny boat", "brass compass", "woollen scarf")
HIDING: Final = ("under the old bridge", "behind the mill", "at the top of the tall tower",
                 "inside a hollow tree", "at the bottom of the well", "beside the frozen pond",
                 "in a cave above the lake")
TROUBLES: Final = (
    ("the path was blocked by a fallen tree", "climbed over it very slowly"),
    ("a cold rain began to fall", "waited under a wide leaf until it stopped"),
    ("the river was too deep to cross", "built a small raft out of branches"),
    ("a thick fog covered the hills", "followed the sound of the church bell"),
    ("the gate was locked", "crawled through a gap in the fence"),
    ("the wind blew out the lamp", "walked on by the light of the moon"),
    ("the bridge was broken", "jumped from stone to stone"),
    ("the night grew very dark", "sang a song until the stars came out"),
)
MORALS: Final = (
    "a good friend is worth more than gold", "it is never too late to say sorry",
    "small steps lead to far places", "a kind word opens every door", "those who share are never alone",
    "courage is quiet, but it stays",
)
FEELINGS: Final = ("happy", "proud", "thankful", "calm", "glad")

TOWNS: Final = ("Ashford", "Millbrook", "Harwick", "Stonebridge", "Eastport", "Fairfield", "Westhaven",
                "Greenhill", "Norton", "Lakeside")
WINDS: Final = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")
SKIES: Final = (
    ("sunny", "clear skies", "no rain"), ("cloudy", "a grey sky", "a small chance of rain"),
    ("rainy", "low clouds", "steady rain"), ("stormy", "dark clouds", "heavy rain and thunder"),
    ("foggy", "thick fog", "a few drops of drizzle"), ("snowy", "a white sky", "light snow"),
)
ADVICE: Final = {
    "sunny": "Take a hat and drink plenty of water.", "cloudy": "A light jacket will be enough.",
    "rainy": "Do not forget your umbrella.", "stormy": "Please stay indoors and close the windows.",
    "foggy": "Drive slowly and use your lights.", "snowy": "Wear warm boots and watch out for ice.",
}
# fmt: on
