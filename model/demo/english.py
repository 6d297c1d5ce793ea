"""Generators of English prose: talk about food, small stories, weather reports."""

from random import Random

from model.demo import words
from model.demo.words import Taste


def _plural(noun: str) -> bool:
    return noun.endswith(
        (
            "sausages",
            "potatoes",
            "eggs",
            "fingers",
            "peas",
            "courgettes",
            "dumplings",
            "noodles",
            "mushrooms",
            "prawns",
            "strawberries",
            "tomatoes",
            "biscuits",
            "walnuts",
        )
    )


def _praise(rng: Random, thing: Taste, other: Taste) -> list[str]:
    """Every sentence that can be said about `thing`, in the order in which people tend to say them."""
    dishes = rng.sample(thing.dishes, 4)
    relative = rng.choice(words.RELATIVES)
    friend, pronoun, _ = rng.choice(words.NAMES)
    taste = "taste" if _plural(dishes[1]) else "tastes"
    return [
        f"I like to have it with {dishes[0]}, and sometimes I even eat it with {dishes[1]}.",
        f"My {relative} always kept some {thing.name} on the {rng.choice(words.PLACES)} when I was young.",
        f"Good {thing.name} comes from {thing.source}, and you can taste it at once.",
        f"Without it, {dishes[1]} {taste} of almost nothing.",
        f"Last {rng.choice(words.DAYS)} we had {dishes[2]} with {thing.name} for {rng.choice(words.MEALS)}, "
        f"and it was {rng.choice(words.PRAISE)}.",
        f"The {thing.colour} colour makes a plain plate look much more cheerful.",
        f"My friend {friend} says that {other.name} is better, but I think that {pronoun} is wrong.",
        f"I have tried {other.name} too, but it is too {other.first} for me.",
        f"You should try it with {dishes[3]} at least once.",
        f"A little {thing.name} is enough for {rng.choice(words.NUMBERS)} people, so it lasts a long time.",
        f"If you ask me, every kitchen should have some {thing.name} in it.",
    ]


def _opening(rng: Random, thing: Taste, kind: str) -> str:
    because = f"because it is {thing.first} and {thing.second}"
    dish = rng.choice(thing.dishes)
    return rng.choice(
        (
            f"My favourite {kind} is {thing.name} {because}.",
            f"My favourite {kind} is {thing.name} {because}.",
            f"My favourite {kind} is {thing.name}, and I eat it almost every day {because}.",
            f"My {rng.choice(words.RELATIVES + words.FRIENDS)}'s favourite {kind} is {thing.name} {because}.",
            f"The best {kind} for {dish} is {thing.name}, {because}.",
            f"I love {thing.name} {because}, and it goes so well with {dish}.",
            f"Do you like {thing.name}? I do, {because}.",
        )
    )


def food(rng: Random) -> str:
    """Somebody talks about a favourite condiment, one topic a paragraph."""
    paragraphs = []
    topics = rng.sample(words.CONDIMENTS, 6)
    for index in range(rng.choice((1, 1, 2, 2, 3, 4))):
        thing, other = topics[index], topics[index + 1]
        sentences = _praise(rng, thing, other)
        chosen = sorted(rng.sample(range(len(sentences)), rng.randint(2, 7)))
        if index == 0:
            start = _opening(rng, thing, "condiment")
        else:
            link = rng.choice(("After that I like", "My second choice is", "I am also fond of"))
            start = f"{link} {thing.name}, which is {thing.first} and {thing.second}."
        paragraphs.append(" ".join([start, *(sentences[i] for i in chosen)]))
    if rng.random() < 0.4:
        paragraphs.append(
            f"So when you come to visit me for {rng.choice(words.MEALS)}, bring a jar of "
            f"{topics[0].name}, and I will be {rng.choice(words.FEELINGS)}."
        )
    return "\n".join(paragraphs)


