"""Generators of German and Spanish prose: short accounts of a day, with agreement kept by the tables."""

from random import Random
from typing import Final

# fmt: off
GERMAN_NAMES: Final = (
    ("Anna", "sie", "ihre"),
    ("Lukas", "er", "seine"),
    ("Marie", "sie", "ihre"),
    ("Felix", "er", "seine"),
    ("Sophie", "sie", "ihre"),
    ("Jonas", "er", "seine"),
)
GERMAN_PLACES: Final = (
    "in einem kleinen Dorf",
    "in einer großen Stadt",
    "am Rand des Waldes",
    "an einem See",
    "in den Bergen",
    "in der Nähe des Meeres",
)
GERMAN_FOOD: Final = (
    "frisches Brot",
    "einen Apfel",
    "eine warme Suppe",
    "Käse und Trauben",
    "Kartoffeln mit Quark",
    "ein Stück Kuchen",
    "Würstchen mit Senf",
)
GERMAN_WORK: Final = (
    "liest ein Buch",
    "lernt Mathematik",
    "schreibt einen langen Brief",
    "arbeitet im Garten",
    "repariert das alte Fahrrad",
    "spielt Klavier",
    "malt ein Bild",
)
GERMAN_WEATHER: Final = (
    ("scheint die Sonne", "geht", "in den Park"),
    ("regnet es", "bleibt", "zu Hause"),
    ("schneit es", "geht", "auf den Hügel"),
    ("ist es windig", "läuft", "an das Ufer"),
    ("ist es sehr heiß", "fährt", "zum Schwimmbad"),
)
GERMAN_KIN: Final = ("Mutter", "Schwester", "Großmutter", "Tante", "Freundin", "Nachbarin")
GERMAN_DAYS: Final = (
    "Am Montag",
    "Am Dienstag",
    "Am Mittwoch",
    "Am Donnerstag",
    "Am Freitag",
    "Am Samstag",
    "Am Sonntag",
)
GERMAN_MOOD: Final = ("glücklich", "zufrieden", "müde", "fröhlich", "stolz")
# fmt: on


def german(rng: Random) -> str:
    """A German account of somebody's week; the verb stays in second place."""
    name, er, seine = rng.choice(GERMAN_NAMES)
    job = rng.choice(
        (
            "geht noch zur Schule",
            "arbeitet in einer Bäckerei",
            "studiert an der Universität",
            "arbeitet in einem Krankenhaus",
        )
    )
    paragraphs = [
        f"{name} wohnt {rng.choice(GERMAN_PLACES)} und {job}. Jeden Morgen steht {er} um "
        f"{rng.choice(('sechs', 'sieben', 'acht', 'neun'))} Uhr auf und isst {rng.choice(GERMAN_FOOD)}."
    ]
    first = rng.randint(0, 6)
    for offset in range(rng.choice((1, 1, 2, 3, 5))):
        weather, verb, goal = rng.choice(GERMAN_WEATHER)
        kin = rng.choice(GERMAN_KIN)
        sentences = [
            f"{GERMAN_DAYS[(first + offset) % 7]} {weather}, und {name} {verb} {goal}.",
            f"Dort trifft {er} {seine} {kin}." if verb != "bleibt" else f"Dort hilft {er} der {kin}.",
            _inverted(rng, er),
            f"Am Abend essen die beiden {rng.choice(GERMAN_FOOD)}.",
            f'"Das war ein schöner Tag", sagt {name} und ist sehr {rng.choice(GERMAN_MOOD)}.',
        ]
        keep = [0, 1, *sorted(rng.sample((2, 3, 4), rng.randint(1, 3)))]
        paragraphs.append(" ".join(sentences[i] for i in keep))
    return "\n".join(paragraphs)


def _inverted(rng: Random, subject: str) -> str:
    # A time stands first, so verb and subject change places.
    verb, rest = rng.choice(GERMAN_WORK).split(" ", 1)
    return f"Am Nachmittag {verb} {subject} {rest}."


# fmt: off
SPANISH_NAMES: Final = (("María", "ella", "contenta", "cansada"), ("Pablo", "él", "contento", "cansado"),
                        ("Lucía", "ella", "contenta", "cansada"), ("Diego", "él", "contento", "cansado"),
                        ("Elena", "ella", "contenta", "cansada"), ("Carlos", "él", "contento", "cansado"))
SPANISH_PLACES: Final = ("en un pueblo pequeño", "en una ciudad grande", "cerca del mar", "al lado de un río",
                         "en las montañas", "en una casa blanca")
SPANISH_FOOD: Final = ("una sopa caliente", "pan con queso", "arroz con pollo", "una manzana roja",
                       "pescado con limón", "una tortilla de patatas", "ensalada de tomate")
SPANISH_WORK: Final = ("lee un libro", "estudia matemáticas", "escribe una carta", "trabaja en el jardín",
                       "toca la guitarra", "pinta un cuadro", "prepara la cena")
SPANISH_WEATHER: Final = (("hace sol", "va al parque"), ("llueve mucho", "se queda en casa"),
                          ("hace frío", "va al mercado"), ("hay viento", "camina por la playa"),
                          ("hace calor", "va a la piscina"))
SPANISH_KIN: Final = ("su madre", "su hermana", "su abuelo", "su amiga", "su vecino", "su primo")
SPANISH_DAYS: Final = ("El lunes", "El martes", "El miércoles", "El jueves", "El viernes", "El sábado",
                       "El domingo")
# fmt: on


def spanish(rng: Random) -> str:
    """A Spanish account of somebody's week; adjectives agree with the person."""
    name, she, glad, tired = rng.choice(SPANISH_NAMES)
    job = rng.choice(
        (
            "estudia en la escuela",
            "trabaja en una tienda",
            "trabaja en un hospital",
            "enseña en la universidad",
        )
    )
    paragraphs = [
        f"{name} vive {rng.choice(SPANISH_PLACES)} y {job}. Cada mañana se levanta a las "
        f"{rng.choice(('seis', 'siete', 'ocho', 'nueve'))} y desayuna {rng.choice(SPANISH_FOOD)}."
    ]
    first = rng.randint(0, 6)
    for offset in range(rng.choice((1, 1, 2, 3, 5))):
        weather, action = rng.choice(SPANISH_WEATHER)
        kin = rng.choice(SPANISH_KIN)
        sentences = [
            f"{SPANISH_DAYS[(first + offset) % 7]} {weather} y {name} {action} con {kin}.",
            f"Por la tarde {rng.choice(SPANISH_WORK)}.",
            f"Después comen {rng.choice(SPANISH_FOOD)}, que le gusta mucho a {kin}.",
            f'"Ha sido un buen día", dice {name}, y {she} está muy {rng.choice((glad, tired))}.',
        ]
        keep = [0, *sorted(rng.sample((1, 2, 3), rng.randint(1, 3)))]
        paragraphs.append(" ".join(sentences[i] for i in keep))
    return "\n".join(paragraphs)
