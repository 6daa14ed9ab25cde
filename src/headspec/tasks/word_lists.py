"""Words that the language families are made of; most are one token in common vocabularies."""

NOUNS: dict[str, str] = {
    "key": "keys",
    "book": "books",
    "picture": "pictures",
    "letter": "letters",
    "dog": "dogs",
    "cat": "cats",
    "boy": "boys",
    "girl": "girls",
    "doctor": "doctors",
    "teacher": "teachers",
    "student": "students",
    "farmer": "farmers",
    "driver": "drivers",
    "author": "authors",
    "player": "players",
    "friend": "friends",
    "chair": "chairs",
    "window": "windows",
    "house": "houses",
    "car": "cars",
    "tree": "trees",
    "road": "roads",
    "river": "rivers",
    "song": "songs",
}
"""Singular to plural."""

PREPOSITIONS = ("near", "behind", "beside", "by")
"""What puts a second noun after the first."""

VERBS: tuple[tuple[str, str], ...] = (("is", "are"), ("was", "were"), ("has", "have"))
"""Singular and plural."""

CAPITALS: dict[str, str] = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Germany": "Berlin",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Russia": "Moscow",
    "Egypt": "Cairo",
    "Greece": "Athens",
    "Ireland": "Dublin",
    "Austria": "Vienna",
    "Portugal": "Lisbon",
    "Sweden": "Stockholm",
    "Poland": "Warsaw",
    "Cuba": "Havana",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Syria": "Damascus",
    "England": "London",
    "Canada": "Ottawa",
}
"""Country to capital."""

OPPOSITES: dict[str, str] = {
    "hot": "cold",
    "big": "small",
    "up": "down",
    "left": "right",
    "good": "bad",
    "old": "new",
    "high": "low",
    "fast": "slow",
    "hard": "soft",
    "rich": "poor",
    "full": "empty",
    "open": "closed",
    "early": "late",
    "light": "dark",
    "wet": "dry",
    "first": "last",
    "true": "false",
    "inside": "outside",
    "strong": "weak",
    "long": "short",
}
"""A word to its opposite; no word is the answer to two."""

MONTHS: tuple[str, ...] = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

DAYS: tuple[str, ...] = (
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
)

NAMES = (
    "Mary",
    "John",
    "Tom",
    "James",
    "Dan",
    "Sarah",
    "Michael",
    "Robert",
    "David",
    "Paul",
    "Mark",
    "George",
    "Richard",
    "Thomas",
    "Charles",
    "Peter",
    "Henry",
    "William",
    "Anna",
    "Alice",
    "Laura",
    "Jane",
    "Kate",
    "Susan",
    "Emily",
    "Helen",
    "Linda",
    "Lisa",
    "Simon",
    "Martin",
)

PLACES = ("store", "park", "school", "office", "garden", "station", "hospital", "house")

OBJECTS = ("drink", "book", "ring", "key", "bag", "ball", "letter", "gift")

_NOUN_TEXT = """
time people way day man thing woman life child world school state family group country hand
part place case week company system program question work number night point home water room
mother area money story fact month lot right study book eye job word business issue side
kind head house service friend father power hour game line end member law car city name team
minute idea body back parent face level office door health person art war history party
result change morning reason research girl guy moment air teacher force education foot boy
age policy music
"""

WORDS = tuple(_NOUN_TEXT.split())
"""Common nouns for random sequences."""