def fruit(rng: Random) -> str:
    """Somebody talks about a fruit (part of the food domain: the same topic with another noun)."""
    thing = rng.choice(words.FRUITS)
    friend, pronoun, possessive = rng.choice(words.NAMES)
    dish = rng.choice(thing.dishes)
    return " ".join(
        (
            f"My favourite fruit is the {thing.name} because it is {thing.first} and {thing.second}.",
            f"The best ones come from {thing.source}, where they turn {thing.colour} in "
            f"{rng.choice(words.MONTHS[5:10])}.",
            f"{friend} eats {rng.choice(words.NUMBERS)} of them a week, and {pronoun} shares them with "
            f"{possessive} {rng.choice(words.RELATIVES)}.",
            f"Try one with {dish}; it is {rng.choice(words.PRAISE)}.",
        )
    )


def story(rng: Random) -> str:
    """A small story: a hero, a lost thing, a few troubles, a helper, a happy end and a moral."""
    animal, trait = rng.choice(words.HEROES)
    name, he, his = rng.choice(words.NAMES)
    helper, helper_trait = rng.choice([h for h in words.HEROES if h[0] != animal])
    thing, land, hiding = rng.choice(words.TREASURES), rng.choice(words.LANDS), rng.choice(words.HIDING)
    owner = rng.choice(words.RELATIVES[:6])
    article = "an" if animal[0] in "aeiou" else "a"
    lines = [
        f"Once upon a time there was a {trait} {animal} called {name}, who lived in {land}."
        if rng.random() < 0.7
        else f"In {land} there lived {article} {animal} called {name}. Everybody knew that {name} was {trait}.",
        rng.choice(
            (
                f"One morning {name} saw that the {thing} of {his} {owner} was gone.",
                f"{name} wanted nothing more than to find the {thing} that {his} {owner} had lost.",
                f'One day {his} {owner} said, "I have lost my {thing}. Can you find it for me?"',
            )
        ),
        f'"I will look for the {thing}," said {name}, and {he} set out '
        f"{rng.choice(('before the sun was up', 'with a bag of bread and cheese', 'without another word'))}.",
    ]
    paragraphs = [" ".join(lines)]
    starts = [f"On the {number} day" for number in ("first", "second", "third", "fourth", "fifth")]
    troubles = rng.sample(words.TROUBLES, rng.choice((1, 1, 2, 2, 3, 5)))
    for start, (trouble, answer) in zip(starts, troubles, strict=False):
        feeling = rng.choice(("tired", "worried", "a little afraid", "cold"))
        text = f"{start} {trouble}. {name} was {feeling}, but {he} did not give up. So {he} {answer}."
        if rng.random() < 0.5:
            text += f' "I must find the {thing}," {he} thought.'
        paragraphs.append(text)
    paragraphs.append(
        f"Then {he} met a {helper_trait} {helper}. "
        f'"Have you seen {"an" if thing[0] in "aeiou" else "a"} {thing}?" asked {name}. '
        f'"Yes," said the {helper}, "it lies {hiding}. I will show you the way." '
        f"Together they went there, and they found the {thing} {hiding}."
    )
    paragraphs.append(
        f"{name} carried the {thing} home, and {his} {owner} was very {rng.choice(words.FEELINGS)}. "
        f"From that day on {name} and the {helper} were best friends. "
        f"And {name} learned that {rng.choice(words.MORALS)}."
    )
    return "\n".join(paragraphs)


def weather(rng: Random) -> str:
    """A weather report for one to six towns; temperatures fit the sky."""
    day = rng.choice(words.DAYS)
    lines = [f"Weather report for {day}, {rng.randint(1, 28)} {rng.choice(words.MONTHS)}."]
    for town in rng.sample(words.TOWNS, rng.choice((1, 1, 2, 3, 6))):
        sky, cover, rain = rng.choice(words.SKIES)
        high = rng.randint(-6, 1) if sky == "snowy" else rng.randint(8, 29)
        low = high - rng.randint(3, 8)
        lines.append(
            f"{town} will be {sky}, with {cover} and {rain}. The high will be {high} degrees and the low "
            f"{low} degrees. A {rng.choice(('light', 'fresh', 'strong'))} wind blows from the "
            f"{rng.choice(words.WINDS)} at {rng.randrange(5, 60, 5)} kilometres an hour. {words.ADVICE[sky]}"
        )
    tomorrow = words.DAYS[(words.DAYS.index(day) + 1) % 7]
    sky, cover, rain = rng.choice(words.SKIES)
    lines.append(f"Outlook for {tomorrow}: {sky} in most places, with {cover} and {rain}.")
    return "\n".join(lines)
